"""Work on many items: in chunks on all cores, with a progress bar."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any, TypeVar

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ser.errors import UserError

SMALLEST, LARGEST = 32, 256  # chunks
WORTH_A_WORKER = 100  # items; starting one for fewer takes longer than it saves

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_forked_work: Callable[[Any], Any]  # in a forked worker: what it was forked to do


def in_chunks(
    work: Callable[[Sequence[_Item]], _Result],
    items: Sequence[_Item],
    description: str,
    executor: Executor | None = None,
) -> Iterator[_Result]:
    """Work on chunks of items, and yield the results in order; a progress bar appears after two seconds.

    The workers on this machine are processes: one recording's operations are so short that threads would mostly wait
    for each other to let go of Python's lock. They are forked, as those of PyTorch's loaders are, which takes
    milliseconds and sends them nothing but items; where that is not safe (macOS, Windows) they are threads.

    Args:
        work: What is done to a chunk.
        items: All of them.
        description: For the progress bar.
        executor: Who works instead of this machine's cores.

    Raises:
        UserError: A worker was killed.
    """
    workers = min(_cores(), len(items) // WORTH_A_WORKER)
    size = min(max(len(items) // (8 * max(workers, 1)), SMALLEST), LARGEST)  # so that all end together
    chunks = [items[start : start + size] for start in range(0, len(items), size)]
    with ExitStack() as stack:
        if executor is None and workers > 1:
            if sys.platform == "linux":
                executor = ProcessPoolExecutor(workers, get_context("fork"), _begin, (work,))
                work = _work
            else:
                executor = ThreadPoolExecutor(workers)
            stack.callback(executor.shutdown, cancel_futures=True)
        results = map(work, chunks) if executor is None else executor.map(work, chunks)
        try:
            yield from progress(results, len(items), description, size)
        except BrokenProcessPool as error:
            raise UserError(
                f"A process was killed while {description}, probably because memory ran out. What was done by then is "
                "kept; start again, with other programs closed."
            ) from error


def progress(results: Iterable[_Result], total: int, description: str, step: int = 1) -> Iterator[_Result]:
    """Iterate with a progress bar of ``total`` items, ``step`` for each result, that appears after two seconds."""
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), transient=True
    )
    task = bar.add_task(description, total=total)
    start = time.monotonic()
    try:
        for number, result in enumerate(results, start=1):
            yield result
            bar.update(task, completed=min(number * step, total))
            if not bar.live.is_started and time.monotonic() - start > 2:
                bar.start()
    finally:
        if bar.live.is_started:  # stopping another would print an empty line
            bar.stop()


def _begin(work: Callable[[Any], Any]) -> None:
    """Prepare a forked worker."""
    global _forked_work
    _forked_work = work
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    if parent := parent_process():
        parent.join()
    os._exit(1)  # otherwise it would wait for work for ever, and keep its parent's locks


def _work(chunk: Sequence[Any]) -> Any:
    return _forked_work(chunk)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
