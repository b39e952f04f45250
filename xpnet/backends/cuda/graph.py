"""K training steps as one CUDA graph: the host says "go" once, and the GPU does the rest by itself.

The first call of a kind runs two steps one by one, which compiles kernels, chooses algorithms and fills a memory pool
of the graph's own. Then all are captured, and from then on the graph is launched. What changes from call to call (which
samples, which keys, which learning rates) lies in fixed buffers that are filled before each launch, and so does the
address of the data: a graph serves all data of one form, and holds none. Capturing runs nothing, so a step that cannot
be captured leaves θ as it was; the steps then run one by one, and a warning says why.

A call that fails, by an error or by Ctrl-C, leaves the carry as it was, or as the whole call made it.
"""

import ctypes
import gc
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import RLock
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from xpnet.arrays import Array, describe
from xpnet.backends.base import Step
from xpnet.backends.cuda.kernels import Lent
from xpnet.backends.cuda.results import Results
from xpnet.backends.cuda.trees import addresses, copies, form, leaves, rebuild

if TYPE_CHECKING:
    from xpnet.world import World

Gather: TypeAlias = Callable[[Any], list[Any]]
"""What each of the ranks says, in their order: `gather(own) -> all`."""

WARM, MANY = 2, 8
"""How many steps of a call warm up, to be forgotten; and how many a call must have for that: those of a shorter one all
run one by one, and count, for it may be the only one of its form."""
PIECE = 512
"""Bytes of memory that a pool gives at least."""
KEPT = 4
"""How many graphs a compiled step keeps, with their memory: one for each K and batch size, in practice one or two."""

capturing = RLock()
"""One thread at a time captures: Python's collector rests meanwhile, in all of them."""


def alone(value: Any) -> list[Any]:
    """Return what each of the ranks says, where there is but one."""
    return [value]


class Steps:
    """A step made into K steps: `steps(carry, fixed, xs) -> carry, (losses, …)`.

    With a world, a step has sums over its ranks, by NCCL, which wants each of them captured by all ranks or by none,
    and a graph launched by all who captured it together ("Using NCCL with CUDA Graphs", NVIDIA's NCCL user guide). So
    ranks first tell each other how far they are, and all do what the one does that has come least far:

        one is new to data of this form   all run steps one by one, in the memory of their graphs
        one has no graph                  all capture, which adds up nothing, and tell each other whether it went well
        one of the captures failed        all begin again with the data's addresses in the graph, or run one by one
        all have graphs                   all launch them

    Whatever it is, a call comes to as many sums on each rank, and a rank that failed is missed before the others ask
    NCCL for anything. All that follows a refusal runs step by step on all ranks.
    """

    def __init__(self, backend: Any, step: Step, world: "World | None" = None) -> None:
        self.backend, self.step = backend, step
        self.gather: Gather = alone if world is None else world.gather
        self.speaks = world is None or world.rank == 0
        self.graphs: dict[Any, Graph] = {}
        self.direct = False
        """Whether the step reads its data otherwise than by `gather`: a graph then serves those addresses alone."""
        self.refused = ""
        self.lock = RLock()
        self.done: Any = None
        """The event at which the last call was done: the next may be asked on another stream."""

    def __call__(self, carry: Any, fixed: Any, xs: tuple[Any, ...]) -> tuple[Any, tuple[Array, ...]]:
        """Run the steps, as a graph if that can be done."""
        for array in leaves((carry, fixed)):
            if not self.backend.owns(array):
                came = describe(array)
                raise TypeError(f"a compiled step takes arrays on {self.backend.device}, got {came}: use asarray(...)")
        with self.lock, self.backend.working():
            rows = self.rows(xs, next(a.dtype for a in leaves(carry) if a.dtype.kind == "f"))
            current = self.backend.cupy.cuda.get_current_stream()
            if self.done is not None:
                current.wait_event(self.done)
            try:
                return self.steps(carry, fixed, rows)
            finally:
                self.done = current.record()

    def steps(self, carry: Any, fixed: Any, rows: tuple[Array, ...]) -> tuple[Any, tuple[Array, ...]]:
        """Run the steps, their columns on the device."""
        if self.refused:
            return run(self.backend, self.step, carry, fixed, rows)
        try:
            return self.graph(carry, fixed, rows)(carry, fixed, rows)
        except CaptureError as error:
            why = str(error)
        self.graphs.clear()
        if not self.direct and leaves(fixed):
            self.direct = True
            return self.steps(carry, fixed, rows)
        self.refused = why
        if self.speaks:
            warnings.warn(f"steps run one by one, not as a CUDA graph: {why}", RuntimeWarning, stacklevel=3)
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
        """Return the graph for arguments like these, if need be a new one in place of the one unused for longest."""
        key = (form(fixed), form(carry), form(rows), tuple(addresses(fixed)) if self.direct else ())
        graph = self.graphs.pop(key, None)
        while graph is None and len(self.graphs) >= KEPT:
            del self.graphs[next(iter(self.graphs))]
        self.graphs[key] = graph or Graph(self.backend, self.step, self.direct, self.gather)
        return self.graphs[key]

    @property
    def nodes_per_step(self) -> float | None:
        """How many things the newest graph does for a step; None if there is no graph."""
        counts = [graph.nodes / len(graph.rows[0]) for graph in self.graphs.values() if graph.executable is not None]
        return counts[-1] if counts else None


def run(backend: Any, step: Step, carry: Any, fixed: Any, rows: tuple[Array, ...]) -> tuple[Any, tuple[Array, ...]]:
    """Run the steps one by one, on a copy of the carry."""
    carry, found = _run(step, copies(carry), fixed, rows)
    return carry, Results.of(backend, found).columns()


def _run(step: Step, carry: Any, fixed: Any, rows: tuple[Array, ...]) -> tuple[Any, list[tuple[Array, ...]]]:
    """Return the carry, and what each step reports."""
    found = []
    for k in range(len(rows[0])):
        carry, results = step(carry, fixed, tuple(row[k] for row in rows))
        found.append(results)
    return carry, found


class CaptureError(Exception):
    """A step cannot be captured; the text says why."""


class Room(NamedTuple):
    """Where a graph is captured: a stream on which nothing else is done, and a pool from which it takes its memory."""

    stream: Any
    pool: Any


class Graph:
    """K steps with a certain carry on data of a certain form. `rows` and `carry` are the buffers it works on.

    It has a room of its own, and with the stream all that kernels on one stream share: graphs may run at the same time.
    """

    def __init__(self, backend: Any, step: Step, direct: bool, gather: Gather) -> None:
        cuda = backend.cupy.cuda
        self.backend, self.step, self.direct, self.gather, self.cuda = backend, step, direct, gather, cuda
        self.room: Room = backend.room()
        self.rows: tuple[Array, ...] = ()
        self.carry: Any = None
        self.results: Results | None = None
        self.table: Array = None
        """The addresses of the data, where the graph reads them, and which they are."""
        self.addresses: list[int] = []
        self.executable: Any = None

    def __call__(self, carry: Any, fixed: Any, rows: tuple[Array, ...]) -> tuple[Any, tuple[Array, ...]]:
        """Warm up, or capture and launch, or launch: what every rank is ready for."""
        stages = self.gather((self.results is not None, self.executable is not None))
        if not all(warm for warm, _ in stages):
            made = self.warm_up(carry, fixed, rows)
            if made is not None:
                return made
        if not all(captured for _, captured in stages):
            self.capture_on_all_ranks(carry, fixed, rows)
        assert self.results is not None
        for buffer, array in zip((*leaves(self.carry), *self.rows), (*leaves(carry), *rows), strict=True):
            if buffer.data.ptr != array.data.ptr:
                buffer[...] = array
        if not self.direct and addresses(fixed) != self.addresses:
            self.table[...] = self.backend.asarray(np.asarray(addresses(fixed), dtype=np.int64))
            self.addresses = addresses(fixed)
        self.executable.launch()
        return self.carry, self.results._replace(numbers=self.results.numbers.copy()).columns()

    def warm_up(self, carry: Any, fixed: Any, rows: tuple[Array, ...]) -> tuple[Any, tuple[Array, ...]] | None:
        """Run steps one by one in the graph's memory. Nothing of it goes out, for it ends with the graph.

        Return what they gave; None of many, of which a few are run.
        """
        count = len(rows[0])
        few = count if count < MANY else WARM
        carry = copies(carry)
        own = set(addresses(carry))
        with self.apart():
            made, found = _run(self.step, carry, fixed, tuple(row[:few] for row in rows))
            self.results = Results.of(self.backend, found)
            if few < count:
                self.results = Results.room(self.backend, found[0], count)
                self.room.pool.malloc(PIECE * self.results.numbers.size)  # and freed: in one piece for all of them
        self.executable = None
        if few < count:
            return None
        carry = copies(made, lambda array: array.data.ptr not in own)
        return carry, self.results._replace(numbers=self.results.numbers.copy()).columns()

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Work on the graph's own stream and memory, after what was asked before, and before what is asked next."""
        current = self.cuda.get_current_stream()
        stream, pool = self.room
        stream.wait_event(current.record())
        try:
            with stream, self.cuda.using_allocator(pool.malloc):
                yield
        finally:  # after an error too: what was asked until then is under way
            current.wait_event(stream.record())

    def capture_on_all_ranks(self, carry: Any, fixed: Any, rows: tuple[Array, ...]) -> None:
        """Capture; CaptureError on every rank if it failed on one."""
        why = ""
        try:
            self.capture(carry, fixed, rows)
        except CaptureError as error:
            why = str(error)
        reasons = self.gather(why)
        for rank, reason in enumerate(reasons):
            if reason:
                raise CaptureError(f"rank {rank}: {reason}" if len(reasons) > 1 else reason)

    def capture(self, carry: Any, fixed: Any, rows: tuple[Array, ...]) -> None:
        """Record what the steps do. The carry's arrays become the graph's: it reads and writes them at each launch."""
        with self.apart(), capturing, quiet_collector():
            buffers = tuple(row.copy() for row in rows)
            if not self.direct:
                self.table = self.backend.cupy.empty(len(leaves(fixed)), dtype="int64")
                lent = [Lent(array, self.table[k : k + 1]) for k, array in enumerate(leaves(fixed))]
                fixed = rebuild(fixed, iter(lent))
            try:
                self.room.stream.begin_capture()
                assert self.results is not None
                new, found = _run(self.step, carry, fixed, buffers)
                found = self.results.alike(self.backend, found)
                self.results.collect(self.backend)
                if form(new) != form(carry):
                    raise CaptureError("the carry changes its form from step to step")
                for old, array in zip(leaves(carry), leaves(new), strict=True):
                    if old.data.ptr != array.data.ptr:
                        old[...] = array
                executable = self.room.stream.end_capture()
            except BaseException as error:  # Ctrl-C too: the stream must not stay as it is
                with suppress(Exception):
                    self.room.stream.end_capture()
                if not isinstance(error, Exception):
                    raise
                raise CaptureError(str(error).strip().partition("\n")[0] or type(error).__name__) from error
            self.results.point(self.backend, found)
        self.carry, self.rows, self.addresses, self.executable = carry, buffers, [], executable

    def __del__(self) -> None:
        self.executable = self.results = self.carry = self.table = None
        self.rows = ()
        with suppress(Exception), self.backend.device:
            self.room.pool.free_all_blocks()
            self.backend.idle.append(self.room)

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
