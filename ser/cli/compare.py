"""``ser compare``: experiments that were tested on the same utterances, held against the first."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich import box
from rich.table import Table

from ser.cli.arguments import ArgumentParser
from ser.errors import UserError
from ser.evaluation.compare import SIGNIFICANT, Comparison, Contrast, compare
from ser.evaluation.experiments import divide, of_which
from ser.evaluation.statistics import Interval
from ser.evaluation.summary_table import percent, plain_console
from ser.runs.folder import StoredRun, find_runs, not_read
from ser.terminal.streams import print_json


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
        "its interval for other speakers, and McNemar's test.",
    )
    parser.add_argument(
        "paths", type=Path, nargs="*", metavar="RUN", help="a run, or an experiment's folder of folds and seeds"
    )
    parser.add_argument("--level", type=float, default=0.95, help="of the intervals (default: 0.95)")
    parser.add_argument("--format", choices=["text", "json"], default="text", help="for people, or for machines")
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
    """Name every path by as many of its last folders as tell it from the others; a run with its experiment."""
    folders = [path.resolve().parts for path in paths]
    for path, count in Counter(folders).items():
        if count > 1:
            raise UserError(f"{Path(*path)} is given twice; a comparison needs different runs.")
    shortest = 2 if any((path / "protocol.json").exists() for path in paths) else 1
    for length in range(shortest, max(map(len, folders), default=0) + 1):
        names = ["/".join(parts[-length:]) for parts in folders]
        if len(set(names)) == len(names):
            return dict(zip(names, paths, strict=True))
    return {}


def _read(paths: Mapping[str, Path]) -> tuple[dict[str, list[StoredRun]], list[str]]:
    """Read the runs of every path, and divide those that must not be averaged; with what is to be said of that."""
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
            notes += [f"{known} stands {why}."] if why else []
    return experiments, notes


def _print(comparison: Comparison) -> None:
    first, *others = comparison.summaries
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("", overflow="fold")
    for column in ("UAR %", "WA %", "F1 %", "difference", "p", "McNemar\np"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, summary in comparison.summaries.items():
        values = [percent(score.pooled) for score in summary.scores.values()]
        values[0] = _with(values[0], summary.scores["uar"].interval)
        against = _cells(comparison.contrasts[name]) if name in comparison.contrasts else ()
        table.add_row(name, *values, *against)
    plain_console().print(table)
    level = comparison.summaries[first].scores["uar"].interval.level
    print(f"All folds and seeds together, F1 is macro-F1; in brackets {100 * level:g}% intervals for other speakers.")
    print(f"The difference is in points of UAR to {first}; p: by chance of the speakers; McNemar p: of the utterances.")
    if len(others) > 1:
        print(f"p values are corrected for {len(others)} comparisons (Holm); the intervals of the differences are not.")
    intervals = [summary.scores["uar"].interval for summary in comparison.summaries.values()]
    intervals += [contrast.difference.interval for contrast in comparison.contrasts.values()]
    for remark in dict.fromkeys(interval.note for interval in intervals if interval.note):
        print(f"* {remark}")
    for note in comparison.notes:
        print(f"Note: {note}")
    for name, contrast in comparison.contrasts.items():
        print(_verdict(name, first, contrast))


def _cells(contrast: Contrast) -> tuple[str, str, str]:
    difference = contrast.difference
    value = _with(f"{100 * difference.value:+.1f}", difference.interval)
    return value, _p(contrast.adjusted_p), _p(contrast.adjusted_mcnemar_p)


def _with(value: str, interval: Interval) -> str:
    return f"{value}\n{interval}"


def _p(value: float) -> str:
    if math.isnan(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _verdict(name: str, first: str, contrast: Contrast) -> str:
    """Say in a sentence what can be said."""
    if contrast.adjusted_p < SIGNIFICANT:
        better, worse = (name, first) if contrast.difference.value > 0 else (first, name)
        doubt = ", if so few can tell*" if contrast.difference.interval.note else ""
        p = _p(contrast.adjusted_p)
        return f"{better} has a higher UAR than {worse}, and would for other speakers{doubt} (p {p})."
    return f"That {name} and {first} differ in UAR is not shown."
