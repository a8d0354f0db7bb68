"""The feature caches that lie in a cache folder: what each holds, when it was last used, and how to be rid of it."""

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout

from ser.data.cache import published
from ser.data.shared import alone
from ser.errors import UserError

DAY_S = 86_400


@dataclass(frozen=True)
class StoredCache:
    """The features of one front-end.

    Attributes:
        folder: Where it lies; the folder's name is the cache's id.
        settings: The front-end, as `FrontEnd.description` gives it; empty if that cannot be read.
        rows: Number of recordings.
        size_bytes: What it takes on the disk.
        last_used: When it was last read or added to, in seconds since 1970. Many systems note reading once a day only,
            and some not at all.
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
        """Delete it; a process that is reading it goes on with what it has mapped.

        Raises:
            UserError: A process is building it, or it cannot be deleted.
        """
        # Under another name first, so that whoever looks sees all of it or nothing.
        gone = self.folder.with_name(f".{self.id}.removed")
        try:
            with alone(self.folder):
                shutil.rmtree(gone, ignore_errors=True)  # of a removal that was killed
                self.folder.rename(gone)
            shutil.rmtree(gone)
        except Timeout as error:
            raise UserError(f"The cache {self.id} is being built by another process; remove it later.") from error
        except OSError as error:
            raise UserError(f"The cache {self.folder} cannot be removed: {error.strerror or error}.") from error


def stored_caches(cache_dir: Path) -> list[StoredCache]:
    """Return the feature caches below a cache folder, the one used last first."""
    folder = cache_dir / "features"
    if not folder.is_dir():
        return []
    found = (_read(path) for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return sorted(found, key=lambda cache: (-cache.last_used, cache.id))


def _read(folder: Path) -> StoredCache:
    states = {path.name: path.stat() for path in folder.iterdir() if path.is_file() and path.stem != "lock"}
    try:
        settings = json.loads((folder / "settings.json").read_text())
    except (OSError, ValueError):  # never finished, or damaged: listed all the same, so that it can be removed
        settings = {}
    written = max((state.st_mtime for state in states.values()), default=folder.stat().st_mtime)
    # The rows alone tell that a run has read them: this look reads the other files, too.
    read = max((state.st_atime for name, state in states.items() if name.startswith("rows.")), default=written)
    size = sum(state.st_size for state in states.values())
    return StoredCache(folder, settings, len(published(folder)), size, max(written, read))
