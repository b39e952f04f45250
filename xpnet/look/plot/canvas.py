"""What every picture stands on: matplotlib, imported when it is needed, the colours, and arrays brought home."""

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from xpnet.arrays import Array
from xpnet.backends import backend_of

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


def pyplot() -> Any:
    """Import matplotlib.pyplot, or say in one line what to install."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise ImportError("pictures need matplotlib: pip install 'xpnet[plot]'") from None
    return plt


def axes(ax: Axes | None, size: tuple[float, float] = (5.6, 3.8)) -> Axes:
    """Return the Axes to draw on: the one given, or a new one on a figure of this size in inches."""
    plt = pyplot()
    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def sheet(figure: Sheet | None, size: tuple[float, float]) -> Sheet:
    """Return the figure to draw on: the one given, or a new one of this size in inches."""
    plt = pyplot()
    return plt.figure(figsize=size, layout="constrained") if figure is None else figure


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


def host(array: Array) -> np.ndarray:
    """Return an array of any library, or a list, as a NumPy array."""
    if hasattr(array, "shape") and hasattr(array, "dtype"):
        return np.asarray(backend_of(array).asnumpy(array))
    return np.asarray(array)
