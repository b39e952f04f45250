"""Where samples come from: in which order an epoch visits them, and the blocks of batches that the steps read."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from xpnet import random
from xpnet.arrays import Array, each, inputs, is_floating
from xpnet.backends import Backend
from xpnet.data import batches
from xpnet.data.holdout import HoldOut, split


class Source(Protocol):
    """What has rows that can be asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: np.ndarray, /) -> tuple[Any, ...]: ...


Validation: TypeAlias = (
    tuple[Any, Any] | tuple[Any, Any, Any] | Source | Iterable[tuple[Any, ...]] | HoldOut | float | int | None
)
"""Samples (x, y) or (x, y, weights), a source or a loader; a HoldOut; a share (0 < share < 1) or a number of samples,
drawn at random; or None."""

Parts: TypeAlias = tuple[Any, ...]
"""What goes together: inputs and targets, and their weights, if samples have any."""

Weigh: TypeAlias = Callable[..., Array]
"""The weights of samples, of their targets and the weights they have, if any."""

Part: TypeAlias = tuple[int, int]
"""Part k of n: (k, n)."""

WHOLE: Part = 0, 1

HASHED = 1 << 22
"""Bytes that are brought home at a time to be hashed."""


class Cut(NamedTuple):
    """How an epoch is cut into blocks."""

    batch: int
    """Samples of a step."""
    size: int
    """The length of θ."""
    work: int
    """Multiply-adds of a sample."""


class Block(NamedTuple):
    """K batches: parts on the device, and which of their rows each batch has."""

    parts: Parts
    batches: np.ndarray
    """(K, B), of which the columns that `share` names are meant."""


class Samples(ABC):
    """What a run is trained or evaluated on."""

    backend: Backend
    given_up: Callable[[], bool] = staticmethod(lambda: False)
    """Whether nobody waits for the next block any more."""
    share: Callable[[int], tuple[int, int]] = staticmethod(lambda n: (0, n))
    """Where the rows that are needed begin and end in a batch of n: others are not read, if that can be."""

    @property
    @abstractmethod
    def first(self) -> Parts:
        """Some samples, on the device."""

    @property
    def like(self) -> Any:
        """Inputs in the shape of the samples."""
        return self.first[0]

    @property
    @abstractmethod
    def count(self) -> int | None:
        """The samples of an epoch; None if only its end will tell."""

    @property
    @abstractmethod
    def targets(self) -> Parts:
        """The targets of all samples, in their order, and their weights, if there are any."""

    @abstractmethod
    def steps(self, batch: int) -> int | None:
        """The steps of an epoch in batches of that size; None if only its end will tell."""

    @abstractmethod
    def blocks(self, seed: int, epoch: int, done: int, cut: Cut) -> Iterator[Block]:
        """Yield an epoch's batches but for its first `done` samples, some steps at a time."""

    def foresee(self, seed: int, epoch: int) -> None:
        """Draw an epoch's order while there is time."""
        return  # of samples that come as they come there is none to draw

    @abstractmethod
    def chunks(self, size: int, part: Part = WHOLE) -> Iterator[Parts]:
        """Yield all samples in their order, up to `size` at a time, or those of part k of n."""

    @abstractmethod
    def hold_out(self, wanted: HoldOut | float, seed: int) -> tuple["Samples", "Samples"]:
        """Return samples for training and for validation, which a HoldOut, a share or a number of samples chooses."""

    def check(self, epochs: int, batch_size: int) -> int:
        """Return how many samples a batch has, as asked for; DataError if so many epochs cannot be."""
        return batch_size

    @abstractmethod
    def weighed(self, weigh: Weigh) -> "Samples":
        """Return the same samples with other weights, `weigh(y)` or `weigh(y, weights)`."""

    @abstractmethod
    def digest(self) -> str | None:
        """Return what tells whether samples are the same ones; None if nothing does."""


class Numbered(Samples):
    """Samples that can be read in any order."""

    rows: np.ndarray | None
    """Which are meant; None for all."""

    @property
    @abstractmethod
    def total(self) -> int:
        """How many there are, those included that are not meant."""

    @property
    def count(self) -> int:
        """The samples of an epoch."""
        return self.total if self.rows is None else len(self.rows)

    def steps(self, batch: int) -> int:
        """The steps of an epoch, the last short batch included."""
        return -(-self.count // batch)

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """Return the rows in the order in which an epoch visits them: int32 (n,)."""
        order = random.permutation(seed, epoch, self.count)
        return order if self.rows is None else self.rows[order]

    def foresee(self, seed: int, epoch: int) -> None:
        """Draw an epoch's order while there is time."""
        if self.count <= random.FORESEEN:
            random.permutation(seed, epoch, self.count)

    def hold_out(self, wanted: HoldOut | float, seed: int) -> tuple["Numbered", "Numbered"]:
        """Return samples for training and for validation, which a HoldOut, a share or a number of samples chooses.

        No data is copied. DataError if that leaves nothing.
        """
        stratified = isinstance(wanted, HoldOut) and wanted.stratify
        labels = self.backend.asnumpy(self.targets[0]) if stratified else None
        kept, held = split(self.count, wanted, seed, labels)
        if self.rows is not None:
            kept, held = self.rows[kept], self.rows[held]
        return self.some(kept), self.some(held)

    @abstractmethod
    def some(self, rows: np.ndarray) -> "Numbered":
        """Return some of the samples."""


@dataclass(eq=False)
class Arrays(Numbered):
    """Inputs x (N, …), or a tuple of them, targets y (N, …), and weights (N,) if there are any, all on a device."""

    parts: Parts
    backend: Backend
    rows: np.ndarray | None = None

    @property
    def first(self) -> Parts:
        """All of them."""
        return self.parts

    @property
    def total(self) -> int:
        """How many samples lie there."""
        return int(self.parts[1].shape[0])

    @cached_property
    def targets(self) -> Parts:
        """The targets of all samples, in their order, and their weights, if there are any."""
        if self.rows is None:
            return self.parts[1:]
        rows = self.backend.asarray(self.rows)
        return tuple(self.backend.xp.take(part, rows, axis=0) for part in self.parts[1:])

    def blocks(self, seed: int, epoch: int, done: int, cut: Cut) -> Iterator[Block]:
        """Yield an epoch's batches but for its first `done` samples: the arrays stay where they are."""
        for index in batches.batches(self.order(seed, epoch)[done:], *cut):
            yield Block(self.parts, index)

    def chunks(self, size: int, part: Part = WHOLE) -> Iterator[Parts]:
        """Yield all samples in their order, `size` at a time, or those of a part."""
        low, high = bounds(self.count, part)
        for start in range(low, high, size):
            stop = min(start + size, high)
            rows = slice(start, stop) if self.rows is None else self.backend.asarray(self.rows[start:stop])
            yield tuple(each(lambda array, rows=rows: self._take(array, rows), part) for part in self.parts)

    def _take(self, array: Array, rows: slice | Array) -> Array:
        return array[rows, ...] if isinstance(rows, slice) else self.backend.xp.take(array, rows, axis=0)

    def weighed(self, weigh: Weigh) -> "Arrays":
        """Return the same samples with other weights."""
        return replace(self, parts=(*self.parts[:2], weigh(*self.parts[1:])))

    def some(self, rows: np.ndarray) -> "Arrays":
        """Return some of the samples; no data is copied."""
        return replace(self, rows=rows)

    def digest(self) -> str:
        """Return the SHA-256 of the numbers and their shapes, the same on every backend that holds the same numbers."""
        sha = hashlib.sha256()
        for array in (*inputs(self.parts[0]), *self.parts[1:]):
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


def bounds(n: int, part: Part) -> tuple[int, int]:
    """Return where a part of n samples begins and ends."""
    k, of = part
    return n * k // of, n * (k + 1) // of
