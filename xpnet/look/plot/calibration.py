"""Whether probabilities can be taken at their word: the reliability diagram."""

from typing import NamedTuple

import numpy as np

from xpnet.arrays import Array
from xpnet.checks import integer
from xpnet.look.plot.canvas import MARKERS, Axes, axes, colour, legend, tidy
from xpnet.look.plot.numbers import class_numbers, class_probabilities

PERFECT = "what is said is so"


def calibration(
    probabilities: Array,
    labels: Array,
    bins: int = 10,
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """Draw how often what is predicted with a probability comes true: the reliability diagram.

    probabilities (N, C), or (N,) those of class 1, as `model.predict_proba` gives; labels (N,). Samples are put into
    `bins` intervals of equal width by their probability, of class 1 if there are two classes, of the likeliest class
    if there are more; a point is the mean probability of those in one, and the share of them that is of that class.
    Below the diagonal the network is too sure of itself. Upright lines are Wilson's 95 % interval, large where samples
    are few; the expected calibration error is Σ_b n_b/N |share_b − mean_b|. Called again with the same `ax`, another
    model is added; `label` is its name. (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017)

    DataError for scores, which are no probabilities, for NaN, and for labels that do not fit.
    """
    p = class_probabilities("calibration", probabilities)
    true = class_numbers(labels, len(p), "calibration", p.shape[1])
    chosen = np.ones_like(true) if p.shape[1] == 2 else p.argmax(axis=1)
    found = binned(p[np.arange(len(p)), chosen], true == chosen, integer("calibration", "bins", bins, least=1))
    ax = axes(ax, (4.9, 4.6))
    if not any(line.get_label() == PERFECT for line in ax.lines):
        ax.plot((0.0, 1.0), (0.0, 1.0), ":", color=colour(7), alpha=0.6, linewidth=1.2, label=PERFECT)
    k = sum(line.get_label() != PERFECT for line in ax.lines)
    error = float(np.sum(found.size * np.abs(found.share - found.mean)) / len(p))
    text = f"{label}, ECE {error:.3f}" if label else f"ECE {error:.3f}"
    ax.vlines(found.mean, *_interval(found.share, found.size), color=colour(k), alpha=0.5, linewidth=1.2)
    ax.plot(found.mean, found.share, "-", marker=MARKERS[k % len(MARKERS)], color=colour(k), label=text, lw=1.8, ms=5)
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    legend(ax)
    said = "predicted probability of class 1" if p.shape[1] == 2 else "probability of the likeliest class"
    return tidy(ax, said, "share that comes true")


class Bins(NamedTuple):
    """Of each interval that holds samples: the mean probability, the share that came true, and how many there are."""

    mean: np.ndarray
    share: np.ndarray
    size: np.ndarray


def binned(p: np.ndarray, came_true: np.ndarray, bins: int) -> Bins:
    """Put samples into intervals of [0, 1] of equal width, each with its upper end; empty ones are left out."""
    place = np.searchsorted(np.linspace(0.0, 1.0, bins + 1)[1:-1], p)
    count = np.bincount(place, minlength=bins)
    held = count > 0
    mean, hits = (np.bincount(place, weights, bins)[held] for weights in (p, came_true.astype(np.float64)))
    return Bins(mean / count[held], hits / count[held], count[held])


def _interval(share: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Wilson's 95 % interval of a share of so many: p̃ ± z √(p(1 − p)/n + z²/4n²) / (1 + z²/n), z = 1.96."""
    z = 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return middle - half, middle + half
