"""NumPy's sequences: attention a few samples at a time, in the processor's cache, and tables' gradients by sorting."""

import math
from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np

from xpnet.arrays import Array, Namespace

BLOCK = 1 << 16
"""Weights, numbers of p, that are worked on together."""
FEW = 100
"""Rows of a table up to which a product with zeros and ones is faster than sorting."""


def scatter_rows(xp: Namespace, index: Array, rows: Array, count: int) -> Array | None:
    """E[v] = Σ of the rows whose index is v: sorted by v, and added up run by run."""
    if count <= FEW:
        return None
    total = np.zeros((count, rows.shape[1]), rows.dtype)
    if len(index):
        order = np.argsort(index, kind="stable")
        tokens = index[order]
        starts = np.flatnonzero(np.concatenate([[True], tokens[1:] != tokens[:-1]]))
        total[tokens[starts]] = np.add.reduceat(rows[order], starts, axis=0)
    return total


def attention(
    backend: Any, q: Array, k: Array, v: Array, causal: bool, mask: Array | None, keep: Array | None
) -> tuple[Array, Callable[[Array], tuple[Array, Array, Array]]] | None:
    """y = softmax(q kᵀ / √d) v, and `back(dy) -> dq, dk, dv`."""
    if mask is not None or keep is not None or not q.size:
        return None
    scale, t = q.dtype.type(1.0 / math.sqrt(q.shape[-1])), q.shape[2]
    p, y = np.empty((*q.shape[:3], k.shape[2]), q.dtype), np.empty(q.shape, q.dtype)
    later = np.triu(np.full((t, k.shape[2]), -np.inf, q.dtype), 1) if causal else None
    for some in _blocks(p.shape):
        s = np.matmul(q[some] * scale, k[some].swapaxes(-1, -2), out=p[some])
        if later is not None:
            s += later
        s -= s.max(axis=-1, keepdims=True)
        np.exp(s, out=s)
        s /= s.sum(axis=-1, keepdims=True)
        np.matmul(s, v[some], out=y[some])

    def back(dy: Array) -> tuple[Array, Array, Array]:
        dq, dk, dv = (np.empty(a.shape, a.dtype) for a in (q, k, v))
        for some in _blocks(p.shape):
            own, g = p[some], dy[some]
            np.matmul(own.swapaxes(-1, -2), g, out=dv[some])
            ds = np.matmul(g, v[some].swapaxes(-1, -2))
            ds -= np.sum(g * y[some], axis=-1, keepdims=True)  # Σ dp p = Σ dy y
            ds *= own
            ds *= scale
            np.matmul(ds, k[some], out=dq[some])
            np.matmul(ds.swapaxes(-1, -2), q[some], out=dk[some])
        return dq, dk, dv

    return y, back


def _blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Yield samples, some at a time."""
    size = max(1, BLOCK // prod(shape[1:]))
    yield from (slice(start, start + size) for start in range(0, shape[0], size))
