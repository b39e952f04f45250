"""The door for data: what is checked, and how it comes onto the device.

Everything is checked once, before training starts, so that no step has to. Data that lies on the device already stays
there; host data travels once, bytes as bytes. What becomes of each type is in `types`, what a loss expects of its
targets in `targets`.
"""

import operator
from math import prod
from typing import Any

import numpy as np

from xpnet import losses
from xpnet.arrays import Array, each, is_floating, shape_of
from xpnet.backends import Backend
from xpnet.backends import backend as find_backend
from xpnet.data import scan, types
from xpnet.data.targets import TARGETS, check_distinct, check_labels, check_of
from xpnet.errors import DataError, ShapeError
from xpnet.layers import BatchNorm, Layer, Scale, Standardize
from xpnet.parameters import Shape

__all__ = ["TARGETS", "admit", "check_inputs", "check_settings", "place", "place_inputs", "read"]

PIXELS, LARGE = 64, 1000.0
"""Numbers a sample from which whole numbers in 0..255 are taken for an image; magnitude from which inputs are large."""

SCALING = (Scale, Standardize, BatchNorm)
"""Layers that bring numbers to a scale that trains."""


def read(name: str, data: Any, backend: Backend, dtype: str) -> Array:
    """Return data as an array, where it lies: floats as `dtype`, integers signed; `name` is for the messages.

    DataError or TypeError, in a line, for what holds no numbers, lies elsewhere, or is beyond the range of `dtype`.
    """
    with np.errstate(all="ignore"):
        return types.settle(name, types.collect(name, data, backend), backend, dtype)


def place(name: str, data: Any, backend: Backend, dtype: str) -> Array:
    """Return data as an array of the backend: floats as `dtype`, integers signed; `name` is for the messages."""
    return put(read(name, data, backend, dtype), backend)


def place_inputs(data: Any, net: Layer, backend: Backend, dtype: str) -> Any:
    """Return what a network is to read as an array of the backend, or a tuple of them; see `place`."""
    parts = []
    for name, part, tokens in _named(data, net):
        array = read(name, part, backend, dtype)
        if tokens:
            check_tokens(name, array, tokens, home(array, backend))
        parts.append(put(array, backend))
    return tuple(parts) if _several(data, net) else parts[0]


def _several(data: Any, net: Layer) -> bool:
    """Whether data are several inputs: a tuple, for a network that takes such."""
    return isinstance(data, tuple) and net.takes_several


def _named(data: Any, net: Layer) -> list[tuple[str, Any, int]]:
    """Return each input with its name in messages, and how many different tokens it holds, 0 for numbers."""
    if not _several(data, net):
        return [("x", data, net.tokens())]
    return [(f"x[{k}]", part, net.tokens(k)) for k, part in enumerate(data)]


def put(data: Array, backend: Backend) -> Array:
    """Put host data on the device; what lies there already stays."""
    return backend.asarray(data) if isinstance(data, np.ndarray) else data


def admit(x: Any, y: Any, net: Layer, loss: losses.Loss, backend: Backend, dtype: str) -> tuple[Any, Array]:
    """Return inputs and targets, examined and placed on the device."""
    x, y = examine(x, y, net, loss, backend, dtype)
    return each(lambda part: put(part, backend), x), put(y, backend)


def examine(x: Any, y: Any, net: Layer, loss: losses.Loss, backend: Backend, dtype: str) -> tuple[Any, Array]:
    """Return inputs and targets, checked where they lie; an error says what is wrong, where, what to do.

    A network that begins with Parallel may be given a tuple of inputs. DataError, ShapeError or TypeError. DataWarning
    if inputs hold NaN or infinity, raw bytes or large numbers that no Scale brings down; or if numbers of x or y that
    differ become one number of `dtype`, as time stamps do.
    """
    with np.errstate(all="ignore"):
        named = _named(x, net)
        came_x = {name: types.collect(name, part, backend) for name, part, _ in named}
        came_y = types.collect("y", y, backend)
        for name, part in came_x.items():
            if part.shape[0] != came_y.shape[0]:
                raise ShapeError(f"{name} has {part.shape[0]} samples, y has {came_y.shape[0]}: they must be as many")
        shape = shape_of(tuple(came_x.values()) if _several(x, net) else came_x["x"])
        output, check = net.output_shape(shape), check_of(loss)
        parts = tuple(_input(name, came_x[name], tokens, net, shape, backend, dtype) for name, _, tokens in named)
        x = parts if _several(x, net) else parts[0]
        if check is check_labels and not is_floating(home(came_y, backend).xp, came_y):
            return x, check(came_y, output, home(came_y, backend))
        y = types.settle("y", came_y, backend, dtype)
        if check is not None or is_floating(home(y, backend).xp, y):  # integers of a loss of one's own stay integers
            check_distinct("y", came_y, home(came_y, backend), dtype)
        return x, y if check is None else check(y, output, home(y, backend))


def _input(name: str, came: Array, tokens: int, net: Layer, shape: Shape, backend: Backend, dtype: str) -> Array:
    """Return one input checked."""
    x = types.settle(name, came, backend, dtype)
    if tokens:
        check_tokens(name, x, tokens, home(x, backend))
        return x
    check_distinct(name, came, home(came, backend), dtype)
    check_inputs(name, x, net, shape, home(x, backend))
    return x


def home(data: Array, backend: Backend) -> Backend:
    """Return the backend that computes where the data lie: NumPy for host data."""
    return find_backend("numpy") if isinstance(data, np.ndarray) else backend


def check_tokens(name: str, x: Array, tokens: int, backend: Backend) -> None:
    """Raise DataError unless an input, called by name, holds integers in 0..tokens−1."""
    must = f"{name} must hold tokens, integers in 0..{tokens - 1}" if tokens > 2 else f"{name} must hold 0 and 1"
    if is_floating(backend.xp, x):
        raise DataError(f"{must}, got {str(x.dtype).rpartition('.')[2]}: cast them, {name}.astype(int)")
    low, high = scan.extremes(x, backend)
    if low < 0 or high >= tokens:
        place = scan.first(x, lambda xp, x: (x < 0) | (x >= tokens), backend)
        assert place is not None
        raise DataError(f"{must}, got {scan.value(x, place, backend)} at {scan.where(place)}")


def check_inputs(name: str, x: Array, net: Layer, shape: Shape, backend: Backend) -> None:
    """Warn of an input, called by name, that holds NaN or infinity, or raw bytes, large numbers or columns of scales
    far apart and is not scaled.

    Bytes are whole numbers in 0..255, one above 100, at least 64 a sample: a table of small integers has fewer. Large
    is a magnitude above 1,000. Scale, Standardize or BatchNorm before the other layers with parameters answers them
    all; `shape` is all inputs'.
    """
    if scan.SILENT.get():
        return
    low, high = scan.extremes(x, backend)
    standard = f"standardise it, (x - x.mean(0)) / x.std(0), or put Standardize.fit({name}) first"
    if not scan.finite(low, high):
        place = scan.first(x, lambda xp, x: ~xp.isfinite(x), backend)
        assert place is not None
        scan.warn(f"{name} holds {scan.value(x, place, backend)} at {scan.where(place)}: clean the data")
    elif _scaled(net, shape):
        return
    elif low >= 0 and 100 < high <= 255 and prod(x.shape[1:]) >= PIXELS and _whole(x, backend):
        scan.warn("input holds raw bytes 0..255: add Scale(1/255) as the first layer")
    elif max(-low, high) > LARGE:
        extreme = high if high > -low else low
        place = scan.first(x, lambda xp, x: x == extreme, backend)
        assert place is not None
        scan.warn(f"{scan.column(name, place[1:])} reaches {extreme:g}, too large to train well: {standard}")
    elif x.ndim == 2 and is_floating(backend.xp, x) and (found := scan.far_apart(x, backend)):
        (wide, most), (narrow, least) = found
        what = f"column {wide} of {name} has a standard deviation of {most:.3g}, column {narrow} one of {least:.3g}"
        scan.warn(f"{what}, which will hardly train beside it: {standard}")


def _scaled(net: Layer, shape: tuple[int, ...]) -> bool:
    """Whether a layer that scales comes before any other with parameters."""
    for _, layer, _ in net.walk(shape):
        if isinstance(layer, SCALING) or layer.size:
            return isinstance(layer, SCALING)
    return False


def _whole(x: Array, backend: Backend) -> bool:
    """Whether all numbers are whole."""
    return not is_floating(backend.xp, x) or scan.first(x, lambda xp, x: xp.floor(x) != x, backend) is None


def check_settings(epochs: int, batch_size: int) -> tuple[int, int]:
    """Return both as Python integers; DataError unless there is something to do, a batch at a time."""
    return count("epochs", epochs), count("batch_size", batch_size)


def count(name: str, value: Any) -> int:
    """Return a setting that counts as a Python integer of at least 1; DataError for bool, floats and the rest."""
    try:
        number = 0 if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise DataError(f"{name} must be an integer of at least 1, got {value!r}")
    return number
