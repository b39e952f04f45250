"""Losses: functions of prediction and target that return the value and the gradient with respect to the prediction.

Each is the mean over the batch, and for regression over the outputs too, as PyTorch's defaults are. The value is a 0-d
array on the prediction's device. A batch of no samples has the value 0.

`weights` (N,) makes it the weighted mean over the samples: L = Σₙ wₙ ℓₙ / Σₙ wₙ, and 0 if all weights are 0.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

from xpnet.arrays import Array, Namespace, device, exp_shifted, namespace, same_shape, sigmoid
from xpnet.errors import DataError, ShapeError

Loss: TypeAlias = Callable[[Array, Array], tuple[Array, Array]]


def cross_entropy(scores: Array, labels: Array, *, weights: Array | None = None) -> tuple[Array, Array]:
    """L = −1/N Σₙ log softmax(sₙ)[labelₙ]        ∂L/∂s = (softmax(s) − onehot(labels)) / N

    scores (N, C), any real numbers; labels (N,), integers in 0..C−1: one out of range makes the loss NaN.
    Infinite scores give the limit. (Goodfellow et al., "Deep Learning", 2016, section 6.2.2.3)
    """
    xp = namespace(scores=scores, labels=labels)
    hot = _one_hot(xp, scores, labels)
    shifted, exp, total = exp_shifted(xp, scores)
    share = _share(xp, scores, scores.shape[0], weights)
    log_likelihood = xp.where(hot, shifted - xp.log(total), 0.0)
    gradient = exp / total
    gradient -= xp.astype(hot, scores.dtype)
    gradient *= share
    return _poison(xp, -_total(xp, log_likelihood, share), hot), gradient


def negative_log_likelihood(
    probabilities: Array, labels: Array, *, weights: Array | None = None
) -> tuple[Array, Array]:
    """L = −1/N Σₙ log pₙ[labelₙ]        ∂L/∂p = −onehot(labels) / (N p)

    probabilities (N, C), as Softmax gives them; labels (N,), integers in 0..C−1: the lesson's own CrossEntropyLoss.
    A probability below the smallest normal number counts as that number. `cross_entropy` on scores is more accurate.
    """
    xp = namespace(probabilities=probabilities, labels=labels)
    hot = _one_hot(xp, probabilities, labels)
    share = _share(xp, probabilities, probabilities.shape[0], weights)
    p = xp.maximum(probabilities, float(xp.finfo(probabilities.dtype).smallest_normal))
    value = -_total(xp, xp.where(hot, xp.log(p), 0.0), share)
    return _poison(xp, value, hot), xp.where(hot, -share / p, 0.0)


def binary_cross_entropy(scores: Array, targets: Array, *, weights: Array | None = None) -> tuple[Array, Array]:
    """L = mean(log(1 + e^−s)·t + log(1 + e^s)·(1 − t))        ∂L/∂s = (σ(s) − t) / size

    The logistic loss: scores of any shape, any real numbers; targets of the same shape, 0 or 1 (or between).
    Computed as |s|·w + log1p(e^−|s|), w the weight of the wrong side, so that nothing overflows. (Bishop, "Pattern
    Recognition and Machine Learning", 2006, eq. 4.90)
    """
    xp, t = same_shape(scores, targets)
    wrong = xp.where(scores > 0, 1.0 - t, t)
    size = xp.abs(scores)
    value = xp.where(wrong == 0, 0.0, size) * wrong + xp.log1p(xp.exp(-size))
    share = _share(xp, scores, math.prod(scores.shape), weights)
    return _total(xp, value, share), (sigmoid(xp, scores) - t) * share


def mean_squared_error(prediction: Array, target: Array, *, weights: Array | None = None) -> tuple[Array, Array]:
    """L = mean((ŷ − y)²)        ∂L/∂ŷ = 2 (ŷ − y) / size

    The lesson's squared error; prediction and target of one shape.
    """
    xp, t = same_shape(prediction, target)
    error = prediction - t
    share = _share(xp, error, math.prod(error.shape), weights)
    return _total(xp, error * error, share), error * (2.0 * share)


def mean_absolute_error(prediction: Array, target: Array, *, weights: Array | None = None) -> tuple[Array, Array]:
    """L = mean(|ŷ − y|)        ∂L/∂ŷ = sign(ŷ − y) / size, 0 where they are equal

    The lesson's absolute error; prediction and target of one shape.
    """
    xp, t = same_shape(prediction, target)
    error = prediction - t
    share = _share(xp, error, math.prod(error.shape), weights)
    return _total(xp, xp.abs(error), share), xp.sign(error) * share


def huber(prediction: Array, target: Array, delta: float = 1.0, *, weights: Array | None = None) -> tuple[Array, Array]:
    """L = mean(h(ŷ − y)),  h(e) = ½ e² where |e| ≤ δ, else δ (|e| − ½ δ)        ∂L/∂ŷ = clip(ŷ − y, −δ, δ) / size

    Squared near zero, absolute far out; prediction and target of one shape. (Huber, Ann. Math. Statist. 1964)
    """
    xp, t = same_shape(prediction, target)
    error = prediction - t
    bounded = xp.minimum(xp.maximum(error, -delta), delta)
    share = _share(xp, error, math.prod(error.shape), weights)
    return _total(xp, bounded * (error - 0.5 * bounded), share), bounded * share


def hinge(scores: Array, targets: Array, margin: float = 1.0, *, weights: Array | None = None) -> tuple[Array, Array]:
    """L = mean(max(0, margin − y s))        ∂L/∂s = −y / size where y s ≤ margin, else 0

    scores of any shape; targets of the same shape, −1 or +1. (Rosasco et al., Neural Computation 2004)
    """
    xp, y = same_shape(scores, targets)
    short = margin - y * scores
    share = _share(xp, scores, math.prod(scores.shape), weights)
    gradient = xp.astype(short >= 0, y.dtype) * y * -share
    return _total(xp, xp.maximum(short, 0.0), share), gradient


def perceptron(scores: Array, targets: Array, *, weights: Array | None = None) -> tuple[Array, Array]:
    """L = mean(max(0, −y s))        ∂L/∂s = −y / size where y s ≤ 0, else 0

    The perceptron criterion, the hinge without a margin: only what is misclassified counts. A score of exactly 0 is
    wrong, so that training can start from zero weights. (Rosenblatt 1958; Bishop 2006, eq. 4.54)
    """
    return hinge(scores, targets, margin=0.0, weights=weights)


def _share(xp: Namespace, prediction: Array, size: int, weights: Array | None) -> Any:
    """Return what each of `size` terms counts for in the mean: one number, or with weights one a sample, (N, 1, …)."""
    if weights is None:
        return 1.0 / max(size, 1)
    n, ndim = prediction.shape[0], prediction.ndim
    if weights.shape != (n,):
        raise ShapeError(f"expected weights ({n},), one a sample, got {tuple(weights.shape)}")
    share = xp.reshape(xp.astype(weights, prediction.dtype), (n,) + (1,) * (ndim - 1))
    total = xp.sum(share)
    return share * (n / max(size, 1)) / xp.where(total == 0, 1.0, total)


def _total(xp: Namespace, values: Array, share: Any) -> Array:
    """Return Σ values · share."""
    return xp.sum(values) * share if isinstance(share, float) else xp.sum(values * share)


def _one_hot(xp: Namespace, scores: Array, labels: Array) -> Array:
    """Return the boolean (N, C) array that is True at each row's label; the standard has no scatter."""
    if not xp.isdtype(labels.dtype, "integral"):
        raise DataError(
            f"labels must be integers, got {labels.dtype}: pass class numbers 0..C-1, not one-hot or scores"
        )
    if scores.ndim != 2 or labels.ndim != 1 or scores.shape[0] != labels.shape[0]:
        came = f"{tuple(scores.shape)} and {tuple(labels.shape)}"
        raise ShapeError(f"expected scores (N, C) and labels (N,), got {came}: one-hot labels become argmax(axis=1)")
    classes = xp.arange(scores.shape[1], dtype=labels.dtype, device=device(scores))
    return labels[:, None] == classes[None, :]


def _poison(xp: Namespace, value: Array, hot: Array) -> Array:
    """Return the value, or NaN if a row has no label: a silent wrong loss would be worse."""
    return xp.where(xp.count_nonzero(hot) == hot.shape[0], value, math.nan)
