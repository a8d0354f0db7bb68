"""Layers of more than one paper's network.

A batch holds utterances of different lengths, zero-padded at the end; `lengths` (B,) are their valid frames, `None`
means all. Padded frames are ignored, except in the statistics of `BatchNorm`. Images are (B, C, F, T): B utterances,
C channels, F frequency bins, T frames. Sequences are (B, T, D), with D numbers per frame.
"""

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ser.errors import UserError, check_choice

Pooling = Literal["mean", "last", "max", "attention"]


def check_features(network: str, found: tuple[int, ...], wanted: tuple[int | str, ...], choose: str) -> None:
    """Check that the shape `found` of features is `wanted`, where a name stands for any size.

    Raises:
        UserError: It is not; `choose` names fitting features in the message.
    """
    if len(found) != len(wanted) or any(w not in (f, str(w)) or f < 1 for f, w in zip(found, wanted, strict=True)):
        shape = ", ".join(str(size) for size in wanted)
        raise UserError(f"{network} got features of shape {tuple(found)}; it needs ({shape}): choose {choose}")


def valid_frames(lengths: Tensor, num_frames: int) -> Tensor:
    """Turn lengths (B,) into a mask (B, T): true where a frame belongs to its utterance."""
    return torch.arange(num_frames, device=lengths.device) < lengths[:, None]


def silence_padding(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Set the padding of (B, …, T) to zero; even NaN in it must not reach a gradient."""
    if lengths is None:
        return x
    valid = valid_frames(lengths, x.shape[-1])
    return x.masked_fill(~valid.view(x.shape[0], *[1] * (x.dim() - 2), -1), 0)


def as_sequence(images: Tensor) -> Tensor:
    """Concatenate the channels of every frame: (B, C, F, T) -> (B, T, C·F)."""
    return images.flatten(1, 2).transpose(1, 2)


def last_valid(sequence: Tensor, lengths: Tensor | None) -> Tensor:
    """Take the last valid frame of every utterance: (B, T, D) -> (B, D)."""
    if lengths is None:
        return sequence[:, -1]
    index = (lengths - 1)[:, None, None].expand(-1, 1, sequence.shape[-1])  # (B, 1, D)
    return sequence.gather(1, index).squeeze(1)


def reverse_valid(sequence: Tensor, lengths: Tensor | None) -> Tensor:
    """Reverse the valid frames of every utterance (B, T, D); padding stays at the end. Its own inverse."""
    if lengths is None:
        return sequence.flip(1)
    num_frames = sequence.shape[1]
    frames = torch.arange(num_frames, device=lengths.device)
    index = (lengths[:, None] - 1 - frames) % num_frames  # (B, T): a permutation in every row
    return sequence.gather(1, index[..., None].expand(-1, -1, sequence.shape[-1]))


class LSTM(nn.Module):
    """One recurrent layer, uni- or bidirectional, exact for every length.

    The backward direction is a separate LSTM that reads every utterance reversed from its last valid frame. On a CPU
    that trains four times faster than packing (160 against 675 ms per step for 40 utterances of 300 frames,
    120 -> 2 × 128, two threads), needs no lengths on the host, and can be exported.

    On a CPU it stays in single precision under autocast: without AVX-512, an LSTM in bfloat16 fails or takes seven
    times as long.

    Args:
        input_size: D, numbers per frame.
        hidden_size: H, units per direction.
        bidirectional: Read backwards too, and concatenate.
    """

    def __init__(self, input_size: int, hidden_size: int, *, bidirectional: bool = False) -> None:
        super().__init__()
        self.output_size = hidden_size * (2 if bidirectional else 1)
        self.ahead = nn.LSTM(input_size, hidden_size, batch_first=True)
        self.back = nn.LSTM(input_size, hidden_size, batch_first=True) if bidirectional else None

    def forward(self, sequence: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run over a sequence (B, T, D).

        Returns:
            Outputs (B, T, H or 2H), undefined after an utterance's end, and final states (B, H or 2H): forward after
            the last valid frame, backward after the first.
        """
        if sequence.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return self.forward(sequence.float(), lengths)
        outputs, _ = self.ahead(sequence)
        final = last_valid(outputs, lengths)
        if self.back is None:
            return outputs, final
        backward, _ = self.back(reverse_valid(sequence, lengths))
        final = torch.cat((final, last_valid(backward, lengths)), dim=-1)
        return torch.cat((outputs, reverse_valid(backward, lengths)), dim=-1), final


def follow_keras(net: nn.Module, norm_momentum: float = 0.01) -> None:
    """Initialise a network as Keras does, which most of the papers used.

    Glorot-uniform weights, orthogonal recurrent ones, biases of zero but one for an LSTM's forget gate; an LSTM's
    second bias vector, which Keras lacks, stays zero; batch norm with an epsilon of 1e-3.

    Args:
        net: The network.
        norm_momentum: Share of every batch in the running statistics of batch norm. With Keras' 0.01 they average the
            last hundred steps, which are ten epochs of a small corpus.

    Raises:
        UserError: `norm_momentum` is not a share.
    """
    if not 0 < norm_momentum <= 1:
        raise UserError(f"norm_momentum is {norm_momentum}; it must be more than 0 and at most 1 (Keras: 0.01)")
    for module in net.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, BatchNorm):
            module.momentum, module.eps = norm_momentum, 1e-3
        elif isinstance(module, nn.LSTM):
            input_weights, recurrent_weights, bias, second_bias = module.parameters()
            nn.init.xavier_uniform_(input_weights)
            nn.init.orthogonal_(recurrent_weights)
            nn.init.zeros_(bias)
            nn.init.ones_(bias.detach()[module.hidden_size : 2 * module.hidden_size])  # gates are ordered i, f, g, o
            nn.init.zeros_(second_bias).requires_grad_(False)


class Normalisation(nn.Module):
    """Base of batch norms, which processes that train together can synchronise.

    Not a subclass of torch's, which Lightning's `sync_batchnorm` would replace by a layer that needs a GPU and supports
    neither masks nor other running statistics.

    Args:
        channels: C.
        eps: Added to the variance.
        momentum: Share of a batch in the running statistics, which are used outside training.

    Attributes:
        synchronised: Use the statistics of all processes' batches in training; `ser.training.EmotionClassifier` sets
            it with `--trainer.sync_batchnorm`.
    """

    synchronised: bool = False
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, *, eps: float, momentum: float) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def normalise(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Normalise (N, C); training statistics include only the rows in `valid`, (N, 1)."""
        if not self.training or (valid is None and not self.synchronised):
            statistics = (self.running_mean, self.running_var, self.weight, self.bias)
            return F.batch_norm(x, *statistics, self.training, self.momentum, self.eps)
        flat = x.float()  # sums over a batch overflow in half precision
        valid = torch.ones_like(flat[:, :1]) if valid is None else valid
        count = self._total(valid.sum())
        weights = valid / count
        mean = self._total((flat * weights).sum(0))
        centred = flat - mean
        variance = self._total((centred.square() * weights).sum(0))
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1).clamp(min=1)), self.momentum)
        return torch.addcmul(self.bias, centred, self.weight * torch.rsqrt(variance + self.eps))

    def _total(self, values: Tensor) -> Tensor:
        """Return the differentiable sum of all synchronised processes' values."""
        if not self.synchronised:
            return values
        from torch.distributed.nn.functional import all_reduce  # which a torch without distributed training lacks

        total: Tensor = all_reduce(values)  # type: ignore[no-untyped-call]
        return total


class BatchNorm(Normalisation):
    """Batch norm of (B, C, …) with running statistics that start with the first batch.

    They are the mean of the first 1 / momentum batches, and then follow as in Keras and torch, which start at mean 0
    and variance 1. The first convolution of a spectrogram has a variance near 0.003, so that with Keras' momentum the
    start is forgotten only after 500 steps, 60 epochs of EMO-DB; until then, validation would not reflect what the
    network has learnt, and neither would early stopping and the selected checkpoint.

    Args:
        channels: C.
    """

    num_batches_tracked: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-5, momentum=0.1)
        self.register_buffer("num_batches_tracked", torch.tensor(0))
        self.starting = True  # reading the count from a GPU makes the CPU wait, so it ends with the start

    def forward(self, x: Tensor) -> Tensor:
        """Normalise; training adds the batch to the statistics."""
        if not self.training:
            return self.normalise(x)
        self.num_batches_tracked += 1
        momentum = self.momentum
        if self.starting:
            batches = int(self.num_batches_tracked)
            self.starting = batches * momentum < 1
            self.momentum = 1 / batches if self.starting else momentum
        if self.synchronised:
            last = x.movedim(1, -1)  # (B, …, C)
            output = self.normalise(last.flatten(0, -2)).view(last.shape).movedim(-1, 1).to(x.dtype)
        else:
            output = self.normalise(x)
        self.momentum = momentum
        return output


class Dropout(nn.Module):
    """Dropout, several times faster on a CPU than `torch.nn.Dropout`.

    Torch draws a number per value with a serial generator, which is a quarter of CoRNN's training step. Here 64 random
    bits serve four values, so that the share is rounded to the nearest 65536th.

    Args:
        p: Share of values set to zero; the others are scaled to keep the expectation.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise UserError(f"dropout is {p}; it must be at least 0 and less than 1")
        self.p = p

    def extra_repr(self) -> str:
        """Show the share in the network's printout."""
        return f"p={self.p}"

    def forward(self, x: Tensor) -> Tensor:
        """Drop out values of a tensor of any shape."""
        dropped = round(self.p * 65536)
        if not self.training or dropped == 0:
            return x
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return F.dropout(x, self.p)
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        drawn = words.view(torch.int16)[: x.numel()].view(x.shape)  # uniform over -32768 … 32767
        return x * (drawn >= dropped - 32768).to(x.dtype).mul_(65536 / (65536 - dropped))


class TemporalPooling(nn.Module):
    """Reduce a sequence to one vector per utterance, over its valid frames.

    Args:
        pooling: `mean`, `last` (valid frame), `max`, or `attention`: a softmax over time of a linear score.
        input_size: D, numbers per frame; `attention` has that many weights.
    """

    def __init__(self, pooling: Pooling, input_size: int) -> None:
        super().__init__()
        check_choice("pooling", pooling, get_args(Pooling))
        self.pooling = pooling
        self.score: nn.Module | None = nn.Linear(input_size, 1, bias=False) if pooling == "attention" else None

    def forward(self, sequence: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Pool (B, T, D) over the first `lengths` frames to (B, D)."""
        if self.pooling == "last":
            return last_valid(sequence, lengths)
        if lengths is None:
            lengths = torch.full(sequence.shape[:1], sequence.shape[1], device=sequence.device)
        valid = valid_frames(lengths, sequence.shape[1])[..., None]  # (B, T, 1)
        if self.pooling == "max":
            return sequence.masked_fill(~valid, -math.inf).amax(1)
        if self.score is None:
            weights = valid / lengths[:, None, None]
        else:
            weights = self.score(sequence).float().masked_fill(~valid, -math.inf).softmax(1)
        return (sequence * weights).sum(1)  # not a matrix product, which autocast would round
