"""How often the intervals of `ser.evaluation.statistics` hold the truth, in simulations that know it.

    python benchmarks/interval_coverage.py [--speakers 4 6 8 10 24] [--repetitions 1000] [--level 0.95]

A population of speakers has a recall per class that varies from speaker to speaker: on the logit scale, an effect of
the speaker, one of the speaker's way with each class, and in one population now and then a speaker whom nothing
recognises. S speakers are drawn, and of each a number of utterances per class like a corpus has. Truth is the mean over
200,000 speakers. Per population and S the table gives, in percent, the coverage of

    score       the interval of a pooled UAR, `score_interval`, with its mean width in points,
    percentile  the same by a percentile bootstrap, for comparison (SciPy),
    difference  of two systems on the same utterances, `paired_difference`,
    gap         between two groups of S speakers each, `group_gap`,

and how often two systems that are equally good are called different at 1 - level (false alarms).
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from scipy import stats
from scipy.special import expit

from ser.evaluation.statistics import group_gap, paired_difference, score_interval
from ser.runs.scores import Counts, FloatArray, uar

TOGETHER = 0.7  # correlation of two systems' effects: who is hard for one is hard for the other
BEHIND = -0.3  # logit of the weaker system, and of the second group


@dataclass(frozen=True)
class Population:
    """Speakers, and how many utterances each has.

    Attributes:
        utterances: Mean number per class.
        uneven: Whether the numbers vary from speaker to speaker.
        level: Mean recall, logit.
        speaker: Standard deviation of the speakers' effects.
        way: Standard deviation of the effects of speaker and class.
        outcast: Probability of a speaker whom nothing recognises, 3 below the others.
    """

    utterances: tuple[float, ...]
    uneven: bool
    level: float
    speaker: float
    way: float
    outcast: float = 0.0


POPULATIONS = {
    "like RAVDESS": Population((4, 8, 8, 8, 8, 8, 8, 8), False, 0.6, 0.5, 0.5),
    "like EMO-DB": Population((12.7, 8.1, 4.6, 6.9, 7.1, 7.9, 6.2), True, 1.2, 0.5, 0.6),
    "like SAVEE": Population((15, 15, 15, 15, 15, 15, 30), False, 0.4, 0.8, 0.6),
    "like IEMOCAP": Population((29, 28, 110, 61), True, 0.5, 0.4, 0.6),
    "nearly solved": Population((8, 8, 8, 8, 8, 8, 8), True, 2.5, 0.8, 0.6),
    "with outcasts": Population((12.7, 8.1, 4.6, 6.9, 7.1, 7.9, 6.2), True, 1.2, 0.5, 0.6, outcast=0.1),
}


def recalls_of(population: Population, speakers: int, rng: np.random.Generator) -> FloatArray:
    """Draw speakers: the recalls of two equally good systems and of a weaker one, (3, speakers, K)."""
    classes = len(population.utterances)
    typical = population.level + np.linspace(-1, 1, classes)
    outcast = -3 * (rng.random((speakers, 1)) < population.outcast)

    def correlated(deviation: float, *shape: int) -> FloatArray:
        shared, own = rng.normal(size=shape), rng.normal(size=(3, *shape))
        return deviation * (TOGETHER**0.5 * shared + (1 - TOGETHER) ** 0.5 * own)

    effects = correlated(population.speaker, speakers, 1) + correlated(population.way, speakers, classes) + outcast
    return expit(typical + effects + np.array([0, 0, BEHIND])[:, None, None])


def confusions_of(population: Population, recalls: FloatArray, rng: np.random.Generator) -> Counts:
    """Draw utterances and what systems say of them, errors evenly on the other classes, (3, speakers, K, K)."""
    _, speakers, classes = recalls.shape
    mean = np.tile(population.utterances, (speakers, 1))
    counts = rng.negative_binomial(4, 4 / (4 + mean)) if population.uneven else mean.astype(int)
    errors = (1 - np.eye(classes)) / (classes - 1)
    said = recalls[..., None] * np.eye(classes) + (1 - recalls[..., None]) * errors  # (3, speakers, K, K)
    return rng.multinomial(counts, said)


def percentile_interval(confusions: Counts, level: float) -> tuple[float, float]:
    """Return SciPy's percentile bootstrap over speakers."""
    done = stats.bootstrap(
        (np.arange(len(confusions)),),
        lambda drawn, axis: uar(confusions[drawn].sum(axis=-3)),
        n_resamples=1000,
        confidence_level=level,
        method="percentile",
        vectorized=True,
        rng=0,
    ).confidence_interval
    return done.low, done.high


def coverage(
    population: Population, speakers: int, repetitions: int, level: float = 0.95, percentile: bool = True
) -> dict[str, float]:
    """Return what share of intervals held the truth, and their mean width.

    Args:
        population: Where speakers are drawn from.
        speakers: Drawn each time.
        repetitions: Number of draws.
        level: Of the intervals.
        percentile: Also try the percentile bootstrap.
    """
    rng = np.random.default_rng(0)
    truth, _, weaker = recalls_of(population, 200_000, rng).mean(axis=(1, 2))
    held: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        held.setdefault(name, []).append(value)

    for repetition in range(repetitions):
        recalls = recalls_of(population, 2 * speakers, rng)
        ours, alike, theirs = confusions_of(population, recalls, rng)
        first = slice(speakers)
        interval = score_interval(ours[first], level=level, seed=repetition)
        note("score", interval.low <= truth <= interval.high)
        note("width", interval.high - interval.low)
        if percentile:
            low, high = percentile_interval(ours[first], level)
            note("percentile", low <= truth <= high)
        difference = paired_difference(ours[first], theirs[first], level=level, seed=repetition).interval
        note("difference", difference.low <= truth - weaker <= difference.high)
        gap = group_gap(ours[first], theirs[speakers:], level=level, seed=repetition).interval
        note("gap", gap.low <= truth - weaker <= gap.high)
        note("false alarms", paired_difference(ours[first], alike[first], seed=repetition).p < 1 - level)
    return {name: float(np.nanmean(values)) for name, values in held.items()}  # no interval, no width, and a miss


def main(args: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--speakers", type=int, nargs="+", default=[4, 6, 8, 10, 24])
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--level", type=float, default=0.95)
    options = parser.parse_args(args)
    columns = ["score", "width", "percentile", "difference", "gap", "false alarms"]
    for name, population in POPULATIONS.items():
        table = Table(title=name, box=box.SIMPLE_HEAD, show_edge=False)
        for column in ("speakers", *columns):
            table.add_column(column, justify="right")
        for speakers in options.speakers:
            shares = coverage(population, speakers, options.repetitions, options.level)
            table.add_row(str(speakers), *(f"{100 * shares[column]:.1f}" for column in columns))
        Console().print(table)
    error = np.sqrt(options.level * (1 - options.level) / options.repetitions)
    print(f"Nominal {options.level:.0%}; standard error of a coverage about {100 * error:.1f}.")


if __name__ == "__main__":
    main()
