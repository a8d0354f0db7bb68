"""Shards: immutable files of feature rows, read in place.

A shard holds N rows of float32, then N times the mean and the sum of squared deviations of each feature over the row's
valid frames (float64), then a JSON object {key: [valid frames of each of its rows]} and its length in 8 bytes. It is
renamed to its name when it is complete on the disk.
"""

import json
import os
import struct
from collections.abc import Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ser.errors import UserError

IntArray = npt.NDArray[np.int64]
SUFFIX = ".rows"
_LENGTH = struct.Struct("<Q")


def index_block(index: dict[str, list[int]]) -> bytes:
    """Return the end of a shard, the index of its rows."""
    block = json.dumps(index).encode()
    return block + _LENGTH.pack(len(block))


def read_index(path: Path) -> dict[str, list[int]]:
    """Return the keys of a shard with the valid frames of their rows; none if the file was deleted or truncated."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(size - _LENGTH.size, 0))
            (length,) = _LENGTH.unpack(file.read())
            file.seek(max(size - _LENGTH.size - length, 0))
            index = json.loads(file.read(min(length, size)))
    except (FileNotFoundError, ValueError, struct.error):
        return {}
    return index if isinstance(index, dict) else {}


class Rows:
    """The N rows of some shards, numbered from 0 in the order of the shards.

    No file is mapped or held open: data stay in the system's file cache as far as it has room, and an object can be
    sent to another process.

    Args:
        shape: (..., T) of a row.
        paths: The shards.
        counts: Number of rows of each shard.
        lengths: Valid frames of each row.

    Attributes:
        lengths: (N,) valid frames of each row.
    """

    def __init__(
        self, shape: tuple[int, ...], paths: Sequence[Path], counts: Sequence[int], lengths: Sequence[int]
    ) -> None:
        self.shape = shape
        self.paths = paths
        self.lengths: IntArray = np.array(lengths, np.int64)
        self._firsts: IntArray = np.cumsum([0, *counts], dtype=np.int64)  # first row of each shard, then N
        self._row_bytes = 4 * int(np.prod(shape))

    def read(self, rows: IntArray) -> npt.NDArray[np.float32]:
        """Read the features of some rows, (rows, ..., T)."""
        found = np.empty((len(rows), *self.shape), np.float32)
        for file, shard, chosen in self._files(rows):
            numbers = rows[chosen] - self._firsts[shard]  # within the shard
            for place, number in zip(chosen.tolist(), numbers.tolist(), strict=True):
                self._read(file, number * self._row_bytes, found[place])
        return found

    def moments(self, rows: IntArray) -> npt.NDArray[np.float64]:
        """Read mean and sum of squared deviations of each feature over the valid frames of rows, (rows, 2, ...)."""
        found = np.empty((len(rows), 2, *self.shape[:-1]), np.float64)
        for file, shard, chosen in self._files(rows):
            first, end = self._firsts[shard : shard + 2].tolist()
            of_shard = np.empty((end - first, *found.shape[1:]))
            self._read(file, (end - first) * self._row_bytes, of_shard)
            found[chosen] = of_shard[rows[chosen] - first]
        return found

    def read_ahead(self, rows: IntArray) -> None:
        """Have the system read rows from the disk before they are needed, if it can."""
        if hasattr(os, "posix_fadvise"):
            for file, shard, chosen in self._files(rows):
                for number in (rows[chosen] - self._firsts[shard]).tolist():
                    start = number * self._row_bytes
                    os.posix_fadvise(file.fileno(), start, self._row_bytes, os.POSIX_FADV_WILLNEED)

    def _files(self, rows: IntArray) -> Iterator[tuple[FileIO, int, IntArray]]:
        """Open each shard of some rows once, and yield it with its number and the positions of its rows."""
        shards = np.searchsorted(self._firsts, rows, side="right") - 1
        order = np.argsort(shards, kind="stable")
        for chosen in np.split(order, np.flatnonzero(np.diff(shards[order])) + 1):
            if len(chosen):
                shard = int(shards[chosen[0]])
                try:
                    file = self.paths[shard].open("rb", buffering=0)
                except FileNotFoundError as error:
                    raise _lost(self.paths[shard]) from error
                with file:
                    yield file, shard, chosen

    def _read(self, file: FileIO, start: int, values: npt.NDArray[Any]) -> None:
        file.seek(start)
        if file.readinto(values.data) < values.nbytes:
            raise _lost(file.name)


def _lost(path: object) -> UserError:
    return UserError(f"{path} was deleted or truncated while in use. Start again: missing features are computed anew.")


def consecutive(firsts: IntArray, counts: IntArray) -> IntArray:
    """Return ``counts[i]`` numbers from ``firsts[i]`` on, for every i, in their order."""
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    numbers: IntArray = np.repeat(firsts, counts) + within
    return numbers
