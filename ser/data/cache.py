"""The feature cache: rows of one file that is read in place, found by the content of the audio.

One folder holds the rows of one front-end (``settings.json`` says which): a row per segment of a recording, or of an
augmented copy of one. Rows are only ever appended, and a row counts from the moment when ``index.npz``, replaced
atomically, names it: a build killed at any moment leaves at worst bytes that no index knows. A corpus, a subset of it
and another split share rows, and a changed file costs its own rows only.
"""

import errno
import io
import json
import multiprocessing
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from ser.data.frontend import Change, FrontEnd
from ser.data.parallel import in_parallel
from ser.data.rows import Rows
from ser.errors import UserError
from ser.recipe import digest
from ser.storage import write_atomically

LAYOUT = 2  # counted up when what a row means changes, so that older caches are not read
PUBLISH_EVERY_S = 5.0
SPARE_BYTES = 64 * 2**20  # left free on the disk
ROWS_AT_ONCE = 4096  # whose statistics are merged at once


class Piece(NamedTuple):
    """A recording, as it is or as an augmentation makes it: what has rows of its own.

    Attributes:
        key: Hash of the recording's content and of what changes it, ASCII.
        path: Audio file.
        change: The augmentation.
    """

    key: str
    path: Path
    change: Change | None = None


class Span(NamedTuple):
    """Consecutive rows: the segments of one piece."""

    first: int
    number: int

    @property
    def end(self) -> int:
        """The row behind them."""
        return self.first + self.number


class _Built(NamedTuple):
    """What the index says of a piece."""

    key: str
    span: Span
    lengths: list[int]


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
        settings = {"layout": LAYOUT, **front_end.description()}
        self.folder = folder / "features" / digest(settings, 16)
        self._index_file = self.folder / "index.npz"
        self._settings = settings
        self._features = Rows(self.folder / "rows.f32", self.shape, np.float32)
        # Mean and sum of squared deviations of each feature over a row's valid frames.
        self._moments = Rows(self.folder / "moments.f64", (2, *self.shape[:-1]), np.float64)
        self._spans: dict[str, Span] = {}
        self._lengths: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._read_index()

    def add(self, pieces: Sequence[Piece]) -> None:
        """Compute and publish the rows of the pieces that the cache lacks.

        Raises:
            UserError: The folder cannot be written, the disk is full, or a file can no longer be read.
        """
        if not self._missing(pieces):
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._lock():
                self._read_index()  # another process may have built meanwhile
                if not self._spans:  # an index whose rows were lost must not outlive the first new row
                    self._index_file.unlink(missing_ok=True)
                missing = self._missing(pieces)
                self._refuse_full_disk(len(missing))
                write_atomically(self.folder / "settings.json", json.dumps(self._settings, indent=2).encode())
                self._append(missing)
        except OSError as error:
            raise self._cannot_write(error) from error

    def spans(self, keys: Sequence[str]) -> list[Span]:
        """Return the rows of each key."""
        return [self._spans[key] for key in keys]

    def lengths(self) -> Tensor:
        """Return the number of valid frames of every row, int64."""
        return torch.from_numpy(self._lengths)

    def rows(self) -> Rows:
        """Return the rows, of shape (..., T) each."""
        return self._features

    def statistics(self, rows: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of each feature over the valid frames of some rows.

        Every row's own mean and sum of squared deviations were stored when it was built; they are merged here
        (Chan, Golub and LeVeque 1979), so no feature is read again.

        Returns:
            Two tensors of shape (..., 1), float32.
        """
        total, mean, squares = 0.0, np.zeros(self.shape[:-1]), np.zeros(self.shape[:-1])
        for start in range(0, len(rows), ROWS_AT_ONCE):
            some = rows[start : start + ROWS_AT_ONCE]
            moments = self._moments.read(some)  # (rows, 2, ...)
            counts = self._lengths[some].astype(np.float64).reshape(-1, *[1] * mean.ndim)
            count = counts.sum()
            centre = (counts * moments[:, 0]).sum(axis=0) / count
            within = (moments[:, 1] + counts * (moments[:, 0] - centre) ** 2).sum(axis=0)
            apart = centre - mean
            squares += within + apart**2 * total * count / (total + count)
            mean += apart * count / (total + count)
            total += count
        sigma = np.sqrt(squares / total)
        return torch.from_numpy(mean).float()[..., None], torch.from_numpy(sigma).float()[..., None]

    def _missing(self, pieces: Sequence[Piece]) -> list[Piece]:
        return list({piece.key: piece for piece in pieces if piece.key not in self._spans}.values())

    def _append(self, pieces: Sequence[Piece]) -> None:
        built: list[_Built] = []
        published = time.monotonic()
        self._forget_unpublished()
        # How many rows a piece needs is known when it is computed, in one of several processes: each takes the next.
        self._next_row = multiprocessing.Value("q", len(self._lengths))
        try:
            for piece in in_parallel(self._build, pieces, "computing features"):
                built.append(piece)
                if time.monotonic() - published > PUBLISH_EVERY_S:
                    self._publish(built)
                    built, published = [], time.monotonic()
            self._publish(built)
        except OSError:
            self._forget_unpublished()
            raise
        finally:
            self._features.close()
            self._moments.close()

    def _build(self, piece: Piece) -> _Built:
        """Compute a piece's rows and write them to their place; other processes do so at the same time."""
        segments = self.front_end.segments(piece.path, piece.change)
        with self._next_row.get_lock():
            first = self._next_row.value
            self._next_row.value += len(segments)
        features = np.zeros(self.shape, np.float32)
        for row, valid in enumerate(segments, start=first):  # (..., valid frames)
            length = valid.shape[-1]
            features[..., :length] = valid
            features[..., length:] = 0
            self._features.write(row, features)
            mean = valid.mean(dim=-1)
            squares = (valid - mean[..., None]).square().sum(dim=-1)
            self._moments.write(row, torch.stack([mean, squares]).double().numpy())
        return _Built(piece.key, Span(first, len(segments)), [valid.shape[-1] for valid in segments])

    def _forget_unpublished(self) -> None:
        for rows in (self._features, self._moments):
            rows.truncate(len(self._lengths))

    def _publish(self, built: Sequence[_Built]) -> None:
        if not built:
            return
        spans = self._spans | {piece.key: piece.span for piece in built}
        # Rows of others that are computed at this moment may lie between: no span names them yet.
        lengths = np.zeros(max(span.end for span in spans.values()), np.int64)
        lengths[: len(self._lengths)] = self._lengths
        for piece in built:
            lengths[piece.span.first : piece.span.end] = piece.lengths
        content = io.BytesIO()
        np.savez(
            content,
            allow_pickle=False,
            keys=np.array(list(spans), "S"),
            spans=np.array(list(spans.values()), np.int64),
            lengths=lengths,
        )
        write_atomically(self._index_file, content.getvalue())
        self._spans, self._lengths = spans, lengths

    def _read_index(self) -> None:
        self._spans, self._lengths = {}, np.zeros(0, np.int64)
        try:
            with np.load(self._index_file) as stored:
                keys, spans, lengths = (stored[name] for name in ("keys", "spans", "lengths"))
            # Rows may be missing after a power failure, or where somebody deleted a large file only.
            if all(rows.stored() >= len(lengths) for rows in (self._features, self._moments)):
                named = zip(keys.tolist(), spans.tolist(), strict=True)
                self._spans, self._lengths = {key.decode(): Span(*span) for key, span in named}, lengths
        except (FileNotFoundError, NotADirectoryError):
            pass  # nothing is built yet; a folder that cannot be written is reported when it is
        except (BadZipFile, EOFError, KeyError, ValueError):
            pass  # damaged: everything is built anew
        except OSError as error:
            raise UserError(
                f"The feature cache {self._index_file} cannot be read: {error.strerror or error}. "
                "Mend that, or put the cache elsewhere with --data.cache_dir."
            ) from error

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
        needed, free = rows * self._features.row_bytes, shutil.disk_usage(self.folder).free
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
