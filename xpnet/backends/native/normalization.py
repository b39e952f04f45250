"""Norms on NumPy, band by band; over rows also as loops: x is read three times, and nothing of its size is kept."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from xpnet.arrays import Array, Namespace
from xpnet.backends.native import loops

BLOCK = 1 << 15
"""Numbers of a band."""


def standardize_rows(
    xp: Namespace, x: Array, gamma: Array, beta: Array, eps: float
) -> tuple[Array, Array, Array, Any] | None:
    """y = γ (x − μ) / √(σ² + ε) + β, μ, σ², and the pullback of y."""
    rows = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
    if not rows.size:
        return None
    mean, variance = _moments(rows)
    scale = 1.0 / np.sqrt(variance + x.dtype.type(eps))
    factor = gamma * scale
    y = np.empty_like(rows)
    if not loops.shift(rows, mean, factor, beta, y):
        for band in _bands(rows):
            part = np.subtract(rows[band], mean, out=y[band])
            part *= factor
            part += beta

    def backward(dy: Array, need_dx: bool) -> tuple[Array | None, tuple[Array, Array]]:
        g = np.ascontiguousarray(dy).reshape(rows.shape)
        dot, dbeta = _sums(rows, mean, g)
        dgamma = dot * scale
        if not need_dx:
            return None, (dgamma, dbeta)
        share = x.dtype.type(1.0 / len(rows))
        return _input(rows, mean, g, dgamma * scale * -share, dbeta * share, factor).reshape(x.shape), (dgamma, dbeta)

    return y.reshape(x.shape), mean, variance, backward


def standardize_features(backend: Any, x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Any] | None:
    """y = γ (x − μ) / √(σ² + ε) + β over the last axis, and its pullback."""
    rows = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
    if rows.size < BLOCK:
        return None
    hat, y, scale = np.empty_like(rows), np.empty_like(rows), np.empty((len(rows), 1), rows.dtype)
    share = np.full((rows.shape[1], 1), 1.0 / rows.shape[1], rows.dtype)
    for band in _bands(rows):
        d, part, own = hat[band], y[band], scale[band]
        np.subtract(rows[band], rows[band] @ share, out=d)
        rest = d @ share
        np.multiply(d, d, out=part)
        np.divide(1.0, np.sqrt(part @ share - rest * rest + rows.dtype.type(eps)), out=own)
        d *= own
        np.multiply(d, gamma, out=part)
        part += beta

    def backward(dy: Array, need_dx: bool) -> tuple[Array | None, tuple[Array, Array]]:
        g = np.ascontiguousarray(dy).reshape(rows.shape)
        dgamma, dbeta = np.zeros((2, rows.shape[1]), rows.dtype)
        dx = np.empty_like(rows) if need_dx else None
        for band in _bands(rows):
            own = g[band] * hat[band]
            ones = np.ones(len(own), rows.dtype)
            dgamma += ones @ own
            dbeta += ones @ g[band]
            if dx is None:
                continue
            own *= gamma
            part = np.multiply(g[band], gamma, out=dx[band])
            along = own @ share
            part -= part @ share
            part -= np.multiply(hat[band], along, out=own)
            part *= scale[band]
        return None if dx is None else dx.reshape(x.shape), (dgamma, dbeta)

    return y.reshape(x.shape), backward


def _bands(rows: Array) -> Iterator[slice]:
    count = max(1, BLOCK // rows.shape[1])
    return (slice(start, start + count) for start in range(0, len(rows), count))


def _moments(rows: Array) -> tuple[Array, Array]:
    """Return mean and variance: each band's, of what is beyond the first row, put together (Chan et al. 1983)."""
    mean, variance = np.zeros((2, rows.shape[1]), rows.dtype)
    if loops.moments(rows, mean, variance):
        return mean, variance
    for band in _bands(rows):
        d = rows[band] - rows[0]
        ones = np.ones(len(d), rows.dtype)
        own = (ones @ d) / len(d)
        d -= own
        d *= d
        share = len(d) / (band.start + len(d))
        off = own - mean
        mean += off * share
        variance += ones @ d + off * off * (share * band.start)
    variance /= len(rows)
    mean += rows[0]
    return mean, variance


def _sums(rows: Array, mean: Array, g: Array) -> tuple[Array, Array]:
    """Return Σ dy (x − μ) and Σ dy."""
    dot, total = np.zeros((2, rows.shape[1]), rows.dtype)
    if loops.shift_sums(rows, mean, g, dot, total):
        return dot, total
    for band in _bands(rows):
        part, own = rows[band] - mean, g[band]
        part *= own
        ones = np.ones(len(part), rows.dtype)
        dot += ones @ part
        total += ones @ own
    return dot, total


def _input(rows: Array, mean: Array, g: Array, along: Array, less: Array, factor: Array) -> Array:
    """Return dx."""
    dx = np.empty_like(rows)
    if loops.shift_input(rows, mean, g, along, less, factor, dx):
        return dx
    for band in _bands(rows):
        part = np.subtract(rows[band], mean, out=dx[band])
        part *= along
        part += g[band]
        part -= less
        part *= factor
    return dx
