"""How well scores tell the samples of a class from all others, at every threshold: ROC, precision and recall."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from xpnet import metrics
from xpnet.arrays import Array
from xpnet.errors import DataError
from xpnet.look.plot.canvas import DASHES, Axes, axes, colour, legend, tidy
from xpnet.look.plot.numbers import class_names, class_numbers, class_scores, complete
from xpnet.metrics.ranking import class_columns

MOST = 6
"""Curves of a figure: as many as there are colours that stand out. Of more classes the worst are drawn."""

POINTS = 1000
"""Points of a curve at most: more cannot be told apart."""

CHANCE = "guessing"


class Ranking(NamedTuple):
    """A class against the rest: its number, its area, and the points of its curve."""

    number: int
    area: float
    x: np.ndarray
    y: np.ndarray


def roc(
    prediction: Array,
    labels: Array,
    names: Sequence[object] | None = None,
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """Draw the ROC curve: of the samples of a class the share that is found, against the share of false alarms.

    prediction (N, C), scores or probabilities, or one score a sample; labels (N,). Two classes give the curve of
    class 1, more one for each against the rest; of more than six the six with the least area are drawn. A class
    that has no samples, or all, has no curve. The area is `metrics.roc_auc`. Called again with the same `ax`, another
    model's curve is added; `label` is its name. (Fawcett, Pattern Recognition Letters 27, 2006)

    DataError for NaN, for labels that do not fit, and where no class has a curve.
    """
    found = _ranked("roc", prediction, labels, _roc_points, metrics.roc_auc)
    ax = axes(ax, (4.9, 4.6))
    _guess(ax, (0.0, 1.0))
    _draw(ax, found, names, label, "AUC", "default")
    ax.set_aspect("equal")
    return tidy(ax, "false alarms, share of the others", "found, share of the class")


def precision_recall(
    prediction: Array,
    labels: Array,
    names: Sequence[object] | None = None,
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """Draw precision against recall: of what is taken for the class the share that is it, of the class what is found.

    The arguments, and which curves there are, are as in `roc`. The curve is a stair, for which alone the area under it
    is `metrics.average_precision`; guessing, drawn for two classes, has the share of class 1 as its precision.
    (Davis & Goadrich, ICML 2006)

    DataError as in `roc`.
    """
    found = _ranked("precision_recall", prediction, labels, _stair, metrics.average_precision)
    ax = axes(ax, (4.9, 4.6))
    if found.classes == 2:
        _guess(ax, (found.share, found.share))
    _draw(ax, found, names, label, "AP", "steps-pre")
    ax.set_ylim(-0.03, 1.03)
    return tidy(ax, "recall, share of the class that is found", "precision, share of what is found")


class Found(NamedTuple):
    """The curves there are, the worst first, of how many classes, and the share of class 1."""

    curves: list[Ranking]
    classes: int
    share: float


def _ranked(
    who: str,
    prediction: Array,
    labels: Array,
    points: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    area: metrics.Metric,
) -> Found:
    """Return the curve of class 1, or those of all classes against the rest."""
    scores = complete(who, "the prediction", class_scores(who, prediction))
    classes = scores.shape[1]
    true = class_numbers(labels, len(scores), who, classes)
    eps = float(np.finfo(scores.dtype).eps)
    columns = class_columns(np, scores.astype(np.float64), np.ones(len(scores)), 8.0 * eps * classes)
    kept: list[tuple[float, int]] = []
    for k in range(1 if classes == 2 else 0, classes):
        positive = true == k
        if 0 < positive.sum() < len(true):
            kept.append((float(area(columns[:, k], positive.astype(np.int64))), k))
    if not kept:
        raise DataError(f"{who} compares a class with the others, but all {len(true)} labels are {true[0]}")
    worst = sorted(sorted(kept)[:MOST], key=lambda pair: pair[1])
    found = [Ranking(k, value, *points(columns[:, k], true == k)) for value, k in worst]
    return Found(found, classes, float(np.mean(true == 1)))


def _sums(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many of the class, and how many others, have at least each score that occurs, the highest first."""
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    last = np.append(np.flatnonzero(falling[1:] != falling[:-1]), len(order) - 1)
    hits = np.cumsum(positive[order])[last]
    return hits, last + 1 - hits


def _roc_points(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return false alarms and finds as shares, from (0, 0) to (1, 1), the corners of the curve alone."""
    hits, misses = (np.append(0, sums) for sums in _sums(scores, positive))
    bends = np.diff(hits)[1:] * np.diff(misses)[:-1] != np.diff(hits)[:-1] * np.diff(misses)[1:]
    corners = _thinned(np.flatnonzero(np.concatenate([[True], bends, [True]])))
    return misses[corners] / misses[-1], hits[corners] / hits[-1]


def _stair(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return recall, from 0, and the precision up to there: one step for each threshold that finds another."""
    hits, misses = _sums(scores, positive)
    steps = _thinned(np.flatnonzero(np.diff(hits, prepend=0)))
    precision = hits[steps] / (hits[steps] + misses[steps])
    return np.append(0.0, hits[steps] / hits[-1]), np.append(precision[0], precision)


def _thinned(places: np.ndarray) -> np.ndarray:
    """Return as many of the places as can be told apart, the first and the last among them."""
    if len(places) <= POINTS:
        return places
    return np.asarray(places[np.linspace(0, len(places) - 1, POINTS).round().astype(np.int64)])


def _guess(ax: Axes, heights: tuple[float, float]) -> None:
    """Draw what guessing comes to, unless it is there."""
    if not any(line.get_label() == CHANCE for line in ax.lines):
        ax.plot((0.0, 1.0), heights, ":", color=colour(7), alpha=0.6, linewidth=1.2, label=CHANCE)


def _draw(ax: Axes, found: Found, names: Sequence[object] | None, label: str | None, area: str, style: str) -> None:
    """Draw the curves, and name them with their areas."""
    titles = class_names("names=", names, found.classes)
    first = sum(line.get_label() != CHANCE for line in ax.lines)
    for k, curve in enumerate(found.curves, first):
        own = titles[curve.number] if found.classes > 2 or names is not None else ""
        name = ": ".join(word for word in (label, own) if word)
        text = f"{name}, {area} {curve.area:.3f}" if name else f"{area} {curve.area:.3f}"
        ax.plot(curve.x, curve.y, DASHES[k // MOST % 4], drawstyle=style, color=colour(k % MOST), label=text, lw=1.8)
    if found.classes > MOST:
        ax.set_title(f"the {len(found.curves)} worst of {found.classes:,} classes", fontsize="medium")
    legend(ax)
