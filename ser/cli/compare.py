"""``ser compare``: compares experiments that were tested on the same utterances with the first."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from ser.cli.arguments import ArgumentParser
from ser.errors import UserError
from ser.evaluation.compare import Comparison, Contrast, compare
from ser.evaluation.experiments import divide, of_which
from ser.evaluation.statistics import p_value, remarks
from ser.runs.folder import StoredRun, find_runs, not_read
from ser.runs.scores import NAMES, points
from ser.terminal.streams import print_json
from ser.terminal.tables import PlainTable


def run(args: Sequence[str]) -> None:
    """Run the verb.

    Args:
        args: "compare" and its options.

    Raises:
        UserError: Bad input.
    """
    parser = ArgumentParser(
        "compare",
        "Compare systems that were tested on the same utterances with the first of them: the difference of UAR with "
        "its interval for unseen speakers, and McNemar's test.",
    )
    parser.add_argument(
        "paths", type=Path, nargs="*", metavar="RUN", help="a run, or an experiment's folder of folds and seeds"
    )
    parser.add_argument("--level", type=float, default=0.95, help="of the intervals (default: 0.95)")
    parser.add_argument("--format", choices=["text", "json"], default="text", help="how to print it (default: text)")
    options = parser.parse_args(args[1:])
    if not 0 < options.level < 1:
        raise UserError(f"--level is {options.level}; it must be between 0 and 1, as in 0.95.")

    experiments, notes = _read(_names(options.paths))
    try:
        comparison = compare(experiments, options.level)
    except UserError as error:
        raise UserError("\n".join([str(error), *notes])) from error
    comparison = replace(comparison, notes=[*notes, *comparison.notes])
    if options.format == "json":
        print_json(comparison.plain())
    else:
        _print(comparison)


def _names(paths: Sequence[Path]) -> dict[str, Path]:
    """Name every path by as many of its last folders as make it unique; a run with its experiment."""
    folders = [path.resolve().parts for path in paths]
    for path, count in Counter(folders).items():
        if count > 1:
            raise UserError(f"{Path(*path)} is given twice; give different runs.")
    shortest = 2 if any((path / "protocol.json").exists() for path in paths) else 1
    for length in range(shortest, max(map(len, folders), default=0) + 1):
        names = ["/".join(parts[-length:]) for parts in folders]
        if len(set(names)) == len(names):
            return dict(zip(names, paths, strict=True))
    return {}


def _read(paths: Mapping[str, Path]) -> tuple[dict[str, list[StoredRun]], list[str]]:
    """Read the runs of every path and divide those that must not be averaged; with notes on what was divided."""
    experiments: dict[str, list[StoredRun]] = {}
    notes: list[str] = []
    given = {path.resolve() for path in paths.values()}
    for name, path in paths.items():
        unread = {child: why for child, why in not_read(path).items() if child.resolve() not in given}
        notes += [f"{child} is left out: it {why}." for child, why in unread.items()]
        groups, older, apart = divide(find_runs(path))
        notes += [f"{line}; it is left out." for line in older]
        for group, why in zip(groups, apart, strict=True):
            known = name if len(groups) == 1 else f"{name}: {of_which(group)}"
            experiments[known] = group
            notes += [f"{known} is a separate experiment: it {why}."] if why else []
    return experiments, notes


def _print(comparison: Comparison) -> None:
    columns = [f"{name.removeprefix('macro-')} %" for name in NAMES.values()]
    table = PlainTable([""], [*columns, "difference", "p", "McNemar p"], whole_numbers=True)
    for name, summary in comparison.summaries.items():
        values, interval = [points(score.pooled) for score in summary.scores.values()], summary.scores["uar"].interval
        if name in comparison.contrasts:
            contrast = comparison.contrasts[name]
            p_values = map(p_value, (contrast.adjusted_p, contrast.adjusted_mcnemar_p))
            table.add_row(name, *values, points(contrast.difference.value, "+"), *p_values)
            table.add_row("", str(interval), "", "", str(contrast.difference.interval))
        else:
            table.add_row(name, *values)
            table.add_row("", str(interval))
    Console().print(table)
    print(f"All folds and seeds together, with the {comparison.intervals[0].name} for unseen speakers; F1 is macro-F1.")
    print(comparison.explanation)
    for remark in remarks(comparison.intervals):
        print(remark)
    for note in comparison.notes:
        print(f"Note: {note}")
    first = next(iter(comparison.summaries))
    for name, contrast in comparison.contrasts.items():
        print(_verdict(name, first, contrast))


def _verdict(name: str, first: str, contrast: Contrast) -> str:
    """Say in a sentence whether two experiments differ."""
    if not contrast.significant:
        return f"{name} and {first} do not differ significantly in UAR across speakers."
    better, worse = (name, first) if contrast.difference.value > 0 else (first, name)
    asterisk = "*" if contrast.difference.interval.note else ""
    p = p_value(contrast.adjusted_p, "p")
    return f"{better} has a significantly higher UAR across speakers than {worse}{asterisk} ({p})."
