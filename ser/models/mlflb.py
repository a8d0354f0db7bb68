"""CRNN with modified local feature learning blocks (mLFLB).

Yadav et al.: "Speech emotion recognition using convolutional recurrent neural networks". The blocks are those of Zhao,
Mao, Chen (2019) with kernels that shrink from 9 to 3, ReLU instead of ELU, and a BiLSTM instead of the LSTM.

Chosen here: convolutions keep the size (without padding the last would not fit), and the BiLSTM has 128 units per
direction.

Deviations from Keras: see `ser.models.convolutions`.
"""

from ser.errors import UserError
from ser.models.convolutions import Activation, Conv, ConvBlock, ConvLSTM
from ser.models.layers import check_features


class CRNNmLFLB(ConvLSTM):
    """Four blocks of convolution, batch norm, activation and pooling → (Bi)LSTM → linear.

    Pooling as in the paper divides the frames by 128, which leaves the BiLSTM two steps of a clip of 3 s. The source's
    blocks, for comparison, have `kernels=(3, 3, 3, 3)` and `activation="elu"`.

    Args:
        num_classes: Emotions.
        feature_shape: (C, F, T); the paper's is (1, 128, 259), 3 s at 44.1 kHz. At least 128 bins, and with
            the paper's pooling 128 frames.
        kernels: Height and width of each block's kernel; its channels are 64, 64, 128, 128.
        pool_time: Frames of each block's pooling window; over bins it is 2, 4, 4, 4. `(2, 2, 2, 2)` leaves 16 steps.
        activation: `relu`, `elu` or `leaky_relu`.
        lstm_hidden: Units per direction.
        bidirectional: `False` for the source's LSTM.
        mask_padding: Exclude padded frames; `False` treats them as speech.
        norm_momentum: Share of a batch in batch norm's running statistics; see `follow_keras`.

    Raises:
        UserError: `feature_shape` is not a spectrogram or too small, or `kernels` and `pool_time` are not four numbers.
    """

    def __init__(
        self,
        num_classes: int = 8,
        feature_shape: tuple[int, ...] = (1, 128, 259),
        *,
        kernels: tuple[int, ...] = (9, 7, 5, 3),
        pool_time: tuple[int, ...] = (2, 4, 4, 4),
        activation: Activation = "relu",
        lstm_hidden: int = 128,
        bidirectional: bool = True,
        mask_padding: bool = True,
        norm_momentum: float = 0.01,
    ) -> None:
        wanted = ("channels", "mel bins", "frames")
        check_features("CRNNmLFLB", feature_shape, wanted, "a mel spectrogram, such as (1, 128, 259)")
        if len(kernels) != 4 or len(pool_time) != 4:
            raise UserError(f"kernels is {kernels}, pool_time {pool_time}; give four numbers each, one per block")
        channels = (feature_shape[0], 64, 64, 128, 128)
        pool_bins = (2, 4, 4, 4)
        blocks = [
            ConvBlock(
                Conv(channels[i], channels[i + 1], (kernels[i], kernels[i])),
                activation,
                pool=(pool_bins[i], pool_time[i]),
            )
            for i in range(4)
        ]
        super().__init__(num_classes, feature_shape, blocks, lstm_hidden, bidirectional, mask_padding, norm_momentum)
        self.kernels = kernels
        self.pool_time = pool_time
        self.activation = activation
