"""Attention, the norm over features, GELU and an embedding's gradient on the GPU, each in a few kernels of our own.

Each method is a function of `xpnet.layers` in its own form, and gives None for what it does not serve, which the plain
form then does.
"""

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np

from xpnet.arrays import Array
from xpnet.backends.cuda import sequence_sources
from xpnet.backends.cuda.images import NOTHING, SHORT, Images, serves
from xpnet.backends.cuda.kernels import BLOCKS, THREADS

SHARE, PARTS = 256, 64
"""The rows of a part that is added up by itself, at least, and the parts, at most."""


class Sequences:
    """The kernels for sequences of one GPU, compiled when they are first used."""

    def __init__(self, images: Images, matmul: Callable[..., Array]) -> None:
        self.images, self.kernels, self.cupy, self.matmul = images, images.kernels, images.cupy, matmul

    def attention(
        self, backend: Any, q: Array, k: Array, v: Array, causal: bool, mask: Array | None, keep: Array | None
    ) -> tuple[Array, Any] | None:
        """y = p v,  p = softmax(q kᵀ / √d), and the pullback, with p's few maps and sums as one kernel each way.

        Queries, keys and values are copied into one piece first, all by one kernel: each is multiplied twice.
        """
        shape, matmul = (*q.shape[:3], k.shape[2]), self.matmul
        arrays = (q, k, v) if keep is None else (q, k, v, keep)
        if not serves(*arrays) or (causal and shape[2] != shape[3]):
            return None
        rows = mask is None or mask.shape in ((1, 1, 1, shape[3]), (shape[0], 1, 1, shape[3]))
        if not rows or (mask is not None and mask.dtype.kind not in "biu"):
            return None
        (q, k, v), keep = self._pieces(q, k, v), None if keep is None else self._whole(keep)
        sizes = np.int64(q.size // q.shape[3]), np.int32(shape[3])
        scale, dropped = np.float64(1.0 / sqrt(q.shape[3])), NOTHING if keep is None else keep
        p = matmul(q, _turned(k))
        kept = p if keep is None else self.cupy.empty(shape, dtype=q.dtype)
        open_ = NOTHING if mask is None else self._whole(mask).astype("int32", copy=False)
        each = 1 if mask is None else p.size // mask.size
        numbers = np.int32(shape[2]), np.int64(each), np.int32(causal), scale
        self._rows("attend", sequence_sources.attention, p, dropped, open_, *sizes, *numbers, kept)

        def back(dy: Array) -> tuple[Array, Array, Array]:
            dy = self._whole(dy)
            ds = matmul(dy, _turned(v))
            self._rows("attend_back", sequence_sources.attention, ds, p, dropped, *sizes, scale)
            return matmul(ds, k), matmul(_turned(ds), q), matmul(_turned(kept), dy)

        return matmul(kept, v), back

    def scatter_rows(self, xp: Any, index: Array, rows: Array, count: int) -> Array | None:
        """E[v] = Σ of the rows whose index is v, added up in their order; large numbers of rows a part after the other.

        A block owns a tile of tokens and walks the index, which is so read V / tile times and not V times. There is
        nothing to sort (CuPy's sort waits for the device, and no graph can hold it) and no matrix of V × M ones.
        """
        if not serves(rows) or index.dtype.name not in ("int32", "int64") or index.size > SHORT:
            return None
        index, rows, (m, d) = self._whole(index), self._whole(rows), rows.shape
        lanes = min(-(-d // 32) * 32, sequence_sources.LANES)
        parts = max(min(-(-m // SHARE), PARTS, 4 * m // count), 1)  # in all no more sums than four times the rows
        out = self.cupy.empty((parts, count, d), dtype=rows.dtype)
        grid = -(-count // sequence_sources.tile(rows.itemsize)), -(-d // lanes), parts
        names = rows.dtype.name, index.dtype.name
        function = self.kernels.function(("scatter", *names), lambda: sequence_sources.scatter(*names))
        function(grid, (lanes,), (rows, index, *map(np.int32, (m, count, d)), out))
        if parts == 1:
            return out[0]
        total = self.images.sum_rows(xp, out.reshape(parts, -1))
        return None if total is None else total.reshape(count, d)

    def standardize_features(
        self, backend: Any, x: Array, gamma: Array, beta: Array, eps: float
    ) -> tuple[Array, Any] | None:
        """Return γ (x − μ) / √(σ² + ε) + β, μ and σ² of each position, and the pullback."""
        if not serves(x, gamma, beta):
            return None
        x, gamma, beta, n = self._whole(x), self._whole(gamma), self._whole(beta), x.shape[-1]
        y, hat, scale = (self.cupy.empty(shape, dtype=x.dtype) for shape in (x.shape, x.shape, x.size // n))
        sizes = np.int64(x.size // n), np.int32(n)
        self._rows("features", sequence_sources.features, x, gamma, beta, np.float64(eps), *sizes, y, hat, scale)

        def backward(dy: Array, need_dx: bool) -> tuple[Array | None, tuple[Array, Array]]:
            dy, dx = self._whole(dy), None
            if need_dx:
                dx = self.cupy.empty(x.shape, dtype=x.dtype)
                self._rows("features_back", sequence_sources.features, dy, hat, gamma, scale, *sizes, dx)
            sums = self.images.columns(dy.reshape(-1, n), hat.reshape(-1, n))
            return dx, (sums[n:], sums[:n])

        return y, backward

    def gelu(self, backend: Any, x: Array, exact: bool) -> tuple[Array, Callable[[Array], Array]] | None:
        """Return GELU, and `dx(dy)`."""
        if not serves(x):
            return None
        y, slope = (self.cupy.empty(x.shape, dtype=x.dtype) for _ in range(2))
        name = "xpnet_gelu_exact" if exact else "xpnet_gelu"
        self.kernels.elementwise("T x", "T y, T slope", sequence_sources.gelu(exact), name)(x, y, slope)
        return y, lambda dy: dy * slope

    def _pieces(self, q: Array, k: Array, v: Array) -> tuple[Array, Array, Array]:
        """Return queries, keys and values, each in one piece."""
        if q.shape != k.shape or all(array.flags.c_contiguous for array in (q, k, v)):
            return self._whole(q), self._whole(k), self._whole(v)
        made = tuple(self.cupy.empty(q.shape, dtype=q.dtype) for _ in range(3))
        copy = self.kernels.elementwise("T a, T b, T c", "T x, T y, T z", "x = a; y = b; z = c", "xpnet_pieces")
        copy(q, k, v, *made)
        return made

    def _rows(self, name: str, source: Callable[[str], str], first: Array, *others: Any) -> None:
        """Launch a kernel with a warp for each row of `first`."""
        dtype = first.dtype.name
        function = self.kernels.function((name, dtype), lambda: source(dtype))
        blocks = min(-(-(first.size // first.shape[-1]) // (THREADS // 32)), 16 * BLOCKS)
        function((blocks,), (THREADS,), (first, *others))

    def _whole(self, array: Array) -> Array:
        """Return an array that lies in one piece, row by row."""
        return self.cupy.ascontiguousarray(array)


def _turned(array: Array) -> Array:
    """Return the transposes of the last two axes, the same memory."""
    return array.swapaxes(-1, -2)
