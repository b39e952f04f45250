"""The loss against the learning rate: what a search for a rate saw."""

from typing import TYPE_CHECKING

from xpnet.look.plot.canvas import Axes, axes, colour, legend, tidy

if TYPE_CHECKING:
    from xpnet.rate_finder import RateSearch


def rates(found: "RateSearch", ax: Axes | None = None) -> Axes:
    """Draw what `xn.find_rate` found: the loss of each step against its rate, smoothed, and the rate to take."""
    if not hasattr(found, "smoothed"):
        raise TypeError(f"expected what xn.find_rate returned, got {type(found).__name__}")
    ax = axes(ax)
    ax.plot(found.rates, found.losses, color=colour(0), alpha=0.3, linewidth=1, label="each step")
    ax.plot(found.rates, found.smoothed, color=colour(0), linewidth=1.8, label="smoothed")
    ax.axvline(found.best, color=colour(1), linewidth=1.4, linestyle="--", label=f"best: {found.best:.2g}")
    ax.set_xscale("log")
    tidy(ax, "learning rate η", "loss, mean per sample")
    legend(ax)
    return ax
