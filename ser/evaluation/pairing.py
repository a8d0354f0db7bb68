"""Which runs of several experiments are compared, or why they cannot be.

Runs are compared if they have the same fingerprint: the same corpus, emotions, files and split. Of every fold, the
seeds that all experiments share are compared, and the others are left out; where they share none, as many of each.
"""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from ser.errors import UserError
from ser.evaluation.summary import in_a_line
from ser.protocols.splits import PARTITIONS
from ser.runs.folder import StoredRun

Experiment = Sequence[StoredRun]
FACTS = {"corpus": "corpora", "labels": "emotions", "merge": "merged emotions", "protocol": "protocols"}


def paired(experiments: Mapping[str, Experiment]) -> tuple[dict[str, list[StoredRun]], list[str]]:
    """Choose the runs that can be compared.

    Args:
        experiments: Two or more, by name; each of one system, with one run per fold and seed.

    Returns:
        The runs of each, as many of every fold; and what was left out, a sentence each.

    Raises:
        UserError: A run is in two experiments, or two experiments were not tested on the same data.
    """
    _check_distinct(experiments)
    first = next(iter(experiments))
    by_fold = {name: _by_fold(runs) for name, runs in experiments.items()}
    for name in experiments:
        if why := obstacle(experiments[first], experiments[name]):
            raise UserError(
                f"{first} and {name} were not tested on the same data: {why}. Compare runs of the same corpus, "
                "emotions, protocol and folds."
            )
    chosen: dict[str, list[StoredRun]] = {name: [] for name in experiments}
    left_out: list[str] = []
    for fold in by_fold[first]:
        runs = {name: folds[fold] for name, folds in by_fold.items()}
        for name, those in _same_seeds(runs).items():
            chosen[name] += those
            left_out += [
                f"{run.path} is left out: not all experiments have its fold and seed."
                for run in runs[name]
                if run not in those
            ]
    return chosen, left_out


def obstacle(ours: Experiment, theirs: Experiment) -> str:
    """Say why two experiments cannot be compared; empty if they were tested on the same data."""
    one, other = _by_fold(ours), _by_fold(theirs)
    if one.keys() != other.keys():
        return _differences(one, other)
    for fingerprint, runs in one.items():
        tested = {frozenset(run.test.files) for run in (*runs, *other[fingerprint])}
        if len(tested) > 1:
            return (
                f"their tests of fold {runs[0].fold} scored different utterances, {min(map(len, tested))} and "
                f"{max(map(len, tested))} of them: was one run with --trainer.limit_test_batches? Test it again"
            )
    return ""


def _check_distinct(experiments: Mapping[str, Experiment]) -> None:
    seen: dict[Any, str] = {}
    for name, runs in experiments.items():
        for run in runs:
            before = seen.setdefault(run.path.resolve(), name)
            if before != name:
                raise UserError(f"The run {run.path} is in {before} and in {name}; give every run once.")


def _by_fold(runs: Experiment) -> dict[str, list[StoredRun]]:
    folds: dict[str, list[StoredRun]] = {}
    for run in sorted(runs, key=lambda run: run.fold):
        folds.setdefault(run.fingerprint, []).append(run)
    return folds


def _same_seeds(runs: Mapping[str, Experiment]) -> dict[str, list[StoredRun]]:
    """Choose the runs of one fold that are compared."""
    seeds = [{run.seed for run in those} for those in runs.values()]
    shared = set.intersection(*seeds)
    if shared:
        return {name: [run for run in those if run.seed in shared] for name, those in runs.items()}
    fewest = min(len(those) for those in runs.values())
    return {name: list(islice(those, fewest)) for name, those in runs.items()}


def _differences(ours: Mapping[str, Experiment], theirs: Mapping[str, Experiment]) -> str:
    """Say how the test data of experiments with different fingerprints differ."""
    our, their = (next(iter(folds.values()))[0].protocol for folds in (ours, theirs))
    for fact, plural in FACTS.items():
        if our[fact] != their[fact]:
            return f"their {plural} differ, {_written(our[fact])} / {_written(their[fact])}"
    one, other = ({runs[0].fold: runs[0].protocol for runs in folds.values()} for folds in (ours, theirs))
    for fold in sorted(one.keys() & other.keys()):
        if one[fold]["fingerprint"] != other[fold]["fingerprint"]:
            return f"their fold {fold} differs, {_split_difference(one[fold], other[fold])}"
    return f"their folds differ, {_written(sorted(one))} / {_written(sorted(other))}"


def _split_difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """Say how the same fold of the same protocol differs."""
    our, their = ({name: set(protocol[name]["files"]) for name in PARTITIONS} for protocol in (ours, theirs))
    all_of_ours, all_of_theirs = (set.union(*files.values()) for files in (our, their))
    if all_of_ours != all_of_theirs:
        found = [
            f"{len(files)} only in the {which} (such as {min(files)})"
            for which, files in (("first", all_of_ours - all_of_theirs), ("second", all_of_theirs - all_of_ours))
            if files
        ]
        return f"in files: {' and '.join(found)}"
    if moved := [name for name in PARTITIONS if our[name] != their[name]]:
        return f"in how the same files are divided into {' and '.join(moved)}"
    return "in recordings or emotions of files of the same names"


def _written(value: Any) -> str:
    match value:
        case {"class_path": _}:
            return in_a_line(value)
        case dict():
            return ", ".join(f"{key}: {_written(item)}" for key, item in value.items()) or "none"
        case list():
            return ", ".join(map(str, value)) or "none"
    return str(value)
