"""Fan-out over ``concurrent.futures``: chunks of items, and long tasks; on this machine, or on a Dask cluster."""

import functools
import json
import logging
import os
import platform
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context, parent_process
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, Protocol, TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ser import __version__
from ser.errors import UserError

SMALLEST, LARGEST = 32, 256  # chunks
WORTH_A_WORKER = 100  # items; starting one for fewer takes longer than it saves
CONNECT_WITHIN_S = 10

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_forked_work: Callable[[Any], Any]  # in a forked worker: what it was forked to do

Share = Mapping[str, str]  # environment variables that give a task its cores and its GPU


class Workers(Protocol):
    """Runs long tasks: :class:`Machine` or :class:`Cluster`.

    A task is called with its share of cores and GPUs, a function that tells whether it is to stop, and its arguments.

    Attributes:
        slots: How many tasks run at once.
    """

    slots: int

    def submit(self, task: Callable[..., _Result], *args: Any) -> "Future[_Result]":
        """Queue a task."""

    def stop(self, future: "Future[Any]") -> None:
        """Take a task from the queue, or tell it to stop."""


class Machine:
    """This machine. A task runs in a thread; what it computes, it computes in processes of its own.

    Args:
        shares: Of the tasks that run at once, see :func:`share_machine`.
    """

    def __init__(self, shares: Sequence[Share]) -> None:
        self.slots = len(shares)
        self._free = SimpleQueue[Share]()
        for share in shares:
            self._free.put(share)
        self._threads = ThreadPoolExecutor(self.slots)
        self._stops: dict[Future[Any], Event] = {}

    def __enter__(self) -> "Machine":
        return self

    def __exit__(self, *_: object) -> None:
        for future in self._stops:
            self.stop(future)
        self._threads.shutdown()

    def submit(self, task: Callable[..., _Result], *args: Any) -> "Future[_Result]":
        """Queue a task."""
        stop = Event()
        future = self._threads.submit(_with_share, self._free, task, stop.is_set, *args)
        self._stops[future] = stop
        return future

    def stop(self, future: "Future[Any]") -> None:
        """Take a task from the queue, or tell it to stop."""
        future.cancel()
        self._stops[future].set()


class Cluster:
    """A Dask cluster, whose workers share a disk with this machine. A task whose worker dies runs again on another.

    Where workers have the resource "GPU", every task takes one.

    Args:
        client: Of its scheduler.

    Attributes:
        slots: How many tasks run at once, on the workers that are there now.
        executor: Runs short work that needs no GPU.
        lost: What a task raises if the workers that ran it have died, again and again.
    """

    def __init__(self, client: Any) -> None:
        from distributed import KilledWorker

        self.lost = (KilledWorker,)
        self._client = client
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        gpus = int(sum(worker["resources"].get("GPU", 0) for worker in workers))
        self.slots = gpus or sum(worker["nthreads"] for worker in workers)
        self.executor: Executor = client.get_executor(pure=False)
        self._tasks: Executor = client.get_executor(pure=False, resources={"GPU": 1} if gpus else {})

    def submit(self, task: Callable[..., _Result], *args: Any) -> "Future[_Result]":
        """Queue a task."""
        return self._tasks.submit(_on_worker, task, *args)

    def stop(self, future: "Future[Any]") -> None:
        """Take a task from the queue, or tell it to stop."""
        future.cancel()

    def check(self, written: Mapping[str, Path], read: Mapping[str, Path]) -> None:
        """Check that the workers run this version of ser, and that they share files with this machine.

        Args:
            written: Folders, by the option that gives each another place; they exist.
            read: Files or folders that are only read, likewise.

        Raises:
            UserError: One does not.
        """
        mark = f".{uuid.uuid4().hex}.tmp"
        marks = {option: folder.absolute() / mark for option, folder in written.items()}
        places = {option: path.absolute() for option, path in {**written, **read}.items()}
        try:
            for file in marks.values():
                file.touch()
            found = self._client.run(_look, {**places, **marks})
        except ImportError as error:
            raise UserError(f"The cluster's workers cannot import ser ({error}): install it where they run.") from None
        finally:
            for file in marks.values():
                file.unlink(missing_ok=True)
        for host, version, lacking in found.values():
            if version != __version__:
                raise UserError(
                    f"The worker on {host} has ser {version}, this machine {__version__}: install the same."
                )
            if lacking:
                raise UserError(
                    f"{places[lacking[0]]} of {platform.node()} is not on the worker on {host}: give a {lacking[0]} on "
                    "a disk that all machines of the cluster share."
                )


@contextmanager
def connect(address: str) -> Iterator[Cluster]:
    """Connect to a Dask cluster, and wait for its first worker.

    Args:
        address: Of the scheduler, such as ``tcp://HOST:8786``, or the file that it writes (``--scheduler-file``).

    Raises:
        UserError: Dask is not installed, or no scheduler answers.
    """
    try:
        from distributed import Client
    except ImportError:
        raise UserError(
            "--cluster needs Dask, the extra ser[cluster]: pip install -e '.[cluster]' in the folder of ser."
        ) from None
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # a message says what is lost
    try:
        where = address if "://" in address else json.loads(Path(address).read_text())["address"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--cluster is {address}; it must be an address, such as tcp://HOST:8786, or a file that a Dask scheduler "
            f"has written ({type(error).__name__})."
        ) from None
    try:
        client: Any = Client(where, timeout=CONNECT_WITHIN_S, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise UserError(f"No Dask scheduler answers at {where}: {error}. Start one: dask scheduler.") from None
    with client:
        if not client.scheduler_info()["workers"]:
            print("Waiting for a worker of the cluster.", flush=True)
            client.wait_for_workers(1)
        yield Cluster(client)


def share_machine(tasks: int, gpus: Sequence[str]) -> list[Share]:
    """Divide a machine: each task gets an equal share of the cores, and one of the GPUs where there are several.

    A number of threads that the user has set stays.

    Args:
        tasks: How many run at once.
        gpus: Ids of the GPUs.
    """
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, _cores() // tasks)))
    visible = [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if len(gpus) > 1 else {} for i in range(tasks)]
    return [{"OMP_NUM_THREADS": threads, **gpu} for gpu in visible]


def _with_share(
    free: "SimpleQueue[Share]", task: Callable[..., _Result], stopped: Callable[[], bool], *args: Any
) -> _Result:
    share = free.get()
    try:
        return task(share, stopped, *args)
    finally:
        free.put(share)


def _on_worker(task: Callable[..., _Result], *args: Any) -> _Result:
    """Run a task on this worker of a cluster."""
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def stopped() -> bool:
        known = worker.state.tasks.get(key)
        return known is None or known.state == "cancelled"  # by the client, or since that is gone

    return _with_share(_shares_of_worker(), task, stopped, *args)


@functools.cache
def _shares_of_worker() -> "SimpleQueue[Share]":
    """Divide a worker's cores and GPUs among the tasks that it runs at once."""
    from distributed import get_worker

    state = get_worker().state
    gpus = int(state.total_resources.get("GPU", 0))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        if os.environ.get(variable) == "1":  # which Dask sets by itself
            del os.environ[variable]
    free = SimpleQueue[Share]()
    for share in share_machine(gpus or state.nthreads, visible.split(",") if visible else list(map(str, range(gpus)))):
        free.put(share)
    return free


def _look(files: Mapping[str, Path]) -> tuple[str, str, list[str]]:
    """Return this machine's name, its version of ser, and which of some files it lacks."""
    return platform.node(), __version__, [option for option, file in files.items() if not file.exists()]


def in_chunks(
    work: Callable[[Sequence[_Item]], _Result],
    items: Sequence[_Item],
    description: str,
    cluster: Cluster | None = None,
) -> Iterator[_Result]:
    """Work on chunks of items, and yield the results in order; a progress bar appears after two seconds.

    The workers on this machine are processes: one recording's operations are so short that threads would mostly wait
    for each other to let go of Python's lock. They are forked, as those of PyTorch's loaders are, which takes
    milliseconds and sends them nothing but items; where that is not safe (macOS, Windows) they are threads.

    Args:
        work: What is done to a chunk.
        items: All of them.
        description: For the progress bar.
        cluster: Where to work instead of on this machine's cores.

    Raises:
        UserError: A worker was killed.
    """
    workers = cluster.slots if cluster else min(_cores(), len(items) // WORTH_A_WORKER)
    size = min(max(len(items) // (8 * max(workers, 1)), SMALLEST), LARGEST)  # so that all end together
    chunks = [items[start : start + size] for start in range(0, len(items), size)]
    with ExitStack() as stack:
        executor = cluster.executor if cluster else None
        if executor is None and workers > 1:
            if sys.platform == "linux":
                executor = ProcessPoolExecutor(workers, get_context("fork"), _begin, (work,))
                work = _work
            else:
                executor = ThreadPoolExecutor(workers)
            stack.callback(executor.shutdown, cancel_futures=True)
        results = map(work, chunks) if executor is None else executor.map(work, chunks)
        lost = (BrokenProcessPool, CancelledError, *(cluster.lost if cluster else ()))
        try:
            yield from progress(results, len(items), description, size)
        except lost as error:
            what = "The connection to the cluster was lost, or its workers died," if cluster else "A process was killed"
            raise UserError(
                f"{what} while {description}, probably because memory ran out. What was done by then is kept; start "
                "again, with other programs closed."
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
    import torch  # which what works on recordings has loaded; verbs that read run folders do without

    torch.set_num_threads(1)


def _end_with_parent() -> None:
    if parent := parent_process():
        parent.join()
    os._exit(1)  # otherwise it would wait for work for ever, and keep its parent's locks


def _work(chunk: Sequence[Any]) -> Any:
    return _forked_work(chunk)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
