"""Samples that are read while training runs: blocks of a source, one ahead of the device."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from xpnet import random
from xpnet.arrays import Array, describe, each, inputs
from xpnet.backends import Backend
from xpnet.data import batches, scan
from xpnet.data.ahead import ahead
from xpnet.data.door import put
from xpnet.data.source import WHOLE, Block, Cut, Numbered, Part, Parts, Weigh, bounds
from xpnet.errors import DataError, ShapeError

BYTES = 16 << 20
"""Of samples in a block, about: one is worked on, one waits, and one is read."""
MOST = 64 << 20
"""Of samples that are evaluated together."""
SPREAD = 256
"""Rows all over a source that are looked at before training starts, and whose digest tells it from others."""

T = TypeVar("T")

Examine = Callable[..., Parts]
"""`examine(x, y)` or `examine(x, y, weights)`: what the door makes of samples, on the host."""


def is_source(data: Any) -> bool:
    """Whether data are read by `data[rows]`: they have a length and rows, and are no array, table or sequence."""
    has = all(hasattr(type(data), name) for name in ("__len__", "__getitem__"))
    return has and not is_whole(data) and not isinstance(data, (list, tuple, str, bytes))


def is_whole(data: Any) -> bool:
    """Whether data are an array, a table or a dict: not read bit by bit."""
    return any(hasattr(data, name) for name in ("shape", "__array__", "dtype", "columns", "column_names", "keys"))


def weighing(examine: Examine, weigh: Weigh) -> Examine:
    """Return what examines samples and gives them other weights."""

    def examined(*came: Any) -> Parts:
        x, *others = examine(*came)
        return x, others[0], weigh(*others)

    return examined


@dataclass(eq=False)
class Stream(Numbered):
    """Rows of a source, which are examined as they come and put on the device in blocks."""

    source: Any
    examine: Examine
    backend: Backend
    rows: np.ndarray | None = None

    @cached_property
    def total(self) -> int:
        """How many samples the source has; DataError if it has none, or more than 32 bits count."""
        n: int = len(self.source)
        if not 0 < n < 2**31:
            raise DataError(f"a source has 1 to {2**31 - 1} rows, got {describe(self.source)} of {n}")
        return n

    @cached_property
    def _look(self) -> tuple[list[str], Parts]:
        """What rows all over the source are, and they themselves, examined."""
        rows = np.unique(np.linspace(0, self.total - 1, SPREAD).astype(np.int64))

        def look() -> tuple[list[str], Parts]:
            came = self._read(rows)
            return kinds_of(came), self.examine(*came)

        return told("the source", rows, look, ": if it reads a row at a time, wrap it, xn.Rows(source)")

    @property
    def first(self) -> Parts:
        """Those rows, on the device."""
        return self._first

    @cached_property
    def _first(self) -> Parts:
        return self._placed(self._look[1])

    @property
    def targets(self) -> Parts:
        """The targets of all samples, in their order, and their weights, if there are any: the whole source is read."""
        columns = [parts[1:] for parts in self.chunks(self._rows_in(BYTES))]
        return tuple(self.backend.xp.concat(list(column)) for column in zip(*columns, strict=True))

    def _rows_in(self, size: int) -> int:
        """Return how many samples have so many bytes."""
        row: int = sum(part[0].nbytes for whole in self._look[1] for part in inputs(whole))
        return max(1, size // max(row, 1))

    def blocks(self, seed: int, epoch: int, done: int, cut: Cut) -> Iterator[Block]:
        """Yield an epoch's batches but for its first `done` samples, as the source gives them."""
        if len(self.source) != self.total:
            was = f"had {self.total} rows when training began and has {len(self.source)} now"
            raise DataError(f"the source {was}: nothing may change it meanwhile")
        places: Parts | None = None
        pieces = [list(batches.batches(piece, *cut)) for piece in self._pieces(seed, epoch, done, cut)]
        for blocks, parts in zip(pieces, self._ahead(map(self._own, pieces), "block"), strict=False):
            places = self._placed(parts, places)
            start = 0
            for block in blocks:
                low, high = self.share(block.shape[1])
                index = np.zeros(block.shape, np.int32)
                stop = start + len(block) * (high - low)
                index[:, low:high] = np.arange(start, stop).reshape(len(block), high - low)
                start = stop
                yield Block(places, index)

    def _own(self, blocks: list[np.ndarray]) -> np.ndarray:
        """Return the rows of some batches that are needed, one after the other."""
        return np.concatenate([block[:, slice(*self.share(block.shape[1]))].reshape(-1) for block in blocks])

    def _pieces(self, seed: int, epoch: int, done: int, cut: Cut) -> Iterator[np.ndarray]:
        """Yield an epoch's order in pieces that are read together: some batches, or a window."""
        window, batch = getattr(self.source, "window", None), cut.batch
        if window is None:
            most = max(1, self._rows_in(BYTES) // batch)
            order = self.order(seed, epoch)[done:]
            return (block.reshape(-1) for block in batches.batches(order, *cut, most=most))
        rows = np.arange(self.total, dtype=np.int32) if self.rows is None else self.rows
        size = max(1, window // batch) * batch
        stretch = getattr(self.source, "stretch", None) or max(1, window // STRETCHES)
        order = windowed(rows, size, stretch, random.generator(seed, f"shuffle/{epoch}"))
        return (order[start : start + size] for start in range(done, len(order), size))

    def chunks(self, size: int, part: Part = WHOLE) -> Iterator[Parts]:
        """Yield all samples in their order, up to `size` at a time, and no more than MOST bytes, or those of a part."""
        size, (low, high) = min(size, self._rows_in(MOST)), bounds(self.count, part)
        rows = np.arange(low, high, dtype=np.int32) if self.rows is None else self.rows[low:high]
        pieces = (rows[start : start + size] for start in range(0, len(rows), size))
        yield from map(self._placed, self._ahead(pieces, "part"))

    def _ahead(self, pieces: Iterator[np.ndarray], kind: str) -> Iterator[Parts]:
        """Yield what the source gives for each piece of its rows, examined."""

        def read(piece: tuple[str, np.ndarray]) -> Parts:
            if not len(piece[1]):  # none of its rows is needed
                return self._look[1]
            with scan.silent():
                return told(*piece, lambda: self._alike(self._read(piece[1])))

        named = ((f"{kind} {k} of the source", rows) for k, rows in enumerate(pieces, 1))
        return ahead(named, read, lambda piece: piece[0], self.given_up)

    def _placed(self, parts: Parts, places: Parts | None = None) -> Parts:
        """Return parts on the device, where earlier ones lay if that serves."""
        if places is None:
            return tuple(each(lambda part: put(part, self.backend), part) for part in parts)

        def again(old: Array, part: Array) -> Array:
            return self.backend.refill(old, part) if isinstance(part, np.ndarray) else part

        return tuple(each(again, old, part) for old, part in zip(places, parts, strict=True))

    def _read(self, rows: np.ndarray) -> tuple[Any, ...]:
        """Return what the source gives for rows; DataError unless there are x and y, a sample a row."""
        came = self.source[rows]
        if not isinstance(came, tuple) or len(came) not in (2, 3):
            what = "x alone: y is missing" if isinstance(came, tuple) and len(came) == 1 else describe(came)
            raise DataError(f"a source gives (x, y) or (x, y, weights), got {what}")
        came = tuple(each(lambda part: at_home(part, self.backend), part) for part in came)
        for name, part in zip(("x", "y", "weights"), came, strict=False):
            for array in inputs(part):
                if len(array) != len(rows):
                    raise DataError(f"{len(rows)} rows were asked for, got {len(array)} of {name}")
        return came

    def _alike(self, came: tuple[Any, ...]) -> Parts:
        """Return samples examined; DataError unless they are of the kind of the first."""
        kinds, first = kinds_of(came), self._look[0]
        if len(kinds) != len(first):
            raise DataError(f"all samples must be like the first, {len(first)} arrays, got {len(kinds)}")
        if kinds != first:
            k = next((k for k, (one, other) in enumerate(zip(kinds, first, strict=True)) if one != other))
            raise DataError(f"all samples must be like the first, {first[k]}, got {kinds[k]}")
        return self.examine(*came)

    def weighed(self, weigh: Weigh) -> "Stream":
        """Return the same samples with other weights."""
        return replace(self, examine=weighing(self.examine, weigh))

    def some(self, rows: np.ndarray) -> "Stream":
        """Return some of the samples, of the same source."""
        made = replace(self, rows=rows)
        for name in ("total", "_look"):  # all that was read to know them
            made.__dict__[name] = getattr(self, name)
        return made

    def digest(self) -> str:
        """Return the SHA-256 of the source's length, of rows all over it, and of which are meant, in which windows."""
        window, stretch = (getattr(self.source, name, None) for name in ("window", "stretch"))
        sha = hashlib.sha256(f"{self.total} {window} {stretch if window else None}".encode())
        for array in (array for part in self._look[1] for array in inputs(part)):
            sha.update(f"{array.dtype} {array.shape}".encode())
            sha.update(np.ascontiguousarray(array).data)
        if self.rows is not None:
            sha.update(np.ascontiguousarray(self.rows).data)
        return sha.hexdigest()


STRETCHES = 16
"""Stretches of rows in a window, unless the source says how long they are."""


def whole(source: Any, size: int) -> Iterator[tuple[Any, ...]]:
    """Yield what a source gives for all its rows, in their order, `size` at a time, reading ahead."""
    n = len(source)
    pieces = ((f"part {k}", np.arange(start, min(start + size, n))) for k, start in enumerate(range(0, n, size), 1))

    def read(piece: tuple[str, np.ndarray]) -> Any:
        return told(f"{piece[0]} of the source", piece[1], lambda: source[piece[1]])

    return ahead(pieces, read, lambda piece: piece[0], lambda: False)


def windowed(rows: np.ndarray, window: int, stretch: int, generator: np.random.Generator) -> np.ndarray:
    """Return rows, which ascend, in an order that needs few of a file's chunks at a time.

    Stretches, the rows k·stretch to (k + 1)·stretch − 1, come in a random order; then each `window` rows are shuffled.
    """
    places = generator.permutation(int(rows[-1]) // stretch + 1)
    order = rows[np.argsort(places[rows // stretch], kind="stable")]
    for start in range(0, len(order), window):
        generator.shuffle(order[start : start + window])
    return order


def kinds_of(came: tuple[Any, ...]) -> list[str]:
    """Say of each array what it holds: `x: float32 (784,)`."""
    names = ("x", "y", "weights")
    arrays = [(name, np.asarray(array)) for name, part in zip(names, came, strict=False) for array in inputs(part)]
    return [f"{name} of {array.dtype} {array.shape[1:]} a sample" for name, array in arrays]


def at_home(part: Any, backend: Backend) -> Any:
    """Return a PyTorch tensor on the host as NumPy's, unless the model is PyTorch's: loaders give such."""
    torch = type(part).__module__.partition(".")[0] == "torch" and backend.name != "torch"
    return np.asarray(part) if torch and part.device.type == "cpu" else part


def told(what: str, rows: np.ndarray | None, read: Callable[[], T], remedy: str = "") -> T:
    """Return what is read; an error says in a line what was being read, and which rows, by their own numbers."""
    try:
        with scan.numbered(rows):
            return read()
    except Exception as error:
        ours = isinstance(error, (DataError, ShapeError))
        text = str(error) if ours else f"{type(error).__name__}: {str(error).partition(chr(10))[0]}{remedy}"
        which = ""
        if rows is not None:
            which = f" (row {rows[0]})" if len(rows) == 1 else f" ({len(rows)} rows, the first is {rows[0]})"
        made = type(error) if ours else DataError
        raise made(f"{what}{which}: {text}") from (None if ours else error)
