"""Losses: functions of prediction and target that return the value and the gradient with respect to the prediction.

Each is the mean over the batch, and for regression over the outputs too, as PyTorch's defaults are. The value is a 0-d
array on the prediction's device. A batch of no samples has the value 0. Predictions (N, 1) and targets (N,), or the
reverse, are one shape; other shapes are never broadcast.

Value and gradient have the prediction's type. A prediction narrower than float32 is computed in float32 and its value
stays so; one of integers is computed in float64 (float32 where there is none), and so is its gradient.

`weights` (N,) makes it the weighted mean over the samples: L = Σₙ wₙ ℓₙ / Σₙ wₙ, and 0 if all weights are 0. Only their
ratios count. A sample of weight 0 is left out, were its term NaN. Weights are ≥ 0: a NaN among them makes the loss NaN,
negative ones are not looked for.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

from xpnet.arrays import (
    Array,
    Namespace,
    cast,
    device,
    exp_shifted,
    is_floating,
    namespace,
    same_shape,
    sigmoid,
    wide,
)
from xpnet.errors import DataError, ShapeError

Loss: TypeAlias = Callable[[Array, Array], tuple[Array, Array]]


def cross_entropy(scores: Array, labels: Array, *, weights: Array | None = None) -> tuple[Array, Array]:
    """L = −1/N Σₙ log softmax(sₙ)[labelₙ]        ∂L/∂s = (softmax(s) − onehot(labels)) / N

    scores (N, C), any real numbers, C ≥ 2; labels (N,), integers in 0..C−1: one out of range makes the loss NaN.
    Infinite scores give the limit. (Goodfellow et al., "Deep Learning", 2016, section 6.2.2.3)
    """
    xp = namespace(scores=scores, labels=labels)
    s, hot, share = _choices(xp, scores, labels, weights)
    shifted, exp, total = exp_shifted(xp, s)
    log_likelihood = xp.where(hot, shifted - xp.log(total), 0.0)
    gradient = exp / total
    gradient -= xp.astype(hot, s.dtype)
    gradient *= share
    return _poison(xp, -_total(xp, log_likelihood, share), hot), _like(xp, gradient, scores)


def negative_log_likelihood(
    probabilities: Array, labels: Array, *, weights: Array | None = None
) -> tuple[Array, Array]:
    """L = −1/N Σₙ log pₙ[labelₙ]        ∂L/∂p = −onehot(labels) / (N p)

    probabilities (N, C), as Softmax gives them; labels (N,), integers in 0..C−1: the lesson's own CrossEntropyLoss.
    A probability below the smallest normal number counts as that number. `cross_entropy` on scores is more accurate.
    """
    xp = namespace(probabilities=probabilities, labels=labels)
    p, hot, share = _choices(xp, probabilities, labels, weights)
    own = probabilities.dtype if is_floating(xp, probabilities) else p.dtype
    p = xp.maximum(p, float(xp.finfo(own).smallest_normal))
    value = -_total(xp, xp.where(hot, xp.log(p), 0.0), share)
    return _poison(xp, value, hot), _like(xp, xp.where(hot, -share / p, 0.0), probabilities)


def binary_cross_entropy(scores: Array, targets: Array, *, weights: Array | None = None) -> tuple[Array, Array]:
    """L = mean(log(1 + e^−s)·t + log(1 + e^s)·(1 − t))        ∂L/∂s = (σ(s) − t) / size

    The logistic loss: scores of any shape, any real numbers; targets of the same shape, 0 or 1 (or between).
    Computed as |s|·w + log1p(e^−|s|), w the weight of the wrong side, so that nothing overflows. (Bishop, "Pattern
    Recognition and Machine Learning", 2006, eq. 4.90)
    """
    xp, s, t, share = _pair(scores, targets, weights)
    wrong = xp.where(s > 0, 1.0 - t, t)
    size = xp.abs(s)
    value = xp.where(wrong == 0, 0.0, size) * wrong + xp.log1p(xp.exp(-size))
    return _total(xp, value, share), _like(xp, (sigmoid(xp, s) - t) * share, scores)


def mean_squared_error(prediction: Array, target: Array, *, weights: Array | None = None) -> tuple[Array, Array]:
    """L = mean((ŷ − y)²)        ∂L/∂ŷ = 2 (ŷ − y) / size

    The lesson's squared error; prediction and target of one shape.
    """
    xp, p, t, share = _pair(prediction, target, weights)
    error = p - t
    return _total(xp, error * error, share), _like(xp, error * (2.0 * share), prediction)


def mean_absolute_error(prediction: Array, target: Array, *, weights: Array | None = None) -> tuple[Array, Array]:
    """L = mean(|ŷ − y|)        ∂L/∂ŷ = sign(ŷ − y) / size, 0 where they are equal

    The lesson's absolute error; prediction and target of one shape.
    """
    xp, p, t, share = _pair(prediction, target, weights)
    error = p - t
    size = xp.abs(error)
    sign = xp.where(error > 0, 1.0, xp.where(error < 0, -1.0, size))  # size is 0 or NaN there; xp.sign may synchronise
    return _total(xp, size, share), _like(xp, sign * share, prediction)


def huber(prediction: Array, target: Array, delta: float = 1.0, *, weights: Array | None = None) -> tuple[Array, Array]:
    """L = mean(h(ŷ − y)),  h(e) = ½ e² where |e| ≤ δ, else δ (|e| − ½ δ)        ∂L/∂ŷ = clip(ŷ − y, −δ, δ) / size

    Squared near zero, absolute far out, δ > 0; prediction and target of one shape. (Huber, Ann. Math. Statist. 1964)
    """
    if not delta > 0:
        raise ValueError(f"delta must be above 0, got {delta}")
    xp, p, t, share = _pair(prediction, target, weights)
    error, delta = p - t, float(delta)
    bounded = xp.minimum(xp.maximum(error, -delta), delta)
    return _total(xp, bounded * (error - 0.5 * bounded), share), _like(xp, bounded * share, prediction)


def hinge(scores: Array, targets: Array, margin: float = 1.0, *, weights: Array | None = None) -> tuple[Array, Array]:
    """L = mean(max(0, margin − y s))        ∂L/∂s = −y / size where y s ≤ margin, else 0

    scores of any shape; targets of the same shape, −1 or +1; margin ≥ 0. (Rosasco et al., Neural Computation 2004)
    """
    if not margin >= 0:
        raise ValueError(f"margin must be at least 0, got {margin}")
    xp, s, y, share = _pair(scores, targets, weights)
    short = float(margin) - y * s
    gradient = xp.astype(short >= 0, y.dtype) * y * -share
    return _total(xp, xp.maximum(short, 0.0), share), _like(xp, gradient, scores)


def perceptron(scores: Array, targets: Array, *, weights: Array | None = None) -> tuple[Array, Array]:
    """L = mean(max(0, −y s))        ∂L/∂s = −y / size where y s ≤ 0, else 0

    The perceptron criterion, the hinge without a margin: only what is misclassified counts. A score of exactly 0 is
    wrong, so that training can start from zero weights. (Rosenblatt 1958; Bishop 2006, eq. 4.54)
    """
    return hinge(scores, targets, margin=0.0, weights=weights)


def _pair(prediction: Array, target: Array, weights: Array | None) -> tuple[Namespace, Array, Array, Any]:
    """Return the namespace, prediction and target as numbers of one type and shape, and the share of each term."""
    xp, p, t = same_shape(prediction, target)
    if weights is None:
        return xp, p, t, 1.0 / max(math.prod(p.shape), 1)
    return xp, *_weighed(xp, p, t, math.prod(p.shape), weights)


def _choices(xp: Namespace, scores: Array, labels: Array, weights: Array | None) -> tuple[Array, Array, Any]:
    """Return the scores as numbers, the boolean (N, C) array that is True at each row's label, and each row's share."""
    _check_choices(xp, scores, labels)
    n, classes = scores.shape
    scores, share = cast(xp, scores, wide(xp, scores)), 1.0 / max(n, 1)
    if weights is not None:
        scores, labels, share = _weighed(xp, scores, labels, n, weights)
    if classes > 128 and labels.dtype in (xp.int8, xp.uint8, xp.int16, xp.uint16):
        labels = xp.astype(labels, xp.int32)  # their numbers may not reach the last class
    number = xp.arange(classes, dtype=labels.dtype, device=device(scores))
    return scores, labels[:, None] == number[None, :], share  # the standard has no scatter


def _check_choices(xp: Namespace, scores: Array, labels: Array) -> None:
    """Raise DataError or ShapeError unless these are scores (N, C ≥ 2) and class numbers (N,)."""
    if not xp.isdtype(labels.dtype, "integral"):
        raise DataError(
            f"labels must be integers, got {labels.dtype}: pass class numbers 0..C-1, not one-hot or scores"
        )
    one, other = tuple(scores.shape), tuple(labels.shape)
    if len(one) != 2 or other != one[:1]:
        remedy = ": make the labels 1-d, labels[:, 0]" if other == (*one[:1], 1) else ""
        remedy = ": one-hot labels become argmax(axis=1)" if len(one) == 2 and one == other else remedy
        raise ShapeError(f"expected scores (N, C) and labels (N,), got {one} and {other}{remedy}")
    if one[1] < 2:
        raise ShapeError(
            f"expected scores (N, C) of two classes or more, got {one}, and one output has nothing to choose between: "
            "use binary_cross_entropy, or two outputs"
        )


def _weighed(xp: Namespace, p: Array, t: Array, size: int, weights: Array) -> tuple[Array, Array, Array]:
    """Return prediction and target, 0 where the weight is, and the share of each of `size` terms, (N, 1, …)."""
    namespace(prediction=p, weights=weights)
    n = p.shape[0]
    if weights.shape != (n,):
        raise ShapeError(f"expected weights ({n},), one a sample, got {tuple(weights.shape)}")
    weights = cast(xp, weights, xp.result_type(wide(xp, weights), p.dtype))
    absent = weights == 0
    if n:
        largest = xp.max(weights)  # the prediction's type may not hold them as they are
        weights = weights / xp.where(largest == 0, 1.0, largest)
    p, t = (xp.where(xp.reshape(absent, (n,) + (1,) * (a.ndim - 1)), 0, a) for a in (p, t))
    share = xp.reshape(cast(xp, weights, p.dtype), (n,) + (1,) * (p.ndim - 1))
    total = xp.sum(share)
    return p, t, share * (n / max(size, 1)) / xp.where(total == 0, 1.0, total)


def _total(xp: Namespace, values: Array, share: Any) -> Array:
    """Return Σ values · share."""
    return xp.sum(values) * share if isinstance(share, float) else xp.sum(values * share)


def _like(xp: Namespace, gradient: Array, prediction: Array) -> Array:
    """Return the gradient in the prediction's type, if that is a floating one."""
    if gradient.dtype == prediction.dtype or not is_floating(xp, prediction):
        return gradient
    return xp.astype(gradient, prediction.dtype)


def _poison(xp: Namespace, value: Array, hot: Array) -> Array:
    """Return the value, or NaN if a row has no label: a silent wrong loss would be worse."""
    found = xp.sum(xp.astype(hot, xp.int32))  # CuPy compiles for seconds before its first count_nonzero, any or all
    return xp.where(found == hot.shape[0], value, math.nan)
