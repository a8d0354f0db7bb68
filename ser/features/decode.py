"""From the bytes of an audio file to samples, or to the reason why it holds no usable recording."""

import io
import re
import shlex
import stat
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from ser.features.preprocess import Waveform

SILENCE_PEAK = 1e-4  # -80 dB of full scale: below it a recording holds no speech
# 36 dB over full scale. Speech of variance 1 peaks at 10 to 30, headroom and lossy coding take less; what is on the
# scale of 16-bit integers exceeds it unless it is next to silent (-54 dB).
LOUDEST_PEAK = 64.0
RATES_HZ = 4_000, 768_000  # narrower holds no speech; converters sample no faster
UNKNOWN_BYTES = 0x7F000000  # this and more of samples, or none: what programs promise who write to a pipe
BLOCK = 2**20  # samples that are read at once: what a header promises is not believed


class DamagedAudio(Exception):
    """A file holds no usable recording; the message says why."""


class _Stream(soundfile.SoundFile):  # type: ignore[misc]  # which has no types
    """A file that is read from its beginning to its end: not every one that can be read can be sought in."""

    def seekable(self) -> bool:
        return False

    def everything(self) -> npt.NDArray[Any]:
        """Return all samples, (N, channels): integers of 16 bits as they are, others with full scale at 1."""
        # Conversion of 16 bits is left to NumPy, which takes a third of libsndfile's time for it.
        dtype = "int16" if self.subtype == "PCM_16" else "float32"
        size = min(self.frames or BLOCK, BLOCK // self.channels)
        blocks = [self.read(size, dtype, always_2d=True)]
        while len(blocks[-1]) == size:
            blocks.append(self.read(size, dtype, always_2d=True))
        return np.concatenate(blocks)


def decode(path: Path) -> tuple[Waveform, int, int]:
    """Return mono samples, their rate, and the number of channels that they were mixed from.

    Raises:
        DamagedAudio: The file holds no usable recording, whatever the reason.
    """
    content = _with_length(_content(path))
    try:  # nothing but libsndfile's work on this file, which fails in many ways
        with _Stream(io.BytesIO(content)) as file:
            samples, rate, promised, form = file.everything(), file.samplerate, file.frames, file.format
    except Exception as error:
        other = ".flac" if path.suffix.lower() == ".wav" else ".wav"
        reason = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
        raise DamagedAudio(
            f"not readable as audio ({reason.rstrip('.') or type(error).__name__}); if another program plays it, "
            f"convert it: ffmpeg -i {shlex.quote(path.name)} {shlex.quote(path.stem + other)}"
        ) from error
    if form == "MP3" and len(samples) < 0.99 * promised and re.search(b"Xing|Info", content):  # others only guess
        raise DamagedAudio(f"truncated: the header promises {promised} samples, the file holds {len(samples)}")
    if form == "OGG" and not _has_last_page(content):
        raise DamagedAudio("truncated: its last page is not there")
    if not len(samples):
        raise DamagedAudio("empty: no samples")
    if not RATES_HZ[0] <= rate <= RATES_HZ[1]:
        raise DamagedAudio(f"has a sample rate of {rate} Hz; speech has {RATES_HZ[0]} to {RATES_HZ[1]} Hz")
    if samples.dtype == np.int16:
        samples = samples * np.float32(2**-15)
    else:
        _check_range(samples)
    mono: Waveform = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)
    if np.ptp(mono) < 2 * SILENCE_PEAK:
        mixed = f" in the mean of its {samples.shape[1]} channels" if samples.shape[1] > 1 else ""
        raise DamagedAudio(f"silent: no sample above -80 dB of full scale{mixed}")
    return mono, rate, samples.shape[1]


def _content(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # to open a named pipe is to wait for ever
            raise DamagedAudio("is no file, but a folder, pipe or device")
        content = path.read_bytes()
    except (OSError, MemoryError) as error:
        raise DamagedAudio(f"cannot be read ({getattr(error, 'strerror', None) or 'out of memory'})") from error
    if not content:
        raise DamagedAudio("empty: no bytes")
    return content


def _check_range(samples: npt.NDArray[np.float32]) -> None:
    """Hold the samples of every channel, which may be any number, to what a recording can hold."""
    low, high = samples.min(), samples.max()  # NaN if one is
    if not np.isfinite([low, high]).all():
        raise DamagedAudio("holds samples that are not finite numbers (NaN or infinity)")
    if (peak := max(-low, high)) > LOUDEST_PEAK:
        raise DamagedAudio(
            f"holds a sample of {peak:.4g}, where full scale is 1; divide the samples by the full scale that they have "
            "(by 32768 if they were 16-bit integers)"
        )


def _with_length(content: bytes) -> bytes:
    """Compare the length that a header promises with the bytes that follow; libsndfile reads less in silence.

    Where a header says that the length is unknown, as those of files do that a pipe wrote, the length that it turned
    out to have is put there.

    Raises:
        DamagedAudio: The file was cut.
    """
    field = _length_field(content)
    if field is None:
        return content
    position, code, start = field
    promised, held = struct.unpack_from(code, content, position)[0], max(0, len(content) - start)
    unknown = promised > held if promised >= UNKNOWN_BYTES else promised == 0 and not _are_chunks(content[start:], code)
    if unknown:
        held = min(held, 256 ** struct.calcsize(code) - 1)
        known = bytearray(content)
        struct.pack_into(code, known, position, held)
        return bytes(known)
    if promised > held:
        raise DamagedAudio(f"truncated: the header promises {promised} bytes of samples, the file holds {held}")
    return content


def _has_last_page(content: bytes) -> bool:
    """Tell whether the last page of an Ogg file says that it is the last one, and is whole."""
    page = content[content.rfind(b"OggS") :]
    sizes = page[27 : 27 + page[26]] if len(page) > 27 else b""
    return bool(sizes) and bool(page[5] & 4) and len(page) >= 27 + len(sizes) + sum(sizes)


def _length_field(content: bytes) -> tuple[int, str, int] | None:
    """Find where the header of a WAV, RF64, AIFF or AU file says how many bytes of samples follow.

    Returns:
        Position of the number, its `struct` code, and position of the samples; None for other files.

    Raises:
        DamagedAudio: The file ends before.
    """
    if content[:4] == b".snd" and len(content) >= 24:
        return 8, ">I", struct.unpack_from(">I", content, 4)[0]
    order = {b"RIFF": "<", b"RF64": "<", b"RIFX": ">", b"FORM": ">"}.get(content[:4])
    if order is None or content[8:12] not in (b"WAVE", b"AIFF", b"AIFC"):
        return None
    position, wide = 12, 0
    while position + 8 <= len(content):
        name, size = struct.unpack_from(f"{order}4sI", content, position)
        if name in (b"data", b"SSND"):
            return (wide, "<Q", position + 8) if wide else (position + 4, f"{order}I", position + 8)
        if name == b"ds64":
            wide = position + 16
        position += 8 + size + size % 2
    raise DamagedAudio("truncated: no samples after the header")


def _are_chunks(content: bytes, code: str) -> bool:
    """Say whether bytes are chunks of a WAV file, each with a name and a length, or nothing at all."""
    position = 0
    while position + 8 <= len(content):
        name, size = struct.unpack_from(f"{code[0]}4sI", content, position)
        if not name.isascii() or not name.decode("latin-1").isprintable():
            return False
        position += 8 + size + size % 2
    return position in (len(content), len(content) + 1)
