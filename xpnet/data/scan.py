"""Looking through data: the extremes, the first element that is wrong and where it stands, without a mask of it all.

Host data are looked at a few rows at a time, so that a memory map is read once and nothing as large as the data is
made. Data on a device are reduced there, and two numbers come home.
"""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from xpnet.arrays import Array, Namespace
from xpnet.backends import Backend
from xpnet.errors import DataWarning

BLOCK = 2**20
"""Bytes of host data that are looked at together: they stay in the processor's cache from one look to the next."""

Place: TypeAlias = tuple[int, ...]
"""Where an element stands: its row, then its indices within the sample."""

RUNS, RUN = 32, 32
"""How many rows are looked at for what a few can tell: runs of rows, since neighbours in time are neighbours."""

HOME = str(Path(__file__).parent.parent)


def blocks(data: np.ndarray) -> Iterator[slice]:
    """Yield slices of rows, about BLOCK bytes each."""
    rows = max(1, BLOCK * len(data) // max(data.nbytes, 1))
    yield from (slice(start, start + rows) for start in range(0, len(data), rows))


def extremes(data: Array, backend: Backend) -> tuple[Any, Any]:
    """Return the least and the greatest value, as Python numbers: NaN, both, if there is one anywhere."""
    if not isinstance(data, np.ndarray):
        xp = backend.xp
        return backend.asnumpy(xp.min(data)).item(), backend.asnumpy(xp.max(data)).item()
    pairs = [(data[rows].min(), data[rows].max()) for rows in blocks(data)]
    low, high = (np.asarray(column) for column in zip(*pairs, strict=True))
    return low.min().item(), high.max().item()


def finite(*values: float) -> bool:
    """Whether none of the numbers is NaN or infinite; integers of any size are finite."""
    return all(abs(value) < float("inf") for value in values)


def first(data: Array, wrong: Callable[[Namespace, Array], Array], backend: Backend) -> Place | None:
    """Return where the first element stands for which `wrong(xp, data)` is True, None if there is none."""
    if isinstance(data, np.ndarray):
        for rows in blocks(data):
            mask = wrong(np, data[rows])
            if mask.any():
                row, *rest = (int(k) for k in np.unravel_index(mask.argmax(), mask.shape))
                return (rows.start + row, *rest)
        return None
    xp = backend.xp
    mask = xp.reshape(xp.astype(wrong(xp, data), xp.int8), (-1,))
    index = int(backend.asnumpy(xp.argmax(mask)))
    if not backend.asnumpy(mask[index]):
        return None
    return tuple(int(k) for k in np.unravel_index(index, tuple(data.shape)))


def some(data: Array, backend: Backend) -> np.ndarray:
    """Return about a thousand rows and columns of the data on the host, flat (rows, columns), and spread over all."""
    starts = np.linspace(0, max(0, data.shape[0] - RUN), RUNS).astype(np.int32)
    rows = np.unique(starts[:, None] + np.arange(RUN, dtype=np.int32))
    rows = rows[rows < data.shape[0]]
    host = isinstance(data, np.ndarray)
    taken = data[rows] if host else backend.asnumpy(backend.xp.take(data, backend.asarray(rows), axis=0))
    flat = taken.reshape(len(rows), -1)
    return flat[:, columns_of(flat.shape[1])]


def columns_of(count: int) -> np.ndarray:
    """Return which of so many columns `some` looks at."""
    return np.unique(np.linspace(0, count - 1, 1024).astype(int))


APART = 1000.0
"""By which factor the standard deviations of a table's columns may differ."""


def far_apart(table: Array, backend: Backend) -> tuple[tuple[int, float], tuple[int, float]] | None:
    """Return the widest and the narrowest column, with their standard deviations, if these are far apart.

    Some rows are looked at. Columns say nothing of a scale whose values there are all the same to float32, or two, or
    more than half of them one: indicators, counts of what is rare.
    """
    rows = some(table, backend).astype(np.float64)
    low, high, deviation = rows.min(axis=0), rows.max(axis=0), rows.std(axis=0)
    two = ((rows == low) | (rows == high)).all(axis=0)
    one = (rows == np.median(rows, axis=0)).mean(axis=0) > 0.5
    told = np.flatnonzero(~two & ~one & (deviation > 1e-6 * np.maximum(-low, high)))
    if not len(told):
        return None
    wide, narrow = told[deviation[told].argmax()], told[deviation[told].argmin()]
    if deviation[wide] <= APART * deviation[narrow]:
        return None
    columns = columns_of(table.shape[1])
    return (int(columns[wide]), float(deviation[wide])), (int(columns[narrow]), float(deviation[narrow]))


def value(data: Array, place: Place, backend: Backend) -> Any:
    """Bring one element home."""
    return data[place] if isinstance(data, np.ndarray) else backend.asnumpy(data[place])


def where(place: Place) -> str:
    """Say where an element stands: `row 3, column 5`."""
    names, (row, *rest) = NAMES.get(), place
    row = row if names is None else int(names[row])
    return f"row {row}" + (f", column {rest[0]}" if len(rest) == 1 else f", place {tuple(rest)}" if rest else "")


def column(name: str, place: Place) -> str:
    """Say which number of a sample is meant: `column 5 of x`."""
    if len(place) == 1:
        return f"column {place[0]} of {name}"
    return f"place {place} of {name}" if place else name


SILENT: ContextVar[bool] = ContextVar("SILENT", default=False)
"""Whether nothing is warned of: data of a kind that was looked at before."""


UNSAID: ContextVar[tuple[str, ...]] = ContextVar("UNSAID", default=())
"""How warnings begin that are kept back."""


NAMES: ContextVar[np.ndarray | None] = ContextVar("NAMES", default=None)
"""The numbers of the rows that are looked at, if they are some of a larger whole."""


@contextmanager
def numbered(rows: np.ndarray | None) -> Iterator[None]:
    """Say where an element stands by these numbers of the rows."""
    before = NAMES.set(rows)
    try:
        yield
    finally:
        NAMES.reset(before)


@contextmanager
def silent() -> Iterator[None]:
    """Give no warnings in this thread."""
    before = SILENT.set(True)
    try:
        yield
    finally:
        SILENT.reset(before)


@contextmanager
def unsaid(beginning: str) -> Iterator[None]:
    """Keep back warnings that begin so, in this thread."""
    before = UNSAID.set((*UNSAID.get(), beginning))
    try:
        yield
    finally:
        UNSAID.reset(before)


def warn(text: str) -> None:
    """Give a DataWarning, at the line outside xpnet that the data come from."""
    if SILENT.get() or text.startswith(UNSAID.get()):
        return
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(HOME):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, DataWarning, stacklevel=level)
