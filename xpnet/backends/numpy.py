"""NumPy, on the CPU: always there."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

import array_api_compat.numpy as xp
import numpy as np

from xpnet.arrays import Array
from xpnet.backends import pieces
from xpnet.backends.base import Apply, Gate, Numbers, Rule, Run, Step, Vectors, WorkOf
from xpnet.backends.fused import Fused, fuse, fused_available
from xpnet.backends.host import calmly, host_bits, keep_memory
from xpnet.backends.in_place import InPlaceBackend
from xpnet.backends.native import choose
from xpnet.backends.native.dense import NumpyDense
from xpnet.backends.native.numpy import FORMS
from xpnet.backends.openblas import advice, kernels, one_blas_thread, pools
from xpnet.errors import BackendError
from xpnet.parameters import Window

BLOCK = 1 << 17
"""Elements of a vector that a rule handles at a time: its few arrays then stay in the processor's cache."""


class NumpyBackend(InPlaceBackend):
    """NumPy: products straight into their destination, rules in cache-sized blocks."""

    reads_free = True
    fuses = True

    def __init__(self, device: str = "cpu", reason: str = "asked for by name") -> None:
        super().__init__("numpy", xp, device, reason)
        self._loops: dict[Rule, Fused] = {}

    @cached_property
    def dense(self) -> NumpyDense:
        """Linear layers in a row, with no array but the products'."""
        return NumpyDense(self)

    def owns(self, array: Array) -> bool:
        """Whether this is a NumPy array."""
        return isinstance(array, (np.ndarray, np.generic))

    def bits(self) -> dict[str, str]:
        """Return what the last bits depend on: also how rules are run, subnormals, and threads."""
        own = {"rules": "fused" if fused_available() else "plain", "kernels": str(kernels())}
        return super().bits() | own | host_bits()

    def adopt(self, host: np.ndarray) -> Array:
        """Return the array itself."""
        return host

    def native(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return NumPy's own form of a layer's function."""
        return choose(FORMS, function)

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """Return a @ b, in `out` if one is given."""
        if a.ndim != 2 or b.ndim != 2:
            return np.matmul(a, b, out=out)
        if a.shape[0] * a.shape[1] * b.shape[1] >= pieces.WORTH and pieces.cuts(a, b):
            return pieces.product(a, b, out)
        return np.dot(a, b, out=out)

    def cut(self, theta: Array, windows: Sequence[Window]) -> tuple[Array, ...]:
        """Return the windows of a flat vector as new views."""
        return tuple([theta[window.place].reshape(window.shape) for window in windows])

    def stack(self, column: Sequence[Array]) -> Array:
        """Return arrays of one shape as one."""
        return np.array(column)

    def use_threads(self, most: int) -> None:
        """Let OpenBLAS take no more threads than that."""
        for pool in pools():
            pool.put(min(pool.get(), most))

    def one_thread(self) -> AbstractContextManager[Any]:
        """Return the context of one thread: OpenBLAS cuts a product by their number, and with it the order of sums."""
        return one_blas_thread()

    def jit(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function itself; memory that it frees stays with the process."""
        keep_memory()
        return function

    def compile(self, step: Step, work: WorkOf | None = None) -> Run:
        """Run the steps one by one; small ones on one thread, and where there are two, large products in pieces."""
        return calmly(super().compile(step), one_blas_thread, work, pieces.one_each)

    def _map(self, rule: Rule) -> Apply:
        def apply(state: Vectors, inputs: Vectors, scalars: Numbers, gate: Gate = None) -> Vectors:
            if gate is not None and not gate:
                return state
            if rule not in self._loops:
                self._loops[rule] = fuse(rule, len(state), len(inputs), len(scalars))
            if not self._loops[rule](state, inputs, scalars):
                for start in range(0, state[0].shape[0], BLOCK):
                    block = slice(start, start + BLOCK)
                    views = [s[block] for s in state]
                    self.overwrite(views, rule(np, *views, *[i[block] for i in inputs], *scalars))
            return state

        return apply


def connect(device: str) -> NumpyBackend:
    """Return the backend for NumPy."""
    if device not in ("", "cpu"):
        raise BackendError(f'NumPy has no device "{device}" here: choose one of {devices()}')
    return NumpyBackend()


def of(array: Array) -> NumpyBackend:
    """Return the backend of a NumPy array."""
    return _CPU


def devices() -> list[str]:
    """Return the devices that can be used."""
    return ["cpu"]


def details() -> list[str]:
    """Return what `xpnet doctor` should say."""
    return advice()


_CPU = NumpyBackend(reason="the array's own library")
