"""Scores (…, C) and which of the C is right: as rows, with the share of each in the mean.

Labels are class numbers (…), or probabilities (…, C), which are floating-point numbers. Axes but the last are rows.
"""

import math
import operator
from typing import Any

from xpnet.arrays import Array, Namespace, cast, device, is_floating, namespace, wide, widest
from xpnet.backends import backend_of, library_of
from xpnet.errors import DataError, ShapeError
from xpnet.losses.base import check_weights, weighed


def choices(
    xp: Namespace,
    scores: Array,
    labels: Array,
    weights: Array | None = None,
    ignore_index: int | None = None,
    class_weight: Any = None,
) -> tuple[Array, Array, Any]:
    """Return the scores as numbers (R, C), the boolean (R, C) array that is True at each row's label, and the share of
    each row in the mean over those that count.
    """
    check_choices(xp, scores, labels)
    rows, classes = math.prod(labels.shape), scores.shape[-1]
    s, labels = as_rows(xp, scores, labels, rows) if scores.ndim > 2 else (cast(xp, scores, wide(xp, scores)), labels)
    if weights is None and ignore_index is None and class_weight is None:
        return s, one_hot(xp, labels, classes), 1.0 / max(rows, 1)
    labels, weights = present(xp, scores, s, labels, weights, ignore_index)
    if class_weight is not None:
        weights = weights * of_labels(xp, class_weights(xp, class_weight, s, s.shape[1], s.dtype), labels)
    s, labels, share = weighed(xp, s, labels, rows, weights)
    return s, one_hot(xp, labels, classes), share


def shares(
    xp: Namespace,
    scores: Array,
    labels: Array,
    weights: Array | None = None,
    ignore_index: int | None = None,
    class_weight: Any = None,
    smoothing: float = 0.0,
) -> tuple[Array, Array, Any, Array | None]:
    """Return the scores as numbers (R, C), what each class of a row counts (R, C), the share of each row in the mean,
    and for class numbers where each row's label is, (R, C).

    A class counts its probability t, or its part of the one label, blended to (1 − ε) t + ε/C, times its weight.
    """
    soft = labels.shape == scores.shape and is_floating(xp, labels)
    check_choices(xp, scores, labels, soft)
    if soft and ignore_index is not None:
        raise DataError("ignore_index is for class numbers, but the labels are probabilities: use weights")
    hot, rows, classes = None, math.prod(scores.shape[:-1]), scores.shape[-1]
    s, labels = as_rows(xp, scores, labels, rows)
    share: Any = 1.0 / max(rows, 1)
    per_class = None
    if class_weight is not None:
        per_class = class_weights(xp, class_weight, s, classes, s.dtype, relative=not soft)
    if weights is not None or ignore_index is not None or (per_class is not None and not soft):
        labels, weights = present(xp, scores, s, labels, weights, ignore_index)
        factor = None if per_class is None or soft else of_labels(xp, per_class, labels)
        s, labels, share = weighed(xp, s, labels, rows, weights, factor)
    if not soft:
        labels = hot = one_hot(xp, labels, classes)
    t = cast(xp, labels, s.dtype)
    if smoothing:
        t = t * (1.0 - smoothing) + smoothing / classes
    return s, t if per_class is None else t * per_class, share, hot


def as_rows(xp: Namespace, scores: Array, labels: Array, rows: int) -> tuple[Array, Array]:
    """Return scores (R, C) as numbers, and labels (R,) or (R, C)."""
    if scores.ndim > 2:
        tail = scores.shape[-1:] if labels.ndim == scores.ndim else ()
        scores, labels = xp.reshape(scores, (rows, scores.shape[-1])), xp.reshape(labels, (rows, *tail))
    return cast(xp, scores, wide(xp, scores)), labels


def one_hot(xp: Namespace, labels: Array, classes: int) -> Array:
    """Return the boolean (R, C) array that is True at each row's label."""
    if classes > 128 and labels.dtype in (xp.int8, xp.uint8, xp.int16, xp.uint16):
        labels = xp.astype(labels, xp.int32)  # their numbers may not reach the last class
    number = xp.arange(classes, dtype=labels.dtype, device=device(labels))
    return labels[:, None] == number[None, :]  # the standard has no scatter


def present(
    xp: Namespace, scores: Array, s: Array, labels: Array, weights: Array | None, ignore_index: int | None
) -> tuple[Array, Array]:
    """Return the labels of the rows, and each row's weight (R,): that of its sample, 0 where the label is ignored."""
    rows, n = s.shape[0], scores.shape[0]
    if weights is None:
        weights = xp.ones(rows, dtype=s.dtype, device=device(s))
    else:
        check_weights(scores, weights)
        weights = cast(xp, weights, xp.result_type(wide(xp, weights), s.dtype))
        if rows != n:
            weights = xp.reshape(xp.broadcast_to(weights[:, None], (n, rows // max(n, 1))), (rows,))
    if ignore_index is not None:
        labels, counts = counting(xp, labels, ignore_index)
        weights = xp.where(counts, weights, 0.0)
    return labels, weights


def counting(xp: Namespace, labels: Array, ignore_index: int) -> tuple[Array, Array]:
    """Return the labels in a signed type, which can be compared with a negative number, and whether each counts."""
    ignored = checked(ignore_index)
    if labels.dtype not in (xp.int32, xp.int64) and not is_floating(xp, labels):
        labels = xp.astype(labels, xp.int32 if xp.iinfo(labels.dtype).bits < 32 else xp.int64)
    return labels, labels != ignored


def counted(
    target: Array, ignore_index: int | None = None, class_weight: Any = None, weights: Array | None = None
) -> Array | int:
    """Return what a mean over a batch of such targets is divided by, but for a factor that is that of all batches."""
    xp = namespace(target=target)
    class_weight = None if is_floating(xp, target) else class_weight  # of probabilities, rows are counted
    if ignore_index is None and class_weight is None:
        return int(target.shape[0]) if weights is None else xp.sum(weights)
    labels = xp.reshape(target, (math.prod(target.shape),))
    counts = xp.ones(labels.shape, dtype=xp.bool, device=device(labels))
    if ignore_index is not None:
        labels, counts = counting(xp, labels, ignore_index)
    if class_weight is None and weights is None:
        return xp.sum(xp.astype(counts, xp.int32))
    dtype = widest(xp, labels) if weights is None else weights.dtype
    own: Any = (
        1.0
        if weights is None
        else xp.reshape(
            xp.broadcast_to(xp.reshape(weights, (-1,) + (1,) * (target.ndim - 1)), target.shape), labels.shape
        )
    )
    if class_weight is not None:
        classes = class_weight.shape[0] if hasattr(class_weight, "shape") else len(class_weight)
        own = of_labels(xp, class_weights(xp, class_weight, labels, classes, dtype), labels) * own
    return xp.sum(xp.where(counts, own, 0.0))


def checked(ignore_index: Any) -> int:
    """Return the label that counts nowhere; ValueError unless it is an integer that labels can be."""
    try:
        ignored = 2**31 if isinstance(ignore_index, bool) else operator.index(ignore_index)
    except TypeError:
        ignored = 2**31
    if not -(2**31) <= ignored < 2**31:
        raise ValueError(f"ignore_index must be an integer of 32 bits, such as -1, got {ignore_index!r}")
    return ignored


def class_weights(
    xp: Namespace, class_weight: Any, beside: Array, classes: int, dtype: Any, relative: bool = True
) -> Array:
    """Return the weights of the classes (C,), where the array `beside` lies; if `relative`, the largest is 1.

    ShapeError or ValueError for numbers of the host that are not C, or not 0 or more; an array on a device is not read.
    """
    if hasattr(class_weight, "shape") and library_of(class_weight) != "numpy":
        namespace(scores=beside, class_weight=class_weight)
        if class_weight.shape != (classes,):
            came = f"an array {tuple(class_weight.shape)}"
            raise ShapeError(f"class_weight must hold {classes} numbers, one a class, got {came}")
        own = cast(xp, class_weight, xp.result_type(wide(xp, class_weight), dtype))
        largest = xp.max(own)
        return cast(xp, own / xp.where(largest == 0, 1.0, largest) if relative else own, dtype)
    try:
        host = tuple(float(weight) for weight in class_weight)
    except (TypeError, ValueError):
        came = f"a {type(class_weight).__name__}"
        raise ShapeError(f"class_weight must hold {classes} numbers, one a class, got {came}") from None
    if len(host) != classes:
        raise ShapeError(f"class_weight must hold {classes} numbers, one a class, got {len(host)}")
    wrong = next((k for k, weight in enumerate(host) if not 0.0 <= weight < math.inf), None)
    if wrong is not None:
        raise ValueError(f"class_weight must be at least 0 and finite, got {host[wrong]} for class {wrong}")
    largest = max(host) if relative else 1.0
    return backend_of(beside).constant(tuple(weight / (largest or 1.0) for weight in host), dtype)


def of_labels(xp: Namespace, per_class: Array, labels: Array) -> Array:
    """Return the weight of each row's class (R,); 1 for a label out of range, which is not to go unseen."""
    hot = one_hot(xp, labels, per_class.shape[0])
    found = xp.sum(xp.astype(hot, xp.int32), axis=1)
    return xp.where(found == 0, 1.0, xp.sum(xp.where(hot, per_class[None, :], 0.0), axis=1))


def poison(xp: Namespace, value: Array, hot: Array) -> Array:
    """Return the value, or NaN if a row has no label: a silent wrong loss would be worse."""
    found = xp.sum(xp.astype(hot, xp.int32))  # CuPy compiles for seconds before its first count_nonzero, any or all
    return xp.where(found == hot.shape[0], value, math.nan)


def check_choices(xp: Namespace, scores: Array, labels: Array, soft: bool = False) -> None:
    """Raise DataError or ShapeError unless these are scores (…, C ≥ 2) and class numbers (…), or if `soft` (…, C)."""
    one, other = tuple(scores.shape), tuple(labels.shape)
    if not soft and labels.dtype not in (xp.int32, xp.int64) and not xp.isdtype(labels.dtype, "integral"):
        ways = f"class numbers 0..C-1, or probabilities in the shape of the scores, {one}"
        raise DataError(f"labels must be integers, got {labels.dtype} {other}: pass {ways}")
    if len(one) < 2 or other != (one if soft else one[:-1]):
        axes = {3: ("(N, T, C)", "(N, T)")}.get(len(one), ("(..., C)", "(...)"))
        axes = ("(N, C)", "(N,)") if len(one) < 3 else axes
        axes = (axes[0], f"or probabilities {axes[0]}") if soft else axes
        raise ShapeError(f"expected scores {axes[0]} and labels {axes[1]}, got {one} and {other}{_remedy(one, other)}")
    if one[-1] < 2:
        raise ShapeError(
            f"expected scores (N, C) of two classes or more, got {one}, and one output has nothing to choose between: "
            "use binary_cross_entropy, or two outputs"
        )


def _remedy(one: tuple[int, ...], other: tuple[int, ...]) -> str:
    """Say what makes labels of such scores, if that can be known."""
    if len(one) >= 2 and one == other:
        return ": one-hot labels become argmax(axis=-1), or probabilities by astype(float)"
    if len(one) >= 2 and other == (*one[:-1], 1):
        return ": make the labels 1-d, labels[:, 0]" if len(one) == 2 else ": drop the last axis, labels[..., 0]"
    if len(one) >= 3 and other == one[:1] + one[2:]:
        return ": the classes are the last axis of the scores here, not the second"
    return ""
