"""What a backend is: where arrays are born, how they come home, and four seams where a library may do better."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, wraps
from importlib import import_module
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeAlias, TypeVar

import numpy as np

from xpnet.arrays import Array, Namespace, Vector, describe
from xpnet.backends.dense import Dense
from xpnet.errors import BackendError
from xpnet.parameters import Window, split

Rule: TypeAlias = Callable[..., tuple[Array, ...]]
"""An elementwise rule `rule(xp, *state, *inputs, *scalars) -> state`, as the optimizers write it."""

Vectors: TypeAlias = tuple[Vector, ...]
Numbers: TypeAlias = Sequence[Any]
Gate: TypeAlias = Array | None
Apply: TypeAlias = Callable[..., Vectors]
"""A mapped rule: `apply(state, inputs, scalars, gate=None) -> state`; where the gate is False nothing changes."""

Step: TypeAlias = Callable[[Any, Any, Any], tuple[Any, tuple[Array, ...]]]
"""One training step: `step(carry, fixed, x) -> carry, (loss, ...)`, the results 0-d arrays of floating numbers."""

Run: TypeAlias = Callable[[Any, Any, Any], tuple[Any, tuple[Array, ...]]]
"""K steps: `run(carry, fixed, xs) -> carry, (losses, …)`."""


class Work(NamedTuple):
    """How much the parameters do for a sample in a step's forward pass."""

    adds: float
    """Multiply-adds."""
    matrices: tuple[int, ...] = ()
    """The sizes of those that multiply a batch as a whole, if each parameter is used once for a sample."""


WorkOf: TypeAlias = Callable[[Any], Work]
"""`work(fixed)`: how much that is, of what a step is given `fixed`."""

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
NOTHING = nullcontext()


def at_work(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Make a method of something that has a `backend` one during which that backend is `working`."""

    @wraps(method)
    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self.backend.working():
            return method(self, *args, **kwargs)

    return call


def library_version(name: str) -> str | None:
    """Return the version of an array library, None if it is not installed."""
    try:
        return str(import_module({"strict": "array_api_strict"}.get(name, name)).__version__)
    except ImportError:
        return None


def absent(error: ImportError, module: str, text: str) -> Exception:
    """Return what to raise for a library that was not imported: the text, if it is not there, else what was wrong."""
    return BackendError(text) if isinstance(error, ModuleNotFoundError) and error.name == module else error


def reopen(spec: str, precision: str) -> "Backend":
    """Return the backend of that name: what pickle keeps of one."""
    library, _, device = spec.partition(":")
    return import_module(f"xpnet.backends.{library}").connect(device).with_matmul(precision)  # type: ignore[no-any-return]


class Backend:
    """A library on a device.

    The methods below are the plain forms, in array API operations alone: they serve any conforming library, and the
    faster ones of the subclasses are tested against them.
    """

    flat = True
    """Whether a compiled step carries θ as one vector (else as the tuple of its windows)."""
    precision = "float32"
    """In which float32 matrices are multiplied."""
    precisions: tuple[str, ...] = ("float32",)
    """In which they can be: `with_matmul` gives a backend that does."""
    reads_free = False
    """Whether reading a number costs no waiting: the device is the host itself, and has done what it was told."""
    eager = True
    """Whether functions run as they are called, so that the host may have a part in them."""
    fuses = False
    """Whether linear layers in a row are better handed to `dense` than computed layer by layer."""

    def __init__(self, name: str, xp: Namespace, device: Any, reason: str = "asked for by name") -> None:
        self.name, self.xp, self.device, self.reason = name, xp, device, reason
        self._mapped: dict[Rule, Apply] = {}

    @property
    def spec(self) -> str:
        """The name that opens this backend again, `torch:cuda:0`."""
        return f"{self.name}:{self.device}"

    def __reduce__(self) -> tuple[Any, ...]:
        return reopen, (self.spec, self.precision)

    def __copy__(self) -> "Backend":
        return self

    def __deepcopy__(self, memo: Any) -> "Backend":
        return self

    def __repr__(self) -> str:
        return f"<xpnet backend {self.name} on {self.device}: {self.reason}>"

    @property
    def version(self) -> str | None:
        """The library's version."""
        return library_version(self.name)

    def asarray(self, host: Any, dtype: str | None = None, copy: bool | None = None) -> Array:
        """Put host data on this device, as an array of this library; `copy=True` makes one that is the caller's own."""
        host = np.asarray(host, dtype=dtype)
        array = self._place(host, copy)
        if dtype is not None and array.dtype != getattr(self.xp, dtype):
            raise TypeError(f"{self.name} made {array.dtype} of {dtype}: switch 64-bit types on first")
        return array

    def _place(self, host: np.ndarray, copy: bool | None) -> Array:
        return self.xp.asarray(host, device=self.device, copy=copy)

    def constant(self, values: Any, dtype: Any) -> Array:
        """Return a layer's own numbers, nested tuples of floats, as an array on this device."""
        return self.xp.asarray(values, dtype=dtype, device=self.device)

    def adopt(self, host: np.ndarray) -> Array:
        """Put a host array on this device that the caller gives away: the memory itself, where the library can."""
        return self.asarray(host, dtype=host.dtype.name, copy=True)

    def refill(self, old: Array, host: np.ndarray) -> Array:
        """Put host data on the device where an array lies that is needed no more: there, if the library gains by it."""
        return self.asarray(host)

    def asnumpy(self, array: Array) -> np.ndarray:
        """Bring an array home to the host's memory."""
        return np.asarray(array)

    def owns(self, array: Array) -> bool:
        """Whether an array is of this library and lies on this device."""
        return describe(array) == describe(self.xp.empty(0, device=self.device))

    def plain(self, array: Array) -> Array:
        """Return an array of this library as data: without what the library would record of its use."""
        return array

    def abstractly(self, function: Callable[..., None], *arrays: Array) -> None:
        """Call a function of arrays for what it raises: on their shapes and types alone, where the library can."""
        function(*arrays)

    def bits(self) -> dict[str, str]:
        """Return what the last bits of a training run depend on, besides the numbers themselves."""
        return {"backend": self.name, "version": str(self.version)}

    def synchronize(self) -> None:
        """Wait until the device has done all it was asked."""

    def working(self) -> AbstractContextManager[None]:
        """Return the context of work on this backend: its device the current one, its errors said in a line."""
        return NOTHING

    def use_threads(self, most: int) -> None:
        """Let products take no more threads of the processor than that, from now on, where a library has a say."""

    def one_thread(self) -> AbstractContextManager[Any]:
        """Return the context of products on one thread, whose last bits then depend on no number of cores."""
        return NOTHING

    def select(self) -> Callable[[], Any]:
        """Make the device the one that this thread's own operations are done on, where a library has such a thing.

        Return the function that takes it back.
        """
        return lambda: None

    def describe(self) -> str:
        """Say in a line what computes: the device, and where it is known its name and memory."""
        return str(self.device)

    def versions(self) -> dict[str, str]:
        """Return the versions of what lies beneath the library: driver, toolkit."""
        return {}

    def memory(self) -> int | None:
        """Return the bytes that the library holds on the device, None if it does not say."""
        return None

    def with_matmul(self, precision: str) -> "Backend":
        """Return a backend that multiplies float32 matrices as "float32", or on CuPy as "tf32" or "bfloat16"."""
        if precision != "float32":
            raise BackendError(f'{self.name} multiplies in the precision of its arrays: "{precision}" needs cupy')
        return self

    @cached_property
    def dense(self) -> Dense:
        """Linear layers in a row: product, bias, ReLU and their gradients."""
        return Dense(self)

    def native(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return this library's own form of a function of arrays; most have none, and the function itself serves."""
        return function

    def jit(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function of arrays as one program, where the library compiles; elsewhere the function itself."""
        return function

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """Return a @ b, written into `out` if this library can."""
        return a @ b

    def split(self, theta: Array, windows: Sequence[Window]) -> tuple[Array, ...]:
        """Return the windows of a flat vector as arrays: views, where this library has views."""
        return split(self.xp, theta, windows)

    def join(self, theta: Array, windows: Sequence[Window]) -> tuple[tuple[Array | None, ...], Callable[..., Array]]:
        """Return where gradients may be written, and the function that makes them one vector like θ."""

        def finish(gradients: Sequence[Array]) -> Array:
            if not gradients:
                return self.xp.zeros_like(theta)
            return self.xp.concat([self.xp.reshape(g, (-1,)) for g in gradients])

        return (None,) * len(windows), finish

    def reuse(self) -> None:
        """Take back the newest gradient, which nobody needs any more: the next may be written there, if that can be."""

    def map(self, rule: Rule) -> Apply:
        """Make a rule on numbers into one on whole vectors, flat or in windows; they are overwritten where that can be.

        The same rule gives the same function: what was compiled for it is kept.
        """
        if rule not in self._mapped:
            self._mapped[rule] = in_windows_too(self._map(rule))
        return self._mapped[rule]

    def _map(self, rule: Rule) -> Apply:
        """Make a rule on numbers into one on arrays."""
        xp = self.xp

        def apply(state: Vectors, inputs: Vectors, scalars: Numbers, gate: Gate = None) -> Vectors:
            new = rule(xp, *(xp.asarray(old, copy=True) for old in state), *inputs, *scalars)
            return new if gate is None else tuple(xp.where(gate, n, old) for n, old in zip(new, state, strict=True))

        return apply

    def compile(self, step: Step, work: WorkOf | None = None) -> Run:
        """Make one step into K: `run(carry, fixed, xs) -> carry, (losses, ...)`, K the leading length of `xs`.

        `work` tells how large a step is, of which a library may make something; unless given, the length of θ does.
        """

        def run(carry: Any, fixed: Any, xs: tuple[Any, ...]) -> tuple[Any, tuple[Array, ...]]:
            results = []
            columns = (x if isinstance(x, list) else [x[k, ...] for k in range(x.shape[0])] for x in xs)
            for x in zip(*columns, strict=True):
                carry, result = step(carry, fixed, x)
                results.append(result)
            return carry, tuple(map(self.stack, zip(*results, strict=True)))

        return run

    def stack(self, column: Sequence[Array]) -> Array:
        """Return what each of K steps gave as one array (K, …)."""
        return self.xp.stack(column)

    def communicator(self, world: Any) -> Any:
        """Return what adds up over ranks on their devices, by `add`, and can `compile`; None: by way of the host."""
        return None

    def one_by_one(self, step: Step, work: WorkOf | None = None) -> Run:
        """Make K steps of one in which the host has a part: never one program, whatever the library compiles."""
        return self.compile(step, work)


def in_windows_too(flat: Apply) -> Apply:
    """Let a rule on flat vectors take tuples of windows as well."""

    def apply(state: Vectors, inputs: Vectors, scalars: Numbers, gate: Gate = None) -> Vectors:
        if not isinstance(state[0], tuple):
            return flat(state, inputs, scalars, gate)
        n = len(state)
        windows = [flat(arrays[:n], arrays[n:], scalars, gate) for arrays in zip(*state, *inputs, strict=True)]
        return tuple(zip(*windows, strict=True)) if windows else state

    return apply
