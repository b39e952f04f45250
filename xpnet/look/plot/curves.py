"""Numbers against the epoch: what a History and a Microscope recorded."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from xpnet.errors import DataError
from xpnet.look.plot.canvas import DASHES, MARKERS, Axes, Sheet, axes, colour, legend, sheet, tidy
from xpnet.training.history import History

if TYPE_CHECKING:
    from xpnet.look.microscope import Microscope

LABELS = {
    "loss": "loss, mean per sample",
    "accuracy": "accuracy (% of samples)",
    "binary_accuracy": "binary accuracy (% of answers)",
    "zero_one": "0-1 loss (% of samples)",
    "mean_absolute_error": "absolute error (units of y)",
    "r2": "R² (1 is perfect)",
    "learning_rate": "learning rate η",
    "gradient_norm": "gradient norm ‖∂L/∂W‖₂",
    "max_weight": "max |W|",
    "seconds": "time per epoch (s)",
    "update_ratio": "one step's ‖ΔW‖₂ / ‖W‖₂",
    "dead": "dead ReLUs (% of units)",
    "saturated": "saturated outputs (%)",
}
"""What stands on the y-axis, with its unit."""

SHARES = ("accuracy", "binary_accuracy", "zero_one", "dead", "saturated")
"""Quantities in 0..1 that are shown in percent."""

LOGARITHMIC = ("gradient_norm", "update_ratio")

HEALTHY = 1e-3
"""About how much of a matrix one step should change."""


def curves(history: History, name: str = "loss", ax: Axes | None = None) -> Axes:
    """Draw one quantity against the epoch: training as a solid line, validation, if it was recorded, dashed."""
    values = recorded(history, name)
    ax = axes(ax)
    if name in ("learning_rate", "gradient_norm", "max_weight", "seconds"):
        _line(ax, history["epoch"], values, colour(0))
        return _epochs(ax, name, legended=False)
    _line(ax, history["epoch"], values, colour(0), label="training")
    if f"val_{name}" in history:
        _line(ax, history["epoch"], history[f"val_{name}"], colour(1), "--", "validation")
    return _epochs(ax, name)


def history(history: History, figure: Sheet | None = None) -> Sheet:
    """Draw the loss and every metric of a run, a panel each, training and validation."""
    recorded(history, "loss")
    own = ("epoch", "loss", "learning_rate", "gradient_norm", "max_weight", "seconds")
    names = ["loss", *(name for name in history if name not in own and not name.startswith("val_"))]
    figure = sheet(figure, (4.4 * len(names), 3.4))
    for name, ax in zip(names, figure.subplots(1, len(names), squeeze=False)[0], strict=True):
        curves(history, name, ax)
    return figure


def max_weight(source: "History | Microscope", ax: Axes | None = None) -> Axes:
    """Draw max |W| against the epoch: of all matrices for a History, of each for a Microscope."""
    return curves(source, "max_weight", ax) if isinstance(source, History) else layers(source, "max_weight", ax)


def layers(microscope: "Microscope", name: str, ax: Axes | None = None) -> Axes:
    """Draw one quantity of every layer against the epoch.

    `name` is "max_weight", "gradient_norm", "update_ratio", "dead" or "saturated".
    """
    lines = _seen(microscope, name)
    ax = axes(ax)
    for k, (path, values) in enumerate(lines.items()):
        _line(ax, microscope.epochs, values, colour(k), DASHES[k % 4], path, MARKERS[k % len(MARKERS)])
    if name in LOGARITHMIC and any(value > 0 for values in lines.values() for value in values):
        ax.set_yscale("log")
    if name == "update_ratio":
        ax.axhline(HEALTHY, color=colour(7), alpha=0.5, linewidth=1, linestyle=":", label="healthy")
    return _epochs(ax, name, legended=bool(lines))


def trouble(microscope: "Microscope", ax: Axes | None = None) -> Axes:
    """Draw, for every activation, the share that no longer learns: dead ReLUs, saturated tanh and sigmoid outputs."""
    dead, saturated = _seen(microscope, "dead"), _seen(microscope, "saturated")
    lines = {f"{path}: dead ReLUs": values for path, values in dead.items()}
    lines |= {f"{path}: saturated outputs": values for path, values in saturated.items()}
    ax = axes(ax)
    for k, (label, values) in enumerate(lines.items()):
        _line(ax, microscope.epochs, values, colour(k), DASHES[k % 4], label, MARKERS[k % len(MARKERS)])
    if not lines:
        ax.text(0.5, 0.5, "no ReLU, tanh or sigmoid in this network", ha="center", transform=ax.transAxes)
    _epochs(ax, "dead", legended=bool(lines))
    ax.set(ylabel="units that no longer learn (%)", ylim=(-0.03, 1.03))
    return ax


def microscope(microscope: "Microscope", figure: Sheet | None = None) -> Sheet:
    """Draw all that a Microscope recorded: max |W|, gradient norm, update ratio, dead and saturated units."""
    _seen(microscope, "max_weight")
    figure = sheet(figure, (9.0, 6.4))
    (a, b), (c, d) = figure.subplots(2, 2)
    layers(microscope, "max_weight", a)
    layers(microscope, "gradient_norm", b)
    layers(microscope, "update_ratio", c)
    trouble(microscope, d)
    return figure


def recorded(history: History, name: str) -> list[float]:
    """Return one quantity's numbers, or say why there are none."""
    if not isinstance(history, dict):
        raise TypeError(f"expected the History that fit returned, got {type(history).__name__}")
    if not history.get("epoch"):
        raise DataError("the history is empty: no epoch was finished, train with model.fit(x, y, epochs=...) first")
    if name not in history:
        if name.startswith("val_"):
            remedy = "pass validation= to fit"
        else:
            remedy = f'pass metrics=["{name.removeprefix("val_")}"] to Model'
        raise DataError(f'"{name}" was not recorded, only {", ".join(history)}: {remedy}')
    return history[name]


def _seen(microscope: "Microscope", name: str) -> dict[str, list[float]]:
    """Return what a Microscope recorded, or say what came instead of one."""
    if not hasattr(microscope, "of"):
        raise TypeError(f"expected a Microscope that was in fit's callbacks, got {type(microscope).__name__}")
    return microscope.of(name)


def _line(
    ax: Axes,
    epochs: Sequence[float],
    values: list[float],
    shade: str,
    dash: str = "-",
    label: str | None = None,
    marker: str = "o",
) -> None:
    """Draw one curve; a short one with markers, so that a single epoch can be seen too."""
    shape = marker if len(values) <= 15 else ""
    ax.plot(epochs[-len(values) :], values, dash, color=shade, label=label, marker=shape, markersize=4, linewidth=1.8)


def _epochs(ax: Axes, name: str, legended: bool = True) -> Axes:
    """Finish a panel whose x-axis is the epoch."""
    from matplotlib.ticker import MaxNLocator

    tidy(ax, "epoch", LABELS.get(name, name))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    if name in SHARES:
        ax.yaxis.set_major_formatter(lambda share, _: f"{100.0 * share:.4g}")
    if legended:
        legend(ax)
    return ax
