"""Rows of equal size in one file that may be larger than memory."""

import mmap
import os
from functools import cached_property
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

RESIDENT_BYTES = 64 * 2**20  # of the file that this process keeps mapped, at most


class Rows:
    """Rows of a file, read through a memory map and written to their places by any number of processes.

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
        self._read_bytes = 0

    def stored(self) -> int:
        """Return the number of rows that the file has room for.

        Raises:
            OSError: There is no such file.
        """
        return self.path.stat().st_size // self.row_bytes

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

    def close(self) -> None:
        """Let go of the file; writing opens it again."""
        vars(self).pop("_writable", None)

    def read(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Copy some rows, shape (rows, *shape)."""
        if len(rows) and (int(rows.max()) + 1) * self.row_bytes > len(self._map):
            del self._map  # rows were added
        self._read_bytes += len(rows) * self.row_bytes
        if self._read_bytes > RESIDENT_BYTES and hasattr(mmap, "MADV_DONTNEED"):
            # What was read stays in the system's file cache, as far as there is room, but is no longer this process's.
            self._map.madvise(mmap.MADV_DONTNEED)
            self._read_bytes = 0
        return np.ndarray((len(self._map) // self.row_bytes, *self.shape), self.dtype, self._map)[rows]

    def __reduce__(self) -> tuple[Any, ...]:
        """Open the file anew in another process."""
        return Rows, (self.path, self.shape, self.dtype)

    @cached_property
    def _map(self) -> mmap.mmap:
        with self.path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    @cached_property
    def _writable(self) -> FileIO:
        return self.path.open("r+b", buffering=0)
