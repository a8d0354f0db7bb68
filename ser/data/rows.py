"""Rows of equal size in files that may be larger than memory."""

import os
from collections.abc import Sequence
from functools import cached_property
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ser.errors import UserError

IntArray = npt.NDArray[np.int64]


class RowFile:
    """Rows of one file, written to their places by any number of processes of one machine.

    Args:
        path: The file.
        shape: Of a row.
        dtype: Of its numbers.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self.path = path
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.row_bytes = self.dtype.itemsize * int(np.prod(shape))

    def stored(self) -> int:
        """Return the number of rows that the file has room for, 0 if there is no file."""
        try:
            with self.path.open("rb") as file:  # which makes a shared file system ask for the size anew
                return os.fstat(file.fileno()).st_size // self.row_bytes
        except FileNotFoundError:
            return 0

    def truncate(self, count: int) -> None:
        """Keep so many rows, of a file that is created if there is none."""
        with self.path.open("ab") as file:
            file.truncate(count * self.row_bytes)

    def write(self, row: int, values: npt.NDArray[np.generic]) -> None:
        """Write one row, of the rows' shape and type.

        Raises:
            OSError: The disk is full, say.
        """
        content = memoryview(np.ascontiguousarray(values).data).cast("B")
        written = 0
        while written < len(content):  # a disk that fills up takes a part, and refuses the rest
            written += os.pwrite(self._writable.fileno(), content[written:], row * self.row_bytes + written)

    def sync(self) -> None:
        """Wait until what any process of this machine has written is on the disk."""
        os.fsync(self._writable.fileno())

    def read(self, row: int, values: npt.NDArray[np.generic]) -> None:
        """Copy one row to an array of the rows' shape and type.

        Raises:
            UserError: The file ends before.
        """
        if os.preadv(self._readable.fileno(), [values.data], row * self.row_bytes) < self.row_bytes:
            raise UserError(
                f"{self.path} was cut off while it was in use. Start again: what is missing is computed anew."
            )

    def expect(self, row: int) -> None:
        """Have the system read a row from the disk by the time that it is needed, if it can."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._readable.fileno(), row * self.row_bytes, self.row_bytes, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        """Let go of the file; reading and writing open it again."""
        for name in ("_readable", "_writable"):
            vars(self).pop(name, None)

    def __reduce__(self) -> tuple[Any, ...]:
        """Open the file anew in another process."""
        return RowFile, (self.path, self.shape, self.dtype)

    @cached_property
    def _readable(self) -> FileIO:
        return self.path.open("rb", buffering=0)

    @cached_property
    def _writable(self) -> FileIO:
        return self.path.open("r+b", buffering=0)


class Rows:
    """N rows of one or several files, numbered from 0.

    Nothing of the files is kept or mapped: what was read stays in the system's file cache, as far as there is room.

    Args:
        files: At least one; all have rows of one shape and type.
        file_of: (N,) the file of each row, by its place in ``files``.
        place_of: (N,) the number of each row in its file.
    """

    def __init__(self, files: Sequence[RowFile], file_of: npt.NDArray[np.integer], place_of: IntArray) -> None:
        self.files = files
        self.file_of = file_of
        self.place_of = place_of

    def read(self, rows: IntArray) -> npt.NDArray[Any]:
        """Copy some rows, shape (rows, *shape)."""
        found = np.empty((len(rows), *self.files[0].shape), self.files[0].dtype)
        for values, (file, place) in zip(found, self._places(rows), strict=True):
            file.read(place, values)
        return found

    def expect(self, rows: IntArray) -> None:
        """Have the system read rows from the disk by the time that they are needed."""
        for file, place in self._places(rows):
            file.expect(place)

    def _places(self, rows: IntArray) -> list[tuple[RowFile, int]]:
        files = [self.files[number] for number in self.file_of[rows].tolist()]
        return list(zip(files, self.place_of[rows].tolist(), strict=True))


def consecutive(firsts: IntArray, counts: IntArray) -> IntArray:
    """Return ``counts[i]`` numbers from ``firsts[i]`` on, for every i, in their order."""
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    numbers: IntArray = np.repeat(firsts, counts) + within
    return numbers
