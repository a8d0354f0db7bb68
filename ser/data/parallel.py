"""Work on many files: on all cores, with a progress bar."""

import ctypes
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from typing import Any, TypeVar

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ser.errors import UserError

CHUNK = 32  # items that a worker is handed at once
WORTH_A_WORKER = 100  # items; starting one for fewer takes longer than it saves
PR_SET_PDEATHSIG = 1  # of Linux's prctl: the signal that a process gets when its parent dies

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_function: Callable[[Any], Any]  # in a forked worker: what it was forked to do


def in_parallel(
    function: Callable[[_Item], _Result], items: Iterable[_Item], description: str, total: int | None = None
) -> Generator[_Result, None, None]:
    """Map over items on all cores, in order, with a progress bar when it takes over two seconds.

    The workers are processes: one recording's operations are so short that threads would mostly wait for each other
    to let go of Python's lock. They are forked, as those of PyTorch's loaders are, which takes milliseconds and sends
    them nothing but items; where that is not safe (macOS, Windows) they are threads.

    Args:
        function: What is done.
        items: What it is done to. They are taken when their turn comes, if ``total`` is given.
        description: For the progress bar.
        total: How many items there are, at most.

    Raises:
        UserError: A worker was killed.
    """
    if total is None:
        items = list(items)
        total = len(items)
    workers = min(_cores(), total // WORTH_A_WORKER)
    results = _by_workers(function, items, workers) if workers > 1 else map(function, items)
    try:
        yield from progress(results, total, description)
    except BrokenProcessPool as error:
        raise UserError(
            f"A process was killed while {description}, probably because memory ran out. What was done by then is "
            "kept; start again, with other programs closed."
        ) from error


def progress(items: Iterable[_Item], total: int, description: str) -> Iterator[_Item]:
    """Iterate with a progress bar that appears after two seconds."""
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), transient=True
    )
    task = bar.add_task(description, total=total)
    start = time.monotonic()
    try:
        for item in items:
            yield item
            bar.advance(task)
            if not bar.live.is_started and time.monotonic() - start > 2:
                bar.start()
    finally:
        if bar.live.is_started:  # stopping another would print an empty line
            bar.stop()


def _by_workers(function: Callable[[_Item], _Result], items: Iterable[_Item], workers: int) -> Iterator[_Result]:
    pool: Executor
    if sys.platform == "linux":
        pool = ProcessPoolExecutor(workers, get_context("fork"), _begin, (function, os.getpid()))
        work: Callable[[Sequence[_Item]], list[_Result]] = _work
    else:
        pool = ThreadPoolExecutor(workers)
        work = lambda chunk: [function(item) for item in chunk]  # noqa: E731
    remaining = iter(items)
    chunks = iter(lambda: list(islice(remaining, CHUNK)), [])
    waiting: deque[Future[list[_Result]]] = deque()
    try:
        for chunk in chunks:
            waiting.append(pool.submit(work, chunk))
            if len(waiting) > 2 * workers:  # no more, so that memory does not grow with the number of items
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(function: Callable[[Any], Any], parent: int) -> None:
    """Prepare a forked worker."""
    global _function
    _function = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which stops its workers
    # A worker shares its parent's lock on the cache: left behind by a killed parent, it would keep it for ever.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    torch.set_num_threads(1)


def _work(chunk: Sequence[Any]) -> list[Any]:
    return [_function(item) for item in chunk]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
