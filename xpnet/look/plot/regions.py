"""Points and the classes a network sees between them; the lesson's training picture."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from xpnet.arrays import Array
from xpnet.errors import DataError, ShapeError
from xpnet.look.plot.canvas import LEGIBLE, MARKERS, Axes, Sheet, axes, colour, legend, mix, pyplot, sheet, tidy
from xpnet.look.plot.curves import curves, recorded
from xpnet.look.plot.numbers import class_numbers, host
from xpnet.training.history import History

if TYPE_CHECKING:
    from xpnet.model import Model

Predictor: TypeAlias = "Model | Callable[[np.ndarray], Array]"
"""A Model, or any function from inputs (N, F) to scores or probabilities (N, C), or to one score a sample."""


def scatter(x: Array, labels: Array, features: tuple[int, int] = (0, 1), ax: Axes | None = None) -> Axes:
    """Draw the samples x (N, F) in the plane of two features, a colour and a marker for each class."""
    x, features = _table("scatter", x, features)
    labels = class_numbers(labels, len(x), "scatter")
    ax = axes(ax, (4.8, 4.2))
    classes = np.unique(labels)
    for k in classes:
        points = x[labels == k][:, features]
        ax.scatter(
            points[:, 0],
            points[:, 1],
            s=28,
            color=colour(int(k)),
            marker=MARKERS[int(k) % len(MARKERS)],
            edgecolors=ax.get_facecolor(),
            linewidths=0.7,
            label=f"class {k}",
            zorder=3,
        )
    _features(ax, features)
    if 0 < len(classes) <= LEGIBLE:
        legend(ax)
    return ax


def decision_regions(
    predict: Predictor,
    x: Array,
    labels: Array | None = None,
    features: tuple[int, int] = (0, 1),
    ax: Axes | None = None,
    resolution: int = 160,
) -> Axes:
    """Fill the plane of two features with the colour of the predicted class, stronger where the network is surer.

    `predict` is a Model, or a function from (N, F) to scores (N, C). Features beyond the two are held at their mean
    over x. Given `labels`, the samples are drawn on top. Each filled contour is a quarter of the margin between
    the likeliest class and the next; the line is where the two are equal.
    """
    x, features = _table("decision_regions", x, features)
    if not len(x) or not np.all(np.isfinite(x)):
        raise DataError("decision_regions needs at least one sample, and finite numbers: they say where to look")
    if resolution < 2:
        raise ValueError(f"decision_regions: resolution must be at least 2, got {resolution}")
    if hasattr(predict, "net"):
        predict.net.output_shape(x.shape)  # a ShapeError here names the layer and the number of inputs it wants
    elif not callable(predict) and not hasattr(predict, "predict"):
        raise TypeError(f"decision_regions needs a Model or a function of x, got {type(predict).__name__}")
    if labels is not None:
        labels = class_numbers(labels, len(x), "decision_regions")
    sides = [_side(x[:, f], resolution) for f in features]
    grid = np.repeat(x.mean(axis=0, keepdims=True), resolution**2, axis=0).astype(np.float32)
    horizontal, vertical = np.meshgrid(*sides)
    grid[:, features[0]], grid[:, features[1]] = horizontal.ravel(), vertical.ravel()
    scores = host(predict.predict(grid) if hasattr(predict, "predict") else predict(grid), "the prediction")
    probabilities = _probabilities(scores, len(grid))
    ax = axes(ax, (4.8, 4.2))
    chosen, (second, first) = probabilities.argmax(axis=1), np.partition(probabilities, -2, axis=1)[:, -2:].T
    for k in np.unique(chosen):  # no other class has a place in the plane
        margin = probabilities[:, k] - np.where(chosen == k, second, first)
        if margin.max() > 0:
            _fill(ax, sides, margin.reshape(horizontal.shape), colour(int(k)))
    if labels is not None:
        scatter(x, labels, features, ax)
    _features(ax, features).grid(False)
    return ax


def _fill(ax: Axes, sides: list[np.ndarray], margin: np.ndarray, shade: str) -> None:
    """Fill where the margin is above 0, stronger at each quarter, and draw the line where it is 0, if there is one."""
    shades = [mix(ax.get_facecolor(), shade, share) for share in (0.14, 0.22, 0.30, 0.38)]
    ax.contourf(*sides, margin, levels=(0.0, 0.25, 0.5, 0.75, 1.01), colors=shades)
    if margin.min() <= 0:
        ax.contour(*sides, margin, levels=(0.0,), colors=[pyplot().rcParams["text.color"]], linewidths=0.8)


def training(
    history: History,
    predict: Predictor,
    x: Array | None = None,
    labels: Array | None = None,
    metric: str = "accuracy",
    figure: Sheet | None = None,
) -> Sheet:
    """Draw the lesson's training picture: training and validation curves above, decision regions below.

    Without x the loss stands below.
    """
    recorded(history, metric)
    figure = sheet(figure, (5.4, 7.0))
    above, below = figure.subplots(2, 1, height_ratios=(2, 3) if x is not None else (1, 1))
    curves(history, metric, above)
    if x is None:
        curves(history, "loss", below)
    else:
        decision_regions(predict, x, labels, ax=below)
    return figure


def _features(ax: Axes, features: tuple[int, int]) -> Axes:
    ax.locator_params(nbins=6)
    return tidy(ax, f"feature {features[0]}", f"feature {features[1]}")


def _table(who: str, x: Any, features: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the samples and the two features to draw; ShapeError or DataError if they are none."""
    table, (a, b) = host(x, f"{who}: x"), features
    if table.ndim != 2 or table.shape[1] < 2:
        raise ShapeError(f"{who} needs x (N, F) with at least two features, got {table.shape}: it draws a plane")
    if a == b or not all(0 <= f < table.shape[1] for f in (a, b)):
        raise DataError(f"{who}: features must be two different ones of 0..{table.shape[1] - 1}, got {features}")
    return table, (int(a), int(b))


def _side(values: np.ndarray, resolution: int) -> np.ndarray:
    """Return the range of a feature, and a little more on both sides."""
    low, high = float(values.min()), float(values.max())
    margin = 0.08 * (high - low) or 1.0
    return np.linspace(low - margin, high + margin, resolution)


def _probabilities(scores: np.ndarray, samples: int) -> np.ndarray:
    """Return probabilities (N, C) of scores (N, C), of one score a sample, or of probabilities."""
    if scores.ndim not in (1, 2) or len(scores) != samples or not scores.size:
        raise ShapeError(f"decision_regions needs scores (N, C) for the {samples} points it drew, got {scores.shape}")
    scores = scores.astype(np.float64)
    if scores.ndim == 1 or scores.shape[1] == 1:
        scores = np.stack([np.zeros(scores.size), scores.reshape(-1)], axis=1)
    elif scores.min() >= 0 and np.allclose(scores.sum(axis=1), 1.0, atol=1e-4):
        return scores
    exp = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(exp / exp.sum(axis=1, keepdims=True))
