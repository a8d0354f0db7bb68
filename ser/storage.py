"""Files and folders that appear whole or not at all, and folders that one process at a time writes to."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout


@contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing whose readers see the old content or the new one, never a part, even after a kill."""
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


def fill_once(folder: Path, filled: Callable[[Path], bool], fill: Callable[[Path], None]) -> None:
    """Fill a folder that appears when it is complete; of two processes one fills it and the other waits.

    Args:
        folder: Where it will lie.
        filled: Whether it is complete; an incomplete one is replaced.
        fill: Writes the content into an empty folder.
    """
    if filled(folder):
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    with lock_of(folder):
        if filled(folder):  # another process was faster
            return
        shutil.rmtree(unfinished, ignore_errors=True)  # left by a process that was killed
        unfinished.mkdir()
        try:
            fill(unfinished)
            shutil.rmtree(folder, ignore_errors=True)
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def one_writer(folder: Path, doing: str) -> Iterator[None]:
    """Create a folder and hold its lock, after waiting for other processes of this machine that hold it.

    Args:
        folder: The folder to lock.
        doing: What the holders of the lock do, for the message of a process that waits.
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
