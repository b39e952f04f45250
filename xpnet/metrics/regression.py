"""How far numbers are off: absolute and squared errors, and R²."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

from xpnet.arrays import Array, Namespace, cast, device, namespace, same_shape, widest
from xpnet.backends import backend_of
from xpnet.errors import DataError, ShapeError
from xpnet.metrics.base import Metric, counted_weights, mean, mean_of_each, relative, total, weighted


def mean_absolute_error(prediction: Array, target: Array, *, weights: Array | None = None) -> Array:
    """mean(|ŷ − y|), in the units of the target."""
    xp, p, t, w = _pair(prediction, target, weights)
    return mean(xp, xp.abs(p - t), w)


def mean_squared_error(prediction: Array, target: Array, *, weights: Array | None = None) -> Array:
    """mean((ŷ − y)²), the value alone: the loss of that name returns its gradient too."""
    xp, p, t, w = _pair(prediction, target, weights)
    return mean(xp, (p - t) ** 2, w)


def root_mean_squared_error(prediction: Array, target: Array, *, weights: Array | None = None) -> Array:
    """√mean((ŷ − y)²), in the units of the target; of several outputs the mean, as in scikit-learn."""
    return mean_root(squared_errors(prediction, target, weights=weights))


def squared_errors(prediction: Array, target: Array, *, weights: Array | None = None) -> Array:
    """The mean squared error of each output, (O,): means over samples, which the root of them is not."""
    xp, p, t, w = _pair(prediction, target, weights)
    return mean_of_each(xp, xp.reshape((p - t) ** 2, (p.shape[0], math.prod(p.shape[1:]))), w)


def mean_root(errors: Array) -> Array:
    """Return the mean of the roots."""
    xp = namespace(errors=errors)
    return mean(xp, xp.sqrt(errors))


def r2(
    prediction: Array,
    target: Array,
    *,
    variance: float | Sequence[float] | None = None,
    weights: Array | None = None,
) -> Array:
    """R² = 1 − Σ(ŷ − y)² / Σ(y − ȳ)², ȳ the mean of the target over the samples; 1 is perfect, 0 is guessing ȳ.

    With several outputs, the mean of their R². Where a target does not vary by more than rounding, as in a batch of one
    sample, 1 if the prediction is exact and 0 if not, as in scikit-learn. NaN for no samples. With `weights` both sums
    and ȳ are weighted.

    `variance`, one number or one an output, is that of the target over the whole data: then R² is the mean of
    1 − (ŷ − y)²/variance, and the mean of batches, weighted by their sizes, is the R² of the whole, which the mean of
    their own R² is not. An output of variance 0 counts the share of exact predictions; no samples count 0.
    """
    xp, p, t, w = _pair(prediction, target, weights)
    if not p.shape[0]:
        return xp.full((), math.nan if variance is None else 0.0, dtype=p.dtype, device=device(p))
    if variance is not None:
        return _explained(xp, p - t, variance, w)
    residual, spread = _summed(xp, (p - t) ** 2, w), _spread(xp, t, w)
    score = 1.0 - residual / xp.where(spread == 0, 1.0, spread)
    score = xp.mean(xp.where(spread == 0, xp.astype(residual == 0, score.dtype), score))
    return score if w is None else xp.where(xp.sum(w) == 0, 0.0, score)


@dataclass(frozen=True)
class WholeR2:
    """`r2` of a batch as its part of the R² of the whole data, whose variance, one an output, is known."""

    variance: tuple[float, ...]
    __name__ = "r2"

    def __call__(self, prediction: Array, target: Array, *, weights: Array | None = None) -> Array:
        """Return mean(1 − (ŷ − y)²/variance)."""
        return r2(prediction, target, variance=self.variance, weights=weights)


def for_data(metric: Metric, target: Array, weights: Array | None = None) -> Metric:
    """Return the metric whose mean over batches, weighted by their sizes, is its value on the whole of this target.

    With `weights` (N,), those of the samples, batches are weighted by their sums.
    """
    return WholeR2(variance_of(target, weights)) if metric is r2 else metric


def variance_of(target: Array, weights: Array | None = None) -> tuple[float, ...]:
    """Return mean((y − ȳ)²) of each output over the samples, on the host; 0 where only rounding is left of it."""
    xp = namespace(target=target)
    n, outputs = target.shape[0], math.prod(target.shape[1:])
    if not n:
        raise DataError("expected samples to take the variance of, got none")
    t = xp.reshape(cast(xp, target, widest(xp, target)), (n, outputs))
    w = relative(xp, counted_weights(xp, target, weights, n, None, t.dtype), t.dtype)
    spread = _spread(xp, t, w)
    return tuple(backend_of(target).asnumpy(spread / n if w is None else spread / total(xp, w)).tolist())


def _pair(prediction: Array, target: Array, weights: Array | None) -> tuple[Namespace, Array, Array, Array | None]:
    """Return the namespace, prediction and target in one type and shape, and the weights of the samples."""
    xp, p, t = same_shape(prediction, target)
    w = counted_weights(xp, prediction, weights, prediction.shape[0], None, p.dtype)
    return xp, p, t, relative(xp, w, p.dtype)


def _summed(xp: Namespace, values: Array, w: Array | None) -> Array:
    """Return Σ w v over the samples."""
    return xp.sum(values if w is None else weighted(xp, values, w), axis=0)


def _spread(xp: Namespace, t: Array, w: Array | None = None) -> Array:
    """Return Σ w (y − ȳ)² over the samples, 0 where the standard deviation is below two roundings of the mean."""
    n = t.shape[0]
    if w is None:
        first, size = t[:1, ...], n
    else:
        here = xp.argmax(xp.astype(w != 0, xp.int8), axis=0, keepdims=True)
        first, size = xp.take(t, here, axis=0), xp.sum(w)
    shifted = t - first  # a constant is exactly 0, whatever its mean would be rounded to
    mean = _summed(xp, shifted, w) / (n if w is None else total(xp, w))
    spread = _summed(xp, (shifted - mean) ** 2, w)
    rounding = 2 * float(xp.finfo(t.dtype).eps) * (first[0, ...] + mean)
    return xp.where(spread <= size * rounding**2, 0.0, spread)


def _explained(xp: Namespace, error: Array, variance: float | Sequence[float], w: Array | None) -> Array:
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
        parts.append(mean(xp, part, w))
    return sum(parts) * (1.0 / max(outputs, 1))
