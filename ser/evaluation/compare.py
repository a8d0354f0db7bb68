"""``ser compare``: are these systems different, or does it only look so? Paired by utterance, over all folds.

Two questions have two answers. Whether the difference would hold for other speakers: a bootstrap over speakers of the
difference of UAR. Whether it is more than chance on these utterances: McNemar's test, for which the speakers are given.

An experiment with several seeds counts with all of them, neither with the best nor as an ensemble: matrices are added
up over the seeds, and McNemar's test becomes the sign test of how many seeds recognise each utterance.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ser.errors import UserError
from ser.evaluation.pairing import obstacle, paired
from ser.evaluation.statistics import Difference, holm, paired_difference, sign_test
from ser.evaluation.summary import SCORES, Summary, speaker_confusions, summarise
from ser.runs.folder import SYNTHETIC, StoredRun

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
        hits = run.test.predicted == run.test.targets
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
