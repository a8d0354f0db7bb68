"""The steps of spectrograms, as functions of tensors with time as the last axis."""

import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torchaudio.functional import melscale_fbanks

from ser.errors import UserError

POWER_FLOOR = 1e-10
# Periodic, as named windows in SciPy and librosa are; others come from SciPy, whose import is slow.
WINDOWS: dict[str, Callable[[int], Tensor]] = {
    "hamming": torch.hamming_window,
    "hann": torch.hann_window,
    "rectangular": torch.ones,
}

Centre = bool | Literal["reflect"]
Scale = Literal["ln", "db", "db_of_max"]


def taper(window: str, length: int) -> Tensor:
    """Return a window, shape (length,).

    Raises:
        UserError: The window is unknown.
    """
    if window in WINDOWS:
        return WINDOWS[window](length)
    import scipy.signal

    try:
        return torch.from_numpy(scipy.signal.get_window(window, length)).float()
    except ValueError as error:
        raise UserError(
            f"window is {window!r}; give one of {', '.join(WINDOWS)}, or a window of scipy.signal without "
            f"parameters, such as blackman (SciPy: {error})."
        ) from error


def power_spectrum(waveform: Tensor, n_fft: int, hop_length: int, window: Tensor, center: Centre) -> Tensor:
    """Compute the squared magnitudes of the short-time Fourier transform.

    Args:
        waveform: Shape (N,), at least one sample.
        n_fft: Points of the transform.
        hop_length: Samples from one frame to the next.
        window: Shape (at most n_fft,); zero-padded to n_fft at both ends.
        center: False for frames that begin at multiples of the hop, True for frames that are centred there, with zeros
            before and after the waveform, "reflect" with the waveform mirrored there.

    Returns:
        Shape (1 + n_fft/2, T).
    """
    # Pad a waveform that is shorter than one window, or than its mirrored part.
    shortest = {False: len(window), True: 1, "reflect": 1 + n_fft // 2}[center]
    if len(waveform) < shortest:
        waveform = F.pad(waveform, (0, shortest - len(waveform)))
    if not center:
        # torch.stft puts the window in the middle of n_fft samples; this makes frame i start at sample i * hop.
        margin = n_fft - len(window)
        waveform = F.pad(waveform, (margin // 2, margin - margin // 2))
    spectrum = torch.stft(
        waveform,
        n_fft,
        hop_length,
        len(window),
        window,
        center=bool(center),
        pad_mode="reflect" if center == "reflect" else "constant",
        return_complex=True,
    )  # (1 + n_fft/2, T)
    squares = torch.view_as_real(spectrum).square_()  # (1 + n_fft/2, T, 2), of real and imaginary part
    return squares[..., 0] + squares[..., 1]


def log_scale(power: Tensor, scale: Scale, top_db: float | None) -> Tensor:
    """Compute the level of power, with a floor of 1e-10, in any shape.

    Args:
        power: Any shape, with all frames of an utterance: two scales refer to its maximum.
        scale: See :class:`ser.data.LogMel`.
        top_db: Raise lower levels to this many dB below the maximum.
    """
    if scale == "ln":
        return power.clamp_min(POWER_FLOOR).log()
    level = power.clamp_min(POWER_FLOOR).log10() * 10
    if scale == "db_of_max":
        level = level - level.max()
    return level if top_db is None else level.clamp_min(level.max() - top_db)


def delta(sequence: Tensor, reach: int = 2) -> Tensor:
    """Differentiate along the last axis by linear regression over ``reach`` frames before and after.

    d[t] = sum_n n (x[t+n] - x[t-n]) / (2 sum_n n^2), n = 1..reach, with the first and last frame repeated.

    Shape:
        (F, T) to (F, T).
    """
    length = sequence.shape[-1]
    padded = F.pad(sequence, (reach, reach), mode="replicate")
    slope = padded[..., reach + 1 :][..., :length] - padded[..., reach - 1 :][..., :length]
    for n in range(2, reach + 1):
        slope.add_(padded[..., reach + n :][..., :length], alpha=n).sub_(
            padded[..., reach - n :][..., :length], alpha=n
        )
    return slope.div_(2 * sum(n * n for n in range(1, reach + 1)))


def with_deltas(static: Tensor, order: int) -> list[Tensor]:
    """Return (F, T) and its first ``order`` derivatives."""
    channels = [static]
    for _ in range(order):
        channels.append(delta(channels[-1]))
    return channels


@lru_cache
def mel_filters(sample_rate_hz: int, n_fft: int, n_mels: int, mel_scale: str) -> Tensor:
    """Return triangular mel filters between 0 Hz and half the sample rate, shape (n_mels, 1 + n_fft/2).

    Raises:
        UserError: Some of so many filters hold no frequency of the transform.
    """
    norm = "slaney" if mel_scale == "slaney" else None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "At least one mel filterbank")  # the error below is clearer
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
