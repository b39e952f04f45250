"""How much a sample is: multiply-adds and numbers, by the shape of the inputs."""

from functools import cached_property
from math import prod
from typing import Any

from xpnet.arrays import Array, shape_of, with_batch
from xpnet.backends.base import Work
from xpnet.layers import Layer

BATCH = 4096
"""Samples that are evaluated at a time, at most."""
NUMBERS = 1 << 24
"""Numbers that a layer's output may have then, where that leaves a sample."""


class Sizing:
    """A network, and what its inputs make of it; a `Step` is one."""

    net: Layer

    def work(self, x: Array) -> int:
        """Return the multiply-adds of a sample of x."""
        return self._sizes(x)[0]

    def extent(self, x: Array) -> Work:
        """Return the work of a sample of x, and the matrices that do most of it, if each is used once."""
        adds = self.work(x)
        return Work(adds, self._matrices if adds == self.net.size else ())

    @cached_property
    def _matrices(self) -> tuple[int, ...]:
        return tuple(prod(window.shape) for window in self.net.layout if len(window.shape) == 2)

    def samples(self, x: Array) -> int:
        """Return how many samples of x are evaluated at a time: fewer where the outputs of layers are large images."""
        widest = self._sizes(x)[1]
        return min(BATCH, 1 << max(0, (NUMBERS // max(widest, 1)).bit_length() - 1))

    def _sizes(self, x: Array) -> tuple[int, int]:
        """Return work and widest output of a sample of x."""
        shape = with_batch(x, None)
        if shape not in self._known:
            whole = shape_of(x)  # what does not fit is said of the shape that came
            self._known[shape] = self.net.work(whole), self.net.widest(whole)
        return self._known[shape]

    @property
    def shape(self) -> tuple[Any, ...] | None:
        """The shape of inputs that were seen, its batch axis None; None if there were none yet."""
        return next(reversed(self._known), None)

    @cached_property
    def _known(self) -> dict[tuple[Any, ...], tuple[int, int]]:
        return {}
