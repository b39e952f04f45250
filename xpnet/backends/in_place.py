"""Libraries whose arrays can be written."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from xpnet.arrays import Array
from xpnet.backends.base import Apply, Backend, Gate, Numbers, Rule, Vectors
from xpnet.parameters import Window, split


class InPlaceBackend(Backend):
    """A library whose arrays can be written: gradients land in their windows, rules overwrite their state."""

    @cached_property
    def _constants(self) -> dict[Any, Array]:
        """Made once and kept: a captured graph reads them where they lie, and may ask the host for nothing."""
        return {}

    def constant(self, values: Any, dtype: Any) -> Array:
        """Return a layer's own numbers, nested tuples of floats, as an array on this device, always the same one."""
        if (values, dtype) not in self._constants:
            self._constants[values, dtype] = super().constant(values, dtype)
        return self._constants[values, dtype]

    def join(self, theta: Array, windows: Sequence[Window]) -> tuple[tuple[Array, ...], Callable[..., Array]]:
        """Return the windows of an empty gradient vector, and the function that copies in what was not written."""
        vector = self.xp.empty_like(theta)
        outs = split(self.xp, vector, windows)

        def finish(gradients: Sequence[Array]) -> Array:
            for out, gradient in zip(outs, gradients, strict=True):
                if gradient is not out:
                    out[...] = gradient
            return vector

        return outs, finish

    def _map(self, rule: Rule) -> Apply:
        plain = super()._map(rule)

        def apply(state: Vectors, inputs: Vectors, scalars: Numbers, gate: Gate = None) -> Vectors:
            if gate is None or self.reads_free:
                if gate is None or bool(gate):
                    self.overwrite(state, rule(self.xp, *state, *inputs, *scalars))
            else:
                self.overwrite(state, plain(state, inputs, scalars, gate))
            return state

        return apply

    @staticmethod
    def overwrite(state: Sequence[Array], new: Sequence[Array]) -> None:
        """Make each array of the state hold its new values, if it does not already."""
        for old, value in zip(state, new, strict=True):
            if value is not old:
                old[...] = value
