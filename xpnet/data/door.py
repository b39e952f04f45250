"""The door for data: what is checked, and how it comes onto the device.

Everything is checked once, before training starts, so that no step has to. Data that lies on the device already stays
there; host data travels once, bytes as bytes.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from xpnet import losses
from xpnet.arrays import Array, describe, is_floating
from xpnet.backends import LIBRARIES, Backend, library_of
from xpnet.backends import backend as find_backend
from xpnet.errors import DataError, DataWarning, ShapeError
from xpnet.layers import Layer, Scale
from xpnet.parameters import Shape

UNUSUAL = {"bool": "uint8", "uint16": "int32", "uint32": "int64", "uint64": "int64"}
"""Types of numbers that not every library computes with, and what becomes of them."""


def read(name: str, data: Any, backend: Backend, dtype: str) -> Array:
    """Return data as an array, where it lies: floats as `dtype`, integers as they are; `name` is for the messages."""
    library = library_of(data)
    if library != "numpy" and backend.owns(data):
        if is_floating(backend.xp, data) and data.dtype != getattr(backend.xp, dtype):
            data = backend.xp.astype(data, getattr(backend.xp, dtype))
    elif library in LIBRARIES and library != "numpy":
        remedy = "on that device" if library == backend.name else f"with backend={library!r}"
        raise TypeError(
            f"{name} is {describe(data)}, but the model is on {backend.name} {backend.device}: "
            f"pass a NumPy array, or make the model {remedy}"
        )
    else:
        data = np.asarray(data)
        if data.dtype.kind not in "biuf":
            raise DataError(f"{name} must hold numbers, got {data.dtype}: encode it first")
        kind = dtype if data.dtype.kind == "f" else UNUSUAL.get(data.dtype.name, data.dtype)
        data = data.astype(kind, copy=False)
    if data.ndim == 0 or data.shape[0] == 0:
        raise DataError(f"{name} is empty: it has the shape {tuple(data.shape)}, one sample a row is expected")
    return data


def place(name: str, data: Any, backend: Backend, dtype: str) -> Array:
    """Return data as an array of the backend: floats as `dtype`, integers as they are; `name` is for the messages."""
    return _put(read(name, data, backend, dtype), backend)


def _put(data: Array, backend: Backend) -> Array:
    """Put host data on the device; what lies there already stays."""
    return backend.asarray(data) if isinstance(data, np.ndarray) else data


def admit(x: Any, y: Any, net: Layer, loss: losses.Loss, backend: Backend, dtype: str) -> tuple[Array, Array]:
    """Return inputs and targets, checked where they lie and placed; an error says what is wrong, where, what to do.

    DataError, ShapeError or TypeError; DataWarning if the inputs hold NaN or infinity, or raw bytes that no Scale
    brings down.
    """
    x, y = read("x", x, backend, dtype), read("y", y, backend, dtype)
    if x.shape[0] != y.shape[0]:
        raise ShapeError(f"x has {x.shape[0]} samples, y has {y.shape[0]}: they must be as many")
    output = net.output_shape(tuple(x.shape))
    check_inputs(x, net, _home(x, backend))
    if loss in TARGETS:
        y = TARGETS[loss](y, output, _home(y, backend))
    return _put(x, backend), _put(y, backend)


def _home(data: Array, backend: Backend) -> Backend:
    """Return the backend that computes where the data lie: NumPy for host data."""
    return find_backend("numpy") if isinstance(data, np.ndarray) else backend


def check_inputs(x: Array, net: Layer, backend: Backend) -> None:
    """Warn of inputs that hold NaN or infinity, naming the first, or that look like bytes and are not scaled."""
    xp, home = backend.xp, backend.asnumpy
    floating = is_floating(xp, x)
    if floating:
        finite = xp.isfinite(x)
        if not home(xp.all(finite)):
            place = np.unravel_index(_first(~finite, backend), x.shape)
            value = home(x[tuple(int(k) for k in place)])
            warnings.warn(f"x holds {value} at {_where(place)}: clean the data", DataWarning, stacklevel=4)
            return
    if any(isinstance(layer, Scale) for _, layer, _ in net.walk(tuple(x.shape))):
        return
    low, high = home(xp.min(x)), home(xp.max(x))
    if low >= 0 and 100 < high <= 255 and (not floating or home(xp.all(xp.floor(x) == x))):
        text = "input holds raw bytes 0..255: add Scale(1/255) as the first layer"
        warnings.warn(text, DataWarning, stacklevel=4)


def check_labels(y: Array, output: Shape, backend: Backend) -> Array:
    """Return class labels as int32; they must be integers (N,) in 0..C−1, C the number of outputs."""
    xp, classes = backend.xp, output[-1]
    if y.ndim != 1:
        came = f"the shape {tuple(y.shape)}"
        raise DataError(
            f"labels must be one integer a sample, (N,), got {came}: make it 1-d; one-hot by argmax(axis=1)"
        )
    if not xp.isdtype(y.dtype, "integral"):
        raise DataError(f"labels must be integers in 0..{classes - 1}, got {y.dtype}: convert them with astype(int)")
    wrong = (y < 0) | (y > min(classes - 1, int(xp.iinfo(y.dtype).max)))
    if backend.asnumpy(xp.any(wrong)):
        row = _first(wrong, backend)
        raise DataError(f"labels must be integers in 0..{classes - 1}, got {backend.asnumpy(y[row])} at row {row}")
    return xp.astype(y, xp.int32, copy=False)


def check_numbers(y: Array, output: Shape, backend: Backend) -> Array:
    """Return regression targets in the shape of the output; (N,) is taken for (N, 1)."""
    if y.ndim == 1 and output == (y.shape[0], 1):
        y = backend.xp.reshape(y, output)
    if tuple(y.shape) != output:
        raise ShapeError(f"y has the shape {tuple(y.shape)}, the network's output {output}: make them the same")
    if is_floating(backend.xp, y):
        wrong = ~backend.xp.isfinite(y)
        if backend.asnumpy(backend.xp.any(wrong)):
            place = np.unravel_index(_first(wrong, backend), y.shape)
            warnings.warn(f"y is not finite at {_where(place)}: clean the data", DataWarning, stacklevel=5)
    return y


def check_binary(y: Array, output: Shape, backend: Backend) -> Array:
    """Return targets of the logistic loss, 0 to 1, in the shape of the output."""
    y = check_numbers(y, output, backend)
    return _within(y, (y < 0) | (y > 1), "targets must lie in 0..1", backend)


def check_signs(y: Array, output: Shape, backend: Backend) -> Array:
    """Return targets of the hinge loss, −1 or +1, in the shape of the output."""
    if backend.xp.isdtype(y.dtype, "unsigned integer"):
        y = backend.xp.astype(y, backend.xp.int32)
    y = check_numbers(y, output, backend)
    return _within(y, (y != -1) & (y != 1), "targets must be -1 or +1", backend)


TARGETS: dict[losses.Loss, Callable[[Array, Shape, Backend], Array]] = {
    losses.cross_entropy: check_labels,
    losses.negative_log_likelihood: check_labels,
    losses.binary_cross_entropy: check_binary,
    losses.hinge: check_signs,
    losses.perceptron: check_signs,
    losses.mean_squared_error: check_numbers,
    losses.mean_absolute_error: check_numbers,
    losses.huber: check_numbers,
}
"""What each loss expects of its targets; a loss of your own checks for itself."""


def _within(y: Array, wrong: Array, expected: str, backend: Backend) -> Array:
    if backend.asnumpy(backend.xp.any(wrong)):
        place = np.unravel_index(_first(wrong, backend), y.shape)
        value = backend.asnumpy(y[tuple(int(k) for k in place)])
        raise DataError(f"{expected}, got {value} at {_where(place)}")
    return y


def _first(mask: Array, backend: Backend) -> int:
    """Return the flat index of the first True."""
    xp = backend.xp
    return int(backend.asnumpy(xp.argmax(xp.astype(xp.reshape(mask, (-1,)), xp.int8))))


def _where(place: tuple[Any, ...]) -> str:
    """Say where an element stands: `row 3, column 5`."""
    row, *rest = (int(k) for k in place)
    return f"row {row}" + (f", column {rest[0]}" if len(rest) == 1 else f", place {tuple(rest)}" if rest else "")


def check_settings(epochs: int, batch_size: int) -> None:
    """Raise DataError unless there is something to do, a batch at a time."""
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        if not isinstance(value, (int, np.integer)) or value < 1:
            raise DataError(f"{name} must be an integer of at least 1, got {value!r}")
