"""What is best seen as an image: weights, digits, the confusion matrix."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet import metrics
from xpnet.arrays import Array
from xpnet.errors import DataError, ShapeError
from xpnet.look.plot.canvas import (
    LEGIBLE,
    Axes,
    Sheet,
    axes,
    class_numbers,
    colour,
    host,
    pyplot,
    ramp,
    readable,
    sheet,
)

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
    matrix = _first_matrix(source) if hasattr(source, "net") else host(source, "weights: the matrix")
    if matrix.ndim != 2 or not matrix.size:
        raise ShapeError(f"weights needs a matrix (I, O), got {matrix.shape}: pass a Model or one matrix")
    inputs, units = matrix.shape
    side = math.isqrt(inputs)
    height, width = (side, side) if shape is None else _pair("weights: shape", shape)
    if height * width != inputs:
        raise ShapeError(f"weights: {inputs} inputs are no image of {height} x {width}: pass shape=(height, width)")
    count = min(_positive(count), units)
    titles = list(titles)
    figure, cells = _grid(count, figure)
    background = pyplot().rcParams["axes.facecolor"]
    shades = ramp("weights", colour(0), background, colour(1))
    shown = np.abs(matrix[:, :count])
    limit = float(np.quantile(shown[np.isfinite(shown)], 0.998)) if np.any(np.isfinite(shown)) else 0.0
    limit = limit or 1.0
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
    pictures, titles = host(pictures, "images: pictures"), list(titles)
    if pictures.ndim != 3 or not len(pictures):
        raise ShapeError(f"images needs pictures (N, H, W), at least one, got {pictures.shape}: reshape them")
    figure, cells = _grid(min(_positive(count), len(pictures)), figure)
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
    pictures, prediction = host(pictures, "mistakes: pictures"), _scores("mistakes", prediction)
    labels = class_numbers(labels, len(prediction), "mistakes", prediction.shape[1])
    if len(pictures) != len(prediction):
        raise ShapeError(f"mistakes: {len(pictures)} pictures, but predictions for {len(prediction)}: pass those shown")
    chosen = prediction.argmax(axis=1)
    lead = prediction.max(axis=1) - prediction[np.arange(len(labels)), labels]
    wrong = np.flatnonzero(chosen != labels)
    if not wrong.size:
        raise DataError("mistakes: there are none, every sample is classified right")
    worst = wrong[np.argsort(-lead[wrong], kind="stable")][: _positive(count)]
    titles = [f"{labels[k]} taken for {chosen[k]}" for k in worst]
    return images(pictures[worst], titles, count, figure)


def confusion_matrix(
    prediction: Array,
    labels: Array,
    names: Sequence[object] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw how often each label (row) was predicted as each class (column): right in blue, wrong in orange.

    prediction (N, C) or one score a sample, labels (N,). The two are shaded on scales of their own, so that rare
    mistakes can be seen. Beyond 30 classes the picture grows no further, and the counts are left to the shades.
    """
    scores = _scores("confusion_matrix", prediction)
    classes = scores.shape[1]
    true = class_numbers(labels, len(scores), "confusion_matrix", classes)
    ticks = [str(name) for name in (range(classes) if names is None else names)]
    if len(ticks) != classes:
        raise DataError(f"confusion_matrix: {len(ticks)} names for {classes} classes: pass a name for each")
    table = host(metrics.confusion_matrix(scores, true))
    size = 0.47 * min(classes, LEGIBLE)
    ax = axes(ax, (size + 2.0, size + 1.6))
    shades = _shaded(table, ax)
    ax.imshow(shades)
    what = "counts" if classes <= LEGIBLE else "the stronger the more"
    if classes <= LEGIBLE:
        ax.set_xticks(range(classes), ticks)
        ax.set_yticks(range(classes), ticks)
        _counted(table, shades, ax)
    else:
        _named(ax, ticks)
    ax.set(xlabel="predicted class", ylabel="true class", title=f"{int(table.sum()):,} samples, {what}")
    ax.grid(False)
    return ax


def _shaded(table: np.ndarray, ax: Axes) -> np.ndarray:
    """Return the colours of the cells (C, C, 3): the share of the largest count of their kind, right or wrong."""
    from matplotlib.colors import to_rgb

    right = np.eye(len(table), dtype=bool)
    share = np.where(right, table / max(table[right].max(), 1), table / max(table[~right].max(initial=0), 1))
    paper = np.asarray(to_rgb(ax.get_facecolor()))
    ink = np.where(right[..., None], to_rgb(colour(0)), to_rgb(colour(1)))
    return np.asarray(paper + 0.85 * share[..., None] * (ink - paper))


def _counted(table: np.ndarray, shades: np.ndarray, ax: Axes) -> None:
    """Write the counts into the cells."""
    for i, j in np.argwhere(table):
        ax.text(j, i, str(table[i, j]), ha="center", va="center", color=readable(shades[i, j]), fontsize="small")


def _named(ax: Axes, names: Sequence[str]) -> None:
    """Name some of the classes, as many as there is room for."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, nbins=12))
        axis.set_major_formatter(FuncFormatter(lambda k, _: names[int(k)] if 0 <= k < len(names) else ""))


def _scores(who: str, prediction: Array) -> np.ndarray:
    """Return scores (N, C) as numbers of some precision; one score a sample becomes two columns, 0 and the score."""
    scores = host(prediction, f"{who}: prediction")
    scores = scores if scores.dtype.kind == "f" else scores.astype(np.float64)
    if scores.ndim == 1 and scores.size and scores.max() > 1 and np.array_equal(scores, np.rint(scores)):
        raise DataError(f"{who} needs scores (N, C), got what look like class numbers: pass model.predict(x) as it is")
    if scores.ndim == 1 or scores.shape[1:] == (1,):
        scores = np.stack([np.zeros(len(scores), scores.dtype), scores.reshape(-1)], axis=1)
    if scores.ndim != 2 or not len(scores):
        raise ShapeError(f"{who} needs a prediction (N, C) for at least one sample, got {scores.shape}")
    return scores


def _positive(count: int) -> int:
    if not count >= 1:
        raise ValueError(f"count must be at least 1, got {count}")
    return int(count)


def _pair(who: str, pair: object) -> tuple[int, int]:
    """Return two whole numbers; ValueError if they are no such."""
    numbers = host(pair, who)
    if numbers.shape != (2,) or numbers.dtype.kind not in "iu":
        raise ValueError(f"{who} must be two integers, got {pair!r}")
    return int(numbers[0]), int(numbers[1])


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
