"""Losses: functions of prediction and target that return the value and the gradient with respect to the prediction.

Each is the mean over the batch, and for regression over the outputs too, as PyTorch's defaults are; scores (N, T, C)
with labels (N, T) are N·T rows. The value is a 0-d array on the prediction's device. A batch of no samples has the
value 0. Predictions (N, 1) and targets (N,), or the reverse, are one shape; other shapes are never broadcast.

Value and gradient have the prediction's type. A prediction narrower than float32 is computed in float32 and its value
stays so; one of integers is computed in float64 (float32 where there is none), and so is its gradient.

`weights` (N,) makes it the weighted mean over the samples: L = Σₙ wₙ ℓₙ / Σₙ wₙ, and 0 if all weights are 0. Only their
ratios count; a weight holds for all that belongs to its sample. A sample of weight 0 is left out, were its term NaN.
Weights are ≥ 0: a NaN among them makes the loss NaN, negative ones are not looked for.
"""

from xpnet.losses.base import Loss
from xpnet.losses.classification import (
    binary_cross_entropy,
    cross_entropy,
    focal,
    hinge,
    kl_divergence,
    negative_log_likelihood,
    perceptron,
)
from xpnet.losses.regression import huber, mean_absolute_error, mean_squared_error, poisson

__all__ = [
    "Loss",
    "binary_cross_entropy",
    "cross_entropy",
    "focal",
    "hinge",
    "huber",
    "kl_divergence",
    "mean_absolute_error",
    "mean_squared_error",
    "negative_log_likelihood",
    "perceptron",
    "poisson",
]
