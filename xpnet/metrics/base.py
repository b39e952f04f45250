"""What all metrics share: what each row counts, and the mean over what counts."""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

from xpnet.arrays import Array, Namespace, cast, wide
from xpnet.losses.base import check_weights

Metric: TypeAlias = Callable[..., Array]
"""`metric(prediction, target, weights=None)`, a 0-d array."""


def counted_weights(
    xp: Namespace, prediction: Array, weights: Array | None, rows: int, counts: Array | None, dtype: Any
) -> Array | None:
    """Return what each of R rows counts, (R,), 0 for one that does not, None if all count alike.

    A sample's weight is that of each of its rows. ShapeError or TypeError unless weights are (N,), one a sample.
    """
    if weights is None:
        return None if counts is None else xp.astype(counts, dtype)
    check_weights(prediction, weights)
    n = prediction.shape[0]
    weights = cast(xp, weights, xp.result_type(wide(xp, weights), dtype))
    if rows != n:
        weights = xp.reshape(xp.broadcast_to(weights[:, None], (n, rows // max(n, 1))), (rows,))
    return weights if counts is None else xp.where(counts, weights, 0.0)


def relative(xp: Namespace, weights: Array | None, dtype: Any) -> Array | None:
    """Return the weights in that type, which may not hold them as they are: the largest is 1."""
    if weights is None:
        return None
    if weights.shape[0]:
        largest = xp.max(weights)
        weights = weights / xp.where(largest == 0, 1.0, largest)
    return cast(xp, weights, dtype)


def mean(xp: Namespace, values: Array, weights: Array | None = None) -> Array:
    """Return the mean of all values (N, …), each sample weighed by its weight; 0 if there are none, or none counts."""
    size = math.prod(values.shape)
    if weights is None:
        return xp.sum(values) * (1.0 / max(size, 1))
    n = values.shape[0]
    return xp.sum(weighted(xp, values, weights)) * (n / max(size, 1)) / total(xp, weights)


def mean_of_each(xp: Namespace, values: Array, weights: Array | None = None) -> Array:
    """Return the mean over the first axis of values (N, K), as in `mean`: (K,)."""
    if weights is None:
        return xp.sum(values, axis=0) * (1.0 / max(values.shape[0], 1))
    return xp.sum(weighted(xp, values, weights), axis=0) / total(xp, weights)


def weighted(xp: Namespace, values: Array, weights: Array) -> Array:
    """Return values (N, …) times the weights of their samples; 0 where that is 0, were the value NaN."""
    each = xp.reshape(weights, (values.shape[0],) + (1,) * (values.ndim - 1))
    return xp.where(each == 0, 0.0, values) * each


def total(xp: Namespace, weights: Array) -> Array:
    """Return what to divide a weighted sum by: Σ w, 1 if it is 0."""
    summed = xp.sum(weights)
    return xp.where(summed == 0, 1.0, summed)
