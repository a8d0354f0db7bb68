"""Features: torch modules from a waveform to an image or sequence, with time as the last axis."""

import math
from abc import ABC, abstractmethod
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torchaudio.functional import create_dct

from ser.errors import UserError, check_choice
from ser.features.spectrograms import Centre, Scale, log_scale, mel_filters, power_spectrum, taper, with_deltas


class Features(nn.Module, ABC):
    """Base class: one waveform in, one feature array out.

    Every constructor argument is kept as an attribute of the same name; the cache and the checkpoint describe the
    features by these.

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
            Shape (..., T), T >= 1, of valid frames only.
        """


class Waveform(Features):
    """The waveform itself, for networks with learned filters; a frame is a sample.

    Args:
        sample_rate_hz: Rate that recordings are resampled to.

    Shape:
        (N,) to (1, N).
    """

    def __init__(self, sample_rate_hz: int = 16_000) -> None:
        super().__init__()
        self.sample_rate_hz = sample_rate_hz

    def shape(self, samples: int) -> tuple[int, ...]:
        """Return (1, N)."""
        return 1, samples

    def forward(self, waveform: Tensor) -> Tensor:
        """Add the channel axis, (N,) to (1, N)."""
        return waveform[None]


class LogMel(Features):
    """Log-mel spectrogram, optionally with time derivatives (the 3-D log-mel of ACRNN and CoRNN).

    Derivatives are a regression over two frames before and after, with edge frames repeated. The defaults are those of
    Chen et al. (2018), apart from ``deltas``: 40 HTK mel filters, 25 ms Hamming window, 10 ms hop.

    Args:
        sample_rate_hz: Rate that recordings are resampled to.
        n_mels: Number of mel filters between 0 Hz and half the sample rate.
        window_ms: Length of the analysis window, rounded to samples; null is all of ``n_fft``, as in librosa.
        hop_ms: Distance between frames, rounded to samples; null is a quarter of ``n_fft``, as in librosa.
        n_fft: Points of the Fourier transform; the window is zero-padded to it.
        window: Shape of the window: "hamming", "hann", "rectangular", or the name of any in ``scipy.signal``.
        mel_scale: "htk" (2595 log10(1 + f/700)) or "slaney" (with its area normalisation).
        deltas: 0 for the static spectrogram, 1 adds the first derivative as a channel, 2 also the second.
        center: Whether frames are centred on their time, with zeros around the waveform, as in librosa;
            "reflect" mirrors it at both ends instead, the default of librosa before 0.10.
        scale: Of the power: "ln" is the natural logarithm, "db" 10 log10, "db_of_max" 10 log10 relative to the
            utterance's maximum.
        top_db: Raise lower levels to this many dB below the utterance's maximum (librosa: 80); not for "ln".

    Shape:
        (N,) to (1 + deltas, n_mels, T).
    """

    _taper: Tensor
    _filters: Tensor

    def __init__(
        self,
        sample_rate_hz: int = 16_000,
        n_mels: int = 40,
        window_ms: float | None = 25.0,
        hop_ms: float | None = 10.0,
        n_fft: int = 512,
        window: str = "hamming",
        mel_scale: Literal["htk", "slaney"] = "htk",
        deltas: Literal[0, 1, 2] = 0,
        center: Centre = False,
        scale: Scale = "ln",
        top_db: float | None = None,
    ) -> None:
        super().__init__()
        check_choice("scale", scale, get_args(Scale))
        if n_mels < 1:
            raise UserError(f"n_mels is {n_mels}; it must be at least 1.")
        if top_db is not None and (top_db <= 0 or scale == "ln"):
            raise UserError(
                f"top_db is {top_db} and scale is {scale}; top_db must be positive, and needs a scale in dB. Give "
                "scale: db, or top_db: null."
            )
        self.sample_rate_hz = sample_rate_hz
        self.n_mels = n_mels
        self.window_ms = window_ms
        self.hop_ms = hop_ms
        self.n_fft = n_fft
        self.window = window
        self.mel_scale = mel_scale
        self.deltas = deltas
        self.center = center
        self.scale = scale
        self.top_db = top_db
        self.win_length = n_fft if window_ms is None else round(window_ms * sample_rate_hz / 1000)
        self.hop_length = n_fft // 4 if hop_ms is None else round(hop_ms * sample_rate_hz / 1000)
        if not 1 <= self.win_length <= n_fft:
            raise UserError(
                f"A window of {window_ms} ms has {self.win_length} samples at {sample_rate_hz} Hz; it must fit n_fft = "
                f"{n_fft}. Give a larger n_fft or a shorter window_ms."
            )
        if self.hop_length < 1:
            raise UserError(f"hop_ms = {hop_ms} is less than one sample at {sample_rate_hz} Hz.")
        self.register_buffer("_taper", taper(window, self.win_length), persistent=False)
        self.register_buffer("_filters", mel_filters(sample_rate_hz, n_fft, n_mels, mel_scale), persistent=False)

    def shape(self, samples: int) -> tuple[int, ...]:
        """Return (1 + deltas, n_mels, T); T is one frame per started hop, at least those that the signal fills."""
        reach = 0 if self.center else self.win_length
        filled = 1 + max(samples - reach, 0) // self.hop_length
        return 1 + self.deltas, self.n_mels, max(filled, math.ceil(samples / self.hop_length))

    def forward(self, waveform: Tensor) -> Tensor:
        """Compute the spectrogram of one waveform, (N,) to (1 + deltas, n_mels, T)."""
        power = power_spectrum(waveform, self.n_fft, self.hop_length, self._taper, self.center)
        static = log_scale(self._filters @ power, self.scale, self.top_db)  # (n_mels, T)
        return torch.stack(with_deltas(static, self.deltas))  # (1 + deltas, n_mels, T)


class MFCC(Features):
    """Mel-frequency cepstral coefficients: the orthonormal cosine transform (DCT-II) of a log-mel spectrogram.

    Args:
        log_mel: The spectrogram with its rate, frames, filters and scale: natural logarithm as in HTK or, as in
            librosa, ``{scale: db, top_db: 80, mel_scale: slaney, …}``. Null takes :class:`LogMel`'s defaults.
        n_mfcc: Number of coefficients, from the lowest.
        drop_first: Leave out the first, which is the level; ``n_mfcc`` counts it.
        reduce: "mean" averages the coefficients of every frame.
        deltas: 1 appends the first derivatives to the coefficients, 2 also the second.

    Shape:
        (N,) to (1, (n_mfcc - drop_first) (1 + deltas), T), where 1 takes the place of n_mfcc - drop_first if reduced.
    """

    _transform: Tensor

    def __init__(
        self,
        log_mel: LogMel | None = None,
        n_mfcc: int = 13,
        drop_first: bool = False,
        reduce: Literal["none", "mean"] = "none",
        deltas: Literal[0, 1, 2] = 0,
    ) -> None:
        super().__init__()
        self.log_mel = log_mel if log_mel is not None else LogMel()
        self.n_mfcc = n_mfcc
        self.drop_first = drop_first
        self.reduce = reduce
        self.deltas = deltas
        if self.log_mel.deltas:
            raise UserError("MFCC.log_mel has deltas; give deltas to MFCC itself, for those of the coefficients.")
        if not 1 + drop_first <= n_mfcc <= self.log_mel.n_mels:
            raise UserError(
                f"n_mfcc is {n_mfcc}; it must be {1 + drop_first} to {self.log_mel.n_mels}, the number of mel filters."
            )
        self.sample_rate_hz = self.log_mel.sample_rate_hz
        transform = create_dct(n_mfcc, self.log_mel.n_mels, norm="ortho").T[int(drop_first) :]  # (coefficients, n_mels)
        self.register_buffer("_transform", transform.contiguous(), persistent=False)

    def shape(self, samples: int) -> tuple[int, ...]:
        """Return (1, coefficients, T), with the frames of the spectrogram."""
        coefficients = 1 if self.reduce == "mean" else len(self._transform)
        return 1, coefficients * (1 + self.deltas), self.log_mel.shape(samples)[-1]

    def forward(self, waveform: Tensor) -> Tensor:
        """Compute the coefficients of one waveform, (N,) to (1, coefficients, T)."""
        coefficients = self._transform @ self.log_mel(waveform)[0]  # (n_mfcc - drop_first, T)
        if self.reduce == "mean":
            coefficients = coefficients.mean(dim=0, keepdim=True)  # (1, T)
        return torch.cat(with_deltas(coefficients, self.deltas))[None]  # (1, coefficients (1 + deltas), T)
