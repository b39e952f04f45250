"""A model and a history as HTML: the table of its layers, its curves. No scripts, and nothing is fetched."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from html import escape
from math import isfinite
from typing import Any

from xpnet.errors import ShapeError
from xpnet.layers import Layer
from xpnet.parameters import Shape
from xpnet.training.notebook import OWN

WIDE, HIGH, LEFT, RIGHT, TOP, BOTTOM = 300, 190, 52, 10, 24, 30
"""A panel, and the space around its curves, in pixels."""
MOST_PANELS, MOST_POINTS = 6, 300
COLOURS = {"": "#0072B2", "val_": "#D55E00"}
"""Okabe and Ito's blue for training, their vermillion for validation, which is dashed too."""


# A model


def table(title: str, net: Layer, shape: Shape | None) -> str:
    """Return a network as an HTML table: each layer with its output's shape, its parameters and how many they are.

    Without the shape of the input, batch axis included, outputs have no shapes.
    """
    rows = "".join(
        f"<tr><td>{escape(path)}</td><td>{escape(layer)}</td><td>{escape(output)}</td><td>{escape(names)}</td>"
        f'<td style="text-align:right">{size:,}</td></tr>'
        for path, layer, output, names, size in _rows(net, shape)
    )
    head = "".join(f"<th>{one}</th>" for one in ("path", "layer", "output", "parameters", "numbers"))
    total = f'<tr><td colspan="4">all</td><td style="text-align:right">{net.size:,}</td></tr>'
    return (
        f'<table class="xpnet"><caption>{escape(title)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}{total}</tbody></table>"
    )


def _rows(net: Layer, shape: Shape | None) -> Iterator[tuple[str, str, str, str, int]]:
    for path, leaf, output in _leaves(net, shape):
        windows = [(w.name, w.shape) for w in net.layout if w.name.startswith(f"{path}.") or not path]
        start = len(path) + 1 if path else 0
        names = ", ".join(f"{name[start:]} {_sized(sizes)}" for name, sizes in windows)
        yield path, str(leaf), "" if output is None else _sized(output), names, leaf.size


def _leaves(net: Layer, shape: Shape | None) -> list[tuple[str, Layer, Any]]:
    """Return path, layer and output shape of the leaves; for want of the input's shape, of the outermost layers."""
    layers = getattr(net, "layers", ())
    width = getattr(layers[0] if layers else net, "nin", None)
    rows: Any = (None, width)  # of a network that begins with Linear
    if shape is not None or width is not None:
        with suppress(ShapeError):
            return list(net.walk(rows if shape is None else shape))
    return [(str(k), layer, None) for k, layer in enumerate(layers)] or [("", net, None)]


def _sized(shape: Sequence[Any]) -> str:
    return f"({', '.join('N' if n is None else str(n) for n in shape)}{',' if len(shape) == 1 else ''})"


# A history


def curves(history: Mapping[str, Sequence[float]]) -> str:
    """Return the loss and the metrics against the epoch as SVG, a panel each: training solid, validation dashed.

    Six panels at most, of 300 points each; what is not finite is left out.
    """
    epochs = history.get("epoch", ())
    names = [name for name in history if name not in OWN and not name.startswith("val_")][:MOST_PANELS]
    if not epochs or not names:
        return "<p>No epoch was finished.</p>"
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    panels = "".join(
        f'<g transform="translate({WIDE * (k % columns)},{HIGH * (k // columns)})">{_panel(name, epochs, history)}</g>'
        for k, name in enumerate(names)
    )
    said = f"{escape(', '.join(names))} up to epoch {epochs[-1]:g}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{WIDE * columns}" height="{HIGH * rows}" '
        f'viewBox="0 0 {WIDE * columns} {HIGH * rows}" font-family="sans-serif" font-size="11" fill="currentColor">'
        f"<title>{said}</title>{panels}</svg>"
    )


def _panel(name: str, epochs: Sequence[float], history: Mapping[str, Sequence[float]]) -> str:
    lines = {prefix: _points(epochs, history[prefix + name]) for prefix in COLOURS if prefix + name in history}
    values = [value for line in lines.values() for _, value in line]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    first, last, half = epochs[0], epochs[-1], high / 2.0 - low / 2.0  # which no numbers are too large for
    right, bottom = WIDE - RIGHT, HIGH - BOTTOM

    def place(epoch: float, value: float) -> tuple[float, float]:
        across = (epoch - first) / (last - first) if last > first else 0.5
        up = (value / 2.0 - low / 2.0) / half if half > 0.0 else 0.5
        return LEFT + across * (right - LEFT), bottom - up * (bottom - TOP)

    drawn = "".join(_curve(prefix, [place(*point) for point in line]) for prefix, line in lines.items())
    ends = f'<text x="{LEFT}" y="{HIGH - 14}">{first:g}</text>' + (
        f'<text x="{right}" y="{HIGH - 14}" text-anchor="end">{last:g}</text>' if last > first else ""
    )
    marks = "".join(
        f'<text x="{LEFT - 4}" y="{y + 4:g}" text-anchor="end">{value:.3g}</text>'
        for value, y in ((high, TOP), (low, bottom))[: 2 if high > low else 1]
    )
    legend = "training" + (f' <tspan fill="{COLOURS["val_"]}">validation (dashed)</tspan>' if "val_" in lines else "")
    return (
        f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="currentColor" stroke-opacity="0.4"/>{drawn}'
        f'<text x="{LEFT}" y="14"><tspan font-weight="bold">{escape(name)}</tspan> '
        f'<tspan fill="{COLOURS[""]}">{legend}</tspan></text>{marks}{ends}'
        f'<text x="{(LEFT + right) / 2}" y="{HIGH - 14}" text-anchor="middle">epoch</text>'
    )


def _points(epochs: Sequence[float], values: Sequence[float]) -> list[tuple[float, float]]:
    """Return the finite points of a curve, the last and some of those before it: it ends with the last epoch."""
    pairs = list(zip(epochs[-len(values) :], values, strict=False))
    every = -(-len(pairs) // MOST_POINTS)
    return [pair for pair in pairs[::-1][::every][::-1] if isfinite(pair[1])]


def _curve(prefix: str, points: Sequence[tuple[float, float]]) -> str:
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    how = f'stroke="{COLOURS[prefix]}" stroke-width="1.8"' + (' stroke-dasharray="5 3"' if prefix else "")
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2" fill="{COLOURS[prefix]}"/>' for x, y in points)
    return f'<polyline points="{line}" fill="none" {how}/>{dots if len(points) <= 15 else ""}'
