"""Losses of scores, one of which is right, or each of which is: cross-entropy and its relatives, hinge, perceptron."""

import math
from typing import Any

from xpnet.arrays import Array, cast, exp_shifted, is_floating, namespace, sigmoid, wide
from xpnet.backends import natively
from xpnet.errors import ShapeError
from xpnet.losses.base import like, pair, summed
from xpnet.losses.choices import choices, poison, shares


@natively
def cross_entropy(
    scores: Array,
    labels: Array,
    *,
    weights: Array | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    class_weight: Any = None,
) -> tuple[Array, Array]:
    """L = −1/N Σₙ log softmax(sₙ)[labelₙ]        ∂L/∂s = (softmax(s) − onehot(labels)) / N

    scores (N, C), any real numbers, C ≥ 2; labels (N,), integers in 0..C−1: one out of range makes the loss NaN. Or
    scores (N, T, C) and labels (N, T), with any number of axes before the last: then N is the number of all labels.
    Infinite scores give the limit. (Goodfellow et al., "Deep Learning", 2016, section 6.2.2.3)

    Labels of a floating type and of the scores' shape are probabilities t: L = −1/N Σₙ Σ_c t log softmax(s), and
    ∂L/∂s = (softmax(s) Σ_c t − t) / N. All of this is as in PyTorch:

    `ignore_index`, an integer: rows of that label count nowhere, neither in the sum nor in N. If all are ignored, value
    and gradient are 0. Not with probabilities.
    `label_smoothing`, 0 ≤ ε < 1: (1 − ε) t + ε/C instead of t, t being onehot(label) for class numbers. (Szegedy et
    al., CVPR 2016, section 7)
    `class_weight`, C numbers w ≥ 0, of the host or in an array (C,): each class's term counts w-fold, and N becomes the
    sum of w[label], a weighted mean; with probabilities it stays N.
    """
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f"label_smoothing must be at least 0 and below 1, got {label_smoothing}")
    xp = namespace(scores=scores, labels=labels)
    if label_smoothing or labels.ndim == scores.ndim:
        s, t, share, hot = shares(xp, scores, labels, weights, ignore_index, class_weight, float(label_smoothing))
        shifted, exp, total = exp_shifted(xp, s)
        value = summed(xp, xp.where(t == 0, 0.0, xp.log(total) - shifted) * t, share)  # 0 · ∞ is 0
        gradient = (exp / total * xp.sum(t, axis=-1, keepdims=True) - t) * share
        return value if hot is None else poison(xp, value, hot), like(xp, gradient, scores)
    s, hot, share = choices(xp, scores, labels, weights, ignore_index, class_weight)
    shifted, exp, total = exp_shifted(xp, s)
    log_likelihood = xp.where(hot, shifted - xp.log(total), 0.0)
    gradient = exp / total
    gradient -= xp.astype(hot, s.dtype)
    gradient *= share
    return poison(xp, -summed(xp, log_likelihood, share), hot), like(xp, gradient, scores)


def negative_log_likelihood(
    probabilities: Array,
    labels: Array,
    *,
    weights: Array | None = None,
    ignore_index: int | None = None,
    class_weight: Any = None,
) -> tuple[Array, Array]:
    """L = −1/N Σₙ log pₙ[labelₙ]        ∂L/∂p = −onehot(labels) / (N p)

    probabilities (N, C), as Softmax gives them; labels (N,), integers in 0..C−1: the lesson's own CrossEntropyLoss.
    A probability below the smallest normal number counts as that number. `cross_entropy` on scores is more accurate.
    Other shapes, labels that are probabilities, `ignore_index` and `class_weight` are as in `cross_entropy`.
    """
    xp = namespace(probabilities=probabilities, labels=labels)
    p, t, share, hot = shares(xp, probabilities, labels, weights, ignore_index, class_weight)
    own = probabilities.dtype if is_floating(xp, probabilities) else p.dtype
    p = xp.maximum(p, float(xp.finfo(own).smallest_normal))
    value = -summed(xp, xp.where(t == 0, 0.0, xp.log(p)) * t, share)
    gradient = xp.where(t == 0, 0.0, -share * t / p)
    return value if hot is None else poison(xp, value, hot), like(xp, gradient, probabilities)


def focal(
    scores: Array,
    labels: Array,
    gamma: float = 2.0,
    *,
    weights: Array | None = None,
    ignore_index: int | None = None,
    class_weight: Any = None,
) -> tuple[Array, Array]:
    """L = −1/N Σₙ (1 − pₙ)^γ log pₙ,  p = softmax(s)[label]
    ∂L/∂s = ((1 − p)^γ − γ (1 − p)^(γ−1) p log p) (softmax(s) − onehot(labels)) / N

    Cross-entropy in which what is known already counts little, for classes that are rare; γ ≥ 0, and at γ = 0 it is
    cross-entropy. This is the softmax form: two classes are two scores. Scores (N, C) and labels (N,), other shapes,
    `ignore_index` and `class_weight`, the paper's α, are as in `cross_entropy`. (Lin et al., ICCV 2017, eq. 4 and 5)
    """
    if not 0.0 <= gamma < math.inf:
        raise ValueError(f"gamma must be at least 0 and finite, got {gamma}")
    xp, gamma = namespace(scores=scores, labels=labels), float(gamma)
    s, hot, share = choices(xp, scores, labels, weights, ignore_index, class_weight)
    shifted, exp, total = exp_shifted(xp, s)
    log_p = xp.sum(xp.where(hot, shifted - xp.log(total), 0.0), axis=-1, keepdims=True)
    p = xp.sum(xp.where(hot, exp, 0.0), axis=-1, keepdims=True) / total
    rest = xp.sum(xp.where(hot, 0.0, exp), axis=-1, keepdims=True) / total  # 1 − p, to its last digit near p = 1
    doubt = rest**gamma
    term = p * xp.where((p == 0) | (rest == 0), 0.0, log_p)
    slope = doubt - gamma * xp.where(rest == 0, 1.0, rest) ** (gamma - 1.0) * term
    gradient = slope * (exp / total - xp.astype(hot, s.dtype)) * share
    return poison(xp, -summed(xp, doubt * log_p, share), hot), like(xp, gradient, scores)


def kl_divergence(scores: Array, targets: Array, *, weights: Array | None = None) -> tuple[Array, Array]:
    """L = 1/N Σₙ Σ_c t (log t − log softmax(s))        ∂L/∂s = (softmax(s) Σ_c t − t) / N

    How far the distribution softmax(s) is from the targets t: scores (N, C), not logarithms of probabilities; targets
    (N, C), probabilities, not their logarithms. It is cross-entropy less the targets' own entropy, which does not
    depend on s, so that 0 is a perfect match; 0 log 0 is 0. With more axes N is the number of all rows. As PyTorch's
    kl_div(log_softmax(s), t, reduction="batchmean") on rows. (Kullback & Leibler, Ann. Math. Statist. 1951)
    """
    xp = namespace(scores=scores, targets=targets)
    if targets.shape != scores.shape:
        raise ShapeError(
            f"expected scores and target probabilities of one shape, got {tuple(scores.shape)} and "
            f"{tuple(targets.shape)}: class numbers are for cross_entropy"
        )
    s, t, share, _ = shares(xp, scores, cast(xp, targets, wide(xp, scores)), weights)
    shifted, exp, total = exp_shifted(xp, s)
    value = t * xp.where(t == 0, 0.0, xp.log(xp.where(t == 0, 1.0, t)) + xp.log(total) - shifted)
    gradient = (exp / total * xp.sum(t, axis=-1, keepdims=True) - t) * share
    return summed(xp, value, share), like(xp, gradient, scores)


def binary_cross_entropy(scores: Array, targets: Array, *, weights: Array | None = None) -> tuple[Array, Array]:
    """L = mean(log(1 + e^−s)·t + log(1 + e^s)·(1 − t))        ∂L/∂s = (σ(s) − t) / size

    The logistic loss: scores of any shape, any real numbers; targets of the same shape, 0 or 1 (or between).
    Computed as |s|·w + log1p(e^−|s|), w the weight of the wrong side, so that nothing overflows. (Bishop, "Pattern
    Recognition and Machine Learning", 2006, eq. 4.90)
    """
    xp, s, t, share = pair(scores, targets, weights)
    wrong = xp.where(s > 0, 1.0 - t, t)
    size = xp.abs(s)
    value = xp.where(wrong == 0, 0.0, size) * wrong + xp.log1p(xp.exp(-size))
    return summed(xp, value, share), like(xp, (sigmoid(xp, s) - t) * share, scores)


def hinge(scores: Array, targets: Array, margin: float = 1.0, *, weights: Array | None = None) -> tuple[Array, Array]:
    """L = mean(max(0, margin − y s))        ∂L/∂s = −y / size where y s ≤ margin, else 0

    scores of any shape; targets of the same shape, −1 or +1; margin ≥ 0. (Rosasco et al., Neural Computation 2004)
    """
    if not margin >= 0:
        raise ValueError(f"margin must be at least 0, got {margin}")
    xp, s, y, share = pair(scores, targets, weights)
    short = float(margin) - y * s
    gradient = xp.astype(short >= 0, y.dtype) * y * -share
    return summed(xp, xp.maximum(short, 0.0), share), like(xp, gradient, scores)


def perceptron(scores: Array, targets: Array, *, weights: Array | None = None) -> tuple[Array, Array]:
    """L = mean(max(0, −y s))        ∂L/∂s = −y / size where y s ≤ 0, else 0

    The perceptron criterion, the hinge without a margin: only what is misclassified counts. A score of exactly 0 is
    wrong, so that training can start from zero weights. (Rosenblatt 1958; Bishop 2006, eq. 4.54)
    """
    return hinge(scores, targets, margin=0.0, weights=weights)
