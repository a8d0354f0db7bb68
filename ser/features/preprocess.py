"""From a recording to the waveform that features see."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from ser.errors import UserError, check_choice

Waveform = npt.NDArray[np.float32]
WaveformNorm = Literal["none", "zscore", "rms", "peak"]


@dataclass(frozen=True)
class Preprocess:
    """From a recording to the waveform that features see.

    The order is: skip ``offset_s`` of the recording, trim, denoise; then normalise, pre-emphasise, truncate to
    ``duration_s``, pad. Levels are therefore normalised by the whole utterance.

    Args:
        top_db: Trim both ends where they are this many dB below the loudest frame; null does not.
        pre_emphasis: Coefficient a of y[t] = x[t] - a x[t-1]; 0 leaves the waveform as it is.
        duration_s: Longer clips are truncated; shorter ones are padded after the features.
        offset_s: Seconds to skip at the beginning of the recording.
        wiener: Denoise by SciPy's adaptive Wiener filter over three samples. Where it is undefined (zero divided by
            zero in constant parts) the waveform stays unchanged.
        waveform_norm: "zscore" to mean 0 and variance 1; "rms" divides by the root mean square; "peak" by the largest
            magnitude.
        segment_hop_s: Divide an utterance into segments of ``duration_s``, this many seconds apart, up to its end,
            instead of truncating it. A network is trained on segments; its prediction for an utterance is the mean of
            those for the segments. Null does not.
        pad_waveform: Pad with zeros to ``duration_s`` before the features. The zeros count as speech, as in the papers
            that do so: every frame is valid, and silence enters the statistics. "centred" pads an utterance that is
            shorter at both ends equally, as raw-waveform programs do; the last segment is padded at its end.
    """

    top_db: float | None = 60.0
    pre_emphasis: float = 0.0
    duration_s: float = 3.0
    offset_s: float = 0.0
    wiener: bool = False
    waveform_norm: WaveformNorm = "none"
    pad_waveform: bool | Literal["centred"] = False
    segment_hop_s: float | None = None

    def __post_init__(self) -> None:
        if self.duration_s <= 0:
            raise UserError(f"duration_s is {self.duration_s}; it must be a positive number of seconds.")
        if self.top_db is not None and self.top_db <= 0:
            raise UserError(f"top_db is {self.top_db}; it must be positive, or null to keep silence.")
        if self.offset_s < 0:
            raise UserError(f"offset_s is {self.offset_s}; it must be a number of seconds, or 0 to skip nothing.")
        if self.segment_hop_s is not None and not 0 < self.segment_hop_s <= self.duration_s:
            raise UserError(
                f"segment_hop_s is {self.segment_hop_s}; it must be over 0 and at most duration_s = {self.duration_s}, "
                "or null not to divide utterances."
            )
        if self.pad_waveform not in (False, True, "centred"):
            raise UserError(f"pad_waveform is {self.pad_waveform!r}; choose one of false, true, centred.")
        check_choice("waveform_norm", self.waveform_norm, get_args(WaveformNorm))

    def samples(self, sample_rate_hz: int) -> int:
        """Return the largest number of samples of a segment."""
        return round(self.duration_s * sample_rate_hz)

    def count(self, duration_s: float) -> int:
        """Return the number of segments of an untrimmed utterance; a trimmed one may have fewer."""
        if self.segment_hop_s is None:
            return 1
        beyond = max(0.0, duration_s - self.offset_s - self.duration_s)
        return 1 + math.ceil(beyond / self.segment_hop_s)

    def __call__(self, waveform: Waveform, sample_rate_hz: int) -> Waveform:
        """Return the first segment of a recording: see :meth:`clean` and :meth:`divide`."""
        return self.divide(self.clean(waveform, sample_rate_hz), sample_rate_hz)[0]

    def clean(self, waveform: Waveform, sample_rate_hz: int) -> Waveform:
        """Skip, trim and denoise: the steps before augmentation and division.

        Args:
            waveform: Mono samples, shape (N,).
            sample_rate_hz: Of the waveform.

        Returns:
            Shape (M,), 1 <= M <= N.

        Raises:
            UserError: The recording ends before ``offset_s``.
        """
        skipped = round(self.offset_s * sample_rate_hz)
        if skipped >= len(waveform):
            raise UserError(
                f"The recording lasts {len(waveform) / sample_rate_hz:.2f} s, all of which preprocess.offset_s = "
                f"{self.offset_s} skips. Give a smaller offset_s, or leave the recording out."
            )
        waveform = waveform[skipped:]
        if self.top_db is not None:
            waveform = trim(waveform, self.top_db)
        return denoise(waveform) if self.wiener else waveform

    def divide(self, waveform: Waveform, sample_rate_hz: int) -> list[Waveform]:
        """Normalise, pre-emphasise, divide or truncate, and pad.

        Args:
            waveform: What :meth:`clean` returned, shape (N,).
            sample_rate_hz: Of the waveform.

        Returns:
            The segments, one without ``segment_hop_s``, of shape (M,), 1 <= M <= ``samples(sample_rate_hz)``.
        """
        longest = self.samples(sample_rate_hz)
        if self.segment_hop_s is None and self.waveform_norm == "none":
            waveform = waveform[:longest]  # later steps need no more
        waveform = normalise(waveform, self.waveform_norm)
        if self.pre_emphasis:
            waveform = np.append(waveform[:1], waveform[1:] - np.float32(self.pre_emphasis) * waveform[:-1])
        starts = [0]
        if self.segment_hop_s is not None:
            # Until the last one reaches the end.
            starts += range(hop := round(self.segment_hop_s * sample_rate_hz), len(waveform) - longest + hop, hop)
        pieces = [waveform[start : start + longest] for start in starts]
        if self.pad_waveform:
            before = max(0, longest - len(waveform)) // 2 if self.pad_waveform == "centred" else 0
            pieces = [np.pad(piece, (before, longest - before - len(piece))) for piece in pieces]
        return pieces


def trim(waveform: Waveform, top_db: float) -> Waveform:
    """Trim silence at both ends by ``librosa.effects.trim``, (N,) to (M,), 1 <= M <= N."""
    import librosa  # here: its first use takes seconds, and loads Numba

    trimmed: Waveform = librosa.effects.trim(waveform, top_db=top_db)[0]
    return trimmed


def denoise(waveform: Waveform) -> Waveform:
    """Filter by ``scipy.signal.wiener`` over three samples, and keep the input where that is undefined, (N,)."""
    import scipy.signal  # here: importing it takes a while, and few front-ends denoise

    with np.errstate(divide="ignore", invalid="ignore"):
        filtered = scipy.signal.wiener(waveform.astype(np.float64), 3)
    return np.where(np.isfinite(filtered), filtered, waveform).astype(np.float32)


def normalise(waveform: Waveform, how: WaveformNorm) -> Waveform:
    """Scale a waveform (N,), see :class:`Preprocess`; zeros stay unchanged."""
    if how == "none":
        return waveform
    if how == "zscore":
        waveform = waveform - waveform.mean(dtype=np.float64).astype(np.float32)
    scale = {
        "zscore": lambda: waveform.std(dtype=np.float64),
        "rms": lambda: np.sqrt(np.mean(np.square(waveform, dtype=np.float64))),
        "peak": lambda: np.abs(waveform).max(),
    }[how]()
    return waveform / np.float32(scale) if scale else waveform
