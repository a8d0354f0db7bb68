"""UAR, WA and macro-F1: functions of a confusion matrix, and the torchmetrics that accumulate it.

A confusion matrix counts utterances, rows by true class and columns by predicted class. A class without a true
utterance has no recall and is left out of the UAR, as in scikit-learn's ``balanced_accuracy_score``; torchmetrics'
own macro recall counts it as 0.
"""

from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix


def recalls(confusion: Tensor) -> Tensor:
    """Return the recall of every class, NaN for a class without a true utterance.

    Shape:
        (..., K, K) to (..., K).
    """
    return _hits(confusion) / confusion.sum(dim=-1)


def uar(confusion: Tensor) -> Tensor:
    """Return the unweighted average recall, in [0, 1]: the mean of the recalls of the classes that occur.

    Shape:
        (..., K, K) to (...).

    Example:
        >>> uar(torch.tensor([[3, 1], [0, 2]]))
        tensor(0.8750)
    """
    return recalls(confusion).nanmean(dim=-1)


def wa(confusion: Tensor) -> Tensor:
    """Return the weighted accuracy, in [0, 1]: correct utterances over all.

    Shape:
        (..., K, K) to (...).

    Example:
        >>> wa(torch.tensor([[3, 1], [0, 2]]))
        tensor(0.8333)
    """
    return _hits(confusion).sum(dim=-1) / confusion.sum(dim=(-2, -1))


def macro_f1(confusion: Tensor) -> Tensor:
    """Return the mean F1 of the classes that occur, as truth or as prediction, in [0, 1].

    Shape:
        (..., K, K) to (...).

    Example:
        >>> macro_f1(torch.tensor([[3, 1], [0, 2]]))
        tensor(0.8286)
    """
    return (2 * _hits(confusion) / (confusion.sum(dim=-2) + confusion.sum(dim=-1))).nanmean(dim=-1)


def _hits(confusion: Tensor) -> Tensor:
    return confusion.diagonal(dim1=-2, dim2=-1)


def by_utterance(
    values: Tensor, targets: Tensor, positions: Tensor, reduce: Literal["mean", "max"] = "mean"
) -> tuple[Tensor, Tensor, Tensor]:
    """Take the mean or the largest of the values, such as probabilities, of each utterance's segments.

    Args:
        values: (B, K) of every segment.
        targets: (B,) class numbers.
        positions: (B,) the utterance of each; segments of one utterance are adjacent.
        reduce: "mean" or "max".

    Returns:
        The same of every utterance, (U, K), (U,) and (U,).
    """
    utterances, index, counts = torch.unique_consecutive(positions, return_inverse=True, return_counts=True)
    reduced = values.new_zeros(len(utterances), values.shape[1])
    if reduce == "max":
        reduced.scatter_reduce_(0, index[:, None].expand_as(values), values, "amax", include_self=False)
    else:
        reduced = reduced.index_add_(0, index, values) / counts[:, None]
    return reduced, targets[counts.cumsum(0) - counts], utterances


class _OfConfusion(MulticlassConfusionMatrix):
    """Base: accumulates the confusion matrix of everything since the last reset, over all processes.

    Takes class numbers (B,) or scores (B, K), and targets (B,).
    """

    higher_is_better = True

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(num_classes, validate_args=False, **kwargs)


class UAR(_OfConfusion):
    """Unweighted average recall, see :func:`uar`."""

    def compute(self) -> Tensor:
        """Return the score, a scalar."""
        return uar(self.confmat)


class WA(_OfConfusion):
    """Weighted accuracy, see :func:`wa`."""

    def compute(self) -> Tensor:
        """Return the score, a scalar."""
        return wa(self.confmat)


class MacroF1(_OfConfusion):
    """Macro-F1, see :func:`macro_f1`."""

    def compute(self) -> Tensor:
        """Return the score, a scalar."""
        return macro_f1(self.confmat)


def emotion_metrics(num_classes: int, prefix: str = "") -> MetricCollection:
    """Return UAR, WA and macro-F1, accumulating one confusion matrix between them."""
    return MetricCollection(
        {"uar": UAR(num_classes), "wa": WA(num_classes), "macro_f1": MacroF1(num_classes)},
        prefix=prefix,
        compute_groups=[["uar", "wa", "macro_f1"]],
    )
