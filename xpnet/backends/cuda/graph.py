"""K training steps as one CUDA graph: the host says "go" once, and the GPU does the rest by itself.

The first call of a kind runs step by step, which compiles kernels, chooses algorithms and fills a memory pool of the
graph's own. The second is captured, and from then on the graph is launched. What changes from call to call (which
samples, which keys, which learning rates) lies in fixed buffers that are filled before each launch. Capturing runs
nothing, so a step that cannot be captured leaves θ as it was; the steps then run one by one, and a warning says why.
"""

import ctypes
import gc
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from xpnet.arrays import Array, describe
from xpnet.backends.base import Step

KEPT = 4
"""How many graphs a compiled step keeps: one for each K and batch size in use, in practice one or two."""


def leaves(tree: Any) -> list[Array]:
    """Return the arrays of nested tuples, lists and dicts, in order."""
    if isinstance(tree, dict):
        return [leaf for name in sorted(tree) for leaf in leaves(tree[name])]
    return [leaf for branch in tree for leaf in leaves(branch)] if isinstance(tree, (tuple, list)) else [tree]


def rebuild(tree: Any, arrays: Iterator[Array]) -> Any:
    """Return a tree of the same form that holds other arrays."""
    if isinstance(tree, dict):
        return {name: rebuild(tree[name], arrays) for name in sorted(tree)}
    if isinstance(tree, (tuple, list)):
        branches = [rebuild(branch, arrays) for branch in tree]
        return type(tree)(*branches) if hasattr(tree, "_fields") else type(tree)(branches)
    return next(arrays)


def form(tree: Any) -> Any:
    """Return what two trees must agree in so that one graph serves both: nesting, names, shapes and dtypes."""
    if isinstance(tree, dict):
        return tuple((name, form(tree[name])) for name in sorted(tree))
    return tuple(map(form, tree)) if isinstance(tree, (tuple, list)) else (tree.shape, tree.dtype.name)


class Steps:
    """A step made into K steps: `steps(carry, fixed, xs) -> carry, (losses, …)`."""

    def __init__(self, backend: Any, step: Step) -> None:
        self.backend, self.step = backend, step
        self.graphs: dict[Any, Graph] = {}
        self.refused = ""

    def __call__(self, carry: Any, fixed: Any, xs: tuple[Any, ...]) -> tuple[Any, tuple[Array, ...]]:
        """Run the steps, as a graph if that can be done."""
        for array in leaves((carry, fixed)):
            if not self.backend.owns(array):
                came = describe(array)
                raise TypeError(f"a compiled step takes arrays on {self.backend.device}, got {came}: use asarray(...)")
        with self.backend.device, self.backend.memory_errors():
            rows = self.rows(xs, next(a.dtype for a in leaves(carry) if a.dtype.kind == "f"))
            if self.refused or len(rows[0]) < 2:
                return run(self.backend, self.step, carry, fixed, rows)
            graph = self.graph(carry, fixed, rows)
            try:
                return graph(carry, rows)
            except CaptureError as error:
                self.refused = str(error)
                self.graphs.clear()
                text = f"steps run one by one, not as a CUDA graph: {self.refused}"
                warnings.warn(text, RuntimeWarning, stacklevel=2)
                return run(self.backend, self.step, carry, fixed, rows)

    def rows(self, xs: tuple[Any, ...], dtype: Any) -> tuple[Array, ...]:
        """Return the columns of `xs` on the device, a row a step: real numbers in θ's precision, integers as int32."""

        def column(x: Any) -> Array:
            if self.backend.owns(x):
                return x
            host = np.asarray(x)
            return self.backend.asarray(host.astype(dtype if host.dtype.kind == "f" else np.int32))

        columns = tuple(map(column, xs))
        if len({len(c) for c in columns}) != 1:
            raise ValueError(f"a compiled step expects columns of one length, got {[len(c) for c in columns]}")
        return columns

    def graph(self, carry: Any, fixed: Any, rows: tuple[Array, ...]) -> "Graph":
        """Return the graph for arguments like these; those for other data are let go, for they hold it in memory."""
        data = tuple((a.data.ptr, a.shape, a.dtype.name) for a in leaves(fixed))
        self.graphs = {key: graph for key, graph in self.graphs.items() if key[0] == data}
        key = (data, form(carry), form(rows))
        if key not in self.graphs:
            for old in list(self.graphs)[: len(self.graphs) - KEPT + 1]:
                del self.graphs[old]
            self.graphs[key] = Graph(self.backend, self.step, fixed)
        return self.graphs[key]

    @property
    def nodes_per_step(self) -> float | None:
        """How many things the newest graph does for a step; None if there is no graph."""
        counts = [graph.nodes / len(graph.rows[0]) for graph in self.graphs.values() if graph.executable is not None]
        return counts[-1] if counts else None


def run(backend: Any, step: Step, carry: Any, fixed: Any, rows: tuple[Array, ...]) -> tuple[Any, tuple[Array, ...]]:
    """Run the steps one by one."""
    carry, out = _run(backend, step, carry, fixed, rows)
    return carry, tuple(out[k] for k in range(len(out)))


def _run(backend: Any, step: Step, carry: Any, fixed: Any, rows: tuple[Array, ...], out: Array = None) -> Any:
    """Return the carry and the results (R, K); `out` is where to write them."""
    for k in range(len(rows[0])):
        carry, results = step(carry, fixed, tuple(row[k] for row in rows))
        if out is None:
            out = backend.cupy.empty((len(results), len(rows[0])), dtype=results[0].dtype)
        backend.kernels.collect([r if r.dtype == out.dtype else r.astype(out.dtype) for r in results], out, k)
    return carry, out


class CaptureError(Exception):
    """A step cannot be captured; the text says why."""


class Graph:
    """K steps on certain data with a certain carry. `Graph.rows` and `Graph.carry` are the buffers it works on."""

    def __init__(self, backend: Any, step: Step, fixed: Any) -> None:
        cuda = backend.cupy.cuda
        self.backend, self.step, self.fixed, self.cuda = backend, step, fixed, cuda
        self.stream = backend.capture_stream
        self.pool = cuda.MemoryPool(backend.cupy.get_default_memory_pool().malloc)  # lives as long as the graph
        self.pool.set_limit(size=0)  # the pool behind it has the limit; this one must never free what was captured
        self.rows: tuple[Array, ...] = ()
        self.carry: Any = None
        self.results: Array = None
        self.executable: Any = None

    def __call__(self, carry: Any, rows: tuple[Array, ...]) -> tuple[Any, tuple[Array, ...]]:
        """Warm up, or capture and launch, or launch."""
        if self.results is None:
            with self.apart():
                carry, self.results = _run(self.backend, self.step, carry, self.fixed, rows)
        else:
            if self.executable is None:
                self.capture(carry, rows)
            for buffer, array in zip((*leaves(self.carry), *self.rows), (*leaves(carry), *rows), strict=True):
                if buffer.data.ptr != array.data.ptr:
                    buffer[...] = array
            self.executable.launch()
            carry = self.carry
        out = self.results.copy()
        return carry, tuple(out[k] for k in range(len(out)))

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Work on the graph's own stream and memory, after what was asked before, and before what is asked next."""
        current = self.cuda.get_current_stream()
        self.stream.wait_event(current.record())
        with self.stream, self.cuda.using_allocator(self.pool.malloc):
            yield
        current.wait_event(self.stream.record())

    def capture(self, carry: Any, rows: tuple[Array, ...]) -> None:
        """Record what the steps do. The carry's arrays become the graph's: it reads and writes them at each launch."""
        with self.apart():
            self.carry, self.rows = carry, tuple(row.copy() for row in rows)
            with quiet_collector():
                self.stream.begin_capture()
                try:
                    new, _ = _run(self.backend, self.step, carry, self.fixed, self.rows, self.results)
                    if form(new) != form(carry):
                        raise CaptureError("the carry changes its form from step to step")
                    for old, array in zip(leaves(carry), leaves(new), strict=True):
                        if old.data.ptr != array.data.ptr:
                            old[...] = array
                    self.executable = self.stream.end_capture()
                except Exception as error:
                    with suppress(Exception):
                        self.stream.end_capture()
                    raise CaptureError(str(error).strip().partition("\n")[0] or type(error).__name__) from error

    def __del__(self) -> None:
        self.executable = self.results = self.carry = None
        self.rows = ()
        with suppress(Exception), self.backend.device:
            self.pool.free_all_blocks()  # free blocks hold on to their pool, and would stay for ever

    @property
    def nodes(self) -> int:
        """How many kernels and copies the graph holds, as the driver counts them."""
        count = ctypes.c_size_t(0)
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
        function: Callable[..., int] = driver.cuGraphGetNodes
        status = function(ctypes.c_void_p(self.executable.graph), None, ctypes.byref(count))
        if status:
            raise RuntimeError(f"cuGraphGetNodes failed with {status}")
        return count.value


@contextmanager
def quiet_collector() -> Iterator[None]:
    """Keep Python's garbage collector from freeing device memory in the middle of a capture."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()
