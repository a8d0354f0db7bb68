"""Lightning's hooks of every corpus: from utterances and their split to batches of features."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.data import DataLoader

from ser.data.audio import Recording
from ser.data.audit import Audit
from ser.data.augment import Augment
from ser.data.feed import Feed
from ser.data.frontend import FrontEnd
from ser.data.items import Items, refuse_stray_rows
from ser.data.loaders import Batch, Draws, EachOnce, FeatureSet, OnlineSet, Sampling, loader
from ser.data.splits import SIDES, Side, Split, Utterance


class Batches(LightningDataModule, ABC):
    """Base class: batches of utterances that a subclass lists and divides, see there for the options."""

    front_end: FrontEnd
    augment: Augment
    sampling: Sampling
    batch_size: int
    padding: Literal["fixed", "batch"]
    num_workers: int
    cache_dir: Path
    _copies_filled: tuple[int, ...] | None = None

    @property
    @abstractmethod
    def table(self) -> Sequence[Utterance]:
        """Every utterance that is used."""

    @property
    @abstractmethod
    def recordings(self) -> Sequence[Recording]:
        """What a look into the file of each told."""

    @property
    @abstractmethod
    def labels(self) -> Sequence[str]:
        """Names of the classes."""

    @property
    @abstractmethod
    def split(self) -> Split:
        """Positions in the table, by side."""

    @property
    @abstractmethod
    def audit(self) -> Audit:
        """What the sides share."""

    def prepare_data(self) -> None:
        """Check the files, audit the split and compute the features that the cache lacks."""
        if self._fitting:  # what else is scored is compared with what its network was trained on
            self.audit.enforce()
        self._fill_cache()

    def setup(self, stage: str) -> None:
        """Hold what will be fetched against the split.

        Raises:
            UserError: A copy or a segment is not on the side of its source.
        """
        if stage != "predict":
            fetched = SIDES if stage == "fit" else SIDES[1:]  # what is not trained on has no copies
            refuse_stray_rows({side: self._items(side) for side in fetched}, self.split)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return training batches; their order depends on the seed and the epoch alone."""
        data: FeatureSet | OnlineSet
        if self.augment.online:
            data = self._filled.online(self.split.train, trim=self._trim)
        else:
            data = self._filled.stored(self._items("train"), trim=self._trim)
        draws = Draws(data, *self._processes, self.sampling)
        if self.trainer is not None:
            # Lightning tells a resumed fit's first epoch too late: workers have fetched batches by then.
            draws.set_epoch(self.trainer.current_epoch)
        return self._ours(loader(data, draws, self.batch_size, self.num_workers))

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
        """Return mean and standard deviation of each feature over the valid frames of what is trained on.

        Args:
            by_frame: Take every frame for itself; all of what is trained on must have all T.

        Returns:
            Two tensors of shape (..., 1), or (..., T) by frame.
        """
        return self._filled.statistics(self._items("train"), by_frame)

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
        contents = [recording.digest for recording in self.recordings]
        return Feed(self.table, contents, self.labels, self.front_end, self.cache_dir, self.augment)

    @property
    def _filled(self) -> Feed:
        if self._copied != self._copies_filled:  # for another fold, other copies
            self._fill_cache()
            self._copies_filled = self._copied
        return self._feed

    def _fill_cache(self) -> None:
        self._feed.fill(self._copied)

    @property
    def _copied(self) -> tuple[int, ...]:
        """Utterances of which the cache is to hold augmented copies."""
        return self.split.train if self.augment.copies and self._fitting else ()

    def _items(self, side: Side) -> Items:
        return self._filled.items(self.split.side(side), training=side == "train")

    def _evaluating(self, items: Items) -> DataLoader[Batch]:
        data = self._filled.stored(items, trim=self._trim)
        return self._ours(loader(data, EachOnce(data, *self._processes), self.batch_size, self.num_workers))

    def _ours(self, batches: DataLoader[Batch]) -> DataLoader[Batch]:
        """Let a loader that is used without this data module say whose it is."""
        batches.source = self
        return batches
