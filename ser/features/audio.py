"""Recordings: found, read and checked for damage."""

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

# Suffixes of formats that libsndfile reads, without ambiguous ones (.mat, .htk, .xi, .sds).
READABLE = {
    ".wav", ".wave", ".w64", ".rf64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd",
    ".caf", ".sph", ".nist", ".voc", ".avr", ".sf", ".paf", ".pvf", ".svx", ".wve",
}  # fmt: skip
# Audio and video that it does not read: listed all the same, so that no recording is missing silently.
UNREADABLE = {
    ".m4a", ".m4b", ".mp4", ".aac", ".ac3", ".alac", ".amr", ".ape", ".3gp", ".3g2", ".wma", ".wmv", ".asf", ".webm",
    ".weba", ".mka", ".mkv", ".mov", ".avi", ".mpg", ".mpeg", ".flv", ".wv", ".ra", ".rm", ".spx", ".tta",
}  # fmt: skip
INSPECTION = 3  # raised when the properties of a recording change meaning, so that older memories are not read


@dataclass(frozen=True, slots=True)
class Recording:
    """Properties of an audio file.

    Attributes:
        digest: Hash of the decoded samples and their rate, "" for a damaged file.
        sample_rate_hz: Of the file, before any resampling; 0 for a damaged file.
        channels: Number of channels; they are averaged when the file is read.
        duration_s: Length of the recording.
        problem: Why the file cannot be used, or "" if it can.
    """

    digest: str
    sample_rate_hz: int = 0
    channels: int = 0
    duration_s: float = 0.0
    problem: str = ""


def audio_files(root: Path) -> list[Path]:
    """Return the audio files below a folder, sorted, without hidden files and folders.

    Links to folders are followed; a folder that is reached twice counts once. A file that libsndfile does not read
    (such as ``.m4a``) is listed unless a readable file of the same name, its conversion, lies beside it.

    Raises:
        UserError: A folder cannot be read.
    """
    found: list[Path] = []
    seen: set[str] = set()
    starts = [str(root)]
    for start in starts:  # links come last, so that a folder counts under its own name if it lies here
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
    """Stop where the recordings of a folder would be missing silently."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise UserError(
            f"The folder {error.filename} cannot be read ({error.strerror}). Correct its permissions, or move it away."
        ) from error


def read(path: Path, sample_rate_hz: int | None = None) -> Waveform:
    """Read a recording as mono samples in [-1, 1], resampled if a rate is given.

    Returns:
        Shape (N,).

    Raises:
        DamagedAudio: The file is unreadable, truncated, empty, silent, far too loud, or not audio.
    """
    samples, rate, _ = decode(path)
    if sample_rate_hz is not None and rate != sample_rate_hz:
        samples = soxr.resample(samples, rate, sample_rate_hz)
    return samples


def read_again(path: Path, sample_rate_hz: int | None = None) -> Waveform:
    """Read a recording that was usable when it was checked, see :func:`read`.

    Raises:
        UserError: It was deleted or damaged since.
    """
    try:
        return read(path, sample_rate_hz)
    except DamagedAudio as error:
        raise UserError(f"{path} has changed since it was checked: {error}.") from error


def inspect_files(paths: Sequence[Path], memory: Path) -> list[Recording]:
    """Inspect files, on all cores; usable files are read once, and again only after a change.

    Args:
        paths: Audio files.
        memory: Folder for the properties of usable files, by path, size and time of the last change: immutable JSON
            files, written by one process of a machine at a time.

    Raises:
        OSError: The memory cannot be written.
    """
    states = [_state(path) for path in paths]
    seen = _remembered(memory)
    if not seen.keys() >= set(states):
        with one_writer(memory, "checking recordings"):
            seen = _remembered(memory)  # another process may have inspected them meanwhile
            unknown = {state: path for state, path in zip(states, paths, strict=True) if state not in seen}
            for found in in_chunks(_inspect_chunk, list(unknown.items()), "checking recordings"):
                seen.update(found)
                if usable := {state: astuple(recording) for state, recording in found.items() if not recording.problem}:
                    write_atomically(memory / f"{uuid.uuid4().hex}.json", json.dumps(usable).encode())
    return [seen[state] for state in states]


def _remembered(memory: Path) -> dict[str, Recording]:
    """Return the recordings in the memory, by state of their file."""
    seen: dict[str, Recording] = {}
    for path in memory.glob("*.json"):
        with suppress(ValueError, TypeError, AttributeError):  # damaged
            seen.update({state: Recording(*fields) for state, fields in json.loads(path.read_bytes()).items()})
    return seen


def _inspect_chunk(files: Sequence[tuple[str, Path]]) -> dict[str, Recording]:
    return {state: _inspect(path) for state, path in files}


def _state(path: Path) -> str:
    """Hash the state of a file, as far as it is known without reading it."""
    try:
        status = path.stat()
        state = f"{INSPECTION}|{path.absolute()}|{status.st_size}|{status.st_mtime_ns}"
    except OSError:  # a broken link or a deleted file: reading reports it
        state = str(path)
    return hashlib.sha256(state.encode(errors="surrogateescape")).hexdigest()[:32]


def _inspect(path: Path) -> Recording:
    try:
        samples, rate, channels = decode(path)
    except DamagedAudio as error:
        return Recording(digest="", problem=str(error))
    hashed = hashlib.sha256(samples.tobytes() + struct.pack("<I", rate))  # processors have instructions for it
    return Recording(hashed.hexdigest()[:32], rate, channels, len(samples) / rate)
