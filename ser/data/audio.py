"""Recordings: found, read, and checked for damage."""

import hashlib
import io
import json
import os
import struct
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from ser.data.preprocess import Waveform
from ser.data.shared import SharedWork
from ser.errors import UserError

AUDIO_SUFFIXES = {".wav", ".flac", ".ogg", ".mp3"}
LOOK = 2  # counted up when what a look into a file tells changes, so that older memories are not believed
SILENCE_PEAK = 1e-4  # -80 dB of full scale: below it a recording holds no speech


class DamagedAudio(Exception):
    """A file holds no usable recording; the message says why."""


@dataclass(frozen=True, slots=True)
class Recording:
    """What one look into an audio file tells.

    Attributes:
        digest: Hash of the decoded samples and their rate, "" for a damaged file.
        sample_rate_hz: Of the file, before any resampling; 0 for a damaged file.
        channels: Number of channels; they are averaged when the file is read.
        duration_s: Length of the recording.
        problem: Why the file cannot be used, or "" for a sound one.
    """

    digest: str
    sample_rate_hz: int = 0
    channels: int = 0
    duration_s: float = 0.0
    problem: str = ""


def audio_files(root: Path) -> list[Path]:
    """Return the audio files below a folder, sorted, without hidden files and folders."""
    found = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        found += [Path(folder, name) for name in names if not name.startswith(".")]
    return sorted(path for path in found if path.suffix.lower() in AUDIO_SUFFIXES)


def read(path: Path, sample_rate_hz: int | None = None) -> Waveform:
    """Read a recording as mono samples in [-1, 1], resampled if a rate is given.

    Returns:
        Shape (N,).

    Raises:
        DamagedAudio: The file is truncated, empty, silent, not finite, or no audio at all.
    """
    samples, rate, _ = _decode(path.read_bytes())
    if sample_rate_hz is not None and rate != sample_rate_hz:
        samples = soxr.resample(samples, rate, sample_rate_hz)
    return samples


def read_again(path: Path, sample_rate_hz: int | None = None) -> Waveform:
    """Read a recording that was sound when it was checked, see :func:`read`.

    Raises:
        UserError: It is gone, or damaged, since.
    """
    try:
        return read(path, sample_rate_hz)
    except (OSError, DamagedAudio) as error:
        raise UserError(f"{path} was sound when it was checked, and cannot be read now: {error}.") from error


def inspect_files(paths: Sequence[Path], memory: Path) -> list[Recording]:
    """Look into every file once, in parallel; sound files that have not changed since are not read again.

    Args:
        paths: Audio files.
        memory: Folder that keeps what was seen of sound files, by path, size and time of the last change. Processes
            that share it divide the work, see :mod:`ser.data.shared`.

    Raises:
        OSError: The memory cannot be written.
    """
    seen: dict[str, Recording] = {}

    def take_in(_: int, block: bytes) -> bool:
        seen.update((key, Recording(*fields)) for key, *fields in json.loads(block))
        return True

    def look(file: _File) -> tuple[str, Recording]:
        return file.key, _inspect(file.path)

    def publish(part: int, looks: Sequence[tuple[str, Recording]]) -> None:
        seen.update(looks)
        sound = [(key, *astuple(recording)) for key, recording in looks if not recording.problem]
        if sound:
            work.publish(part, json.dumps(sound).encode())

    work = SharedWork(memory, seen, take_in)
    work.look()
    files = [_File(_state(path), path) for path in paths]
    unknown = {file.key: file for file in files if file.key not in seen}
    if unknown:
        memory.mkdir(parents=True, exist_ok=True)
        with work.part() as part:
            work.do(part, unknown.values(), look, partial(publish, part), "checking recordings")
    return [seen[file.key] for file in files]


class _File(NamedTuple):
    """A file in a certain state."""

    key: str
    path: Path


def _state(path: Path) -> str:
    """Name the state of a file, as far as that is known without reading it."""
    try:
        status = path.stat()
        state = f"{LOOK}|{path.absolute()}|{status.st_size}|{status.st_mtime_ns}"
    except OSError:  # a link to nowhere, a file that is gone: reading it says so
        state = str(path)
    return hashlib.sha256(state.encode(errors="surrogateescape")).hexdigest()[:32]


def _inspect(path: Path) -> Recording:
    try:
        content = path.read_bytes()
    except OSError as error:
        return Recording(digest="", problem=f"cannot be read ({error.strerror})")
    try:
        samples, rate, channels = _decode(content)
    except DamagedAudio as error:
        return Recording(digest="", problem=str(error))
    hashed = hashlib.sha256(samples.tobytes() + struct.pack("<I", rate))  # which processors have instructions for
    return Recording(hashed.hexdigest()[:32], rate, channels, len(samples) / rate)


def _decode(content: bytes) -> tuple[Waveform, int, int]:
    """Return mono samples, their rate, and the number of channels that they were mixed from."""
    _refuse_truncated_wav(content)
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            rate = file.samplerate
            if file.subtype == "PCM_16":  # what libsndfile's own conversion gives, in a third of its time
                samples = file.read(dtype="int16", always_2d=True) * np.float32(2**-15)  # (N, channels)
            else:
                samples = file.read(dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise DamagedAudio(f"not readable as audio ({error.error_string.rstrip('.')})") from error
    if not len(samples):
        raise DamagedAudio("empty: no samples")
    mono: Waveform = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)
    if not np.isfinite(mono).all():
        raise DamagedAudio("holds samples that are not finite numbers (NaN or infinity)")
    if np.ptp(mono) < 2 * SILENCE_PEAK:
        raise DamagedAudio("silent: no sample above -80 dB of full scale")
    return mono, rate, samples.shape[1]


def _refuse_truncated_wav(content: bytes) -> None:
    """Compare the length that a WAV header promises with the bytes that follow; libsndfile reads on in silence."""
    if not content:
        raise DamagedAudio("empty: no bytes")
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        return
    position = 12
    while position + 8 <= len(content):
        name, size = content[position : position + 4], struct.unpack_from("<I", content, position + 4)[0]
        held = len(content) - position - 8
        if name == b"data":
            streamed = size in (0, 0xFFFFFFFF)  # written by a pipe that did not know the length
            if size > held and not streamed:
                raise DamagedAudio(f"truncated: the header promises {size} bytes of samples, the file holds {held}")
            return
        position += 8 + size + size % 2
    raise DamagedAudio("truncated: no samples after the header")
