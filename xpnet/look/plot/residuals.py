"""How far a regression is off, and where."""

import numpy as np

from xpnet import metrics
from xpnet.arrays import Array
from xpnet.errors import ShapeError
from xpnet.look.plot.canvas import Axes, Sheet, colour, mix, positive, ramp, sheet, tidy
from xpnet.look.plot.numbers import complete, host

DOTS = 3000
"""Samples up to which each is a dot; more are counted in hexagons, so that neither time nor ink runs out."""


def residuals(prediction: Array, target: Array, count: int = 4, figure: Sheet | None = None) -> Sheet:
    """Draw the target against the prediction, and what is left, y − ŷ, against the prediction: a row for each output.

    prediction and target (N,) or (N, O); of more than `count` outputs the first are drawn. Left, what is right lies on
    the diagonal. Right, a network that has learned all there is leaves a cloud around 0 that looks alike everywhere: a
    bend is what it has missed, a funnel is noise that grows with ŷ. The band is ± the root mean squared error.
    Beyond 3,000 samples they are counted in hexagons, the darker the more.

    ShapeError if the two differ in shape, DataError for NaN.
    """
    p, t = (complete("residuals", what, _columns(what, x)) for what, x in zip(NAMES, (prediction, target), strict=True))
    if p.shape != t.shape or not p.size:
        raise ShapeError(
            f"residuals needs a prediction and a target of one shape, of at least one sample, got {p.shape}, {t.shape}"
        )
    rows = min(positive(count), p.shape[1])
    figure = sheet(figure, (8.6, 3.6 * rows))
    for k, (left, right) in enumerate(figure.subplots(rows, 2, squeeze=False)):
        y, seen = t[:, k], p[:, k]
        error = float(metrics.root_mean_squared_error(seen, y))
        low, high = min(y.min(), seen.min()), max(y.max(), seen.max())
        left.plot((low, high), (low, high), ":", color=colour(7), alpha=0.7, linewidth=1.2)
        _cloud(left, seen, y)
        tidy(left, "prediction ŷ", "target y" if p.shape[1] == 1 else f"target y, output {k}")
        left.set_title(f"R² {float(metrics.r2(seen, y)):.3f}", fontsize="medium")
        right.axhspan(-error, error, color=mix(right.get_facecolor(), colour(1), 0.18), zorder=0)
        right.axhline(0.0, color=colour(7), linewidth=0.8, alpha=0.7)
        _cloud(right, seen, y - seen)
        tidy(right, "prediction ŷ", "left over, y − ŷ")
        right.set_title(f"root mean squared error {error:.4g}", fontsize="medium")
    return figure


NAMES = ("the prediction", "the target")


def _columns(what: str, x: Array) -> np.ndarray:
    """Return numbers (N, O) in float64."""
    numbers = host(x, f"residuals: {what}").astype(np.float64)
    return numbers.reshape(len(numbers), -1) if numbers.ndim and numbers.size else numbers.reshape(0, 1)


def _cloud(ax: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Draw samples as dots, or, of very many, how many there are in each place."""
    if len(x) <= DOTS:
        ax.plot(x, y, "o", color=colour(0), markersize=4, alpha=0.6, markeredgewidth=0)
    else:
        shades = ramp("counts", mix(ax.get_facecolor(), colour(0), 0.25), colour(0))
        ax.hexbin(x, y, gridsize=45, bins="log", mincnt=1, cmap=shades, linewidths=0.2)
