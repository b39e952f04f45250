"""What every class counts alike in, however rare it is: balanced accuracy, precision, recall, F1."""

import operator
from typing import Any

from xpnet.arrays import Array, Namespace, namespace, wide
from xpnet.metrics.base import counted_weights, mean_of_each, relative
from xpnet.metrics.classes import classes_of, hot_rows, number_of_classes


def balanced_accuracy(
    prediction: Array,
    target: Array,
    threshold: float = 0.0,
    *,
    classes: int | None = None,
    weights: Array | None = None,
    ignore_index: int | None = None,
) -> Array:
    """The mean recall of the classes that occur in the target: 1/C for guessing, however rare a class is.

    `threshold` and `classes` are those of `f1`. (Brodersen et al., ICPR 2010)
    """
    settings: dict[str, Any] = {"classes": classes, "weights": weights, "ignore_index": ignore_index}
    return mean_recall(class_shares(prediction, target, threshold, **settings))


def precision(
    prediction: Array,
    target: Array,
    threshold: float = 0.0,
    *,
    average: str | int = "macro",
    classes: int | None = None,
    weights: Array | None = None,
    ignore_index: int | None = None,
) -> Array:
    """What is predicted as a class and is of it, as a share of what is predicted as it: TP / (TP + FP).

    The settings are those of `f1`.
    """
    settings: dict[str, Any] = {"classes": classes, "weights": weights, "ignore_index": ignore_index}
    return precision_of(class_shares(prediction, target, threshold, **settings), average)


def recall(
    prediction: Array,
    target: Array,
    threshold: float = 0.0,
    *,
    average: str | int = "macro",
    classes: int | None = None,
    weights: Array | None = None,
    ignore_index: int | None = None,
) -> Array:
    """What is predicted as a class and is of it, as a share of what is of it: TP / (TP + FN).

    The settings are those of `f1`.
    """
    settings: dict[str, Any] = {"classes": classes, "weights": weights, "ignore_index": ignore_index}
    return recall_of(class_shares(prediction, target, threshold, **settings), average)


def f1(
    prediction: Array,
    target: Array,
    threshold: float = 0.0,
    *,
    average: str | int = "macro",
    classes: int | None = None,
    weights: Array | None = None,
    ignore_index: int | None = None,
) -> Array:
    """The harmonic mean of precision and recall: 2 TP / (2 TP + FP + FN). (van Rijsbergen 1979, chapter 7)

    `average` is "macro", the mean over the classes that occur in the target or are predicted; "micro", that of all
    their counts together; or a class number, that class alone: 1 is scikit-learn's "binary". 0/0 is 0.
    `threshold` is for one score a sample: 0.5 where the predictions are probabilities. `classes`, the number of them,
    is needed only where predictions are class numbers. A NaN is predicted as no class; a label that is none is missed.
    """
    settings: dict[str, Any] = {"classes": classes, "weights": weights, "ignore_index": ignore_index}
    return f1_of(class_shares(prediction, target, threshold, **settings), average)


def class_shares(
    prediction: Array,
    target: Array,
    threshold: float = 0.0,
    *,
    classes: int | None = None,
    weights: Array | None = None,
    ignore_index: int | None = None,
) -> Array:
    """Three shares of all samples for each class, (3, C): of it and predicted as it; predicted as it; of it.

    They are means over samples, of which precision, recall, F1 and balanced accuracy are made.
    """
    found = classes_of(prediction, target, threshold, ignore_index)
    xp, dtype = found.xp, wide(found.xp, prediction)
    number = number_of_classes(xp, prediction) if classes is None else operator.index(classes)
    if number is None:
        raise ValueError("class numbers do not say how many classes there are: pass classes=")
    w = counted_weights(xp, prediction, weights, found.true.shape[0], found.counts, dtype)
    predicted = hot_rows(xp, found.predicted, number) & found.known[:, None]
    true = hot_rows(xp, found.true, number)
    w = relative(xp, w, dtype)
    return xp.stack([mean_of_each(xp, xp.astype(hot, dtype), w) for hot in (predicted & true, predicted, true)])


def mean_recall(shares: Array) -> Array:
    """Return the mean recall of the classes that occur in the target."""
    xp, hits, _, true = _parts(shares)
    return _macro(xp, hits, true, true)


def precision_of(shares: Array, average: str | int = "macro") -> Array:
    """Return the precision of class shares (3, C)."""
    xp, hits, predicted, true = _parts(shares)
    return _averaged(xp, hits, predicted, predicted + true, average)


def recall_of(shares: Array, average: str | int = "macro") -> Array:
    """Return the recall of class shares (3, C)."""
    xp, hits, predicted, true = _parts(shares)
    return _averaged(xp, hits, true, predicted + true, average)


def f1_of(shares: Array, average: str | int = "macro") -> Array:
    """Return the F1 of class shares (3, C)."""
    xp, hits, predicted, true = _parts(shares)
    return _averaged(xp, 2.0 * hits, predicted + true, predicted + true, average)


def _parts(shares: Array) -> tuple[Namespace, Array, Array, Array]:
    return namespace(shares=shares), shares[0, ...], shares[1, ...], shares[2, ...]


def _averaged(xp: Namespace, hits: Array, of: Array, occurs: Array, average: str | int) -> Array:
    """Return the hits as a share of what they are of, all classes together, by themselves, or one."""
    if average == "macro":
        return _macro(xp, hits, of, occurs)
    if average == "micro":
        return _ratio(xp, xp.sum(hits), xp.sum(of))
    classes = hits.shape[0]
    if isinstance(average, (bool, str)) or not hasattr(average, "__index__") or not 0 <= average < classes:
        raise ValueError(f'average must be "macro", "micro" or a class in 0..{classes - 1}, got {average!r}')
    return _ratio(xp, hits[operator.index(average)], of[operator.index(average)])


def _macro(xp: Namespace, hits: Array, of: Array, occurs: Array) -> Array:
    """Return the mean over the classes that occur."""
    there = xp.astype(occurs != 0, hits.dtype)
    return _ratio(xp, xp.sum(_ratio(xp, hits, of) * there), xp.sum(there))


def _ratio(xp: Namespace, part: Array, whole: Array) -> Array:
    """Return the quotient, 0 for 0/0."""
    return part / xp.where(whole == 0, 1.0, whole)
