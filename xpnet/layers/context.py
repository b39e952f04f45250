"""What a forward pass knows besides its arguments."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from xpnet.arrays import Array, Namespace
from xpnet.backends import Backend


@dataclass(slots=True)
class Stream:
    """A sequence that is given one position at a time: what layers keep of those before it.

    The shapes stay the same at every position, so that a step can be compiled once.
    """

    position: Array
    """Which position x is, int32 and 0-d."""
    length: int
    """How many positions there may be."""
    kept: dict[str, Array] = field(default_factory=dict)
    """What layers keep, by path; a forward pass rebinds it."""


Total: TypeAlias = Callable[[list[Array]], list[Array]]
"""The sums of arrays over all processes that train together."""


@dataclass(slots=True)
class Context:
    """What a forward pass knows besides its arguments; `ctx.at(k)` is the same for child k."""

    backend: Backend
    training: bool = False
    key: int | Array | None = None
    """A hash of the seed and the step, from which random masks are made (`random.mask_key`).

    In a compiled step it is an int32 array: `xp.astype` it before arithmetic with floats, which it would widen.
    """
    buffers: dict[str, Array] = field(default_factory=dict)
    """Running statistics by path; a forward pass in training rebinds them, and the training step carries them."""
    watch: Callable[[str, Array], None] | None = None
    """Called with the path and the output of every child layer, if given."""
    path: str = ""
    mask: Array | None = None
    """(N, T), 1 where a sequence has a token and 0 where it is padding, if given (`Masked`)."""
    stream: Stream | None = None
    """Where x stands in a sequence that comes one position at a time, if it does: x is then (N, 1, …)."""
    row: int | Array = 0
    """Where the first sample of x stands in the minibatch, if x is only a part of it."""
    total: Total | None = None
    """The sums of arrays over all processes, if several train together."""

    @property
    def xp(self) -> Namespace:
        """The array namespace."""
        return self.backend.xp

    @property
    def device(self) -> Any:
        """The device that new arrays belong on."""
        return self.backend.device

    def buffer(self, name: str) -> Array:
        """Return what this layer carries under a name; ValueError if it was not handed in."""
        try:
            return self.buffers[self._own(name)]
        except KeyError:
            place = f" at layer {self.path}" if self.path else ""
            raise ValueError(
                f'"{name}"{place} was not handed in: pass buffers=model.buffers, or net.init_buffers() before training'
            ) from None

    def carry(self, name: str, new: Array, share: float) -> None:
        """Let what is carried move towards a new value: (1 − share) old + share new. Nothing, if it is not carried."""
        if (path := self._own(name)) in self.buffers:
            self.buffers[path] = (1.0 - share) * self.buffers[path] + share * new

    def _own(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def at(self, k: int) -> "Context":
        """Return the context of child k."""
        path = f"{self.path}.{k}" if self.path else str(k)
        how = self.watch, path, self.mask, self.stream, self.row, self.total
        return Context(self.backend, self.training, self.key, self.buffers, *how)
