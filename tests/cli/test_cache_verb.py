import json
import os
import sys
import time

import pytest

from ser.cli import main
from ser.data import LogMel
from ser.features.inventory import stored_caches
from ser.storage import lock_of

DAY_S = 86_400
RATE_HZ = 8000


@pytest.fixture
def ser(monkeypatch, capsys, cache_dir):
    """Run ``ser cache`` on the cache folder; returns the exit code, and what was printed to stdout and stderr."""
    monkeypatch.setattr(sys, "argv", ["ser"])

    def call(*options):
        code = main(["cache", "--cache_dir", str(cache_dir), *map(str, options)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.fixture
def caches(tiny, make_corpus, cache_dir):
    """Build two caches, with 8 and with 12 mel filters, the first one unused for ten days; return their ids."""
    root = make_corpus()
    ids = []
    for n_mels in (8, 12):
        tiny(root, features=LogMel(RATE_HZ, n_mels=n_mels, n_fft=256)).prepare_data()
        ids += [cache.id for cache in stored_caches(cache_dir) if cache.id not in ids]
    then = time.time() - 10 * DAY_S
    for path in (cache_dir / "features" / ids[0]).iterdir():
        os.utime(path, (then, then))
    return ids


def listed(ser):
    return json.loads(ser("--format", "json")[1])


def test_caches_are_listed_the_last_used_first(ser, caches, cache_dir):
    first, second = listed(ser)
    assert [first["id"], second["id"]] == [caches[1], caches[0]]
    assert (first["recordings"], second["recordings"]) == (16, 16)
    assert first["settings"]["features"]["init_args"]["n_mels"] == 12
    folder = cache_dir / "features" / caches[1]
    assert first["size_bytes"] == sum(path.stat().st_size for path in folder.iterdir())
    code, out, _ = ser()
    assert code == 0
    assert "10 days" in out
    assert "n_mels=12" in "".join(out.split())


def test_looking_is_not_using(ser, caches):
    for _ in range(2):
        assert [cache["id"] for cache in listed(ser)] == [caches[1], caches[0]]


def test_opening_is_using(ser, caches, tiny, tmp_path):
    tiny(tmp_path / "tiny", features=LogMel(RATE_HZ, n_mels=8, n_fft=256)).prepare_data()
    assert [cache["id"] for cache in listed(ser)] == caches


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["--older_than_days", "9.5"], [1]),
        (["--older_than_days", "11"], [0, 1]),
        (["--older_than_days", "0"], []),
        (["--all"], []),
        (["--remove", "ID0"], [1]),
        (["--remove", "ID1", "ID0"], []),
    ],
)
def test_what_is_chosen_is_removed(ser, caches, options, left, cache_dir):
    code, out, _ = ser(*(caches[int(o[2])] if o.startswith("ID") else o for o in options))
    assert code == 0
    assert f"Removed {2 - len(left)} of 2 feature caches" in out
    assert {cache.id for cache in stored_caches(cache_dir)} == {caches[i] for i in left}
    assert not any((cache_dir / "features").glob(".*/"))


def test_a_removed_cache_is_built_again(ser, caches, tiny, tmp_path):
    ser("--all")
    corpus = tiny(tmp_path / "tiny", features=LogMel(RATE_HZ, n_mels=8, n_fft=256))
    corpus.prepare_data()
    assert [cache["recordings"] for cache in listed(ser)] == [16]


def test_a_cache_that_is_being_built_stays(ser, caches, cache_dir):
    with lock_of(cache_dir / "features" / caches[0]):
        code, _, err = ser("--remove", caches[0])
    assert code == 2
    assert f"The cache {caches[0]} is being built by another process; remove it later." in err
    assert len(stored_caches(cache_dir)) == 2


def test_a_damaged_cache_is_listed_and_can_be_removed(ser, caches, cache_dir):
    folder = cache_dir / "features" / caches[0]
    (folder / "settings.json").write_text("{")
    (folder / "a.rows").write_bytes(b"nonsense")
    assert "(unfinished or" in ser()[1]
    assert ser("--remove", caches[0])[0] == 0
    assert len(stored_caches(cache_dir)) == 1


def test_no_caches(ser, cache_dir):
    cache_dir.mkdir()
    assert ser() == (0, f"No feature caches in {cache_dir}.\n", "")
    assert ser("--format", "json")[1] == "[]\n"
    assert ser("--all")[0] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--remove", "abc"], "There is no feature cache abc; there are "),
        (["--remove"], "expected at least one argument"),
        (["--older_than_days", "-1"], "--older_than_days is -1.0; it must be a number of days, 0 or more"),
        (["--older_than_days", "nan"], "it must be a number of days"),
        (["--older_than_days", "week"], "invalid float value: 'week'"),
        (["--all", "--remove", "abc"], "not allowed with argument"),
        (["--al"], "There is no option '--al'. Did you mean '--all'?"),
        (["--cache_dir", "nowhere"], "There is no folder nowhere"),
    ],
)
def test_bad_input_gets_one_message(ser, caches, options, message, cache_dir):
    code, out, err = ser(*options)
    assert (code, out) == (2, "")
    assert err.startswith("ser: error: ")
    assert err.count("\n") == 1
    assert message in err
    assert len(stored_caches(cache_dir)) == 2
