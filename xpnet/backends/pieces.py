"""A large product in pieces, which two threads take one by one; neither waits busily for the other.

OpenBLAS's own threads spin while they wait. On two cores they halve a product's time when nothing else runs, and take
two to thirty times as long as one when another program keeps a core busy. Here the second thread sleeps until there is
a product and takes pieces of it as it can; what it has not begun, the first does too. The order of a sum depends on
where a product is cut, with some of OpenBLAS's kernels: so one thread by itself does the same pieces, to the same bits.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import cache

import numpy as np

from xpnet.arrays import Array
from xpnet.backends.base import Work
from xpnet.backends.host import floating, small
from xpnet.backends.openblas import pools

WORTH = 3e7
"""Multiply-adds of a product from which on it is cut: to wake a thread takes about 0.1 ms, a fifth of their time."""
PIECES = 4
"""Of a product: if one thread is held up, the other does more of them."""
KERNEL = 64
"""Rows or columns that a piece has a multiple of: OpenBLAS's kernels do 4 to 32 at once."""


def two_threads() -> bool:
    """Whether products may take just two threads, of an OpenBLAS that can be told to take one: what was measured."""
    return len(pools()) == 1 and pools()[0].outside() == 2


def one_each(batch: int, work: Work) -> bool:
    """Whether a step's products are each better left to one thread of OpenBLAS: small, or most of them cut here."""
    if small(batch, work):
        return True
    large = sum(size for size in work.matrices if batch * size >= WORTH)
    return 2 * large > work.adds and two_threads()


def cuts(a: Array, b: Array) -> bool:
    """Whether a large a @ b, of matrices, is cut: where OpenBLAS is told to take one thread."""
    return a.dtype == b.dtype and len(pools()) == 1 and pools()[0].get() == 1


def product(a: Array, b: Array, out: Array | None = None) -> Array:
    """Return a @ b, (M, K) @ (K, N) of one type, in `out` (M, N) if one is given; it is not read."""
    y = np.empty((a.shape[0], b.shape[1]), a.dtype) if out is None else out
    pieces, mode = iter(_pieces(a, b, y)), floating()

    def take() -> None:
        for piece in pieces:  # an iterator: each goes to the thread that asks for it
            np.matmul(*piece)

    def beside() -> None:
        mode()
        take()

    second = _second().submit(copy_context().run, beside) if two_threads() else None  # NumPy's errstate goes with it
    try:
        take()
    finally:
        if second and not second.cancel():
            second.result()
    return y


def _pieces(a: Array, b: Array, y: Array) -> list[tuple[Array, Array, Array]]:
    """Return a, b and y of each piece, cut along the longer axis of y."""
    axis = int(y.shape[0] < y.shape[1])
    size = -(-y.shape[axis] // (PIECES * KERNEL)) * KERNEL
    places = [slice(start, start + size) for start in range(0, y.shape[axis], size)]
    return [(a, b[:, own], y[:, own]) if axis else (a[own], b, y[own]) for own in places]


@cache
def _second() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "xpnet-products")


if hasattr(os, "register_at_fork"):  # a process that is forked has only the thread that did it
    os.register_at_fork(after_in_child=_second.cache_clear)
