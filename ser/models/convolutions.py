"""Blocks of convolutions, which most of the papers' networks begin with.

Images are (B, C, F, T): B utterances, C channels, F frequency bins, T frames; a signal is an image with F = 1. Where an
utterance is shorter than its image, `lengths` (B,) says how many frames are valid; `None` instead of it says all.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ser.errors import UserError
from ser.models.layers import LSTM, BatchNorm, Dropout, as_sequence, follow_keras, silence_padding, valid_frames

Activation = Literal["relu", "elu", "leaky_relu"]


class Conv(nn.Conv2d):
    """Convolution of images, padded and initialised as in Keras.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        kernel: Bins and frames.
        stride: Frames from one output to the next.
        same: Pad with zeros so that the size stays (divided by `stride`); otherwise it shrinks by the kernel.
    """

    bias: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, kernel: tuple[int, int], *, stride: int = 1, same: bool = True
    ) -> None:
        # Torch pads both sides alike, which is what an odd kernel at stride 1 needs; the rest is up to `pad`.
        uneven = same and (stride > 1 or any(size % 2 == 0 for size in kernel))
        both_sides = (kernel[0] // 2, kernel[1] // 2) if same and not uneven else 0
        super().__init__(in_channels, out_channels, kernel, (1, stride), padding=both_sides)
        self.same = same
        self.uneven = uneven

    def reset_parameters(self) -> None:
        """Draw Glorot-uniform weights; biases are zero.

        The weights lie in memory with their channels last, and so do the images that come out: pooling and batch norm
        then take half the time on a CPU, and a GPU's tensor cores want them so.
        """
        nn.init.xavier_uniform_(self.weight)
        nn.init.zeros_(self.bias)
        self.weight.data = self.weight.data.to(memory_format=torch.channels_last)

    def pad(self, images: Tensor) -> Tensor:
        """Add the zeros that the convolution itself cannot: one more after than before, or for a stride."""
        if not self.uneven:
            return images
        (bins, frames), stride, num_frames = self.kernel_size, self.stride[1], images.shape[-1]
        down = bins - 1
        along = max((-(-num_frames // stride) - 1) * stride + frames - num_frames, 0)
        return nn.functional.pad(images, (along // 2, along - along // 2, down // 2, down - down // 2))

    def forward(self, input: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Convolve (B, C, F, T); `lengths` are for subclasses whose kernels depend on the utterance."""
        return super().forward(self.pad(input))


def shorten(lengths: Tensor, step: int, images: Tensor) -> Tensor:
    """Count the steps that frames (B,) begin: at least one, and no more than `images` have."""
    return ((lengths + step - 1) // step).clamp(1, images.shape[-1])


class ConvBlock(nn.Module):
    """Convolution, batch norm, activation, dropout, max-pooling; padding comes out as zeros.

    Training statistics of the batch norm count padded frames, which the papers' networks take for silence. A pooling
    window counts as valid when its first frame does, so that the end of an utterance is not lost, and takes the largest
    of its valid frames.

    Args:
        conv: The convolution.
        activation: `relu`, `elu`, or `leaky_relu` (slope 0.01).
        norm: Where batch norm comes, seen from the activation; `none` leaves it out.
        dropout: Share of values set to zero before pooling.
        pool: Bins and frames of a pooling window; what does not fill one is dropped, as in Keras.
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
        # In place: what the layers before need on the way back is their input.
        activations = {"relu": nn.ReLU(True), "elu": nn.ELU(inplace=True), "leaky_relu": nn.LeakyReLU(inplace=True)}
        if activation not in activations:
            raise UserError(f"activation is {activation!r}; choose one of {', '.join(activations)}")
        layers: list[nn.Module] = [activations[activation]]
        if norm != "none":
            layers.insert(0 if norm == "before" else 1, BatchNorm(conv.out_channels))
        if dropout:
            layers.append(Dropout(dropout))
        if pool != (1, 1):
            # The activations are monotonic: when one comes last, pooling before it is the same, and faster.
            layers.insert(-1 if layers[-1] is activations[activation] else len(layers), nn.MaxPool2d(pool))
        self.conv = conv
        self.layers = nn.Sequential(*layers)
        self.pool = pool

    def forward(self, images: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Map (B, C, F, T), padded with zeros, to fewer bins and frames; lengths (B,) follow."""
        images = self.conv(images, lengths)
        if lengths is None:
            return self.layers(images), None
        shrink = 0 if self.conv.same else self.conv.kernel_size[1] - 1
        lengths = shorten(lengths - shrink, self.conv.stride[1], images)
        for layer in self.layers:
            if isinstance(layer, nn.MaxPool2d):
                # What a window takes must be valid. A sum: to fill by a mask takes many times longer on a CPU. And no
                # infinity, whose product with zero, below, would be NaN.
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
    """Convolution blocks in a row.

    Args:
        network: Of which network, for the message.
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
                    f"{network} got features that are too small: of images of (channels, bins, frames) = "
                    f"{tuple(image_shape)}, convolution block {number} of {len(blocks)} would leave {bins} bins and "
                    f"{frames} frames; choose longer clips or more bins"
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
    """Convolution blocks, an LSTM over the frames they leave, a linear layer on its final state.

    Args:
        num_classes: Emotions.
        feature_shape: (C, F, T), or (1, N) for waveforms.
        blocks: The convolution blocks.
        lstm_hidden: Units per direction.
        bidirectional: Read backwards too.
        mask_padding: Keep padded frames out of the computation. `False` takes them for speech.
        norm_momentum: Share of a batch in batch norm's running statistics; see `follow_keras`.
    """

    any_length = False  # pooling leaves out what does not fill a window

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
