"""From utterances to datasets: cached rows of their segments and copies, or features computed anew."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ser.data.augment import Augment
from ser.data.items import Items
from ser.data.loaders import UNKNOWN, FeatureSet, OnlineSet
from ser.features.audio import Recording
from ser.features.front_end import Change, FrontEnd
from ser.features.statistics import feature_statistics
from ser.features.store import FeatureStore, Piece
from ser.parallel import Cluster
from ser.protocols.splits import Utterance


@dataclass(frozen=True)
class Feed:
    """Features of a list of utterances.

    Args:
        table: The utterances.
        recordings: Properties of the file of each.
        labels: Names of the classes.
        front_end: Computes features.
        cache_dir: Folder of all caches.
        augment: Augmentation of training utterances.
    """

    table: Sequence[Utterance]
    recordings: Sequence[Recording]
    labels: Sequence[str]
    front_end: FrontEnd
    cache_dir: Path
    augment: Augment

    def fill(self, trained: Sequence[int] = (), cluster: Cluster | None = None) -> None:
        """Compute what the cache lacks: every utterance, and the augmented copies of training utterances."""
        copied = set(trained)
        pieces = [piece for i in range(len(self.table)) for piece in self._pieces(i, copies=i in copied)]
        self.store.add(pieces, cluster)

    def items(self, positions: Sequence[int], *, training: bool) -> Items:
        """Return the items of utterances.

        Args:
            positions: The utterances.
            training: Every segment of every utterance and of its copies is an item; otherwise every utterance is one,
                with all of its segments and without copies.
        """
        found = []
        for i in positions:
            for copy, span in enumerate(self.store.spans([piece.key for piece in self._pieces(i, copies=training)])):
                if training:
                    found += [(i, span.first + segment, 1, copy) for segment in range(span.number)]
                else:
                    found.append((i, span.first, span.number, copy))
        return Items(*np.array(found, np.int64).reshape(-1, 4).T)

    def stored(self, items: Items, *, trim: bool) -> FeatureSet:
        """Return items with features from the cache."""
        rows = self.store.rows
        lengths = torch.from_numpy(rows.lengths)
        return FeatureSet(rows, lengths, items, self._targets(items.positions.tolist()), trim)

    def online(self, items: Items, *, trim: bool) -> OnlineSet:
        """Return segments with features that are augmented anew each time."""
        paths = [utterance.path for utterance in self.table]
        targets = self._targets(items.positions.tolist())
        return OnlineSet(self.front_end, self.augment.online, paths, items, targets, trim)

    def statistics(self, items: Items, by_frame: bool) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation over the items, see :func:`feature_statistics`."""
        return feature_statistics(self.store.rows, items.rows(), by_frame)

    @cached_property
    def store(self) -> FeatureStore:
        """Features of these and of any other recordings."""
        return FeatureStore(self.cache_dir, self.front_end)

    def _pieces(self, position: int, *, copies: bool) -> list[Piece]:
        recording, path = self.recordings[position], self.table[position].path
        content, segments = recording.digest, self.front_end.preprocess.count(recording.duration_s)
        changes = self.augment.changes(content) if copies else {}
        pieces: dict[str, Change | None] = {content: None, **changes}
        return [Piece(key, path, change, segments) for key, change in pieces.items()]

    def _targets(self, positions: Sequence[int]) -> list[int]:
        target_of = {label: target for target, label in enumerate(self.labels)}
        return [target_of.get(self.table[i].emotion, UNKNOWN) for i in positions]
