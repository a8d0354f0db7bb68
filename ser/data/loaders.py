"""Datasets and samplers: whole batches, in an order that depends on seed and epoch alone."""

import os
import socket
import sys
import tempfile
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from audiomentations.core.transforms_interface import BaseWaveformTransform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from ser.data.augment import Seeded, seed_of
from ser.data.items import Items
from ser.errors import UserError
from ser.features.front_end import FrontEnd
from ser.features.shards import Rows

UNKNOWN = -1  # target of an utterance without a label
FILLER = -1  # item of a process without utterances to evaluate, and position of the utterance that it fetches instead

SOCKET = "/pymp-12345678/listener-12345678"  # path of a multiprocessing socket below the folder for temporary files
LONGEST_SOCKET = 107 if sys.platform == "linux" else 103  # bytes of a socket's path

Sampling = Literal["shuffle", "balanced"]


class Batch(NamedTuple):
    """A batch of segments; an undivided utterance is one segment.

    Attributes:
        features: (B, ..., T), zero after each segment's end.
        lengths: (B,) valid frames of each.
        targets: (B,) class numbers; ``UNKNOWN`` without a label.
        positions: (B,) the utterance of each: its index in the corpus's table, or ``FILLER`` for one that must not be
            counted. Segments of one utterance are adjacent.
    """

    features: Tensor
    lengths: Tensor
    targets: Tensor
    positions: Tensor


class FeatureSet(Dataset[Batch]):
    """Items whose features are in the cache.

    Args:
        rows: Features of all segments, (..., T) each.
        lengths: Valid frames of all segments.
        items: The N items.
        targets: Class number of each item's utterance.
        trim: Cut each batch after its longest segment instead of keeping all T frames.
    """

    def __init__(self, rows: Rows, lengths: Tensor, items: Items, targets: Sequence[int], trim: bool = False) -> None:
        self.rows = rows
        self.lengths = lengths
        self.items = items
        self.targets = torch.tensor(list(targets))
        self.positions = torch.from_numpy(items.positions)
        self.trim = trim

    def __len__(self) -> int:
        return len(self.targets)

    def read_ahead(self, draws: Sequence[int]) -> None:
        """Have the system read from the disk what will be fetched soon."""
        if len(self):
            self.rows.read_ahead(self.items.rows(np.array(draws, np.int64) % len(self)))

    def __getitems__(self, draws: list[int]) -> Batch:
        """Fetch a whole batch at once; PyTorch's loader prefers this to one call per item."""
        chosen = np.array(draws) % len(self)  # in any epoch
        counts = torch.from_numpy(self.items.counts[chosen])
        rows = self.items.rows(chosen)
        lengths = self.lengths[rows]
        features = self.rows.read(rows)  # (B, ..., T)
        if self.trim:
            features = np.ascontiguousarray(features[..., : int(lengths.max())])
        targets, positions = (of[chosen].repeat_interleave(counts) for of in (self.targets, self.positions))
        if FILLER in draws:
            positions = torch.full_like(positions, FILLER)
        return Batch(torch.from_numpy(features), lengths, targets, positions)


class OnlineSet(Dataset[Batch]):
    """Segments of utterances that are read and augmented anew each time.

    All segments of an utterance are cut from the same augmented waveform in an epoch.

    Args:
        front_end: Computes their features.
        transforms: Applied in this order.
        paths: Audio files of the corpus's table.
        items: The N segments, as the unchanged recordings have them in the cache.
        targets: Class number of each item's utterance.
        trim: Cut each batch after its longest segment instead of keeping all T frames.
    """

    def __init__(
        self,
        front_end: FrontEnd,
        transforms: Sequence[BaseWaveformTransform],
        paths: Sequence[Path],
        items: Items,
        targets: Sequence[int],
        trim: bool = False,
    ) -> None:
        self.front_end = front_end
        self.transforms = tuple(transforms)
        self.paths = paths
        self.targets = torch.tensor(list(targets))
        self.positions = torch.from_numpy(items.positions)
        _, first, own, counts = np.unique(items.positions, return_index=True, return_inverse=True, return_counts=True)
        numbers = np.arange(len(own)) - first[own]  # segments of an utterance are adjacent
        self.places = list(zip(numbers.tolist(), counts[own].tolist(), strict=True))
        self.trim = trim
        self.seed = run_seed()

    def __len__(self) -> int:
        return len(self.targets)

    def read_ahead(self, draws: Sequence[int]) -> None:
        """Do nothing: recordings are small, and computing takes longer than reading."""

    def __getitems__(self, draws: list[int]) -> Batch:
        """Read, augment and compute a whole batch."""
        segments: list[Tensor] = []
        chosen = [draw % len(self) for draw in draws]
        for draw, item in zip(draws, chosen, strict=True):
            position = int(self.positions[item])
            change = Seeded(self.transforms, seed_of(self.seed, draw // len(self), position))
            segments.append(self.front_end.segment(self.paths[position], change, *self.places[item]))
        lengths = torch.tensor([segment.shape[-1] for segment in segments])
        *channels, longest = self.front_end.shape
        features = torch.zeros(len(segments), *channels, int(lengths.max()) if self.trim else longest)
        for row, segment in zip(features, segments, strict=True):
            row[..., : segment.shape[-1]] = segment
        return Batch(features, lengths, self.targets[chosen], self.positions[chosen])


class ReadAheadSampler(DistributedSampler[int]):
    """Base class: items of one process, which the dataset reads ahead by a batch.

    So the disk reads while the model is trained, even if batches are fetched in the training process itself.

    Attributes:
        batch_size: Items that are fetched at once.
    """

    dataset: "FeatureSet | OnlineSet"
    batch_size = 1

    @abstractmethod
    def draws(self) -> Sequence[int]:
        """Return the items of this process in the epoch."""

    def __iter__(self) -> Iterator[int]:
        draws, size = self.draws(), self.batch_size
        self.dataset.read_ahead(draws[:size])
        for start in range(0, len(draws), size):
            self.dataset.read_ahead(draws[start + size : start + 2 * size])
            yield from draws[start : start + size]


class TrainSampler(ReadAheadSampler):
    """Draws training items for one process, as numbers that also encode the epoch.

    Args:
        dataset: N items, with their ``targets``; item i of epoch e is drawn as e N + i.
        num_replicas: Number of processes that share the items.
        rank: Of this process.
        sampling: "shuffle" draws every item once; "balanced" as many items, all classes equally often.
    """

    def __init__(
        self, dataset: FeatureSet | OnlineSet, num_replicas: int, rank: int, sampling: Sampling = "shuffle"
    ) -> None:
        # The sampler adds the epoch: adjacent seeds must not have each other's orders an epoch later.
        super().__init__(dataset, num_replicas, rank, shuffle=True, seed=100_003 * run_seed())
        self.weights = None
        if sampling == "balanced":
            self.weights = 1.0 / dataset.targets.bincount().clamp_min(1)[dataset.targets]
        self.items = len(dataset)

    def draws(self) -> Sequence[int]:
        """Return numbers of items and epochs."""
        if self.weights is None:
            drawn = list(DistributedSampler.__iter__(self))
        else:
            generator = torch.Generator().manual_seed(self.seed + self.epoch)
            all_drawn = torch.multinomial(self.weights, self.total_size, replacement=True, generator=generator)
            drawn = all_drawn[self.rank :: self.num_replicas].tolist()
        return [self.epoch * self.items + item for item in drawn]


class EvalSampler(ReadAheadSampler):
    """Divides an evaluation set between processes without repeating utterances.

    A process without an utterance gets ``FILLER``: it must take part, since scores are combined over all processes.
    """

    def __init__(self, dataset: FeatureSet, num_replicas: int, rank: int) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=False)
        self.share: Sequence[int] = range(rank, len(dataset), num_replicas) or [FILLER][: len(dataset)]
        self.num_samples = len(self.share)

    def draws(self) -> Sequence[int]:
        """Return numbers of items."""
        return self.share


def check_workers(number: int) -> None:
    """Check that loaders can start their workers.

    Raises:
        UserError: The number is negative, or the path of the folder for temporary files is too long for their sockets:
            training would wait for its first batch forever.
    """
    if number < 0:
        raise UserError(f"num_workers is {number}; it must be at least 0, which starts no workers.")
    folder = tempfile.gettempdir()
    if number and hasattr(socket, "AF_UNIX") and len(os.fsencode(folder)) + len(SOCKET) > LONGEST_SOCKET:
        raise UserError(
            f"The path of the folder for temporary files, {folder}, is too long for the sockets of num_workers = "
            f"{number}: {len(os.fsencode(folder))} bytes, where at most {LONGEST_SOCKET - len(SOCKET)} fit. Set TMPDIR "
            "to a shorter one, such as /tmp, or give --data.num_workers 0."
        )


def loader(
    dataset: FeatureSet | OnlineSet, sampler: ReadAheadSampler, batch_size: int, num_workers: int
) -> DataLoader[Batch]:
    """Return batches of one process's share of a dataset."""
    sampler.batch_size = batch_size
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        collate_fn=_whole,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def run_seed() -> int:
    """Return the seed that Lightning's ``seed_everything`` was called with; 0 if it was not."""
    return int(os.environ.get("PL_GLOBAL_SEED", 0))


def _whole(batch: Any) -> Any:
    return batch
