"""Deep residual CNN on MFCCs.

Jin et al.: "Speech Emotion Recognition Based on Deep Residual Convolutional Neural Network": the trunk of a well-known
public Keras recipe for RAVDESS, to which the paper adds ten residual blocks.

Chosen here: convolutions run over time with the coefficients as channels, because twelve coefficients are too few for
two poolings by 8; a flattening before the classifier, which the paper's table omits; one dense layer for the table's
"Dense *9". A residual block ends in ReLU *before* its input is added, as in the paper, so that features can only grow
from block to block; `post_add` is He et al.'s order.

Deviations from Keras: see `ser.models.convolutions`.
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from ser.errors import UserError, check_choice
from ser.models.convolutions import Conv, ConvBlock, ConvStack
from ser.models.layers import TemporalPooling, as_sequence, check_features, follow_keras

KERNEL = (1, 8)
POOL = (1, 8)


class ResCNN(nn.Module):
    """Eight convolutions over time → residual blocks → flattening → linear.

    Args:
        num_classes: Emotions.
        feature_shape: (C, F, T); the reference is (1, 12, 216): MFCCs 2 to 13 of 2.5 s. At least 64 frames.
        num_blocks: Residual blocks; 0 is the control without them.
        post_add: Apply a block's last ReLU after adding its input.
        pooling: `flatten` keeps the three remaining frames apart; `mean` averages the valid ones.
        dropout: Share of values set to zero before each pooling.
        output_units: Units of the dense layer, if more than `num_classes`: the paper has 9 for 8 or 7 emotions. The
            surplus units, which the paper's softmax soon learns to be never right, count as parameters but have no
            logits.
        mask_padding: Exclude padded frames; `False` treats them as speech.
        norm_momentum: Share of a batch in batch norm's running statistics; see `follow_keras`.

    Raises:
        UserError: `feature_shape` is not (channels, coefficients, frames), too short, or an option is unknown.
    """

    any_length = False  # the flattened frames are numbered

    def __init__(
        self,
        num_classes: int = 8,
        feature_shape: tuple[int, ...] = (1, 12, 216),
        *,
        num_blocks: int = 10,
        post_add: bool = False,
        pooling: Literal["flatten", "mean"] = "flatten",
        dropout: float = 0.2,
        output_units: int = 0,
        mask_padding: bool = True,
        norm_momentum: float = 0.01,
    ) -> None:
        super().__init__()
        check_features("ResCNN", feature_shape, ("channels", "coefficients", "frames"), "MFCCs, such as (1, 12, 216)")
        check_choice("pooling", pooling, ("flatten", "mean"))
        if 0 < output_units < num_classes:
            raise UserError(f"output_units is {output_units}; it must be 0 or at least the {num_classes} emotions")
        self.num_classes = num_classes
        self.feature_shape = feature_shape
        self.num_blocks = num_blocks
        self.post_add = post_add
        self.pooling = pooling
        self.dropout = dropout
        self.output_units = output_units
        self.mask_padding = mask_padding
        self.norm_momentum = norm_momentum

        coefficients = feature_shape[0] * feature_shape[1]
        self.trunk = ConvStack(
            "ResCNN",
            (coefficients, 1, feature_shape[2]),
            [
                ConvBlock(Conv(coefficients, 256, KERNEL), norm="none"),
                ConvBlock(Conv(256, 256, KERNEL), dropout=dropout, pool=POOL),
                ConvBlock(Conv(256, 128, KERNEL), norm="none"),
                ConvBlock(Conv(128, 128, KERNEL), norm="none"),
                ConvBlock(Conv(128, 128, KERNEL), norm="none"),
                ConvBlock(Conv(128, 128, KERNEL), dropout=dropout, pool=POOL),
                ConvBlock(Conv(128, 64, KERNEL), norm="none"),
                ConvBlock(Conv(64, 64, KERNEL), norm="none"),
            ],
        )
        channels, _, frames = self.trunk.output_shape
        self.residual = nn.ModuleList(ResidualBlock(channels, post_add=post_add) for _ in range(num_blocks))
        self.pool = TemporalPooling("mean", channels) if pooling == "mean" else None
        self.classifier = nn.Linear(channels * (1 if self.pool else frames), max(output_units, num_classes))
        follow_keras(self, norm_momentum)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Compute logits (B, num_classes) from features (B, C, F, T) and lengths (B,) in frames."""
        signals = features.flatten(1, 2)[:, :, None]  # (B, C·F, 1, T)
        signals, spans = self.trunk(signals, lengths if self.mask_padding else None)  # (B, 64, 1, T/64)
        for block in self.residual:
            signals, _ = block(signals, spans)
        vectors = signals.flatten(1) if self.pool is None else self.pool(as_sequence(signals), spans)
        logits: Tensor = self.classifier(vectors)
        return logits[:, : self.num_classes]


class ResidualBlock(nn.Module):
    """Two convolutions with ReLU and a residual connection."""

    def __init__(self, channels: int, *, post_add: bool) -> None:
        super().__init__()
        self.post_add = post_add
        self.first = ConvBlock(Conv(channels, channels, KERNEL), norm="none")
        self.second = Conv(channels, channels, KERNEL)

    def forward(self, signals: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Map (B, C, 1, T), padded with zeros, to the same shape."""
        branch, _ = self.first(signals, lengths)
        branch = self.second(branch)
        summed = F.relu(signals + branch) if self.post_add else signals + F.relu(branch)
        return summed, lengths
