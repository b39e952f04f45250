"""The one entrance for types: whatever holds numbers becomes an array of a type that every library computes with.

    bool                      uint8, 0 and 1
    uint16, uint32, uint64    signed, of the same width where the values fit, else the next wider; beyond int64: floats
    other integers            as they are, in the machine's order of bytes
    floats of any precision   the model's `dtype`; a number beyond its range is refused, with its place
    all else                  refused, with what to do: complex numbers, text, dates, objects, masked or missing values,
                              sparse matrices, generators and loaders

Host data of the right type are not copied. Data of the model's own library and device stay there; unsigned integers
wider than a byte go by way of the host, since PyTorch cannot compare them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from xpnet.arrays import Array, describe, is_floating
from xpnet.backends import LIBRARIES, Backend, library_of
from xpnet.data import scan
from xpnet.errors import DataError


def collect(name: str, data: Any, backend: Backend) -> Array:
    """Return numbers as they came, where they lie: on the backend's device, else in host memory."""
    _refuse_what_is_no_array(name, data)
    library = library_of(data)
    if library != "numpy" and backend.owns(data):
        data = _on_device(name, data, backend)
    elif library in LIBRARIES and library != "numpy":
        remedy = "on that device" if library == backend.name else f"with backend={library!r}"
        raise TypeError(
            f"{name} is {describe(data)}, but the model is on {backend.name} {backend.device}: "
            f"pass a NumPy array, or make the model {remedy}"
        )
    else:
        data = _numbers(name, _on_host(name, data))
    if data.ndim == 0:
        raise DataError(f"{name} is a single number: pass an array, one sample a row")
    if 0 in data.shape:
        raise DataError(f"{name} is empty: it has the shape {tuple(data.shape)}, one sample a row is expected")
    return data


def settle(name: str, data: Array, backend: Backend, dtype: str) -> Array:
    """Return what `collect` returned with floats as `dtype` and integers signed, or as bytes."""
    if isinstance(data, np.ndarray):
        if data.dtype.kind == "u" and data.itemsize > 1:
            return _signed(data, dtype)
        return _floats(name, data, dtype) if data.dtype.kind == "f" and data.dtype != dtype else data
    wanted = getattr(backend.xp, dtype)
    if not is_floating(backend.xp, data) or data.dtype == wanted:
        return data
    made = backend.xp.astype(data, wanted)
    if not scan.finite(*scan.extremes(made, backend)):
        place = scan.first(data, lambda xp, x: xp.isfinite(x) & ~xp.isfinite(xp.astype(x, wanted)), backend)
        if place is not None:
            raise _beyond(name, scan.value(data, place, backend), place, dtype)
    return made


def _signed(data: np.ndarray, dtype: str) -> np.ndarray:
    """Return unsigned integers as signed ones: the same memory, if no value needs the highest bit."""
    size, top = data.itemsize, int(data.max())
    if top < 2 ** (8 * size - 1):
        return data.view(f"i{size}")
    return data.astype(f"i{2 * size}" if size < 8 else dtype)


def _floats(name: str, data: np.ndarray, dtype: str) -> np.ndarray:
    """Return floats as `dtype`, a block at a time; DataError for a finite number that would become infinite."""
    made = np.empty(data.shape, dtype)
    for rows in scan.blocks(data):
        made[rows] = data[rows]
        if not scan.finite(made[rows].min(), made[rows].max()):
            lost = np.isfinite(data[rows]) & ~np.isfinite(made[rows])
            if lost.any():
                row, *rest = (int(k) for k in np.unravel_index(lost.argmax(), lost.shape))
                place = (rows.start + row, *rest)
                raise _beyond(name, data[place], place, dtype)
    return made


def _beyond(name: str, value: Any, place: scan.Place, dtype: str) -> DataError:
    most, remedy = np.finfo(dtype).max, ', or make the model with dtype="float64"' if dtype == "float32" else ""
    return DataError(f"{name} holds {value} at {scan.where(place)}, {dtype} ends at {most:.2g}: scale it{remedy}")


def _on_device(name: str, data: Array, backend: Backend) -> Array:
    """Return an array of the model's own library: free of gradients, bool as bytes, wide unsigned integers at home."""
    data, xp = backend.plain(data), backend.xp
    if xp.isdtype(data.dtype, "complex floating"):
        raise _complex(name)
    if xp.isdtype(data.dtype, "bool"):
        return xp.astype(data, xp.uint8)
    wide = xp.isdtype(data.dtype, "unsigned integer") and data.dtype != xp.uint8
    return backend.asnumpy(data) if wide else data


def _refuse_what_is_no_array(name: str, data: Any) -> None:
    """Raise DataError, with the remedy, for what NumPy would make an object of, or read wrongly."""
    kind = type(data).__name__
    if data is None:
        raise DataError(f"{name} is missing: pass an array, one sample a row")
    if isinstance(data, (str, bytes)):
        raise DataError(f"{name} is a {kind}: pass an array of numbers, one sample a row")
    dense = next((word for word in ("toarray", "todense") if hasattr(data, word)), None)
    if dense is None and hasattr(data, "to_dense") and "strided" not in str(getattr(data, "layout", "strided")):
        dense = "to_dense"
    if dense is not None:
        raise DataError(f"{name} is sparse ({kind}): use {name}.{dense}()")
    if isinstance(data, np.ma.MaskedArray) and np.ma.is_masked(data):
        place = scan.where(tuple(int(k) for k in np.argwhere(np.ma.getmaskarray(data))[0])) if data.ndim else "row 0"
        raise DataError(f"{name} is masked at {place}: fill it, {name}.filled(0), or drop those rows")
    if isinstance(data, Mapping):
        raise DataError(f"{name} is a {kind}: make its columns one array, np.column_stack(list({name}.values()))")
    if isinstance(data, Sequence) or hasattr(data, "__array__") or hasattr(data, "shape"):
        return
    if isinstance(data, Iterator):
        ways = f"np.stack(list({name})) of samples, np.concatenate(list({name})) of batches"
        raise DataError(f"{name} is a {kind}, which can be read once: collect it into an array, {ways}")
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not hasattr(data, "__iter__"):
        raise DataError(f"{name} is a {kind}: collect its samples into arrays, x, y = map(np.stack, zip(*dataset))")
    if isinstance(data, Iterable):
        ways = "x, y = map(np.concatenate, zip(*batches))"
        raise DataError(f"{name} is a {kind}, not an array: if it gives batches, collect them, {ways}")


def _on_host(name: str, data: Any) -> np.ndarray:
    """Return an array of anything that NumPy can make one of: lists, tables, whatever has `__array__`."""
    try:
        array = np.asarray(data)
    except (ValueError, TypeError, RuntimeError) as error:
        if isinstance(data, Sequence):
            raise _ragged(name, data, error) from None
        reason = str(error).partition("\n")[0]
        raise DataError(f"{name} is a {type(data).__name__} that NumPy cannot read ({reason}): pass an array") from None
    columns = getattr(data, "column_names", None) or getattr(data, "columns", None)
    if array.dtype.kind not in "biuf" and array.ndim == 2 and columns is not None:
        array = _table(name, data, list(columns))
    if array.dtype.kind == "f" and _lacks_values(data):
        column = next((column for column in (() if columns is None else columns) if _lacks_values(data[column])), None)
        what = name if column is None else f"column {column!r} of {name}"
        raise DataError(f"{what} has missing values: fill them, or drop those rows")
    return array


def _lacks_values(table: Any) -> bool:
    """Whether values are missing, not NaN, in a Polars table or in nullable columns of pandas: NumPy makes NaN of
    both, and floats of integers.
    """
    if callable(getattr(table, "null_count", None)):
        return bool(np.sum(np.asarray(table.null_count())))
    kinds = np.ravel(np.asarray(getattr(table, "dtypes", None), dtype=object))
    return any(hasattr(kind, "na_value") for kind in kinds) and bool(np.asarray(table.isna()).any())


def _table(name: str, table: Any, columns: list[Any]) -> np.ndarray:
    """Return the columns of a mixed table as one array of numbers; DataError names those that hold none."""
    parts = {column: np.asarray(table[column]) for column in columns}
    wrong = [column for column, part in parts.items() if part.dtype.kind not in "biuf"]
    for column in wrong:
        items = [item for item in parts[column].ravel() if not _is_number(item)]
        if items and all(map(_is_missing, items)):
            raise DataError(f"column {column!r} of {name} has missing values: fill them, or drop those rows")
    if wrong:
        named = ", ".join(f"{column!r} ({getattr(table[column], 'dtype', parts[column].dtype)})" for column in wrong)
        raise DataError(f"{name} must hold numbers, but not all its columns do: encode or drop {named}")
    return np.column_stack(list(parts.values()))


def _numbers(name: str, data: np.ndarray) -> np.ndarray:
    """Return host data of a native type: bool as bytes, in the same memory; DataError for all that are not numbers."""
    kind = data.dtype.kind
    if kind == "b":
        return data.view(np.uint8)
    if kind == "V" and data.dtype.names is None and np.can_cast(data.dtype, np.float32):
        return data.astype(np.float32)  # bfloat16, as JAX brings it home
    if kind in "iuf":
        return data if data.dtype.isnative else data.astype(data.dtype.newbyteorder("="))
    if kind == "c":
        raise _complex(name)
    if kind in "Mm":
        remedy = "subtract a date and divide by a unit" if kind == "M" else "divide by a unit"
        raise DataError(f"{name} holds dates ({data.dtype}): {remedy}, such as np.timedelta64(1, 'D')")
    if kind in "USTO" and data.size:
        raise _no_numbers(name, data)
    raise DataError(f"{name} must hold numbers, got {data.dtype}: make it one array of numbers")


def _no_numbers(name: str, data: np.ndarray) -> DataError:
    """Say which element is the first that is no number, and what to do about it."""
    place = next((place for place in np.ndindex(data.shape) if not _is_number(data[place])), None)
    if place is None:
        return DataError(f"{name} holds numbers as Python objects: convert them, {name}.astype(float)")
    item, at = data[place], f" at {scan.where(place)}" if place else ""
    if _is_missing(item):
        return DataError(f"{name} has a missing value, {item!r}{at}: fill it, or drop that row")
    if isinstance(item, str):
        remedy = "number its categories, such as np.unique(column, return_inverse=True)[1]"
        return DataError(f"{name} must hold numbers, got {str(item)!r}{at}: {remedy}")
    return DataError(f"{name} must hold numbers, got a {type(item).__name__}{at}: make it one array of numbers")


def _is_number(item: Any) -> bool:
    return isinstance(item, (bool, int, float, np.number, np.bool_)) and not _is_missing(item)


def _is_missing(item: Any) -> bool:
    """Whether an object stands for a missing value: None, pandas' NA and NaT, or NaN among objects."""
    return item is None or type(item).__name__ in ("NAType", "NaTType") or (isinstance(item, float) and item != item)


def _complex(name: str) -> DataError:
    return DataError(f"{name} holds complex numbers: pass two real ones, np.stack([{name}.real, {name}.imag], axis=-1)")


def _ragged(name: str, rows: Sequence[Any], error: Exception) -> DataError:
    """Say which row of a nested list is not as long as the first, or, if all are, what NumPy said."""
    lengths = [len(row) if hasattr(row, "__len__") else 1 for row in rows]
    other = next((k for k, length in enumerate(lengths) if length != lengths[0]), None)
    if other is None:
        reason = str(error).partition("\n")[0]
        return DataError(f"{name} is a {type(rows).__name__} that makes no array ({reason}): make its rows alike")
    came = f"row 0 has {lengths[0]} and row {other} has {lengths[other]}"
    return DataError(f"{name} must have rows of one length, but {came}: pad or cut them")
