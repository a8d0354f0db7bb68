"""Fits of trials: each a ``ser fit`` in a process of its own, which can be followed and stopped."""

import csv
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ser.evaluation.processes import Ended, Fit, start, stop
from ser.runs.folder import RunFolder
from ser.sweep.space import METRIC


class TrialFit:
    """A fit of a trial, started when it is made.

    Args:
        options: Of ``ser fit``.
        experiment: Folder of its run folder.
        name: Wanted name of the run; a number is added to one that is taken, by a study that was deleted.
        environment: What it has in its environment besides this process's own.
    """

    def __init__(self, options: Sequence[str], experiment: Path, name: str, environment: Mapping[str, str]) -> None:
        names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        self.path = next(path for path in map(experiment.joinpath, names) if not path.exists())
        where = {"root": experiment.parent, "experiment": experiment.name, "name": self.path.name}
        arguments = ["fit", *options, *(part for key, value in where.items() for part in (f"--run.{key}", str(value)))]
        log = experiment / "logs" / f"{self.path.name}.log"
        self._running = start(Fit(name, arguments, RunFolder(experiment, self.path.name), log), dict(environment))

    def epochs(self) -> list[float]:
        """Return the validation UAR of every epoch so far."""
        history = self.path / "history.csv"
        if not history.exists():
            return []
        return [float(row[METRIC]) for row in csv.DictReader(history.read_text().splitlines()) if row.get(METRIC)]

    def ended(self) -> Ended | None:
        """Return how it ended, if it did."""
        return self._running.ended()

    def uar(self) -> float | None:
        """Return the validation UAR of the checkpoint that was chosen; None if the fit did not come to choose one."""
        metrics = self.path / "metrics.json"
        return float(json.loads(metrics.read_text())["val"]["uar"]) if metrics.exists() else None

    def stop(self) -> None:
        """End the process; it closes its files first."""
        stop([self._running.process])


@dataclass(frozen=True)
class Plan:
    """How the fits of trials are started.

    Attributes:
        options: Options of ``ser fit`` that all share.
        experiment: Folder of their run folders.
        folds: Numbers of the folds; None fits the config's.
        environments: What each of the trials that run at once has in its environment; there are as many as there are.
    """

    options: Sequence[str]
    experiment: Path
    folds: Sequence[int] | None
    environments: Sequence[Mapping[str, str]]

    def fit(self, trial: int, fold: int | None, settings: Sequence[str], slot: int) -> TrialFit:
        """Start a fit, which computes no test scores whatever else it is told."""
        name, on = (f"trial{trial}", []) if fold is None else (f"trial{trial}-fold{fold}", ["--data.fold", str(fold)])
        options = [*self.options, *settings, *on, "--test_checkpoint", "none"]
        return TrialFit(options, self.experiment, name, self.environments[slot])
