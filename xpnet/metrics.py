"""Metrics: plain values of prediction and target, without a gradient; 0-d arrays on the device of the prediction.

What a prediction is says its shape and type: scores or probabilities (N, C ≥ 2), the largest wins; one score a sample,
(N,) or (N, 1), class 1 above the threshold and class 0 elsewhere; class numbers, (N,) or (N, 1) and integers.
The target is class numbers (N,) or (N, 1); for one score a sample 0/1 or −1/+1, what is positive means class 1.
Scores (N, T, C) with class numbers (N, T) are N·T such rows. Rows whose class number is `ignore_index`, an integer,
count nowhere; if all are ignored the value is 0.

Values have the prediction's type, float32 if it is narrower, float64 if it is integers. A NaN is never right.
"""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Any, TypeAlias

from xpnet.arrays import Array, Namespace, cast, device, is_floating, namespace, same_shape, wide, widest
from xpnet.backends import backend_of
from xpnet.errors import DataError, ShapeError
from xpnet.losses import cross_entropy
from xpnet.losses.base import summed
from xpnet.losses.choices import choices, counting

Metric: TypeAlias = Callable[[Array, Array], Array]

NO_CLASS = -(2**31)
"""The class of a NaN."""

PIECE = 2**24
"""Samples up to which a count in float32 is exact."""


def accuracy(prediction: Array, target: Array, threshold: float = 0.0, *, ignore_index: int | None = None) -> Array:
    """The share of samples whose predicted class is right: mean(argmax(prediction) = label).

    `threshold` is for one score a sample: 0.5 where the predictions are probabilities.
    """
    xp, predicted, true, known, counts = _classes(prediction, target, threshold, ignore_index)
    return _share(xp, (predicted == true) & known, counts, wide(xp, prediction))


def zero_one(prediction: Array, target: Array, threshold: float = 0.0, *, ignore_index: int | None = None) -> Array:
    """The 0-1 loss, the share of samples that are wrong: 1 − accuracy."""
    xp, predicted, true, known, counts = _classes(prediction, target, threshold, ignore_index)
    return _share(xp, (predicted != true) | ~known, counts, wide(xp, prediction))


def top_k(scores: Array, labels: Array, k: int = 5, *, ignore_index: int | None = None) -> Array:
    """The share of rows whose label is among the k largest scores; of equal scores the first counts as the largest.

    scores (N, C), k ≤ C, and labels (N,), integers, or more axes before the last; at k = 1 it is `accuracy`.
    """
    xp = namespace(scores=scores, labels=labels)
    s, hot, share = choices(xp, scores, labels, None, ignore_index)
    classes = s.shape[1]
    if isinstance(k, bool) or not hasattr(k, "__index__") or not 1 <= operator.index(k) <= classes:
        raise ValueError(f"k must be an integer in 1..{classes}, the number of classes, got {k!r}")
    number = xp.arange(classes, dtype=xp.int32, device=device(s))[None, :]
    own = xp.sum(xp.where(hot, s, 0.0), axis=1, keepdims=True)
    place = xp.sum(xp.where(hot, number, 0), axis=1, keepdims=True, dtype=xp.int32)
    ahead = xp.sum(xp.astype((s > own) | ((s == own) & (number < place)), xp.int32), axis=1, keepdims=True)
    found = xp.sum(xp.astype(hot, xp.int32), axis=1, keepdims=True) == 1
    top = xp.max(s, axis=1, keepdims=True)  # NaN, if there is one in the row
    return summed(xp, xp.astype((ahead < operator.index(k)) & found & (top == top), s.dtype), share)


def perplexity(scores: Array, labels: Array, *, ignore_index: int | None = None) -> Array:
    """e to the cross-entropy, scores and labels as there: among how many equal choices the label would be as hard to
    guess; C for equal scores, 1 for certainty. (Jelinek et al., J. Acoust. Soc. Am. 1977)
    """
    loss = log_perplexity(scores, labels, ignore_index=ignore_index)
    return namespace(loss=loss).exp(loss)


def log_perplexity(scores: Array, labels: Array, *, ignore_index: int | None = None) -> Array:
    """The cross-entropy in nats, as a metric: a mean over rows, which perplexity is not."""
    return cross_entropy(scores, labels, ignore_index=ignore_index)[0]


def averaged(metric: Metric) -> Metric:
    """Return the metric whose mean over all rows `concluded` makes this one's value of: itself, but for perplexity."""
    if getattr(metric, "func", metric) is not perplexity:
        return metric
    settings: dict[str, Any] = getattr(metric, "keywords", {})
    return partial(log_perplexity, **settings)


def concluded(metric: Metric | None, mean: float) -> float:
    """Return a metric's value of the mean of `averaged(metric)`."""
    if getattr(metric, "func", metric) is not perplexity:
        return mean
    try:
        return math.exp(mean)
    except OverflowError:
        return math.inf


def binary_accuracy(prediction: Array, target: Array, threshold: float = 0.0) -> Array:
    """The share of single answers that are right, several labels a sample: mean((ŷ > threshold) = (y > 0)).

    prediction and target of one shape; the threshold is 0.5 where the predictions are probabilities.
    """
    xp, p, t = same_shape(prediction, target)
    right = ((p > float(threshold)) == (t > 0)) & (p == p)
    return _mean(xp, xp.astype(right, p.dtype))


def confusion_matrix(
    prediction: Array,
    target: Array,
    classes: int | None = None,
    threshold: float = 0.0,
    *,
    ignore_index: int | None = None,
) -> Array:
    """How often the label i (row) was predicted as j (column): integers (C, C).

    `classes` is C: if it is left out, the number of columns of the prediction, 2 for one score a sample, and for class
    numbers the largest of them and 1. DataError names the first that is no class; it is looked for on the host.
    """
    xp, predicted, true, known, counts = _classes(prediction, target, threshold, ignore_index)
    if predicted.dtype == xp.bool:
        predicted, true = xp.astype(predicted, xp.int32), xp.astype(true, xp.int32)
    predicted = xp.where(known, predicted, NO_CLASS)
    if counts is not None:
        predicted, true = xp.where(counts, predicted, 0), xp.where(counts, true, 0)
    if classes is None:
        classes = _count(xp, prediction, predicted, true)
    matrix = xp.zeros((classes, classes), dtype=xp.int32, device=device(prediction))
    samples = true.shape[0]
    for start in range(0, samples, PIECE):
        piece = slice(start, min(start + PIECE, samples))
        rows = _one_hot(xp, "target", true[piece], classes, start)
        columns = _one_hot(xp, "prediction", predicted[piece], classes, start)
        if counts is not None:
            columns *= xp.astype(counts[piece], xp.float32)[:, None]
        matrix += xp.astype(rows.T @ columns, xp.int32)
    return matrix


def mean_absolute_error(prediction: Array, target: Array) -> Array:
    """mean(|ŷ − y|), in the units of the target."""
    xp, p, t = same_shape(prediction, target)
    return _mean(xp, xp.abs(p - t))


def r2(prediction: Array, target: Array, *, variance: float | Sequence[float] | None = None) -> Array:
    """R² = 1 − Σ(ŷ − y)² / Σ(y − ȳ)², ȳ the mean of the target over the samples; 1 is perfect, 0 is guessing ȳ.

    With several outputs, the mean of their R². Where a target does not vary by more than rounding, as in a batch of one
    sample, 1 if the prediction is exact and 0 if not, as in scikit-learn. NaN for no samples.

    `variance`, one number or one an output, is that of the target over the whole data: then R² is the mean of
    1 − (ŷ − y)²/variance, and the mean of batches, weighted by their sizes, is the R² of the whole, which the mean of
    their own R² is not. An output of variance 0 counts the share of exact predictions; no samples count 0.
    """
    xp, p, t = same_shape(prediction, target)
    if not p.shape[0]:
        return xp.full((), math.nan if variance is None else 0.0, dtype=p.dtype, device=device(p))
    if variance is not None:
        return _explained(xp, p - t, variance)
    residual = xp.sum((p - t) ** 2, axis=0)
    spread = _spread(xp, t)
    score = 1.0 - residual / xp.where(spread == 0, 1.0, spread)
    return xp.mean(xp.where(spread == 0, xp.astype(residual == 0, score.dtype), score))


@dataclass(frozen=True)
class WholeR2:
    """`r2` of a batch as its part of the R² of the whole data, whose variance, one an output, is known."""

    variance: tuple[float, ...]
    __name__ = "r2"

    def __call__(self, prediction: Array, target: Array) -> Array:
        """Return mean(1 − (ŷ − y)²/variance)."""
        return r2(prediction, target, variance=self.variance)


def for_data(metric: Metric, target: Array) -> Metric:
    """Return the metric whose mean over batches, weighted by their sizes, is its value on the whole of this target."""
    return WholeR2(variance_of(target)) if metric is r2 else metric


def variance_of(target: Array) -> tuple[float, ...]:
    """Return mean((y − ȳ)²) of each output over the samples, on the host; 0 where only rounding is left of it."""
    xp = namespace(target=target)
    n, outputs = target.shape[0], math.prod(target.shape[1:])
    if not n:
        raise DataError("expected samples to take the variance of, got none")
    t = xp.reshape(cast(xp, target, widest(xp, target)), (n, outputs))
    return tuple(backend_of(target).asnumpy(_spread(xp, t) / n).tolist())


def _spread(xp: Namespace, t: Array) -> Array:
    """Return Σ(y − ȳ)² over the samples, 0 where the standard deviation is below two roundings of the mean."""
    shifted = t - t[:1, ...]  # a constant is exactly 0, whatever its mean would be rounded to
    mean = xp.mean(shifted, axis=0, keepdims=True)
    spread = xp.sum((shifted - mean) ** 2, axis=0)
    rounding = 2 * float(xp.finfo(t.dtype).eps) * (t[0, ...] + mean[0, ...])
    return xp.where(spread <= t.shape[0] * rounding**2, 0.0, spread)


def _explained(xp: Namespace, error: Array, variance: float | Sequence[float]) -> Array:
    """Return the mean over samples and outputs of 1 − e²/variance, or of whether e is 0 where the variance is."""
    n, outputs = error.shape[0], math.prod(error.shape[1:])
    values = (
        [float(variance)] * outputs if isinstance(variance, (float, Real)) else [float(value) for value in variance]
    )
    if len(values) != outputs:
        raise ShapeError(f"expected the variance of {outputs} outputs, got {len(values)}")
    if any(value < 0 for value in values):
        raise ValueError(f"a variance is at least 0, got {min(values)}")
    error, parts = xp.reshape(error, (n, outputs)), []
    for k, value in enumerate(values):
        e = error[:, k]
        part = xp.astype(e == 0, e.dtype) if value == 0 else 1.0 - (e / math.sqrt(value)) ** 2
        parts.append(_mean(xp, part))
    return sum(parts) * (1.0 / max(outputs, 1))


def _classes(
    prediction: Array, target: Array, threshold: float, ignore_index: int | None
) -> tuple[Namespace, Array, Array, Array, Array | None]:
    """Return the namespace, the predicted and the true classes, of one type, whether the prediction is no NaN, and
    whether the row counts, None if all do.
    """
    xp, counts = namespace(prediction=prediction, target=target), None
    scores, labels = _flat(xp, prediction), _flat(xp, target)
    if scores.ndim > 2 and scores.shape[:-1] == labels.shape:
        rows = math.prod(labels.shape)
        scores, labels = _flat(xp, xp.reshape(scores, (rows, scores.shape[-1]))), xp.reshape(labels, (rows,))
    if scores.ndim not in (1, 2) or labels.ndim != 1 or scores.shape[0] != labels.shape[0]:
        raise _misfit(tuple(prediction.shape), tuple(target.shape))
    if ignore_index is not None:
        labels, counts = counting(xp, labels, ignore_index)
    if scores.ndim == 2:
        scores = cast(xp, scores, wide(xp, scores))
        top, predicted = xp.max(scores, axis=1), xp.argmax(scores, axis=1)
    elif is_floating(xp, scores):
        return xp, scores > float(threshold), cast(xp, labels, scores.dtype) > 0, scores == scores, counts
    else:
        whole = xp.__array_namespace_info__().default_dtypes(device=device(scores))["integral"]
        top, predicted = scores, cast(xp, scores, whole)
    if is_floating(xp, labels):
        dtype = wide(xp, labels)
        return xp, xp.astype(predicted, dtype), cast(xp, labels, dtype), top == top, counts
    return xp, predicted, cast(xp, labels, predicted.dtype), top == top, counts


def _count(xp: Namespace, prediction: Array, *numbers: Array) -> int:
    """Return how many classes there are: by the columns, 2 for one score a sample, else by the largest number."""
    if prediction.ndim >= 2 and prediction.shape[-1] > 1:
        return int(prediction.shape[-1])
    if is_floating(xp, prediction):
        return 2
    largest = [float(backend_of(c).asnumpy(xp.max(c))) for c in numbers if c.shape[0]]
    return 1 + int(max((number for number in largest if math.isfinite(number)), default=0))


def _one_hot(xp: Namespace, name: str, numbers: Array, classes: int, start: int) -> Array:
    """Return 1 at each row's class, (N, C), float32; DataError for a row that has none, `start` the number of row 0."""
    hot = numbers[:, None] == xp.arange(classes, dtype=numbers.dtype, device=device(numbers))[None, :]
    lost, home = xp.sum(xp.astype(hot, xp.int32), axis=1) == 0, backend_of(numbers).asnumpy
    if home(xp.sum(xp.astype(lost, xp.int32))):
        row = int(home(xp.argmax(xp.astype(lost, xp.int8))))
        came = float(home(numbers[row]))
        text = "NaN" if came == NO_CLASS else f"{came:.15g}"
        raise DataError(f"the {name} must be a class in 0..{classes - 1}, got {text} at row {start + row}")
    return xp.astype(hot, xp.float32)


def _flat(xp: Namespace, array: Array) -> Array:
    """Return (N,) of (N, 1), anything else as it is."""
    return xp.reshape(array, array.shape[:1]) if array.ndim == 2 and array.shape[1] == 1 else array


def _misfit(one: tuple[int, ...], other: tuple[int, ...]) -> ShapeError:
    """Return the error that says what scores and labels look like, and what these may have been meant for."""
    remedy = ""
    if one == other:
        remedy = ": one-hot labels become argmax(axis=1), several labels a sample are for binary_accuracy"
    return ShapeError(f"expected scores (N, C) and labels (N,), or one score a sample, got {one} and {other}{remedy}")


def _share(xp: Namespace, hits: Array, counts: Array | None, dtype: Any) -> Array:
    """Return the share of hits among what counts, 0 if nothing does."""
    if counts is None:
        return _mean(xp, xp.astype(hits, dtype))
    total = xp.sum(xp.astype(counts, dtype))
    return xp.sum(xp.astype(hits & counts, dtype)) / xp.where(total == 0, 1.0, total)


def _mean(xp: Namespace, x: Array) -> Array:
    """Return the mean, 0 for no samples."""
    return xp.sum(x) * (1.0 / max(math.prod(x.shape), 1))
