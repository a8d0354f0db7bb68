"""UAR, WA and macro-F1 of many confusion matrices at once, in NumPy, and how they are written.

`ser.training.metrics` has them in torch.

A confusion matrix counts utterances, rows by true class and columns by predicted class. It need not hold whole
numbers: the mean of several runs' matrices is one too. A class without a true utterance has no recall and is left out
of the UAR, as in scikit-learn's ``balanced_accuracy_score``.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Counts = npt.NDArray[Any]  # whole numbers, or means of them
Score = Callable[[Counts], FloatArray]


def recalls(confusions: Counts) -> FloatArray:
    """Return the recall of every class, NaN for one without a true utterance; (..., K, K) to (..., K)."""
    return _shares(_hits(confusions), confusions.sum(axis=-1))


def uar(confusions: Counts) -> FloatArray:
    """Return the unweighted average recall of the classes that occur, in [0, 1]; (..., K, K) to (...)."""
    return _mean(recalls(confusions))


def wa(confusions: Counts) -> FloatArray:
    """Return the weighted accuracy, in [0, 1]; (..., K, K) to (...)."""
    return _shares(_hits(confusions).sum(axis=-1), confusions.sum(axis=(-2, -1)))


def macro_f1(confusions: Counts) -> FloatArray:
    """Return the mean F1 of the classes that occur, as truth or as prediction, in [0, 1]; (..., K, K) to (...)."""
    return _mean(_shares(2 * _hits(confusions), confusions.sum(axis=-2) + confusions.sum(axis=-1)))


SCORES = {"uar": uar, "wa": wa, "macro_f1": macro_f1}
NAMES = {"uar": "UAR", "wa": "WA", "macro_f1": "macro-F1"}


def percent(share: float | None, digits: int = 1) -> str:
    """Write a share in percent; a dash where it is None or NaN."""
    return "–" if share is None or math.isnan(share) else f"{share:.{digits}%}"


def points(share: float, sign: str = "") -> str:
    """Write a share, or a difference of shares, in percentage points; with the sign "+", with its sign."""
    return "–" if math.isnan(share) else f"{100 * share:{sign}.1f}"


def in_words(scores: Mapping[str, float], separator: str = ", ") -> str:
    """Write UAR, WA and macro-F1 in a line."""
    return separator.join(f"{name} {percent(scores[key])}" for key, name in NAMES.items())


def confusion_matrix(targets: IntArray, predicted: IntArray, classes: int) -> IntArray:
    """Count N utterances by true and predicted class; (N,) and (N,) to (K, K)."""
    return np.bincount(targets * classes + predicted, minlength=classes**2).reshape(classes, classes)


def _hits(confusions: Counts) -> Counts:
    return confusions.diagonal(axis1=-2, axis2=-1)


def _shares(part: Counts, whole: Counts) -> FloatArray:
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
        return np.asarray(part / whole)


def _mean(values: FloatArray) -> FloatArray:
    """Return the mean of what is not NaN, over the last axis."""
    return _shares(np.nansum(values, axis=-1), (~np.isnan(values)).sum(axis=-1))
