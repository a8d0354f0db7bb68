"""CNN-LSTMs for EMO-DB: on spectrograms, on blocks of spectrograms, on raw waveforms.

Dey et al.: "Speech Emotion Recognition using Deep Learning Methods", a report that takes two of its models from Zhao,
Mao, Chen: "Speech emotion recognition using deep 1D & 2D CNN LSTM networks" (2019) and varies them. Sizes are those of
the programs that produced its numbers; its table has 256 LSTM units throughout, which `lstm_hidden` allows.

Deviations from Keras: see `ser.models.convolutions`.
"""

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from ser.errors import UserError, check_choice
from ser.models.convolutions import Conv, ConvBlock, ConvLSTM, ConvStack
from ser.models.layers import LSTM, check_features, follow_keras, silence_padding

SPECTROGRAM = ("channels", "mel bins", "frames")


class CNN2dLSTM(ConvLSTM):
    """Four local feature learning blocks (convolution, batch norm, ELU, pooling) → LSTM → linear.

    Pooling divides the frames by 128, so that the LSTM sees a single step of a clip of 8 s, as in the report and its
    source.

    Args:
        num_classes: Emotions.
        feature_shape: (C, F, T); the report's is (1, 128, 251), 8 s at 16 kHz. At least 128 bins and 128 frames.
        lstm_hidden: Units of the LSTM.
        mask_padding: Exclude padded frames; `False` treats them as speech.
        norm_momentum: Share of a batch in batch norm's running statistics; see `follow_keras`.

    Raises:
        UserError: `feature_shape` is not a spectrogram, or too small.
    """

    def __init__(
        self,
        num_classes: int = 7,
        feature_shape: tuple[int, ...] = (1, 128, 251),
        *,
        lstm_hidden: int = 32,
        mask_padding: bool = True,
        norm_momentum: float = 0.01,
    ) -> None:
        check_features("CNN2dLSTM", feature_shape, SPECTROGRAM, "a mel spectrogram, such as (1, 128, 251)")
        sizes = [(feature_shape[0], 64, 2), (64, 64, 4), (64, 128, 4), (128, 128, 4)]  # channels in, out, pool
        blocks = [ConvBlock(Conv(inside, outside, (3, 3)), "elu", pool=(by, by)) for inside, outside, by in sizes]
        super().__init__(num_classes, feature_shape, blocks, lstm_hidden, False, mask_padding, norm_momentum)


class CNN1dLSTM(ConvLSTM):
    """The same on the samples of a waveform: four blocks, each dividing the length by four → (Bi)LSTM → linear.

    Args:
        num_classes: Emotions.
        feature_shape: (1, N); the report cuts utterances into segments of 1 s at 16 kHz, (1, 16000). At least 256.
        bidirectional: `cnn1d_bilstm`; otherwise `cnn1d_lstm`.
        lstm_hidden: Units per direction.
        mask_padding: Exclude padded samples; `False` treats them as speech.
        norm_momentum: Share of a batch in batch norm's running statistics; see `follow_keras`.

    Raises:
        UserError: `feature_shape` is not a waveform, or too short.
    """

    def __init__(
        self,
        num_classes: int = 7,
        feature_shape: tuple[int, ...] = (1, 16000),
        *,
        bidirectional: bool = True,
        lstm_hidden: int = 64,
        mask_padding: bool = True,
        norm_momentum: float = 0.01,
    ) -> None:
        check_features("CNN1dLSTM", feature_shape, (1, "samples"), "waveforms, such as 1 s at 16 kHz, (1, 16000)")
        channels = [1, 64, 64, 128, 128]
        blocks = [
            ConvBlock(Conv(inside, outside, (1, 3)), "elu", pool=(1, 4)) for inside, outside in pairwise(channels)
        ]
        super().__init__(num_classes, feature_shape, blocks, lstm_hidden, bidirectional, mask_padding, norm_momentum)


class TimeDistributedCNNLSTM(nn.Module):
    """One CNN on each of several blocks of frames → (Bi)LSTM over the blocks → linear.

    The report's program takes the first 18 blocks of 5 frames and ignores the rest of the clip, because of a loop bound
    left over from shorter spectrograms: `coverage="first"`. Its batch norm comes after the activation.

    Args:
        num_classes: Emotions.
        feature_shape: (C, F, T); the report's is (1, 128, 219), 3.5 s at 16 kHz.
        bidirectional: `td_cnn2d_bilstm`; otherwise `td_cnn2d_lstm`.
        lstm_hidden: Units per direction.
        coverage: Which blocks: `uniform`, `num_blocks` spread over the clip; `first`, the first `num_blocks`; `all`.
        num_blocks: How many blocks, for `uniform` and `first`.
        mask_padding: Exclude padded frames; `False` treats them as speech.
        norm_momentum: Share of a batch in batch norm's running statistics; see `follow_keras`.

    Raises:
        UserError: `feature_shape` is not a spectrogram or too small, or the coverage is unknown.
    """

    BLOCK_FRAMES = 5
    any_length = False  # the blocks are spread over all frames

    def __init__(
        self,
        num_classes: int = 7,
        feature_shape: tuple[int, ...] = (1, 128, 219),
        *,
        bidirectional: bool = True,
        lstm_hidden: int = 32,
        coverage: Literal["uniform", "first", "all"] = "uniform",
        num_blocks: int = 18,
        mask_padding: bool = True,
        norm_momentum: float = 0.01,
    ) -> None:
        super().__init__()
        name = "TimeDistributedCNNLSTM"
        check_features(name, feature_shape, SPECTROGRAM, "a mel spectrogram, such as (1, 128, 219)")
        frames = feature_shape[2]
        fewest = {
            "uniform": self.BLOCK_FRAMES + num_blocks - 1,
            "first": self.BLOCK_FRAMES * num_blocks,
            "all": self.BLOCK_FRAMES,
        }
        check_choice("coverage", coverage, fewest)
        if frames < fewest[coverage]:
            raise UserError(
                f"{name} got features of {frames} frames; with coverage={coverage} and num_blocks={num_blocks} "
                f"it needs at least {fewest[coverage]}: choose longer clips or fewer blocks"
            )
        self.num_classes = num_classes
        self.feature_shape = feature_shape
        self.bidirectional = bidirectional
        self.lstm_hidden = lstm_hidden
        self.coverage = coverage
        self.num_blocks = num_blocks
        self.mask_padding = mask_padding
        self.norm_momentum = norm_momentum

        channels, bins, _ = feature_shape
        sizes = [(channels, (2, 2), (2, 2)), (128, (2, 2), (2, 1)), (128, (2, 1), (2, 1)), (128, (2, 1), (2, 1))]
        self.convolutions = ConvStack(
            name,
            (channels, bins, self.BLOCK_FRAMES),
            [ConvBlock(Conv(inside, 128, kernel, same=False), norm="after", pool=by) for inside, kernel, by in sizes],
        )
        channels, bins, _ = self.convolutions.output_shape
        self.lstm = LSTM(channels * bins, lstm_hidden, bidirectional=bidirectional)
        self.classifier = nn.Linear(self.lstm.output_size, num_classes)
        follow_keras(self, norm_momentum)

    def cut(self, features: Tensor) -> tuple[Tensor, int]:
        """Cut (B, C, F, T) into blocks (B, S, C, F, 5); also return the frames from one start to the next."""
        spare = features.shape[-1] - self.BLOCK_FRAMES
        hop = (
            spare // (self.num_blocks - 1) if self.coverage == "uniform" and self.num_blocks > 1 else self.BLOCK_FRAMES
        )
        blocks = features.unfold(-1, self.BLOCK_FRAMES, hop)  # (B, C, F, S, 5)
        if self.coverage != "all":
            blocks = blocks[..., : self.num_blocks, :]
        return blocks.permute(0, 3, 1, 2, 4), hop

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Compute logits (B, num_classes) from features (B, C, F, T) and lengths (B,) in frames."""
        spans = lengths if self.mask_padding else None
        blocks, hop = self.cut(silence_padding(features, spans))
        images, _ = self.convolutions(blocks.flatten(0, 1))  # (B·S, 128, 7, 1)
        sequence = images.flatten(1).unflatten(0, blocks.shape[:2])  # (B, S, 896)
        if spans is not None:
            spans = ((spans + hop - 1) // hop).clamp(max=sequence.shape[1])  # a block counts if its first frame does
        _, final = self.lstm(sequence, spans)
        logits: Tensor = self.classifier(final)
        return logits
