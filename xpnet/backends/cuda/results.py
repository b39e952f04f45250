"""What K steps report, brought to one place by one kernel."""

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from xpnet.arrays import Array


class Results(NamedTuple):
    """A row for each number that a step reports, a column for each step."""

    numbers: Array
    table: Array
    """Where each of them lies, an address for each."""
    shapes: list[tuple[int, ...]]

    @staticmethod
    def of(backend: Any, found: Sequence[tuple[Array, ...]]) -> "Results":
        """Return the results of steps that were run."""
        results = Results.room(backend, found[0], len(found))
        found = results.alike(backend, found)
        results.point(backend, found)
        results.collect(backend)
        return results

    @staticmethod
    def room(backend: Any, like: tuple[Array, ...], count: int) -> "Results":
        """Return room for what `count` steps report, each of them like this."""
        shapes, empty = [array.shape for array in like], backend.cupy.empty
        size = sum(map(prod, shapes)), count
        return Results(empty(size, dtype=like[0].dtype), empty(size, dtype="int64"), shapes)

    def alike(self, backend: Any, found: Sequence[tuple[Array, ...]]) -> list[tuple[Array, ...]]:
        """Return the arrays of all steps as what can be collected: numbers of one dtype, in one piece."""
        make = backend.cupy.ascontiguousarray
        return [tuple(make(array, dtype=self.numbers.dtype) for array in arrays) for arrays in found]

    def point(self, backend: Any, found: Sequence[tuple[Array, ...]]) -> None:
        """Write down where the numbers of steps lie."""
        first = np.asarray([[array.data.ptr for array in arrays] for arrays in found], dtype=np.int64)
        counts = self.numbers.dtype.itemsize * np.arange(max(map(prod, self.shapes)))[:, None]
        rows = [counts[: prod(shape)] + first[:, k] for k, shape in enumerate(self.shapes)]
        self.table[...] = backend.asarray(np.concatenate(rows))

    def collect(self, backend: Any) -> None:
        """Copy the numbers from there."""
        backend.kernels.collect(self.table, self.numbers)

    def columns(self) -> tuple[Array, ...]:
        """Return the results in their order, (K, …) each."""
        stops = np.cumsum([prod(shape) for shape in self.shapes]).tolist()
        parts = zip(self.shapes, [0, *stops], stops, strict=False)
        return tuple(self.numbers[start:stop].T.reshape(-1, *shape) for shape, start, stop in parts)
