"""The picture of a run: for each case, who needs how long for an epoch. Readable on a light and on a dark page."""

from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.summary import kind, of_kind, seconds, spread, title

INK, XPNET, PEER = "#7a7f85", "#d55e00", "#5b8db8"
"""Grey, orange and blue that contrast with white and with black, and with each other for every eye."""


def draw(results: dict[str, Any], labels: dict[str, str], path: Path) -> None:
    """Write the picture as PNG."""
    from matplotlib.figure import Figure

    cases = results.get("epochs", [])
    columns = min(len(cases), 2) or 1
    rows = -(-len(cases) // columns) or 1
    tallest = max((len(case["contenders"]) for case in cases), default=1)
    figure = Figure(figsize=(5.6 * columns, (1.1 + 0.24 * tallest) * rows), dpi=160, layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis, case in zip(axes, cases, strict=False):
        panel(axis, case, labels)
    for axis in axes[len(cases) :]:
        axis.set_axis_off()
    figure.savefig(path, transparent=True, metadata={"Software": None})


def panel(axis: Any, case: dict[str, Any], labels: dict[str, str]) -> None:
    """Draw one case: a bar to the median, a line over the spread, the floor as a dashed line."""
    names = [name for name in case["contenders"] if seconds(case, name) and kind(name) != "floor"]
    names.sort(key=lambda name: median(seconds(case, name)))
    for place, name in enumerate(names):
        middle, (low, high) = median(seconds(case, name)), spread(seconds(case, name))
        axis.barh(place, middle, height=0.66, color=XPNET if kind(name) == "xpnet" else PEER)
        axis.plot((low, high), (place, place), color=INK, linewidth=1.4)
        axis.annotate(
            f"{middle:.3g}",
            (max(middle, high), place),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=INK,
        )
    floors = [median(seconds(case, name)) for name in of_kind(case, "floor") if seconds(case, name)]
    if floors:
        axis.axvline(min(floors), color=INK, linestyle="--", linewidth=1)
        spot = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "fontsize": 8, "color": INK}
        axis.annotate("products alone", (min(floors), -0.8), **spot)
    axis.set_yticks(range(len(names)), [labels.get(name, name) for name in names], fontsize=9)
    for tick, name in zip(axis.get_yticklabels(), names, strict=True):
        tick.set_fontweight("bold" if kind(name) == "xpnet" else "normal")
    axis.set_title(title(case).replace(", ", "\n", 1), fontsize=10, color=INK, fontweight="bold", loc="left")
    axis.set_xlabel("seconds an epoch", fontsize=9, color=INK)
    axis.set_ylim(len(names) - 0.4, -1.2)
    axis.tick_params(colors=INK, labelsize=9, length=0)
    axis.margins(x=0.12)
    for side, spine in axis.spines.items():
        spine.set_visible(side == "left")
        spine.set_color(INK)
