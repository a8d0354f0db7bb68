"""The feature stores in a cache folder: content, last use, removal."""

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout

from ser.errors import UserError
from ser.features.shards import SUFFIX, read_index
from ser.storage import lock_of

DAY_S = 86_400


@dataclass(frozen=True)
class StoredCache:
    """The features of one front-end.

    Attributes:
        folder: Its folder, named after the cache's id.
        settings: The front-end, as in `FrontEnd.description`; empty if unreadable.
        rows: Number of recordings.
        size_bytes: Size on the disk.
        last_used: Start of the last run that used it, in seconds since 1970.
    """

    folder: Path
    settings: dict[str, Any]
    rows: int
    size_bytes: int
    last_used: float

    @property
    def id(self) -> str:
        """Name of the cache."""
        return self.folder.name

    @property
    def unused_days(self) -> float:
        """Days since it was last used."""
        return (time.time() - self.last_used) / DAY_S

    def remove(self) -> None:
        """Delete it.

        Raises:
            UserError: A process is building it, or it cannot be deleted.
        """
        # Renamed first, so that readers see all of it or nothing.
        gone = self.folder.with_name(f".{self.id}.removed")
        try:
            with lock_of(self.folder).acquire(timeout=0):
                shutil.rmtree(gone, ignore_errors=True)  # left by a killed removal
                self.folder.rename(gone)
                shutil.rmtree(gone)
        except Timeout as error:
            raise UserError(f"The cache {self.id} is being built by another process; remove it later.") from error
        except OSError as error:
            raise UserError(f"The cache {self.folder} cannot be removed: {error.strerror or error}.") from error


def stored_caches(cache_dir: Path) -> list[StoredCache]:
    """Return the feature stores in a cache folder, most recently used first."""
    found = (_read(path) for path in (cache_dir / "features").glob("[!.]*") if path.is_dir())
    return sorted(found, key=lambda cache: (-cache.last_used, cache.id))


def _read(folder: Path) -> StoredCache:
    try:
        settings = json.loads((folder / "settings.json").read_text())
    except (OSError, ValueError):  # unfinished or damaged: listed, so that it can be removed
        settings = {}
    states = {path: path.stat() for path in folder.iterdir()}
    last_used = max((state.st_mtime for state in states.values()), default=folder.stat().st_mtime)
    keys = {key for path in states if path.suffix == SUFFIX for key in read_index(path)}
    return StoredCache(folder, settings, len(keys), sum(state.st_size for state in states.values()), last_used)
