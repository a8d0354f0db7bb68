"""``ser compare``: are these systems different, or does it only look so? Paired by utterance, over all folds.

Two questions have two answers. Whether the difference would hold for other speakers: a bootstrap over speakers of the
difference of UAR. Whether it is more than chance on these utterances: McNemar's test, for which the speakers are given.

An experiment with several seeds counts with all of them, neither with the best nor as an ensemble: matrices are added
up over the seeds, and McNemar's test becomes the sign test of how many seeds recognise each utterance.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from ser.arguments import ArgumentParser
from ser.errors import UserError
from ser.evaluation.experiments import divide, of_which
from ser.evaluation.pairing import obstacle, paired
from ser.evaluation.scores import speaker_confusions
from ser.evaluation.statistics import Difference, Interval, holm, paired_difference, sign_test
from ser.evaluation.summary import SCORES, Summary, summarise
from ser.evaluation.summary_table import percent, plain_console
from ser.runs import SYNTHETIC, StoredRun, find_runs, not_read

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Contrast:
    """How an experiment differs from the first.

    Attributes:
        difference: Its UAR less the first's, with interval and p value for other speakers.
        adjusted_p: The p value after Holm, for as many contrasts as there are.
        mcnemar_p: Of McNemar's exact test on these utterances.
        adjusted_mcnemar_p: The same after Holm.
    """

    difference: Difference
    adjusted_p: float
    mcnemar_p: float
    adjusted_mcnemar_p: float

    def plain(self) -> dict[str, Any]:
        """Return plain data for JSON; what is NaN here is None there."""
        p_values = {name: value for name, value in vars(self).items() if name != "difference"}
        return {
            "difference": self.difference.plain(),
            **{name: None if math.isnan(value) else value for name, value in p_values.items()},
        }


@dataclass(frozen=True)
class Comparison:
    """Experiments that were measured on the same utterances.

    Attributes:
        summaries: Scores of the runs that are compared, by the experiment's name.
        contrasts: Of every experiment but the first, with the first.
        notes: What whoever reads the comparison has to know.
    """

    summaries: Mapping[str, Summary]
    contrasts: Mapping[str, Contrast]
    notes: Sequence[str]

    def plain(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        experiments = [
            {
                "name": name,
                "system": summary.system,
                "runs": [str(run.path) for run in summary.runs],
                **{
                    score: {"value": summary.scores[score].pooled, "interval": summary.scores[score].interval.plain()}
                    for score in SCORES
                },
                "contrast": self.contrasts[name].plain() if name in self.contrasts else None,
            }
            for name, summary in self.summaries.items()
        ]
        return {"experiments": experiments, "notes": list(self.notes)}


def compare(experiments: Mapping[str, Sequence[StoredRun]], level: float = 0.95) -> Comparison:
    """Compare experiments with the first of them.

    Args:
        experiments: Finished runs of each, by name.
        level: Of the intervals.

    Raises:
        UserError: There are fewer than two, one mixes systems or holds a run twice, or none can be compared with the
            first.
    """
    if len(experiments) < 2:
        raise UserError(f"A comparison needs two runs or experiments; there is {len(experiments) or 'none'}.")
    first = next(iter(experiments))
    obstacles = {name: obstacle(experiments[first], runs) for name, runs in experiments.items()}
    others = [name for name, why in obstacles.items() if why]
    if len(others) < len(experiments) - 1:  # there are some to compare without those
        experiments = {name: runs for name, runs in experiments.items() if name not in others}
    summaries = {name: summarise(runs, level) for name, runs in experiments.items()}
    chosen, left_out = paired({name: summary.runs for name, summary in summaries.items()})
    left_out += [
        f"{name} is left out: it and {first} were not measured on the same, {obstacles[name]}." for name in others
    ]
    for name, runs in chosen.items():
        if len(runs) < len(summaries[name].runs):
            summaries[name] = summarise(runs, level)
    others = [name for name in chosen if name != first]
    differences = [_difference(chosen[name], chosen[first], level) for name in others]
    mcnemar = [_mcnemar(chosen[name], chosen[first]) for name in others]
    adjusted = holm([difference.p for difference in differences])
    contrasts = zip(differences, adjusted.tolist(), mcnemar, holm(mcnemar).tolist(), strict=True)
    return Comparison(
        summaries=summaries,
        contrasts=dict(zip(others, (Contrast(*contrast) for contrast in contrasts), strict=True)),
        notes=[*left_out, *_notes(summaries)],
    )


def _difference(ours: Sequence[StoredRun], theirs: Sequence[StoredRun], level: float) -> Difference:
    (_, one), (_, other) = (speaker_confusions([run.test for run in runs]) for runs in (ours, theirs))
    return paired_difference(one, other, level=level)


def _mcnemar(ours: Sequence[StoredRun], theirs: Sequence[StoredRun]) -> float:
    """Count over folds and seeds, so that an utterance is one observation however often it was tested."""
    one, other = (_counted(runs, right=True) for runs in (ours, theirs))
    files = _counted(ours)
    return sign_test(np.array([one[file] for file in files]), np.array([other[file] for file in files]))


def _counted(runs: Sequence[StoredRun], *, right: bool = False) -> Counter[str]:
    """Count how often each file was tested, or recognised."""
    counts: Counter[str] = Counter()
    for run in runs:
        hits = run.test.probabilities.argmax(dim=1) == run.test.targets
        counts.update(file for file, hit in zip(run.test.files, hits.tolist(), strict=True) if hit or not right)
    return counts


def _notes(summaries: Mapping[str, Summary]) -> list[str]:
    """Return what the summaries note, with the names of whom it concerns where that is not all."""
    concerns: dict[str, list[str]] = {}
    for name, summary in summaries.items():
        for note in summary.notes:
            concerns.setdefault(note, []).append(name)
    notes = [
        note if len(names) == len(summaries) else f"{', '.join(names)}: {note}" for note, names in concerns.items()
    ]
    if any(summary.synthetic for summary in summaries.values()):
        notes.append(SYNTHETIC)
    return notes


# -- the verb --


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
        print(json.dumps(comparison.plain(), indent=2, ensure_ascii=False, allow_nan=False))
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
