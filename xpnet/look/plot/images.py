"""Pictures of the data, and how they were classified; the confusion matrix."""

from collections.abc import Sequence

import numpy as np

from xpnet import metrics
from xpnet.arrays import Array
from xpnet.errors import DataError, ShapeError
from xpnet.look.plot.canvas import LEGIBLE, Axes, Sheet, axes, colour, panels, positive, readable
from xpnet.look.plot.numbers import class_names, class_numbers, class_scores, host

LINE = 17
"""Letters of a title beyond which it is broken into two lines."""


def images(
    pictures: Array,
    titles: Sequence[object] = (),
    count: int = 24,
    figure: Sheet | None = None,
) -> Sheet:
    """Draw the first pictures, grey (N, H, W) or (N, H, W, 1) or in colours (N, H, W, 3), a title above each.

    Black is the least number of all grey pictures, white the largest. Colours are bytes 0..255 or numbers in 0..1;
    other numbers, such as those of standardized pictures, are drawn from the least to the largest.
    """
    pictures = as_pictures("images", pictures)
    figure, cells = panels(min(positive(count), len(pictures)), figure, pictures.shape[1:3])
    show(cells, pictures, titles)
    return figure


def samples(
    pictures: Array,
    labels: Array,
    prediction: Array | None = None,
    count: int = 24,
    names: Sequence[object] | None = None,
    figure: Sheet | None = None,
) -> Sheet:
    """Draw pictures with their labels and, if there is a prediction, what they were taken for.

    pictures as in `images`, labels (N,), prediction (N, C) or one score a sample; `names` are those of the classes.
    With a prediction the mistakes come first, then what is right, both by how far the best wrong class leads the right
    one, in scores or probabilities: the worst mistake is the first, and what is most surely right the last.
    """
    pictures = as_pictures("samples", pictures)
    if prediction is None:
        numbers = class_numbers(labels, len(pictures), "samples", None if names is None else len(names))
        captions = [str(k if names is None else names[k]) for k in numbers]
        return images(pictures, captions, count, figure)
    numbers, scores = _judged("samples", pictures, labels, prediction)
    titles = class_names("samples", names, scores.shape[1])
    order = _worst_first(scores, numbers)[: positive(count)]
    captions = [_caption(titles[numbers[k]], titles[scores[k].argmax()]) for k in order]
    return images(pictures[order], captions, count, figure)


def mistakes(
    pictures: Array,
    prediction: Array,
    labels: Array,
    count: int = 20,
    figure: Sheet | None = None,
    names: Sequence[object] | None = None,
) -> Sheet:
    """Draw `samples` that are classified wrong and no others, the worst mistake first.

    pictures as in `images`, prediction (N, C) or one score a sample, labels (N,).
    """
    pictures = as_pictures("mistakes", pictures)
    numbers, scores = _judged("mistakes", pictures, labels, prediction)
    wrong = scores.argmax(axis=1) != numbers
    if not wrong.any():
        raise DataError("mistakes: there are none, every sample is classified right")
    return samples(pictures[wrong], numbers[wrong], scores[wrong], count, names, figure)


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
    scores = class_scores("confusion_matrix", prediction)
    classes = scores.shape[1]
    true = class_numbers(labels, len(scores), "confusion_matrix", classes)
    ticks = class_names("confusion_matrix", names, classes)
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


def as_pictures(who: str, pictures: Array) -> np.ndarray:
    """Return pictures (N, H, W) or (N, H, W, 3) as a NumPy array; ShapeError if they are none."""
    drawn = host(pictures, f"{who}: pictures")
    if drawn.ndim == 4 and drawn.shape[3] == 1:
        drawn = drawn[..., 0]
    if not drawn.size or (drawn.ndim != 3 and drawn.shape[3:] != (3,)):
        first = drawn.ndim == 4 and drawn.shape[1] in (1, 3)
        remedy = "move the channels to the end, x.transpose(0, 2, 3, 1)" if first else "reshape them"
        raise ShapeError(
            f"{who} needs pictures (N, H, W), (N, H, W, 1) or (N, H, W, 3), at least one, got {drawn.shape}: {remedy}"
        )
    return drawn


def _in_range(colours: np.ndarray) -> np.ndarray:
    """Return colours in 0..1: bytes divided by 255, other numbers that go beyond moved there all alike."""
    low, high = float(np.nanmin(colours)), float(np.nanmax(colours))
    if colours.dtype.kind in "iu" and low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    elif low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    return np.asarray((colours.astype(np.float64) - low) / ((high - low) or 1.0))


def show(cells: Sequence[Axes], pictures: np.ndarray, titles: Sequence[object]) -> None:
    """Draw the first pictures, one on each panel, on one scale, and a title above."""
    titles, low, high = list(titles), pictures.min(), pictures.max()
    drawn = pictures[: len(cells)] if pictures.ndim == 3 else _in_range(pictures[: len(cells)])
    for k, ax in enumerate(cells):
        ax.imshow(drawn[k], cmap="gray", vmin=low, vmax=high)
        ax.set_title(str(titles[k]) if k < len(titles) else "", fontsize="small", pad=3)


def _worst_first(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the order of samples: the mistakes, then the others, by the lead of the best wrong class."""
    rows, others = np.arange(len(labels)), scores.copy()
    others[rows, labels] = -np.inf
    with np.errstate(invalid="ignore"):
        lead = others.max(axis=1) - scores[rows, labels]
    return np.lexsort((-lead, scores.argmax(axis=1) == labels))


def _caption(label: str, chosen: str) -> str:
    """Return the title of a sample: its label and, if it is another, the class it was taken for."""
    if label == chosen:
        return label
    return f"{label}{chr(10) if len(label + chosen) + 11 > LINE else ' '}taken for {chosen}"


def _judged(who: str, pictures: np.ndarray, labels: Array, prediction: Array) -> tuple[np.ndarray, np.ndarray]:
    """Return labels (N,) and scores (N, C), which belong to the pictures."""
    scores = class_scores(who, prediction)
    if len(pictures) != len(scores):
        raise ShapeError(f"{who}: {len(pictures)} pictures, but predictions for {len(scores)}: pass those shown")
    return class_numbers(labels, len(scores), who, scores.shape[1]), scores
