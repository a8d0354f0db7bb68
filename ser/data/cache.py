"""The feature cache: rows of one memory-mapped file, found by the content of the audio.

One folder holds the rows of one front-end (``settings.json`` says which). Rows are only ever appended, and a row
counts from the moment when ``index.npz``, replaced atomically, names it: a build killed at any moment leaves at worst
bytes behind the last row that the index knows, which the next build overwrites. A corpus, a subset of it and another
split share rows, and a changed file costs its own row only.
"""

import errno
import io
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from ser.data.audio import DamagedAudio
from ser.data.frontend import FrontEnd
from ser.data.parallel import in_parallel
from ser.errors import UserError
from ser.recipe import digest
from ser.storage import write_atomically

LAYOUT = 1  # counted up when what a row means changes, so that older caches are not read
PUBLISH_EVERY_S = 5.0
SPARE_BYTES = 64 * 2**20  # left free on the disk


class _Entry(NamedTuple):
    """What the index says of a row."""

    key: str
    length: int
    mean: npt.NDArray[np.float64]
    squares: npt.NDArray[np.float64]


class FeatureCache:
    """Features of any number of audio files under one front-end.

    Args:
        folder: Folder of all caches; this one gets a subfolder.
        front_end: Computes the rows.

    Attributes:
        shape: (..., T), shape of a row; shorter utterances are zero-padded at the end.
    """

    def __init__(self, folder: Path, front_end: FrontEnd) -> None:
        self.front_end = front_end
        self.shape = front_end.shape
        settings = {"layout": LAYOUT, **front_end.description()}
        self.folder = folder / "features" / digest(settings, 16)
        self._index_file = self.folder / "index.npz"
        self._rows_file = self.folder / "rows.f32"
        self._settings = settings
        self._row_bytes = 4 * int(np.prod(self.shape))
        self._read_index()

    def add(self, files: Sequence[tuple[str, Path]]) -> None:
        """Compute and publish the rows of the files that the cache lacks.

        Args:
            files: Content hash and path of each file.

        Raises:
            UserError: The folder cannot be written, the disk is full, or a file can no longer be read.
        """
        if not self._missing(files):
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._lock():
                self._read_index()  # another process may have built meanwhile
                if not self._row_of:  # an index whose rows were lost must not outlive the first new row
                    self._index_file.unlink(missing_ok=True)
                missing = self._missing(files)
                self._refuse_full_disk(len(missing))
                write_atomically(self.folder / "settings.json", json.dumps(self._settings, indent=2).encode())
                self._append(missing)
        except OSError as error:
            raise self._cannot_write(error) from error

    def rows(self, hashes: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the row number of each content hash."""
        return np.array([self._row_of[key] for key in hashes], dtype=np.int64)

    def lengths(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """Return the number of valid frames of each row, int64."""
        return torch.from_numpy(self._index["lengths"][rows])

    def array(self) -> npt.NDArray[np.float32]:
        """Map the rows into memory, read-only, shape (rows, ..., T)."""
        count = len(self._row_of)
        return np.memmap(self._rows_file, np.float32, mode="r", shape=(count, *self.shape))

    def statistics(self, rows: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of each feature over the valid frames of some rows.

        Every row's own mean and sum of squared deviations were stored when it was built; they are merged here
        (Chan, Golub and LeVeque 1979), so no feature is read again.

        Returns:
            Two tensors of shape (..., 1), float32.
        """
        counts = self._index["lengths"][rows].astype(np.float64).reshape(-1, *[1] * (len(self.shape) - 1))
        means, squares = self._index["means"][rows], self._index["squares"][rows]
        mean = (counts * means).sum(axis=0) / counts.sum()
        variance = (squares + counts * (means - mean) ** 2).sum(axis=0) / counts.sum()
        return torch.from_numpy(mean).float()[..., None], torch.from_numpy(np.sqrt(variance)).float()[..., None]

    def _missing(self, files: Sequence[tuple[str, Path]]) -> list[tuple[str, Path]]:
        return [(key, path) for key, path in dict(files).items() if key not in self._row_of]

    def _append(self, files: Sequence[tuple[str, Path]]) -> None:
        built: list[_Entry] = []
        published = time.monotonic()
        self._forget_unpublished()
        numbered = [(row, key, path) for row, (key, path) in enumerate(files, start=len(self._row_of))]
        try:
            for entry in in_parallel(self._build, numbered, "computing features"):
                built.append(entry)
                if time.monotonic() - published > PUBLISH_EVERY_S:
                    self._publish(built)
                    built, published = [], time.monotonic()
            self._publish(built)
        except OSError:
            self._forget_unpublished()
            raise

    def _build(self, file: tuple[int, str, Path]) -> _Entry:
        """Compute one row and write it to its place, in a process of its own; others do so at the same time."""
        row, key, path = file
        try:
            valid = self.front_end(path)  # (..., valid frames)
        except (OSError, DamagedAudio) as error:
            raise UserError(f"{path} was sound when it was checked, and cannot be read now: {error}.") from error
        length = valid.shape[-1]
        features = np.zeros(self.shape, np.float32)
        features[..., :length] = valid
        with self._rows_file.open("r+b") as data:
            data.seek(row * self._row_bytes)
            data.write(features.tobytes())
        double = valid.double()
        mean = double.mean(dim=-1)
        squares = (double - mean[..., None]).square().sum(dim=-1)
        return _Entry(key, length, mean.numpy(), squares.numpy())

    def _forget_unpublished(self) -> None:
        with self._rows_file.open("ab") as data:
            data.truncate(len(self._row_of) * self._row_bytes)

    def _publish(self, built: Sequence[_Entry]) -> None:
        if not built:
            return
        new = dict(zip(("keys", "lengths", "means", "squares"), zip(*built, strict=True), strict=True))
        index = {name: np.concatenate([old, np.asarray(new[name], old.dtype)]) for name, old in self._index.items()}
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **index)
        write_atomically(self._index_file, content.getvalue())
        self._use_index(index)

    def _read_index(self) -> None:
        nothing = np.zeros((0, *self.shape[:-1]))
        index = {"keys": np.zeros(0, "U32"), "lengths": np.zeros(0, np.int64), "means": nothing, "squares": nothing}
        try:
            with np.load(self._index_file) as stored:
                found = {name: stored[name] for name in index}
            # Rows may be missing after a power failure, or where somebody deleted the large file only.
            if self._rows_file.stat().st_size >= len(found["keys"]) * self._row_bytes:
                index = found
        except (FileNotFoundError, NotADirectoryError):
            pass  # nothing is built yet; a folder that cannot be written is reported when it is
        except (BadZipFile, EOFError, KeyError, ValueError):
            pass  # damaged: everything is built anew
        except OSError as error:
            raise UserError(
                f"The feature cache {self._index_file} cannot be read: {error.strerror or error}. "
                "Mend that, or put the cache elsewhere with --data.cache_dir."
            ) from error
        self._use_index(index)

    def _use_index(self, index: dict[str, npt.NDArray[Any]]) -> None:
        self._index: dict[str, npt.NDArray[Any]] = index
        self._row_of = {str(key): row for row, key in enumerate(index["keys"])}

    @contextmanager
    def _lock(self) -> Iterator[None]:
        lock = FileLock(self.folder / "lock")  # held by the process: the system releases it on a kill
        try:
            lock.acquire(timeout=1)
        except Timeout:
            print(f"Another process is computing these features; waiting for it ({self.folder}).", flush=True)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _refuse_full_disk(self, rows: int) -> None:
        needed, free = rows * self._row_bytes, shutil.disk_usage(self.folder).free
        if needed + SPARE_BYTES > free:
            raise UserError(
                f"The feature cache needs {needed / 2**20:.0f} MiB in {self.folder}, where {free / 2**20:.0f} MiB "
                "are free. Free some space, or put the cache elsewhere with --data.cache_dir."
            )

    def _cannot_write(self, error: OSError) -> UserError:
        what = "The disk is full" if error.errno == errno.ENOSPC else f"{error.strerror or error}"
        return UserError(
            f"The feature cache cannot be written in {self.folder}: {what}. "
            "Mend that, or put the cache elsewhere with --data.cache_dir."
        )
