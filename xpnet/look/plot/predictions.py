"""What a classifier sees in pictures: each beside the classes that it finds likeliest."""

import math
from collections.abc import Sequence

import numpy as np

from xpnet.arrays import Array
from xpnet.errors import ShapeError
from xpnet.look.plot.canvas import Axes, Sheet, colour, mix, positive, pyplot, sheet
from xpnet.look.plot.images import as_pictures, show
from xpnet.look.plot.numbers import class_names, class_numbers, class_probabilities

COLUMNS = 3


def predictions(
    pictures: Array,
    probabilities: Array,
    labels: Array | None = None,
    count: int = 12,
    names: Sequence[object] | None = None,
    top: int = 3,
    figure: Sheet | None = None,
) -> Sheet:
    """Draw the first pictures, each beside the probabilities of the `top` classes that are likeliest for it.

    pictures as in `images`, probabilities (N, C), or (N,) those of class 1, as `model.predict_proba` gives; with
    labels (N,) the bar of the right class is blue and all others orange. `names` are those of the classes. The worst
    mistakes are drawn by `mistakes`.

    DataError for scores, which are no probabilities, and for NaN.
    """
    drawn, p = as_pictures("predictions", pictures), class_probabilities("predictions", probabilities)
    if len(drawn) != len(p):
        raise ShapeError(f"predictions: {len(drawn)} pictures, but probabilities for {len(p)}: pass those shown")
    titles = class_names("predictions", names, p.shape[1])
    true = None if labels is None else class_numbers(labels, len(p), "predictions", p.shape[1])
    count, top = min(positive(count), len(p)), min(positive(top), p.shape[1])
    columns = min(COLUMNS, count)
    rows = math.ceil(count / columns)
    figure = sheet(figure, (3.4 * columns, (0.35 + max(0.26 * top, 0.95)) * rows))
    cells = figure.subplots(rows, 2 * columns, squeeze=False, width_ratios=[1.0, 1.7] * columns).reshape(-1, 2)
    for ax in cells.flat:
        ax.set_axis_off()
    show(list(cells[:count, 0]), drawn, [] if true is None else [titles[k] for k in true[:count]])
    for k in range(count):
        order = np.argsort(-p[k], kind="stable")[:top]
        shades = [colour(0 if true is None or j == true[k] else 1) for j in order]
        _bars(cells[k, 1], p[k][order], [titles[j] for j in order], shades)
    return figure


def _bars(ax: Axes, p: np.ndarray, titles: Sequence[str], shades: Sequence[str]) -> None:
    """Draw the probabilities as bars, the likeliest on top, each with its class and its number in percent."""
    paper, ink = ax.get_facecolor(), pyplot().rcParams["text.color"]
    places = [-float(k) for k in range(len(p))]
    ax.barh(places, np.ones(len(p)), height=0.86, color=mix(paper, ink, 0.07))
    ax.barh(places, p, height=0.86, color=[mix(paper, shade, 0.6) for shade in shades])
    for y, title, share in zip(places, titles, p, strict=True):
        name = title if len(title) <= 18 else f"{title[:17]}…"
        ax.text(0.03, y, name, va="center", ha="left", fontsize="small", color=ink)
        ax.text(0.97, y, f"{100 * share:.0f} %", va="center", ha="right", fontsize="small", color=ink)
    ax.set(xlim=(0.0, 1.0), ylim=(-max(len(p), 3) + 0.4, 0.6))
