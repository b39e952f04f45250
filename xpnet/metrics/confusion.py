"""Which class was taken for which: the confusion matrix."""

import math

from xpnet.arrays import Array, Namespace, cast, device, wide
from xpnet.backends import backend_of
from xpnet.errors import DataError
from xpnet.metrics.base import counted_weights
from xpnet.metrics.classes import NO_CLASS, classes_of, number_of_classes

PIECE = 2**24
"""Samples up to which a count in float32 is exact."""


def confusion_matrix(
    prediction: Array,
    target: Array,
    classes: int | None = None,
    threshold: float = 0.0,
    *,
    weights: Array | None = None,
    ignore_index: int | None = None,
) -> Array:
    """How often the label i (row) was predicted as j (column): integers (C, C).

    `classes` is C: if it is left out, the number of columns of the prediction, 2 for one score a sample, and for class
    numbers the largest of them and 1. DataError names the first that is no class; it is looked for on the host.
    With `weights` each sample counts its weight: real numbers, of the wider type of weights and prediction.
    """
    xp, predicted, true, known, counts = classes_of(prediction, target, threshold, ignore_index)
    if predicted.dtype == xp.bool:
        predicted, true = xp.astype(predicted, xp.int32), xp.astype(true, xp.int32)
    samples, whole = true.shape[0], weights is None
    w = counted_weights(xp, prediction, weights, samples, counts, xp.float32 if whole else wide(xp, prediction))
    predicted = xp.where(known, predicted, NO_CLASS)
    if w is not None:
        predicted, true = xp.where(w == 0, 0, predicted), xp.where(w == 0, 0, true)
    if classes is None:
        classes = _count(xp, prediction, predicted, true)
    dtype = xp.int32 if w is None or whole else w.dtype
    matrix = xp.zeros((classes, classes), dtype=dtype, device=device(prediction))
    for start in range(0, samples, PIECE):
        piece = slice(start, min(start + PIECE, samples))
        rows = _one_hot(xp, "target", true[piece], classes, start)
        columns = _one_hot(xp, "prediction", predicted[piece], classes, start)
        if w is not None:
            rows, columns = cast(xp, rows, w.dtype), cast(xp, columns, w.dtype) * w[piece][:, None]
        matrix += cast(xp, rows.T @ columns, dtype)
    return matrix


def _count(xp: Namespace, prediction: Array, *numbers: Array) -> int:
    """Return how many classes there are: as many as the prediction's shape says, else by the largest number."""
    known = number_of_classes(xp, prediction)
    if known is not None:
        return known
    largest = [float(backend_of(c).asnumpy(xp.max(c))) for c in numbers if c.shape[0]]
    return 1 + int(max((number for number in largest if math.isfinite(number)), default=0))


def _one_hot(xp: Namespace, name: str, numbers: Array, classes: int, start: int) -> Array:
    """Return 1 at each row's class, (N, C), float32; DataError for a row that has none, `start` the number of row 0."""
    hot = numbers[:, None] == xp.arange(classes, dtype=numbers.dtype, device=device(numbers))[None, :]
    lost, home = xp.sum(xp.astype(hot, xp.int32), axis=1) == 0, backend_of(numbers).asnumpy
    if home(xp.sum(xp.astype(lost, xp.int32))):
        row = int(home(xp.argmax(xp.astype(lost, xp.int8))))
        came = float(home(numbers[row]))
        text = "NaN" if came == NO_CLASS else f"{came:.15g}"
        raise DataError(f"the {name} must be a class in 0..{classes - 1}, got {text} at row {start + row}")
    return xp.astype(hot, xp.float32)
