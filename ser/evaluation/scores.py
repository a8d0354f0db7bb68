"""Scores of many confusion matrices at once, in NumPy; `ser.metrics` has those of one, for a fit, in torch.

A confusion matrix counts utterances, rows by true class and columns by recognised class. It need not hold whole
numbers: the mean of several runs' matrices is one too.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ser.runs import Evaluation

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Counts = npt.NDArray[Any]  # whole numbers, or means of them
Score = Callable[[Counts], FloatArray]


def recalls(confusions: Counts) -> FloatArray:
    """Return the recall of every class, NaN for one without a true utterance; (..., K, K) to (..., K)."""
    return _ratios(_hits(confusions), confusions.sum(axis=-1))


def uar(confusions: Counts) -> FloatArray:
    """Return the unweighted average recall of the classes that occur, in [0, 1]; (..., K, K) to (...)."""
    return _mean(recalls(confusions))


def wa(confusions: Counts) -> FloatArray:
    """Return the weighted accuracy, in [0, 1]; (..., K, K) to (...)."""
    return _ratios(_hits(confusions).sum(axis=-1), confusions.sum(axis=(-2, -1)))


def macro_f1(confusions: Counts) -> FloatArray:
    """Return the mean F1 of the classes that occur, as truth or as recognised, in [0, 1]; (..., K, K) to (...)."""
    return _mean(_ratios(2 * _hits(confusions), confusions.sum(axis=-2) + confusions.sum(axis=-1)))


def _hits(confusions: Counts) -> Counts:
    hits: Counts = confusions.diagonal(axis1=-2, axis2=-1)
    return hits


def _ratios(parts: Counts, wholes: Counts) -> FloatArray:
    ratios: FloatArray = np.divide(parts, wholes, out=np.full(np.shape(parts), np.nan), where=np.asarray(wholes) > 0)
    return ratios


def _mean(values: FloatArray) -> FloatArray:
    """Return the mean of what is not NaN, over the last axis; np.nanmean would warn where nothing is."""
    there = ~np.isnan(values)
    return _ratios(np.where(there, values, 0).sum(axis=-1), there.sum(axis=-1))


def speaker_confusions(evaluations: Sequence[Evaluation]) -> tuple[list[str], IntArray]:
    """Add up what several folds and seeds said of every speaker.

    Args:
        evaluations: Of the same labels.

    Returns:
        S names, sorted, and (S, K, K).
    """
    speakers = sorted({speaker for evaluation in evaluations for speaker in evaluation.speakers})
    number = {speaker: i for i, speaker in enumerate(speakers)}
    shape = (len(speakers), *2 * [len(evaluations[0].labels)])
    confusions = np.zeros(np.prod(shape), dtype=np.int64)
    for evaluation in evaluations:
        rows = np.array([number[speaker] for speaker in evaluation.speakers])
        predicted = evaluation.probabilities.argmax(dim=1).numpy()
        cells = np.ravel_multi_index((rows, evaluation.targets.numpy(), predicted), shape)
        confusions += np.bincount(cells, minlength=len(confusions))
    return speakers, confusions.reshape(shape)
