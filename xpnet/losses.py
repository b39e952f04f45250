"""Losses: functions of prediction and target that return the value and the gradient with respect to the prediction.

Each is the mean over the batch, and for regression over the outputs too, as PyTorch's defaults are. The value is a 0-d
array on the prediction's device. A batch of no samples has the value 0.
"""

import math
from collections.abc import Callable
from typing import TypeAlias

from xpnet.arrays import Array, Namespace, device, exp_shifted, namespace, same_shape, sigmoid
from xpnet.errors import DataError, ShapeError

Loss: TypeAlias = Callable[[Array, Array], tuple[Array, Array]]


def cross_entropy(scores: Array, labels: Array) -> tuple[Array, Array]:
    """L = −1/N Σₙ log softmax(sₙ)[labelₙ]        ∂L/∂s = (softmax(s) − onehot(labels)) / N

    scores (N, C), any real numbers; labels (N,), integers in 0..C−1: one out of range makes the loss NaN.
    Infinite scores give the limit. (Goodfellow et al., "Deep Learning", 2016, section 6.2.2.3)
    """
    xp = namespace(scores=scores, labels=labels)
    hot = _one_hot(xp, scores, labels)
    shifted, exp, total = exp_shifted(xp, scores)
    n = max(scores.shape[0], 1)
    log_likelihood = xp.where(hot, shifted - xp.log(total), 0.0)
    gradient = exp / total
    gradient -= xp.astype(hot, scores.dtype)
    gradient *= 1.0 / n
    return _poison(xp, xp.sum(log_likelihood) * (-1.0 / n), hot), gradient


def negative_log_likelihood(probabilities: Array, labels: Array) -> tuple[Array, Array]:
    """L = −1/N Σₙ log pₙ[labelₙ]        ∂L/∂p = −onehot(labels) / (N p)

    probabilities (N, C), as Softmax gives them; labels (N,), integers in 0..C−1: the lesson's own CrossEntropyLoss.
    A probability below the smallest normal number counts as that number. `cross_entropy` on scores is more accurate.
    """
    xp = namespace(probabilities=probabilities, labels=labels)
    hot = _one_hot(xp, probabilities, labels)
    n = max(probabilities.shape[0], 1)
    p = xp.maximum(probabilities, float(xp.finfo(probabilities.dtype).smallest_normal))
    value = xp.sum(xp.where(hot, xp.log(p), 0.0)) * (-1.0 / n)
    return _poison(xp, value, hot), xp.where(hot, (-1.0 / n) / p, 0.0)


def binary_cross_entropy(scores: Array, targets: Array) -> tuple[Array, Array]:
    """L = mean(log(1 + e^−s)·t + log(1 + e^s)·(1 − t))        ∂L/∂s = (σ(s) − t) / size

    The logistic loss: scores of any shape, any real numbers; targets of the same shape, 0 or 1 (or between).
    Computed as |s|·w + log1p(e^−|s|), w the weight of the wrong side, so that nothing overflows. (Bishop, "Pattern
    Recognition and Machine Learning", 2006, eq. 4.90)
    """
    xp, t = same_shape(scores, targets)
    wrong = xp.where(scores > 0, 1.0 - t, t)
    size = xp.abs(scores)
    value = xp.where(wrong == 0, 0.0, size) * wrong + xp.log1p(xp.exp(-size))
    n = max(math.prod(scores.shape), 1)
    return xp.sum(value) * (1.0 / n), (sigmoid(xp, scores) - t) * (1.0 / n)


def mean_squared_error(prediction: Array, target: Array) -> tuple[Array, Array]:
    """L = mean((ŷ − y)²)        ∂L/∂ŷ = 2 (ŷ − y) / size

    The lesson's squared error; prediction and target of one shape.
    """
    xp, t = same_shape(prediction, target)
    error = prediction - t
    n = max(math.prod(error.shape), 1)
    return xp.sum(error * error) * (1.0 / n), error * (2.0 / n)


def mean_absolute_error(prediction: Array, target: Array) -> tuple[Array, Array]:
    """L = mean(|ŷ − y|)        ∂L/∂ŷ = sign(ŷ − y) / size, 0 where they are equal

    The lesson's absolute error; prediction and target of one shape.
    """
    xp, t = same_shape(prediction, target)
    error = prediction - t
    n = max(math.prod(error.shape), 1)
    return xp.sum(xp.abs(error)) * (1.0 / n), xp.sign(error) * (1.0 / n)


def huber(prediction: Array, target: Array, delta: float = 1.0) -> tuple[Array, Array]:
    """L = mean(h(ŷ − y)),  h(e) = ½ e² where |e| ≤ δ, else δ (|e| − ½ δ)        ∂L/∂ŷ = clip(ŷ − y, −δ, δ) / size

    Squared near zero, absolute far out; prediction and target of one shape. (Huber, Ann. Math. Statist. 1964)
    """
    xp, t = same_shape(prediction, target)
    error = prediction - t
    bounded = xp.minimum(xp.maximum(error, -delta), delta)
    n = max(math.prod(error.shape), 1)
    return xp.sum(bounded * (error - 0.5 * bounded)) * (1.0 / n), bounded * (1.0 / n)


def hinge(scores: Array, targets: Array, margin: float = 1.0) -> tuple[Array, Array]:
    """L = mean(max(0, margin − y s))        ∂L/∂s = −y / size where y s ≤ margin, else 0

    scores of any shape; targets of the same shape, −1 or +1. (Rosasco et al., Neural Computation 2004)
    """
    xp, y = same_shape(scores, targets)
    short = margin - y * scores
    n = max(math.prod(scores.shape), 1)
    gradient = xp.astype(short >= 0, y.dtype) * y * (-1.0 / n)
    return xp.sum(xp.maximum(short, 0.0)) * (1.0 / n), gradient


def perceptron(scores: Array, targets: Array) -> tuple[Array, Array]:
    """L = mean(max(0, −y s))        ∂L/∂s = −y / size where y s ≤ 0, else 0

    The perceptron criterion, the hinge without a margin: only what is misclassified counts. A score of exactly 0 is
    wrong, so that training can start from zero weights. (Rosenblatt 1958; Bishop 2006, eq. 4.54)
    """
    return hinge(scores, targets, margin=0.0)


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
    return xp.where(xp.all(xp.any(hot, axis=1)), value, math.nan)
