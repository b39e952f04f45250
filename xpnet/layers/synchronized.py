"""Batch normalisation over the samples of all processes that train together."""

from typing import Any

from xpnet.arrays import Array, sum_rows
from xpnet.backends.base import Backend
from xpnet.layers.context import Total


def standardize_jointly(
    total: Total, backend: Backend, x: Array, gamma: Array, beta: Array, eps: float
) -> tuple[Array, Array, Array, Array, Any]:
    """Return y = γ (x − μ) / √(σ² + ε) + β, μ (C,), σ² (C,) and number of the rows of all processes, and the pullback.

    Three sums travel: of x and of (x − μ)² on the way forward, of dy and dy x̂ on the way back. The gradients of γ and β
    are those of this process's rows alone, as all others are.
    """
    xp, add, shape = backend.xp, backend.native(sum_rows), x.shape
    rows = xp.reshape(x, (-1, shape[-1]))
    own = xp.full((1,), float(rows.shape[0]), dtype=x.dtype, device=x.device)
    sums, count = total([add(xp, rows), own])
    mean = sums / count
    d = rows - mean
    rest, squares = (one / count for one in total([add(xp, d), add(xp, d * d)]))
    variance = squares - rest * rest
    scale = 1.0 / xp.sqrt(variance + eps)
    factor = gamma * scale

    def backward(dy: Array, need_dx: bool) -> tuple[Array, tuple[Array, Array]]:
        g = xp.reshape(dy, (-1, shape[-1]))
        dbeta, dot = add(xp, g), add(xp, g * d)
        every, dots = (one / count for one in total([dbeta, dot]))
        dx = factor * (g - every - d * (dots * scale * scale))
        return xp.reshape(dx, shape), (dot * scale, dbeta)

    return xp.reshape(d * factor + beta, shape), mean, variance, count, backward
