"""Metrics over batches: which are means, what those that are not are made of, and which need all predictions."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from xpnet.arrays import Array
from xpnet.metrics import by_class
from xpnet.metrics.base import Metric
from xpnet.metrics.classification import log_perplexity, perplexity
from xpnet.metrics.ranking import average_precision, roc_auc
from xpnet.metrics.regression import mean_root, root_mean_squared_error, squared_errors


class Whole(NamedTuple):
    """A metric that is no mean over samples, but a function of one."""

    metric: Metric
    mean: Metric
    """What is averaged: an array of any shape."""
    value: Callable[..., Array | float]
    """The metric's value, of that mean."""


def _exp(mean: Any) -> float:
    """Return e to the mean."""
    try:
        return math.exp(mean)
    except OverflowError:
        return math.inf


WHOLES = (
    Whole(perplexity, log_perplexity, _exp),
    Whole(root_mean_squared_error, squared_errors, mean_root),
    Whole(by_class.balanced_accuracy, by_class.class_shares, by_class.mean_recall),
    Whole(by_class.precision, by_class.class_shares, by_class.precision_of),
    Whole(by_class.recall, by_class.class_shares, by_class.recall_of),
    Whole(by_class.f1, by_class.class_shares, by_class.f1_of),
)
RANKED = (roc_auc, average_precision)
LAST = ("average",)
"""Settings that say what is made of the mean; all others are those of what is averaged."""


def averaged(metric: Metric) -> Metric:
    """Return the metric whose mean over all rows `concluded` makes this one's value of: itself, if it is a mean.

    Its value may be an array of any shape: shares (3, C) of the classes for F1, squared errors (O,) for their root.
    """
    whole = _whole(metric)
    if whole is None:
        return metric
    return partial(whole.mean, **{name: value for name, value in _settings(metric).items() if name not in LAST})


def concluded(metric: Metric | None, mean: Any) -> float:
    """Return a metric's value of the mean of `averaged(metric)`: a number, or an array of the host."""
    whole = _whole(metric)
    if whole is None:
        return float(mean)
    return float(whole.value(mean, **{name: value for name, value in _settings(metric).items() if name in LAST}))


def needs_all(metric: Metric | None) -> bool:
    """Whether no mean over batches gives this metric's value: it ranks all samples, and needs all predictions at once.

    Of a batch it is a number of its own, NaN where it is not defined.
    """
    return any(_function(metric) is ranked for ranked in RANKED)


def is_mean(metric: Metric) -> bool:
    """Whether batches' values can be averaged: what `averaged` returns of xpnet's own metrics, if it needs not all."""
    return str(getattr(_function(metric), "__module__", "")).startswith("xpnet.metrics.") and not needs_all(metric)


def _function(metric: Metric | None) -> Any:
    """Return the metric itself, of a partial what it is a part of."""
    return getattr(metric, "func", metric)


def _whole(metric: Metric | None) -> Whole | None:
    return next((whole for whole in WHOLES if whole.metric is _function(metric)), None)


def _settings(metric: Metric | None) -> dict[str, Any]:
    settings: dict[str, Any] = getattr(metric, "keywords", {})
    return settings
