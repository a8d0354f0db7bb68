"""Work that processes divide between them, on one machine or on several that share a folder.

Every process that works holds a *part*, a number: it alone appends to that part's journal, and its lock tells the
others that it lives, for the system releases it on a kill. Who works on what is in one small file, which is written
under a lock of the folder that is held for milliseconds; what the dead had claimed is free again. No file that grows
is ever written by two processes at once, which is not safe on file systems that machines share.
"""

import itertools
import json
import os
import struct
import time
import zlib
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from filelock import FileLock, Timeout

from ser.data.parallel import in_parallel
from ser.storage import write_atomically

CLAIMED_AT_FIRST = 512  # items
CLAIMED_AT_LEAST = 32
CLAIM_EVERY_S = 2.0  # who has to claim more often claims twice as much the next time
PUBLISH_EVERY_S = 5.0
LOOK_AGAIN_S = 0.5  # whether others have done what is waited for

_HEADER = struct.Struct("<QI")  # of a block: its size, and CRC-32


class Keyed(Protocol):
    """An item of work."""

    @property
    def key(self) -> str:
        """What every process calls it."""


_Item = TypeVar("_Item", bound=Keyed)
_Result = TypeVar("_Result")


class Journal:
    """Blocks of bytes in a file that grows; of one that a kill or a power failure cut off nothing is read.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._end = 0  # of the last block that was accepted

    def take_in(self, accept: Callable[[bytes], bool]) -> None:
        """Hand on the blocks that were added since the last call, until one is not accepted."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._end)
                added = memoryview(file.read())
        except (FileNotFoundError, NotADirectoryError):
            return
        while len(added) > _HEADER.size:
            size, check = _HEADER.unpack_from(added)
            block = bytes(added[_HEADER.size : _HEADER.size + size])
            if not size or len(block) < size or zlib.crc32(block) != check or not accept(block):
                return
            self._end += _HEADER.size + size
            added = added[_HEADER.size + size :]

    def append(self, *blocks: bytes) -> None:
        """Put blocks, on the disk, behind the last one that was accepted; what else was there is gone."""
        with self.path.open("ab") as file:
            file.truncate(self._end)
            for block in blocks:
                file.write(_HEADER.pack(len(block), zlib.crc32(block)) + block)
            file.flush()
            os.fsync(file.fileno())


class SharedWork:
    """Items of work that any number of processes do once.

    Args:
        folder: Where the processes meet; it must exist when one begins to work.
        known: Keys of what this process knows to be done.
        accept: Takes in a block that was published in a part, from which it adds to ``known``; says whether the block
            is to be believed, for nothing behind it is otherwise.
    """

    def __init__(self, folder: Path, known: Container[str], accept: Callable[[int, bytes], bool]) -> None:
        self.folder = folder
        self._known = known
        self._accept = accept
        self._journals: list[Journal] = []

    def look(self) -> None:
        """Take in what was published since the last look."""
        while len(self._journals) < len(self._claims()) or self._path("index", len(self._journals)).exists():
            self._journals.append(Journal(self._path("index", len(self._journals))))
        for part, journal in enumerate(self._journals):
            journal.take_in(partial(self._accept, part))

    def lock(self) -> FileLock:
        """Return the lock of the folder, under which it is safe to replace a file there."""
        return FileLock(self.folder / "lock")

    def forget(self) -> None:
        """Take in everything anew with the next look."""
        self._journals.clear()

    @contextmanager
    def part(self) -> Iterator[int]:
        """Hold a part that nobody holds; what its last holder left and nobody can believe is gone."""
        with self.lock():
            for part in itertools.count():
                lock = self._life(part)
                try:
                    lock.acquire(timeout=0)
                    break
                except Timeout:
                    pass
            try:
                self._claim(part, [])
                self.look()
                self._journals[part].append()
            except BaseException:
                lock.release()
                raise
        try:
            yield part
        finally:
            lock.release()

    def do(
        self,
        part: int,
        items: Iterable[_Item],
        work: Callable[[_Item], _Result],
        publish: Callable[[Sequence[_Result]], None],
        description: str,
    ) -> None:
        """Do what nobody does, on all cores, and wait until others have done the rest, or do what they leave undone.

        Args:
            part: The one that is held.
            items: All of the work.
            work: Does an item, in whatever process.
            publish: Tells everybody of some results, with :meth:`publish`.
            description: For the progress bar, like "computing features".
        """
        left, waiting = deque(items), False
        while left:
            results: list[_Result] = []
            published = time.monotonic()
            with closing(in_parallel(work, self._mine(part, left), description, len(left))) as worked:
                for result in worked:
                    results.append(result)
                    if time.monotonic() - published > PUBLISH_EVERY_S:
                        publish(results)
                        results, published = [], time.monotonic()
            if results:
                publish(results)
            self.look()
            left = deque(item for item in left if item.key not in self._known)
            if left and not waiting:
                waiting = True
                number = len(left)
                print(f"Other processes are {description} that are needed here, too; waiting for {number}.", flush=True)
            if left:
                time.sleep(LOOK_AGAIN_S)

    def publish(self, part: int, block: bytes) -> None:
        """Tell everybody, and the process itself, what was done.

        Raises:
            OSError: The disk is full, say.
        """
        self._journals[part].append(block)
        self._journals[part].take_in(partial(self._accept, part))

    def _mine(self, part: int, left: deque[_Item]) -> Iterator[_Item]:
        """Claim and yield, out of what is left to do, what nobody alive has claimed; that stays."""
        number = CLAIMED_AT_FIRST
        others: list[_Item] = []
        # Less and less towards the end, so that all end together.
        while items := self._claim_some(part, left, others, min(number, max(len(left) // 4, CLAIMED_AT_LEAST))):
            start = time.monotonic()
            yield from items
            if time.monotonic() - start < CLAIM_EVERY_S:
                number *= 2
        left.extend(others)

    def _claim_some(self, part: int, left: deque[_Item], others: list[_Item], number: int) -> list[_Item]:
        with self.lock():
            self.look()
            claims = self._claims()
            taken = {key for other, keys in enumerate(claims) if other != part and self._works(other) for key in keys}
            items: list[_Item] = []
            while left and len(items) < number:
                item = left.popleft()
                if item.key not in self._known:
                    (others if item.key in taken else items).append(item)
            if items:
                self._claim(part, [key for key in claims[part] if key not in self._known] + [i.key for i in items])
        return items

    def _claim(self, part: int, keys: list[str]) -> None:
        claims = self._claims()
        claims += [[] for _ in range(part + 1 - len(claims))]
        claims[part] = keys
        write_atomically(self.folder / "claims", json.dumps(claims).encode())

    def _claims(self) -> list[list[str]]:
        """Return what the holder of each part has claimed, whether or not it lives."""
        try:
            claims: list[list[str]] = json.loads((self.folder / "claims").read_bytes())
            return claims
        except (OSError, ValueError):
            return []

    def _works(self, part: int) -> bool:
        try:
            with self._life(part).acquire(timeout=0):
                return False
        except Timeout:
            return True

    def _life(self, part: int) -> FileLock:
        """Return the lock that whoever holds a part keeps as long as it lives."""
        return FileLock(self._path("lock", part))

    def _path(self, name: str, part: int) -> Path:
        return self.folder / f"{name}.{part}"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep others from beginning to work in a folder.

    Raises:
        Timeout: Somebody works there.
    """
    with FileLock(folder / "lock", timeout=0):
        for path in folder.glob("lock.*"):
            with FileLock(path, timeout=0):
                pass
        yield
