"""What each loss expects of its targets, checked where they lie, before training starts."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from xpnet import losses
from xpnet.arrays import Array, is_floating
from xpnet.backends import Backend
from xpnet.data import scan
from xpnet.errors import DataError, ShapeError
from xpnet.parameters import Shape

Check: TypeAlias = Callable[[Array, Shape, Backend], Array]
"""`check(y, output_shape, backend) -> y`, in the form that the loss takes; DataError or ShapeError."""


def check_labels(y: Array, output: Shape, backend: Backend) -> Array:
    """Return class labels as int32; they must be integers (N,) or (N, 1) in 0..C−1, C the number of outputs."""
    xp, classes = backend.xp, output[-1]
    expected = f"labels must be integers in 0..{classes - 1}"
    if classes == 1:
        remedy = "use binary_cross_entropy, or give the network 2 outputs"
        raise DataError(f"labels choose between outputs, and the network has one, with nothing to choose: {remedy}")
    if y.ndim == 2 and y.shape[1] == 1:
        y = xp.reshape(y, (-1,))
    if y.ndim != 1:
        came = f"the shape {tuple(y.shape)}"
        raise DataError(
            f"labels must be one integer a sample, (N,), got {came}: make it 1-d; one-hot by argmax(axis=1)"
        )
    if is_floating(xp, y):
        place = scan.first(y, lambda xp, y: xp.floor(y) != y, backend)
        if place is not None:
            came = f"{scan.value(y, place, backend)} at {scan.where(place)}"
            raise DataError(f"{expected}, got {came}: clean them, or use a loss for numbers, mean_squared_error")
        raise DataError(f"{expected}, got {y.dtype}: convert them with astype(int)")
    low, high = scan.extremes(y, backend)
    if low < 0 or high >= classes:
        most = min(classes - 1, int(xp.iinfo(y.dtype).max))  # of the labels' own type, in which it is compared
        row = scan.first(y, lambda xp, y: (y < 0) | (y > most), backend)
        assert row is not None
        raise DataError(f"{expected}, got {scan.value(y, row, backend)} at {scan.where(row)}")
    return xp.astype(y, xp.int32, copy=False)


def check_numbers(y: Array, output: Shape, backend: Backend) -> Array:
    """Return regression targets in the shape of the output; (N,) is taken for (N, 1)."""
    if y.ndim == 1 and output == (y.shape[0], 1):
        y = backend.xp.reshape(y, output)
    if tuple(y.shape) != output:
        raise ShapeError(f"y has the shape {tuple(y.shape)}, the network's output {output}: make them the same")
    if not scan.finite(*scan.extremes(y, backend)):
        place = scan.first(y, lambda xp, y: ~xp.isfinite(y), backend)
        assert place is not None
        scan.warn(f"y is not finite at {scan.where(place)}: clean the data")
    return y


def check_binary(y: Array, output: Shape, backend: Backend) -> Array:
    """Return targets of the logistic loss, 0 to 1, in the shape of the output."""
    y = check_numbers(y, output, backend)
    wrong = scan.first(y, lambda xp, y: (y < 0) | (y > 1), backend)
    return _right(y, wrong, "targets must lie in 0..1", backend)


def check_signs(y: Array, output: Shape, backend: Backend) -> Array:
    """Return targets of the hinge loss, −1 or +1, in the shape of the output."""
    if backend.xp.isdtype(y.dtype, "unsigned integer"):
        y = backend.xp.astype(y, backend.xp.int32)
    y = check_numbers(y, output, backend)
    wrong = scan.first(y, lambda xp, y: (y != -1) & (y != 1), backend)
    return _right(y, wrong, "targets must be -1 or +1", backend)


def _right(y: Array, wrong: scan.Place | None, expected: str, backend: Backend) -> Array:
    if wrong is not None:
        raise DataError(f"{expected}, got {scan.value(y, wrong, backend)} at {scan.where(wrong)}")
    return y


TARGETS: dict[losses.Loss, Check] = {
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


def check_of(loss: losses.Loss) -> Check | None:
    """Return what checks this loss's targets; the settings of a partial are no matter. None for one of your own."""
    loss = getattr(loss, "func", loss)
    return next((check for known, check in TARGETS.items() if known is loss), None)


RUNS, RUN = 32, 32
"""How many rows are looked at for numbers that become one: runs of rows, since neighbours in time are neighbours."""


def check_distinct(name: str, data: Array, backend: Backend, dtype: str) -> None:
    """Warn of the column that loses most of its distinct values when its numbers become `dtype`, if that is 1 in 10.

    So time stamps do in float32, which has 24 bits: near 1.7e9 its numbers are 128 apart. About a thousand rows and
    columns are looked at, on the host; data of that type, or of small integers, not at all.
    """
    xp, wanted = backend.xp, getattr(backend.xp, dtype)
    bits = 2 * xp.iinfo(data.dtype).bits if xp.isdtype(data.dtype, "integral") else xp.finfo(data.dtype).bits
    if bits <= xp.finfo(wanted).bits:
        return
    starts = np.linspace(0, max(0, data.shape[0] - RUN), RUNS).astype(np.int32)
    rows = np.unique(starts[:, None] + np.arange(RUN, dtype=np.int32))
    rows = rows[rows < data.shape[0]]
    host = isinstance(data, np.ndarray)
    sample = data[rows] if host else backend.asnumpy(xp.take(data, backend.asarray(rows), axis=0))
    flat = sample.reshape(len(rows), -1)
    columns = np.unique(np.linspace(0, flat.shape[1] - 1, 1024).astype(int))
    before, after = _distinct(flat[:, columns]), _distinct(flat[:, columns].astype(dtype))
    worst = int(np.argmin(after / before))
    if after[worst] < 0.9 * before[worst]:
        place = tuple(int(k) for k in np.unravel_index(columns[worst], sample.shape[1:]))
        counts = f"{before[worst]} distinct values become {after[worst]} as {dtype}"
        remedy = ', or make the model with dtype="float64"' if dtype == "float32" else ""
        scan.warn(f"{scan.column(name, place)}: {counts}: subtract an offset{remedy}")


def _distinct(columns: np.ndarray) -> np.ndarray:
    """Return how many distinct values each column holds."""
    ordered = np.sort(columns, axis=0)
    return np.asarray(1 + np.count_nonzero(ordered[1:] != ordered[:-1], axis=0))
