"""Statistics of features: mean and standard deviation over the training rows."""

import numpy as np
import torch
from torch import Tensor

from ser.features.shards import IntArray, Rows

ROWS_AT_ONCE = 4096  # statistics that are merged at once
FEATURES_AT_ONCE = 64  # rows that are read at once for statistics by frame


def feature_statistics(rows: Rows, chosen: IntArray, by_frame: bool = False) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each feature over the valid frames of some rows.

    Every row's own mean and sum of squared deviations were stored when it was computed; they are merged here
    (Chan, Golub and LeVeque 1979), so no feature is read again.

    Args:
        rows: Of a feature store, of shape (..., T) each.
        chosen: Numbers of the rows.
        by_frame: Compute them for each frame, over the rows alone, which are read and must have all T frames.

    Returns:
        Two tensors of shape (..., 1), or (..., T) by frame, float32.
    """
    at_once = FEATURES_AT_ONCE if by_frame else ROWS_AT_ONCE
    total, mean, squares = 0.0, np.zeros(()), np.zeros(())
    for start in range(0, len(chosen), at_once):
        some = chosen[start : start + at_once]
        if by_frame:
            counts, means, deviations = np.ones(len(some)), rows.read(some).astype(np.float64), np.zeros(())
        else:
            counts = rows.lengths[some].astype(np.float64)
            means, deviations = np.moveaxis(rows.moments(some)[..., None], 1, 0)  # (rows, ..., 1) each
        counts = counts.reshape(-1, *[1] * len(rows.shape))
        count = counts.sum()
        centre = (counts * means).sum(axis=0) / count
        within = (deviations + counts * (means - centre) ** 2).sum(axis=0)
        apart = centre - mean
        squares = squares + within + apart**2 * total * count / (total + count)
        mean = mean + apart * count / (total + count)
        total += count
    return torch.from_numpy(mean).float(), torch.from_numpy(np.sqrt(squares / total)).float()
