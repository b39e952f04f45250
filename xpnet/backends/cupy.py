"""CuPy, on a CUDA GPU: believed only after it has computed something.

What is done here and not by CuPy itself is in `xpnet/backends/cuda/`: rules and reductions as kernels, products by
cuBLASLt, K steps as one graph.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property, lru_cache
from importlib import import_module
from operator import attrgetter
from typing import TYPE_CHECKING, Any

try:
    import array_api_compat.cupy as xp
    import cupy
except ImportError:
    cupy = xp = None

import numpy as np

from xpnet.arrays import Array, Namespace
from xpnet.backends.base import Apply, Gate, Numbers, Rule, Run, Step, Vectors, WorkOf
from xpnet.backends.cuda import cublaslt, detect, nccl
from xpnet.backends.cuda.dense import FusedDense
from xpnet.backends.cuda.graph import Room, Steps
from xpnet.backends.cuda.images import Images
from xpnet.backends.cuda.kernels import Kernels, lasting
from xpnet.backends.cuda.products import Products
from xpnet.backends.cuda.sequences import Sequences
from xpnet.backends.cuda.symbols import TraceError
from xpnet.backends.in_place import InPlaceBackend
from xpnet.backends.native import bears_its_name, plain
from xpnet.errors import BackendError

if TYPE_CHECKING:
    from xpnet.world import World

NATIVE = {
    "xpnet.arrays.sum_rows": "images.sum_rows",
    "xpnet.data.batches.gather": "kernels.gather",
    "xpnet.layers.activations.gelu": "sequences.gelu",
    "xpnet.layers.attention.attention": "sequences.attention",
    "xpnet.layers.embedding.scatter_rows": "sequences.scatter_rows",
    "xpnet.layers.normalization.standardize_features": "sequences.standardize_features",
    "xpnet.layers.normalization.standardize_rows": "images.standardize_rows",
    "xpnet.layers.patches.convolve": "images.convolve",
    "xpnet.layers.patches.convolve_gradients": "images.convolve_gradients",
    "xpnet.layers.patches.convolve_input": "images.convolve_input",
    "xpnet.layers.patches.convolve_weight": "images.convolve_weight",
    "xpnet.layers.pooling.average_pool": "images.average_pool",
    "xpnet.layers.pooling.max_pool": "images.max_pool",
    "xpnet.losses.classification.cross_entropy": "kernels.cross_entropy",
    "xpnet.optimizers.finite.measure": "kernels.measure",
    "xpnet.random.bernoulli": "kernels.bernoulli",
}
"""Functions of arrays that have kernels of their own."""


class CupyBackend(InPlaceBackend):
    """CuPy on one GPU. Sums have one order: two runs give the same bits.

    xpnet's own work is done with this GPU as the current one. CuPy asks the same of operations written out on its
    arrays: `xn.use("cupy:1")` makes the GPU this thread's current one, `with backend.device:` does for a while.
    """

    fuses = True
    precisions = tuple(cublaslt.COMPUTE)

    def __init__(
        self,
        device: Any,
        reason: str = "asked for by name",
        precision: str = "float32",
        library: Any = cupy,
        namespace: Namespace = xp,
    ) -> None:
        super().__init__("cupy", namespace, device, reason)
        self.cupy, self.precision = library, precision
        self.rooms: list[Room] = []
        """Kept here: the collector, taking a graph, would otherwise end stream and pool before the graph is done."""
        self.idle: list[Room] = []
        """Those that no graph needs now."""
        self._communicators: dict[World, nccl.Communicator | None] = {}
        self._forms: dict[str, Callable[..., Any]] = {}
        self._memory = detect.Memory(library)

    @property
    def spec(self) -> str:
        """The name that opens this backend again."""
        return f"cupy:{self.device.id}"

    def with_matmul(self, precision: str) -> "CupyBackend":
        """Return this GPU with float32 matrices multiplied as "float32", "tf32" (10 bits) or "bfloat16" (7 bits).

        θ, the optimizer's state and all sums stay float32, as do small products of linear layers; float64 is always
        multiplied as float64.
        """
        if precision not in self.precisions:
            raise BackendError(f'unknown precision "{precision}": choose one of {", ".join(self.precisions)}')
        chosen = type(self)(self.device, self.reason, precision, self.cupy, self.xp)
        if precision != "float32" and chosen.products is None:
            raise BackendError(f'matmul="{precision}" needs cuBLASLt, which could not be loaded: run `xpnet doctor`')
        return chosen

    @cached_property
    def kernels(self) -> Kernels:
        """Kernels of our own."""
        return Kernels(self.cupy)

    @cached_property
    def images(self) -> Images:
        """Those for images."""
        return Images(self.kernels, self.matmul)

    @cached_property
    def sequences(self) -> Sequences:
        """Those for sequences."""
        return Sequences(self.images, self.matmul)

    @cached_property
    def products(self) -> Products | None:
        """Products by cuBLASLt, None if it cannot be loaded; CuPy's own then serve, and cannot be captured."""
        try:
            return Products(self.cupy, self.precision)
        except BackendError:
            return None

    @cached_property
    def dense(self) -> Any:
        """Linear layers in a row."""
        return super().dense if self.products is None else FusedDense(self)

    def room(self) -> Room:
        """Return a room for a graph; when the graph is let go it makes it `idle` again."""
        with suppress(IndexError):
            return self.idle.pop()
        pool = self.cupy.cuda.MemoryPool(self.cupy.get_default_memory_pool().malloc)
        pool.set_limit(size=0)  # the pool behind it has the limit; this one must never free what was captured
        self.rooms.append(Room(self.cupy.cuda.Stream(non_blocking=True), pool))
        return self.rooms[-1]

    def select(self) -> Callable[[], Any]:
        """Make this GPU the thread's current one; return what makes the one before it current again."""
        before = self.cupy.cuda.Device()
        self.device.use()
        return before.use  # type: ignore[no-any-return]

    def _place(self, host: np.ndarray, copy: bool | None) -> Array:
        with self.working():
            return self.cupy.asarray(host)  # by way of pinned memory, where there is enough of it

    def refill(self, old: Array, host: np.ndarray) -> Array:
        """Put host data where an array lies, if it is like it: the addresses that a captured graph reads stay."""
        new = self.asarray(host)
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            return new
        with self.working():
            old[...] = new
        return old

    def constant(self, values: Any, dtype: Any) -> Array:
        """Return a layer's own numbers, nested tuples of floats, as an array on this device, always the same one."""
        if (values, dtype) in self._constants:  # a capture may not wait for it
            return self._constants[values, dtype]
        with self.working(), lasting(self.cupy):
            return super().constant(values, dtype)

    def describe(self) -> str:
        """Name, compute capability and memory of the GPU."""
        return detect.describe_device(self.cupy, self.device.id)

    def versions(self) -> dict[str, str]:
        """Driver, CUDA runtime, cuBLASLt."""
        runtime = self.cupy.cuda.runtime
        lt = {} if self.products is None else {"cublasLt": str(self.products.lt.version)}
        numbers = {"driver": runtime.driverGetVersion(), "CUDA": runtime.runtimeGetVersion()}
        return {name: detect.version(number) for name, number in numbers.items()} | lt

    def memory(self) -> int:
        """Return what CuPy's memory pool holds of this GPU, in bytes."""
        with self.device:
            return int(self.cupy.get_default_memory_pool().total_bytes())

    def asnumpy(self, array: Array) -> np.ndarray:
        """Copy an array to the host, waiting for it."""
        with self.working():
            home: np.ndarray = self.cupy.asnumpy(array)
        return home

    def owns(self, array: Array) -> bool:
        """Whether this is a CuPy array on this GPU."""
        return isinstance(array, self.cupy.ndarray) and array.device == self.device

    def synchronize(self) -> None:
        """Wait until the GPU has done all it was asked."""
        self.device.synchronize()

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """Return a @ b, in `out` if one is given."""
        with self.working():
            product = None if self.products is None else self.products.multiply(a, b, out)
            return self.cupy.matmul(a, b, out=out) if product is None else product

    def native(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function's own kernel, which leaves to the plain form what it was not made for."""
        name = f"{getattr(function, '__module__', '')}.{getattr(function, '__name__', '')}"
        if name not in NATIVE or not bears_its_name(function):
            return function
        if name not in self._forms:
            self._forms[name] = self._served(attrgetter(NATIVE[name])(self), plain(function))
        return self._forms[name]

    def _served(self, own: Callable[..., Any], formula: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            with self.working():
                result = None if keywords else own(*arguments)
                return formula(*arguments, **keywords) if result is None else result

        return call

    def _map(self, rule: Rule) -> Apply:
        one_by_one, kernels = super()._map(rule), self.kernels

        def apply(state: Vectors, inputs: Vectors, scalars: Numbers, gate: Gate = None) -> Vectors:
            by_value = not self.owns(scalars)
            try:
                kernel = kernels.rule(rule, len(state), len(inputs), len(scalars), by_value)
            except TraceError:
                return one_by_one(state, inputs, scalars, gate)
            if by_value and self._capturing():
                raise BackendError("a graph would repeat the host's numbers at each launch: put them on the device")
            numbers = map(float, scalars) if by_value else (scalars,)
            with self.working():
                kernel(*inputs, *numbers, (kernels.true if gate is None else gate).reshape(1), *state)
            return state

        return apply

    def _capturing(self) -> bool:
        stream = self.cupy.cuda.get_current_stream()
        return bool(stream.ptr) and bool(stream.is_capturing())

    def compile(self, step: Step, work: WorkOf | None = None) -> Run:
        """Make K steps one CUDA graph, launched at once; step by step if they cannot be captured, with a warning."""
        return Steps(self, step)

    def one_by_one(self, step: Step, work: WorkOf | None = None) -> Run:
        """Run the steps one by one: no graph can wait for the host."""
        return super().compile(step)

    def communicator(self, world: "World") -> nccl.Communicator | None:
        """Return what adds up on the GPUs of all ranks; None, with a warning, if they go by way of the host."""
        if world not in self._communicators:
            with self.working():
                self._communicators[world] = nccl.connect(self, world)
        return self._communicators[world]

    def working(self) -> AbstractContextManager[None]:
        """The GPU current; of an allocation that failed, how much was asked, how much is free, and what to lower."""
        here = self.cupy.cuda.runtime.getDevice() == self.device.id
        return self._memory if here else self._going_there()

    @contextmanager
    def _going_there(self) -> Iterator[None]:
        with self.device, self._memory:
            yield


def connect(device: str) -> CupyBackend:
    """Return the backend for a GPU by its number, after a trial.

    If none is named it is the first; of processes that mpiexec or srun started on a machine, each takes the next one.
    """
    names = devices()
    device = device or names[detect.local_rank() % len(names)]
    if device not in names:
        raise BackendError(f'CuPy has no device "{device}" here: choose one of {names}')
    detect.check_libraries(cupy, import_module("cupy_backends.cuda.libs"))
    detect.check_device(cupy, int(device))
    return CupyBackend(cupy.cuda.Device(int(device)))


def of(array: Array) -> CupyBackend:
    """Return the backend of a CuPy array."""
    return _of(array.device.id)


@lru_cache(maxsize=16)
def _of(number: int) -> CupyBackend:
    return CupyBackend(cupy.cuda.Device(number), "the array's own library")


def devices() -> Sequence[str]:
    """Return the numbers of the GPUs that the driver shows; BackendError says what is missing and how to get it."""
    return [str(k) for k in range(detect.count_devices(cupy))]


def details() -> Sequence[str]:
    """Return a line about each GPU: name, compute capability, driver, memory; of several, what adds up over them."""
    numbers = devices()
    lines = [detect.describe_device(cupy, int(number)) for number in numbers]
    return [*lines, nccl.describe(cupy)] if len(numbers) > 1 else lines
