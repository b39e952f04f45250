"""Products of CuPy's matrices by cuBLASLt: rows for columns, plans kept, results straight into their windows.

cuBLASLt thinks in columns. A matrix that lies row by row is, to it, the transpose; so C = A B is asked for as
Cᵀ = Bᵀ Aᵀ, which needs no copy. Seen this way the rows of D are the outputs of a layer, which is where cuBLASLt adds a
bias.

Batches of matrices are one product too, if from one matrix to the next it is always as far. Where it is not (heads that
are views on what a layer computed for all of them) an operand is copied: one kernel more, where a product for each head
would be several.
"""

from math import prod
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from xpnet.arrays import Array
from xpnet.backends.cuda import cublaslt
from xpnet.backends.cuda.cublaslt import CublasLt, Plan, Product


class Operand(NamedTuple):
    """How a matrix lies in memory: row by row, or column by column, and how far apart the lines are."""

    rows: int
    columns: int
    by_columns: bool
    ld: int


def operand(array: Array) -> Operand | None:
    """Return how a matrix lies in memory, each of a batch alike; None if its lines are not contiguous."""
    (rows, columns), item = array.shape[-2:], array.dtype.itemsize
    down, right = (stride // item for stride in array.strides[-2:])
    if columns == 1 or right == 1:
        ld = down if rows > 1 else columns
        if ld >= columns:
            return Operand(rows, columns, False, ld)
    if rows == 1 or down == 1:
        ld = right if columns > 1 else rows
        if ld >= rows:
            return Operand(rows, columns, True, ld)
    return None


def alignment(pointer: int) -> int:
    """Return the largest power of two, at most 256, that divides a pointer."""
    return min(pointer & -pointer, 256) if pointer else 256


def distance(array: Array, batch: tuple[int, ...]) -> int | None:
    """Return how many elements it is from a matrix to the next, taken as a batch of this shape; None if it varies.

    0: they all are the same one.
    """
    own = len(array.shape) - 2
    step = reach = None
    for k in range(-1, -len(batch) - 1, -1):
        if batch[k] == 1:
            continue
        stride = array.strides[k - 2] // array.dtype.itemsize if -k <= own and array.shape[k - 2] > 1 else 0
        if stride < 0 or reach not in (None, stride):
            return None
        step, reach = stride if step is None else step, stride * batch[k]
    return step or 0


def product(
    a: Array,
    b: Array,
    out: Array,
    pointers: tuple[int, ...],
    precision: str = "float32",
    epilogue: int = 1,
    batch: int = 1,
    steps: tuple[int, int, int] = (0, 0, 0),
) -> Product | None:
    """Describe out = a b to cuBLASLt, a, b and out lying at `pointers`; None if it cannot be done without a copy.

    Or a `batch` of so many products, the matrices of a, b and out so many `steps` apart.
    """
    if not a.dtype == b.dtype == out.dtype or a.dtype.name not in cublaslt.TYPES or 0 in (*a.shape, *b.shape):
        return None
    left, right, to = operand(a), operand(b), operand(out)
    if left is None or right is None or to is None or to.by_columns:
        return None
    if batch > 1:
        pointers = tuple(p | step * a.dtype.itemsize for p, step in zip(pointers, steps, strict=True))
    first, second, d, *bias = map(alignment, pointers)
    return Product(
        m=right.columns,
        n=left.rows,
        k=left.columns,
        transpose_a=right.by_columns,
        transpose_b=left.by_columns,
        lda=right.ld,
        ldb=left.ld,
        ldd=to.ld,
        dtype=a.dtype.name,
        precision=precision,
        epilogue=epilogue,
        alignment=(second, first, min(d, *bias, 256), *bias),
        batch=batch,
        steps=(steps[1], steps[0], steps[2]),
    )


class Products:
    """Plans, one for each kind of product. Threads take turns: where a bias lies is written into the plan itself."""

    def __init__(self, cupy: Any, precision: str = "float32", lt: CublasLt | None = None) -> None:
        self.cupy, self.precision, self.lt = cupy, precision, lt or CublasLt()
        self.plans: dict[Product, Plan | None] = {}
        self.known: dict[tuple[Any, ...], Plan | None] = {}
        """The same by what arrays say of themselves, for that is asked for every product."""
        self.lock = Lock()

    def multiply(
        self, a: Array, b: Array, out: Array | None = None, epilogue: int = 1, vector: Array = None, factor: float = 1.0
    ) -> Array | None:
        """Return factor · a b with an epilogue, in `out` if one is given; None if cuBLASLt has no way to do it.

        `vector` is the bias, or where the bias gradient goes. Batches have no epilogue.
        """
        batch, steps = 1, (0, 0, 0)
        if a.ndim != 2 or b.ndim != 2:
            batches = self.batches(a, b, out)
            if batches is None:
                return None
            a, b, out, batch, steps = batches
        elif a.shape[1] != b.shape[0]:
            return None
        elif out is None:
            out = self.cupy.empty((a.shape[0], b.shape[1]), dtype=a.dtype)
        arrays = (a, b, out) if vector is None else (a, b, out, vector)
        pointers = tuple([array.data.ptr for array in arrays])
        v = 0 if vector is None else pointers[3]
        forms = [form for x in (a, b, out) for form in (x.shape, x.strides, x.dtype)]
        key = (*forms, epilogue, batch, steps, *[p & 255 for p in pointers])  # all that `product` looks at
        with self.lock:
            if key not in self.known:
                what = product(a, b, out, pointers, self.precision, epilogue, batch, steps)
                self.known[key] = None if what is None else self.plan(what, v)
            plan = self.known[key]
            if plan is None:
                return None
            stream = self.cupy.cuda.get_current_stream().ptr
            workspace = self.cupy.cuda.alloc(plan.workspace)  # CuPy's pool gives it again on this stream only
            self.lt.run(plan, pointers[1], pointers[0], pointers[2], int(workspace.ptr), stream, v, factor)
        return out

    def batches(
        self, a: Array, b: Array, out: Array | None
    ) -> tuple[Array, Array, Array, int, tuple[int, int, int]] | None:
        """Return a, b and out, how many products they are and their distances; None if there are none.

        An operand whose matrices do not lie evenly is copied: that is one kernel, and a product for each place where
        they do are two at least.
        """
        if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2] or a.dtype.name not in cublaslt.TYPES:
            return None
        try:
            batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        except ValueError:
            return None
        shape = (*batch, a.shape[-2], b.shape[-1])
        if out is None:
            out = self.cupy.empty(shape, dtype=a.dtype)
        (a, from_a), (b, from_b), to = self.evenly(a, batch), self.evenly(b, batch), distance(out, batch)
        if out.shape != shape or not out.size or to is None:
            return None
        return a, b, out, prod(batch), (from_a, from_b, to)

    def evenly(self, array: Array, batch: tuple[int, ...]) -> tuple[Array, int]:
        """Return an array whose matrices lie evenly, and their distance: itself, or a copy."""
        step = distance(array, batch)
        if step is not None and operand(array) is not None:
            return array, step
        whole = self.cupy.ascontiguousarray(self.cupy.broadcast_to(array, (*batch, *array.shape[-2:])))
        return whole, array.shape[-2] * array.shape[-1]

    def plan(self, what: Product, vector: int) -> Plan | None:
        """Return the plan of a product, chosen when it is first met."""
        if what not in self.plans:
            self.plans[what] = self.lt.plan(what, vector)
        return self.plans[what]
