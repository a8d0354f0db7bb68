"""The comparison of several experiments: a ranking, with the significance of differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ser.evaluation.compare import SIGNIFICANT, Comparison, Contrast, compare
from ser.evaluation.experiments import Experiment
from ser.evaluation.pairing import obstacle
from ser.evaluation.statistics import p_value, remarks
from ser.evaluation.summary import Summary
from ser.report.parts import Plot, TextTable, point, sentence
from ser.report.plots import Point, dots_figure
from ser.runs.scores import NAMES, percent, points


@dataclass(frozen=True)
class League:
    """All experiments.

    Attributes:
        text: Which is best.
        tables: Scores of those that were tested on the same data, the best first, with the difference of each from the
            best; then the others.
        plot: UAR of each.
    """

    text: list[str]
    tables: list[TextTable]
    plot: Plot


def league(id: str, experiments: Sequence[Experiment]) -> League:
    """Rank experiments by pooled UAR, each among those that were tested on the same data."""
    classes = _comparable(experiments)
    comparisons = [_against_the_best(those) for those in classes if len(those) > 1]
    single = {those[0].name: those[0].summary for those in classes if len(those) == 1}
    ranked = {name: summary for comparison in comparisons for name, summary in comparison.summaries.items()}
    main = classes[0][0]
    text = [_verdict(comparison) for comparison in comparisons]
    if not comparisons:
        text.append("No two experiments were tested on the same data, so none is ranked.")
    alone = TextTable(
        "Not ranked: tested on other data" if comparisons else "Not ranked",
        ["experiment", "runs", *NAMES.values()],
        [[name, str(len(s.runs)), *_scores(s)] for name, s in single.items()],
        notes=[
            f"{name} and {main.name}: {why}."
            for name, summary in single.items()
            if (why := obstacle(main.summary.runs, summary.runs))
        ],
    )
    tables = [*(_ranking(comparison) for comparison in comparisons), *([alone] if single else [])]
    return League(text, tables, _plot(id, ranked, single))


def _comparable(experiments: Sequence[Experiment]) -> list[list[Experiment]]:
    """Group experiments that were tested on the same data; the largest group, with the most folds, first."""
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
    """Compare with the best, by the seeds that all share."""
    runs = {experiment.name: experiment.summary.runs for experiment in experiments}
    shared = compare(runs).summaries
    return compare({name: runs[name] for name in sorted(shared, key=lambda name: -shared[name].scores["uar"].pooled)})


def _ranking(comparison: Comparison) -> TextTable:
    contrasts = comparison.contrasts
    rows = [
        [name, str(len(summary.runs)), *_scores(summary)]
        + (_cells(contrasts[name]) if name in contrasts else ["best", "", ""])
        for name, summary in comparison.summaries.items()
    ]
    first = next(iter(comparison.summaries.values()))
    notes = [comparison.explanation, *map(sentence, comparison.notes), *remarks(comparison.intervals)]
    return TextTable(
        f"Pooled scores on {first.corpus}, {first.protocol}, the best first",
        ["experiment", "runs", *NAMES.values(), "UAR difference", "p", "McNemar p"],
        rows,
        notes=notes,
    )


def _scores(summary: Summary) -> list[str]:
    return [percent(score.pooled) for score in summary.scores.values()]


def _plot(id: str, ranked: Mapping[str, Summary], single: Mapping[str, Summary]) -> Plot:
    both = {**ranked, **single}
    uars = {name: summary.scores["uar"] for name, summary in both.items()}
    marks = {name: point(score.pooled, score.interval) for name, score in uars.items()}
    series = {
        which: [marks[name] if name in those else Point(None) for name in both]
        for which, those in (("ranked", ranked), ("tested on other data", single))
        if those
    }
    rows = [[name, percent(score.pooled), str(score.interval)] for name, score in uars.items()]
    chances = {1 / len(summary.pooled.labels) for summary in both.values()}
    interval = next(iter(uars.values())).interval.name
    return Plot(
        id=id,
        description=f"Pooled UAR of each experiment with its {interval} for unseen speakers."
        + (" Of experiments tested on the same data, the best comes first." if ranked else ""),
        figure=dots_figure(list(both), series, "UAR", chance=chances.pop() if len(chances) == 1 else None),
        table=TextTable("UAR", ["experiment", "UAR", "interval"], rows),
    )


def _verdict(comparison: Comparison) -> str:
    contrasts = comparison.contrasts
    worse = [name for name, contrast in contrasts.items() if contrast.significant]
    equal = [name for name in contrasts if name not in worse]
    verdict = f"{next(iter(comparison.summaries))} has the highest UAR."
    if worse:
        verdict += f" It is significantly higher across speakers than that of {', '.join(worse)} (p < {SIGNIFICANT})."
    if equal:
        verdict += f" It does not differ significantly from that of {', '.join(equal)}."
    return verdict


def _cells(contrast: Contrast) -> list[str]:
    difference = f"{points(contrast.difference.value, '+')} {contrast.difference.interval}"
    return [difference, p_value(contrast.adjusted_p), p_value(contrast.adjusted_mcnemar_p)]
