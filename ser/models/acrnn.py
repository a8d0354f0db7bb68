"""ACRNN: convolutions, a BiLSTM, and attention over time.

M. Chen, X. He, J. Yang, H. Zhang: "3-D Convolutional Recurrent Neural Networks with Attention Model for Speech Emotion
Recognition", IEEE Signal Processing Letters 25(10), 2018. CoRNN modifies it and is compared with it.

The letter and the authors' program differ; both versions are options. The defaults are the layers of the program:
pooling over 4 mel bins (letter: 2), batch norm on the linear layer of every frame (letter: on the last hidden layer).
The attention is the letter's, a softmax of a linear score; the program applies a sigmoid to the score first. Weights
are initialised as in Keras, which neither specifies.

Deviations from Keras: see `ser.models.convolutions`.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from ser.errors import check_choice
from ser.models.convolutions import Conv, ConvBlock, ConvStack
from ser.models.layers import LSTM, BatchNorm, Dropout, TemporalPooling, as_sequence, check_features, follow_keras


class ACRNN(nn.Module):
    """Six convolutions → linear layer on every frame → BiLSTM → attention pooling → classifier with a hidden layer.

    Args:
        num_classes: Emotions.
        feature_shape: (C, F, T); the letter's is (3, 40, 300): log-mel, delta, delta-delta.
        mel_pool: Mel bins of the pooling window, which has 2 frames.
        norm: Position of batch norm: on the `linear` layer of every frame or on the hidden layer, `fc`.
        squash_attention: Bound attention scores by a sigmoid and a learned gain.
        lstm_hidden: Units per direction.
        dropout: Share of values set to zero before the classifier.
        mask_padding: Exclude padded frames; `False` treats them as speech.
        norm_momentum: Share of a batch in batch norm's running statistics; see `follow_keras`.

    Raises:
        UserError: `feature_shape` is not a spectrogram, or too small.
    """

    any_length = False  # pooling drops incomplete windows

    def __init__(
        self,
        num_classes: int = 4,
        feature_shape: tuple[int, ...] = (3, 40, 300),
        *,
        mel_pool: int = 4,
        norm: Literal["linear", "fc"] = "linear",
        squash_attention: bool = False,
        lstm_hidden: int = 128,
        dropout: float = 0.0,
        mask_padding: bool = True,
        norm_momentum: float = 0.01,
    ) -> None:
        super().__init__()
        wanted = ("channels", "mel bins", "frames")
        check_features("ACRNN", feature_shape, wanted, "a log-mel spectrogram with deltas, such as (3, 40, 300)")
        check_choice("norm", norm, ("linear", "fc"))
        self.num_classes = num_classes
        self.feature_shape = feature_shape
        self.mel_pool = mel_pool
        self.norm = norm
        self.squash_attention = squash_attention
        self.lstm_hidden = lstm_hidden
        self.dropout = dropout
        self.mask_padding = mask_padding
        self.norm_momentum = norm_momentum

        channels, bins, _ = feature_shape
        # A kernel as high as the image is a linear layer on every frame, and initialised as one.
        linear = Conv(256, 768, (max(bins // mel_pool, 1), 1), same=False)
        drawn = nn.init.xavier_uniform_(torch.empty(768, linear.weight[0].numel()))
        linear.weight.data.copy_(drawn.view_as(linear.weight))
        self.convolutions = ConvStack(
            "ACRNN",
            feature_shape,
            [
                ConvBlock(Conv(channels, 128, (3, 5)), "leaky_relu", norm="none", pool=(mel_pool, 2)),
                ConvBlock(Conv(128, 256, (3, 5)), "leaky_relu", norm="none"),
                *(ConvBlock(Conv(256, 256, (3, 5)), "leaky_relu", norm="none") for _ in range(4)),
                ConvBlock(linear, "leaky_relu", norm="before" if norm == "linear" else "none"),
            ],
        )
        self.lstm = LSTM(768, lstm_hidden, bidirectional=True)
        width = self.lstm.output_size
        self.pool = TemporalPooling("attention", width)
        if squash_attention:
            self.pool.score = nn.Sequential(nn.Linear(width, 1), nn.Sigmoid(), nn.Linear(1, 1, bias=False))
        self.classifier = nn.Sequential(
            nn.Linear(width, 64),
            *([BatchNorm(64)] if norm == "fc" else []),
            nn.LeakyReLU(),
            Dropout(dropout),
            nn.Linear(64, num_classes),
        )
        follow_keras(self, norm_momentum)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Compute logits (B, num_classes) from features (B, C, F, T) and lengths (B,) in frames."""
        images, spans = self.convolutions(features, lengths if self.mask_padding else None)  # (B, 768, 1, T/2)
        outputs, _ = self.lstm(as_sequence(images), spans)  # (B, T/2, D)
        logits: Tensor = self.classifier(self.pool(outputs, spans))
        return logits
