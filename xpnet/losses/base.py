"""What all losses share: a prediction and its target as numbers of one type, and the share of each term in the mean."""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

from xpnet.arrays import Array, Namespace, cast, is_floating, namespace, same_shape, wide
from xpnet.errors import ShapeError

Loss: TypeAlias = Callable[[Array, Array], tuple[Array, Array]]


def pair(prediction: Array, target: Array, weights: Array | None) -> tuple[Namespace, Array, Array, Any]:
    """Return the namespace, prediction and target as numbers of one type and shape, and the share of each term."""
    xp, p, t = same_shape(prediction, target)
    if weights is None:
        return xp, p, t, 1.0 / max(math.prod(p.shape), 1)
    check_weights(p, weights)
    return xp, *weighed(xp, p, t, math.prod(p.shape), weights)


def check_weights(prediction: Array, weights: Array) -> None:
    """Raise ShapeError or TypeError unless there is one weight a sample, in an array of the same library."""
    namespace(prediction=prediction, weights=weights)
    n = prediction.shape[0]
    if weights.shape != (n,):
        raise ShapeError(f"expected weights ({n},), one a sample, got {tuple(weights.shape)}")


def weighed(
    xp: Namespace, p: Array, t: Array, size: int, weights: Array, factor: Array | None = None
) -> tuple[Array, Array, Array]:
    """Return prediction and target, 0 where the weight is, and the share of each of `size` terms, (N, 1, …).

    Each row's share is its weight divided by Σ weight · factor.
    """
    n = p.shape[0]
    weights = cast(xp, weights, xp.result_type(wide(xp, weights), p.dtype))
    absent = weights == 0
    if n:
        largest = xp.max(weights)  # the prediction's type may not hold them as they are
        weights = weights / xp.where(largest == 0, 1.0, largest)
    p, t = (xp.where(xp.reshape(absent, (n,) + (1,) * (a.ndim - 1)), 0, a) for a in (p, t))
    share = cast(xp, weights, p.dtype)
    total = xp.sum(share if factor is None else share * factor)
    share = xp.reshape(share, (n,) + (1,) * (p.ndim - 1))
    return p, t, share * (n / max(size, 1)) / xp.where(total == 0, 1.0, total)


def summed(xp: Namespace, values: Array, share: Any) -> Array:
    """Return Σ values · share."""
    return xp.sum(values) * share if isinstance(share, float) else xp.sum(values * share)


def like(xp: Namespace, gradient: Array, prediction: Array) -> Array:
    """Return the gradient in the prediction's shape, and in its type, if that is a floating one."""
    if gradient.shape != prediction.shape:
        gradient = xp.reshape(gradient, prediction.shape)
    if gradient.dtype == prediction.dtype or not is_floating(xp, prediction):
        return gradient
    return xp.astype(gradient, prediction.dtype)
