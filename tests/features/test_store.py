import itertools
import json
import multiprocessing
import os
import pickle
import random
import re
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from threading import Timer
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from ser import parallel
from ser.data import FrontEnd, LogMel, Preprocess
from ser.errors import UserError
from ser.features import store
from ser.features.audio import audio_files, inspect_files
from ser.features.inventory import stored_caches
from ser.features.shards import Rows, consecutive
from ser.features.statistics import feature_statistics
from ser.features.store import FeatureStore, Piece

RATE_HZ = 8000
# A process that forks from a clean one: the test's own has threads, and a new one would import torch for seconds.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["ser.features.store", "librosa.effects", "pytest"])
forks = pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="work is shared between forked processes here"
)


def front_end(preprocess=Preprocess(duration_s=0.5), **options):  # noqa: B008  (frozen)
    return FrontEnd(preprocess, LogMel(RATE_HZ, **{"n_mels": 8, "n_fft": 256, "deltas": 1, **options}))


DIVIDED = Preprocess(duration_s=0.15, segment_hop_s=0.1)  # the recordings below have one to five segments


def record(folder, names):
    """Write a recording of its own for every name."""
    folder.mkdir(exist_ok=True)
    for name in names:
        samples = np.random.default_rng(name).uniform(-0.5, 0.5, 500 + 37 * (name % 100))
        soundfile.write(folder / f"{name:04}.wav", samples, RATE_HZ)
    return hashed(folder)


def hashed(folder):
    paths = audio_files(folder)
    looks = inspect_files(paths, folder.parent / f"{folder.name}.seen")
    return [Piece(look.digest, path) for look, path in zip(looks, paths, strict=True)]


@pytest.fixture
def files(tmp_path):
    return record(tmp_path / "recordings", range(12))


def rows_of(features, files):
    """Return the numbers of the rows of all segments of some files, in their order."""
    return consecutive(*np.array(features.spans([key for key, *_ in files])).T)


def assert_right(features, files):
    """Hold the rows of files against features computed alone, bit for bit, and what is stored of their statistics."""
    expected = [features.front_end.segments(path, change) for _, path, change, _ in files]
    assert [span.number for span in features.spans([key for key, *_ in files])] == [len(valid) for valid in expected]
    rows = rows_of(features, files)
    lengths = features.rows.lengths[rows].tolist()
    for row, stored, length, valid in zip(
        rows, features.rows.read(rows), lengths, itertools.chain(*expected), strict=True
    ):
        assert valid.shape[-1] == length
        np.testing.assert_array_equal(stored[..., :length], valid)
        assert (stored[..., length:] == 0).all()
        mean, sigma = feature_statistics(features.rows, np.array([row]))
        np.testing.assert_allclose(mean[..., 0], valid.mean(dim=-1), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(sigma[..., 0], valid.std(dim=-1, correction=0), rtol=1e-3, atol=1e-5)


def believed(features, files):
    """Return those of the files whose rows the store has."""
    found = []
    for file in files:
        try:
            features.spans([file.key])
        except KeyError:
            continue
        found.append(file)
    return found


def size(features):
    """Return how many rows are published, also by others meanwhile."""
    return len(FeatureStore(features.folder.parents[1], features.front_end).rows.lengths)


def shards(features):
    """Return the files that hold rows, the first ones first."""
    return sorted(features.folder.glob("*.rows"), key=lambda path: path.stat().st_mtime_ns)


def others(features):
    """Return what lies in the folder beside its settings and whole shards."""
    return (
        {path.name for path in features.folder.iterdir()} - {path.name for path in shards(features)} - {"settings.json"}
    )


# -- what is in it --


def test_rows_are_the_features_padded_with_zeros(cache_dir, files):
    features = FeatureStore(cache_dir, front_end())
    features.add(files)
    assert features.rows.read(rows_of(features, files)).shape == (12, 2, 8, 50)
    assert len(set(features.rows.lengths)) > 1
    assert_right(features, files)
    assert_right(FeatureStore(cache_dir, front_end()), files)


def test_many_files_are_built_by_several_processes_to_the_same_rows(cache_dir, tmp_path):
    files = record(tmp_path / "many", range(300))
    features = FeatureStore(cache_dir, front_end())
    features.add(files)
    assert size(features) == 300
    assert sorted(rows_of(features, files).tolist()) == list(range(300))
    assert_right(features, files)


def test_a_second_build_computes_nothing(cache_dir, files):
    FeatureStore(cache_dir, front_end()).add(files)
    for _, path, *_ in files:
        path.write_bytes(b"")  # would be missed
    again = FeatureStore(cache_dir, front_end())
    again.add(files)
    assert size(again) == 12


def test_equal_recordings_share_a_row(cache_dir, files):
    copy = files[0].path.with_name("copy.wav")
    copy.write_bytes(files[0].path.read_bytes())
    files = hashed(copy.parent)
    assert len(files) == 13
    features = FeatureStore(cache_dir, front_end())
    features.add(files)
    assert size(features) == 12
    assert_right(features, files)


def test_a_subset_and_its_corpus_share_rows(cache_dir, files):
    FeatureStore(cache_dir, front_end()).add(files[5:8])
    features = FeatureStore(cache_dir, front_end())
    features.add(files)
    assert size(features) == 12
    assert_right(features, files)


def test_a_changed_file_adds_its_row_only(cache_dir, files):
    features = FeatureStore(cache_dir, front_end())
    features.add(files)
    before = {path: path.read_bytes() for path in shards(features)}
    soundfile.write(files[3].path, np.random.default_rng(99).uniform(-0.5, 0.5, 3000), RATE_HZ)
    changed = hashed(files[3].path.parent)
    assert [i for i in range(12) if changed[i].key != files[i].key] == [3]
    features = FeatureStore(cache_dir, front_end())
    features.add(changed)
    assert size(features) == 13
    assert {path: path.read_bytes() for path in before} == before
    assert_right(features, changed)


@pytest.mark.parametrize(
    "other",
    [
        front_end(n_mels=9),
        front_end(window="hann"),
        front_end(deltas=0),
        front_end(Preprocess(duration_s=0.4)),
        front_end(Preprocess(duration_s=0.5, pre_emphasis=0.97)),
        front_end(Preprocess(duration_s=0.5, top_db=30)),
        front_end(Preprocess(duration_s=0.5, top_db=None)),
        front_end(Preprocess(duration_s=0.5, segment_hop_s=0.5)),
    ],
)
def test_every_setting_has_a_cache_of_its_own(cache_dir, files, other):
    first = FeatureStore(cache_dir, front_end())
    first.add(files)
    second = FeatureStore(cache_dir, other)
    assert second.folder != first.folder
    second.add(files)
    assert_right(first, files)
    assert_right(second, files)
    settings = json.loads((second.folder / "settings.json").read_text())
    assert {key: settings[key] for key in ("preprocess", "features")} == other.description()


def test_statistics_are_numpys_over_valid_frames_of_the_rows_asked_for(cache_dir, files):
    features = FeatureStore(cache_dir, front_end())
    features.add(files[:4])
    before = features.spans([file.key for file in files[:4]])
    features.add(files)  # statistics of two builds are merged
    assert features.spans([file.key for file in files[:4]]) == before  # rows keep their numbers
    chosen = files[2:9]
    frames = np.concatenate([features.front_end(path).double().numpy() for _, path, *_ in chosen], axis=-1)
    mean, sigma = feature_statistics(features.rows, rows_of(features, chosen))
    assert mean.shape == sigma.shape == (2, 8, 1)
    assert mean.dtype == sigma.dtype == torch.float32
    np.testing.assert_allclose(mean[..., 0], frames.mean(axis=-1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(sigma[..., 0], frames.std(axis=-1), rtol=1e-5)


def test_statistics_by_frame_are_numpys_over_the_rows(cache_dir, files, monkeypatch):
    monkeypatch.setattr("ser.features.statistics.FEATURES_AT_ONCE", 3)
    features = FeatureStore(cache_dir, front_end(Preprocess(duration_s=0.5, pad_waveform=True)))
    features.add(files)
    chosen = files[2:9]
    utterances = np.stack([features.front_end(path).double().numpy() for _, path, *_ in chosen])  # (7, 2, 8, T)
    mean, sigma = feature_statistics(features.rows, rows_of(features, chosen), by_frame=True)
    assert mean.shape == sigma.shape == features.rows.shape
    frames = utterances.shape[-1]  # of all of them; what is behind is padding
    np.testing.assert_allclose(mean[..., :frames], utterances.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(sigma[..., :frames], utterances.std(axis=0), rtol=1e-4, atol=1e-5)
    assert not torch.cat([mean, sigma])[..., frames:].any()


def test_statistics_read_no_features_again(cache_dir, files, monkeypatch):
    features = FeatureStore(cache_dir, front_end())
    features.add(files)
    monkeypatch.setattr(Rows, "read", None)
    mean, _ = feature_statistics(features.rows, rows_of(features, files))
    assert mean.isfinite().all()


def test_a_cluster_that_is_given_does_the_work(cache_dir, tmp_path, files):
    features = FeatureStore(cache_dir, front_end())
    with ProcessPoolExecutor(1, processes) as executor:
        features.add(
            [piece._replace(change=partial(note, piece.path)) for piece in files],
            SimpleNamespace(executor=executor, slots=1, lost=()),
        )
    (computed,) = tmp_path.glob("computed.*")  # by one process, and another than this one
    assert computed.name != f"computed.{os.getpid()}"
    assert computed.read_text().split() == [file.path.name for file in files]
    assert_right(features, files)


# -- reading --


def test_rows_are_read_in_any_order_and_in_another_process(cache_dir, files, monkeypatch):
    monkeypatch.setattr(parallel, "LARGEST", 5)
    monkeypatch.setattr(parallel, "SMALLEST", 5)
    features = FeatureStore(cache_dir, front_end(DIVIDED))
    features.add(files)
    assert len(shards(features)) == 3
    everything = features.rows.read(np.arange(len(features.rows.lengths)))
    chosen = np.random.default_rng(0).integers(0, len(everything), 50)
    features.rows.read_ahead(chosen)
    for rows in (features.rows, pickle.loads(pickle.dumps(features.rows))):
        np.testing.assert_array_equal(rows.read(chosen), everything[chosen])
        assert rows.read(chosen[:0]).shape == (0, 2, 8, 15)
    with processes.Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply(features.rows.read, (chosen,)), everything[chosen])


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: os.truncate(path, 100)])
def test_a_file_that_is_lost_while_it_is_read_is_named(cache_dir, files, damage):
    features = FeatureStore(cache_dir, front_end())
    features.add(files)
    features.rows.read(np.arange(12))
    damage(shards(features)[0])
    with pytest.raises(UserError, match=r"\.rows was deleted or truncated while in use\. Start again: missing"):
        features.rows.read(np.arange(12))
    with pytest.raises(UserError, match="was deleted or truncated while in use"):
        features.rows.moments(np.arange(12))


def resident_bytes():
    """Return how much of this process is in memory, files that it maps included."""
    return 1024 * int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says what of a process is in memory")
def test_memory_stays_flat_however_much_is_read(tmp_path):
    large = Rows((2**18,), [tmp_path / "large"], [96], [2**18] * 96)  # a MiB each
    with (tmp_path / "large").open("wb") as file:
        file.truncate(95 * 2**20)
        file.seek(0, os.SEEK_END)
        file.write(np.ones(2**18, np.float32).data)
    large.read(np.array([0]))
    before = resident_bytes()
    for row in range(96):
        assert large.read(np.array([row])).max() == (row == 95)
        assert resident_bytes() - before < 8 * 2**20


def test_consecutive_numbers():
    assert consecutive(np.array([7, 0, 3]), np.array([2, 3, 1])).tolist() == [7, 8, 0, 1, 2, 3]
    assert consecutive(np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []


# -- killed, shared, damaged --


def build(cache_dir, files, preprocess):
    parallel.SMALLEST = parallel.LARGEST = 4
    FeatureStore(cache_dir, front_end(preprocess)).add(files)


@pytest.mark.slow
@pytest.mark.parametrize(  # computed in one process, and in several
    ("number", "preprocess"), [(40, Preprocess(duration_s=0.5)), (250, Preprocess(duration_s=0.5)), (250, DIVIDED)]
)
def test_a_build_killed_at_any_moment_leaves_right_rows_only(cache_dir, tmp_path, number, preprocess):
    files = record(tmp_path / "recordings", range(number))
    moments = random.Random(number)
    partly = leftovers = 0
    for attempt in range(6):
        folder = cache_dir if attempt % 3 else cache_dir / str(attempt)  # sometimes cold, sometimes half built
        features = FeatureStore(folder, front_end(preprocess))
        before = len(believed(features, files))
        builder = processes.Process(target=build, args=(folder, files, preprocess))
        builder.start()
        published = len(shards(features))
        while builder.is_alive() and len(shards(features)) <= published:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.02))
        builder.kill()
        builder.join()
        found = FeatureStore(folder, front_end(preprocess))
        done = believed(found, files)
        assert len(done) >= before
        assert_right(found, done)
        partly += 0 < len(done) < number
        leftovers += len(others(found))
        if len(done) == number:
            cache_dir = tmp_path / f"cache{attempt}"
    assert partly > 0, "no build was killed half-way, so nothing was tested"
    assert leftovers > 0, "no build was killed while it wrote, so nothing was tested"
    finished, fresh = (FeatureStore(where, front_end(preprocess)) for where in (folder, tmp_path / "fresh"))
    for built in (finished, fresh):
        built.add([*files, *record(tmp_path / "recordings", [number])])
        assert_right(built, files)
        assert size(built) == sum(
            span.number for span in built.spans([file.key for file in hashed(files[0].path.parent)])
        )
        assert others(built) == set()
    np.testing.assert_array_equal(*(built.rows.read(rows_of(built, files)) for built in (finished, fresh)))
    for one, other in zip(*(feature_statistics(b.rows, rows_of(b, files)) for b in (finished, fresh)), strict=True):
        assert torch.equal(one, other)


def note(path, waveform, sample_rate_hz):
    """Say who computes what."""
    with open(path.parents[1] / f"computed.{os.getpid()}", "a") as file:
        file.write(f"{path.name}\n")
    return waveform


def add_noted(cache_dir, files, start, preprocess):
    features = FeatureStore(cache_dir, front_end(preprocess))
    start.wait()
    features.add([piece._replace(change=partial(note, piece.path)) for piece in files])


@pytest.mark.parametrize(("number", "preprocess"), [(60, Preprocess(duration_s=0.5)), (300, DIVIDED)])
def test_processes_that_build_at_once_compute_everything_once(cache_dir, tmp_path, number, preprocess):
    files = record(tmp_path / "recordings", range(number))
    start = processes.Barrier(3)
    builders = [
        processes.Process(target=add_noted, args=(cache_dir, share, start, preprocess))
        for share in (files[: number // 2], files[::-1], files[20:])
    ]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
        assert builder.exitcode == 0
    computed = [name for path in tmp_path.glob("computed.*") for name in path.read_text().split()]
    assert sorted(computed) == [file.path.name for file in files]
    features = FeatureStore(cache_dir, front_end(preprocess))
    assert size(features) == len(rows_of(features, files))
    assert_right(features, files)


def wait_to_be_killed(waveform, sample_rate_hz):
    time.sleep(600)


def build_and_hang(cache_dir, files):
    FeatureStore(cache_dir, front_end()).add([*files[:-1], files[-1]._replace(change=wait_to_be_killed)])


@forks
def test_who_waits_for_a_builder_that_is_killed_takes_over(cache_dir, tmp_path, capfd):
    files = record(tmp_path / "recordings", range(230))
    builder = processes.Process(target=build_and_hang, args=(cache_dir, files))
    builder.start()
    features = FeatureStore(cache_dir, front_end())
    while len(believed(features, files)) < 198:
        time.sleep(0.01)
        features = FeatureStore(cache_dir, front_end())
    with pytest.raises(UserError, match=r"is being built by another process; remove it later"):
        stored_caches(cache_dir)[0].remove()
    killer = Timer(0.3, builder.kill)
    killer.start()
    features.add(files)
    assert not builder.is_alive()
    assert "Another process is computing features; waiting for it." in capfd.readouterr().out
    assert size(features) == 230
    assert_right(features, files)
    stored_caches(cache_dir)[0].remove()
    assert not features.folder.exists()


def test_rows_of_two_machines_that_built_at_once_count_once(cache_dir, tmp_path, files, monkeypatch):
    monkeypatch.setattr(store.platform, "node", lambda: "elsewhere")
    FeatureStore(tmp_path / "other", front_end()).add(files)
    (theirs,) = shards(FeatureStore(tmp_path / "other", front_end()))
    monkeypatch.undo()
    features = FeatureStore(cache_dir, front_end())
    features.add(files[:6])
    (features.folder / theirs.name).write_bytes(theirs.read_bytes())
    growing = features.folder / f".{theirs.name}.1.tmp"
    growing.write_bytes(b"growing")
    features = FeatureStore(cache_dir, front_end())
    assert_right(features, files)
    assert len(set(rows_of(features, files))) == 12
    features.add(record(tmp_path / "recordings", [12]))
    assert growing.exists()  # another machine's


@pytest.mark.parametrize("cut", [0, 1, 2, 7, 8, 9, 100, -9, -8, -1])
def test_a_shard_that_was_cut_or_lost_is_not_believed(cache_dir, files, cut):
    features = FeatureStore(cache_dir, front_end())
    features.add(files[:6])
    features.add(files)
    damaged = shards(features)[0]
    os.truncate(damaged, cut % damaged.stat().st_size)
    again = FeatureStore(cache_dir, front_end())
    assert believed(again, files) == files[6:]
    again.add(files)
    assert_right(again, files)
    for path in shards(again):
        path.unlink()
    again.add(files[:3] + record(files[0].path.parent, [12]))  # what it held in memory is gone
    assert_right(FeatureStore(cache_dir, front_end()), files[:3])


# -- what bad input gets --


def test_a_folder_that_cannot_be_written_is_named(tmp_path, files):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=r"The feature cache cannot be written in .*file.*: Not a directory\. Fix"):
        FeatureStore(tmp_path / "file" / "cache", front_end()).add(files)


def test_a_shard_that_cannot_be_read_is_named(cache_dir, files):
    features = FeatureStore(cache_dir, front_end())
    (features.folder / "odd.rows").mkdir(parents=True)
    with pytest.raises(UserError, match=r"The feature cache .*odd\.rows cannot be read: Is a directory"):
        FeatureStore(cache_dir, front_end())


@pytest.mark.parametrize(("content", "why"), [(None, "No such file or directory"), (b"RIFF", "not readable as audio")])
def test_a_file_that_was_lost_since_it_was_checked_is_named(cache_dir, files, content, why):
    path = files[4].path
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    features = FeatureStore(cache_dir, front_end())
    with pytest.raises(UserError, match=rf"0004.wav has changed since it was checked: .*{why}"):
        features.add(files)
    features.add([*files[:4], *files[5:]])
    assert_right(features, [*files[:4], *files[5:]])


@pytest.fixture
def small_disk(tmp_path):
    """Return a folder with room for a MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("a file system of one MiB cannot be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_without_room_is_rejected_before_anything_is_written(small_disk, files):
    features = FeatureStore(small_disk, front_end())
    with pytest.raises(UserError, match=r"needs 0 MiB in .*, but 1 MiB are free\. Free some space, or put the cache"):
        features.add(files)
    assert shards(features) == []
    assert others(features) == set()


def test_the_room_on_the_disk_is_that_of_all_segments(small_disk, files):
    features = FeatureStore(small_disk, front_end())
    row_bytes = 4 * int(np.prod(features.rows.shape))
    with pytest.raises(UserError, match=rf"needs {1000 * len(files) * row_bytes / 2**20:.0f} MiB in "):
        features.add([piece._replace(segments=1000) for piece in files])


@pytest.mark.parametrize("number", [300, 360])
def test_a_disk_that_fills_up_keeps_what_was_published(small_disk, tmp_path, monkeypatch, number):
    monkeypatch.setattr(store, "SPARE_BYTES", -(2**30))  # as if another program had taken the room meanwhile
    files = record(tmp_path / "recordings", range(number + 100))
    features = FeatureStore(small_disk, front_end())
    features.add(files[:100])
    with pytest.raises(UserError, match=r"The feature cache cannot be written in .*: The disk is full\. Fix that, or"):
        features.add(files[100:])
    found = FeatureStore(small_disk, front_end())
    done = believed(found, files)
    assert 100 <= len(done) < number + 100
    assert_right(found, done)
    assert others(found) == set()
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    features.add(files)
    assert_right(features, files)


def limited(cache_dir, files, message):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    features = FeatureStore(cache_dir, front_end())
    limit = 10 * 4 * int(np.prod(features.rows.shape)) + 1000  # room for ten rows and a piece
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        features.add(files)
    except UserError as error:
        message.send(str(error))


@pytest.mark.parametrize("number", [50, 300])  # computed in one process, and in several
def test_a_file_that_cannot_grow_is_an_error_and_nothing_of_it_is_believed(cache_dir, tmp_path, number):
    files = record(tmp_path / "recordings", range(number))
    receiver, sender = processes.Pipe(duplex=False)
    builder = processes.Process(target=limited, args=(cache_dir, files, sender))
    builder.start()
    assert receiver.poll(60)
    assert "The feature cache cannot be written in" in (message := receiver.recv())
    assert "File too large" in message
    builder.join()
    features = FeatureStore(cache_dir, front_end())
    assert size(features) == 0
    assert others(features) == set()
    features.add(files)
    assert_right(features, files)


def test_real_speech_is_cached_as_computed(corpora, cache_dir):
    paths = audio_files(corpora / "emodb")
    files = [Piece(look.digest, path) for look, path in zip(inspect_files(paths, cache_dir / "m"), paths, strict=True)]
    features = FeatureStore(cache_dir, FrontEnd(Preprocess(pre_emphasis=0.97), LogMel(deltas=2)))
    features.add(files)
    assert size(features) == 339
    assert features.rows.shape == (3, 40, 300)
    assert_right(features, files[::20])
    rows = rows_of(features, files)
    mean, sigma = feature_statistics(features.rows, rows)
    stored = zip(features.rows.read(rows), features.rows.lengths[rows].tolist(), strict=True)
    frames = np.concatenate([row[..., :length] for row, length in stored], axis=-1)
    np.testing.assert_allclose(mean[..., 0], frames.mean(axis=-1, dtype=np.float64), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(sigma[..., 0], frames.std(axis=-1, dtype=np.float64), rtol=1e-4)
