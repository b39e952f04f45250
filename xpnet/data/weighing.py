"""The weights of samples: those that were given, and those of their classes."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from xpnet.arrays import Array, is_floating
from xpnet.backends import Backend
from xpnet.data import scan, types
from xpnet.data.door import home
from xpnet.errors import DataError, ShapeError

LARGEST = 1e30
"""Above it, sums of weights may overflow."""


def check(name: str, weights: Any, n: int, backend: Backend, dtype: str) -> Array:
    """Return weights as they lie, one a sample; DataError or ShapeError, in a line, for what are none."""
    if isinstance(weights, Mapping):
        raise DataError(f"{name} has a number for each sample, got a dict: weights of classes are class_weight")
    weights = types.collect(name, weights, backend)
    if tuple(weights.shape) != (n,):
        raise ShapeError(f"{name} must be 1-d, one number a sample, ({n},), got the shape {tuple(weights.shape)}")
    own = home(weights, backend)
    low, high = scan.extremes(weights, own)
    if not (low >= 0 and high <= LARGEST):
        place = scan.first(weights, lambda xp, w: ~((w >= 0) & (w <= LARGEST)), own)
        assert place is not None
        remedy = "divide by the mean" if low >= 0 else "0 leaves a sample out"
        came = f"{scan.value(weights, place, own)} at {scan.where(place)}"
        raise DataError(f"{name} must be at least 0 and at most {LARGEST:g}, got {came}: {remedy}")
    return own.xp.astype(weights, getattr(own.xp, dtype), copy=False)


def of_classes(class_weight: Any, targets: Callable[[], np.ndarray]) -> dict[float, float]:
    """Return the weight of each class; `targets()` are asked for if it is "balanced".

    "balanced": n / (C · n_c), n_c samples of the class c, as scikit-learn; a class that is not named has 1.
    """
    if isinstance(class_weight, str) and class_weight == "balanced":
        classes, counts = np.unique(_numbers(targets()), return_counts=True)
        return dict(zip(classes.tolist(), (counts.sum() / (len(counts) * counts)).tolist(), strict=True))
    if not isinstance(class_weight, Mapping):
        raise DataError(f'class_weight must be "balanced" or a dict of weights by class, got {class_weight!r}')
    found: dict[float, float] = {}
    for label, weight in class_weight.items():
        try:
            found[float(label)] = float(weight)
        except (TypeError, ValueError):
            raise DataError(
                f"class_weight must have numbers for classes and weights, got {label!r}: {weight!r}"
            ) from None
        if not 0.0 <= found[float(label)] <= LARGEST:
            raise DataError(f"class_weight must be at least 0 and finite, got {weight!r} for class {label!r}")
    return found


def weigh(weights: Array | None, classes: Mapping[float, float], y: Array, dtype: str, own: Backend) -> Array:
    """Return each sample's weight: its own, if it has one, times that of its class."""
    xp, labels = own.xp, _numbers(y)
    whole = not is_floating(xp, labels)
    factor = xp.ones(labels.shape, dtype=getattr(xp, dtype), device=own.device)
    for label, weight in classes.items():
        factor = xp.where(labels == (int(label) if whole else label), weight, factor)
    return factor if weights is None else weights * factor


def _numbers(y: Any) -> Any:
    """Return targets as class numbers (N,); DataError where a sample has none or several."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise DataError(
            f"class_weight needs one class a sample, got targets {tuple(y.shape)}: "
            "pass sample_weight, or give the loss a class_weight, functools.partial(xn.cross_entropy, class_weight=…)"
        )
    return y
