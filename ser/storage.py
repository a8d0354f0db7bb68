"""Files that are written whole or not at all, and folders that one process at a time writes to."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout


@contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that a reader, or a kill, sees with its old content or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, see :func:`open_atomically`."""
    with open_atomically(path) as file:
        file.write(content)


def lock_of(folder: Path) -> FileLock:
    """Return the lock of a folder, which lies beside it; the system releases it when its holder is killed."""
    return FileLock(folder.with_name(f".{folder.name}.lock"))


@contextmanager
def one_writer(folder: Path, doing: str) -> Iterator[None]:
    """Make a folder and hold its lock, after waiting for any other process of this machine that holds it.

    Args:
        folder: What is locked.
        doing: What its holders do, for the message of one that waits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = lock_of(folder)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"Another process is {doing}; waiting for it.", flush=True)
        lock.acquire()
    try:
        folder.mkdir(exist_ok=True)  # again, if it was removed meanwhile
        yield
    finally:
        lock.release()
