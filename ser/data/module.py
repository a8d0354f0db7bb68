"""The Lightning hooks of every corpus: from utterances and their split to batches of features."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.data import DataLoader

from ser.data.augment import Augment
from ser.data.feed import Feed
from ser.data.items import Items, check_rows
from ser.data.loaders import Batch, EvalSampler, FeatureSet, OnlineSet, Sampling, TrainSampler, loader
from ser.errors import UserError
from ser.features.audio import Recording
from ser.features.front_end import FrontEnd
from ser.parallel import Cluster
from ser.protocols.splits import PARTITIONS, Partition, Split, Utterance


class Batches(LightningDataModule, ABC):
    """Base class: batches of utterances that a subclass lists and splits; its options are described there."""

    front_end: FrontEnd
    augment: Augment
    sampling: Sampling
    batch_size: int
    padding: Literal["fixed", "batch"]
    num_workers: int
    cache_dir: Path
    cluster: Cluster | None = None  # where features are computed; on this machine if there is none
    _copies_filled: tuple[int, ...] | None = None

    @property
    @abstractmethod
    def table(self) -> Sequence[Utterance]:
        """Every utterance that is used."""

    @property
    @abstractmethod
    def recordings(self) -> Sequence[Recording]:
        """Properties of the file of each."""

    @property
    @abstractmethod
    def labels(self) -> Sequence[str]:
        """Names of the classes."""

    @property
    @abstractmethod
    def split(self) -> Split:
        """Positions in the table, by partition."""

    @abstractmethod
    def check_split(self, needed: Sequence[Partition] = PARTITIONS) -> None:
        """Check that the needed partitions hold something, and share nothing that they must not."""

    def prepare_data(self) -> None:
        """Check the files, audit the split and compute the features that the cache lacks."""
        if self.trainer is None or self.trainer.state.fn != TrainerFn.PREDICTING:
            self.check_split(self._needed)
        self._fill_cache()

    def setup(self, stage: str) -> None:
        """Compare the items of the loaders with the split.

        Raises:
            UserError: A copy or segment is not in the partition of its source, or training ends before its validation.
        """
        if stage == "fit" and self.trainer is not None:
            check_length(self.trainer, len(self.train_dataloader()))
        if stage != "predict":
            fetched = PARTITIONS if stage == "fit" else PARTITIONS[1:]  # copies are made for training only
            check_rows({name: self._items(name) for name in fetched}, self.split)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return training batches; their order depends on the seed and the epoch alone."""
        data: FeatureSet | OnlineSet
        if self.augment.online:
            data = self._filled.online(self._items("train"), trim=self._trim)
        else:
            data = self._filled.stored(self._items("train"), trim=self._trim)
        sampler = TrainSampler(data, *self._processes, self.sampling)
        if self.trainer is not None:
            # Lightning sets a resumed fit's first epoch too late: workers have fetched batches by then.
            sampler.set_epoch(self.trainer.current_epoch)
        return self._with_source(loader(data, sampler, self.batch_size, self.num_workers))

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return validation batches, of whole utterances."""
        return self._evaluating(self._items("val"))

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return test batches, of whole utterances."""
        return self._evaluating(self._items("test"))

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Return batches of every utterance."""
        return self._evaluating(self._filled.items(range(len(self.table)), training=False))

    def statistics(self, by_frame: bool = False) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of each feature over the valid frames of the training items.

        Args:
            by_frame: Compute them for each frame; all training items must have all T frames.

        Returns:
            Two tensors of shape (..., 1), or (..., T) by frame.
        """
        return self._filled.statistics(self._items("train"), by_frame)

    @property
    def _needed(self) -> Sequence[Partition]:
        """The partitions that the trainer is about to use."""
        evaluated: dict[str | None, Sequence[Partition]] = {
            TrainerFn.VALIDATING: ("val",),
            TrainerFn.TESTING: ("test",),
        }
        return PARTITIONS if self.trainer is None else evaluated.get(self.trainer.state.fn, PARTITIONS)

    @property
    def _fitting(self) -> bool:
        return self.trainer is None or self.trainer.state.fn == TrainerFn.FITTING

    @property
    def _processes(self) -> tuple[int, int]:
        """Number of processes that share the batches, and this one's rank."""
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    @property
    def _trim(self) -> bool:
        return self.padding == "batch"

    @cached_property
    def _feed(self) -> Feed:
        return Feed(self.table, self.recordings, self.labels, self.front_end, self.cache_dir, self.augment)

    @property
    def _filled(self) -> Feed:
        if self._copied != self._copies_filled:  # another fold has other copies
            self._fill_cache()
            self._copies_filled = self._copied
        return self._feed

    def _fill_cache(self) -> None:
        self._feed.fill(self._copied, self.cluster)

    @property
    def _copied(self) -> tuple[int, ...]:
        """Utterances with augmented copies in the cache."""
        return self.split.train if self.augment.copies and self._fitting else ()

    def _items(self, name: Partition) -> Items:
        return self._filled.items(self.split[name], training=name == "train")

    def _evaluating(self, items: Items) -> DataLoader[Batch]:
        data = self._filled.stored(items, trim=self._trim)
        return self._with_source(loader(data, EvalSampler(data, *self._processes), self.batch_size, self.num_workers))

    def _with_source(self, batches: DataLoader[Batch]) -> DataLoader[Batch]:
        """Mark a loader, which may be used without this data module, with its source."""
        batches.source = self
        return batches


def check_length(trainer: Any, batches: int) -> None:
    """Check that there are training batches, and a validation before training ends if a callback monitors it.

    Args:
        trainer: Lightning's, with its limits.
        batches: Training batches of an epoch.

    Raises:
        UserError: There is no training batch, or training ends before the first monitored validation.
    """
    accumulate, every = int(trainer.accumulate_grad_batches), trainer.check_val_every_n_epoch
    if accumulate < 1:
        raise UserError(f"accumulate_grad_batches is {accumulate}; it must be at least 1.")

    def share(limit: float, of: int) -> int:
        return min(limit, of) if isinstance(limit, int) else int(limit * of)

    def steps(number: float) -> int:
        return math.ceil(number / accumulate)

    interval = trainer.val_check_interval
    batches = share(trainer.limit_train_batches, batches)
    if not batches:
        raise UserError(f"limit_train_batches is {trainer.limit_train_batches}, which leaves no training batch.")
    if (
        isinstance(interval, int | float)
        and not 0 < interval <= (batches if isinstance(interval, int) else 1)
        and every
    ):
        raise UserError(
            f"val_check_interval is {interval}, but an epoch has {batches} batches: give 1 to {batches}, or a share up "
            "to 1.0; with --trainer.check_val_every_n_epoch null, batches are counted over all epochs."
        )
    monitors = [getattr(callback, "monitor", None) or "" for callback in trainer.callbacks]
    if trainer.fast_dev_run or not any(monitor.startswith("val/") for monitor in monitors):
        return
    first = ((every or 1) - 1) * steps(batches)
    if isinstance(interval, int | float):  # otherwise it is a time
        first += steps(share(interval, batches) if every else interval)
    ends = [trainer.max_steps, -1 if trainer.max_epochs is None else trainer.max_epochs * steps(batches)]
    last = min((end for end in ends if end >= 0), default=first)
    if last < first:
        raise UserError(
            f"Training ends after step {last} of the optimiser, before the first validation after step {first}: no "
            "checkpoint could be selected. Increase --trainer.max_steps or --trainer.max_epochs, or validate earlier "
            "(--trainer.check_val_every_n_epoch, --trainer.val_check_interval)."
        )
