import itertools
import json
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
import soundfile
import torch

from ser.data import FrontEnd, LogMel, Preprocess, cache, shared
from ser.data.audio import audio_files, inspect_files
from ser.data.cache import FeatureCache, Piece, published
from ser.data.caches import stored_caches
from ser.errors import UserError

RATE_HZ = 8000
# A process that forks from a clean one: the test's own has threads, and a new one would import torch for seconds.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["ser.data.cache", "pytest"])


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
    """Return the rows of all segments of some files, in their order."""
    return np.array([row for span in features.spans([key for key, *_ in files]) for row in range(span.first, span.end)])


def assert_right(features, files):
    """Hold the rows of files against features computed alone, bit for bit, and what is stored of their statistics."""
    expected = [features.front_end.segments(path, change) for _, path, change, _ in files]
    assert [span.number for span in features.spans([key for key, *_ in files])] == [len(valid) for valid in expected]
    rows = rows_of(features, files)
    lengths = features.lengths()[rows].tolist()
    for row, stored, length, valid in zip(
        rows, features.rows().read(rows), lengths, itertools.chain(*expected), strict=True
    ):
        assert valid.shape[-1] == length
        np.testing.assert_array_equal(stored[..., :length], valid)
        assert (stored[..., length:] == 0).all()
        mean, sigma = features.statistics(np.array([row]))
        np.testing.assert_allclose(mean[..., 0], valid.mean(dim=-1), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(sigma[..., 0], valid.std(dim=-1, correction=0), rtol=1e-3, atol=1e-5)


def known(features):
    """Return how many recordings the index names, whose rows must be nobody else's."""
    rows = FeatureCache(features.folder.parents[1], features.front_end).rows()
    places = list(zip(rows.file_of.tolist(), rows.place_of.tolist(), strict=True))
    assert len(set(places)) == len(places)
    return len(published(features.folder))


def size(features):
    """Return how many rows lie on the disk."""
    rows, moments = (
        sum(path.stat().st_size for path in features.folder.glob(name)) for name in ("rows.*", "moments.*")
    )
    rows /= 4 * np.prod(features.shape)
    assert moments / (2 * 8 * np.prod(features.shape[:-1])) == rows
    return rows


# -- what is in it --


def test_rows_are_the_features_padded_with_zeros(cache_dir, files):
    features = FeatureCache(cache_dir, front_end())
    features.add(files)
    assert features.shape == (2, 8, 50)
    assert features.rows().read(rows_of(features, files)).shape == (12, 2, 8, 50)
    assert len(features.lengths().unique()) > 1
    assert_right(features, files)
    assert_right(FeatureCache(cache_dir, front_end()), files)


def test_many_files_are_built_by_several_processes_to_the_same_rows(cache_dir, tmp_path):
    files = record(tmp_path / "many", range(300))
    features = FeatureCache(cache_dir, front_end())
    features.add(files)
    assert size(features) == 300
    assert sorted(rows_of(features, files).tolist()) == list(range(300))
    assert_right(features, files)


def test_a_second_build_computes_nothing(cache_dir, files):
    FeatureCache(cache_dir, front_end()).add(files)
    for _, path, _ in files:
        path.write_bytes(b"")  # would be missed
    again = FeatureCache(cache_dir, front_end())
    again.add(files)
    assert size(again) == 12


def test_equal_recordings_share_a_row(cache_dir, files):
    copy = files[0].path.with_name("copy.wav")
    copy.write_bytes(files[0].path.read_bytes())
    files = hashed(copy.parent)
    assert len(files) == 13
    features = FeatureCache(cache_dir, front_end())
    features.add(files)
    assert size(features) == 12
    assert_right(features, files)


def test_a_subset_and_its_corpus_share_rows(cache_dir, files):
    FeatureCache(cache_dir, front_end()).add(files[5:8])
    features = FeatureCache(cache_dir, front_end())
    features.add(files)
    assert size(features) == 12
    assert rows_of(features, files[5:8]).tolist() == [0, 1, 2]
    assert_right(features, files)


def test_a_changed_file_adds_its_row_only(cache_dir, files):
    features = FeatureCache(cache_dir, front_end())
    features.add(files)
    before = (features.folder / "rows.0.f32").read_bytes()
    soundfile.write(files[3].path, np.random.default_rng(99).uniform(-0.5, 0.5, 3000), RATE_HZ)
    changed = hashed(files[3].path.parent)
    assert [i for i in range(12) if changed[i].key != files[i].key] == [3]
    features = FeatureCache(cache_dir, front_end())
    features.add(changed)
    assert size(features) == 13
    assert (features.folder / "rows.0.f32").read_bytes()[: len(before)] == before
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
    first = FeatureCache(cache_dir, front_end())
    first.add(files)
    second = FeatureCache(cache_dir, other)
    assert second.folder != first.folder
    second.add(files)
    assert_right(first, files)
    assert_right(second, files)
    settings = json.loads((second.folder / "settings.json").read_text())
    assert {key: settings[key] for key in ("preprocess", "features")} == other.description()


def test_statistics_are_numpys_over_valid_frames_of_the_rows_asked_for(cache_dir, files):
    features = FeatureCache(cache_dir, front_end())
    features.add(files[:4])
    features.add(files)  # statistics of two builds are merged
    chosen = files[2:9]
    frames = np.concatenate([features.front_end(path).double().numpy() for _, path, _ in chosen], axis=-1)
    mean, sigma = features.statistics(rows_of(features, chosen))
    assert mean.shape == sigma.shape == (2, 8, 1)
    assert mean.dtype == sigma.dtype == torch.float32
    np.testing.assert_allclose(mean[..., 0], frames.mean(axis=-1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(sigma[..., 0], frames.std(axis=-1), rtol=1e-5)


def test_statistics_by_frame_are_numpys_over_the_rows(cache_dir, files, monkeypatch):
    monkeypatch.setattr("ser.data.cache.FEATURES_AT_ONCE", 3)
    features = FeatureCache(cache_dir, front_end(Preprocess(duration_s=0.5, pad_waveform=True)))
    features.add(files)
    chosen = files[2:9]
    utterances = np.stack([features.front_end(path).double().numpy() for _, path, _ in chosen])  # (7, 2, 8, T)
    mean, sigma = features.statistics(rows_of(features, chosen), by_frame=True)
    assert mean.shape == sigma.shape == features.shape
    frames = utterances.shape[-1]  # of all of them; what is behind is padding
    np.testing.assert_allclose(mean[..., :frames], utterances.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(sigma[..., :frames], utterances.std(axis=0), rtol=1e-4, atol=1e-5)
    assert not torch.cat([mean, sigma])[..., frames:].any()


# -- killed, shared, damaged --


def build(cache_dir, files, preprocess):
    shared.PUBLISH_EVERY_S = 0.0
    FeatureCache(cache_dir, front_end(preprocess)).add(files)


@pytest.mark.slow
@pytest.mark.parametrize(  # computed in one process, and in several
    ("number", "preprocess"), [(40, Preprocess(duration_s=0.5)), (250, Preprocess(duration_s=0.5)), (250, DIVIDED)]
)
def test_a_build_killed_at_any_moment_leaves_right_rows_only(cache_dir, tmp_path, number, preprocess):
    def opened(folder):
        return FeatureCache(folder, front_end(preprocess))

    files = record(tmp_path / "recordings", range(number))
    moments = random.Random(number)
    partial = 0
    for attempt in range(9):
        folder = cache_dir if attempt % 3 else cache_dir / str(attempt)  # sometimes cold, sometimes half built
        index = opened(folder).folder / "index.0"
        before = known(opened(folder))
        length = index.stat().st_size if index.exists() else 0
        builder = processes.Process(target=build, args=(folder, files, preprocess))
        builder.start()
        while builder.is_alive() and (index.stat().st_size if index.exists() else 0) <= length:
            time.sleep(0.001)  # until the build has published something
        time.sleep(moments.uniform(0, 0.02))
        builder.kill()
        builder.join()
        found = opened(folder)
        done = known(found)
        assert done >= before
        keys = published(found.folder)
        assert_right(found, [file for file in files if file.key in keys])
        partial += 0 < done < number
        if done == number:
            cache_dir = tmp_path / f"cache{attempt}"
    assert partial > 0, "no build was killed half-way, so nothing was tested"
    finished = opened(folder)
    finished.add(files)
    assert known(finished) == number
    assert_right(finished, files)
    fresh = opened(tmp_path / "fresh")
    fresh.add(files)
    assert size(fresh) == sum(span.number for span in fresh.spans([file.key for file in files]))
    np.testing.assert_array_equal(*(built.rows().read(rows_of(built, files)) for built in (finished, fresh)))


def build_late(cache_dir, files):
    shared.PUBLISH_EVERY_S = np.inf
    FeatureCache(cache_dir, front_end()).add(files)


def late(waveform, sample_rate_hz):
    time.sleep(1)
    return waveform


def build_and_die(cache_dir, files):
    shared.PUBLISH_EVERY_S = 0.0
    publish = FeatureCache._publish

    def once(features, part, built):
        publish(features, part, built)
        os.kill(os.getpid(), signal.SIGKILL)

    FeatureCache._publish = once
    FeatureCache(cache_dir, front_end()).add(files)


@pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="rows are written by forked processes here"
)
def test_holes_that_a_kill_leaves_never_become_rows_of_another(cache_dir, tmp_path):
    files = record(tmp_path / "recordings", range(230))
    files[0] = files[0]._replace(change=late)  # published first, but the other process has taken the first rows by then
    builder = processes.Process(target=build_and_die, args=(cache_dir, files))
    builder.start()
    builder.join()
    assert builder.exitcode == -signal.SIGKILL
    features = FeatureCache(cache_dir, front_end())
    assert known(features) == 1
    (place,) = features.rows().place_of
    assert place > 0, "there is no hole, so nothing is tested"
    features.add(files)
    assert known(features) == 230
    assert features.rows().place_of.min() == place
    assert_right(features, files)
    mean, _ = features.statistics(rows_of(features, files))
    assert mean.isfinite().all()


def add_together(cache_dir, files, start):
    features = FeatureCache(cache_dir, front_end())
    start.wait()
    features.add(files)


def test_two_processes_build_one_cold_cache_at_once(cache_dir, tmp_path):
    files = record(tmp_path / "recordings", range(60))
    for attempt in range(3):
        folder = cache_dir / str(attempt)
        start = processes.Barrier(3)
        shares = (files, files[::-1], files[20:50])
        builders = [processes.Process(target=add_together, args=(folder, share, start)) for share in shares]
        for builder in builders:
            builder.start()
        for builder in builders:
            builder.join()
            assert builder.exitcode == 0
        features = FeatureCache(folder, front_end())
        assert size(features) == 60  # nothing was computed twice
        assert_right(features, files)


def note(path, waveform, sample_rate_hz):
    """Say who computes what, slowly enough that all get to work."""
    time.sleep(0.01)
    with open(path.parents[1] / f"computed.{os.getpid()}", "a") as file:
        file.write(f"{path.name}\n")
    return waveform


def noted(files):
    return [piece._replace(change=partial(note, piece.path)) for piece in files]


def computed(folder):
    """Return what each process has computed."""
    return [path.read_text().split() for path in folder.glob("computed.*")]


def add_noted(cache_dir, files, start, claimed_at_first, preprocess):
    shared.CLAIMED_AT_FIRST = claimed_at_first
    shared.CLAIM_EVERY_S = 0
    features = FeatureCache(cache_dir, front_end(preprocess))
    start.wait()
    features.add(noted(files))


@pytest.mark.parametrize("preprocess", [Preprocess(duration_s=0.5), DIVIDED])
def test_processes_divide_a_build_and_nothing_is_computed_twice(cache_dir, tmp_path, preprocess):
    files = record(tmp_path / "recordings", range(400))
    start = processes.Barrier(3)
    builders = [processes.Process(target=add_noted, args=(cache_dir, files, start, 16, preprocess)) for _ in range(3)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
        assert builder.exitcode == 0
    shares = computed(tmp_path)
    assert sorted(name for share in shares for name in share) == [file.path.name for file in files]
    features = FeatureCache(cache_dir, front_end(preprocess))
    assert len(list(features.folder.glob("rows.*"))) == 3
    assert min(path.stat().st_size for path in features.folder.glob("rows.*")) > 0  # each did a part
    assert known(features) == 400
    assert size(features) == len(features.lengths())
    assert_right(features, files)
    fresh = FeatureCache(tmp_path / "fresh", front_end(preprocess))
    fresh.add(files)
    np.testing.assert_array_equal(*(built.rows().read(rows_of(built, files)) for built in (features, fresh)))
    for one, other in zip(*(built.statistics(rows_of(built, files)) for built in (features, fresh)), strict=True):
        assert torch.equal(one, other)


def die(waveform, sample_rate_hz):
    time.sleep(2)  # the others have finished their parts and wait
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_builder_had_claimed_is_taken_over(cache_dir, tmp_path, capsys):
    files = record(tmp_path / "recordings", range(80))
    deadly = [piece._replace(change=die) if number == 30 else piece for number, piece in enumerate(files)]
    start = processes.Barrier(2)
    killed = processes.Process(target=add_together, args=(cache_dir, deadly, start))
    killed.start()
    start.wait()
    features = FeatureCache(cache_dir, front_end())
    while not (features.folder / "claims").exists() or len((features.folder / "claims").read_text()) < 100:
        time.sleep(0.01)
    features.add(noted(files[40:]) + files[:40])
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert capsys.readouterr().out == (
        "Other processes are computing features that are needed here, too; waiting for 32.\n"
    )
    assert known(features) == 80
    assert_right(features, files)
    features.add(record(tmp_path / "recordings", range(90)))  # in the first part, of which the killed one left rows
    assert size(features) == 90
    assert_right(features, hashed(tmp_path / "recordings"))


def test_a_build_goes_on_beside_one_that_hangs(cache_dir, tmp_path):
    files = record(tmp_path / "recordings", range(60))
    late_ones = [piece._replace(change=hang) for piece in files[:20]]
    start = processes.Barrier(2)
    hanging = processes.Process(target=add_together, args=(cache_dir, late_ones, start))
    hanging.start()
    start.wait()
    features = FeatureCache(cache_dir, front_end())
    while not (features.folder / "claims").exists() or len((features.folder / "claims").read_text()) < 100:
        time.sleep(0.01)
    features.add(files[20:])  # nothing of it is the other's
    assert known(features) == 40
    assert_right(features, files[20:])
    with pytest.raises(UserError, match=r"is being built by another process; remove it later"):
        stored_caches(cache_dir)[0].remove()
    hanging.kill()
    hanging.join()
    stored_caches(cache_dir)[0].remove()
    assert not features.folder.exists()


def hang(waveform, sample_rate_hz):
    time.sleep(600)


@pytest.mark.parametrize("name", ["rows.0.f32", "moments.0.f64"])
def test_rows_that_were_lost_are_not_believed(cache_dir, files, name):
    features = FeatureCache(cache_dir, front_end())
    features.add(files)
    rows = features.folder / name
    for damage in (rows.unlink, lambda: os.truncate(rows, rows.stat().st_size - 1), lambda: os.truncate(rows, 0)):
        damage()
        again = FeatureCache(cache_dir, front_end())
        again.add(files[6:])
        again.add(files)
        assert size(again) == 12
        assert_right(again, files)


@pytest.mark.parametrize("name", ["rows.0.f32", "moments.0.f64"])
def test_an_index_without_its_rows_does_not_return_after_a_kill(cache_dir, files, name):
    features = FeatureCache(cache_dir, front_end())
    features.add(files)
    (features.folder / name).unlink()
    last = Piece("last", files[0].path, die)  # when all others are computed, and none is published
    builder = processes.Process(target=build_late, args=(cache_dir, [*files[::-1], last]))
    builder.start()
    builder.join()
    assert builder.exitcode == -signal.SIGKILL
    assert size(features) == 12  # of other recordings than an index from before would say
    assert known(features) == 0
    features = FeatureCache(cache_dir, front_end())
    features.add(files)
    assert size(features) == 12
    assert_right(features, files)


@pytest.mark.parametrize("content", [b"", b"no zip file", b"PK\x03\x04 cut"])
def test_a_damaged_index_is_built_anew(cache_dir, files, content):
    features = FeatureCache(cache_dir, front_end())
    features.add(files)
    (features.folder / "index.0").write_bytes(content)
    again = FeatureCache(cache_dir, front_end())
    again.add(files)
    assert_right(again, files)


def test_a_cut_index_is_built_anew(cache_dir, files):
    features = FeatureCache(cache_dir, front_end())
    features.add(files)
    index = features.folder / "index.0"
    os.truncate(index, index.stat().st_size // 2)
    again = FeatureCache(cache_dir, front_end())
    again.add(files)
    assert_right(again, files)


# -- what bad input gets --


def test_a_folder_that_cannot_be_written_is_named(tmp_path, files):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=r"The feature cache cannot be written in .*file.*: Not a directory\. Mend"):
        FeatureCache(tmp_path / "file" / "cache", front_end()).add(files)


def test_an_index_that_cannot_be_read_is_named(cache_dir, files):
    features = FeatureCache(cache_dir, front_end())
    (features.folder / "index.0").mkdir(parents=True)
    with pytest.raises(UserError, match=r"The feature cache .*index\.0 cannot be read: Is a directory"):
        FeatureCache(cache_dir, front_end())


@pytest.mark.parametrize(("content", "why"), [(None, "No such file or directory"), (b"RIFF", "not readable as audio")])
def test_a_file_that_was_lost_since_it_was_checked_is_named(cache_dir, files, content, why):
    path = files[4].path
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    features = FeatureCache(cache_dir, front_end())
    with pytest.raises(UserError, match=rf"0004.wav was sound when it was checked, and cannot be read now: .*{why}"):
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


def test_a_disk_without_room_is_refused_before_anything_is_written(small_disk, files):
    features = FeatureCache(small_disk, front_end())
    with pytest.raises(UserError, match=r"needs 0 MiB in .*, where 1 MiB are free\. Free some space, or put the cache"):
        features.add(files)
    assert not (features.folder / "rows.f32").exists()


def test_the_room_on_the_disk_is_that_of_all_segments(small_disk, files):
    features = FeatureCache(small_disk, front_end())
    row_bytes = 4 * int(np.prod(features.shape))
    with pytest.raises(UserError, match=rf"needs {1000 * len(files) * row_bytes / 2**20:.0f} MiB in "):
        features.add([piece._replace(segments=1000) for piece in files])


@pytest.mark.parametrize("number", [300, 360])
def test_a_disk_that_fills_up_keeps_what_was_published(small_disk, tmp_path, monkeypatch, number):
    monkeypatch.setattr(cache, "SPARE_BYTES", -(2**30))  # as if another program had taken the room meanwhile
    monkeypatch.setattr(shared, "PUBLISH_EVERY_S", np.inf)  # not before the disk is full
    files = record(tmp_path / "recordings", range(number + 100))
    features = FeatureCache(small_disk, front_end())
    features.add(files[:100])
    with pytest.raises(UserError, match=r"The feature cache cannot be written in .*: The disk is full\. Mend that, or"):
        features.add(files[100:])
    for found in (features, FeatureCache(small_disk, front_end())):
        assert known(found) == size(found) == 100
        assert_right(found, files[:100])
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    features.add(files)
    assert_right(features, files)


def limited(cache_dir, files, said):
    shared.PUBLISH_EVERY_S = np.inf
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    features = FeatureCache(cache_dir, front_end())
    limit = 100 * 4 * int(np.prod(features.shape)) + 1000  # room for a hundred rows and a piece
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        features.add(files)
    except UserError as error:
        said.send(str(error))


@pytest.mark.parametrize("number", [150, 300])  # computed in one process, and in several
def test_a_file_that_cannot_grow_is_an_error_and_nothing_of_it_is_believed(cache_dir, tmp_path, number):
    files = record(tmp_path / "recordings", range(number))
    heard, said = processes.Pipe(duplex=False)
    builder = processes.Process(target=limited, args=(cache_dir, files, said))
    builder.start()
    assert heard.poll(60)
    assert "The feature cache cannot be written in" in (message := heard.recv())
    assert "File too large" in message
    builder.join()
    features = FeatureCache(cache_dir, front_end())
    assert size(features) == len(features.lengths()) == 0
    features.add(files)
    assert_right(features, files)


def test_real_speech_is_cached_as_computed(corpora, cache_dir):
    paths = audio_files(corpora / "emodb")
    files = [Piece(look.digest, path) for look, path in zip(inspect_files(paths, cache_dir / "m"), paths, strict=True)]
    features = FeatureCache(cache_dir, FrontEnd(Preprocess(pre_emphasis=0.97), LogMel(deltas=2)))
    features.add(files)
    assert size(features) == 339
    assert features.shape == (3, 40, 300)
    assert_right(features, files[::20])
    rows = rows_of(features, files)
    mean, sigma = features.statistics(rows)
    stored = zip(features.rows().read(rows), features.lengths()[rows].tolist(), strict=True)
    frames = np.concatenate([row[..., :length] for row, length in stored], axis=-1)
    np.testing.assert_allclose(mean[..., 0], frames.mean(axis=-1, dtype=np.float64), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(sigma[..., 0], frames.std(axis=-1, dtype=np.float64), rtol=1e-4)
