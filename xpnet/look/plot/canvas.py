"""What every picture stands on: matplotlib, imported when it is needed, the paper and the colours."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Axes
    from matplotlib.figure import Figure, SubFigure

    Sheet: TypeAlias = Figure | SubFigure
else:
    Axes = Sheet = Any

BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PINK, YELLOW = "#56B4E9", "#CC79A7", "#F0E442"
ON_LIGHT = (BLUE, VERMILLION, GREEN, ORANGE, SKY, PINK, YELLOW)
ON_DARK = (SKY, ORANGE, GREEN, PINK, YELLOW, VERMILLION, BLUE)
"""Okabe and Ito's colours, those with most contrast first; for their eighth, black, stands the style's text colour."""

MARKERS = "osD^vPX*<>"
DASHES = ("-", "--", "-.", ":")
LEGIBLE = 30
"""Classes up to which each has room for its name and numbers; a picture grows with them no further."""


def pyplot() -> Any:
    """Import matplotlib.pyplot, or say in one line what to install."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise ImportError("pictures need matplotlib: pip install 'xpnet[plot]'") from None
    return plt


def axes(ax: Axes | None, size: tuple[float, float] = (5.6, 3.8)) -> Axes:
    """Return the Axes to draw on: the one given, or a new one on a figure of this size in inches."""
    pyplot()
    if ax is not None and not hasattr(ax, "plot"):
        raise TypeError(f"ax= takes one matplotlib Axes, got {type(ax).__name__}: pass one of figure.subplots()")
    return new_figure(size).subplots() if ax is None else ax


def sheet(figure: Sheet | None, size: tuple[float, float]) -> Sheet:
    """Return the figure to draw on: the one given, or a new one of this size in inches."""
    pyplot()
    if figure is not None and not hasattr(figure, "subplots"):
        raise TypeError(f"figure= takes a matplotlib Figure, got {type(figure).__name__}: pass plt.figure()")
    return new_figure(size) if figure is None else figure


def new_figure(size: tuple[float, float]) -> Any:
    """Return a new figure of this size in inches.

    pyplot holds it where it is going to show it: in a notebook, at the end of the cell, or in windows. Elsewhere
    nobody would close it, and it is its caller's alone.
    """
    plt = pyplot()
    from matplotlib.backends import BackendFilter, backend_registry

    from xpnet.look.plot.drawing import Drawing

    if plt.get_backend().lower() in backend_registry.list_builtin(BackendFilter.NON_INTERACTIVE):
        return Drawing(figsize=size, layout="constrained")
    return plt.figure(figsize=size, layout="constrained", FigureClass=Drawing)


def panels(count: int, figure: Sheet | None, shape: Sequence[int] = (1, 1)) -> tuple[Sheet, list[Any]]:
    """Return a figure and `count` panels without axes on it, for images of this height and width.

    It is wider than high, and its last row full if possible.
    """
    high = min(max(shape[0] / shape[1], 0.25), 4.0)
    root, wide = math.sqrt(count), 1.6 * math.sqrt(high)
    least = math.ceil(root * min(wide, 1.0))
    columns = min(range(least, min(2 * least, count) + 1), key=lambda n: (-count % n, abs(n - wide * root)))
    rows = math.ceil(count / columns)
    figure = sheet(figure, (1.25 * columns + 0.8, (1.25 * high + 0.15) * rows + 0.2))
    cells = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax in cells:
        ax.set_axis_off()
    return figure, cells[:count]


def positive(count: int) -> int:
    """Return how many panels to draw; ValueError unless there is one."""
    if not count >= 1:
        raise ValueError(f"count must be at least 1, got {count}")
    return int(count)


def colour(k: int) -> str:
    """Return the k-th colour for the active style: Okabe and Ito's seven, then the text colour, and again."""
    plt = pyplot()
    palette = ON_DARK if readable(plt.rcParams["axes.facecolor"]) == "white" else ON_LIGHT
    k %= len(palette) + 1
    return palette[k] if k < len(palette) else str(plt.rcParams["text.color"])


def mix(background: Any, foreground: Any, share: float) -> tuple[float, ...]:
    """Return `share` of the foreground colour on the background: an opaque colour, so that layers do not add up."""
    from matplotlib.colors import to_rgb

    pairs = zip(to_rgb(background), to_rgb(foreground), strict=True)
    return tuple((1.0 - share) * b + share * f for b, f in pairs)


def readable(background: Any) -> str:
    """Return black or white, whichever is easier to read on a colour."""
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(background)
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def ramp(name: str, *colours: Any) -> Any:
    """Return the colour map that runs through these colours."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list(name, colours)


def tidy(ax: Axes, xlabel: str, ylabel: str) -> Axes:
    """Label the axes, draw a faint grid, and drop the lines that say nothing."""
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.grid(alpha=0.25, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def legend(ax: Axes, columns: int = 1) -> None:
    """Add a legend where it hides least, on a background that lets the curves shine through."""
    ax.legend(framealpha=0.75, fontsize="small", ncols=columns)
