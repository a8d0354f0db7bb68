"""UAR by gender and by speaker, and the gaps between groups."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ser.evaluation.statistics import Difference, Interval, group_gap, recall_interval, score_interval
from ser.runs.scores import Counts, uar

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Group:
    """The score of a group of speakers.

    Attributes:
        name: A gender, or a speaker.
        speakers: Their number.
        utterances: Their number, each counted once however many runs tested it.
        uar: Of the group's utterances together, over the emotions that occur among them.
        interval: Of the UAR: of a gender for unseen speakers, of a speaker for unseen utterances.
    """

    name: str
    speakers: int
    utterances: int
    uar: float
    interval: Interval


@dataclass(frozen=True)
class Groups:
    """All groups, and the gap between two of them.

    Attributes:
        groups: By name; speakers from the lowest UAR to the highest.
        gap: UAR of the first less that of the second of ``between``; None where there are not two groups.
        between: Their names.
    """

    groups: Sequence[Group]
    gap: Difference | None = None
    between: tuple[str, str] | None = None


def by_gender(
    speakers: Sequence[str], confusions: Counts, genders: Mapping[str, str | None], runs: int = 1, level: float = 0.95
) -> Groups:
    """Score women, men and speakers of unknown gender, and the gap between women and men.

    Args:
        speakers: S names.
        confusions: (S, K, K), as of :func:`ser.evaluation.summary.speaker_confusions`.
        genders: Of every speaker, None where unknown.
        runs: How many runs tested each utterance.
        level: Of the intervals.
    """
    gender_of = np.array([genders.get(speaker) or UNKNOWN for speaker in speakers])
    groups = [
        _group(name, confusions[gender_of == name], runs, score_interval(confusions[gender_of == name], level=level))
        for name in sorted(set(gender_of.tolist()))
    ]
    known = [group.name for group in groups if group.name != UNKNOWN]
    if len(known) != 2:
        return Groups(groups)
    first, second = known
    gap = group_gap(confusions[gender_of == first], confusions[gender_of == second], level=level)
    return Groups(groups, gap, (first, second))


def by_speaker(speakers: Sequence[str], confusions: Counts, runs: int = 1, level: float = 0.95) -> Groups:
    """Score every speaker, and the gap between the best and the worst.

    The best and the worst of many differ by chance even where all speakers are alike. The gap's interval therefore
    holds for all pairs of speakers at once (Bonferroni): one that does not reach 0 shows that speakers differ. It has
    no p value.

    Args:
        speakers: S names.
        confusions: (S, K, K), as of :func:`ser.evaluation.summary.speaker_confusions`.
        runs: How many runs tested each utterance.
        level: Of the intervals.
    """
    means = dict(zip(speakers, confusions / runs, strict=True))
    groups = [_group(name, mean[None], 1, recall_interval(mean, level)) for name, mean in means.items()]
    groups.sort(key=lambda group: group.uar)
    if len(groups) < 2:
        return Groups(groups)
    worst, best = groups[0], groups[-1]
    pairs = math.comb(len(groups), 2)
    high, low = (recall_interval(means[group.name], 1 - (1 - level) / pairs) for group in (best, worst))
    value = best.uar - worst.uar
    # MOVER, as in recall_interval.
    below = math.hypot(best.uar - high.low, low.high - worst.uar)
    above = math.hypot(high.high - best.uar, worst.uar - low.low)
    interval = Interval(value - below, min(value + above, 1.0), level)
    return Groups(groups, Difference(value, interval, math.nan), (best.name, worst.name))


def _group(name: str, confusions: Counts, runs: int, interval: Interval) -> Group:
    pooled = confusions.sum(axis=0)
    return Group(name, len(confusions), round(float(pooled.sum()) / runs), float(uar(pooled)), interval)
