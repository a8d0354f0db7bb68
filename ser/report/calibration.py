"""The report's calibration and selective prediction."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ser.evaluation.calibration import Reliability, calibrated, reliability, selective
from ser.evaluation.summary import Summary
from ser.report.parts import Plot, TextTable
from ser.report.plots import coverage_figure, reliability_figure
from ser.runs.folder import Evaluation
from ser.runs.scores import NAMES, percent

POINTS = 100  # of a curve
FEWEST = 20  # accepted utterances of a point of the curve, and at least a tenth of all
COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)  # of the table


@dataclass(frozen=True)
class Calibration:
    """How well probabilities are calibrated.

    Attributes:
        text: In words.
        reliability: Accuracy over confidence.
        coverage: Scores over the share of utterances that are accepted.
    """

    text: list[str]
    reliability: Plot
    coverage: Plot


def calibration(id: str, summary: Summary) -> Calibration:
    """Return calibration as it is and, where there is a separate validation split, with a fitted temperature."""
    shown = {"as it is": _reliability([run.test for run in summary.runs])}
    fitted = [found for run in summary.runs if (found := calibrated(run)) is not None]
    error = percent(shown["as it is"].expected_calibration_error)
    text = f"Expected calibration error {error}: the mean distance of confidence and accuracy."
    if len(fitted) == len(summary.runs):
        temperatures = [temperature for temperature, _ in fitted]
        shown["with temperature"] = _reliability([evaluation for _, evaluation in fitted])
        lowest, highest = (f"{value:.2f}" for value in (min(temperatures), max(temperatures)))
        temperature = lowest if lowest == highest else f"{lowest} to {highest}"
        error = percent(shown["with temperature"].expected_calibration_error)
        text += f" With a temperature of {temperature}, fitted on the validation split of each run, it is {error}."
    else:
        text += " No temperature was fitted: not every run has a validation split apart from its test split."
    return Calibration([text], _reliability_plot(f"{id}-reliability", shown), _coverage_plot(f"{id}-coverage", summary))


def _reliability(evaluations: Sequence[Evaluation]) -> Reliability:
    probabilities = np.concatenate([evaluation.probabilities for evaluation in evaluations])
    return reliability(probabilities, np.concatenate([evaluation.targets for evaluation in evaluations]))


def _reliability_plot(id: str, shown: dict[str, Reliability]) -> Plot:
    series = {
        name: list(zip(found.confidence.tolist(), found.accuracy.tolist(), found.count.tolist(), strict=True))
        for name, found in shown.items()
    }
    rows = [
        [name, percent(confidence), percent(accuracy), str(count)]
        for name, bins in series.items()
        for confidence, accuracy, count in bins
    ]
    return Plot(
        id=id,
        description="Accuracy over confidence, the probability of the predicted emotion, in bins of equal width; a "
        "larger mark stands for more utterances. Below the diagonal the network is overconfident.",
        figure=reliability_figure(series),
        table=TextTable("Reliability", ["probabilities", "confidence", "accuracy", "utterances"], rows),
    )


def _coverage_plot(id: str, summary: Summary) -> Plot:
    found = selective(summary.pooled.probabilities, summary.pooled.targets)
    accepted = found.coverage * len(summary.pooled.files)
    begin = int(np.argmax((accepted > FEWEST - 0.5) & (found.coverage >= 0.1))) if accepted[-1] >= FEWEST else 0
    chosen = np.unique(np.linspace(begin, len(found.coverage) - 1, POINTS).round().astype(int))
    scores = {NAMES[name]: getattr(found, name)[chosen].tolist() for name in ("wa", "uar")}
    rows = []
    for wanted in COVERAGES:
        at = int(np.searchsorted(found.coverage, wanted - 1e-9))  # the first threshold that accepts as many
        numbers = (found.coverage[at], found.threshold[at], found.wa[at], found.uar[at])
        rows.append([percent(float(number)) for number in numbers])
    return Plot(
        id=id,
        description="Scores over coverage, the share of utterances that are accepted when the least confident "
        f"predictions are rejected; from {FEWEST} utterances on. UAR is over the emotions that still occur.",
        figure=coverage_figure(found.coverage[chosen].tolist(), scores, 1 / len(summary.pooled.labels)),
        table=TextTable("Selective prediction", ["coverage", "least confidence", *scores], rows),
    )
