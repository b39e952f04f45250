"""A process that trains alone, and what it would say to others: every question is answered by itself."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


class World:
    """The processes that train one model together: here a single one. `MPIWorld` has the same methods."""

    rank, size = 0, 1
    threads: int | None = None
    """Of each process, where the processor's cores are shared; None for the library's own choice."""

    def __repr__(self) -> str:
        return "World()"

    def __copy__(self) -> "World":
        return self

    def __deepcopy__(self, memo: Any) -> "World":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return World, ()  # what reads a pickle is another program, alone

    def share(self, n: int) -> tuple[int, int]:
        """Return where the rows of this rank begin and end among n."""
        return n * self.rank // self.size, n * (self.rank + 1) // self.size

    def own(self, parts: int) -> range:
        """Return which of so many parts are this rank's."""
        return range(*self.share(parts))

    def add(self, parts: list[np.ndarray], lent: int = 0) -> list[np.ndarray]:
        """Return the sums of arrays over all ranks, in the type of the first.

        Every element is added up in one order, whatever the rank: ((v₀ + v₁) + (v₂ + v₃)) + …
        The first `lent` of them are only read, and before the next sum: they may lie in memory that ranks share.
        """
        return parts

    def gather(self, value: T) -> list[T]:
        """Return what each rank has, in their order."""
        return [value]

    def any(self, wish: bool) -> bool:
        """Whether one of the ranks wishes it."""
        return any(self.gather(wish))

    def alike(self, blocks: Iterator[T], form: Callable[[T], Any]) -> Iterator[T]:
        """Yield what each rank's iterator gives; DataError, on all of them, as soon as forms or numbers differ."""
        return blocks

    def check(self, facts: dict[str, Callable[[], Any]]) -> None:
        """Raise DataError, on all ranks, for the first of the facts that differs between them."""

    def together(self, what: str) -> AbstractContextManager[Any]:
        """Return the context of what all ranks do: an error that not all of them meet ends them all."""
        return nullcontext()


def tree(values: Iterable[Any], add: Callable[[Any, Any], Any]) -> Any:
    """Return the sum of values, neighbours first, as they come: ((v₀ + v₁) + (v₂ + v₃)) + …

    2ᵏ neighbours, added up beforehand, leave the order as it is.
    """
    sums: list[tuple[int, Any]] = []
    for value in values:
        count = 1
        while sums and sums[-1][0] == count:
            value, count = add(sums.pop()[1], value), 2 * count
        sums.append((count, value))
    while len(sums) > 1:
        last = sums.pop()[1]
        sums.append((0, add(sums.pop()[1], last)))
    return sums[0][1]
