"""What a step reads: the minibatch that an index names, and what it weighs."""

from collections.abc import Callable
from functools import cached_property

from xpnet.arrays import Array
from xpnet.backends import Backend
from xpnet.data.batches import gather
from xpnet.data.source import Parts
from xpnet.layers import Layer


class Gathering:
    """Takes the rows of a minibatch from what lies on the device; a `Step` does."""

    net: Layer
    backend: Backend
    dtype: str

    def batch(self, fixed: Parts, index: Array) -> Parts:
        """Gather one minibatch of inputs, targets and, if samples are weighed, weights."""
        take: Callable[..., tuple[Array, Array]] = self.backend.native(gather)
        x, y = fixed[:2]
        if not isinstance(x, tuple):
            pair = take(self.backend.xp, x, y, index, _named(x) if self._tokens else self.dtype)
        else:
            kinds = (_named(part) if self.net.tokens(k) else self.dtype for k, part in enumerate(x))
            pairs = [take(self.backend.xp, part, y, index, kind) for kind, part in zip(kinds, x, strict=True)]
            pair = tuple(part for part, _ in pairs), pairs[0][1]
        return pair if len(fixed) == 2 else (*pair, self.weights(fixed, index))

    def weights(self, fixed: Parts, index: Array) -> Array:
        """Gather a minibatch's weights."""
        weights: Array = self.backend.native(gather)(self.backend.xp, fixed[2], fixed[1], index, self.dtype)[0]
        return weights

    @cached_property
    def _tokens(self) -> int:
        """How many different tokens x holds; 0 for numbers."""
        return self.net.tokens()


def _named(tokens: Array) -> str:
    """Return the name of their type: tokens stay what they are."""
    return str(tokens.dtype).rpartition(".")[2]
