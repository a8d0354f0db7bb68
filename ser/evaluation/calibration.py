"""Calibration, temperature scaling and selective prediction.

The confidence of a prediction is the probability of the predicted class.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ser.runs.confidence import fit_temperature, tempered
from ser.runs.folder import Evaluation, StoredRun
from ser.runs.scores import FloatArray, IntArray, uar, wa

BINS = 10


@dataclass(frozen=True)
class Reliability:
    """Accuracy against confidence, over M bins of equal width that are not empty.

    Attributes:
        confidence: (M,) mean confidence of the bin's predictions.
        accuracy: (M,) their accuracy.
        count: (M,) their number.
    """

    confidence: FloatArray
    accuracy: FloatArray
    count: IntArray

    @property
    def expected_calibration_error(self) -> float:
        """Mean distance of accuracy and confidence over all predictions, in [0, 1].

        Source: C. Guo et al., "On calibration of modern neural networks", 2017, eq. 3.
        """
        return float(np.average(np.abs(self.accuracy - self.confidence), weights=self.count))


@dataclass(frozen=True)
class Selective:
    """Scores when the least confident predictions are rejected, over M thresholds of confidence.

    Attributes:
        threshold: (M,) least confidence that is accepted, falling.
        coverage: (M,) share of utterances that are accepted, rising to 1.
        wa: (M,) accuracy of the accepted predictions.
        uar: (M,) their unweighted average recall, over the classes that occur among them.
    """

    threshold: FloatArray
    coverage: FloatArray
    wa: FloatArray
    uar: FloatArray


def reliability(probabilities: FloatArray, targets: IntArray, bins: int = BINS) -> Reliability:
    """Return accuracy against confidence.

    Args:
        probabilities: (N, K).
        targets: (N,) class numbers.
        bins: Number of bins of equal width between 0 and 1; empty ones are left out.
    """
    confidence, right = _confidence(probabilities, targets)
    number = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence)  # (N,)
    count = np.bincount(number, minlength=bins)
    filled = count > 0
    sums = [np.bincount(number, weights=values, minlength=bins)[filled] for values in (confidence, right)]
    return Reliability(sums[0] / count[filled], sums[1] / count[filled], count[filled])


def selective(probabilities: FloatArray, targets: IntArray) -> Selective:
    """Return scores when the least confident predictions are rejected; those of equal confidence together.

    Args:
        probabilities: (N, K).
        targets: (N,) class numbers.
    """
    confidence, _ = _confidence(probabilities, targets)
    order = np.argsort(-confidence)
    total, classes = probabilities.shape
    cells = targets[order] * classes + probabilities.argmax(axis=1)[order]
    counts = np.zeros((total, classes**2), dtype=np.int64)
    counts[np.arange(total), cells] = 1
    last = np.flatnonzero(np.diff(confidence[order], append=-1))  # of predictions of equal confidence
    confusions = counts.cumsum(axis=0)[last].reshape(-1, classes, classes)  # (M, K, K)
    return Selective(confidence[order][last], (last + 1) / total, wa(confusions), uar(confusions))


def calibrated(run: StoredRun) -> tuple[float, Evaluation] | None:
    """Fit the temperature on a run's validation split and apply it to the test split.

    Returns:
        The temperature and the test split with tempered probabilities; None where there are no validation
        predictions, or where the protocol validates on the test split.
    """
    if run.validation is None or run.protocol["test_is_validation"]:
        return None
    temperature = fit_temperature(run.validation.probabilities, run.validation.targets)
    return temperature, replace(run.test, probabilities=tempered(run.test.probabilities, temperature))


def _confidence(probabilities: FloatArray, targets: IntArray) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Return the confidence of every prediction and whether it is right, (N,) each."""
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
