"""Several experiments beside each other: who is best, and by more than chance."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ser.errors import UserError
from ser.evaluation.compare import SIGNIFICANT, Comparison, Contrast, compare
from ser.evaluation.report_experiments import Experiment
from ser.evaluation.report_parts import NAMES, Plot, TextTable, percent, point, remarks, sentence
from ser.evaluation.report_plots import dots_figure
from ser.evaluation.summary import Summary


@dataclass(frozen=True)
class League:
    """All experiments, the best first.

    Attributes:
        text: What can be said of them.
        table: Their scores, and how far each is from the best.
        plot: UAR of each.
    """

    text: list[str]
    table: TextTable
    plot: Plot


def league(id: str, experiments: Sequence[Experiment]) -> League:
    """Rank experiments by the UAR of all their utterances, and hold each against the best where that is possible."""
    try:
        comparison = _against_the_best(experiments)
    except UserError as error:  # not measured on the same
        ranked = sorted(experiments, key=lambda experiment: -experiment.summary.scores["uar"].pooled)
        text = ["No significance is given, because a difference may come from what was measured.", str(error)]
        return _league(id, {experiment.name: experiment.summary for experiment in ranked}, {}, text, [])
    return _league(id, comparison.summaries, comparison.contrasts, [_verdict(comparison)], _explained(comparison))


def _against_the_best(experiments: Sequence[Experiment]) -> Comparison:
    """Compare with the best in what can be compared, which may be fewer seeds than there are."""
    runs = {experiment.name: experiment.summary.runs for experiment in experiments}
    shared = compare(runs).summaries
    return compare({name: runs[name] for name in sorted(shared, key=lambda name: -shared[name].scores["uar"].pooled)})


def _league(
    id: str, summaries: Mapping[str, Summary], contrasts: Mapping[str, Contrast], text: list[str], notes: list[str]
) -> League:
    what = [[summary.corpus, summary.protocol] for summary in summaries.values()]
    differ = any(facts != what[0] for facts in what)
    header = ["experiment", *(["corpus", "protocol"] if differ else []), "runs", *NAMES.values()]
    header += ["UAR less the best's", "p", "McNemar p"] if contrasts else []
    rows = []
    for (name, summary), facts in zip(summaries.items(), what, strict=True):
        row = [name, *(facts if differ else []), str(len(summary.runs))]
        row += [percent(score.pooled) for score in summary.scores.values()]
        if contrasts:
            row += _cells(contrasts[name]) if name in contrasts else ["the best", "", ""]
        rows.append(row)
    uars = {name: summary.scores["uar"] for name, summary in summaries.items()}
    intervals = [score.interval for score in uars.values()]
    bounds = [[name, percent(score.pooled), str(score.interval)] for name, score in uars.items()]
    differences = [contrast.difference.interval for contrast in contrasts.values()]
    level = percent(intervals[0].level, 0)
    plot = Plot(
        id=id,
        description=f"UAR of all utterances of each experiment with its {level} interval for other speakers, the best "
        "first.",
        figure=dots_figure(list(uars), {"UAR": [point(s.pooled, s.interval) for s in uars.values()]}, "UAR"),
        table=TextTable("UAR", ["experiment", "UAR", "interval"], bounds),
    )
    table = TextTable(
        "All utterances of each experiment, the best first",
        header,
        rows,
        words=3 if differ else 1,
        notes=[*notes, *remarks([*intervals, *differences])],
    )
    return League(text, table, plot)


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
