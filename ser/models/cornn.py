"""CoRNN: a BiLSTM followed by a Conformer.

X. Huang, C. Sun, J. Yang, X. Hou: "Speech Emotion Recognition Based on Recurrent Neural Networks with Conformer for
Emotional Speech Synthesis". The Conformer is that of Gulati et al., Interspeech 2020; its relative positional encoding
that of Dai et al., "Transformer-XL", ACL 2019.

The paper names the modules but gives no sizes. Chosen here: a BiLSTM of 128 units per direction (as in ACRNN, which
CoRNN modifies), so that its 256 outputs are the width of the Conformer; one block, 4 heads, a
feed-forward factor of 4, a depthwise kernel of 31 (Conformer-M); the mean of the valid frames before the classifier;
the "overall dropout" of 0.2 after the BiLSTM, in every module of the Conformer, and before the classifier.

Shapes: B utterances, C channels, F mel bins, T frames, D = 2 · `lstm_hidden`, H heads.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ser.errors import UserError
from ser.models.layers import (
    LSTM,
    Dropout,
    Normalisation,
    Pooling,
    TemporalPooling,
    as_sequence,
    check_features,
    silence_padding,
    valid_frames,
)


class CoRNN(nn.Module):
    """BiLSTM → Conformer → pooling over time → linear classifier.

    Args:
        num_classes: Emotions.
        feature_shape: (C, F, T); the paper's is (3, 40, 300): log-mel, delta, delta-delta. Any T works.
        use_bilstm: `False` is the ablation "w/o BiLSTM": a linear layer maps the frames to the Conformer's width.
        use_conformer: `False` is the ablation "w/o Conformer".
        lstm_hidden: Units per direction; the Conformer is twice as wide.
        num_blocks: Conformer blocks.
        num_heads: Attention heads.
        ffn_factor: Hidden units of the feed-forward modules, as a multiple of the width.
        conv_kernel: Length of the depthwise convolution, in frames; odd.
        dropout: Share of values set to zero, everywhere.
        pooling: Pooling over frames: `mean`, `last`, `max` or `attention`.
        fc_hidden: Units of a hidden layer before the classifier; 0 for none.
        mask_padding: Exclude padded frames; `False` treats them as speech.

    Raises:
        UserError: `feature_shape` is not a spectrogram, or the sizes are incompatible.
    """

    def __init__(
        self,
        num_classes: int = 4,
        feature_shape: tuple[int, ...] = (3, 40, 300),
        *,
        use_bilstm: bool = True,
        use_conformer: bool = True,
        lstm_hidden: int = 128,
        num_blocks: int = 1,
        num_heads: int = 4,
        ffn_factor: int = 4,
        conv_kernel: int = 31,
        dropout: float = 0.2,
        pooling: Pooling = "mean",
        fc_hidden: int = 0,
        mask_padding: bool = True,
    ) -> None:
        super().__init__()
        wanted = ("channels", "mel bins", "frames")
        check_features("CoRNN", feature_shape, wanted, "a log-mel spectrogram with deltas, such as (3, 40, 300)")
        if not use_bilstm and not use_conformer:
            raise UserError("CoRNN needs the BiLSTM, the Conformer or both: set use_bilstm or use_conformer")
        self.num_classes = num_classes
        self.feature_shape = feature_shape
        self.use_bilstm = use_bilstm
        self.use_conformer = use_conformer
        self.lstm_hidden = lstm_hidden
        self.num_blocks = num_blocks
        self.num_heads = num_heads
        self.ffn_factor = ffn_factor
        self.conv_kernel = conv_kernel
        self.dropout = dropout
        self.pooling = pooling
        self.fc_hidden = fc_hidden
        self.mask_padding = mask_padding
        self.any_length = mask_padding

        frame_size = feature_shape[0] * feature_shape[1]
        width = 2 * lstm_hidden
        self.bilstm = LSTM(frame_size, lstm_hidden, bidirectional=True) if use_bilstm else None
        self.projection = None if use_bilstm else nn.Linear(frame_size, width)
        self.drop = Dropout(dropout)
        self.conformer = nn.ModuleList(
            ConformerBlock(width, num_heads, ffn_factor, conv_kernel, dropout)
            for _ in range(num_blocks if use_conformer else 0)
        )
        self.pool = TemporalPooling(pooling, width)
        hidden = [nn.Linear(width, fc_hidden), nn.ReLU(), Dropout(dropout)] if fc_hidden else []
        self.classifier = nn.Sequential(Dropout(dropout), *hidden, nn.Linear(fc_hidden or width, num_classes))

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Compute logits (B, num_classes) from features (B, C, F, T) and lengths (B,) in frames."""
        spans = lengths if self.mask_padding else None
        valid = valid_frames(lengths, features.shape[-1]) if self.mask_padding else None  # (B, T)
        x = as_sequence(silence_padding(features, spans))  # (B, T, C·F): static bins, then delta, then delta-delta
        if self.projection is not None:
            x = self.projection(x)
        if self.bilstm is not None:
            x, _ = self.bilstm(x, spans)  # (B, T, D)
        x = self.drop(x)
        for block in self.conformer:
            x = block(x, valid)
        logits: Tensor = self.classifier(self.pool(x, spans))
        return logits


class ConformerBlock(nn.Module):
    """Half a feed-forward step, self-attention, convolution, half a feed-forward step, layer norm (eqs. 1-4)."""

    def __init__(self, width: int, num_heads: int, ffn_factor: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.ffn_before = feed_forward(width, ffn_factor, dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.attention = RelativeAttention(width, num_heads, dropout)
        self.drop = Dropout(dropout)
        self.convolution = ConvolutionModule(width, kernel, dropout)
        self.ffn_after = feed_forward(width, ffn_factor, dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Map (B, T, D) to (B, T, D); `valid` is (B, T)."""
        x = torch.add(x, self.ffn_before(x), alpha=0.5)
        x = x + self.drop(self.attention(self.attention_norm(x), valid))
        x = x + self.convolution(x, valid)
        x = torch.add(x, self.ffn_after(x), alpha=0.5)
        normed: Tensor = self.norm(x)
        return normed


def feed_forward(width: int, factor: int, dropout: float) -> nn.Sequential:
    """Build the feed-forward module, which acts on each frame separately."""
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, factor * width),
        nn.SiLU(),
        Dropout(dropout),
        nn.Linear(factor * width, width),
        Dropout(dropout),
    )


class RelativeAttention(nn.Module):
    """Multi-head self-attention with scores that depend on the distance between frames.

    score(i, j) = [(q_i + u)·k_j + (q_i + v)·r_{i-j}] / √(D/H), where r is a projection of a sinusoid of the distance,
    and u, v are learned (Transformer-XL, section 3.3).
    """

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        if width % num_heads:
            raise UserError(f"a Conformer of width {width} cannot be split among {num_heads} heads: choose a divisor")
        self.num_heads = num_heads
        self.dropout = dropout
        self.in_projection = nn.Linear(width, 3 * width)  # queries, keys and values in one product
        self.out_projection = nn.Linear(width, width)
        self.position_projection = nn.Linear(width, width, bias=False)
        self.content_bias = nn.Parameter(torch.empty(num_heads, 1, width // num_heads))  # u
        self.position_bias = nn.Parameter(torch.empty(num_heads, 1, width // num_heads))  # v
        for weight in (*self.in_projection.weight.chunk(3), self.content_bias[:, 0], self.position_bias[:, 0]):
            nn.init.xavier_uniform_(weight)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Map (B, T, D) to (B, T, D); `valid` (B, T) marks the frames that may be attended to."""
        _, num_frames, width = x.shape
        query, key, value = self.in_projection(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        scale = query.shape[-1] ** -0.5  # each of the three is (B, H, T, D/H)

        distances = sinusoids(num_frames, width, x.device)  # (2T, D)
        positions = self.position_projection(distances).unflatten(-1, (self.num_heads, -1)).permute(1, 2, 0)
        bias = relative_scores((query + self.position_bias) * scale, positions)  # (B, H, T, T)
        if valid is not None:
            # Every utterance has a valid frame, so that no row is all -inf, of which softmax would be NaN.
            bias = bias + torch.zeros_like(valid, dtype=bias.dtype).masked_fill(~valid, -math.inf)[:, None, None]
        mixed = F.scaled_dot_product_attention(
            query + self.content_bias, key, value, bias, self.dropout if self.training else 0.0, scale=scale
        )
        out: Tensor = self.out_projection(mixed.transpose(1, 2).flatten(2))  # (B, T, D)
        return out


def sinusoids(num_frames: int, width: int, device: torch.device) -> Tensor:
    """Encode the distances T-1, T-2, …, -T as (2T, D): sines, then cosines, of geometrically spaced rates."""
    distance = torch.arange(num_frames - 1, -num_frames - 1, -1, device=device, dtype=torch.float32)
    rate = torch.exp(torch.arange(0, width, 2, device=device, dtype=torch.float32) * (-math.log(1e4) / width))
    angle = distance[:, None] * rate  # (2T, D/2)
    return torch.cat((angle.sin(), angle.cos()), dim=-1)


def relative_scores(query: Tensor, positions: Tensor) -> Tensor:
    """Multiply frame i's query with the encoding of the distance i-j: (B, H, T, d), (H, d, 2T) -> (B, H, T, T).

    Row i of the product holds the distances T-1, …, -T; frame j is at distance i-j, hence in column T-1-i+j. In memory
    that is T-1 + i(2T-1) + j: the first T columns of a matrix with rows of 2T-1 that starts at T-1. The distance -T is
    there only to make the rows fit. Slices are equivalent, but cost two more passes over the network's largest tensor
    in the backward pass.
    """
    num_frames = query.shape[-2]
    scores = (query @ positions).contiguous()  # (B, H, T, 2T)
    size = (*scores.shape[:-1], num_frames)
    return scores.as_strided(size, (*scores.stride()[:-2], 2 * num_frames - 1, 1), num_frames - 1)


class ConvolutionModule(nn.Module):
    """Pointwise convolution, GLU, depthwise convolution over time, batch norm, Swish, pointwise convolution."""

    def __init__(self, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise UserError(f"conv_kernel is {kernel}; it must be odd, to reach equally far back and ahead")
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 2 * width)  # a pointwise convolution is a linear layer on each frame
        self.depthwise = nn.Conv2d(width, width, (1, kernel), padding=(0, kernel // 2), groups=width, bias=False)
        self.batch_norm = MaskedBatchNorm(width)
        self.contract = nn.Linear(width, width)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Map (B, T, D) to (B, T, D); `valid` is (B, T)."""
        x = F.glu(self.expand(self.norm(x)), dim=-1)
        if valid is not None:
            x = x * valid[..., None]  # padding must not leak into adjacent frames
        # An image of one bin and D channels, in channels-last memory format: on a CPU, half the time of a
        # one-dimensional convolution.
        x = self.depthwise(x.transpose(1, 2)[:, :, None])  # (B, D, 1, T)
        x = F.silu(self.batch_norm(x[:, :, 0].transpose(1, 2), valid))  # (B, T, D)
        dropped: Tensor = self.drop(self.contract(x))
        return dropped


class MaskedBatchNorm(Normalisation):
    """Batch normalisation of (B, T, D) with the training statistics of the valid frames only."""

    def __init__(self, width: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(width, eps=eps, momentum=momentum)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Normalise (B, T, D); `valid` is (B, T)."""
        return self.normalise(x.flatten(0, 1), None if valid is None else valid.view(-1, 1)).view_as(x)
