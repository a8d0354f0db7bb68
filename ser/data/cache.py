"""The feature cache: rows of files that are read in place, found by the content of the audio.

One folder holds the rows of one front-end (``settings.json`` says which): a row per segment of a recording, or of an
augmented copy of one. Any number of processes, of one machine or of several that share the folder, build it together,
see :mod:`ser.data.shared`: each adds rows to files of its own, and a row counts from the moment when a block of the
journal ``index.N``, written when the rows are on the disk, names it. A build killed at any moment leaves at worst bytes
that no index knows, which the next one cuts off. A corpus, a subset of it and another split share rows, and a changed
file costs its own rows only.
"""

import errno
import json
import multiprocessing
import shutil
from collections.abc import Sequence
from functools import partial
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ser.data.frontend import Change, FrontEnd
from ser.data.index import Built, Part, RowIndex, Span, pack, unpack
from ser.data.rows import IntArray, Rows
from ser.data.shared import SharedWork
from ser.errors import UserError
from ser.recipe import digest
from ser.storage import write_atomically

LAYOUT = 3  # counted up when what a row means changes, so that older caches are not read
SPARE_BYTES = 64 * 2**20  # left free on the disk
ROWS_AT_ONCE = 4096  # whose statistics are merged at once
FEATURES_AT_ONCE = 64  # rows that are read at once for statistics by frame


class Piece(NamedTuple):
    """A recording, as it is or as an augmentation makes it: what has rows of its own.

    Attributes:
        key: Hash of the recording's content and of what changes it, ASCII.
        path: Audio file.
        change: The augmentation.
        segments: How many rows it needs, as far as that is known before it is computed.
    """

    key: str
    path: Path
    change: Change | None = None
    segments: int = 1


class FeatureCache:
    """Features of any number of recordings under one front-end.

    Args:
        folder: Folder of all caches; this one gets a subfolder.
        front_end: Computes the rows.

    Attributes:
        shape: (..., T), shape of a row; what is shorter is zero-padded at the end.
    """

    def __init__(self, folder: Path, front_end: FrontEnd) -> None:
        self.front_end = front_end
        self.shape = front_end.shape
        self._settings = {"layout": LAYOUT, **front_end.description()}
        self.folder = folder / "features" / digest(self._settings, 16)
        self._index = RowIndex(self.folder, self.shape)
        self._work = SharedWork(self.folder, self._index.spans, self._index.take_in)
        try:
            self._work.look()
        except OSError as error:
            raise UserError(
                f"The feature cache {error.filename} cannot be read: {error.strerror or error}. "
                "Mend that, or put the cache elsewhere with --data.cache_dir."
            ) from error

    def add(self, pieces: Sequence[Piece]) -> None:
        """Compute and publish the rows of the pieces that the cache lacks, together with whoever else is doing so.

        Raises:
            UserError: The folder cannot be written, the disk is full, or a file can no longer be read.
        """
        if not self._missing(pieces):
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._work.lock():
                write_atomically(self.folder / "settings.json", json.dumps(self._settings, indent=2).encode())
            self._index.clear()  # rows may have been lost since, and replaced
            self._work.forget()
            with self._work.part() as number:
                missing = self._missing(pieces)
                self._refuse_full_disk(sum(piece.segments for piece in missing))
                try:
                    self._append(number, missing)
                finally:
                    self._index.part(number).forget_unpublished()
                    self._index.close()
        except OSError as error:
            raise self._cannot_write(error) from error

    def spans(self, keys: Sequence[str]) -> list[Span]:
        """Return the rows of each key."""
        return [self._index.spans[key] for key in keys]

    def lengths(self) -> Tensor:
        """Return the number of valid frames of every row, int64."""
        return torch.from_numpy(self._index.lengths())

    def rows(self) -> Rows:
        """Return the rows, of shape (..., T) each."""
        return self._index.features()

    def statistics(self, rows: IntArray, by_frame: bool = False) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of each feature over the valid frames of some rows.

        Every row's own mean and sum of squared deviations were stored when it was built; they are merged here
        (Chan, Golub and LeVeque 1979), so no feature is read again.

        Args:
            rows: Numbers of the rows.
            by_frame: Take every frame for itself, over the rows alone, which are read and must have all T frames.

        Returns:
            Two tensors of shape (..., 1), or (..., T) by frame, float32.
        """
        features, moments, lengths = self.rows(), self._index.moments(), self._index.lengths()
        at_once = FEATURES_AT_ONCE if by_frame else ROWS_AT_ONCE
        total, mean, squares = 0.0, np.zeros(()), np.zeros(())
        for start in range(0, len(rows), at_once):
            some = rows[start : start + at_once]
            if by_frame:
                counts, means, deviations = np.ones(len(some)), features.read(some).astype(np.float64), np.zeros(())
            else:
                counts = lengths[some].astype(np.float64)
                means, deviations = np.moveaxis(moments.read(some)[..., None], 1, 0)  # (rows, ..., 1) each
            counts = counts.reshape(-1, *[1] * len(self.shape))
            count = counts.sum()
            centre = (counts * means).sum(axis=0) / count
            within = (deviations + counts * (means - centre) ** 2).sum(axis=0)
            apart = centre - mean
            squares = squares + within + apart**2 * total * count / (total + count)
            mean = mean + apart * count / (total + count)
            total += count
        return torch.from_numpy(mean).float(), torch.from_numpy(np.sqrt(squares / total)).float()

    def _missing(self, pieces: Sequence[Piece]) -> list[Piece]:
        return list({piece.key: piece for piece in pieces if piece.key not in self._index.spans}.values())

    def _append(self, number: int, missing: Sequence[Piece]) -> None:
        part = self._index.part(number)
        part.forget_unpublished()  # by a process that was killed
        # How many rows a piece needs is known when it is computed, in one of several processes: each takes the next.
        next_row = multiprocessing.Value("q", part.used)
        build, publish = partial(self._build, part, next_row), partial(self._publish, number)
        self._work.do(number, missing, build, publish, "computing features")

    def _build(self, part: Part, next_row: "Synchronized[int]", piece: Piece) -> Built:
        """Compute a piece's rows and write them to their place; other processes do so at the same time."""
        segments = self.front_end.segments(piece.path, piece.change)
        with next_row.get_lock():
            first = next_row.value
            next_row.value += len(segments)
        features = np.zeros(self.shape, np.float32)
        for row, valid in enumerate(segments, start=first):  # (..., valid frames)
            length = valid.shape[-1]
            features[..., :length] = valid
            features[..., length:] = 0
            part.features.write(row, features)
            mean = valid.mean(dim=-1)
            squares = (valid - mean[..., None]).square().sum(dim=-1)
            part.moments.write(row, torch.stack([mean, squares]).double().numpy())
        return Built(piece.key, first, [valid.shape[-1] for valid in segments])

    def _publish(self, number: int, built: Sequence[Built]) -> None:
        for rows in self._index.part(number).files:
            rows.sync()  # a power failure, or another machine, must not find them named but not there
        self._work.publish(number, pack(built))

    def _refuse_full_disk(self, rows: int) -> None:
        needed, free = rows * self._index.part(0).features.row_bytes, shutil.disk_usage(self.folder).free
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


def published(folder: Path) -> set[str]:
    """Return the keys of the pieces whose rows a cache's folder names."""
    keys: set[str] = set()

    def take_in(_: int, block: bytes) -> bool:
        keys.update(unpack(block)[0])
        return True

    SharedWork(folder, keys, take_in).look()
    return keys
