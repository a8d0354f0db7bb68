"""Raw CRNN: parallel convolutions on the waveform, a convolution over their outputs, and an LSTM.

S. Latif, R. Rana, S. Khalifa, R. Jurdak, J. Epps: "Direct Modelling of Speech Emotion from Raw Speech", Interspeech
2019. CoRNN quotes its result. The layers follow a public re-implementation, the later of its two versions, which keeps
one LSTM step per frame. Clips of 3 s at 16 kHz are our choice: the original takes utterances of any length.

Deviations from Keras: see `ser.models.convolutions`.
"""

import torch
from torch import Tensor, nn

from ser.models.convolutions import Conv, ConvBlock, ConvStack
from ser.models.layers import LSTM, Dropout, as_sequence, check_features, follow_keras, silence_padding

HOP = 160  # samples from one frame to the next: 10 ms
WINDOWS = (400, 240, 1600)  # samples: 25, 15 and 100 ms
FILTERS = 40


class RawCRNN(nn.Module):
    """Three filter banks of different lengths → 2-D convolution → LSTM → classifier with a hidden layer.

    Args:
        num_classes: Emotions.
        feature_shape: (1, N): N samples of a waveform at 16 kHz; the reference is 3 s, (1, 48000).
        lstm_hidden: Units of the LSTM.
        fc_hidden: Units of the hidden layer.
        dropout: Share of the LSTM's final state set to zero.
        mask_padding: Exclude padded samples; `False` treats them as speech.
        norm_momentum: Share of a batch in batch norm's running statistics; see `follow_keras`.

    Raises:
        UserError: `feature_shape` is not a waveform, or too short.
    """

    any_length = False  # pooling drops incomplete windows

    def __init__(
        self,
        num_classes: int = 4,
        feature_shape: tuple[int, ...] = (1, 48000),
        *,
        lstm_hidden: int = 128,
        fc_hidden: int = 1024,
        dropout: float = 0.3,
        mask_padding: bool = True,
        norm_momentum: float = 0.01,
    ) -> None:
        super().__init__()
        name = "RawCRNN"
        check_features(name, feature_shape, (1, "samples"), "waveforms, such as 3 s at 16 kHz, (1, 48000)")
        self.num_classes = num_classes
        self.feature_shape = feature_shape
        self.lstm_hidden = lstm_hidden
        self.fc_hidden = fc_hidden
        self.dropout = dropout
        self.mask_padding = mask_padding
        self.norm_momentum = norm_momentum

        self.filter_banks = nn.ModuleList(
            ConvStack(
                name, (1, 1, feature_shape[1]), [ConvBlock(Conv(1, FILTERS, (1, window), stride=HOP), pool=(1, 2))]
            )
            for window in WINDOWS
        )
        frames = -(-feature_shape[1] // HOP) // 2
        self.convolutions = ConvStack(name, (1, 3 * FILTERS, frames), [ConvBlock(Conv(1, 32, (2, 2)), pool=(2, 2))])
        channels, bins, _ = self.convolutions.output_shape
        self.lstm = LSTM(channels * bins, lstm_hidden)
        self.classifier = nn.Sequential(
            Dropout(dropout), nn.Linear(lstm_hidden, fc_hidden), nn.ReLU(), nn.Linear(fc_hidden, num_classes)
        )
        follow_keras(self, norm_momentum)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Compute logits (B, num_classes) from waveforms (B, 1, N) and lengths (B,) in samples."""
        spans = lengths if self.mask_padding else None
        signals = silence_padding(features, spans)[:, :, None]  # (B, 1, 1, N)
        banks, frame_spans = zip(*(bank(signals, spans) for bank in self.filter_banks), strict=True)
        images = torch.cat(banks, dim=1).transpose(1, 2)  # (B, 1, 120, T): filters become bins
        images, spans = self.convolutions(images, frame_spans[0])  # (B, 32, 60, T/2)
        _, final = self.lstm(as_sequence(images), spans)
        logits: Tensor = self.classifier(final)
        return logits
