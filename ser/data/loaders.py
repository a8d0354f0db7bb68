"""Batches: fetched whole from the memory map, in an order that the seed and the epoch decide."""

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

UNKNOWN = -1  # target of an utterance whose emotion is not known


class Batch(NamedTuple):
    """A batch of utterances.

    Attributes:
        features: (B, ..., T), zero behind each utterance's end.
        lengths: (B,) valid frames of each.
        targets: (B,) positions in the corpus's labels; ``UNKNOWN`` where the emotion is unknown.
        positions: (B,) places in the corpus's list of utterances.
    """

    features: Tensor
    lengths: Tensor
    targets: Tensor
    positions: Tensor


class FeatureSet(Dataset[Batch]):
    """Some utterances' features.

    Args:
        features: (rows, ..., T), memory-mapped.
        rows: (N,) row of each utterance.
        lengths: (N,) valid frames of each.
        targets: N class numbers.
        positions: N places in the corpus's list of utterances.
        trim: Cut each batch behind its longest utterance instead of leaving all T frames.
    """

    def __init__(
        self,
        features: npt.NDArray[np.float32],
        rows: npt.NDArray[np.int64],
        lengths: Tensor,
        targets: Sequence[int],
        positions: Sequence[int],
        trim: bool = False,
    ) -> None:
        self.features = features
        self.rows = rows
        self.lengths = lengths
        self.targets = torch.tensor(list(targets))
        self.positions = torch.tensor(list(positions))
        self.trim = trim

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, batch: list[int]) -> Batch:
        """Fetch a whole batch at once; PyTorch's loader prefers this to one call per item."""
        lengths = self.lengths[batch]
        rows = self.features[self.rows[batch]]  # (B, ..., T), read from the map
        if self.trim:
            rows = np.ascontiguousarray(rows[..., : int(lengths.max())])
        return Batch(torch.from_numpy(rows), lengths, self.targets[batch], self.positions[batch])


class EachOnce(DistributedSampler[int]):
    """Divides an evaluation set between processes without repeating utterances to make it even."""

    def __init__(self, dataset: FeatureSet, num_replicas: int, rank: int) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=False)
        self.num_samples = len(range(rank, len(dataset), num_replicas))

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.rank, len(self.dataset), self.num_replicas))  # type: ignore[arg-type]


def loader(
    dataset: FeatureSet, batch_size: int, *, shuffle: bool, num_workers: int, rank: int, world_size: int
) -> DataLoader[Batch]:
    """Return batches of one process's share of a set; shuffled ones follow the seed and the epoch alone."""
    # The sampler adds the epoch: neighbouring seeds must not have each other's orders an epoch later.
    seed = 100_003 * int(os.environ.get("PL_GLOBAL_SEED", 0))
    sampler: DistributedSampler[int] = (
        DistributedSampler(dataset, world_size, rank, shuffle=True, seed=seed)
        if shuffle
        else EachOnce(dataset, world_size, rank)
    )
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        collate_fn=_as_it_is,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def _as_it_is(batch: Any) -> Any:
    return batch
