"""Linear layers in a row, in few kernels: bias, ReLU and their gradients on the way out of a product.

Small products are our own: a library's are made for large ones, and take two or three launches where one does. Of
large ones cuBLASLt adds the bias and applies ReLU. Its epilogues for ReLU's derivative are slow kernels of their own on
Hopper (`benchmarks/gpu/NOTES.md`): that is a kernel here.
"""

from typing import Any

import numpy as np

from xpnet.arrays import Array
from xpnet.backends.cuda import dense_sources
from xpnet.backends.cuda.cublaslt import EPILOGUE_BGRADA, EPILOGUE_BIAS, EPILOGUE_RELU_BIAS
from xpnet.backends.cuda.kernels import NULL, TICKETS, Kernels, plain
from xpnet.backends.dense import Dense

SMALL = 2**24
"""Multiply-adds up to which a product is small."""
TILES = 132
"""Tiles of a small product at most, as an H100 has multiprocessors: fixed, so that sums have one order on every GPU."""
TILE, DEPTH = 32, 128
"""Rows and columns of a tile, and how much of the depth it does in one go, as the sources have them."""


class FusedDense(Dense):
    """`Dense` in few kernels, the first layer's input times a factor; the plain form does the rest."""

    scales = True

    def __init__(self, backend: Any) -> None:
        super().__init__(backend)
        self.products, self.own = backend.products, DenseKernels(backend.kernels)

    def forward(self, x: Array, weight: Array, bias: Array, relu: bool, factor: float = 1.0) -> tuple[Array, Array]:
        """One product with bias and ReLU."""
        y = self.own.multiply(x, weight, factor, bias=bias, relu=relu)
        if y is None:
            epilogue = EPILOGUE_RELU_BIAS if relu else EPILOGUE_BIAS
            y = self.products.multiply(x, weight, None, epilogue, bias, factor)
        return super().forward(x * factor, weight, bias, relu) if y is None else (y, y if relu else None)

    def gradients(
        self, x: Array, ds: Array, out: tuple[Array, ...], dbias: Array = None, factor: float = 1.0
    ) -> tuple[Array, Array]:
        """One product, and the sum over the rows with it."""
        found = self._bias(ds, out) if dbias is None else dbias
        sums = found if dbias is None else None
        dweight = self.own.multiply(x.T, ds, factor, out[0], sums=sums)
        if dweight is None:
            epilogue = () if sums is None else (EPILOGUE_BGRADA, sums)
            dweight = self.products.multiply(x.T, ds, out[0], *epilogue, factor=factor)
        return super().gradients(x * factor, ds, out, dbias) if dweight is None else (dweight, found)

    def back(self, ds: Array, weight: Array, mask: Array, out: Array) -> tuple[Array, Array]:
        """One product, and a kernel for ReLU's derivative that sums over the rows too."""
        if mask is None:
            return super().back(ds, weight, None, out)
        dx = self.backend.matmul(ds, weight.T)
        return dx, self.own.relu_back(mask, dx, out)

    def both(
        self, x: Array, ds: Array, weight: Array, mask: Array, out: tuple[Array, ...], dbias: Array, before: Array
    ) -> tuple[tuple[Array, Array], Array, Array]:
        """Gradients and what goes back, of a small layer in one launch."""
        if dbias is None and mask is not None:
            found = self._bias(ds, out)
            made = self.own.back(x, ds, weight, mask, out[0], found)
            if made is not None:
                return (made[0], found), made[1], None
        return super().both(x, ds, weight, mask, out, dbias, before)

    def _bias(self, ds: Array, out: tuple[Array, ...]) -> Array:
        """Return where the bias gradient goes."""
        return self.backend.cupy.empty(ds.shape[1], dtype=ds.dtype) if out[1] is None else out[1]


class DenseKernels:
    """The kernels of `dense_sources`."""

    def __init__(self, kernels: Kernels) -> None:
        self.kernels, self.cupy = kernels, kernels.cupy

    def multiply(
        self,
        a: Array,
        b: Array,
        factor: float = 1.0,
        out: Array = None,
        bias: Array = None,
        relu: bool = False,
        sums: Array = None,
    ) -> Array | None:
        """Return factor · a b + bias, or the maximum of that and 0; None if it is not small.

        The sums over b's rows go where `sums` is.
        """
        (m, k), (depth, n) = a.shape, b.shape
        count = tiles(m + (sums is not None), n)
        if k != depth or not small(m, n, k, count) or not all_plain(out, bias, sums) or not reached(a, b):
            return None
        parts, share = shares(k, count)
        if out is None:
            out = self.cupy.empty((m, n), dtype=a.dtype)
        a_row, a_column, b_row, b_column = (np.int32(stride // 4) for stride in (*a.strides, *b.strides))
        sizes = np.int32(m), np.int32(n), np.int32(k), np.int32(share), np.float32(factor)
        bias, sums = (NULL if given is None else given for given in (bias, sums))
        arguments = a, a_row, a_column, b, b_row, b_column, *sizes, out, bias, np.int32(relu), sums
        self._launch("small_product", count * parts, arguments, count * parts)
        return out

    def back(
        self, x: Array, ds: Array, weight: Array, y: Array, dweight: Array, dbias: Array
    ) -> tuple[Array, Array] | None:
        """Return dW = xᵀ ds, in `dweight` if it is given, and dx = ds Wᵀ, 0 where y is not greater; None if not small.

        The sums over ds's rows go to `dbias`.
        """
        (n, i), o = x.shape, ds.shape[1]
        count, more = tiles(i + 1, o), tiles(n, i)
        if not small(n, i, o, max(count, more)) or not all_plain(x, ds, weight, y, dweight, dbias):
            return None
        parts, share = shares(n, count)
        if dweight is None:
            dweight = self.cupy.empty((i, o), dtype=x.dtype)
        dx = self.cupy.empty((n, i), dtype=x.dtype)
        sizes = np.int32(n), np.int32(i), np.int32(o), np.int32(share)
        self._launch("small_back", count * parts + more, (x, ds, weight, y, *sizes, dweight, dbias, dx), count * parts)
        return dweight, dx

    def _launch(self, name: str, blocks: int, arguments: tuple[Any, ...], parts: int) -> None:
        partial = self.cupy.empty(parts * TILE * TILE, dtype="float32")
        kernel = self.kernels.function((name,), dense_sources.small_products)
        kernel((blocks,), (256,), (*arguments, partial, self.kernels.tickets()))

    def relu_back(self, y: Array, d: Array, out: Array = None) -> Array | None:
        """Make d 0 where y is not greater, in place; return its sums over the rows, in `out` if one is given.

        None, and nothing done for the sums, of more columns than there are counters.
        """
        rows, columns = d.shape
        groups, dtype = -(-columns // 32), d.dtype.name
        if groups > TICKETS or not rows or not all_plain(y, d, out, dtype=dtype):
            d *= y > 0
            return None
        many = min(-(-rows // 8), max(8, 512 // groups))
        partial = self.cupy.empty((many, columns), dtype=d.dtype)
        sums = self.cupy.empty(columns, dtype=d.dtype) if out is None else out
        kernel = self.kernels.function(("relu_back", dtype), lambda: dense_sources.relu_back(dtype))
        sizes = np.int64(rows), np.int32(columns), np.int64(-(-rows // many))
        kernel((groups, many), (256,), (y, d, *sizes, sums, partial, self.kernels.tickets()))
        return sums


def tiles(m: int, n: int) -> int:
    """Return how many tiles a result (m, n) has."""
    return -(-m // TILE) * -(-n // TILE)


def small(m: int, n: int, k: int, count: int) -> bool:
    """Whether a product, or two of a layer, are small, in so many tiles."""
    return 0 < m * n * k <= SMALL and count <= TILES


def shares(k: int, count: int) -> tuple[int, int]:
    """Return in how many parts a depth k is summed up by so many tiles, and the depth of each."""
    share = -(-k // max(1, min(TILES // count, -(-k // DEPTH))))
    return -(-k // share), share


def reached(*arrays: Array) -> bool:
    """Whether they are of float32, and no number of them lies further off than an int reaches."""
    far = (sum(n * abs(stride) for n, stride in zip(array.shape, array.strides, strict=True)) for array in arrays)
    return all(array.dtype == np.float32 for array in arrays) and max(far) < 4 * 2**31


def all_plain(*arrays: Array | None, dtype: str = "float32") -> bool:
    """Whether those that are given lie row by row and have this dtype."""
    return all(array is None or plain(array, (dtype,)) for array in arrays)
