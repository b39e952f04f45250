"""Sums in memory that the ranks of a node share: each writes its numbers, and adds up a slice of all of them."""

from collections.abc import Callable
from operator import add
from typing import Any

import numpy as np

from xpnet.world.alone import tree


class Windows:
    """A window of MPI-3 shared memory for each rank of a node: its message, and its slice of the sum.

    With other nodes, ranks of the same number on each of them add up their slices, by `across`.
    """

    def __init__(self, node: Any, meet: Callable[[], None], across: Callable[[np.ndarray], None] | None) -> None:
        self.node, self.meet, self.across = node, meet, across
        self.bytes = 0
        self._window: Any = None
        self._memory: list[Any] = []

    def add(self, parts: list[np.ndarray], dtype: np.dtype[Any]) -> np.ndarray:
        """Return the sum over all ranks of arrays end to end."""
        n = sum(part.size for part in parts)
        messages, slices = self._views(n, dtype)
        rank, message = self.node.rank, messages[self.node.rank]
        start = 0
        for part in parts:
            stop = start + part.size
            message[start:stop] = part.reshape(-1)
            start = stop
        self._meet()
        low, high = n * rank // self.node.size, n * (rank + 1) // self.node.size
        own = slices[rank]
        own[...] = tree([one[low:high] for one in messages], add)
        if self.across is not None:
            self.across(own)
        self._meet()
        return np.concatenate(slices)

    def _meet(self) -> None:
        """Let every rank see what all have written before."""
        self._window.Sync()
        self.meet()
        self._window.Sync()

    def _views(self, n: int, dtype: np.dtype[Any]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return each rank's message of n numbers, and its slice of the sum."""
        size = n * dtype.itemsize
        if size > self.bytes:
            self._allocate(size)
        ranks = range(self.node.size)
        messages = [memory[:size].view(dtype) for memory in self._memory]
        widths = [n * (rank + 1) // self.node.size - n * rank // self.node.size for rank in ranks]
        places = [
            memory[self.bytes :][: width * dtype.itemsize] for memory, width in zip(self._memory, widths, strict=True)
        ]
        return messages, [place.view(dtype) for place in places]

    def _allocate(self, size: int) -> None:
        """Make windows for messages of that many bytes; all ranks do."""
        from mpi4py import MPI

        self.meet()
        if self._window is not None:
            self._window.Unlock_all()
            self._window.Free()
        self.bytes = -(-size // 64) * 64  # whole lines of the cache, so that views of any type begin at one
        room = self.bytes + -(-self.bytes // self.node.size // 64) * 64 + 64
        self._window = window = MPI.Win.Allocate_shared(room, 1, comm=self.node)
        window.Lock_all()
        self._memory = [np.asarray(window.Shared_query(rank)[0]).view(np.uint8) for rank in range(self.node.size)]
