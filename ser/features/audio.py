"""Recordings: found, read, and checked for damage."""

import hashlib
import json
import os
import struct
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path

import soxr

from ser.errors import UserError
from ser.features.decode import DamagedAudio, decode
from ser.features.preprocess import Waveform
from ser.parallel import in_chunks
from ser.storage import one_writer, write_atomically

# What libsndfile reads, by endings that mean nothing but sound (.mat, .htk, .xi and .sds mean other things as well).
READABLE = {
    ".wav", ".wave", ".w64", ".rf64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd",
    ".caf", ".sph", ".nist", ".voc", ".avr", ".sf", ".paf", ".pvf", ".svx", ".wve",
}  # fmt: skip
# Sound and video that it does not read: found all the same, so that no recording is missing without a word.
UNREADABLE = {
    ".m4a", ".m4b", ".mp4", ".aac", ".ac3", ".alac", ".amr", ".ape", ".3gp", ".3g2", ".wma", ".wmv", ".asf", ".webm",
    ".weba", ".mka", ".mkv", ".mov", ".avi", ".mpg", ".mpeg", ".flv", ".wv", ".ra", ".rm", ".spx", ".tta",
}  # fmt: skip
LOOK = 3  # counted up when what a look into a file tells changes, so that older memories are not believed


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
    """Return the audio files below a folder, sorted, without hidden files and folders.

    Links to folders are followed; a folder that is reached more than once counts once. A file that libsndfile does not
    read (``.m4a``, say) counts unless one of its name, which it was converted to, lies beside it.

    Raises:
        UserError: A folder cannot be read.
    """
    found: list[Path] = []
    seen: set[str] = set()
    starts = [str(root)]
    for start in starts:  # those of links come behind, so that a folder counts under its own name if it has one here
        for folder, subfolders, names in os.walk(start, onerror=_unreadable_folder):
            shown = sorted(name for name in subfolders if not name.startswith("."))
            real = os.path.realpath(folder)
            subfolders[:] = [] if real in seen else shown
            if real in seen:
                continue
            seen.add(real)
            starts += [path for path in (os.path.join(folder, name) for name in shown) if os.path.islink(path)]
            paths = [Path(folder, name) for name in names if not name.startswith(".")]
            readable = [path for path in paths if path.suffix.lower() in READABLE]
            converted = {path.stem for path in readable}
            found += readable
            found += [path for path in paths if path.suffix.lower() in UNREADABLE and path.stem not in converted]
    return sorted(found)


def _unreadable_folder(error: OSError) -> None:
    """Stop where the recordings of a folder would be missing without a word."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise UserError(
            f"The folder {error.filename} cannot be read ({error.strerror}). Mend its permissions, or move it away."
        ) from error


def read(path: Path, sample_rate_hz: int | None = None) -> Waveform:
    """Read a recording as mono samples in [-1, 1], resampled if a rate is given.

    Returns:
        Shape (N,).

    Raises:
        DamagedAudio: The file cannot be read, is truncated, empty, silent or absurdly loud, or no audio at all.
    """
    samples, rate, _ = decode(path)
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
    except DamagedAudio as error:
        raise UserError(f"{path} was sound when it was checked, and cannot be read now: {error}.") from error


def inspect_files(paths: Sequence[Path], memory: Path) -> list[Recording]:
    """Look into every file once, on all cores; sound files that have not changed since are not read again.

    Args:
        paths: Audio files.
        memory: Folder that keeps what was seen of sound files, by path, size and time of the last change: immutable
            files of JSON, which one process of a machine adds to at a time.

    Raises:
        OSError: The memory cannot be written.
    """
    states = [_state(path) for path in paths]
    seen = _remembered(memory)
    if not seen.keys() >= set(states):
        with one_writer(memory, "checking recordings"):
            seen = _remembered(memory)  # others have looked meanwhile
            unknown = {state: path for state, path in zip(states, paths, strict=True) if state not in seen}
            for looks in in_chunks(_look, list(unknown.items()), "checking recordings"):
                seen.update(looks)
                if sound := {state: astuple(look) for state, look in looks.items() if not look.problem}:
                    write_atomically(memory / f"{uuid.uuid4().hex}.json", json.dumps(sound).encode())
    return [seen[state] for state in states]


def _remembered(memory: Path) -> dict[str, Recording]:
    """Return what was seen of files in their states."""
    seen: dict[str, Recording] = {}
    for path in memory.glob("*.json"):
        with suppress(ValueError, TypeError, AttributeError):  # not what was written
            seen.update({state: Recording(*fields) for state, fields in json.loads(path.read_bytes()).items()})
    return seen


def _look(files: Sequence[tuple[str, Path]]) -> dict[str, Recording]:
    return {state: _inspect(path) for state, path in files}


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
        samples, rate, channels = decode(path)
    except DamagedAudio as error:
        return Recording(digest="", problem=str(error))
    hashed = hashlib.sha256(samples.tobytes() + struct.pack("<I", rate))  # which processors have instructions for
    return Recording(hashed.hexdigest()[:32], rate, channels, len(samples) / rate)
