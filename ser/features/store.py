"""The feature store: rows of features that are computed once, keyed by the content of the audio and the settings.

One folder holds the rows of one front-end (see its ``settings.json``), one or more for every recording and every
augmented copy, in immutable files that appear when complete (:mod:`ser.features.shards`). One process of a machine
builds at a time, under a lock, on all cores; a killed build leaves complete files, and temporary ones that the next
build removes. Machines that share the folder may at worst compute a row twice. Corpora, subsets and splits share rows,
and a changed file costs its own rows only.
"""

import errno
import json
import os
import platform
import shutil
import uuid
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ser.errors import UserError
from ser.features.front_end import Change, FrontEnd
from ser.features.shards import SUFFIX, Rows, index_block, read_index
from ser.parallel import Cluster, in_chunks
from ser.settings.class_paths import digest
from ser.storage import one_writer, open_atomically, write_atomically

LAYOUT = 4  # raised when the meaning of a row changes, so that older stores are not read
SPARE_BYTES = 64 * 2**20  # left free on the disk


class Piece(NamedTuple):
    """A recording or an augmented copy of it, with rows of its own.

    Attributes:
        key: Hash of the recording's content and of the change.
        path: Audio file.
        change: The augmentation.
        segments: Estimated number of rows.
    """

    key: str
    path: Path
    change: Change | None = None
    segments: int = 1


class Span(NamedTuple):
    """Consecutive rows: the segments of one piece."""

    first: int
    number: int


class FeatureStore:
    """Features of any number of recordings under one front-end.

    Args:
        folder: Folder of all stores; this one gets a subfolder.
        front_end: Computes the rows.

    Attributes:
        folder: Where it lies.
        rows: All rows, of shape (..., T) each, zero-padded at the end.

    Raises:
        UserError: The folder cannot be read.
    """

    def __init__(self, folder: Path, front_end: FrontEnd) -> None:
        self.front_end = front_end
        self._settings = {"layout": LAYOUT, **front_end.description()}
        self.folder = folder / "features" / digest(self._settings, 16)
        self.rows = Rows(front_end.shape, [], [], [])
        try:
            self._load()
        except OSError as error:
            raise UserError(
                f"The feature cache {error.filename} cannot be read: {error.strerror or error}. "
                "Fix that, or put the cache elsewhere with --data.cache_dir."
            ) from error
        with suppress(OSError):  # it does not exist yet, or is not writable
            os.utime(self.folder / "settings.json")  # when the store was last used

    def add(self, pieces: Sequence[Piece], cluster: Cluster | None = None) -> None:
        """Compute and publish the rows of the pieces that the store lacks.

        Args:
            pieces: Recordings and copies of them.
            cluster: Where to compute; None is all cores of this machine.

        Raises:
            UserError: The folder cannot be written, the disk is full, or an audio file can no longer be read.
        """
        if not self._missing(pieces):
            return
        try:
            with one_writer(self.folder, "computing features"):
                write_atomically(self.folder / "settings.json", json.dumps(self._settings, indent=2).encode())
                host = platform.node()
                for leftover in self.folder.glob(".*.tmp"):
                    if leftover.name.startswith(f".{host}-"):  # one of another machine may be in use
                        leftover.unlink()
                self._load()  # another process may have built or removed files meanwhile
                missing = self._missing(pieces)
                self._check_disk(sum(piece.segments for piece in missing))
                self._import_early()
                work = partial(build_shard, self.folder, host, self.front_end)
                for _ in in_chunks(work, missing, "computing features", cluster):
                    pass
                self._load()
        except OSError as error:
            what = "The disk is full" if error.errno == errno.ENOSPC else f"{error.strerror or error}"
            raise UserError(
                f"The feature cache cannot be written in {self.folder}: {what}. "
                "Fix that, or put the cache elsewhere with --data.cache_dir."
            ) from error

    def spans(self, keys: Sequence[str]) -> list[Span]:
        """Return the rows of each key."""
        return [self._spans[key] for key in keys]

    def _load(self) -> None:
        """Number all published rows; known rows keep their numbers."""
        known = {path: number for number, path in enumerate(self.rows.paths)}
        paths = sorted(self.folder.glob(f"*{SUFFIX}"), key=lambda path: (known.get(path, len(known)), path))
        spans: dict[str, Span] = {}
        counts, lengths = list[int](), list[int]()
        for path in paths:
            before = len(lengths)
            for key, valid_frames in read_index(path).items():
                spans.setdefault(key, Span(len(lengths), len(valid_frames)))  # two machines may have built one
                lengths += valid_frames
            counts.append(len(lengths) - before)
        self._spans = spans
        self.rows = Rows(self.front_end.shape, paths, counts, lengths)

    def _missing(self, pieces: Sequence[Piece]) -> list[Piece]:
        return list({piece.key: piece for piece in pieces if piece.key not in self._spans}.values())

    def _check_disk(self, rows: int) -> None:
        needed, free = rows * 4 * int(np.prod(self.front_end.shape)), shutil.disk_usage(self.folder).free
        if needed + SPARE_BYTES > free:
            raise UserError(
                f"The feature cache needs {needed / 2**20:.0f} MiB in {self.folder}, but {free / 2**20:.0f} MiB are "
                "free. Free some space, or put the cache elsewhere with --data.cache_dir."
            )

    def _import_early(self) -> None:
        """Preprocess a sample, so that slow imports on first use happen once, before workers are forked."""
        preprocess, rate_hz = self.front_end.preprocess, self.front_end.features.sample_rate_hz
        preprocess.clean(np.ones(round(preprocess.offset_s * rate_hz) + 1, np.float32), rate_hz)


def build_shard(folder: Path, host: str, front_end: FrontEnd, pieces: Sequence[Piece]) -> None:
    """Compute the rows of some pieces, and publish them as a shard.

    Args:
        folder: Of the store.
        host: Name of the machine that started the build.
        front_end: Computes the rows.
        pieces: At least one.
    """
    index: dict[str, list[int]] = {}
    moments = []
    row = np.zeros(front_end.shape, np.float32)
    with open_atomically(folder / f"{host}-{uuid.uuid4().hex}{SUFFIX}") as file:
        for piece in pieces:
            segments = front_end.segments(piece.path, piece.change)
            index[piece.key] = [valid.shape[-1] for valid in segments]
            for valid in segments:  # (..., valid frames)
                length = valid.shape[-1]
                row[..., :length] = valid
                row[..., length:] = 0
                file.write(row.data)
                mean = valid.mean(dim=-1)
                squares = (valid - mean[..., None]).square().sum(dim=-1)
                moments.append(torch.stack([mean, squares]).double().numpy())
        file.write(np.stack(moments).data)
        file.write(index_block(index))
