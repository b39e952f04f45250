"""Activations on NumPy, in as few passes as they take: what is between stays in the processor's cache."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from xpnet.arrays import Array, Namespace

BLOCK = 1 << 14
"""Numbers of a part."""


def gelu(backend: Any, x: Array, exact: bool) -> tuple[Array, Callable[[Array], Array]] | None:
    """y = ½ x (1 + t), t = tanh(c x (1 + k x²)), and `dx(dy)`: dy times ½ (1 + t + x (1 − t²) c (1 + 3 k x²))."""
    if exact or x.size < BLOCK:
        return None
    c, k, far = math.sqrt(2.0 / math.pi), 0.044715, 1e2  # beyond ±far, t is ±1 in any precision
    xs = np.ascontiguousarray(x).reshape(-1)
    y, slope = np.empty((2, xs.size), x.dtype)
    most = np.full(BLOCK, far, x.dtype)  # NumPy takes the larger of two arrays faster than of an array and a number
    least = -most
    for start in range(0, xs.size, BLOCK):
        part = slice(start, start + BLOCK)
        t, s = y[part], slope[part]
        low = np.maximum(xs[part], least[: t.size])
        near = np.minimum(low, most[: t.size])
        np.multiply(near, near, out=s)
        np.multiply(s, c * k, out=t)
        t += c
        t *= near
        np.tanh(t, out=t)
        s *= 3.0 * c * k
        s += c
        s *= near
        near = t * t
        s *= np.subtract(1.0, near, out=near)
        t += 1.0
        s += t
        s *= 0.5
        t *= low
        t *= 0.5
    return y.reshape(x.shape), lambda dy: dy * slope.reshape(x.shape)


def sigmoid(xp: Namespace, x: Array) -> Array | None:
    """1 / (1 + e^−x), x at least so large that e^−x is finite."""
    if not x.ndim:
        return None
    s = np.maximum(x, x.dtype.type(-700.0 if x.dtype.itemsize == 8 else -87.0))
    np.negative(s, out=s)
    np.exp(s, out=s)
    s += s.dtype.type(1.0)
    return np.reciprocal(s, out=s)
