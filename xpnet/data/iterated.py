"""Batches that come one after the other: of loaders, generators, whatever is iterable."""

from collections.abc import Iterable, Iterator, Sized
from itertools import chain, islice, repeat
from math import prod
from typing import Any

import numpy as np

from xpnet.arrays import Array, describe, each, inputs
from xpnet.backends import Backend
from xpnet.data import batches, scan
from xpnet.data.ahead import ahead
from xpnet.data.door import put
from xpnet.data.source import WHOLE, Block, Cut, Part, Parts, Samples, Weigh, bounds
from xpnet.data.stream import BYTES, Examine, at_home, told, weighing
from xpnet.errors import DataError


class Batches(Samples):
    """Batches (x, y) or (x, y, weights) of an iterable, in its order: equal ones are stacked into blocks.

    What can be iterated again is, for each epoch; a generator goes on where it is. Nothing is shuffled, and nothing can
    tell whether the batches of a resumed run are those that it was trained on.
    """

    count = None

    def __init__(self, iterable: Iterable[Any], examine: Examine, backend: Backend, steps: int | None = None) -> None:
        self.iterable, self.examine, self.backend, self.asked = iterable, examine, backend, steps
        self.once = isinstance(iterable, Iterator)
        self.length = steps or (len(iterable) if isinstance(iterable, Sized) else None)
        begun = iter(iterable)
        came = list(islice(begun, 1))
        if not came:
            raise DataError(f"{describe(iterable)} gives no batches: one at least was expected")
        self._begun: Iterator[Any] | None = chain(came, begun)
        first = self._examined(1, came[0])
        self._first, self.size = tuple(self._stacked((part,)) for part in first), int(first[1].shape[0])
        self._bytes = max(1, sum(_bytes(part) for whole in first for part in inputs(whole)))

    @property
    def first(self) -> Parts:
        """The first batch."""
        return self._first

    def steps(self, batch: int) -> int | None:
        """The steps of an epoch, if the iterable or `steps_per_epoch` tells."""
        return None if self.length is None else -(-self.length // (batch // self.size))

    def check(self, epochs: int, batch_size: int) -> int:
        """Return how many samples the first batch has; DataError for epochs that a generator does not mark."""
        if self.once and self.asked is None and epochs > 1:
            came = describe(self.iterable)
            raise DataError(
                f"{came} can be read once, and {epochs} epochs were asked for: pass steps_per_epoch=, or a loader"
            )
        return self.size

    @property
    def targets(self) -> Parts:
        """The targets of an epoch, and their weights, if there are any: the iterable is read for them."""
        if self.once:
            raise DataError(
                'r2 and "balanced" need all targets first, which a generator gives once: pass arrays, a source'
            )
        columns = [parts[1:] for parts in self.chunks(self.size)]
        return tuple(self.backend.xp.concat(list(column)) for column in zip(*columns, strict=True))

    def blocks(self, seed: int, epoch: int, done: int, cut: Cut) -> Iterator[Block]:
        """Yield an epoch's batches but for its first `done` samples, `cut.batch` of them a step."""
        together = cut.batch // self.size
        groups = self._groups(self._rest(done), self._most(together, cut))

        def read(_: None) -> list[Parts] | None:
            return next(groups, None)

        for group in ahead(repeat(None), read, lambda _: "the next batch", self.given_up):
            parts, n = tuple(map(self._stacked, zip(*group, strict=True))), int(group[0][1].shape[0])
            for index in batches.cut(np.arange(n * len(group), dtype=np.int32), n * together, len(group)):
                yield Block(parts, index)

    def _most(self, together: int, cut: Cut) -> int:
        """Return how many batches make a block."""
        most = min(batches.worth(*cut), max(1, BYTES // (self._bytes * together)))
        steps = None if self.length is None else self.length // together
        return together * (batches.steps_per_call(steps, most) if steps else most)

    def _groups(self, came: Iterator[Parts], most: int) -> Iterator[list[Parts]]:
        """Yield lists of batches of one form."""
        group: list[Parts] = []
        for parts in came:
            if group and (len(group) == most or _form(parts) != _form(group[0])):
                yield group
                group = []
            group.append(parts)
        if group:
            yield group

    def _rest(self, done: int) -> Iterator[Parts]:
        """Yield an epoch's batches, examined, after the first `done` samples."""
        for parts in self._epoch():
            n = int(parts[1].shape[0])
            if done <= 0:
                yield parts
            elif n > done:
                raise DataError("the batches are not those that this run was trained on: they end elsewhere")
            done -= n

    def _epoch(self) -> Iterator[Parts]:
        """Yield an epoch's batches, examined; DataError if there are fewer than were asked for."""
        number, came = 0, self._begun or iter(self.iterable)
        self._begun = came if self.once else None
        for number, batch in enumerate(islice(came, self.asked), 1):
            with scan.silent():
                parts = self._examined(number, batch)
            yield parts
        if number < (self.asked or 1):
            wanted = f"{self.asked} batches were asked for by steps_per_epoch" if self.asked else "an epoch has batches"
            raise DataError(f"{wanted}, got {number} of {describe(self.iterable)}: it ended before")

    def _examined(self, number: int, batch: Any) -> Parts:
        """Return a batch as the door lets it in."""
        if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
            came = f"{len(batch)} things" if isinstance(batch, (tuple, list)) else describe(batch)
            raise DataError(f"a batch must be (x, y) or (x, y, weights), got {came} for batch {number}")
        parts = [tuple(part) if isinstance(part, list) and hasattr(part[0], "shape") else part for part in batch]
        return told(
            f"batch {number}",
            None,
            lambda: self.examine(*(each(lambda part: at_home(part, self.backend), part) for part in parts)),
        )

    def _stacked(self, column: tuple[Any, ...]) -> Any:
        """Return batches end to end on the device, or if they are tuples of inputs, each input's."""
        if isinstance(column[0], tuple):
            return tuple(map(self._stacked, zip(*column, strict=True)))
        if len(column) == 1:
            return put(column[0], self.backend)
        host = isinstance(column[0], np.ndarray)
        return self.backend.asarray(np.concatenate(column)) if host else self.backend.xp.concat(list(column))

    def chunks(self, size: int, part: Part = WHOLE) -> Iterator[Parts]:
        """Yield all batches, on the device, as they come, or a part of each."""
        for parts in self._epoch():
            low, high = bounds(int(parts[1].shape[0]), part)
            if low < high:
                yield tuple(self._stacked((each(lambda rows, a=low, b=high: rows[a:b], one),)) for one in parts)

    def weighed(self, weigh: Weigh) -> "Batches":
        """Make the weights of the batches other ones."""
        self.examine = weighing(self.examine, weigh)
        x, *others = self._first
        self._first = (x, others[0], weigh(*others))
        return self

    def hold_out(self, wanted: Any, seed: int) -> tuple[Samples, Samples]:
        """Raise DataError."""
        raise DataError("nothing can be held out of batches that come one after the other: pass validation data")

    def digest(self) -> None:
        """Nothing tells."""


def _bytes(part: Array) -> int:
    """Return how many bytes an array has; the standard does not tell."""
    size: int = prod(part.shape) * np.dtype(str(part.dtype).rpartition(".")[2]).itemsize
    return size


def _form(parts: Parts) -> list[tuple[Any, ...]]:
    return [(part.dtype, *part.shape) for whole in parts for part in inputs(whole)]
