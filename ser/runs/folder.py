"""The run folder: the files of a run, written by a callback and read by whatever analyses results.

``runs/<experiment>/<run>/`` holds ``config.yaml`` (reproduces the run), ``checkpoints/``, ``protocol.json`` (what
the scores were measured on), ``history.csv`` (one row per epoch), ``predictions.csv`` (one row per test utterance),
``validation.csv`` (the same of the validation split, by the checkpoint that was chosen) and ``metrics.json``; a run
that used a checkpoint has ``model.json``: the checkpoint, and what it was trained on. A checkpoint holds no file name
and no prediction of an utterance.
"""

import csv
import functools
import io
import itertools
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.cells import cell_len
from rich.console import Console

from ser.errors import UserError, cannot_create
from ser.runs.scores import SCORES, FloatArray, IntArray, confusion_matrix, in_words, percent, recalls
from ser.settings.names import OptionalName
from ser.terminal.tables import PlainTable, literal, side_by_side

SYNTHETIC = "Synthetic speech, for trying and testing: these scores say nothing about real voices."
ROWS_AND_COLUMNS = "Rows are the truth, columns the predictions."


@dataclass
class RunOptions:
    """Folder and name of a run.

    Args:
        system: Name of the system, set by its config; names the experiment.
        root: Folder of all experiments.
        experiment: Folder of runs that belong together; null is <system>-<corpus>.
        name: Folder of this run; null is fold<fold>-seed<seed>. A taken name gets a number.
    """

    system: OptionalName = None
    root: str = "runs"
    experiment: OptionalName = None
    name: OptionalName = None


class RunFolder:
    """One run's folder, created when it is first needed.

    Args:
        experiment: Folder of the experiment.
        name: Wanted name of the run.
        resume: Continue the newest run of this name instead of starting another.
    """

    def __init__(self, experiment: Path, name: str, resume: bool = False) -> None:
        self.experiment = experiment
        self.name = name
        if resume and self.last_checkpoint:
            self.path = self.last_checkpoint.parent.parent

    @cached_property
    def last_checkpoint(self) -> Path | None:
        """The last checkpoint of the newest run of this name, if there is any."""
        checkpoint = self.newest / "checkpoints" / "last.ckpt" if self.newest else None
        return checkpoint if checkpoint and checkpoint.exists() else None

    @property
    def newest(self) -> Path | None:
        """The newest run of this name, if there is any."""
        folders = self.experiment.iterdir() if os.path.isdir(self.experiment) else ()  # its name may be too long
        runs = [folder for folder in folders if folder.name.startswith(self.name) and self._is_ours(folder)]
        return max(runs, key=lambda folder: folder.stat().st_ctime, default=None)

    def _is_ours(self, folder: Path) -> bool:
        """Tell whether a run has this name, perhaps with a number; a user may have given it a longer one."""
        config = folder / "config.yaml"
        given = _given_name(config, config.stat().st_mtime_ns) if config.is_file() else None
        numbered = re.fullmatch(r"(.*?)(-\d+)?", folder.name)
        return self.name in ([given] if given is not None else [folder.name, numbered and numbered[1]])

    @property
    def reserved(self) -> bool:
        """Whether the folder is there already."""
        return "path" in vars(self)

    @cached_property
    def path(self) -> Path:
        """The folder, reserved for this run alone."""
        try:
            for number in itertools.count(1):
                path = self.experiment / (self.name if number == 1 else f"{self.name}-{number}")
                try:
                    path.mkdir(parents=True)
                except FileExistsError:
                    continue
                return path
        except OSError as error:
            raise cannot_create(self.experiment / self.name, error, name="--run.name or --run.experiment") from error
        raise AssertionError  # itertools.count does not end


@functools.lru_cache
def _given_name(config: Path, changed_ns: int) -> str | None:
    """Return the name that a user gave a run, if any; cached, since it is read often while a fit runs."""
    try:
        given = (yaml.safe_load(config.read_text()).get("run") or {}).get("name")
    except (OSError, ValueError, AttributeError, yaml.YAMLError):
        return None
    return None if given is None else str(given)


@dataclass(frozen=True)
class Evaluation:
    """Predictions for labelled utterances.

    Attributes:
        labels: K names, in the order of the columns of ``probabilities``.
        files: N files, relative to the corpus.
        speakers: N speakers.
        targets: (N,) class numbers, int64.
        probabilities: (N, K), float32 or float64.
    """

    labels: Sequence[str]
    files: Sequence[str]
    speakers: Sequence[str]
    targets: IntArray
    probabilities: FloatArray

    @cached_property
    def predicted(self) -> IntArray:
        """The predicted classes, (N,)."""
        predicted: IntArray = self.probabilities.argmax(axis=1)
        return predicted

    @cached_property
    def confusion(self) -> IntArray:
        """Counts by true (row) and predicted (column) class, (K, K)."""
        return confusion_matrix(self.targets, self.predicted, len(self.labels))

    @cached_property
    def recalls(self) -> dict[str, float]:
        """Recall of every class; NaN for a class that does not occur."""
        return dict(zip(self.labels, recalls(self.confusion).tolist(), strict=True))

    def scores(self) -> dict[str, Any]:
        """Return UAR, WA, macro-F1, recalls, the confusion matrix and the number of utterances, as plain data."""
        return {
            **{name: score(self.confusion).item() for name, score in SCORES.items()},
            "recalls": {label: None if math.isnan(value) else value for label, value in self.recalls.items()},
            "confusion": self.confusion.tolist(),
            "utterances": len(self.targets),
        }

    @classmethod
    def from_csv(cls, content: str, labels: Sequence[str]) -> "Evaluation":
        """Read what :meth:`csv` wrote.

        Raises:
            ValueError, KeyError: The content is of another form, or of other labels.
        """
        rows = list(csv.DictReader(io.StringIO(content)))
        probabilities = [[float(row[probability_column(label)]) for label in labels] for row in rows]
        return cls(
            labels=list(labels),
            files=[row["file"] for row in rows],
            speakers=[row["speaker"] for row in rows],
            targets=np.array([labels.index(row["target"]) for row in rows], np.int64),
            probabilities=np.array(probabilities, np.float64).reshape(len(rows), len(labels)),
        )

    def csv(self) -> bytes:
        """Return a row per utterance: file, speaker, target, predicted, and the probability of every class."""
        numbers = (array.tolist() for array in (self.targets, self.predicted, self.probabilities))
        columns = zip(self.files, self.speakers, *numbers, strict=True)
        rows = [[file, speaker, self.labels[t], self.labels[p], *row] for file, speaker, t, p, row in columns]
        return table_as_csv(["file", "speaker", "target", "predicted", *map(probability_column, self.labels)], rows)

    def print(self, title: str) -> None:
        """Print scores, recalls and the confusion matrix in the terminal."""
        console = Console()
        row_names = max(map(cell_len, self.labels)) + len("recall") + 2
        headers, legend = side_by_side(self.labels, console.width - row_names)
        table = PlainTable([""], [*headers, "recall"], narrow=True)
        for label, row in zip(self.labels, self.confusion.tolist(), strict=True):
            table.add_row(label, *map(str, row), percent(self.recalls[label]))
        console.print(literal(title))  # not the table's own, which would be wrapped to its width
        console.print(table)
        print(f"{ROWS_AND_COLUMNS} {legend}".rstrip())
        print(in_words(self.scores(), "   "))


@dataclass(frozen=True)
class StoredRun:
    """A finished run, read from its folder.

    Attributes:
        path: The folder.
        config: Content of ``config.yaml``; empty for a test of a checkpoint in Python.
        protocol: Content of ``protocol.json``.
        metrics: Content of ``metrics.json``.
        test: Predictions of the tested checkpoint for the test split.
        validation: Its predictions for the validation split; None where no fit preceded the test.
        history: A row per epoch, scores and losses by name; None where one was not logged.
        model: Content of ``model.json``, for a run that trained no model.
    """

    path: Path
    config: dict[str, Any]
    protocol: dict[str, Any]
    metrics: dict[str, Any]
    test: Evaluation
    validation: Evaluation | None
    history: list[dict[str, float | None]]
    model: dict[str, Any] = field(default_factory=dict)

    @property
    def fitted(self) -> bool:
        """Whether this run trained the model that it tested."""
        return not self.model and ("fit" in self.metrics or bool(self.history))

    @property
    def trained_here(self) -> bool:
        """Whether the tested model was trained on this fold's training split."""
        return bool(self.protocol.get("trained_here", self.fitted))

    @property
    def system(self) -> str:
        """Name of the system."""
        named = self.model.get("system") or self.config.get("run", {}).get("system")
        if not named and self.config:
            named = self.config["model"]["net"]["class_path"].rpartition(".")[2].lower()
        return str(named or "?")

    @property
    def seed(self) -> int | None:
        """Seed of weights, order and dropout; None for a checkpoint of another run."""
        return self.config.get("seed_everything") if self.fitted else None

    @property
    def fold(self) -> int:
        """Number of the protocol's fold."""
        return int(self.protocol["fold"])

    @property
    def fingerprint(self) -> str:
        """Hash of corpus, labels and split."""
        return str(self.protocol["fingerprint"])

    @property
    def genders(self) -> Mapping[str, str | None]:
        """Gender of every speaker of the corpus, None where it is not known."""
        known: Mapping[str, str | None] = self.protocol["genders"]
        return known


def read_run(path: Path) -> StoredRun:
    """Read a finished run.

    Raises:
        UserError: The folder is no run, or the run is not tested yet, or its files are damaged.
    """
    if not (path / "protocol.json").exists():
        raise UserError(f"{path} is not a run of ser: it holds no protocol.json. Give a folder of `ser fit`.")
    if not (path / "predictions.csv").exists():
        raise UserError(
            f"The run {path} is not finished: it holds no predictions.csv. Resume its fit (--ckpt_path last), or "
            "test its checkpoint (ser test)."
        )
    try:
        protocol = json.loads((path / "protocol.json").read_text())
        names = ("config.yaml", "validation.csv", "history.csv", "model.json")
        config, validation, history, model = (path / name for name in names)
        return StoredRun(
            path=path,
            config=yaml.safe_load(config.read_text()) if config.exists() else {},
            protocol=protocol,
            metrics=json.loads((path / "metrics.json").read_text()),
            test=_read_evaluation(path / "predictions.csv", protocol["labels"]),
            validation=_read_evaluation(validation, protocol["labels"]) if validation.exists() else None,
            history=list(_read_history(history)) if history.exists() else [],
            model=json.loads(model.read_text()) if model.exists() else {},
        )
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise UserError(f"The run {path} is damaged ({type(error).__name__}: {error}); run it again.") from error


def find_runs(path: Path) -> list[StoredRun]:
    """Read a run, or the finished runs of ``ser fit`` in an experiment's folder, by name.

    Raises:
        UserError: The folder is neither, or holds no finished run, or a damaged one.
    """
    if not path.is_dir():
        raise UserError(f"There is no folder {path}; give a run, or an experiment's folder of runs (runs/EXPERIMENT).")
    left_out = not_read(path)
    fits = sorted(child for child in path.iterdir() if (child / "history.csv").exists())
    if (path / "protocol.json").exists() or not (fits or left_out):
        return [read_run(path)]
    finished = [fit for fit in fits if (fit / "predictions.csv").exists()]
    if not finished:
        named = "; ".join(f"{child} {why}" for child, why in left_out.items())
        raise UserError(f"None of the {len(left_out)} runs in {path} is finished as a fit: {named}.")
    return [read_run(fit) for fit in finished]


def not_read(path: Path) -> dict[Path, str]:
    """Return the runs of an experiment's folder that :func:`find_runs` leaves out, and why."""
    children = sorted(path.iterdir()) if path.is_dir() and not (path / "protocol.json").exists() else []
    found = {child: _other_than_finished_fit(child) for child in children}
    return {child: why for child, why in found.items() if why}


def _other_than_finished_fit(path: Path) -> str:
    """Return what a run folder holds instead of a finished fit; nothing for a finished fit, or for no run."""
    described, predicted, trained, scored = (
        (path / name).exists() for name in ("protocol.json", "predictions.csv", "history.csv", "metrics.json")
    )
    if not described:
        unlabelled = predicted and not (path / "crossval.json").exists()
        return "holds predictions of recordings without labels (ser predict)" if unlabelled else ""
    if trained or not (predicted or scored):
        return "" if predicted else "is not finished: resume it (--ckpt_path last), or test its checkpoint"
    return f"is a {'test' if predicted else 'validation'} of a checkpoint, no fit; name its folder to see it"


def _read_evaluation(path: Path, labels: Sequence[str]) -> Evaluation:
    return Evaluation.from_csv(path.read_text(errors="surrogateescape"), labels)


def _read_history(path: Path) -> Iterator[dict[str, float | None]]:
    for row in csv.DictReader(io.StringIO(path.read_text())):
        yield {name: float(value) if value else None for name, value in row.items()}


def probability_column(label: str) -> str:
    """Return the name of the column that holds a class's probability in ``predictions.csv``."""
    return f"p_{label}"


def table_as_csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    """Return a table as UTF-8 CSV; numbers keep every digit that tells them apart."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue().encode(errors="surrogateescape")  # a file name need not be UTF-8
