"""How often the right class was chosen, and how surely: accuracy, top-k, perplexity, log-loss."""

import operator
from collections.abc import Callable

from xpnet.arrays import Array, cast, device, namespace, same_shape, wide
from xpnet.losses import binary_cross_entropy, cross_entropy
from xpnet.losses.base import summed
from xpnet.losses.choices import choices
from xpnet.metrics.base import counted_weights, mean, relative
from xpnet.metrics.classes import Classes, classes_of, rows_of


def accuracy(
    prediction: Array,
    target: Array,
    threshold: float = 0.0,
    *,
    weights: Array | None = None,
    ignore_index: int | None = None,
) -> Array:
    """The share of samples whose predicted class is right: mean(argmax(prediction) = label).

    `threshold` is for one score a sample: 0.5 where the predictions are probabilities.
    """
    return _share(lambda c: (c.predicted == c.true) & c.known, prediction, target, threshold, weights, ignore_index)


def zero_one(
    prediction: Array,
    target: Array,
    threshold: float = 0.0,
    *,
    weights: Array | None = None,
    ignore_index: int | None = None,
) -> Array:
    """The 0-1 loss, the share of samples that are wrong: 1 − accuracy."""
    return _share(lambda c: (c.predicted != c.true) | ~c.known, prediction, target, threshold, weights, ignore_index)


def top_k(
    scores: Array, labels: Array, k: int = 5, *, weights: Array | None = None, ignore_index: int | None = None
) -> Array:
    """The share of rows whose label is among the k largest scores; of equal scores the first counts as the largest.

    scores (N, C), k ≤ C, and labels (N,), integers, or more axes before the last; at k = 1 it is `accuracy`.
    """
    xp = namespace(scores=scores, labels=labels)
    s, hot, share = choices(xp, scores, labels, weights, ignore_index)
    classes = s.shape[1]
    if isinstance(k, bool) or not hasattr(k, "__index__") or not 1 <= operator.index(k) <= classes:
        raise ValueError(f"k must be an integer in 1..{classes}, the number of classes, got {k!r}")
    number = xp.arange(classes, dtype=xp.int32, device=device(s))[None, :]
    own = xp.sum(xp.where(hot, s, 0.0), axis=1, keepdims=True)
    place = xp.sum(xp.where(hot, number, 0), axis=1, keepdims=True, dtype=xp.int32)
    ahead = xp.sum(xp.astype((s > own) | ((s == own) & (number < place)), xp.int32), axis=1, keepdims=True)
    found = xp.sum(xp.astype(hot, xp.int32), axis=1, keepdims=True) == 1
    top = xp.max(s, axis=1, keepdims=True)  # NaN, if there is one in the row
    return summed(xp, xp.astype((ahead < operator.index(k)) & found & (top == top), s.dtype), share)


def perplexity(scores: Array, labels: Array, *, weights: Array | None = None, ignore_index: int | None = None) -> Array:
    """e to the cross-entropy, scores and labels as there: among how many equal choices the label would be as hard to
    guess; C for equal scores, 1 for certainty. (Jelinek et al., J. Acoust. Soc. Am. 1977)
    """
    loss = log_perplexity(scores, labels, weights=weights, ignore_index=ignore_index)
    return namespace(loss=loss).exp(loss)


def log_perplexity(
    scores: Array, labels: Array, *, weights: Array | None = None, ignore_index: int | None = None
) -> Array:
    """The cross-entropy in nats, as a metric: a mean over rows, which perplexity is not."""
    return cross_entropy(scores, labels, weights=weights, ignore_index=ignore_index)[0]


def log_loss(scores: Array, labels: Array, *, weights: Array | None = None, ignore_index: int | None = None) -> Array:
    """−1/N Σₙ log p[labelₙ], p = softmax(s), or σ(s) for one score a sample: the cross-entropy, in nats.

    Of scores, any real numbers, not of probabilities: scikit-learn's log_loss takes softmax(s). One score a sample may
    have labels between 0 and 1. A label that is no class makes it NaN.
    """
    xp = namespace(scores=scores, labels=labels)
    s, own, counts = rows_of(xp, scores, labels, ignore_index)
    w = counted_weights(xp, scores, weights, s.shape[0], counts, wide(xp, s))
    if s.ndim == 2:
        return cross_entropy(s, own, weights=w)[0]
    own = xp.minimum(xp.maximum(cast(xp, own, wide(xp, s)), 0.0), 1.0)  # −1 means class 0
    return binary_cross_entropy(s, own, weights=w)[0]


def binary_accuracy(prediction: Array, target: Array, threshold: float = 0.0, *, weights: Array | None = None) -> Array:
    """The share of single answers that are right, several labels a sample: mean((ŷ > threshold) = (y > 0)).

    prediction and target of one shape; the threshold is 0.5 where the predictions are probabilities.
    """
    xp, p, t = same_shape(prediction, target)
    right = ((p > float(threshold)) == (t > 0)) & (p == p)
    w = counted_weights(xp, prediction, weights, prediction.shape[0], None, p.dtype)
    return mean(xp, xp.astype(right, p.dtype), relative(xp, w, p.dtype))


def _share(
    hits: Callable[[Classes], Array],
    prediction: Array,
    target: Array,
    threshold: float,
    weights: Array | None,
    ignore_index: int | None,
) -> Array:
    """Return the share of hits among the rows that count, 0 if none does."""
    classes = classes_of(prediction, target, threshold, ignore_index)
    xp, dtype = classes.xp, wide(classes.xp, prediction)
    w = counted_weights(xp, prediction, weights, classes.true.shape[0], classes.counts, dtype)
    return mean(xp, xp.astype(hits(classes), dtype), relative(xp, w, dtype))
