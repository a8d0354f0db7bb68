"""Items: the units of training and evaluation, and the rows of the feature cache that each has."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ser.errors import UserError
from ser.features.shards import IntArray, consecutive
from ser.protocols.splits import Partition, Split


class Items(NamedTuple):
    """N items of one or more consecutive rows of the cache each.

    Attributes:
        positions: (N,) the utterance of each: its index in the corpus's table.
        firsts: (N,) first row.
        counts: (N,) number of rows.
        copies: (N,) 0 for the original recording, otherwise the number of its augmented copy, from 1.
    """

    positions: IntArray
    firsts: IntArray
    counts: IntArray
    copies: IntArray

    def rows(self, chosen: IntArray | slice = slice(None)) -> IntArray:
        """Return the rows of some items, in their order."""
        return consecutive(self.firsts[chosen], self.counts[chosen])


def check_rows(items: Mapping[Partition, Items], split: Split) -> None:
    """Compare the items of loaders with the split: the last step of the leakage audit.

    Copies and segments belong to the partition of their source, and only train has copies.

    Args:
        items: Of every partition, or of those that are evaluated.
        split: Utterances of every partition.

    Raises:
        UserError: Something of one partition is in another.
    """
    for name, held in items.items():
        strays = set(held.positions.tolist()) - set(split[name])
        if strays:
            raise UserError(f"{name} holds copies or segments of {len(strays)} utterances of another partition.")
        if name != "train" and held.copies.any():
            raise UserError(f"{name} holds {int((held.copies > 0).sum())} augmented copies; only train may.")
        trained = items["train"].rows() if "train" in items and name != "train" else ()
        shared = np.intersect1d(held.rows(), trained)
        if len(shared):
            raise UserError(f"{name} and train share {len(shared)} rows of the feature cache.")
