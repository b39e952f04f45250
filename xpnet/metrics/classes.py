"""Which class was predicted, and which is true: what a prediction means, row by row."""

import math
from typing import NamedTuple

from xpnet.arrays import Array, Namespace, cast, device, is_floating, namespace, wide
from xpnet.errors import ShapeError
from xpnet.losses.choices import counting, one_hot

NO_CLASS = -(2**31)
"""The class of a NaN."""


class Classes(NamedTuple):
    """The classes of R rows."""

    xp: Namespace
    predicted: Array
    """(R,)"""
    true: Array
    """(R,), of one type with the predicted."""
    known: Array
    """Whether the prediction is no NaN, (R,)."""
    counts: Array | None
    """Whether the row counts, (R,); None if all do."""


def classes_of(prediction: Array, target: Array, threshold: float, ignore_index: int | None) -> Classes:
    """Return the predicted and the true classes; they are booleans for one score a sample."""
    xp = namespace(prediction=prediction, target=target)
    scores, labels, counts = rows_of(xp, prediction, target, ignore_index)
    if scores.ndim == 2:
        scores = cast(xp, scores, wide(xp, scores))
        top, predicted = xp.max(scores, axis=1), xp.argmax(scores, axis=1)
    elif is_floating(xp, scores):
        true = cast(xp, labels, scores.dtype) > 0
        return Classes(xp, scores > float(threshold), true, scores == scores, counts)
    else:
        whole = xp.__array_namespace_info__().default_dtypes(device=device(scores))["integral"]
        top, predicted = scores, cast(xp, scores, whole)
    if is_floating(xp, labels):
        dtype = wide(xp, labels)
        return Classes(xp, xp.astype(predicted, dtype), cast(xp, labels, dtype), top == top, counts)
    return Classes(xp, predicted, cast(xp, labels, predicted.dtype), top == top, counts)


def rows_of(
    xp: Namespace, prediction: Array, target: Array, ignore_index: int | None
) -> tuple[Array, Array, Array | None]:
    """Return the rows of a prediction, (R, C) or (R,), their labels (R,), and whether they count, None if all do.

    ShapeError unless they fit.
    """
    scores, labels = _flat(xp, prediction), _flat(xp, target)
    if scores.ndim > 2 and scores.shape[:-1] == labels.shape:
        rows = math.prod(labels.shape)
        scores, labels = _flat(xp, xp.reshape(scores, (rows, scores.shape[-1]))), xp.reshape(labels, (rows,))
    if scores.ndim not in (1, 2) or labels.ndim != 1 or scores.shape[0] != labels.shape[0]:
        raise _misfit(tuple(prediction.shape), tuple(target.shape))
    if ignore_index is None:
        return scores, labels, None
    return scores, *counting(xp, labels, ignore_index)


def _flat(xp: Namespace, array: Array) -> Array:
    """Return (N,) of (N, 1), anything else as it is."""
    return xp.reshape(array, array.shape[:1]) if array.ndim == 2 and array.shape[1] == 1 else array


def _misfit(one: tuple[int, ...], other: tuple[int, ...]) -> ShapeError:
    """Return the error that says what scores and labels look like, and what these may have been meant for."""
    remedy = ""
    if one == other:
        remedy = ": one-hot labels become argmax(axis=1), several labels a sample are for binary_accuracy"
    return ShapeError(f"expected scores (N, C) and labels (N,), or one score a sample, got {one} and {other}{remedy}")


def number_of_classes(xp: Namespace, prediction: Array) -> int | None:
    """Return how many classes a prediction's shape and type tell of; None for class numbers, which do not."""
    if prediction.ndim >= 2 and prediction.shape[-1] > 1:
        return int(prediction.shape[-1])
    return 2 if xp.isdtype(prediction.dtype, ("bool", "real floating")) else None


def hot_rows(xp: Namespace, numbers: Array, classes: int) -> Array:
    """Return the boolean (R, C) array that is True at each row's class, which may be a boolean itself."""
    return one_hot(xp, cast(xp, numbers, xp.int32) if numbers.dtype == xp.bool else numbers, classes)
