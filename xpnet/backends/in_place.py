"""Libraries whose arrays can be written."""

from collections.abc import Callable, Sequence
from functools import cached_property
from threading import local
from typing import Any

from xpnet.arrays import Array
from xpnet.backends.base import Apply, Backend, Gate, Numbers, Rule, Run, Step, Vectors, WorkOf
from xpnet.parameters import Window


class Room(local):
    """What K steps use again and again, a room for each thread: the windows of their θ, and a gradient once read."""

    theta: Array = None
    """The θ of the steps under way."""
    layout: Sequence[Window] | None = None
    views: tuple[Array, ...] = ()
    """θ in the windows of that layout."""
    lent: tuple[Array, tuple[Array, ...]] | None = None
    """The newest gradient, with its windows."""
    free: tuple[Array, tuple[Array, ...]] | None = None
    """One that nobody needs any more."""


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

    @cached_property
    def _room(self) -> Room:
        return Room()

    def compile(self, step: Step, work: WorkOf | None = None) -> Run:
        """Run the steps one by one, in a room."""
        run, room = super().compile(step, work), self._room

        def at_home(carry: Any, fixed: Any, xs: tuple[Any, ...]) -> tuple[Any, tuple[Array, ...]]:
            room.theta = carry[0]
            try:
                return run(carry, fixed, xs)
            finally:
                vars(room).clear()

        return at_home

    def split(self, theta: Array, windows: Sequence[Window]) -> tuple[Array, ...]:
        """Return the windows of a flat vector as arrays: views, of a step's θ always the same ones."""
        room = self._room
        if theta is not room.theta:
            return self.cut(theta, windows)
        if windows is not room.layout:
            room.layout, room.views = windows, self.cut(theta, windows)
            room.lent = room.free = None
        return room.views

    def cut(self, theta: Array, windows: Sequence[Window]) -> tuple[Array, ...]:
        """Return the windows of a flat vector as new views."""
        return super().split(theta, windows)

    def join(self, theta: Array, windows: Sequence[Window]) -> tuple[tuple[Array, ...], Callable[..., Array]]:
        """Return the windows of a gradient vector, and the function that copies in what was not written."""
        room = self._room
        own = theta is room.theta and windows is room.layout
        vector, outs = (room.free if own else None) or self._gradient(theta, windows)
        if own:
            room.lent, room.free = (vector, outs), None

        def finish(gradients: Sequence[Array]) -> Array:
            for out, gradient in zip(outs, gradients, strict=True):
                if gradient is not out:
                    out[...] = gradient
            return vector

        return outs, finish

    def _gradient(self, theta: Array, windows: Sequence[Window]) -> tuple[Array, tuple[Array, ...]]:
        vector = self.xp.empty_like(theta)
        return vector, self.cut(vector, windows)

    def reuse(self) -> None:
        """Take back the newest gradient of the steps under way."""
        self._room.free = self._room.lent

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
