"""Metrics: plain values of prediction and target, without a gradient; 0-d arrays on the device of the prediction.

Class predictions are scores or probabilities (N, C), the largest wins, with integer labels (N,); or one score a sample,
positive for the class 1, with targets 0/1 or −1/+1 of the same shape.
"""

import math
from collections.abc import Callable
from typing import TypeAlias

from xpnet.arrays import Array, Namespace, device, namespace, same_shape
from xpnet.errors import ShapeError

Metric: TypeAlias = Callable[[Array, Array], Array]


def accuracy(prediction: Array, target: Array) -> Array:
    """The share of samples whose predicted class is right: mean(argmax(prediction) = label)."""
    xp = namespace(prediction=prediction, target=target)
    predicted, true = _classes(xp, prediction, target)
    return _mean(xp, xp.astype(predicted == true, prediction.dtype))


def zero_one(prediction: Array, target: Array) -> Array:
    """The 0-1 loss, the share of samples that are wrong: 1 − accuracy."""
    xp = namespace(prediction=prediction, target=target)
    predicted, true = _classes(xp, prediction, target)
    return _mean(xp, xp.astype(predicted != true, prediction.dtype))


def confusion_matrix(prediction: Array, target: Array, classes: int | None = None) -> Array:
    """How often the label i (row) was predicted as j (column): integers (C, C).

    The counts are a product of two one-hot matrices, exact up to 2²⁴ in float32; `classes` is C: the number of columns
    of the prediction if it is left out, and 2 for one score a sample.
    """
    xp = namespace(prediction=prediction, target=target)
    predicted, true = _classes(xp, prediction, target)
    count = classes or (prediction.shape[1] if prediction.ndim == 2 and prediction.shape[1] > 1 else 2)
    number = xp.arange(count, dtype=xp.int32, device=device(prediction))
    hot = [xp.astype(xp.reshape(c, (-1, 1)) == number[None, :], prediction.dtype) for c in (true, predicted)]
    return xp.astype(hot[0].T @ hot[1], xp.int32)


def mean_absolute_error(prediction: Array, target: Array) -> Array:
    """mean(|ŷ − y|), in the units of the target."""
    xp, t = same_shape(prediction, target)
    return _mean(xp, xp.abs(prediction - t))


def r2(prediction: Array, target: Array) -> Array:
    """R² = 1 − Σ(ŷ − y)² / Σ(y − ȳ)², ȳ the mean of the target over the samples; 1 is perfect, 0 is guessing ȳ.

    With several outputs, the mean of their R². Where a target does not vary, as in a batch of one sample, 1 if the
    prediction is exact and 0 if not, as in scikit-learn.
    """
    xp, t = same_shape(prediction, target)
    residual = xp.sum((prediction - t) ** 2, axis=0)
    spread = xp.sum((t - xp.mean(t, axis=0, keepdims=True)) ** 2, axis=0)
    score = 1.0 - residual / xp.where(spread == 0, 1.0, spread)
    return xp.mean(xp.where(spread == 0, xp.astype(residual == 0, score.dtype), score))


def _classes(xp: Namespace, prediction: Array, target: Array) -> tuple[Array, Array]:
    """Return the predicted and the true class numbers."""
    if prediction.ndim == 2 and target.ndim == 1 and prediction.shape[0] == target.shape[0]:
        return xp.astype(xp.argmax(prediction, axis=1), xp.int32), xp.astype(target, xp.int32)
    if prediction.shape == target.shape:
        return xp.astype(prediction > 0, xp.int32), xp.astype(target > 0, xp.int32)
    came = f"{tuple(prediction.shape)} and {tuple(target.shape)}"
    raise ShapeError(f"expected scores (N, C) and labels (N,), or one shape for both, got {came}")


def _mean(xp: Namespace, x: Array) -> Array:
    """Return the mean, 0 for no samples."""
    return xp.sum(x) * (1.0 / max(math.prod(x.shape), 1))
