"""From the folders that somebody names to experiments: runs that differ in nothing but fold and seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ser.errors import UserError
from ser.evaluation.summary import Summary, summarise
from ser.recipe import digest
from ser.runs import StoredRun, find_runs

# What of a config says how a network is trained and tested; the rest is where, and how fast.
CONSEQUENTIAL = ("model", "optimizer", "lr_scheduler", "checkpoint", "early_stopping", "test_checkpoint")
OF_DATA = ("class_path", "emotions", "merge", "preprocess", "features", "protocol", "batch_size", "augment")
OF_TRAINER = ("max_epochs", "max_steps", "precision", "gradient_clip_val", "accumulate_grad_batches")


@dataclass(frozen=True)
class Experiment:
    """Runs that belong together.

    Attributes:
        name: The folder's, with what tells it from the others.
        summary: Their scores.
    """

    name: str
    summary: Summary


def gather(folders: Sequence[Path]) -> tuple[list[Experiment], list[str]]:
    """Read runs and group them: those of one folder with the same settings, but for fold and seed, belong together.

    Args:
        folders: Of runs, or of experiments.

    Returns:
        The experiments, and what was left out and why.

    Raises:
        UserError: A folder is neither a run nor an experiment with a finished run; or runs do not fit together.
    """
    groups: dict[tuple[Path, str], list[StoredRun]] = {}
    seen: set[Path] = set()
    left_out: dict[str, None] = {}
    for folder in folders:
        for run in find_runs(folder):
            where = run.path.resolve()
            if where not in seen:  # a run, and its experiment too
                seen.add(where)
                groups.setdefault((where.parent, digest(_settings(run))), []).append(run)
        for child in _unfinished(folder):
            left_out[f"{child} is not finished"] = None
    names = _names(list(groups.values()))
    experiments = [Experiment(name, summarise(runs)) for name, runs in zip(names, groups.values(), strict=True)]
    _refuse_other_labels(experiments)
    return experiments, list(left_out)


def _settings(run: StoredRun) -> dict[str, Any]:
    if not run.config:
        return {"system": run.system, "protocol": run.protocol["protocol"]}
    data = {"class_path": run.config["data"]["class_path"], **run.config["data"]["init_args"]}
    return {
        "system": run.system,
        **{name: run.config.get(name) for name in CONSEQUENTIAL},
        "data": {name: data.get(name) for name in OF_DATA},
        "trainer": {name: run.config["trainer"].get(name) for name in OF_TRAINER},
    }


def _unfinished(folder: Path) -> list[Path]:
    """Return the fits of an experiment that were not tested; a validation of a checkpoint is no fit."""
    children = sorted(folder.iterdir()) if folder.is_dir() and not (folder / "protocol.json").exists() else []
    return [
        child
        for child in children
        if (child / "protocol.json").exists()
        and not (child / "predictions.csv").exists()
        and ((child / "history.csv").exists() or not (child / "metrics.json").exists())
    ]


def _names(groups: Sequence[Sequence[StoredRun]]) -> list[str]:
    """Name each experiment after its folder, and where that is not enough after its path, or its runs."""

    def candidates(runs: Sequence[StoredRun]) -> list[str]:
        first, more = runs[0].path, f" and {len(runs) - 1} more" if len(runs) > 1 else ""
        folder = first.absolute().parent
        return [folder.name, f"{folder.name}: {first.name}{more}", f"{folder}: {first.name}{more}"]

    choices = [candidates(runs) for runs in groups]
    taken = [[choice[level] for choice in choices] for level in range(3)]
    return [
        next((names[i] for names in taken if names.count(names[i]) == 1), choice[-1])
        for i, choice in enumerate(choices)
    ]


def _refuse_other_labels(experiments: Sequence[Experiment]) -> None:
    first = experiments[0]
    for other in experiments[1:]:
        ours, theirs = first.summary.pooled.labels, other.summary.pooled.labels
        if list(ours) != list(theirs):
            raise UserError(
                f"{first.name} recognises {', '.join(ours)}; {other.name} recognises {', '.join(theirs)}: their scores "
                "cannot stand beside each other. Make a report of each."
            )
