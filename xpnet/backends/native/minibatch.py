"""What a training step does besides products, on NumPy: a batch gathered, its scores judged, its gradient measured."""

import math
from functools import lru_cache
from typing import Any

import numpy as np

from xpnet.arrays import Array, Namespace
from xpnet.backends.native import loops

FLOATS = np.dtype(np.float32), np.dtype(np.float64)
UNSIGNED = {np.dtype(f"{kind}{size}"): np.dtype(f"u{size}") for kind in "iu" for size in (1, 2, 4)}
"""Labels of these types can be read without their sign."""
MOST = 1000
"""Classes, above which the identity matrix is large."""


def gather(xp: Namespace, x: Array, y: Array, index: Array, dtype: str) -> tuple[Array, Array]:
    """The rows of x and y; bytes as numbers of `dtype`, where Numba is."""
    rows, labels = x.take(index, 0), y.take(index, 0)
    if rows.dtype == np.uint8 and dtype != "uint8":
        numbers = np.empty(rows.shape, dtype)
        rows = numbers if loops.cast(rows.reshape(-1), numbers.reshape(-1)) else rows
    return rows, labels


def cross_entropy(scores: Array, labels: Array) -> tuple[Array, Array] | None:
    """L = 1/N Σₙ (log Σ_c e^(s_c − max s) − (s_label − max s)) and ∂L/∂s; finite scores (N, C), labels in 0..C−1.

    Sums over rows are in float64. The gradient without Numba has the plain form's bits.
    """
    n = labels.size
    if scores.ndim != 2 or scores.dtype not in FLOATS or labels.shape != scores.shape[:1] or not n:
        return None
    if scores.shape[1] < 2 or labels.dtype not in UNSIGNED:
        return None
    gradient, value = np.empty(scores.shape, scores.dtype), np.empty(1)
    if loops.cross_entropy(scores, labels, gradient, value):
        loss = float(value[0])
    else:
        loss = _judged(scores, labels, gradient)
    return (scores.dtype.type(loss), gradient) if math.isfinite(loss) else None


def _judged(scores: Array, labels: Array, gradient: Array) -> float:
    """The same, operation by operation."""
    hot = _one_hot(labels, scores.shape[1], scores.dtype)
    if hot is None:
        return math.nan
    np.subtract(scores, np.maximum.reduce(scores, axis=1, keepdims=True), out=gradient)
    likely = np.einsum("ij,ij", gradient, hot, dtype=np.float64)
    np.exp(gradient, out=gradient)
    total = np.add.reduce(gradient, axis=1, keepdims=True)
    gradient /= total
    gradient -= hot
    share = 1.0 / labels.size
    gradient *= share
    value: float = share * (np.add.reduce(np.log(total), axis=None, dtype=np.float64) - likely)
    return value


def _one_hot(labels: Array, classes: int, dtype: Any) -> Array | None:
    """Return the rows of the identity matrix that labels name; None if one is out of range, or there are too many."""
    if classes > MOST:
        return None
    try:
        return np.take(_identity(classes, dtype), labels.view(UNSIGNED[labels.dtype]), axis=0)
    except IndexError:  # a negative label, read without its sign, is large
        return None


def measure(xp: Namespace, gradient: Any, alive: Any, loss: Any) -> tuple[Any, Any] | None:
    """The gradient's 2-norm, and whether it and the loss are finite and `alive` is true."""
    if isinstance(gradient, tuple):
        return None
    norm = np.sqrt(np.dot(gradient, gradient))
    finite = math.isfinite(norm) and (loss is None or math.isfinite(loss)) and (alive is None or bool(alive))
    return norm, np.bool_(finite)


@lru_cache(maxsize=8)
def _identity(classes: int, dtype: Any) -> Array:
    return np.eye(classes, dtype=dtype)
