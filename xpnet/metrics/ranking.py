"""How well scores rank the samples of a class before all others, whatever the threshold: ROC AUC, average precision."""

import math
from collections.abc import Callable
from typing import NamedTuple

from xpnet.arrays import Array, Namespace, cast, device, exp_shifted, is_floating, namespace, wide, widest
from xpnet.metrics.base import counted_weights, relative
from xpnet.metrics.classes import hot_rows, rows_of


def roc_auc(
    prediction: Array, target: Array, *, weights: Array | None = None, ignore_index: int | None = None
) -> Array:
    """The area under the receiver operating characteristic: how probable it is that a sample of the class has a higher
    score than one that is not of it, an equal score counting ½. 0.5 is guessing. (Hanley & McNeil, Radiology 1982)

    One score a sample, (N,) or (N, 1), any real numbers: that of class 1. Two columns: class 1 against class 0. More:
    the mean over the classes, each against the rest, of those that are defined. Columns are ranked as softmax of them
    is, and if in every row they are probabilities, ≥ 0 and of the sum 1, as they are.
    NaN where it is not defined: no sample of the class, or none of the others. Σ w = 0 is such a case. A sample whose
    score is NaN ranks as wrongly as it can.
    """
    return _over_classes(_area, prediction, target, weights, ignore_index)


def average_precision(
    prediction: Array, target: Array, *, weights: Array | None = None, ignore_index: int | None = None
) -> Array:
    """AP = Σₖ (Rₖ − Rₖ₋₁) Pₖ, P and R precision and recall at the k-th threshold: the area under their curve, which is
    not interpolated. Guessing is the share of the class. (Manning et al., "Introduction to Information Retrieval",
    2008, section 8.4)

    The prediction is as in `roc_auc`. NaN where it is not defined: no sample of the class (scikit-learn says 0, and
    warns), which is also the case where Σ w = 0. A sample whose score is NaN ranks as wrongly as it can.
    """
    return _over_classes(_steps, prediction, target, weights, ignore_index)


class Ranks(NamedTuple):
    """Samples in falling order of their scores, without those whose score is NaN, and what they weigh."""

    xp: Namespace
    hits: Array
    """What each weighs if it is of the class, (R,), else 0."""
    misses: Array
    """What each weighs if it is not."""
    first: Array
    """Where the first of its score is, (R,)."""
    last: Array
    """Where the first of a smaller score is."""
    nan_hits: Array
    """What those weigh that are of the class, and whose score is NaN."""
    nan_misses: Array

    def before(self, weights: Array, *places: Array) -> list[Array]:
        """Return the sums of weights before each place."""
        sums = self.xp.cumulative_sum(weights, include_initial=True)
        return [self.xp.take(sums, place, axis=0) for place in places]


def _ranks(xp: Namespace, scores: Array, positive: Array, w: Array) -> Ranks:
    """Sort the samples. Equal scores are found by their places, so that no order among them matters."""
    known = scores == scores
    hits, misses = xp.where(positive, w, 0.0), xp.where(positive, 0.0, w)
    nan = [xp.sum(xp.where(known, 0.0, each)) for each in (hits, misses)]
    key = 0.0 - xp.where(known, scores, 0.0)  # the largest comes first, and there is one zero
    order = xp.argsort(key)
    hits, misses = (xp.take(xp.where(known, each, 0.0), order, axis=0) for each in (hits, misses))
    key = xp.take(key, order, axis=0)
    first, last = (xp.searchsorted(key, key, side=side) for side in ("left", "right"))
    return Ranks(xp, hits, misses, first, last, *nan)


def _area(ranks: Ranks) -> Array:
    """Return the share of pairs, one of each kind, of which the one of the class comes first, ½ for equal scores."""
    xp = ranks.xp
    above, equal_too = ranks.before(ranks.hits, ranks.first, ranks.last)
    positive, negative = xp.sum(ranks.hits) + ranks.nan_hits, xp.sum(ranks.misses) + ranks.nan_misses
    area = xp.sum(ranks.misses / _divisor(xp, negative) * (0.5 * (above + equal_too) / _divisor(xp, positive)))
    return xp.where((positive == 0) | (negative == 0), math.nan, area)


def _steps(ranks: Ranks) -> Array:
    """Return the sum of precisions at each sample of the class, as shares of it."""
    xp = ranks.xp
    (found,), (others,) = ranks.before(ranks.hits, ranks.last), ranks.before(ranks.misses, ranks.last)
    others = others + ranks.nan_misses
    positive, negative = xp.sum(ranks.hits) + ranks.nan_hits, xp.sum(ranks.misses) + ranks.nan_misses
    steps = xp.sum(ranks.hits * (found / _divisor(xp, found + others)))
    steps += ranks.nan_hits * (positive / _divisor(xp, positive + negative))
    return xp.where(positive == 0, math.nan, steps / _divisor(xp, positive))


def _divisor(xp: Namespace, number: Array) -> Array:
    """Return what to divide by: 1 instead of 0."""
    return xp.where(number == 0, 1.0, number)


def _over_classes(
    value: Callable[[Ranks], Array],
    prediction: Array,
    target: Array,
    weights: Array | None,
    ignore_index: int | None,
) -> Array:
    """Return the value of class 1, or the mean over the classes, each against the rest, of which it is defined."""
    xp = namespace(prediction=prediction, target=target)
    scores, labels, counts = rows_of(xp, prediction, target, ignore_index)
    rows, dtype, whole = labels.shape[0], wide(xp, scores), widest(xp, scores)
    w = relative(xp, counted_weights(xp, prediction, weights, rows, counts, whole), whole)
    if not rows:
        return xp.full((), math.nan, dtype=dtype, device=device(scores))
    if w is None:
        w = xp.ones(rows, dtype=whole, device=device(scores))
    eps = float(xp.finfo(scores.dtype if is_floating(xp, scores) else dtype).eps)
    scores = cast(xp, scores, dtype)
    if scores.ndim == 1:
        return xp.astype(value(_ranks(xp, scores, cast(xp, labels, dtype) > 0, w)), dtype)
    hot = hot_rows(xp, labels, scores.shape[1])
    columns = class_columns(xp, scores, w, 8.0 * eps * scores.shape[1])
    number = range(1, 2) if scores.shape[1] == 2 else range(scores.shape[1])
    values = xp.stack([value(_ranks(xp, columns[:, k], hot[:, k], w)) for k in number])
    defined = values == values
    count = xp.sum(xp.astype(defined, whole))
    mean = xp.sum(xp.where(defined, values, 0.0)) / _divisor(xp, count)
    return xp.astype(xp.where(count == 0, math.nan, mean), dtype)


def class_columns(xp: Namespace, s: Array, w: Array, rounding: float) -> Array:
    """Return what each class is ranked by, (R, C): log p/(1 − p) of p = softmax(s), or s if all rows are probabilities.

    Probabilities are not turned into anything: those near 0 would lose what they differ in.
    """
    bounded = xp.minimum(xp.maximum(s, -1.0), 2.0)
    neither = (xp.min(s, axis=1) < 0) | (xp.abs(xp.sum(bounded, axis=1) - 1.0) > rounding)
    scores = xp.sum(xp.astype(neither & (w != 0), xp.int32)) > 0
    largest = xp.max(s, axis=1, keepdims=True)
    top = xp.argmax(s, axis=1)[:, None] == xp.arange(s.shape[1], device=device(s))[None, :]
    others = xp.where(top, -math.inf, s)  # of the class with the largest score
    second = xp.max(others, axis=1, keepdims=True)
    lead = xp.where(s == second, 0.0, s) - xp.where(s == second, 0.0, second)
    (shifted, exp, total), (_, _, rest) = exp_shifted(xp, s), exp_shifted(xp, others)
    odds = xp.where(top, lead, shifted) - xp.log(xp.where(top, rest, total - exp))
    return xp.where(largest == largest, xp.where(scores, odds, s), math.nan)  # NaN, if there is one in the row
