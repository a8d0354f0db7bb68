"""Blocks of convolutions, the first layers of most of the papers' networks.

Two deviations from Keras: padding is masked unless a network's `mask_padding` is false, and the running statistics of
batch norm start with the first batches (`ser.models.layers.BatchNorm`).

Images are (B, C, F, T): B utterances, C channels, F frequency bins, T frames; a signal is an image with F = 1.
`lengths` (B,) are the valid frames of each utterance; `None` means all.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ser.errors import UserError, check_choice
from ser.models.layers import LSTM, BatchNorm, Dropout, as_sequence, follow_keras, silence_padding, valid_frames

Activation = Literal["relu", "elu", "leaky_relu"]


class Conv(nn.Conv2d):
    """Convolution of images, padded and initialised as in Keras.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        kernel: Bins and frames.
        stride: Frames from one output to the next.
        same: Pad with zeros to keep the size (divided by `stride`); otherwise it shrinks by the kernel.
    """

    bias: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, kernel: tuple[int, int], *, stride: int = 1, same: bool = True
    ) -> None:
        # Torch pads both ends equally, as an odd kernel at stride 1 needs; `pad` does the rest.
        uneven = same and (stride > 1 or any(size % 2 == 0 for size in kernel))
        both_ends = (kernel[0] // 2, kernel[1] // 2) if same and not uneven else 0
        super().__init__(in_channels, out_channels, kernel, (1, stride), padding=both_ends)
        self.same = same
        self.uneven = uneven

    def reset_parameters(self) -> None:
        """Draw Glorot-uniform weights; biases are zero.

        Weights and outputs are in channels-last memory format: pooling and batch norm then take half the time on a CPU,
        and a GPU's tensor cores need it.
        """
        nn.init.xavier_uniform_(self.weight)
        nn.init.zeros_(self.bias)
        self.weight.data = self.weight.data.to(memory_format=torch.channels_last)

    def pad(self, images: Tensor) -> Tensor:
        """Add uneven padding, which the convolution itself cannot."""
        if not self.uneven:
            return images
        (bins, frames), stride, num_frames = self.kernel_size, self.stride[1], images.shape[-1]
        down = bins - 1
        along = max((-(-num_frames // stride) - 1) * stride + frames - num_frames, 0)
        return nn.functional.pad(images, (along // 2, along - along // 2, down // 2, down - down // 2))

    def forward(self, input: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Convolve (B, C, F, T); `lengths` are for subclasses with kernels that depend on the utterance."""
        return super().forward(self.pad(input))


def shorten(lengths: Tensor, step: int, images: Tensor) -> Tensor:
    """Return the number of started steps of lengths (B,): at least one, and no more than `images` have."""
    return ((lengths + step - 1) // step).clamp(1, images.shape[-1])


class ConvBlock(nn.Module):
    """Convolution, batch norm, activation, dropout, max-pooling; padding comes out as zeros.

    Training statistics of the batch norm include padded frames, as in the papers' networks. A pooling window is valid
    if its first frame is, so that the end of an utterance is not lost, and takes the maximum of its valid frames.

    Args:
        conv: The convolution.
        activation: `relu`, `elu`, or `leaky_relu` (slope 0.01).
        norm: Whether batch norm comes before or after the activation, or not at all.
        dropout: Share of values set to zero before pooling.
        pool: Bins and frames of a pooling window; incomplete windows are dropped, as in Keras.
    """

    def __init__(
        self,
        conv: Conv,
        activation: Activation = "relu",
        *,
        norm: Literal["before", "after", "none"] = "before",
        dropout: float = 0.0,
        pool: tuple[int, int] = (1, 1),
    ) -> None:
        super().__init__()
        # In place: the layers before need only their input in the backward pass.
        activations = {"relu": nn.ReLU(True), "elu": nn.ELU(inplace=True), "leaky_relu": nn.LeakyReLU(inplace=True)}
        check_choice("activation", activation, activations)
        layers: list[nn.Module] = [activations[activation]]
        if norm != "none":
            layers.insert(0 if norm == "before" else 1, BatchNorm(conv.out_channels))
        if dropout:
            layers.append(Dropout(dropout))
        if pool != (1, 1):
            # Activations are monotonic: pooling before the last one is equivalent, and faster.
            layers.insert(-1 if layers[-1] is activations[activation] else len(layers), nn.MaxPool2d(pool))
        self.conv = conv
        self.layers = nn.Sequential(*layers)
        self.pool = pool

    def forward(self, images: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Map (B, C, F, T), padded with zeros, and lengths (B,) to fewer bins and frames."""
        images = self.conv(images, lengths)
        if lengths is None:
            return self.layers(images), None
        shrink = 0 if self.conv.same else self.conv.kernel_size[1] - 1
        lengths = shorten(lengths - shrink, self.conv.stride[1], images)
        for layer in self.layers:
            if isinstance(layer, nn.MaxPool2d):
                # Windows must take valid frames. A sum, since masked_fill is many times slower on a CPU; not infinity,
                # since its product with zero, below, would be NaN.
                padding = ~valid_frames(lengths, images.shape[-1])[:, None, None]  # (B, 1, 1, T)
                images = layer(images + padding.to(images.dtype) * (torch.finfo(images.dtype).min / 2))
                lengths = shorten(lengths, self.pool[1], images)
            else:
                images = layer(images)
        return images * valid_frames(lengths, images.shape[-1])[:, None, None], lengths

    def output_shape(self, bins: int, frames: int) -> tuple[int, int, int]:
        """Compute the channels, bins and frames of one image after the block."""
        kernel_bins, kernel_frames = (1, 1) if self.conv.same else self.conv.kernel_size
        strided = -(-(frames - kernel_frames + 1) // self.conv.stride[1])
        return self.conv.out_channels, (bins - kernel_bins + 1) // self.pool[0], strided // self.pool[1]


class ConvStack(nn.Module):
    """A sequence of convolution blocks.

    Args:
        network: Its name, for the message.
        image_shape: (C, F, T) of one image.
        blocks: The blocks; the first takes C channels.

    Raises:
        UserError: The image is too small.
    """

    def __init__(self, network: str, image_shape: tuple[int, ...], blocks: Sequence[ConvBlock]) -> None:
        super().__init__()
        channels, bins, frames = image_shape
        for number, block in enumerate(blocks, start=1):
            channels, bins, frames = block.output_shape(bins, frames)
            if bins < 1 or frames < 1:
                raise UserError(
                    f"{network} got features of (channels, bins, frames) = {tuple(image_shape)}, which are too small: "
                    f"convolution block {number} of {len(blocks)} would leave {bins} bins and {frames} frames; choose "
                    "longer clips or more bins"
                )
        self.output_shape = channels, bins, frames
        self.blocks = nn.ModuleList(blocks)

    def forward(self, images: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Map (B, C, F, T) and lengths (B,) to those of the last block."""
        images = silence_padding(images, lengths)
        for block in self.blocks:
            images, lengths = block(images, lengths)
        return images, lengths


class ConvLSTM(nn.Module):
    """Convolution blocks, an LSTM over the remaining frames, a linear layer on its final state.

    Args:
        num_classes: Emotions.
        feature_shape: (C, F, T), or (1, N) for waveforms.
        blocks: The convolution blocks.
        lstm_hidden: Units per direction.
        bidirectional: Read backwards too.
        mask_padding: Exclude padded frames; `False` treats them as speech.
        norm_momentum: Share of a batch in batch norm's running statistics; see `follow_keras`.
    """

    any_length = False  # pooling drops incomplete windows

    def __init__(
        self,
        num_classes: int,
        feature_shape: tuple[int, ...],
        blocks: Sequence[ConvBlock],
        lstm_hidden: int,
        bidirectional: bool,
        mask_padding: bool,
        norm_momentum: float,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.feature_shape = feature_shape
        self.lstm_hidden = lstm_hidden
        self.bidirectional = bidirectional
        self.mask_padding = mask_padding
        self.norm_momentum = norm_momentum
        image_shape = (feature_shape[0], *[1] * (3 - len(feature_shape)), *feature_shape[1:])
        self.convolutions = ConvStack(type(self).__name__, image_shape, blocks)
        channels, bins, _ = self.convolutions.output_shape
        self.lstm = LSTM(channels * bins, lstm_hidden, bidirectional=bidirectional)
        self.classifier = nn.Linear(self.lstm.output_size, num_classes)
        follow_keras(self, norm_momentum)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Compute logits (B, num_classes) from features (B, C, F, T) or (B, 1, N) and lengths (B,)."""
        images = features if features.dim() == 4 else features[:, :, None]
        images, spans = self.convolutions(images, lengths if self.mask_padding else None)
        _, final = self.lstm(as_sequence(images), spans)
        logits: Tensor = self.classifier(final)
        return logits
