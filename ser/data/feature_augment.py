"""Augmentation of features, in the training step only: SpecAugment and mixup.

Random numbers are torch's, which the task seeds in every epoch on every process.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchaudio.functional import mask_along_axis_iid

from ser.errors import UserError


class SpecAugment(nn.Module):
    """Sets bands of mel bins and stretches of time to zero, the mean of standardised features.

    Every utterance has its own bands and stretches, the same in all channels. In a waveform, which has no bins, only
    stretches of time are masked.

    Source: Park et al., "SpecAugment: A Simple Data Augmentation Method for Automatic Speech Recognition", 2019,
    without time warping.

    Args:
        bin_masks: Number of bands.
        bin_width: Bins of a band at most.
        time_masks: Number of stretches.
        time_width: Frames of a stretch at most.
    """

    def __init__(self, bin_masks: int = 2, bin_width: int = 8, time_masks: int = 2, time_width: int = 30) -> None:
        super().__init__()
        for name, value in {"bin_masks": bin_masks, "time_masks": time_masks}.items():
            if value < 0:
                raise UserError(f"{name} is {value}; it must be at least 0.")
        for name, value in {"bin_width": bin_width, "time_width": time_width}.items():
            if value < 1:
                raise UserError(f"{name} is {value}; it must be at least 1.")
        self.bin_masks = bin_masks
        self.bin_width = bin_width
        self.time_masks = time_masks
        self.time_width = time_width

    def forward(self, features: Tensor) -> Tensor:
        """Mask standardised features, (B, ..., F, T) or (B, 1, N), to the same shape."""
        batch, *_, bins, frames = features.shape
        kept = features.new_ones(batch, bins, frames)
        for _ in range(self.bin_masks if features.dim() > 3 else 0):
            kept = mask_along_axis_iid(kept, min(self.bin_width, bins), 0.0, axis=1)
        for _ in range(self.time_masks):
            kept = mask_along_axis_iid(kept, min(self.time_width, frames), 0.0, axis=2)
        return features * kept.reshape(batch, *[1] * (features.dim() - 3), bins, frames)


class Mixed(NamedTuple):
    """A batch of utterances that are each mixed with another.

    Attributes:
        features: (B, ..., T).
        lengths: (B,) valid frames: those of the longer utterance.
        others: (B,) index of the utterance that each was mixed with.
        share: Of the utterance itself, at least a half.
    """

    features: Tensor
    lengths: Tensor
    others: Tensor
    share: Tensor


def mix_up(features: Tensor, lengths: Tensor, alpha: float) -> Mixed:
    """Mix every utterance with another of its batch, by one share for all, drawn from Beta(alpha, alpha).

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018.

    Args:
        features: (B, ..., T), standardised.
        lengths: (B,) valid frames of each.
        alpha: Small values mix little.
    """
    share = torch.distributions.Beta(alpha, alpha).sample().to(features)
    share = torch.maximum(share, 1 - share)  # so that the utterance's own emotion prevails
    others = torch.randperm(len(features), device=features.device)
    mixed = share * features + (1 - share) * features[others]
    return Mixed(mixed, torch.maximum(lengths, lengths[others]), others, share)
