"""DyCNN-BiLSTM: convolutions with kernels that depend on the utterance, and a BiLSTM.

Finch: "Speech emotion recognition with dynamic CNN and Bi-LSTM". Dynamic convolution is that of Chen et al., "Dynamic
Convolution: Attention over Convolution Kernels", CVPR 2020.

The paper gives no sizes. Four blocks of 64, 64, 128, 128 channels (3 × 3, pooling by 2), K = 4 kernels and a reduction
to a fourth (dynamic convolution's own), a BiLSTM of 128 per direction, and an attention temperature that falls from 30
to 1 in the first tenth of training (its source anneals it; the paper only says softmax) are chosen here.

Deviations from Keras: see `ser.models.convolutions`.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from ser.errors import UserError
from ser.models.convolutions import Conv, ConvBlock, ConvLSTM
from ser.models.layers import check_features


class DynamicConv(Conv):
    """Convolution with a kernel for every utterance: a mixture of K, weighted by attention on the input's mean.

    The attention is softmax(FC(relu(FC(mean of x))) / temperature). All utterances of a batch are convolved at once, as
    groups of one convolution.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        kernel: Bins and frames.
        num_kernels: K.
        temperature: Initial temperature of the softmax; high is near uniform. A buffer, so that checkpoints keep it.
    """

    temperature: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int],
        *,
        num_kernels: int = 4,
        temperature: float = 30.0,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel)
        kernels = [Conv(in_channels, out_channels, kernel).weight.detach() for _ in range(num_kernels)]
        self.weight = nn.Parameter(torch.stack(kernels))  # (K, out, in, bins, frames)
        self.bias = nn.Parameter(torch.zeros(num_kernels, out_channels))
        hidden = max(num_kernels, in_channels // 4)
        self.scores = nn.Sequential(nn.Linear(in_channels, hidden), nn.ReLU(), nn.Linear(hidden, num_kernels))
        self.register_buffer("temperature", torch.tensor(float(temperature)))

    def attention(self, images: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Weight the K kernels for zero-padded images (B, C, F, T) and lengths (B,): (B, K), rows sum to one."""
        _, _, bins, frames = images.shape
        mean = images.sum((2, 3)) / (bins * (frames if lengths is None else lengths[:, None]))  # (B, C)
        scores: Tensor = self.scores(mean)
        return (scores / self.temperature).softmax(-1)

    def forward(self, input: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Convolve (B, C, F, T), padded with zeros, to (B, out, F, T)."""
        batch = input.shape[0]
        attention = self.attention(input, lengths)
        kernels = (attention @ self.weight.flatten(1)).view(-1, *self.weight.shape[2:])  # (B·out, in, bins, frames)
        biases = (attention @ self.bias).flatten()  # (B·out)
        images = self.pad(input).flatten(0, 1)[None]  # (1, B·in, F, T)
        images = nn.functional.conv2d(images, kernels, biases, padding=self.padding, groups=batch)
        return images.view(batch, -1, *images.shape[2:])


class DyCNN(ConvLSTM):
    """Four blocks of (dynamic) convolution, batch norm, ReLU and pooling → (Bi)LSTM → linear.

    Args:
        num_classes: Emotions.
        feature_shape: (C, F, T); the reference is (1, 40, 300). At least 16 bins and 16 frames.
        dynamic: `False` for the baselines `cnn_lstm` and `cnn_bilstm`.
        bidirectional: `False` for the baselines `cnn_lstm` and `dycnn_lstm`.
        channels: Channels of each block.
        num_kernels: K, the number of kernels of a dynamic convolution.
        lstm_hidden: Units per direction.
        initial_temperature: Of the attention, at the start of training; it falls linearly to 1.
        annealing: Share of the training steps in which it falls.
        mask_padding: Exclude padded frames; `False` treats them as speech.
        norm_momentum: Share of a batch in batch norm's running statistics; see `follow_keras`.

    Raises:
        UserError: `feature_shape` is not a spectrogram, or too small.
    """

    def __init__(
        self,
        num_classes: int = 7,
        feature_shape: tuple[int, ...] = (1, 40, 300),
        *,
        dynamic: bool = True,
        bidirectional: bool = True,
        channels: tuple[int, ...] = (64, 64, 128, 128),
        num_kernels: int = 4,
        lstm_hidden: int = 128,
        initial_temperature: float = 30.0,
        annealing: float = 0.1,
        mask_padding: bool = True,
        norm_momentum: float = 0.01,
    ) -> None:
        wanted = ("channels", "bins", "frames")
        check_features("DyCNN", feature_shape, wanted, "a log-mel spectrogram or MFCCs, such as (1, 40, 300)")
        if initial_temperature < 1 or not 0 <= annealing <= 1:
            raise UserError(
                f"initial_temperature is {initial_temperature}, annealing {annealing}; the former must be at least 1, "
                "the latter a share of the training steps, from 0 to 1"
            )
        blocks = []
        for inside, outside in pairwise((feature_shape[0], *channels)):
            if dynamic:
                conv: Conv = DynamicConv(
                    inside, outside, (3, 3), num_kernels=num_kernels, temperature=initial_temperature
                )
            else:
                conv = Conv(inside, outside, (3, 3))
            blocks.append(ConvBlock(conv, pool=(2, 2)))
        super().__init__(num_classes, feature_shape, blocks, lstm_hidden, bidirectional, mask_padding, norm_momentum)
        self.dynamic = dynamic
        self.channels = channels
        self.num_kernels = num_kernels
        self.initial_temperature = initial_temperature
        self.annealing = annealing

    def on_step(self, step: int, total_steps: int) -> None:
        """Set the temperature before an optimiser step, counted from 0.

        It never rises, even if an ended fit is resumed with more steps.
        """
        falling = self.annealing * total_steps
        progress = min(step / falling, 1.0) if falling else 1.0
        temperature = self.initial_temperature + progress * (1.0 - self.initial_temperature)
        for module in self.modules():
            if isinstance(module, DynamicConv):
                module.temperature.clamp_(max=temperature)
