"""How confident a network is: the temperature that calibrates it, and the quantiles of its confidence.

The confidence of a prediction is the probability of the predicted class.
"""

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from ser.runs.scores import FloatArray, IntArray

TEMPERATURES = (0.05, 20.0)  # beyond, predictions are certain or uniform
LEAST = float(np.finfo(np.float32).smallest_subnormal)  # what a probability of 0 in a network's float32 may have been
QUANTILES = tuple(share / 10 for share in range(11))  # 0, 10, ..., 100 % of the predictions are less confident


def calibration(probabilities: FloatArray, targets: IntArray) -> dict[str, Any] | None:
    """Return what a checkpoint keeps of its validation, under the key ``calibration``.

    Args:
        probabilities: (N, K), of utterances that are not trained on.
        targets: (N,) class numbers.

    Returns:
        ``temperature``, see :func:`fit_temperature`, and ``confidence_quantiles``, those of :data:`QUANTILES` of the
        confidence at this temperature; None without utterances, or where a probability is not finite.
    """
    if not len(targets) or not np.isfinite(probabilities).all():
        return None
    temperature = fit_temperature(probabilities, targets)
    confidence = tempered(probabilities, temperature).max(axis=1)
    return {"temperature": temperature, "confidence_quantiles": np.quantile(confidence, QUANTILES).tolist()}


def fit_temperature(probabilities: FloatArray, targets: IntArray) -> float:
    """Return the temperature under which the targets are most likely; over 1 if the network is overconfident.

    Args:
        probabilities: (N, K), of utterances that are neither trained on nor tested.
        targets: (N,) class numbers.
    """
    logits = np.log(np.maximum(probabilities, LEAST))
    rows = np.arange(len(targets))

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(logits / np.exp(log_temperature), axis=1)[rows, targets].mean())

    found = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def tempered(probabilities: FloatArray, temperature: float) -> FloatArray:
    """Return probabilities ** (1 / temperature), normalised again; the predicted class stays the same.

    Shape:
        (N, K) to (N, K).
    """
    logits = np.log(np.maximum(probabilities, LEAST))
    tempered: FloatArray = softmax(logits / temperature, axis=1)
    return tempered
