"""From the bytes of an audio file to samples, or to the reason why they are unusable."""

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
# 36 dB over full scale. Speech of variance 1 peaks at 10 to 30, lossy coding overshoots less; samples on the scale of
# 16-bit integers exceed it unless they are almost silent (-54 dB).
LOUDEST_PEAK = 64.0
RATES_HZ = 4_000, 768_000  # speech needs more than the lowest; converters sample no faster
UNKNOWN_BYTES = 0x7F000000  # programs that write to a pipe state this length or more, or none
BLOCK = 2**20  # samples that are read at once: the length in a header is not trusted


class DamagedAudio(Exception):
    """A file without a usable recording; the message says why."""


class _Stream(soundfile.SoundFile):  # type: ignore[misc]  # which has no types
    """A file that is read from start to end: not all readable files are seekable."""

    def seekable(self) -> bool:
        return False

    def everything(self) -> npt.NDArray[Any]:
        """Return all samples, (N, channels): 16-bit integers unchanged, others with full scale at 1."""
        # NumPy converts 16 bits in a third of libsndfile's time.
        dtype = "int16" if self.subtype == "PCM_16" else "float32"
        size = min(self.frames or BLOCK, BLOCK // self.channels)
        blocks = [self.read(size, dtype, always_2d=True)]
        while len(blocks[-1]) == size:
            blocks.append(self.read(size, dtype, always_2d=True))
        return np.concatenate(blocks)


def decode(path: Path) -> tuple[Waveform, int, int]:
    """Return mono samples, their rate, and the number of channels that were averaged.

    Raises:
        DamagedAudio: The file holds no usable recording.
    """
    content = _with_length(_content(path))
    try:  # libsndfile alone, which fails in many ways
        with _Stream(io.BytesIO(content)) as file:
            samples, rate, promised, form = file.everything(), file.samplerate, file.frames, file.format
    except Exception as error:
        other = ".flac" if path.suffix.lower() == ".wav" else ".wav"
        reason = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
        raise DamagedAudio(
            f"not readable as audio ({reason.rstrip('.') or type(error).__name__}); if another program plays it, "
            f"convert it: ffmpeg -i {shlex.quote(path.name)} {shlex.quote(path.stem + other)}"
        ) from error
    if form == "MP3" and len(samples) < 0.99 * promised and re.search(b"Xing|Info", content):  # others estimate
        raise DamagedAudio(f"truncated: the header promises {promised} samples, the file holds {len(samples)}")
    if form == "OGG" and not _has_last_page(content):
        raise DamagedAudio("truncated: its last page is missing")
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
        if not stat.S_ISREG(path.stat().st_mode):  # opening a named pipe would wait forever
            raise DamagedAudio("is not a file, but a folder, pipe or device")
        content = path.read_bytes()
    except (OSError, MemoryError) as error:
        raise DamagedAudio(f"cannot be read ({getattr(error, 'strerror', None) or 'out of memory'})") from error
    if not content:
        raise DamagedAudio("empty: no bytes")
    return content


def _check_range(samples: npt.NDArray[np.float32]) -> None:
    """Check that floating-point samples are finite and of a plausible level."""
    low, high = samples.min(), samples.max()  # NaN if one is
    if not np.isfinite([low, high]).all():
        raise DamagedAudio("holds samples that are not finite numbers (NaN or infinity)")
    if (peak := max(-low, high)) > LOUDEST_PEAK:
        raise DamagedAudio(
            f"holds a sample of {peak:.4g}, where full scale is 1; divide the samples by their own full scale "
            "(32768 if they were 16-bit integers)"
        )


def _with_length(content: bytes) -> bytes:
    """Compare the length in a header with the bytes that follow, since libsndfile reads fewer without an error.

    If the header states that the length is unknown, as in files written to a pipe, the true length is filled in.

    Raises:
        DamagedAudio: The file is truncated.
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
    """Return whether an Ogg file ends with a complete page that is marked as the last."""
    page = content[content.rfind(b"OggS") :]
    sizes = page[27 : 27 + page[26]] if len(page) > 27 else b""
    return bool(sizes) and bool(page[5] & 4) and len(page) >= 27 + len(sizes) + sum(sizes)


def _length_field(content: bytes) -> tuple[int, str, int] | None:
    """Find the length of the samples in the header of a WAV, RF64, AIFF or AU file.

    Returns:
        Position of the number, its `struct` code, and position of the samples; None for other files.

    Raises:
        DamagedAudio: The file ends before the samples.
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
    """Return whether bytes are chunks of a WAV file, each with a name and a length, or empty."""
    position = 0
    while position + 8 <= len(content):
        name, size = struct.unpack_from(f"{code[0]}4sI", content, position)
        if not name.isascii() or not name.decode("latin-1").isprintable():
            return False
        position += 8 + size + size % 2
    return position in (len(content), len(content) + 1)
