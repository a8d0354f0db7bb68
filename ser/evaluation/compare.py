"""Comparison of systems, paired by utterance over all folds.

Two questions, two tests. Is the difference of UAR significant across speakers? A bootstrap over speakers. Is it
significant on these utterances, of these speakers? McNemar's test.

An experiment with several seeds counts with all of them, neither with the best nor as an ensemble: confusion matrices
are summed over the seeds, and McNemar's test becomes the sign test of how many seeds are right about each utterance.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ser.errors import UserError
from ser.evaluation.pairing import obstacle, paired
from ser.evaluation.statistics import Difference, Interval, holm, paired_difference, plain, sign_test
from ser.evaluation.summary import Summary, speaker_confusions, summarise
from ser.runs.folder import SYNTHETIC, StoredRun
from ser.runs.scores import SCORES

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Contrast:
    """How an experiment differs from the first.

    Attributes:
        difference: Its UAR less the first's, with interval and p value across speakers.
        adjusted_p: The p value after Holm, for as many contrasts as there are.
        mcnemar_p: Of McNemar's exact test on these utterances.
        adjusted_mcnemar_p: The same after Holm.
    """

    difference: Difference
    adjusted_p: float
    mcnemar_p: float
    adjusted_mcnemar_p: float

    @property
    def significant(self) -> bool:
        """Whether the difference is significant across speakers."""
        return self.adjusted_p < SIGNIFICANT


@dataclass(frozen=True)
class Comparison:
    """Experiments that were tested on the same data.

    Attributes:
        summaries: Scores of the runs that are compared, by the experiment's name.
        contrasts: Of every experiment but the first, with the first.
        notes: What to know when reading the comparison.
    """

    summaries: Mapping[str, Summary]
    contrasts: Mapping[str, Contrast]
    notes: Sequence[str]

    @property
    def explanation(self) -> str:
        """What the differences and p values mean."""
        number = len(self.contrasts)
        corrected = f" Both are corrected for {number} comparisons (Holm), the intervals are not." if number > 1 else ""
        return (
            "Differences are in points of UAR, paired by utterance, with their interval for unseen speakers. p tests "
            f"the difference across speakers, McNemar p on these utterances.{corrected}"
        )

    @property
    def intervals(self) -> list[Interval]:
        """Those of the UARs and of their differences."""
        scores = [summary.scores["uar"].interval for summary in self.summaries.values()]
        return scores + [contrast.difference.interval for contrast in self.contrasts.values()]

    def plain(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        experiments = [
            {
                "name": name,
                "system": summary.system,
                "runs": [str(run.path) for run in summary.runs],
                **{
                    score: {"value": summary.scores[score].pooled, "interval": plain(summary.scores[score].interval)}
                    for score in SCORES
                },
                "contrast": plain(self.contrasts.get(name)),
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
        UserError: There are fewer than two, one mixes settings or holds a run twice, or none can be compared with the
            first.
    """
    if len(experiments) < 2:
        raise UserError(f"A comparison needs two runs or experiments; there is {len(experiments) or 'none'}.")
    first = next(iter(experiments))
    obstacles = {name: obstacle(experiments[first], runs) for name, runs in experiments.items()}
    others = [name for name, why in obstacles.items() if why]
    if len(others) < len(experiments) - 1:  # some can be compared
        experiments = {name: runs for name, runs in experiments.items() if name not in others}
    summaries = {name: summarise(runs, level) for name, runs in experiments.items()}
    chosen, left_out = paired({name: summary.runs for name, summary in summaries.items()})
    left_out += [
        f"{name} is left out: it and {first} were not tested on the same data: {obstacles[name]}." for name in others
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
    """Count how often each file was tested, or predicted right."""
    counts: Counter[str] = Counter()
    for run in runs:
        hits = run.test.predicted == run.test.targets
        counts.update(file for file, hit in zip(run.test.files, hits.tolist(), strict=True) if hit or not right)
    return counts


def _notes(summaries: Mapping[str, Summary]) -> list[str]:
    """Return the notes of the summaries; one that not all share, with the names of those that do."""
    noted: dict[str, list[str]] = {}
    for name, summary in summaries.items():
        for note in summary.notes:
            noted.setdefault(note, []).append(name)
    notes = [note if len(names) == len(summaries) else f"{', '.join(names)}: {note}" for note, names in noted.items()]
    if any(summary.synthetic for summary in summaries.values()):
        notes.append(SYNTHETIC)
    return notes
