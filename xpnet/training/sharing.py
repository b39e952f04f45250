"""A minibatch that is computed in parts: the shares of ranks, shards, and as much as goes through memory at once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from operator import iadd
from typing import Any

from xpnet.arrays import Array, Vector, each
from xpnet.backends import Backend
from xpnet.checks import integer
from xpnet.data.source import Parts, bounds
from xpnet.layers import Layer
from xpnet.metrics import Metric
from xpnet.optimizers import Optimizer
from xpnet.world import World, tree


class Sharing:
    """Adds up the gradients of parts; a `Step` does.

    Of N samples a part of n has a mean gradient g, loss and metrics: the batch's are Σ (n/N) g, whatever the parts are,
    or with weights of samples Σ w g / Σ w, w being the sum of a part's weights.
    """

    net: Layer
    backend: Backend
    optimizer: Optimizer
    metrics: Mapping[str, Metric]
    gradient: Callable[..., list[Any]]
    update: Callable[..., Any]
    flat: Callable[[Vector], Array]
    micro: int | None
    world: World
    shards: int | None

    def accumulated(
        self,
        theta: Vector,
        buffers: dict[str, Array],
        fixed: Parts,
        index: Array,
        key: Any,
        first: Any = 0,
        whole: int | None = None,
    ) -> list[Any]:
        """Return what `gradient` does, of samples that go forward and backward `micro` at a time."""
        n = index.shape[0]
        size, of = self.micro or n, n if whole is None else whole

        total: list[Any] = []
        for start in range(0, n, size):
            rows = index[start : min(start + size, n)]
            part = self.gradient(theta, buffers, fixed, rows, key, first + start, of)
            total = added(total, part) if total else part
        return self._means(total) if whole is None and len(fixed) > 2 else total

    def _means(self, sums: list[Any]) -> list[Any]:
        """Return sums over weighed samples divided by the sum of the weights, which is the last of them."""
        *sums, total = sums
        counted = self.backend.xp.where(total == 0, 1.0, total)
        return [*(each(lambda one: one / counted, one) for one in sums), total]

    # Ranks and shards

    def steadily(self) -> AbstractContextManager[Any]:
        """Return the context of work whose bits are to be the same however many cores a rank has: that of shards."""
        return nullcontext() if self.shards is None else self.backend.one_thread()

    def shared(self, carry: Any, fixed: Any, x: Any) -> tuple[Any, tuple[Array, ...]]:
        """Do one step of which each rank computes its rows: what they come to is added up over all ranks."""
        (theta, _, buffers, _), (index, key, row) = carry, x
        n = index.shape[0]
        parts = (self._of_rows(theta, buffers, fixed, index, key, low, high) for low, high in self.bounds(n))
        found = tree(parts, added)
        if self.total is not None:
            found = self.total(found, int(self.backend.reads_free and not self.optimizer.overwrites_gradient))
        return self.settled(carry, row, found)  # type: ignore[no-any-return]

    @cached_property
    def total(self) -> Callable[..., list[Array]] | None:
        """The sums of arrays over all ranks, on the devices or by way of the host; None of a single one."""
        home, put, add = self.backend.asnumpy, self.backend.asarray, self.world.add

        def total(arrays: list[Array], lent: int = 0) -> list[Array]:
            if self.communicator is not None:
                return self.communicator.add(arrays)  # type: ignore[no-any-return]
            return [put(one) for one in add([home(one) for one in arrays], lent)]

        return None if self.world.size == 1 else total

    @property
    def communicator(self) -> Any:
        """What adds up over all ranks on their devices; None by way of the host, as shards have it for their order.

        All ranks ask at the same time.
        """
        return None if self.world.size == 1 or self.shards is not None else self.backend.communicator(self.world)

    def bounds(self, n: int) -> list[tuple[int, int]]:
        """Return where the parts of n samples that are this rank's begin and end."""
        of = self.shards or self.world.size
        return [bounds(n, (k, of)) for k in self.world.own(of)]

    def pieces(self, n: int) -> Iterator[tuple[int, int]]:
        """Yield where they begin and end, as they go through memory."""
        for low, high in self.bounds(n):
            size = self.micro or max(1, high - low)
            yield from ((start, min(start + size, high)) for start in range(low, high, size))

    def _of_rows(
        self, theta: Vector, buffers: dict[str, Array], fixed: Parts, index: Array, key: Any, low: int, high: int
    ) -> list[Array]:
        """Return what a part comes to: zeros, of an empty one."""
        rows = index[low:high] if low < high else index[:1]
        found = self.part(theta, buffers, fixed, rows, key, low, index.shape[0])
        return found if low < high else [self.backend.xp.zeros_like(one) for one in found]

    @cached_property
    def part(self) -> Callable[..., list[Array]]:
        """Gradient, loss, metrics, weights and buffers of a part, times what it counts, compiled."""

        def part(
            theta: Vector, buffers: dict[str, Array], fixed: Parts, index: Array, key: Any, first: Any, whole: Any
        ) -> list[Array]:
            carried, find = dict(buffers), self.gradient if self.micro is None else self.accumulated
            gradient, *values = find(theta, carried, fixed, index, key, first, whole)
            gradient = gradient if self.backend.flat else self.flat(gradient)
            values += [carried[name] * (index.shape[0] / whole) for name in buffers]
            return [gradient, *(self.backend.xp.asarray(value, dtype=gradient.dtype) for value in values)]

        return self.backend.jit(part)

    @cached_property
    def settled(self) -> Callable[..., Any]:
        """The rest of a step, once all parts are added up, compiled: f(carry, row, found)."""

        def settled(carry: Any, row: Sequence[Any], found: list[Array]) -> Any:
            names = list(carry[2])
            values, carried = found[: len(found) - len(names)], found[len(found) - len(names) :]
            gradient, *values = self._means(values) if len(values) > 2 + len(self.metrics) else values
            gradient = gradient if self.backend.flat else self.backend.split(gradient, self.net.layout)
            return self.update(carry, row, [gradient, *values], dict(zip(names, carried, strict=True)))

        return self.backend.jit(settled)


def added(a: list[Any], b: list[Any]) -> list[Any]:
    """Return the sums of what two parts came to, gradients in the place of the first."""
    return [each(iadd, a[0], b[0]), *(one + other for one, other in zip(a[1:], b[1:], strict=True))]


def shards(who: str, value: Any, world: World) -> int:
    """Return into how many parts every batch is cut; ValueError unless ranks can add them up in one order."""
    count = integer(who, "shards", value)
    if count & (count - 1) or count % world.size:
        if world.size & (world.size - 1):
            raise ValueError(
                f"{who}: shards are for 1, 2, 4, 8, … ranks, got {world.size}: start another number of them"
            )
        ranks = f"that {world.size} ranks divide" if world.size > 1 else "such as 8"
        raise ValueError(
            f"{who}: shards must be a power of two {ranks}, got {count}: as many ranks may train as divide it"
        )
    return count
