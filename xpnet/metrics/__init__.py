"""Metrics: plain values of prediction and target, without a gradient; 0-d arrays on the device of the prediction.

What a prediction is says its shape and type: scores or probabilities (N, C ≥ 2), the largest wins; one score a sample,
(N,) or (N, 1), class 1 above the threshold and class 0 elsewhere; class numbers, (N,) or (N, 1) and integers.
The target is class numbers (N,) or (N, 1); for one score a sample 0/1 or −1/+1, what is positive means class 1.
Scores (N, T, C) with class numbers (N, T) are N·T such rows. Rows whose class number is `ignore_index`, an integer,
count nowhere; if all are ignored the value is 0.

`weights` (N,), one a sample, make a mean the weighted one, Σ w v / Σ w, and 0 if Σ w = 0; only their ratios count, and
a weight holds for all rows of its sample. A sample of weight 0 is not there, whatever it holds. Weights are ≥ 0: a NaN
among them makes the value NaN, negative ones are not looked for.

Values have the prediction's type, float32 if it is narrower, float64 if it is integers. A NaN is never right.
"""

from xpnet.metrics.base import Metric
from xpnet.metrics.by_class import balanced_accuracy, class_shares, f1, precision, recall
from xpnet.metrics.classes import NO_CLASS
from xpnet.metrics.classification import (
    accuracy,
    binary_accuracy,
    log_loss,
    log_perplexity,
    perplexity,
    top_k,
    zero_one,
)
from xpnet.metrics.confusion import PIECE, confusion_matrix
from xpnet.metrics.epochs import averaged, concluded, is_mean, needs_all
from xpnet.metrics.ranking import average_precision, roc_auc
from xpnet.metrics.regression import (
    WholeR2,
    for_data,
    mean_absolute_error,
    mean_squared_error,
    r2,
    root_mean_squared_error,
    squared_errors,
    variance_of,
)

__all__ = [
    "NO_CLASS",
    "PIECE",
    "Metric",
    "WholeR2",
    "accuracy",
    "average_precision",
    "averaged",
    "balanced_accuracy",
    "binary_accuracy",
    "class_shares",
    "concluded",
    "confusion_matrix",
    "f1",
    "for_data",
    "is_mean",
    "log_loss",
    "log_perplexity",
    "mean_absolute_error",
    "mean_squared_error",
    "needs_all",
    "perplexity",
    "precision",
    "r2",
    "recall",
    "roc_auc",
    "root_mean_squared_error",
    "squared_errors",
    "top_k",
    "variance_of",
    "zero_one",
]
