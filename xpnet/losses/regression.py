"""Losses of numbers: squared and absolute error, Huber's, and that of counts."""

import math

from xpnet.arrays import Array
from xpnet.losses.base import like, pair, summed


def mean_squared_error(prediction: Array, target: Array, *, weights: Array | None = None) -> tuple[Array, Array]:
    """L = mean((ŷ − y)²)        ∂L/∂ŷ = 2 (ŷ − y) / size

    The lesson's squared error; prediction and target of one shape.
    """
    xp, p, t, share = pair(prediction, target, weights)
    error = p - t
    return summed(xp, error * error, share), like(xp, error * (2.0 * share), prediction)


def mean_absolute_error(prediction: Array, target: Array, *, weights: Array | None = None) -> tuple[Array, Array]:
    """L = mean(|ŷ − y|)        ∂L/∂ŷ = sign(ŷ − y) / size, 0 where they are equal

    The lesson's absolute error; prediction and target of one shape.
    """
    xp, p, t, share = pair(prediction, target, weights)
    error = p - t
    size = xp.abs(error)
    sign = xp.where(error > 0, 1.0, xp.where(error < 0, -1.0, size))  # size is 0 or NaN there; xp.sign may synchronise
    return summed(xp, size, share), like(xp, sign * share, prediction)


def huber(prediction: Array, target: Array, delta: float = 1.0, *, weights: Array | None = None) -> tuple[Array, Array]:
    """L = mean(h(ŷ − y)),  h(e) = ½ e² where |e| ≤ δ, else δ (|e| − ½ δ)        ∂L/∂ŷ = clip(ŷ − y, −δ, δ) / size

    Squared near zero, absolute far out, δ > 0; prediction and target of one shape. (Huber, Ann. Math. Statist. 1964)
    """
    if not delta > 0:
        raise ValueError(f"delta must be above 0, got {delta}")
    xp, p, t, share = pair(prediction, target, weights)
    error, delta = p - t, float(delta)
    bounded = xp.minimum(xp.maximum(error, -delta), delta)
    return summed(xp, bounded * (error - 0.5 * bounded), share), like(xp, bounded * share, prediction)


def poisson(scores: Array, counts: Array, *, weights: Array | None = None) -> tuple[Array, Array]:
    """L = mean(eˢ − y s)        ∂L/∂s = (eˢ − y) / size

    The negative log-likelihood of counts y = 0, 1, 2, … (any numbers ≥ 0) whose rate is eˢ, without log y!, which does
    not depend on s; scores and counts of one shape. An infinite score gives the limit: +∞ an infinite value, −∞ the
    value 0 where y = 0 and an infinite one elsewhere. (Nelder & Wedderburn, J. R. Statist. Soc. A 1972)
    """
    xp, s, y, share = pair(scores, counts, weights)
    rate = xp.exp(s)
    value = rate - xp.where((y == 0) | (rate == math.inf), 0.0, s) * y  # eˢ outgrows y s; 0 · ∞ is 0
    return summed(xp, value, share), like(xp, (rate - y) * share, scores)
