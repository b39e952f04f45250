"""Who reads from whom: the weights of attention, a map for each head."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from xpnet.arrays import Array
from xpnet.backends import backend as find_backend
from xpnet.data import door
from xpnet.errors import DataError, ShapeError
from xpnet.layers.attention import NAME
from xpnet.look.plot.canvas import LEGIBLE, Axes, Sheet, colour, pyplot, ramp, sheet
from xpnet.look.plot.numbers import host

if TYPE_CHECKING:
    from xpnet.model import Model

LETTER = 0.16
"""Inches that a label needs."""

WIDEST = 14.0
"""Inches that the maps of a layer share at most."""


def attention(
    model: "Model",
    tokens: Array,
    layer: int | str | None = None,
    labels: Sequence[object] | None = None,
    figure: Sheet | None = None,
) -> Sheet:
    """Draw how much each position of a sequence reads from each: a row for each layer, a map for each of its heads.

    `tokens` is one sequence as the network reads it, without the batch axis: (T,), or vectors (T, D). Who reads stands
    on the left, from where below, the tokens by their numbers or by `labels`, a name for each position: a text will do.
    Beyond 30 positions some are named. The weights of a row add up to 1; all maps are shaded on one scale.

    `layer` is the path of a `MultiHeadAttention`, or of what it is part of, such as a `TransformerBlock`; all if left
    out. DataError if there is none.
    """
    sequence = _one_sequence(model, tokens)
    names = _names(sequence, labels)
    found = _maps(model, sequence, layer)
    columns = max(len(maps) for maps in found.values())
    side = min(max(LETTER * min(len(names), LEGIBLE), 1.5), WIDEST / columns)
    figure = sheet(figure, (side * columns + 1.5, (side + 0.3) * len(found) + 0.5))
    cells = figure.subplots(len(found), columns, squeeze=False)
    high = max(float(np.max(maps, initial=0.0, where=np.isfinite(maps))) for maps in found.values()) or 1.0
    shades = ramp("weights", pyplot().rcParams["axes.facecolor"], colour(0))
    for row, (path, maps) in zip(cells, found.items(), strict=True):
        for head, ax in enumerate(row):
            if head >= len(maps):
                ax.set_axis_off()
                continue
            picture = ax.imshow(maps[head], cmap=shades, vmin=0.0, vmax=high)
            ax.set_title(f"{path}, head {head}" if path else f"head {head}", fontsize="small", pad=3)
            _named(ax, names, side)
        row[0].set_ylabel("reads")
    for ax in cells[-1]:
        ax.set_xlabel("from")
    figure.colorbar(picture, ax=list(cells.flat), label="weight", shrink=0.8)
    return figure


def _one_sequence(model: "Model", tokens: Array) -> np.ndarray:
    """Return a sequence, (T,) or (T, D); ShapeError for a batch, DataError for tokens out of range."""
    sequence, count = host(tokens, "attention: tokens"), model.net.tokens()
    axes = 1 if count else 2
    if sequence.ndim != axes or not len(sequence):
        expected = "tokens (T,)" if count else "vectors (T, D)"
        remedy = ": of a batch pass one, x[0]" if sequence.ndim == axes + 1 and len(sequence) else ""
        raise ShapeError(f"attention draws one sequence, {expected}, got {sequence.shape}{remedy}")
    if count:
        door.check_tokens("attention: tokens", sequence, count, find_backend("numpy"))
    return sequence


def _names(sequence: np.ndarray, labels: Sequence[object] | None) -> list[str]:
    """Return a name for each position: its label, its token, or its number; DataError for labels too few or many."""
    if labels is None:
        return [str(k) for k in (sequence if sequence.ndim == 1 else range(len(sequence)))]
    found = [str(label) for label in labels]
    if len(found) != len(sequence):
        raise DataError(f"attention: {len(found)} labels for {len(sequence)} positions: pass a label for each")
    return found


def _maps(model: "Model", sequence: np.ndarray, layer: int | str | None) -> dict[str, np.ndarray]:
    """Return the weights (H, T, T) of each layer by path; DataError says which layers there are."""
    backend, seen = model.backend, dict[str, Array]()

    def watch(place: str, array: Array) -> None:
        path, _, name = place.rpartition(".")
        if name == NAME:
            seen[path] = array

    x = door.place("tokens", sequence[None, ...], backend, model.dtype)
    model.net(model.theta, x, buffers=model.buffers, watch=watch, backend=backend)
    if not seen:
        raise DataError("attention: the network has no MultiHeadAttention")
    chosen = [p for p in seen if layer is None or f"{p}.".startswith(f"{layer}.")]
    if not chosen:
        choice = ", ".join(f'"{path}"' for path in seen)
        raise DataError(f'attention: layer "{layer}" has no MultiHeadAttention: choose one of {choice}')
    return {path: host(seen[path])[0] for path in chosen}


def _named(ax: Axes, names: Sequence[str], side: float) -> None:
    """Name the positions at both axes of a map of this side in inches, as many as there is room for."""
    apart = -(-len(names) // max(round(side / LETTER), 1))  # one of so many is named
    places = range(0, len(names), apart)
    shown = [names[k] for k in places]
    upright = 90 if max(map(len, shown)) > 2 else 0
    ax.set_xticks(places, shown, fontsize="x-small", rotation=upright)
    ax.set_yticks(places, shown, fontsize="x-small")
    ax.tick_params(length=0, pad=2)
    ax.grid(False)
