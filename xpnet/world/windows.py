"""Sums in memory that the ranks of a node share: each writes its numbers, and adds up a slice of all of them."""

from collections.abc import Callable
from operator import add
from typing import Any

import numpy as np

from xpnet.world.alone import tree


class Windows:
    """Shared memory of MPI-3: a message of each rank of a node, and their sum, of which each rank makes a slice.

    With other nodes, ranks of the same number on each of them add up their slices, by `across`.
    """

    def __init__(self, node: Any, meet: Callable[[], None], across: Callable[[np.ndarray], None] | None) -> None:
        self.node, self.meet, self.across = node, meet, across
        self.bytes = 0
        self._window: Any = None
        self._rows: list[Any] = []
        self._views: dict[Any, list[np.ndarray]] = {}

    def add(self, parts: list[np.ndarray], dtype: np.dtype[Any], lent: int = 0) -> list[np.ndarray]:
        """Return the sums of arrays over all ranks, of one type; so many `lent` lie where the next will be written."""
        n = sum(part.size for part in parts)
        *messages, total = self._of(n, dtype)
        rank, size = self.node.rank, self.node.size
        for window, part in zip(cut(messages[rank], parts), parts, strict=True):
            window[...] = part
        self._meet()
        piece = slice(n * rank // size, n * (rank + 1) // size)
        total[piece] = tree([message[piece] for message in messages], add)
        if self.across is not None:
            self.across(total[piece])
        self._meet()
        sums = cut(total, parts)
        return [*sums[:lent], *(one.copy() for one in sums[lent:])]

    def _meet(self) -> None:
        """Let every rank see what all have written before."""
        self._window.Sync()
        self.meet()
        self._window.Sync()

    def _of(self, n: int, dtype: np.dtype[Any]) -> list[np.ndarray]:
        """Return each rank's message of n numbers, and the sum."""
        size = n * dtype.itemsize
        if size > self.bytes:
            self._allocate(size)
        if (n, dtype) not in self._views:
            self._views[n, dtype] = [row[:size].view(dtype) for row in self._rows]
        return self._views[n, dtype]

    def _allocate(self, size: int) -> None:
        """Make windows for messages of that many bytes; all ranks do. The first has room for the sum as well."""
        from mpi4py import MPI

        self.meet()
        if self._window is not None:
            self._window.Unlock_all()
            self._window.Free()
        self.bytes = -(-size // 64) * 64  # whole lines of the cache, so that views of any type begin at one
        room = self.bytes * (1 if self.node.rank else 2)
        self._window = window = MPI.Win.Allocate_shared(room, 1, comm=self.node)
        window.Lock_all()
        memory = [np.asarray(window.Shared_query(rank)[0]).view(np.uint8) for rank in range(self.node.size)]
        self._rows, self._views = [*memory, memory[0][self.bytes :]], {}


def cut(vector: np.ndarray, parts: list[np.ndarray]) -> list[np.ndarray]:
    """Return the windows on a vector in which arrays lie end to end."""
    found, start = [], 0
    for part in parts:
        stop = start + part.size
        found.append(vector[start:stop].reshape(part.shape))
        start = stop
    return found
