"""Several experiments beside each other: who is best, and by more than chance."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ser.evaluation.compare import SIGNIFICANT, Comparison, Contrast, compare
from ser.evaluation.experiments import Experiment
from ser.evaluation.pairing import obstacle
from ser.evaluation.summary import Summary
from ser.report.parts import NAMES, Plot, TextTable, percent, point, remarks, sentence
from ser.report.plots import Point, dots_figure


@dataclass(frozen=True)
class League:
    """All experiments.

    Attributes:
        text: What can be said of them.
        tables: Scores of those that were measured on the same, the best first, and how far each is from the best; at
            last those that stand alone.
        plot: UAR of each.
    """

    text: list[str]
    tables: list[TextTable]
    plot: Plot


def league(id: str, experiments: Sequence[Experiment]) -> League:
    """Rank experiments by the UAR of all their utterances, each among those that were measured on the same."""
    classes = _comparable(experiments)
    comparisons = [_against_the_best(those) for those in classes if len(those) > 1]
    single = {those[0].name: those[0].summary for those in classes if len(those) == 1}
    ranked = {name: summary for comparison in comparisons for name, summary in comparison.summaries.items()}
    main = classes[0][0]
    text = [_verdict(comparison) for comparison in comparisons]
    if not comparisons:
        text.append("No two were measured on the same, so none is ranked: what was measured may make a difference.")
    alone = TextTable(
        "Not ranked, since measured on something else" if comparisons else "Not ranked",
        ["experiment", "runs", *NAMES.values()],
        [[name, str(len(s.runs)), *_scores(s)] for name, s in single.items()],
        notes=[
            f"{name}, beside {main.name}: {why}."
            for name, summary in single.items()
            if (why := obstacle(main.summary.runs, summary.runs))
        ],
    )
    tables = [*(_ranking(comparison) for comparison in comparisons), *([alone] if single else [])]
    return League(text, tables, _plot(id, ranked, single))


def _comparable(experiments: Sequence[Experiment]) -> list[list[Experiment]]:
    """Divide experiments into those that were measured on the same; those with the most rivals and folds first."""
    classes: list[list[Experiment]] = []
    for experiment in experiments:
        runs = experiment.summary.runs
        rivals = next((those for those in classes if not obstacle(those[0].summary.runs, runs)), None)
        if rivals is None:
            classes.append([experiment])
        else:
            rivals.append(experiment)
    return sorted(classes, key=lambda those: (-len(those), -len(those[0].summary.folds)))


def _against_the_best(experiments: Sequence[Experiment]) -> Comparison:
    """Compare with the best in what can be compared, which may be fewer seeds than there are."""
    runs = {experiment.name: experiment.summary.runs for experiment in experiments}
    shared = compare(runs).summaries
    return compare({name: runs[name] for name in sorted(shared, key=lambda name: -shared[name].scores["uar"].pooled)})


def _ranking(comparison: Comparison) -> TextTable:
    contrasts = comparison.contrasts
    rows = [
        [name, str(len(summary.runs)), *_scores(summary)]
        + (_cells(contrasts[name]) if name in contrasts else ["the best", "", ""])
        for name, summary in comparison.summaries.items()
    ]
    first = next(iter(comparison.summaries.values()))
    marked = [summary.scores["uar"].interval for summary in comparison.summaries.values()]
    marked += [contrast.difference.interval for contrast in contrasts.values()]
    return TextTable(
        f"All utterances of each experiment on {first.corpus}, {first.protocol}, the best first",
        ["experiment", "runs", *NAMES.values(), "UAR less the best's", "p", "McNemar p"],
        rows,
        notes=[*_explained(comparison), *remarks(marked)],
    )


def _scores(summary: Summary) -> list[str]:
    return [percent(score.pooled) for score in summary.scores.values()]


def _plot(id: str, ranked: Mapping[str, Summary], single: Mapping[str, Summary]) -> Plot:
    both = {**ranked, **single}
    uars = {name: summary.scores["uar"] for name, summary in both.items()}
    marks = {name: point(score.pooled, score.interval) for name, score in uars.items()}
    series = {
        said: [marks[name] if name in those else Point(None) for name in both]
        for said, those in (("ranked", ranked), ("measured on something else", single))
        if those
    }
    chances = {1 / len(summary.pooled.labels) for summary in both.values()}
    level = percent(next(iter(uars.values())).interval.level, 0)
    return Plot(
        id=id,
        description=f"UAR of all utterances of each experiment with its {level} interval for other speakers"
        + (", the best of those that were measured on the same first." if ranked else "."),
        figure=dots_figure(list(both), series, "UAR", chance=chances.pop() if len(chances) == 1 else None),
        table=TextTable(
            "UAR",
            ["experiment", "UAR", "interval"],
            [[name, percent(score.pooled), str(score.interval)] for name, score in uars.items()],
        ),
    )


def _verdict(comparison: Comparison) -> str:
    contrasts = comparison.contrasts
    worse = [name for name, contrast in contrasts.items() if contrast.adjusted_p < SIGNIFICANT]
    equal = [name for name in contrasts if name not in worse]
    said = [f"{next(iter(comparison.summaries))} has the highest UAR."]
    if worse:
        said.append(f"For other speakers too it would be above {', '.join(worse)} (p < {SIGNIFICANT}).")
    if equal:
        said.append(f"That it differs from {', '.join(equal)} is not shown.")
    return " ".join(said)


def _explained(comparison: Comparison) -> list[str]:
    corrected = ""
    if len(comparison.contrasts) > 1:
        corrected = f", both corrected for {len(comparison.contrasts)} comparisons (Holm)"
    said = (
        "Differences are in points of UAR, paired by utterance, with their interval; p: whether they would hold for "
        f"other speakers; McNemar p: whether they are more than chance on these utterances{corrected}."
    )
    return [said, *map(sentence, comparison.notes)]


def _cells(contrast: Contrast) -> list[str]:
    difference = contrast.difference
    value = f"{100 * difference.value:+.1f} {difference.interval}"
    return [value, _p(contrast.adjusted_p), _p(contrast.adjusted_mcnemar_p)]


def _p(value: float) -> str:
    if math.isnan(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
