"""What is best seen as an image: weights, digits, the confusion matrix."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet import metrics
from xpnet.arrays import Array
from xpnet.errors import DataError, ShapeError
from xpnet.look.plot.canvas import Axes, Sheet, axes, colour, host, mix, pyplot, ramp, readable, sheet

if TYPE_CHECKING:
    from xpnet.model import Model


def weights(
    source: "Model | Array",
    shape: tuple[int, int] | None = None,
    count: int = 24,
    titles: Sequence[object] = (),
    figure: Sheet | None = None,
) -> Sheet:
    """Draw the weights of the first units of the first layer as images: blue below zero, orange above.

    `source` is a Model, or a matrix W (I, O); `shape` is the image's, height times width being I; a square if left out.
    """
    matrix = _first_matrix(source) if hasattr(source, "net") else host(source)
    if matrix.ndim != 2:
        raise ShapeError(f"weights needs a matrix (I, O), got {matrix.shape}: pass a Model or one matrix")
    inputs, units = matrix.shape
    side = math.isqrt(inputs)
    height, width = shape or (side, side)
    if height * width != inputs:
        raise ShapeError(f"weights: {inputs} inputs are no image of {height} x {width}: pass shape=(height, width)")
    count = min(count, units)
    figure, cells = _grid(count, figure)
    background = pyplot().rcParams["axes.facecolor"]
    shades = ramp("weights", colour(0), background, colour(1))
    limit = float(np.quantile(np.abs(matrix[:, :count]), 0.998)) or 1.0
    for unit, ax in enumerate(cells):
        picture = ax.imshow(matrix[:, unit].reshape(height, width), cmap=shades, vmin=-limit, vmax=limit)
        ax.set_title(str(titles[unit] if unit < len(titles) else f"unit {unit}"), fontsize="small", pad=3)
    figure.colorbar(picture, ax=cells, label="weight", shrink=0.8, extend="both")
    return figure


def images(
    pictures: Array,
    titles: Sequence[object] = (),
    count: int = 24,
    figure: Sheet | None = None,
) -> Sheet:
    """Draw the first pictures (N, H, W), a title above each."""
    pictures = host(pictures)
    if pictures.ndim != 3 or not len(pictures):
        raise ShapeError(f"images needs pictures (N, H, W), at least one, got {pictures.shape}: reshape them")
    figure, cells = _grid(min(count, len(pictures)), figure)
    for k, ax in enumerate(cells):
        ax.imshow(pictures[k], cmap="gray", vmin=pictures.min(), vmax=pictures.max())
        ax.set_title(str(titles[k]) if k < len(titles) else "", fontsize="small", pad=3)
    return figure


def mistakes(
    pictures: Array,
    prediction: Array,
    labels: Array,
    count: int = 20,
    figure: Sheet | None = None,
) -> Sheet:
    """Draw the worst mistakes first: where the wrong class leads the right one by most, in scores or probabilities.

    pictures (N, H, W), prediction (N, C), labels (N,).
    """
    prediction, labels = host(prediction).astype(np.float64), host(labels).astype(np.int64)
    chosen = prediction.argmax(axis=1)
    lead = prediction.max(axis=1) - prediction[np.arange(len(labels)), labels]
    wrong = np.flatnonzero(chosen != labels)
    if not wrong.size:
        raise DataError("mistakes: there are none, every sample is classified right")
    worst = wrong[np.argsort(-lead[wrong], kind="stable")][:count]
    titles = [f"{labels[k]} taken for {chosen[k]}" for k in worst]
    return images(host(pictures)[worst], titles, count, figure)


def confusion_matrix(
    prediction: Array,
    labels: Array,
    names: Sequence[object] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw how often each label (row) was predicted as each class (column): right in blue, wrong in orange.

    prediction (N, C), labels (N,). The two are shaded on scales of their own, so that rare mistakes can be seen.
    """
    prediction = host(prediction)
    table = host(metrics.confusion_matrix(prediction, host(labels)))
    classes = len(table)
    ax = axes(ax, (0.47 * classes + 2.0, 0.47 * classes + 1.6))
    right = np.eye(classes, dtype=bool)
    share = np.where(right, table / max(table[right].max(), 1), table / max(table[~right].max(initial=0), 1))
    shades = np.empty((classes, classes, 3))
    for i, j in np.ndindex(classes, classes):
        shades[i, j] = mix(ax.get_facecolor(), colour(0 if i == j else 1), 0.85 * share[i, j])
        if table[i, j]:
            ax.text(j, i, str(table[i, j]), ha="center", va="center", color=readable(shades[i, j]), fontsize="small")
    ax.imshow(shades)
    ticks = [str(name) for name in names or range(classes)]
    ax.set_xticks(range(classes), ticks)
    ax.set_yticks(range(classes), ticks)
    ax.set(xlabel="predicted class", ylabel="true class", title=f"{int(table.sum()):,} samples, counts")
    ax.grid(False)
    return ax


def _first_matrix(model: "Model") -> np.ndarray:
    for window in model.net.windows(model.theta).values():
        if window.ndim == 2:
            return host(window)
    raise DataError("weights: the network has no matrix of weights")


def _grid(count: int, figure: Sheet | None) -> tuple[Sheet, list[Any]]:
    """Return a figure and `count` panels without axes on it: wider than high, and the last row full if possible."""
    root = math.sqrt(count)
    columns = min(range(math.ceil(root), math.ceil(2 * root) + 1), key=lambda n: (-count % n, abs(n - 1.6 * root)))
    rows = math.ceil(count / columns)
    figure = sheet(figure, (1.25 * columns + 0.8, 1.4 * rows + 0.2))
    cells = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax in cells:
        ax.set_axis_off()
    return figure, cells[:count]
