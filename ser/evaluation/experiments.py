"""From folders to experiments: runs that differ in fold and seed only."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ser.evaluation.summary import Summary, differing, named, summarise
from ser.runs.folder import StoredRun, find_runs, not_read
from ser.runs.settings import Changed


@dataclass(frozen=True)
class Experiment:
    """Runs that belong together.

    Attributes:
        name: The folder's, made unique.
        summary: Their scores.
        apart: Why other runs of their folder are another experiment; empty where there are none.
    """

    name: str
    summary: Summary
    apart: str = ""


def gather(folders: Sequence[Path]) -> tuple[list[Experiment], list[str]]:
    """Read runs and group them: runs of one folder with the same settings, except fold and seed, are an experiment.

    Args:
        folders: Of runs, or of experiments.

    Returns:
        The experiments, and what was left out and why.

    Raises:
        UserError: A folder is neither a run nor an experiment with a finished run.
    """
    found: dict[Path, dict[Path, StoredRun]] = {}
    unread: dict[Path, str] = {}
    for folder in folders:
        for run in find_runs(folder):
            where = run.path.resolve()
            found.setdefault(where.parent, {}).setdefault(where, run)  # once, if its experiment is given too
        unread |= {child.resolve(): f"{child} {why}" for child, why in not_read(folder).items()}
    left_out = [line for where, line in unread.items() if where not in found.get(where.parent, {})]
    groups: list[list[StoredRun]] = []
    apart: list[str] = []
    for runs in found.values():
        alike, older, why = divide(list(runs.values()))
        groups += alike
        apart += why
        left_out += older
    names = _names(groups)
    return [Experiment(*those) for those in zip(names, map(summarise, groups), apart, strict=True)], left_out


def divide(runs: Sequence[StoredRun]) -> tuple[list[list[StoredRun]], list[str], list[str]]:
    """Divide the runs of a folder into those that differ in fold and seed only, the largest group first.

    Args:
        runs: Finished, of one folder.

    Returns:
        The groups; a sentence for each run that is left out because a newer one of its group has its fold and seed;
        and for each group why it is apart from the first, empty for the first.
    """
    groups: list[list[StoredRun]] = []
    left_out = []
    for run in sorted(runs, key=lambda run: (run.path / "predictions.csv").stat().st_mtime, reverse=True):
        group = next((group for group in groups if not _apart(group, run)), [])
        twin = next((other for other in group if (other.fold, other.seed) == (run.fold, run.seed)), None)
        if twin is not None:
            left_out.append(f"{run.path} has the settings, fold and seed of {twin.path.name}, which is newer")
            continue
        if not group:
            groups.append(group)
        group.append(run)
    groups = [sorted(group, key=lambda run: run.path.name) for group in groups]
    groups.sort(key=lambda group: (-len(group), group[0].path.name))
    why = [f"differs from {groups[0][0].path.name} in {named(_apart(groups[0], group[0]))}" for group in groups[1:]]
    return groups, left_out, ["", *why]


def _apart(group: Sequence[StoredRun], run: StoredRun) -> list[Changed]:
    """Return how a run differs from those of a group."""
    same_fold = next((other for other in group if other.fold == run.fold), run)
    recordings = Changed("recordings of the fold, by fingerprint", same_fold.fingerprint, run.fingerprint)
    return differing(group[0], run) or ([recordings] if recordings.then != recordings.now else [])


def of_which(runs: Sequence[StoredRun]) -> str:
    """Name runs of a folder by the first."""
    return f"{runs[0].path.name} and {len(runs) - 1} more" if len(runs) > 1 else runs[0].path.name


def _names(groups: Sequence[Sequence[StoredRun]]) -> list[str]:
    """Name each experiment after its folder, and if that is not unique after its path, or its runs."""
    candidates = []
    for runs in groups:
        folder = runs[0].path.absolute().parent
        candidates.append((folder.name, f"{folder.name}: {of_which(runs)}", f"{folder}: {of_which(runs)}"))
    taken = [name for names in candidates for name in names]
    return [next((name for name in names if taken.count(name) == 1), names[-1]) for names in candidates]
