"""Convolutions, pools and batch statistics on the GPU: patches by a kernel, products by cuBLASLt.

Each method is a function of `xpnet.layers` in its own form, and gives None for what it does not serve, which the plain
form then does. Sums have one order, whatever the GPU.
"""

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np

from xpnet.arrays import Array
from xpnet.backends.cuda import image_sources
from xpnet.backends.cuda.kernels import BLOCKS, THREADS, Kernels
from xpnet.geometry import Grid, Pair

LIMIT = 256 * 2**20
"""The bytes of patches that are written at once: more images are taken a part at a time."""
FEW = 16
"""Where each group has up to so many weights a tap, its outputs are computed one by one, without patches."""
SHORT = 2**30
"""Up to so many elements are counted in 32 bits."""
PARTS, LANES = 256, 32
"""The parts into which rows are cut to be added up, at most, and the columns of a block."""
NOTHING = np.int64(0)
"""A null pointer."""


class Images:
    """The kernels for images of one GPU, compiled when they are first used."""

    def __init__(self, kernels: Kernels, matmul: Callable[..., Array]) -> None:
        self.kernels, self.cupy, self.matmul = kernels, kernels.cupy, matmul
        self._modules: dict[tuple[str, str, str], Any] = {}

    # Convolutions

    def convolve(self, xp: Any, x: Array, weight: Array, grid: Grid) -> Array | None:
        """y = patches(x) W"""
        if not serves(x, weight):
            return None
        x, weight, outputs = self._whole(x), self._whole(weight), weight.shape[3]
        y = self.cupy.empty((len(x), *grid.output(x.shape[1:3]), outputs), dtype=x.dtype)
        if _few(weight, grid):
            numbers = _counts(grid.groups, outputs), _grid(x.shape, grid)
            self._turns("direct", y.size, (x, weight), *numbers, (y,), also=x.size)
            return y
        for part in _parts(x.shape, grid, x.itemsize):
            patches, to = self._patches(x[part], grid), y[part].reshape(-1, outputs)
            for rows, own in zip(patches, _cuts(outputs, grid.groups), strict=True):
                self.matmul(rows, weight.reshape(-1, outputs)[:, own], out=to[:, own])
        return y

    def convolve_input(self, xp: Any, dy: Array, weight: Array, size: Pair, grid: Grid) -> Array | None:
        """dx = spread(dy Wᵀ)"""
        if not serves(dy, weight):
            return None
        dy, weight, (*_, own, outputs) = self._whole(dy), self._whole(weight), weight.shape
        dx = self.cupy.empty((len(dy), *size, own * grid.groups), dtype=dy.dtype)
        if _few(weight, grid):
            numbers = _counts(grid.groups, outputs), _grid(dx.shape, grid)
            self._turns("direct_input", dx.size, (dy, weight), *numbers, (dx,), also=dy.size)
            return dx
        for part in _parts(dx.shape, grid, dx.itemsize):
            rows, to = dy[part].reshape(-1, outputs), dx[part]
            shape = (grid.groups, len(rows), prod(grid.kernel) * own)
            patches = to.reshape(shape) if _pointwise(grid) else self.cupy.empty(shape, dtype=dx.dtype)
            for patch, cut in zip(patches, _cuts(outputs, grid.groups), strict=True):
                self.matmul(rows[:, cut], weight.reshape(-1, outputs)[:, cut].T, out=patch)
            if not _pointwise(grid):
                numbers = _counts(grid.groups), _grid(dx.shape, grid)
                self._turns("spread", to.size, (patches,), *numbers, (to,), also=patches.size)
        return dx

    def convolve_weight(self, xp: Any, x: Array, dy: Array, grid: Grid) -> Array | None:
        """dW = patches(x)ᵀ dy"""
        if not serves(x, dy):
            return None
        x, dy, outputs = self._whole(x), self._whole(dy), dy.shape[3]
        dweight = self.cupy.empty((*grid.kernel, x.shape[3] // grid.groups, outputs), dtype=x.dtype)
        if _few(dweight, grid):
            return self._direct_weight(x, dy, dweight, grid)
        for k, part in enumerate(_parts(x.shape, grid, x.itemsize)):
            patches, rows = self._patches(x[part], grid), dy[part].reshape(-1, outputs)
            share = self.cupy.empty_like(dweight) if k else dweight
            for patch, own in zip(patches, _cuts(outputs, grid.groups), strict=True):
                self.matmul(patch.T, rows[:, own], out=share.reshape(-1, outputs)[:, own])
            if k:
                dweight += share
        return dweight

    def convolve_gradients(self, xp: Any, x: Array, dy: Array, weight: Array, grid: Grid) -> tuple[Array, Array] | None:
        """dx and dW."""
        dx = self.convolve_input(xp, dy, weight, x.shape[1:3], grid)
        dweight = self.convolve_weight(xp, x, dy, grid)
        return None if dx is None or dweight is None else (dx, dweight)

    def _patches(self, x: Array, grid: Grid) -> Array:
        """Return what each output reads, (G, M, K·L·C/G)."""
        ho, wo = grid.output(x.shape[1:3])
        shape = (grid.groups, len(x) * ho * wo, prod(grid.kernel) * x.shape[3] // grid.groups)
        if _pointwise(grid):
            return x.reshape(shape)
        out = self.cupy.empty(shape, dtype=x.dtype)
        self._turns("patches", out.size, (x,), _counts(grid.groups), _grid(x.shape, grid), (out,), also=x.size)
        return out

    def _direct_weight(self, x: Array, dy: Array, dweight: Array, grid: Grid) -> Array:
        rows, outputs = dy.size // dy.shape[3], dy.shape[3]
        lanes, threads, tiles, parts = _cut(rows, dweight.size)
        found = dweight if parts == 1 else self.cupy.empty((parts, dweight.size), dtype=x.dtype)
        function, count = self._function("sums", "direct_weight", x.dtype.name, max(x.size, dy.size))
        numbers = _counts(grid.groups, outputs, lanes), _grid(x.shape, grid)
        function((tiles, parts), (threads,), (x, dy, count(rows), *numbers[0], *numbers[1], found))
        return found if parts == 1 else self.columns(found).reshape(dweight.shape)

    # Pools

    def max_pool(self, xp: Any, x: Array, grid: Grid) -> tuple[Array, Any] | None:
        """Return the largest of each patch, and `dx(dy)`."""
        if not serves(x):
            return None
        x, numbers = self._whole(x), _grid(x.shape, grid)
        y = self.cupy.empty((len(x), *grid.output(x.shape[1:3]), x.shape[3]), dtype=x.dtype)
        winner = self.cupy.empty(y.shape, dtype="int32")
        self._turns("max_pool", y.size, (x,), numbers, (y, winner), also=x.size)

        def back(dy: Array) -> Array:
            dx = self.cupy.empty(x.shape, dtype=x.dtype)
            self._turns("max_pool_back", dx.size, (self._whole(dy), winner), numbers, (dx,), also=y.size)
            return dx

        return y, back

    def average_pool(self, xp: Any, x: Array, grid: Grid) -> tuple[Array, Any] | None:
        """Return the mean of each patch, and `dx(dy)`."""
        if not serves(x):
            return None
        x, numbers, share = self._whole(x), _grid(x.shape, grid), np.float64(1.0 / prod(grid.kernel))
        y = self.cupy.empty((len(x), *grid.output(x.shape[1:3]), x.shape[3]), dtype=x.dtype)
        self._turns("average_pool", y.size, (x, share), numbers, (y,), also=x.size)

        def back(dy: Array) -> Array:
            dx = self.cupy.empty(x.shape, dtype=x.dtype)
            self._turns("average_pool_back", dx.size, (self._whole(dy), share), numbers, (dx,), also=y.size)
            return dx

        return y, back

    # Sums over rows

    def sum_rows(self, xp: Any, x: Array) -> Array | None:
        """Return the sum over all axes but the last."""
        return self.columns(self._whole(x).reshape(-1, x.shape[-1])) if serves(x) else None

    def standardize_rows(
        self, xp: Any, x: Array, gamma: Array, beta: Array, eps: float
    ) -> tuple[Array, Array, Array, Any] | None:
        """Return γ (x − μ) / √(σ² + ε) + β, μ and σ² of all rows, and the pullback."""
        if not serves(x, gamma, beta):
            return None
        x, empty, c = self._whole(x), self.cupy.empty, x.shape[-1]
        rows, share, small = x.reshape(-1, c), c / x.size, np.float64(eps)
        mean = self.columns(rows, scale=share)
        deviations = self.columns(rows, rows, mean, share)
        y, variance = empty(x.shape, dtype=x.dtype), empty(c, dtype=x.dtype)
        numbers = (x, mean, deviations, gamma, beta, small)
        self._turns("normalize", x.size, numbers, _counts(c), (y, variance))

        def backward(dy: Array, need_dx: bool) -> tuple[Array | None, tuple[Array, Array]]:
            dy = self._whole(dy)
            found = self.columns(dy.reshape(-1, c), rows, mean)
            dx, dgamma = empty(x.shape, dtype=x.dtype) if need_dx else None, empty(c, dtype=x.dtype)
            numbers = (x, mean, variance, gamma, dy, found, small, np.float64(share))
            to = (NOTHING if dx is None else dx, dgamma)
            self._turns("normalize_back", x.size if need_dx else c, numbers, _counts(c), to)
            return dx, (dgamma, found[:c])

        return y, mean, variance, backward

    def columns(self, a: Array, b: Array = None, shift: Array = None, scale: float = 1.0) -> Array:
        """Return the sums over a's rows (C,), or those and the sums of a · b (2 C,): parts of the rows, then the parts.

        `shift` (C,) is taken from b, and from a, if it is b.
        """
        (rows, c), width = a.shape, a.shape[1] * (1 if b is None else 2)
        lanes, threads, tiles, parts = _cut(rows, c)
        out = self.cupy.empty((parts, width), dtype=a.dtype)
        function, count = self._function("sums", "columns", a.dtype.name, a.size)
        pointers = (NOTHING if array is None else array for array in (b, shift))
        factor = np.float64(scale if parts == 1 else 1.0)
        function((tiles, parts), (threads,), (a, *pointers, count(rows), *_counts(c, lanes), factor, out))
        return out.reshape(-1) if parts == 1 else self.columns(out, scale=scale)

    # Launches

    def _whole(self, array: Array) -> Array:
        """Return an array that lies in one piece, row by row."""
        return self.cupy.ascontiguousarray(array)

    def _turns(self, name: str, n: int, first: Any, *others: Any, also: int = 0) -> None:
        """Launch a kernel for n elements; it takes `first`, n, and the others."""
        function, count = self._function("images", name, first[0].dtype.name, max(n, also))
        blocks = min(-(-n // THREADS), 16 * BLOCKS)
        function((blocks,), (THREADS,), (*first, count(n), *(a for group in others for a in group)))

    def _function(self, source: str, name: str, dtype: str, largest: int) -> tuple[Any, Any]:
        """Return a kernel, and the type in which it counts so many elements."""
        counts = "int32" if largest <= SHORT else "int64"
        key = (source, dtype, counts)
        if key not in self._modules:
            self._modules[key] = self.cupy.RawModule(code=getattr(image_sources, source)(dtype, counts))
        return self._modules[key].get_function(name), np.int32 if counts == "int32" else np.int64


def serves(*arrays: Array) -> bool:
    """Whether arrays are of one precision, and none is empty."""
    kinds = {array.dtype.name for array in arrays}
    return len(kinds) == 1 and kinds <= {"float32", "float64"} and all(array.size for array in arrays)


def _few(weight: Array, grid: Grid) -> bool:
    """Whether each group of a convolution has few weights a tap."""
    return grid.groups > 1 and weight.shape[2] * (weight.shape[3] // grid.groups) <= FEW


def _pointwise(grid: Grid) -> bool:
    """Whether the patches are the images themselves."""
    return grid._replace(dilation=(1, 1)) == Grid((1, 1))


def _cuts(outputs: int, groups: int) -> list[slice]:
    """Return where each group's outputs lie."""
    own = outputs // groups
    return [slice(g * own, (g + 1) * own) for g in range(groups)]


def _parts(shape: tuple[int, ...], grid: Grid, itemsize: int) -> Iterator[slice]:
    """Yield which images are taken at once, so that their patches fit into LIMIT: one at least."""
    each = prod(grid.output(shape[1:3])) * prod(grid.kernel) * shape[3] * itemsize  # type: ignore[arg-type]
    step = len(range(shape[0])) if _pointwise(grid) else max(1, LIMIT // max(each, 1))
    return (slice(start, start + step) for start in range(0, shape[0], step))


def _cut(rows: int, columns: int) -> tuple[int, int, int, int]:
    """Return columns and threads of a block, blocks beside each other, and parts of the rows, a few turns each."""
    lanes = min(1 << (columns - 1).bit_length(), LANES)
    threads = min(lanes << (rows - 1).bit_length(), THREADS)
    return lanes, threads, -(-columns // lanes), min(-(-rows * lanes // (8 * threads)), PARTS)


def _counts(*numbers: int) -> tuple[Any, ...]:
    return tuple(map(np.int32, numbers))


def _grid(shape: tuple[int, ...], grid: Grid) -> tuple[Any, ...]:
    """Return the numbers that kernels know a grid by, over images of this shape."""
    _, h, w, c = shape
    return _counts(h, w, c, *grid.output((h, w)), *grid.kernel, *grid.stride, *grid.before, *grid.dilation)
