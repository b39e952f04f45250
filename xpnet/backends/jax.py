"""JAX: immutable arrays; K training steps become one program."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from xpnet.backends.host import keep_memory, share_heap

try:
    share_heap()  # before JAX starts its threads
    import jax
    import jax.numpy as xp

    from xpnet.backends.native.jax import FORMS
except ImportError as error:
    jax, WHY = None, error

import numpy as np

from xpnet.arrays import Array
from xpnet.backends.base import Apply, Backend, Gate, Numbers, Rule, Run, Step, Vectors, WorkOf, absent, in_windows_too
from xpnet.backends.native import choose
from xpnet.errors import BackendError


class JaxBackend(Backend):
    """JAX on any of its devices. A compiled step carries θ as windows: slices of one vector would be copied."""

    flat = False
    eager = False

    def __init__(self, device: Any, reason: str = "asked for by name") -> None:
        super().__init__("jax", xp, device, reason)

    @property
    def spec(self) -> str:
        """The name that opens this backend again."""
        return f"jax:{self.device.platform}:{self.device.id}"

    def _place(self, host: np.ndarray, copy: bool | None) -> Array:
        wide = {"float64": "float32", "int64": "int32", "uint64": "uint32"}
        if not jax.config.jax_enable_x64 and host.dtype.name in wide:
            if host.dtype.name == "float64":
                raise TypeError(
                    "JAX makes float32 of float64: pass float32, or set jax.config.update('jax_enable_x64', True)"
                )
            narrow = host.astype(wide[host.dtype.name])
            if not np.array_equal(narrow, host):
                raise TypeError(
                    f"JAX makes {narrow.dtype} of {host.dtype}, which cannot hold {host.min()}..{host.max()}"
                )
            host = narrow
        return jax.device_put(host, self.device, may_alias=False)

    def owns(self, array: Array) -> bool:
        """Whether this is a JAX array on this device, or stands for one in a function being traced."""
        return isinstance(array, jax.core.Tracer) or (isinstance(array, jax.Array) and array.devices() == {self.device})

    def abstractly(self, function: Callable[..., None], *arrays: Array) -> None:
        """Call a function on arrays that have a shape and a type and no values: nothing is computed or compiled."""
        jax.eval_shape(function, *arrays)

    def synchronize(self) -> None:
        """Wait for all that was dispatched to this device."""
        (jax.device_put(0.0, self.device) + 0).block_until_ready()

    def map(self, rule: Rule) -> Apply:
        """Make a rule on numbers into one program on whole vectors."""
        if rule not in self._mapped:
            self._mapped[rule] = self._compiled(in_windows_too(self._map(rule)))
        return self._mapped[rule]

    def _compiled(self, plain: Apply) -> Apply:
        def gated(state: Vectors, inputs: Vectors, scalars: Numbers, gate: Gate) -> Vectors:
            if gate is None or self.device.platform != "cpu":  # on a GPU the host would wait for each gate
                return plain(state, inputs, scalars, gate)
            new: Vectors  # by a branch on the CPU: with `where` XLA copies the state in every step
            new = jax.lax.cond(gate, lambda: tuple(plain(state, inputs, scalars)), lambda: tuple(state))
            return new

        program = jax.jit(gated)  # the scalars are arguments, so a new learning rate compiles nothing

        def apply(state: Vectors, inputs: Vectors, scalars: Numbers, gate: Gate = None) -> Vectors:
            new: Vectors = program(state, inputs, tuple(scalars), gate)
            return new

        return apply

    def native(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return JAX's own form of a layer's function."""
        return choose(FORMS, function)

    def jit(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function of arrays as one program."""
        compiled: Callable[..., Any] = jax.jit(function)
        return compiled

    def compile(self, step: Step, work: WorkOf | None = None) -> Run:
        """Make K steps one program: a scan whose carry is overwritten, not copied."""

        def steps(carry: Any, fixed: Any, xs: Any) -> Any:
            return jax.lax.scan(lambda carry, x: step(carry, fixed, x), carry, xs)

        scan = jax.jit(steps, donate_argnums=0)
        if self.device.platform == "cpu":
            keep_memory()

        def run(carry: Any, fixed: Any, xs: tuple[Any, ...]) -> tuple[Any, tuple[Array, ...]]:
            dtype = jax.tree.leaves(carry)[0].dtype

            def column(x: Any) -> Any:
                if isinstance(x, jax.Array):
                    return x
                values = np.asarray(x)
                return values.astype(dtype if values.dtype.kind == "f" else np.int32)

            done: tuple[Any, tuple[Array, ...]] = scan(carry, fixed, tuple(map(column, xs)))
            return done

        return run

    def one_by_one(self, step: Step, work: WorkOf | None = None) -> Run:
        """Run the steps one by one, each a few programs, which take indices as they are on the host."""
        plain = super().compile(step)
        return lambda carry, fixed, xs: plain(carry, fixed, (np.asarray(xs[0]), *xs[1:]))


def connect(device: str) -> JaxBackend:
    """Return the backend for a JAX device (`cpu`, `gpu:1`), JAX's own default if none is named."""
    if jax is None:
        raise absent(WHY, "jax", "JAX is not installed: pip install 'xpnet[jax]'")
    if not device:
        return JaxBackend(jax.devices()[0])
    platform, _, index = device.partition(":")
    try:
        return JaxBackend(jax.devices(platform)[int(index or 0)])
    except (RuntimeError, IndexError, ValueError):
        raise BackendError(f'JAX has no device "{device}" here: choose one of {devices()}') from None


def of(array: Array) -> JaxBackend:
    """Return the backend of a JAX array."""
    traced = isinstance(array, jax.core.Tracer)
    return _on(jax.devices()[0] if traced else next(iter(array.devices())))


@lru_cache
def _on(device: Any) -> JaxBackend:
    """Return one backend for a device, always the same, since it keeps its mapped rules."""
    return JaxBackend(device, "the array's own library")


def devices() -> list[str]:
    """Return the devices that can be used."""
    if jax is None:
        raise absent(WHY, "jax", "JAX is not installed: pip install 'xpnet[jax]'")
    return [f"{device.platform}:{device.id}" for device in jax.devices()]
