"""What a feature cache holds: the rows of every piece, as the journals of its parts tell."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ser.data.rows import IntArray, RowFile, Rows, consecutive


class Span(NamedTuple):
    """Consecutive rows: the segments of one piece."""

    first: int
    number: int

    @property
    def end(self) -> int:
        """The row behind them."""
        return self.first + self.number


class Built(NamedTuple):
    """A piece whose rows lie in a part of the cache: the first of them there, and the valid frames of each."""

    key: str
    first: int
    lengths: list[int]


class Part:
    """Files that one process at a time adds rows to.

    Args:
        folder: Of the cache.
        number: Of the part.
        shape: Of a row.

    Attributes:
        moments: Mean and sum of squared deviations of each feature over a row's valid frames.
        used: Rows that were published.
    """

    def __init__(self, folder: Path, number: int, shape: tuple[int, ...]) -> None:
        self.features = RowFile(folder / f"rows.{number}.f32", shape, np.float32)
        self.moments = RowFile(folder / f"moments.{number}.f64", (2, *shape[:-1]), np.float64)
        self.used = 0
        self._stored = 0  # when last asked

    @property
    def files(self) -> tuple[RowFile, RowFile]:
        """Both."""
        return self.features, self.moments

    def holds(self, end: int) -> bool:
        """Say whether the files hold rows up to this one; somebody may have deleted or cut one of them."""
        if end > self._stored:
            self._stored = min(rows.stored() for rows in self.files)
        return end <= self._stored

    def forget_unpublished(self) -> None:
        """Cut the files behind what was published."""
        for rows in self.files:
            rows.truncate(self.used)

    def close(self) -> None:
        """Let go of the files."""
        for rows in self.files:
            rows.close()


class RowIndex:
    """All published rows, numbered in the order in which this process met them.

    Args:
        folder: Of the cache.
        shape: Of a row.

    Attributes:
        spans: The rows of every piece, by its key.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...]) -> None:
        self.folder = folder
        self.shape = shape
        self.spans: dict[str, Span] = {}
        self._parts: list[Part] = []
        # Of rows: part, number in it, and valid frames; block by block.
        self._part_of: list[npt.NDArray[np.int16]] = [np.zeros(0, np.int16)]
        self._place_of: list[IntArray] = [np.zeros(0, np.int64)]
        self._lengths: list[IntArray] = [np.zeros(0, np.int64)]
        self._count = 0

    def take_in(self, number: int, block: bytes) -> bool:
        """Number the rows that a block of a part's journal names, unless they are not there."""
        keys, firsts, counts, lengths = unpack(block)
        part, end = self.part(number), int((firsts + counts).max())
        if not part.holds(end):
            return False
        part.used = max(part.used, end)
        spans = zip((np.cumsum(counts) - counts + self._count).tolist(), counts.tolist(), strict=True)
        self.spans.update(zip(keys, map(Span._make, spans), strict=True))
        self._part_of.append(np.full(len(lengths), number, np.int16))
        self._place_of.append(consecutive(firsts, counts))
        self._lengths.append(lengths)
        self._count += len(lengths)
        return True

    def part(self, number: int) -> Part:
        """Return a part of the cache, whether or not it holds anything yet."""
        while len(self._parts) <= number:
            self._parts.append(Part(self.folder, len(self._parts), self.shape))
        return self._parts[number]

    def features(self) -> Rows:
        """Return the features of all rows, of shape (..., T) each."""
        return self._rows([part.features for part in self._parts])

    def moments(self) -> Rows:
        """Return mean and sum of squared deviations of all rows, of shape (2, ...) each."""
        return self._rows([part.moments for part in self._parts])

    def lengths(self) -> IntArray:
        """Return the number of valid frames of every row."""
        return np.concatenate(self._lengths)

    def clear(self) -> None:
        """Forget everything."""
        self.close()
        self.spans.clear()
        self._parts.clear()
        for numbered in (self._part_of, self._place_of, self._lengths):
            del numbered[1:]
        self._count = 0

    def close(self) -> None:
        """Let go of all files."""
        for part in self._parts:
            part.close()

    def _rows(self, files: Sequence[RowFile]) -> Rows:
        return Rows(files, np.concatenate(self._part_of), np.concatenate(self._place_of))


def pack(built: Sequence[Built]) -> bytes:
    """Return a block of a journal."""
    block = io.BytesIO()
    np.savez(
        block,
        allow_pickle=False,
        keys=np.array([piece.key for piece in built], "S"),
        firsts=np.array([piece.first for piece in built], np.int64),
        counts=np.array([len(piece.lengths) for piece in built], np.int64),
        lengths=np.concatenate([piece.lengths for piece in built]).astype(np.int64),
    )
    return block.getvalue()


def unpack(block: bytes) -> tuple[list[str], IntArray, IntArray, IntArray]:
    """Return what a block tells: keys, the first row and the number of rows of each, and valid frames of every row."""
    with np.load(io.BytesIO(block)) as stored:
        return stored["keys"].astype(str).tolist(), stored["firsts"], stored["counts"], stored["lengths"]
