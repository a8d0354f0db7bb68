"""Fits in processes of their own, side by side on this machine or on a cluster."""

import csv
import io
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ser.errors import JobEnded
from ser.parallel import Share, Workers
from ser.runs.folder import RunFolder
from ser.runs.scores import percent

LOOK_EVERY_S = 0.2
STOP_WITHIN_S = 10.0  # a fit that is interrupted ends its W&B run
SECRETS = ("WANDB_API_KEY", "WANDB_SERVICE")  # do not travel to a cluster's workers


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

    def epochs(self) -> list[dict[str, str]]:
        """Return the rows of the run's history so far."""
        try:
            newest = self.folder.newest
            return list(csv.DictReader(io.StringIO((newest / "history.csv").read_text()))) if newest else []
        except FileNotFoundError:
            return []


@dataclass(frozen=True)
class Ended:
    """How a fit ended.

    Attributes:
        seconds: What it took.
        failure: What went wrong, as its log says it, or why it was killed; None if it succeeded.
        bad_input: Whether it failed for something that the user can mend.
    """

    seconds: float
    failure: str | None = None
    bad_input: bool = False


@dataclass
class Running:
    """A fit that is queued or runs.

    Attributes:
        fit: Which.
        log_start: Where its output begins in the log.
        future: Tells how it ended.
    """

    fit: Fit
    log_start: int
    future: "Future[Ended]"

    @property
    def begun(self) -> bool:
        """Whether it has left the queue."""
        return _size(self.fit.log) > self.log_start

    def ended(self) -> Ended:
        """Wait for it, and return how it ended.

        Raises:
            JobEnded: The cluster is gone.
        """
        try:
            return self.future.result()
        except CancelledError:
            raise JobEnded("The connection to the cluster is lost. The same command resumes.") from None
        except Exception as error:  # of a cluster
            if died := getattr(error, "allowed_failures", None):  # Dask's KilledWorker
                return Ended(0.0, f"{died + 1} workers died while they ran it, probably because memory ran out")
            return Ended(0.0, f"{type(error).__name__}: {' '.join(str(error).split())}")


def start(workers: Workers, fit: Fit) -> Running:
    """Queue a fit."""
    fit.log.parent.mkdir(parents=True, exist_ok=True)
    log_start = _size(fit.log)
    told = {name: value for name, value in os.environ.items() if name.startswith("WANDB_") and name not in SECRETS}
    return Running(fit, log_start, workers.submit(run_fit, fit, log_start, Path.cwd(), told))


def run_fit(
    share: Share, stopped: Callable[[], bool], fit: Fit, log_start: int, cwd: Path, told: Mapping[str, str]
) -> Ended:
    """Run a fit in a child process, and wait for it.

    Args:
        share: Its cores and its GPU, as environment variables.
        stopped: Tells whether to end it.
        fit: Which. Where its log shows that it was begun before, by a worker that died, it goes on from its last
            checkpoint.
        log_start: Where its output begins in the log.
        cwd: Working folder.
        told: More environment variables.
    """
    log, started = cwd / fit.log, time.monotonic()
    if not (cwd.is_dir() and log.parent.is_dir()):  # a worker that came after the others were checked
        problem = f"{log.parent} is not on {platform.node()}: give a --run.root on a disk that all machines share"
        return Ended(0.0, problem, bad_input=True)
    again = ["--ckpt_path", "last"] if _size(log) > log_start and "--ckpt_path" not in fit.arguments else []
    with log.open("ab") as output:
        output.write(f"{platform.node()}: ser {' '.join([*fit.arguments, *again])}\n".encode(errors="surrogateescape"))
        output.flush()
        process = subprocess.Popen(
            [sys.executable, "-m", "ser", *fit.arguments, *again],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            # Unbuffered: the log in the order in which it was printed.
            env={**os.environ, **told, **share, "PYTHONUNBUFFERED": "1", "SER_PARENT": str(os.getpid())},
            start_new_session=True,  # Ctrl-C in the terminal is for the parent, which ends its fits
        )
        while (code := process.poll()) is None:
            if stopped():
                _stop(process)
            time.sleep(LOOK_EVERY_S)
    seconds = time.monotonic() - started
    return Ended(seconds, _failure(code, log, log_start) if code else None, bad_input=code == 2)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Interrupt a process, and kill it if it does not end; its checkpoints are whole at every moment."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _failure(code: int, log: Path, log_start: int) -> str:
    """Say why a fit ended with a code other than 0."""
    with log.open("rb") as file:
        file.seek(log_start)
        printed = file.read().decode(errors="replace")
    if code < 0:
        why = ", probably because memory ran out" if -code == signal.SIGKILL else ""
        return f"it was ended by {signal.Signals(-code).name}{why}"
    if "ser: error: " in printed:
        return printed.rpartition("ser: error: ")[2].strip()
    raised = re.findall(r"^(?:\w+\.)*\w*(?:Error|Exception)\b.*", printed, re.MULTILINE)
    return raised[-1] if raised else f"it ended with code {code}"


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def run_side_by_side(fits: Sequence[Fit], workers: Workers, epochs: int | None) -> Iterator[tuple[Fit, Ended]]:
    """Run fits, as many at once as the workers take, and show how they go on.

    Args:
        fits: What to run, in this order.
        workers: Where.
        epochs: How many a fit may take, if that is known.

    Yields:
        Each as it ends, and how. When the iteration is left early (Ctrl-C), those that run are ended.

    Raises:
        JobEnded: The cluster is gone.
    """
    running = {one.future: one for one in (start(workers, fit) for fit in fits)}
    with _Display(len(fits), epochs) as display:
        try:
            while running:
                done, _ = wait(running, LOOK_EVERY_S, FIRST_COMPLETED)
                display.refresh(running.values())
                for future in done:
                    one = running.pop(future)
                    display.ended(one.fit)
                    yield one.fit, one.ended()
        finally:
            for future in running:
                workers.stop(future)
            wait(running)


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Let a kill ask for the same as Ctrl-C: end the fits, then this process."""
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


@dataclass
class _Display:
    """A bar over all fits and a line for each that runs, in a terminal; elsewhere a line when one starts."""

    fits: int
    epochs: int | None
    done: int = 0
    lines: dict[str, TaskID] = field(default_factory=dict)

    def __enter__(self) -> "_Display":
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),  # names of speakers
            BarColumn(),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            transient=True,
            auto_refresh=False,
            disable=not sys.stdout.isatty(),
        )
        self.over_all = self.bars.add_task("all", total=self.fits, status=f"0 of {self.fits}")
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def refresh(self, running: Iterable[Running]) -> None:
        for fit in (one.fit for one in running if one.begun):
            if fit.name not in self.lines:
                self.lines[fit.name] = self.bars.add_task(fit.name, total=self.epochs, status="starting")
                if self.bars.disable:
                    print(f"{fit.name}: started, see {fit.log}", flush=True)
            if not self.bars.disable and (rows := fit.epochs()):
                score = rows[-1].get("val/uar")
                status = f"epoch {rows[-1]['epoch']}" + (f", val UAR {percent(float(score))}" if score else "")
                self.bars.update(self.lines[fit.name], completed=len(rows), status=status)
        self.bars.refresh()

    def ended(self, fit: Fit) -> None:
        self.done += 1
        if fit.name in self.lines:
            self.bars.remove_task(self.lines.pop(fit.name))
        self.bars.update(self.over_all, completed=self.done, status=f"{self.done} of {self.fits}")
