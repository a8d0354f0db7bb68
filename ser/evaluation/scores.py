"""Scores of many confusion matrices at once: those of `ser.training.metrics`, in NumPy.

A confusion matrix counts utterances, rows by true class and columns by recognised class. It need not hold whole
numbers: the mean of several runs' matrices is one too.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ser.runs.folder import Evaluation
from ser.training import metrics

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Counts = npt.NDArray[Any]  # whole numbers, or means of them
Score = Callable[[Counts], FloatArray]


def recalls(confusions: Counts) -> FloatArray:
    """Return the recall of every class, NaN for one without a true utterance; (..., K, K) to (..., K)."""
    return _with(metrics.recalls, confusions)


def uar(confusions: Counts) -> FloatArray:
    """Return the unweighted average recall of the classes that occur, in [0, 1]; (..., K, K) to (...)."""
    return _with(metrics.uar, confusions)


def wa(confusions: Counts) -> FloatArray:
    """Return the weighted accuracy, in [0, 1]; (..., K, K) to (...)."""
    return _with(metrics.wa, confusions)


def macro_f1(confusions: Counts) -> FloatArray:
    """Return the mean F1 of the classes that occur, as truth or as recognised, in [0, 1]; (..., K, K) to (...)."""
    return _with(metrics.macro_f1, confusions)


def _with(score: Callable[[Tensor], Tensor], confusions: Counts) -> FloatArray:
    scores: FloatArray = score(torch.from_numpy(np.asarray(confusions, np.float64))).numpy()
    return scores


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
