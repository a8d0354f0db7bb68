"""Fits side by side, each in a process of its own: they share the cores or the GPUs, and end when this process does."""

import csv
import ctypes
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ser.runs.folder import RunFolder

PR_SET_PDEATHSIG = 1  # of Linux's prctl: the signal that a process gets when its parent dies
LOOK_EVERY_S = 0.2
STOP_WITHIN_S = 10.0  # a fit that is interrupted ends its W&B run


@dataclass(frozen=True)
class Fit:
    """A fit to be run.

    Attributes:
        name: What to call it.
        arguments: Of ``ser``, with the verb.
        folder: Where it leaves its run.
        log: File to which its output is appended.
    """

    name: str
    arguments: Sequence[str]
    folder: RunFolder
    log: Path


@dataclass(frozen=True)
class Ended:
    """How a fit ended.

    Attributes:
        fit: Which.
        seconds: What it took.
        failure: What it said, or why it was killed; None if it succeeded.
        bad_input: Whether it failed for something that the user can mend.
    """

    fit: Fit
    seconds: float
    failure: str | None
    bad_input: bool


@dataclass
class Running:
    """A fit that runs.

    Attributes:
        fit: Which.
        process: Its process, which leads a group of its own.
        log_start: Where its output begins in the log.
        started: When, on the monotonic clock.
    """

    fit: Fit
    process: subprocess.Popen[bytes]
    log_start: int
    started: float = field(default_factory=time.monotonic)

    def ended(self) -> Ended | None:
        """Return how it ended, if it did."""
        code = self.process.poll()
        if code is None:
            return None
        seconds = time.monotonic() - self.started
        return Ended(self.fit, seconds, self._failure(code) if code else None, bad_input=code == 2)

    def _failure(self, code: int) -> str:
        with self.fit.log.open("rb") as log:
            log.seek(self.log_start)
            said = log.read().decode(errors="replace")
        if code < 0:
            why = ", probably because memory ran out" if -code == signal.SIGKILL else ""
            return f"it was ended by {signal.Signals(-code).name}{why}"
        if "ser: error: " in said:
            return said.rpartition("ser: error: ")[2].strip()
        raised = re.findall(r"^(?:\w+\.)*\w*(?:Error|Exception)\b.*", said, re.MULTILINE)
        return raised[-1] if raised else f"it ended with code {code}"

    def status(self) -> tuple[int, str]:
        """Return epochs done, and the latest in words, as the run's history has them."""
        newest = self.fit.folder.newest
        try:
            rows = list(csv.DictReader(io.StringIO((newest / "history.csv").read_text()))) if newest else []
        except FileNotFoundError:
            rows = []
        if not rows or newest is None:
            return 0, "starting"
        score = rows[-1].get("val/uar")
        return len(rows), f"epoch {rows[-1]['epoch']}" + (f", val UAR {float(score):.1%}" if score else "")


def share_machine(jobs: int, gpus: Sequence[str]) -> list[dict[str, str]]:
    """Return the environment of each of some processes that share the machine.

    Each gets an equal share of the cores, and one of the GPUs where there are several; a number of threads that the
    user has set stays.

    Args:
        jobs: Number of processes.
        gpus: Ids of the GPUs.
    """
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, cores // jobs)))
    visible = [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if len(gpus) > 1 else {} for i in range(jobs)]
    return [{"OMP_NUM_THREADS": threads, **gpu} for gpu in visible]


def run_side_by_side(
    fits: Sequence[Fit], environments: Sequence[dict[str, str]], epochs: int | None
) -> Iterator[Ended]:
    """Run fits, as many at once as there are environments, and show how they go on.

    Args:
        fits: What to run, in this order.
        environments: What each of the processes has in its environment besides this process's own.
        epochs: How many a fit may take, if that is known.

    Yields:
        Each as it ends. When the iteration is left early (Ctrl-C), those that run are ended.
    """
    waiting, running = deque(fits), dict[int, Running]()
    # A kill asks for the same as Ctrl-C: end the fits, then this process.
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _Display(len(fits), epochs) as display:
        try:
            while waiting or running:
                for slot, environment in enumerate(environments):
                    if slot not in running and waiting:
                        running[slot] = start(waiting.popleft(), environment)
                        display.started(running[slot])
                time.sleep(LOOK_EVERY_S)
                for slot, one in list(running.items()):
                    if ended := one.ended():
                        del running[slot]
                        display.ended(one)
                        yield ended
                display.refresh()
        finally:
            stop([one.process for one in running.values()])
            signal.signal(signal.SIGTERM, former)


def start(fit: Fit, environment: dict[str, str]) -> Running:
    """Start a fit, which the system ends when this process is killed.

    Args:
        fit: Which.
        environment: What it has in its environment besides this process's own.
    """
    fit.log.parent.mkdir(parents=True, exist_ok=True)
    with fit.log.open("ab") as log:
        log_start = log.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "ser", *fit.arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},  # the log in the order in which it was said
            start_new_session=True,  # Ctrl-C in the terminal is for this process, which ends its fits
            preexec_fn=_die_with_parent(),
        )
    return Running(fit, process, log_start)


def _die_with_parent() -> Callable[[], None] | None:
    """Return what a forked process calls so that the system ends it with this one, however that ends."""
    if sys.platform != "linux":
        return None
    library, parent = ctypes.CDLL(None), os.getpid()  # loaded before the fork

    def die_with_parent() -> None:
        library.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return die_with_parent


def stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Interrupt processes, and kill those that do not end; their checkpoints are whole at every moment."""
    for process in processes:
        process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + STOP_WITHIN_S
    try:
        for process in processes:
            process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


class _Display:
    """A bar over all fits and a line for each that runs, in a terminal; elsewhere a line when one starts."""

    def __init__(self, fits: int, epochs: int | None) -> None:
        self.epochs = epochs
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),  # names of speakers
            BarColumn(),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            transient=True,
            auto_refresh=False,
            disable=not sys.stdout.isatty(),
        )
        self.done, self.total = 0, fits
        self.over_all = self.bars.add_task("all", total=fits, status=f"0 of {fits}")
        self.lines: dict[str, tuple[Running, TaskID]] = {}

    def __enter__(self) -> "_Display":
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def started(self, one: Running) -> None:
        task = self.bars.add_task(one.fit.name, total=self.epochs, status="starting")
        self.lines[one.fit.name] = one, task
        if self.bars.disable:
            print(f"{one.fit.name}: started, see {one.fit.log}", flush=True)

    def ended(self, one: Running) -> None:
        self.done += 1
        self.bars.remove_task(self.lines.pop(one.fit.name)[1])
        self.bars.update(self.over_all, completed=self.done, status=f"{self.done} of {self.total}")

    def refresh(self) -> None:
        if not self.bars.disable:
            for one, task in self.lines.values():
                epochs, status = one.status()
                self.bars.update(task, completed=epochs, status=status)
            self.bars.refresh()
