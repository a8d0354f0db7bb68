"""Features: torch modules from a waveform to an image or sequence whose last axis is time."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.functional import melscale_fbanks

from ser.errors import UserError

POWER_FLOOR = 1e-10
WINDOWS: dict[str, Callable[[int], Tensor]] = {
    "hamming": torch.hamming_window,
    "hann": torch.hann_window,
    "rectangular": torch.ones,
}


class Features(nn.Module, ABC):
    """Base class: one waveform in, one feature array out.

    Every constructor argument is kept as an attribute of the same name; the cache and the checkpoint describe the
    features by them.

    Attributes:
        sample_rate_hz: Rate that recordings are resampled to.
    """

    sample_rate_hz: int

    @abstractmethod
    def shape(self, samples: int) -> tuple[int, ...]:
        """Return the shape (..., T) that an utterance of this many samples is padded to."""

    @abstractmethod
    def forward(self, waveform: Tensor) -> Tensor:
        """Compute the features of one waveform.

        Args:
            waveform: Shape (N,), at least one sample.

        Returns:
            Shape (..., T), T >= 1 counting only frames with signal.
        """


class LogMel(Features):
    """Log-mel spectrogram, with its time derivatives on request (the 3-D log-mel of ACRNN and CoRNN).

    Derivatives are the usual regression over two frames to each side, edge frames repeated. The defaults are
    those of Chen et al. (2018), apart from ``deltas``: 40 HTK mel filters, 25 ms Hamming window, 10 ms hop.

    Args:
        sample_rate_hz: Rate that recordings are resampled to.
        n_mels: Number of mel filters between 0 Hz and half the sample rate.
        window_ms: Length of the analysis window.
        hop_ms: Distance between frames.
        n_fft: Points of the Fourier transform; the window is zero-padded to it.
        window: Shape of the window.
        mel_scale: "htk" (2595 log10(1 + f/700)) or "slaney" (with its area normalisation).
        deltas: 0 for the static spectrogram, 1 adds the first derivative as a channel, 2 also the second.
        center: Whether frames are centred on their time (padding both ends), as librosa does by default.

    Shape:
        (N,) to (1 + deltas, n_mels, T).
    """

    _taper: Tensor
    _filters: Tensor

    def __init__(
        self,
        sample_rate_hz: int = 16_000,
        n_mels: int = 40,
        window_ms: float = 25.0,
        hop_ms: float = 10.0,
        n_fft: int = 512,
        window: Literal["hamming", "hann", "rectangular"] = "hamming",
        mel_scale: Literal["htk", "slaney"] = "htk",
        deltas: Literal[0, 1, 2] = 0,
        center: bool = False,
    ) -> None:
        super().__init__()
        self.sample_rate_hz = sample_rate_hz
        self.n_mels = n_mels
        self.window_ms = window_ms
        self.hop_ms = hop_ms
        self.n_fft = n_fft
        self.window = window
        self.mel_scale = mel_scale
        self.deltas = deltas
        self.center = center
        self.win_length = round(window_ms * sample_rate_hz / 1000)
        self.hop_length = round(hop_ms * sample_rate_hz / 1000)
        if not 1 <= self.win_length <= n_fft:
            raise UserError(
                f"A window of {window_ms} ms has {self.win_length} samples at {sample_rate_hz} Hz; it must fit n_fft = "
                f"{n_fft}. Give a larger n_fft or a shorter window_ms."
            )
        if self.hop_length < 1:
            raise UserError(f"hop_ms = {hop_ms} is less than one sample at {sample_rate_hz} Hz.")
        self.register_buffer("_taper", WINDOWS[window](self.win_length), persistent=False)
        self.register_buffer("_filters", mel_filters(sample_rate_hz, n_fft, n_mels, mel_scale), persistent=False)

    def shape(self, samples: int) -> tuple[int, ...]:
        """Return (1 + deltas, n_mels, T); T is one frame per hop begun, at least those that the signal fills."""
        return 1 + self.deltas, self.n_mels, max(self._frames(samples), math.ceil(samples / self.hop_length))

    def forward(self, waveform: Tensor) -> Tensor:
        """Compute the spectrogram of one waveform, (N,) to (1 + deltas, n_mels, T)."""
        shortfall = self.win_length - len(waveform)
        if shortfall > 0:  # shorter than one window
            waveform = F.pad(waveform, (0, shortfall))
        if not self.center:
            # torch.stft puts the window in the middle of n_fft samples; this makes frame i start at sample i * hop.
            margin = self.n_fft - self.win_length
            waveform = F.pad(waveform, (margin // 2, margin - margin // 2))
        spectrum = torch.stft(
            waveform,
            self.n_fft,
            self.hop_length,
            self.win_length,
            self._taper,
            center=self.center,
            pad_mode="constant",
            return_complex=True,
        )  # (1 + n_fft/2, T)
        squares = torch.view_as_real(spectrum).square_()  # (1 + n_fft/2, T, 2), of real and imaginary part
        power = squares[..., 0] + squares[..., 1]
        static = (self._filters @ power).clamp_min(POWER_FLOOR).log()  # (n_mels, T)
        channels = [static]
        for _ in range(self.deltas):
            channels.append(delta(channels[-1]))
        return torch.stack(channels)  # (1 + deltas, n_mels, T)

    def _frames(self, samples: int) -> int:
        reach = 0 if self.center else self.win_length
        return 1 + max(samples - reach, 0) // self.hop_length


def delta(sequence: Tensor, reach: int = 2) -> Tensor:
    """Differentiate along the last axis by linear regression over ``reach`` frames to each side.

    d[t] = sum_n n (x[t+n] - x[t-n]) / (2 sum_n n^2), n = 1..reach, with the first and last frame repeated.

    Shape:
        (F, T) to (F, T).
    """
    length = sequence.shape[-1]
    padded = F.pad(sequence, (reach, reach), mode="replicate")
    slope = torch.zeros_like(sequence)
    for n in range(1, reach + 1):
        ahead, behind = (padded[..., start : start + length] for start in (reach + n, reach - n))
        slope.add_(ahead - behind, alpha=n)
    return slope / (2 * sum(n * n for n in range(1, reach + 1)))


@lru_cache
def mel_filters(sample_rate_hz: int, n_fft: int, n_mels: int, mel_scale: str) -> Tensor:
    """Return triangular mel filters between 0 Hz and half the sample rate, shape (n_mels, 1 + n_fft/2).

    Raises:
        UserError: So many filters that some hold no frequency of the transform.
    """
    norm = "slaney" if mel_scale == "slaney" else None
    filters: Tensor = melscale_fbanks(
        1 + n_fft // 2, 0.0, sample_rate_hz / 2, n_mels, sample_rate_hz, norm, mel_scale
    ).T
    empty = int((filters.sum(dim=1) == 0).sum())
    if empty:
        raise UserError(
            f"{empty} of {n_mels} mel filters are empty: a transform of {n_fft} points at {sample_rate_hz} Hz "
            "is too coarse. Give fewer n_mels or a larger n_fft."
        )
    return filters.contiguous()
