"""Kernels of our own: rules, the gradient's norm, cross-entropy, batches, dropout masks.

Each does in one launch what the plain form does in several array operations, and is tested against it. `native` in the
backend finds them by the name of the plain form.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from operator import attrgetter
from threading import get_ident
from typing import Any

import numpy as np

from xpnet.arrays import Array
from xpnet.backends.base import Rule
from xpnet.backends.cuda import sources
from xpnet.backends.cuda.symbols import Program, trace
from xpnet.random import digest

BLOCKS, THREADS = 1024, 256
"""The largest grid, and the threads of a block: fixed, so that sums have one order on every GPU."""
TICKETS = 1024
"""Counters of a stream: as many sums can be under way in a kernel."""
NULL = np.int64(0)
"""A null pointer."""
PER_THREAD = 2
"""The address by which every thread calls its own default stream (`cudaStreamPerThread`)."""
LABELS = "int32", "int64", "uint8"
"""Types of class numbers; those of other types are left to the plain form."""
name_of = lru_cache(maxsize=64)(attrgetter("name"))
"""The name of a dtype, which NumPy puts together each time it is asked."""
MASK_PARAMETERS = "raw int32 key, int32 stream, int32 threshold, int64 first", "bool dropped"
COLLECT = "int64 address", "T out", "out = *(const T*)address"


def rule_parameters(program: Program, by_value: bool = False) -> tuple[str, str]:
    """Return the parameters of a rule's kernel, as CuPy writes them: inputs, and state that is read and overwritten."""
    kinds = ("x", program.inputs), ("c", program.scalars), ("s", program.state)
    inputs, scalars, state = ([f"T {c}{k}" for k in range(len(kind))] for c, kind in kinds)
    return ", ".join([*inputs, *(scalars if by_value else ["raw T scalars"]), "raw bool alive"]), ", ".join(state)


def identifier(name: str) -> str:
    """Return a kernel's name that C++ takes: a rule may be a lambda, or have a letter that is not ASCII."""
    return "xpnet_" + re.sub(r"\W", "_", name, flags=re.ASCII)


@contextmanager
def lasting(cupy: Any) -> Iterator[None]:
    """What is made here is no part of a graph's memory, and ready for every stream."""
    with cupy.cuda.using_allocator(cupy.get_default_memory_pool().malloc):
        yield
    cupy.cuda.get_current_stream().synchronize()


class Lent:
    """Data as a graph sees them: their form, and the place on the device where their address stands at each launch.

    They can be gathered from, and nothing else; a step that asks for more is captured with the data themselves.
    """

    def __init__(self, array: Array, address: Array) -> None:
        self.shape, self.dtype, self.ndim, self.size = array.shape, array.dtype, array.ndim, array.size
        self.flags, self.address = array.flags, address


class Kernels:
    """The kernels of one GPU, compiled when they are first used."""

    def __init__(self, cupy: Any) -> None:
        self.cupy = cupy
        self._functions: dict[tuple[str, ...], Any] = {}
        self._rules: dict[tuple[Rule, int, int, int, bool], Any] = {}
        self._tickets: dict[tuple[int, int], Array] = {}

    def rule(self, rule: Rule, state: int, inputs: int, scalars: int, by_value: bool = False) -> Callable[..., None]:
        """Return the kernel of a rule, called with inputs, scalars, gate, state; TraceError if it has none.

        The scalars are an array, which a graph reads at each launch, or, if `by_value`, so many numbers of the host.
        """
        key = (rule, state, inputs, scalars, by_value)
        if key not in self._rules:
            program = trace(rule, state, inputs, scalars)
            parameters, body = rule_parameters(program, by_value), program.body(by_value)
            self._rules[key] = self.elementwise(*parameters, body, identifier(program.name))
        return self._rules[key]  # type: ignore[no-any-return]

    def measure(self, xp: Any, gradient: Array, alive: Array | None, loss: Array | None) -> tuple[Array, Array] | None:
        """The gradient's 2-norm, and whether it and the loss, and all before them, were finite, as 0-d arrays."""
        if (
            isinstance(gradient, tuple)
            or not plain(gradient)
            or getattr(loss, "dtype", gradient.dtype) != gradient.dtype
        ):
            return None
        empty, n = self.cupy.empty, gradient.size
        norm, now = empty((), dtype=gradient.dtype), empty((), dtype=bool)
        blocks = min(-(-max(n, 1) // (4 * THREADS)), BLOCKS)
        partial = empty(blocks, dtype=gradient.dtype)
        before = self.true if alive is None else alive
        arguments = (
            gradient,
            np.int64(n),
            before,
            NULL if loss is None else loss,
            partial,
            self.tickets(),
            norm,
            now,
        )
        key = ("measure", name_of(gradient.dtype))
        self.function(key, lambda: sources.reductions(*key[1:]))((blocks,), (THREADS,), arguments)
        return norm, now

    def cross_entropy(self, scores: Array, labels: Array) -> tuple[Array, Array] | None:
        """Cross-entropy of scores (…, C) and labels (…) of a type in LABELS: value and gradient."""
        fits = scores.ndim > 1 and labels.shape == scores.shape[:-1] and scores.size
        if not fits or scores.shape[-1] < 2 or not plain(scores) or not plain(labels, LABELS):
            return None
        empty, n, c = self.cupy.empty, labels.size, scores.shape[-1]
        gradient, value = empty(scores.shape, dtype=scores.dtype), empty((), dtype=scores.dtype)
        blocks = min(-(-n // (THREADS // 32)), BLOCKS)
        partial = empty(blocks, dtype=scores.dtype)
        sizes = np.int64(n), np.int32(c), np.float64(1.0 / n)
        arguments = (scores, labels, *sizes, gradient, partial, self.tickets(), value)
        key = ("cross_entropy", name_of(scores.dtype), name_of(labels.dtype))
        self.function(key, lambda: sources.reductions(*key[1:]))((blocks,), (THREADS,), arguments)
        return value, gradient

    def gather(self, xp: Any, x: Array, y: Array, index: Array, dtype: str) -> tuple[Array, Array] | None:
        """The rows of x, as numbers of `dtype`, and of y that an int32 index names."""
        kinds = tuple(sources.TYPES)
        if not (plain(x, kinds) and plain(y, kinds) and plain(index, ("int32",)) and index.size and y.size):
            return None
        if x.dtype.kind == "f" and name_of(x.dtype) != dtype:
            return None
        batch, width, depth = len(index), x.size // x.shape[0], y.size // y.shape[0]
        rows = self.cupy.empty((batch, *x.shape[1:]), dtype=dtype)
        targets = self.cupy.empty((batch, *y.shape[1:]), dtype=y.dtype)
        blocks = batch, -(-max(width, depth) // (4 * THREADS))
        sizes = np.int64(width), np.int64(depth)
        key = ("gather", dtype, name_of(x.dtype), name_of(y.dtype))
        function = self.function(key, lambda: sources.gather(*key[1:]))
        lent = isinstance(x, Lent)
        data = (x.address, y.address) if lent else (x, y)
        function(blocks, (THREADS,), (*data, np.int32(lent), index, *sizes, rows, targets))
        return rows, targets

    def bernoulli(
        self, xp: Any, shape: tuple[int, ...], p: float, key: Any, purpose: str, device: object, row: int = 0
    ) -> Array | None:
        """The mask of `xpnet.random.bernoulli`, the same bits."""
        if isinstance(key, int):
            key = self.cupy.asarray(np.asarray([key], dtype=np.int32))
        threshold = min(round(p * 2**32), 2**32 - 1) - 2**31
        operation = self.elementwise(*MASK_PARAMETERS, sources.MASK_OPERATION, "xpnet_mask")
        dropped = self.cupy.empty(shape, dtype=bool)
        first = row * math.prod(shape[1:])
        operation(key.reshape(1), digest(purpose, 32) - 2**31, threshold, first, dropped)
        return dropped

    def collect(self, table: Array, out: Array) -> None:
        """Copy the numbers of out's dtype that lie at the addresses of a table like it."""
        operation = self.elementwise(*COLLECT, "xpnet_collect")
        operation(table, out)

    @cached_property
    def true(self) -> Array:
        """A 0-d array that is True."""
        with lasting(self.cupy):
            return self.cupy.ones((), dtype=bool)

    def tickets(self) -> Array:
        """The counters of a stream; kernels on one stream follow each other, so they can share them."""
        stream = self.cupy.cuda.get_current_stream().ptr
        key = stream, get_ident() if stream == PER_THREAD else 0
        if key not in self._tickets:
            with lasting(self.cupy):
                self._tickets[key] = self.cupy.zeros(TICKETS, dtype="uint32")
        return self._tickets[key]

    def function(self, key: tuple[str, ...], source: Callable[[], str]) -> Any:
        """Return a kernel by its name, the first of `key`; the source is written when it is first asked for."""
        if key not in self._functions:
            module = self.cupy.RawModule(code=source())
            self._functions[key] = module.get_function(key[0])
        return self._functions[key]

    def elementwise(self, read: str, written: str, operation: str, name: str) -> Any:
        """Return a kernel that does an operation on each element."""
        key = (name, read, written, operation)
        if key not in self._functions:
            self._functions[key] = self.cupy.ElementwiseKernel(read, written, operation, name, no_return=True)
        return self._functions[key]


def plain(array: Array, dtypes: Sequence[str] = ("float32", "float64")) -> bool:
    """Whether an array lies in one piece, row by row, and has one of these dtypes."""
    return bool(array.flags.c_contiguous) and name_of(array.dtype) in dtypes
