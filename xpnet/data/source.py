"""Where samples come from: arrays that lie on the device, all their rows or some."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from xpnet import random
from xpnet.arrays import Array, describe, each, inputs, is_floating
from xpnet.backends import Backend
from xpnet.errors import DataError

Validation: TypeAlias = tuple[Any, Any] | float | int | None
"""A pair (x, y), a share of the data (0 < share < 1) or a number of samples, drawn at random; None for none."""

HASHED = 1 << 22
"""Bytes that are brought home at a time to be hashed."""


@dataclass(frozen=True, eq=False)
class Arrays:
    """Inputs x (N, …), or a tuple of them, and targets y (N, …) on a device, and which rows are meant: None for all."""

    x: Any
    y: Array
    backend: Backend
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        return int(self.y.shape[0]) if self.rows is None else len(self.rows)

    @cached_property
    def targets(self) -> Array:
        """The targets of all samples, in their order."""
        return self.y if self.rows is None else self.backend.xp.take(self.y, self.backend.asarray(self.rows), axis=0)

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """Return the rows in the order in which an epoch visits them: int32 (n,)."""
        order = random.permutation(seed, epoch, len(self))
        return order if self.rows is None else self.rows[order]

    def chunks(self, size: int) -> Iterator[tuple[Any, Array]]:
        """Yield inputs and targets in their order, `size` samples at a time."""
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            yield self._some(slice(start, stop) if self.rows is None else self.backend.asarray(self.rows[start:stop]))

    def _some(self, rows: slice | Array) -> tuple[Any, Array]:
        """Return some rows, a slice or their numbers, of inputs and targets."""

        def of(array: Array) -> Array:
            return array[rows, ...] if isinstance(rows, slice) else self.backend.xp.take(array, rows, axis=0)

        return each(of, self.x), of(self.y)

    def hold_out(self, count: float | int, seed: int) -> tuple["Arrays", "Arrays"]:
        """Return samples for training and for validation: `count` of them, or that share, drawn at random by the seed.

        No data is copied. DataError if `count` is neither, or leaves nothing.
        """
        n = len(self)
        share = isinstance(count, (float, np.floating)) and 0 < count < 1
        if not share and (isinstance(count, bool) or not isinstance(count, (int, np.integer))):
            expected = "a pair (x, y), a share between 0 and 1, or a number of samples"
            came = describe(count) if isinstance(count, (tuple, list)) else repr(count)
            raise DataError(f"validation must be {expected}, got {came}")
        wanted = round(float(count) * n) if share else int(count)
        if not 0 < wanted < n:
            raise DataError(f"validation asks for {count} of {n} samples: take at least one and leave at least one")
        order = random.generator(seed, "validation").permutation(n).astype(np.int32)
        kept, held = np.sort(order[wanted:]), np.sort(order[:wanted])
        if self.rows is not None:
            kept, held = self.rows[kept], self.rows[held]
        return replace(self, rows=kept), replace(self, rows=held)

    def digest(self) -> str:
        """Return the SHA-256 of the numbers and their shapes, the same on every backend that holds the same numbers."""
        sha = hashlib.sha256()
        for array in (*inputs(self.x), self.y):
            floating = is_floating(self.backend.xp, array)
            kind = str(array.dtype).rpartition(".")[2] if floating else "int64"
            sha.update(f"{kind} {tuple(array.shape)}".encode())
            rows = max(1, HASHED // max(1, 8 * int(np.prod(array.shape[1:]))))
            for start in range(0, array.shape[0], rows):
                block = self.backend.asnumpy(array[start : min(start + rows, array.shape[0]), ...])
                sha.update(np.ascontiguousarray(block, dtype=kind).data)
        if self.rows is not None:
            sha.update(np.ascontiguousarray(self.rows).data)
        return sha.hexdigest()
