import errno
import multiprocessing
import os
import re
import struct

import librosa
import numpy as np
import pytest
import scipy.signal
import soundfile

from ser.data import Preprocess
from ser.errors import UserError
from ser.features import audio
from ser.features.audio import DamagedAudio, audio_files, inspect_files, read

processes = multiprocessing.get_context("forkserver")  # the test's own has threads
processes.set_forkserver_preload(["ser.features.store", "pytest"])

RATE_HZ = 16_000
NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, RATE_HZ // 2)


def write(path, samples=NOISE, rate_hz=RATE_HZ, **how):
    soundfile.write(path, samples, rate_hz, **how)
    return path


# -- reading --


@pytest.mark.parametrize(
    ("suffix", "subtype", "step"),
    [
        (".wav", "PCM_16", 2**-15),
        (".wav", "PCM_U8", 2**-7),
        (".wav", "PCM_24", 2**-23),
        (".wav", "PCM_32", 2**-23),
        (".wav", "FLOAT", 2**-23),
        (".wav", "DOUBLE", 2**-23),
        (".flac", "PCM_16", 2**-15),
        (".flac", "PCM_24", 2**-23),
    ],
)
def test_read_gives_the_samples_that_were_written(tmp_path, suffix, subtype, step):
    path = write(tmp_path / f"a{suffix}", subtype=subtype)
    samples = read(path)
    assert samples.dtype == np.float32
    np.testing.assert_allclose(samples, NOISE, rtol=0, atol=step)
    np.testing.assert_array_equal(samples, soundfile.read(path, dtype="float32")[0])


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_U8", "FLOAT"])
def test_channels_are_averaged(tmp_path, subtype):
    other = np.random.default_rng(1).uniform(-0.5, 0.5, len(NOISE))
    path = write(tmp_path / "a.wav", np.stack([NOISE, other], axis=1), subtype=subtype)
    np.testing.assert_allclose(read(path), (NOISE + other) / 2, atol=2**-7)
    assert inspect_files([path], tmp_path / "memory")[0].channels == 2


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 44_100, 48_000])
def test_another_rate_is_resampled(tmp_path, rate_hz):
    def tone(rate_hz):
        return 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate_hz) / rate_hz)

    path = write(tmp_path / "a.wav", tone(rate_hz), rate_hz, subtype="FLOAT")
    samples = read(path, RATE_HZ)
    assert len(samples) == RATE_HZ
    middle = slice(RATE_HZ // 10, -RATE_HZ // 10)  # the filter rings at both ends
    np.testing.assert_allclose(samples[middle], tone(RATE_HZ)[middle], atol=1e-3)


def test_chunks_around_the_samples_of_a_wav_are_no_samples(tmp_path):
    path = write(tmp_path / "a.wav", subtype="PCM_16")
    header, samples = path.read_bytes()[:36], path.read_bytes()[44:]
    whole = read(path)
    note = b"note" + struct.pack("<I", 3) + b"abc\0"  # an odd chunk, padded to an even length
    content = header + note + b"data" + struct.pack("<I", len(samples)) + samples + note
    path.write_bytes(content[:4] + struct.pack("<I", len(content) - 8) + content[8:])
    np.testing.assert_array_equal(read(path), whole)


# By GStreamer and Python's wave, SoX for AIFF, SoX, others, arecord, FFmpeg.
UNKNOWN = [0, 0x7F000000, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
LIST = b"LIST" + struct.pack("<I", 26) + b"INFOISFT" + struct.pack("<I", 14) + b"Lavf58.29.100\0"


@pytest.mark.parametrize("size", UNKNOWN)
@pytest.mark.parametrize("riff", [0, 36, 0xFFFFFFFF, "as the samples"])
@pytest.mark.parametrize(("subtype", "chunk"), [("PCM_16", b""), ("PCM_16", LIST), ("FLOAT", b""), ("ULAW", LIST)])
def test_a_wav_from_a_pipe_is_whole(tmp_path, subtype, chunk, riff, size):
    path = write(tmp_path / "a.wav", subtype=subtype)
    whole, content = read(path), path.read_bytes()
    start = content.index(b"data")
    riff = size + 36 if riff == "as the samples" else riff
    content = content[:4] + struct.pack("<I", riff & 0xFFFFFFFF) + content[8:start] + chunk + content[start:]
    start += len(chunk) + 4
    path.write_bytes(content[:start] + struct.pack("<I", size) + content[start + 4 :])
    np.testing.assert_array_equal(read(path), whole)
    assert inspect_files([path], tmp_path / "memory")[0].duration_s == 0.5


def test_an_empty_wav_with_chunks_behind_its_samples_is_empty(tmp_path):
    path = write(tmp_path / "a.wav", NOISE[:0], subtype="PCM_16")
    path.write_bytes(path.read_bytes() + LIST)
    with pytest.raises(DamagedAudio, match="empty: no samples"):
        read(path)


@pytest.mark.parametrize("size", [0, 2**63 - 1, 2**64 - 1])
@pytest.mark.parametrize("data", [0, 0xFFFFFFFF])
def test_an_rf64_from_a_pipe_is_whole(tmp_path, size, data):
    path = write(tmp_path / "a.wav", format="RF64", subtype="PCM_16")
    whole, content = read(path), bytearray(path.read_bytes())
    struct.pack_into("<QQQ", content, content.index(b"ds64") + 8, size, size, size)
    struct.pack_into("<I", content, content.index(b"data") + 4, data)
    path.write_bytes(content)
    np.testing.assert_array_equal(read(path), whole)


@pytest.mark.parametrize("size", UNKNOWN)
def test_an_aiff_from_a_pipe_is_whole(tmp_path, size):
    path = write(tmp_path / "a.aiff", subtype="PCM_16")
    whole, content = read(path), bytearray(path.read_bytes())
    for position in (4, content.index(b"SSND") + 4, content.index(b"COMM") + 10):
        struct.pack_into(">I", content, position, size)
    path.write_bytes(content)
    np.testing.assert_array_equal(read(path), whole)


@pytest.mark.parametrize("size", UNKNOWN)
def test_an_au_from_a_pipe_is_whole(tmp_path, size):
    path = write(tmp_path / "a.au", subtype="PCM_16")
    whole, content = read(path), bytearray(path.read_bytes())
    struct.pack_into(">I", content, 8, size)
    path.write_bytes(content)
    np.testing.assert_array_equal(read(path), whole)


def test_a_flac_from_a_pipe_in_which_libsndfile_cannot_seek_is_whole(tmp_path):
    path = write(tmp_path / "a.flac", subtype="PCM_16")
    whole, content = read(path), bytearray(path.read_bytes())
    samples = int.from_bytes(content[18:26], "big")  # after rate, channels and bits, the last 36 bits
    assert samples & (2**36 - 1) == len(NOISE)
    content[18:26] = (samples & ~(2**36 - 1)).to_bytes(8, "big")
    path.write_bytes(content)
    np.testing.assert_array_equal(read(path), whole)


@pytest.mark.parametrize("suffix", sorted(audio.READABLE))
def test_every_ending_that_is_read_is_read(tmp_path, suffix):
    kinds = {
        ".wave": "WAV", ".oga": "OGG", ".aif": "AIFF", ".aifc": "AIFF", ".snd": "AU", ".sph": "NIST", ".sf": "IRCAM",
    }  # fmt: skip
    kind = "OGG" if suffix == ".opus" else kinds.get(suffix, suffix[1:].upper())
    subtype = {".opus": "OPUS", ".wve": "ALAW"}.get(suffix)
    path = write(tmp_path / f"a{suffix}", rate_hz=8000 if suffix == ".wve" else RATE_HZ, format=kind, subtype=subtype)
    samples = read(path)
    assert len(samples) == pytest.approx(len(NOISE), rel=0.02)
    if suffix not in (".ogg", ".oga", ".opus", ".mp3"):
        np.testing.assert_allclose(samples[: len(NOISE)], NOISE, atol=0.02)
    assert audio_files(tmp_path) == [path]


def test_loud_float_samples_are_kept_as_they_are(tmp_path):
    path = write(tmp_path / "a.wav", 40 * NOISE, subtype="FLOAT")
    np.testing.assert_allclose(read(path), 40 * NOISE, rtol=1e-6)


def cut(path, keep, **how):
    write(path, **{"subtype": "PCM_16", **how})
    path.write_bytes(path.read_bytes()[:keep])


DAMAGE = {
    "half.wav": (lambda path: cut(path, 8044), "truncated: the header promises 16000 bytes of samples, the file holds"),
    "half.rf64": (lambda path: cut(path, 8044, format="RF64"), "truncated: the header promises 16000 bytes of samples"),
    "half.aiff": (
        lambda path: cut(path, 8044),
        "truncated: the header promises 16008 bytes of samples, the file holds",
    ),
    "half.au": (
        lambda path: cut(path, 8024),
        "truncated: the header promises 16000 bytes of samples, the file holds 8000",
    ),
    "half.mp3": (lambda path: cut(path, 1500, subtype=None), "truncated: the header promises 8000 samples"),
    "half.ogg": (lambda path: cut(path, 5000, subtype="VORBIS"), "truncated: its last page is missing"),
    "header.wav": (lambda path: cut(path, 30), "truncated: no samples after the header"),
    "stub.wav": (lambda path: cut(path, 6), "not readable as audio"),
    "half.flac": (lambda path: cut(path, 8044), "not readable as audio"),
    "nothing.wav": (lambda path: path.write_bytes(b""), "empty: no bytes"),
    "empty.wav": (lambda path: write(path, NOISE[:0]), "empty: no samples"),
    "silent.wav": (lambda path: write(path, 0 * NOISE), "silent"),
    "silent8bit.wav": (lambda path: write(path, 0 * NOISE, subtype="PCM_U8"), "silent"),
    "faint.wav": (lambda path: write(path, 1e-4 * NOISE, subtype="FLOAT"), "silent"),
    "offset.wav": (lambda path: write(path, 0 * NOISE + 0.3), "silent"),
    "nan.wav": (lambda path: write(path, np.append(NOISE, np.nan), subtype="FLOAT"), "not finite"),
    "inf.wav": (lambda path: write(path, np.append(NOISE, np.inf), subtype="FLOAT"), "not finite"),
    "huge.wav": (lambda path: write(path, np.append(NOISE, 1e300), subtype="DOUBLE"), "not finite"),
    "one.wav": (
        lambda path: write(path, np.append(NOISE, 1e19), subtype="FLOAT"),
        r"holds a sample of 1e\+19, where full",
    ),
    "left.wav": (
        lambda path: write(path, np.stack([3e38 + 0 * NOISE, 3e38 + NOISE], axis=1), subtype="FLOAT"),
        r"holds a sample of 3e\+38, where full scale is 1",
    ),
    "cancelled.wav": (
        lambda path: write(path, np.stack([1e9 * NOISE, -1e9 * NOISE], axis=1), subtype="FLOAT"),
        r"holds a sample of 5e\+08",
    ),
    "opposite.wav": (
        lambda path: write(path, np.stack([NOISE, -NOISE], axis=1)),
        "silent: .* in the mean of its 2 channels",
    ),
    "integers.wav": (
        lambda path: write(path, np.round(NOISE * 2**15), subtype="FLOAT"),
        "32768 if they were 16-bit",
    ),
    "quiet.flac.wav": (
        lambda path: write(path, np.round(NOISE * 2**9), subtype="DOUBLE"),
        "divide the samples by their own full",
    ),
    "slow.wav": (lambda path: write(path, rate_hz=1), "has a sample rate of 1 Hz; speech has 4000 to 768000 Hz"),
    "fast.wav": (lambda path: write(path, rate_hz=2**31 - 1), "has a sample rate of 2147483647 Hz"),
    "pipe.wav": (os.mkfifo, "is not a file, but a folder, pipe or device"),
    "folder.wav": (os.mkdir, "is not a file, but a folder, pipe or device"),
    "film.m4a": (
        lambda path: path.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(2000)),
        "convert it: ffmpeg -i film.m4a film.wav",
    ),
    "my film.wav": (lambda path: path.write_bytes(b"\0\0\0\x20ftypmp42"), "ffmpeg -i 'my film.wav' 'my film.flac'"),
    "seek.caf": (lambda path: path.write_bytes(b"caff" + b"\xff" * 90), "not readable as audio"),
    "text.wav": (lambda path: path.write_text("This is not a recording.\n" * 40), "not readable as audio"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_rejected_with_its_reason(tmp_path, name):
    damage, reason = DAMAGE[name]
    path = tmp_path / name
    damage(path)
    with pytest.raises(DamagedAudio, match=reason):
        read(path, RATE_HZ)
    look = inspect_files([path], tmp_path / "memory")[0]
    assert re.search(reason, look.problem)
    assert look.digest == ""


def test_a_quiet_recording_is_not_silent(tmp_path):
    path = write(tmp_path / "a.wav", 1e-3 * NOISE, subtype="FLOAT")
    np.testing.assert_allclose(read(path), 1e-3 * NOISE, rtol=1e-6)


def test_files_that_cannot_be_opened_are_named_damaged(tmp_path):
    (tmp_path / "nowhere.wav").symlink_to(tmp_path / "gone.wav")
    look = inspect_files([tmp_path / "nowhere.wav"], tmp_path / "memory")[0]
    assert look.problem == "cannot be read (No such file or directory)"


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def found(root):
    return [path.relative_to(root).as_posix() for path in audio_files(root)]


def test_audio_files_are_found_in_order_without_hidden_ones(tmp_path):
    wanted = ["a.wav", "b/B.WAV", "b/c/a.flac", "b/c/b.Opus", "b/z.ogg", "c.mp3", "d.AIFF", "e.m4a", "f.wma", "g.webm"]
    others = [".hidden.wav", "._a.wav", ".git/a.wav", "b/.c/a.wav", "a.txt", "wav", "a.wav.part"]
    touch(tmp_path, *wanted, *others, "a.m4a", "c.mp4")  # two were converted
    assert found(tmp_path) == wanted


def test_linked_folders_are_followed_and_each_counts_once(tmp_path):
    root = tmp_path / "root"
    touch(root, "a/1.wav", "b/c/2.wav")
    touch(tmp_path, "store/joy/3.wav", "store/joy/deep/4.wav")
    (root / "a/again").symlink_to(root / "b")  # reached under its own name, too
    (root / "b/c/loop").symlink_to(root)
    (root / "b/up").symlink_to("..")
    (root / "joy").symlink_to(tmp_path / "store/joy")
    (tmp_path / "store/joy/back").symlink_to(root / "a")
    (root / "nowhere").symlink_to(tmp_path / "gone")
    (root / "itself").symlink_to(root / "itself")
    assert found(root) == ["a/1.wav", "b/c/2.wav", "joy/3.wav", "joy/deep/4.wav"]
    (tmp_path / "entry").symlink_to(root)
    assert len(audio_files(tmp_path / "entry")) == 4


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    touch(tmp_path, "a/1.wav", "b/2.wav")
    scandir = os.scandir

    def fail(path):  # root may read every folder
        if os.path.basename(path) == "b":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(UserError, match=r"The folder .*b cannot be read \(Permission denied\)"):
        audio_files(tmp_path)


# -- looking into files, and remembering it --


def test_inspect_tells_rate_channels_and_length(tmp_path):
    path = write(tmp_path / "a.wav", rate_hz=44_100)
    look = inspect_files([path], tmp_path / "memory")[0]
    assert (look.sample_rate_hz, look.channels, look.problem) == (44_100, 1, "")
    assert look.duration_s == pytest.approx(len(NOISE) / 44_100)


def test_the_digest_is_of_the_sound_not_of_the_file(tmp_path):
    samples = (NOISE * 2**15).astype(np.int16)
    paths = [
        write(tmp_path / "a.wav", samples),
        write(tmp_path / "a.flac", samples),
        write(tmp_path / "stereo.wav", np.stack([samples, samples], axis=1)),
        write(tmp_path / "faster.wav", samples, rate_hz=2 * RATE_HZ),
        write(tmp_path / "other.wav", samples[::-1]),
    ]
    wav, flac, stereo, faster, other = (look.digest for look in inspect_files(paths, tmp_path / "memory"))
    assert wav == flac == stereo
    assert len({wav, faster, other}) == 3


def replace_unnoticed(path, samples):
    """Write other samples, but leave size and time of the last change as they were."""
    before = path.stat()
    write(path, samples, subtype="PCM_16")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


def test_unchanged_files_are_not_read_again_and_changed_ones_are(tmp_path):
    paths = [write(tmp_path / f"{name}.wav", NOISE, subtype="PCM_16") for name in "abc"]
    memory = tmp_path / "folder" / "memory"
    first = inspect_files(paths, memory)
    replace_unnoticed(paths[0], NOISE[::-1])  # read again, it would get another digest
    write(paths[1], NOISE[::-1], subtype="PCM_16")
    os.utime(paths[1], ns=(0, 12345))
    write(paths[2], NOISE[:-1], subtype="PCM_16")
    second = inspect_files(paths, memory)
    assert second[0] == first[0]
    assert second[1].digest != first[1].digest
    assert second[2].digest not in (first[2].digest, second[1].digest)
    assert inspect_files(paths, memory) == second


def test_a_damaged_file_is_looked_at_again(tmp_path):
    path = write(tmp_path / "a.wav", 0 * NOISE, subtype="PCM_16")
    memory = tmp_path / "memory"
    assert "silent" in inspect_files([path], memory)[0].problem
    replace_unnoticed(path, NOISE)
    assert inspect_files([path], memory)[0].problem == ""


@pytest.mark.parametrize("content", [b"", b"{", bytes(1000), b"[1]", b'{"a": 5}', b"cut here"])
def test_a_memory_that_makes_no_sense_is_not_believed(tmp_path, content):
    path = write(tmp_path / "a.wav")
    memory = tmp_path / "memory"
    fresh = inspect_files([path], memory)
    (kept,) = memory.iterdir()
    kept.write_bytes(kept.read_bytes()[:-1] if content == b"cut here" else content)
    assert inspect_files([path], memory) == fresh
    replace_unnoticed(path, NOISE[::-1])
    assert inspect_files([path], memory) == fresh  # written anew, and believed


def look_together(paths, memory, start, looks):
    decode = audio.decode

    def noted(path):
        (path.parent / f"seen.{os.getpid()}.{path.name}").touch()
        return decode(path)

    audio.decode = noted
    start.wait()
    looks.put(inspect_files(paths, memory))


def test_of_two_processes_that_look_at_once_one_does_and_both_know(tmp_path):
    paths = [write(tmp_path / f"{number:03}.wav", NOISE[: 1000 + number], subtype="PCM_16") for number in range(120)]
    start, looks = processes.Barrier(2), processes.Queue()
    lookers = [
        processes.Process(target=look_together, args=(paths, tmp_path / "memory", start, looks)) for _ in range(2)
    ]
    for looker in lookers:
        looker.start()
    first, second = looks.get(), looks.get()
    for looker in lookers:
        looker.join()
    assert first == second == inspect_files(paths, tmp_path / "elsewhere")
    seen = [path.name.split(".")[2] for path in tmp_path.glob("seen.*")]
    assert sorted(seen) == [path.stem for path in paths]


def test_equal_paths_and_a_damaged_file_have_an_answer_each(tmp_path):
    sound, damaged = write(tmp_path / "a.wav"), tmp_path / "b.wav"
    damaged.write_bytes(b"damaged")
    first, second, third = inspect_files([sound, damaged, sound], tmp_path / "memory")
    assert first == third
    assert second.problem


# -- preprocessing --


def test_trimming_is_librosas():
    rng = np.random.default_rng(3)
    trimmed = 0
    for _ in range(200):
        parts = [10 ** rng.uniform(-5, 0) * rng.standard_normal(rng.integers(1, 5000)) for _ in range(4)]
        waveform = np.concatenate(parts).astype(np.float32)
        top_db = float(rng.uniform(5, 80))
        expected, _ = librosa.effects.trim(waveform, top_db=top_db)
        np.testing.assert_array_equal(Preprocess(top_db, duration_s=10)(waveform, RATE_HZ), expected)
        trimmed += len(expected) < len(waveform)
    assert trimmed > 50


@pytest.mark.parametrize("samples", [1, 2, 511, 512, 513, 2047, 2048, 2049])
def test_trimming_of_short_waveforms_is_librosas(samples):
    waveform = NOISE[:samples].astype(np.float32)
    waveform[: samples // 2] *= 1e-4
    expected, _ = librosa.effects.trim(waveform, top_db=30)
    np.testing.assert_array_equal(Preprocess(30, duration_s=10)(waveform, RATE_HZ), expected)


def test_trimming_removes_silence_at_both_ends_only():
    silence = np.zeros(RATE_HZ // 2, np.float32)
    noise = NOISE.astype(np.float32)
    waveform = np.concatenate([silence, noise, silence, noise, silence])
    trimmed = Preprocess()(waveform, RATE_HZ)
    assert len(trimmed) == pytest.approx(3 * RATE_HZ // 2, abs=2 * 2048)
    np.testing.assert_array_equal(Preprocess(top_db=None)(waveform, RATE_HZ), waveform)


def test_what_is_too_long_is_cut_at_the_end_after_trimming():
    waveform = np.concatenate([np.zeros(RATE_HZ), NOISE, NOISE, NOISE]).astype(np.float32)
    cut = Preprocess(duration_s=0.7)(waveform, RATE_HZ)
    assert len(cut) == round(0.7 * RATE_HZ)
    start = len(waveform) - len(librosa.effects.trim(waveform, top_db=60)[0])
    np.testing.assert_array_equal(cut, waveform[start : start + len(cut)])
    np.testing.assert_array_equal(Preprocess(None, duration_s=0.7)(waveform, RATE_HZ), waveform[: len(cut)])


def test_pre_emphasis_is_the_filter_of_the_textbook():
    emphasised = Preprocess(top_db=None, pre_emphasis=0.97)(NOISE.astype(np.float32), RATE_HZ)
    assert emphasised.dtype == np.float32
    np.testing.assert_allclose(emphasised, scipy.signal.lfilter([1, -0.97], [1], NOISE), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"duration_s": 0}, "duration_s is 0; it must be a positive number of seconds"),
        ({"duration_s": -1.5}, "duration_s is -1.5"),
        ({"top_db": 0}, "top_db is 0; it must be positive, or null to keep silence"),
    ],
)
def test_preprocess_rejects_nonsense(options, message):
    with pytest.raises(UserError, match=message):
        Preprocess(**options)


def test_real_recordings_are_whole(corpora, tmp_path):
    looks = inspect_files(audio_files(corpora / "emodb"), tmp_path / "memory")
    assert len(looks) == 339
    assert {(look.sample_rate_hz, look.channels, look.problem) for look in looks} == {(16_000, 1, "")}
    assert len({look.digest for look in looks}) == 339
