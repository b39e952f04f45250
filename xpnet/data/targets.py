"""What each loss expects of its targets, checked where they lie, before training starts."""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import TypeAlias

import numpy as np

from xpnet import losses
from xpnet.arrays import Array, Namespace, is_floating
from xpnet.backends import Backend
from xpnet.data import scan
from xpnet.errors import DataError, ShapeError
from xpnet.losses.choices import checked
from xpnet.parameters import Shape

Check: TypeAlias = Callable[[Array, Shape, Backend], Array]
"""`check(y, output_shape, backend) -> y`, in the form that the loss takes; DataError or ShapeError."""


def check_labels(
    y: Array, output: Shape, backend: Backend, ignore_index: int | None = None, soft: bool = True
) -> Array:
    """Return class labels as int32, one for each row of the output (…, C): integers in 0..C−1, or `ignore_index`.

    A last axis of length 1 is none. If `soft`, floats in the shape of the output are taken for probabilities.
    """
    xp, classes = backend.xp, output[-1]
    expected = f"labels must be integers in 0..{classes - 1}" + ("" if ignore_index is None else f" or {ignore_index}")
    if classes == 1:
        remedy = "use binary_cross_entropy, or give the network 2 outputs"
        raise DataError(f"labels choose between outputs, and the network has one, with nothing to choose: {remedy}")
    if soft and tuple(y.shape) == output and is_floating(xp, y):
        if ignore_index is not None:
            raise DataError(f"{expected}, got probabilities {output}, which have none to ignore: pass class numbers")
        y = check_probabilities(y, output, backend)
        return y if y.dtype in (xp.float32, xp.float64) else xp.astype(y, xp.float32)
    if y.ndim == len(output) and y.shape[-1] == 1:
        y = xp.reshape(y, y.shape[:-1])
    if tuple(y.shape) != output[:-1]:
        raise DataError(_misshapen(tuple(y.shape), output))
    if is_floating(xp, y):
        place = scan.first(y, lambda xp, y: xp.floor(y) != y, backend)
        if place is not None:
            came = f"{scan.value(y, place, backend)} at {scan.where(place)}"
            raise DataError(f"{expected}, got {came}: clean them, or use a loss for numbers, mean_squared_error")
        raise DataError(f"{expected}, got {y.dtype}: convert them with astype(int)")
    low, high = scan.extremes(y, backend)
    if low < 0 or high >= classes:
        kind = xp.iinfo(y.dtype)
        most = min(classes - 1, int(kind.max))  # of the labels' own type, in which it is compared
        known = ignore_index is not None and kind.min <= ignore_index <= kind.max
        spare = ignore_index if known else most
        place = scan.first(y, lambda xp, y: ((y < 0) | (y > most)) & (y != spare), backend)
        if place is not None:
            raise DataError(f"{expected}, got {scan.value(y, place, backend)} at {scan.where(place)}")
    return xp.astype(y, xp.int32, copy=False)


def _misshapen(came: Shape, output: Shape) -> str:
    """Say what shape labels must have."""
    if len(output) == 2:
        remedy = "make it 1-d; one-hot by argmax(axis=1)"
        return f"labels must be one integer a sample, (N,), got the shape {came}: {remedy}"
    remedy = "one-hot by argmax(axis=-1)" if came == output else f"the network gives {output}, the classes last"
    return f"labels must be one integer a position, {output[:-1]}, got the shape {came}: {remedy}"


def check_probabilities(y: Array, output: Shape, backend: Backend) -> Array:
    """Return probabilities of the classes, in the shape of the output: 0 to 1, and a row of them adds up to 1."""
    if tuple(y.shape) != output:
        remedy = "one-hot is np.eye(C)[labels]"
        raise DataError(f"targets must be probabilities {output}, got the shape {tuple(y.shape)}: {remedy}")
    wrong = scan.first(y, lambda xp, y: ~((y >= 0) & (y <= 1)), backend)
    y = _right(y, wrong, "targets of the output's shape are probabilities and must lie in 0..1", backend)
    place = scan.first(y, lambda xp, y: (xp.abs(_sums(xp, y) - 1) > ROUNDING) & (y == y), backend)
    if place is not None:
        total = float(backend.asnumpy(_sums(backend.xp, y[place[:-1]])[0]))
        remedy = "divide by the sum, or use binary_cross_entropy for several labels a sample"
        raise DataError(f"probabilities must add up to 1, got {total:g} at {scan.where(place[:-1])}: {remedy}")
    return y


ROUNDING = 1e-2
"""How far from 1 the sum of probabilities may be: they may have come as half-precision numbers."""


def _sums(xp: Namespace, y: Array) -> Array:
    return xp.sum(y, axis=-1, keepdims=True, dtype=xp.float32)


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


def check_counts(y: Array, output: Shape, backend: Backend) -> Array:
    """Return counts, 0 or more, in the shape of the output."""
    y = check_numbers(y, output, backend)
    return _right(y, scan.first(y, lambda xp, y: y < 0, backend), "counts must be 0 or more", backend)


TARGETS: dict[losses.Loss, Check] = {
    losses.cross_entropy: check_labels,
    losses.negative_log_likelihood: check_labels,
    losses.focal: partial(check_labels, soft=False),
    losses.kl_divergence: check_probabilities,
    losses.binary_cross_entropy: check_binary,
    losses.hinge: check_signs,
    losses.perceptron: check_signs,
    losses.mean_squared_error: check_numbers,
    losses.mean_absolute_error: check_numbers,
    losses.huber: check_numbers,
    losses.poisson: check_counts,
}
"""What each loss expects of its targets; a loss of your own checks for itself."""


def check_of(loss: losses.Loss) -> Check | None:
    """Return what checks this loss's targets; of a partial's settings `ignore_index` matters. None for one's own."""
    ignored = getattr(loss, "keywords", {}).get("ignore_index")
    loss = getattr(loss, "func", loss)
    check = next((check for known, check in TARGETS.items() if known is loss), None)
    if ignored is None or getattr(check, "func", check) is not check_labels:
        return check
    return partial(check_labels, ignore_index=checked(ignored), soft=check is check_labels)


def check_distinct(name: str, data: Array, backend: Backend, dtype: str) -> None:
    """Warn of the column that loses most of its distinct values when its numbers become `dtype`, if that is 1 in 10.

    So time stamps do in float32, which has 24 bits: near 1.7e9 its numbers are 128 apart. About a thousand rows and
    columns are looked at, on the host; data of that type, or of small integers, not at all.
    """
    xp, wanted = backend.xp, getattr(backend.xp, dtype)
    bits = 2 * xp.iinfo(data.dtype).bits if xp.isdtype(data.dtype, "integral") else xp.finfo(data.dtype).bits
    if bits <= xp.finfo(wanted).bits or scan.SILENT.get():
        return
    sample = scan.some(data, backend)
    before, after = _distinct(sample), _distinct(sample.astype(dtype))
    worst = int(np.argmin(after / before))
    if after[worst] < 0.9 * before[worst]:
        shape = tuple(data.shape[1:])
        place = tuple(int(k) for k in np.unravel_index(scan.columns_of(prod(shape))[worst], shape))
        counts = f"{before[worst]} distinct values become {after[worst]} as {dtype}"
        remedy = ', or make the model with dtype="float64"' if dtype == "float32" else ""
        scan.warn(f"{scan.column(name, place)}: {counts}: subtract an offset{remedy}")


def _distinct(columns: np.ndarray) -> np.ndarray:
    """Return how many distinct values each column holds."""
    ordered = np.sort(columns, axis=0)
    return np.asarray(1 + np.count_nonzero(ordered[1:] != ordered[:-1], axis=0))
