"""Rows: what has rows, wherever it lies, as a source of samples."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from xpnet.arrays import describe, inputs
from xpnet.data.door import count
from xpnet.errors import DataError, ShapeError


class Rows:
    """A source of samples from what has rows: `source[rows]` reads those rows alone, as host arrays.

        model.fit(xn.Rows(np.load("x.npy", mmap_mode="r"), labels), epochs=5)

    x, y and the weights, if there are any, are arrays, memory maps, data sets of h5py, zarr and dask, SciPy's sparse
    matrices, or tables of pyarrow, pandas, polars and Hugging Face (their columns side by side; a single one is an
    array of its own shape); x may be a tuple of inputs. Without y, x is a data set in PyTorch's style, whose x[k] is a
    sample (x, y) or (x, y, weight); or, for `predict`, it is the inputs alone.

    Files are read in the order in which they lie, and put into the order that was asked for. With `window`, a number of
    rows, an epoch has another order: stretches of `stretch` rows come in a random order, and are mixed within windows
    of that many rows, each of which is read at once. It is for files in compressed chunks; `stretch` left out is one.

    A source of one's own needs only `len()` and `source[rows] -> (x, y)` or `(x, y, weights)`: host arrays, in the
    order of `rows`, an array of integers.
    """

    def __init__(
        self, x: Any, y: Any = None, weights: Any = None, window: int | None = None, stretch: int | None = None
    ) -> None:
        self.parts = (x, *(part for part in (y, weights) if part is not None))
        self.window = None if window is None else count("window", window)
        self.stretch = _chunk(inputs(x)[0]) if stretch is None else count("stretch", stretch)
        lengths = [_length(part) for part in self._each]
        if any(one != other for one, other in pairwise(lengths)):
            raise ShapeError(f"x, y and weights must have as many rows, got {', '.join(map(str, lengths))}")
        self._length = lengths[0]

    @property
    def _each(self) -> list[Any]:
        return [array for part in self.parts for array in inputs(part)]

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return f"Rows({', '.join(type(part).__name__ for part in self._each)}: {len(self):,} rows)"

    def __getitem__(self, rows: Any) -> tuple[Any, ...]:
        """Return those rows of all parts."""
        rows = np.arange(len(self))[rows] if isinstance(rows, slice) else np.atleast_1d(np.asarray(rows))
        if len(self.parts) == 1 and _gives_samples(self.parts[0]):
            return _samples(self.parts[0], rows)
        return tuple(
            tuple(_read(array, rows) for array in part) if isinstance(part, tuple) else _read(part, rows)
            for part in self.parts
        )


def _length(part: Any) -> int:
    """Return how many rows there are; DataError for what has none."""
    try:
        if isinstance(part, (Mapping, str, bytes)) or not any(hasattr(part, way) for way in ("__getitem__", "take")):
            raise TypeError
        if hasattr(part, "count_rows"):
            return int(part.count_rows())
        return int(part.shape[0] if hasattr(part, "shape") else len(part))
    except (TypeError, IndexError):
        raise DataError(f"Rows reads what has rows, such as an array or a table, got {describe(part)}") from None


def _chunk(part: Any) -> int | None:
    """Return how many rows a file holds in a chunk, if it says so; dask tells the chunks of each axis."""
    chunks = getattr(part, "chunks", None)
    rows = chunks[0] if isinstance(chunks, tuple) and chunks else None
    return max(rows) if isinstance(rows, tuple) else rows if isinstance(rows, int) else None


def _gives_samples(data: Any) -> bool:
    """Whether this is a data set whose items are samples: neither an array nor a table."""
    return not isinstance(data, tuple) and not any(
        hasattr(data, name) for name in ("shape", "column_names", "columns", "count_rows")
    )


def _samples(data: Any, rows: np.ndarray) -> tuple[Any, ...]:
    """Return the samples of a data set in PyTorch's style, stacked."""
    numbers = rows.tolist()
    items = data.__getitems__(numbers) if hasattr(data, "__getitems__") else [data[k] for k in numbers]
    if not items or isinstance(items[0], Mapping) or not isinstance(items[0], (tuple, list)):
        came = describe(items[0]) if items else "nothing"
        raise DataError(f"Rows without y reads samples (x, y) from {describe(data)}, got {came}: pass x and y apart")
    return tuple(np.stack([np.asarray(one) for one in column]) for column in zip(*items, strict=True))


def _read(data: Any, rows: np.ndarray) -> np.ndarray:
    """Return rows of an array or a table as a host array; of what lies in a file in the order in which they lie."""
    if _in_memory(data):
        return _picked(data, rows)
    where, back = np.unique(rows, return_inverse=True)
    read = _picked(data, where)
    return read if len(where) == len(rows) and (back[1:] > back[:-1]).all() else np.take(read, back, axis=0)


def _library(data: Any) -> str:
    return type(data).__module__.partition(".")[0]


def _in_memory(data: Any) -> bool:
    """Whether rows cost the same in any order."""
    if isinstance(data, np.ndarray):
        return not any(isinstance(part, np.memmap) for part in (data, data.base))
    return isinstance(data, Sequence) or _library(data) in ("pandas", "polars", "torch", "pyarrow")


def _picked(data: Any, rows: np.ndarray) -> np.ndarray:
    """Return rows by the way that each kind of container has."""
    if isinstance(data, np.ndarray):  # np.take is faster, and copies all of what is no block of memory
        return np.take(np.asarray(data), rows, axis=0) if data.flags.c_contiguous else np.asarray(data[rows])
    if isinstance(data, Sequence):
        return np.asarray([data[k] for k in rows.tolist()])
    match _library(data):
        case "pandas":
            return np.asarray(data.iloc[rows])
        case "zarr":
            return np.asarray(data.oindex[rows])
        case "pyarrow":
            return _columns(data.take(rows))
        case "datasets":
            return _columns(data[rows.tolist()])
    read = data[rows]
    return read.toarray() if hasattr(read, "toarray") else np.asarray(read)  # sparse matrices of SciPy


def _columns(table: Any) -> np.ndarray:
    """Return the columns of a table side by side, a single one as it is; what is no table as an array."""
    names = list(table) if isinstance(table, Mapping) else getattr(table, "column_names", None)
    if names is None:
        return np.asarray(table)
    columns = [np.asarray(table[name]) for name in names]
    return columns[0] if len(columns) == 1 else np.column_stack(columns)
