"""The network as a graph: boxes in the order in which x runs through them, and the shapes between."""

import re
from typing import TYPE_CHECKING, Any

from xpnet.layers import Layer, Masked, Parallel, Recompute, Residual, Sequential, Shared, Tied
from xpnet.look.plot.blocks import HIGHEST, WIDEST, Beside, Block, Box, Chain, Shortcut
from xpnet.look.plot.canvas import Axes, axes
from xpnet.parameters import Shape

if TYPE_CHECKING:
    from xpnet.model import Model

FORWARDS = {cls.forward: cls for cls in (Sequential, Residual, Parallel, Recompute, Masked, Tied, Shared)}
"""Containers whose layers are drawn, by what they do: a subclass that does something else is one box."""

ENDS = 12
"""Layers that are drawn at either end of a chain that has no room."""


def network(net: "Layer | Model", input_shape: Shape, ax: Axes | None = None) -> Axes:
    """Draw a network, or that of a Model, as a graph: a box for each layer, and the shape of what runs from box to box.

    `input_shape` is that of x, the batch axis first, which may be None: `(None, 784)`; of several inputs a tuple of
    shapes. A box with parameters is blue and tells how many; layers side by side stand so, and a shortcut goes round
    what it skips. What has no room on a page is folded: inner layers become one box, and of a long chain the middle is
    left out, which its box says.

    ShapeError names the layer that the input does not fit.
    """
    top: Any = getattr(net, "net", net)
    if not isinstance(top, Layer):
        raise TypeError(f"network draws a layer, a network or a Model, got {type(net).__name__}")
    shape: Any = tuple(input_shape)
    top.output_shape(shape)
    depth = _depth(top)
    drawn = _drawn(top, "", shape, depth)
    while depth and not _fits(drawn):
        depth -= 1
        shorter = _shortened(drawn) if depth == 0 else drawn
        drawn = shorter if _fits(shorter) else _drawn(top, "", shape, depth)
    ax = axes(ax, (2.9 * drawn.width + 0.4, 0.34 * (drawn.height + 1.5)))
    ax.set(xlim=(0.0, drawn.width), ylim=(drawn.height + 0.8, -0.7))
    ax.set_axis_off()
    ax.text(drawn.width / 2, -0.15, f"x {_shown(shape)}", ha="center", va="bottom", fontsize="small")
    drawn.draw(ax, drawn.width / 2, 0.0)
    size = f"{top.size:,} parameters"
    ax.text(drawn.width / 2, drawn.height + 0.15, size, ha="center", va="top", fontsize="small", style="italic")
    return ax


def _depth(layer: Layer) -> int:
    """Return how deep layers are nested."""
    kind = FORWARDS.get(type(layer).forward)
    if kind is Shared:
        return _depth(layer.layer)  # type: ignore[attr-defined]
    children: tuple[Layer, ...] = layer.layers if kind else ()  # type: ignore[attr-defined]
    return 1 + max(map(_depth, children), default=0) if children else 0


def _drawn(layer: Layer, path: str, shape: Any, depth: int) -> Block:
    """Return what to draw of a layer: containers down to this depth."""
    kind = FORWARDS.get(type(layer).forward)
    if kind is Shared:
        return _drawn(layer.layer, path, shape, depth)  # type: ignore[attr-defined]
    if kind is None or not depth:
        return _box(layer, path, layer.output_shape(shape))
    assert isinstance(layer, Sequential)
    if isinstance(layer, Parallel):
        several = bool(shape) and isinstance(shape[0], tuple)
        each = shape if several else (shape,) * len(layer.layers)
        pairs = zip(layer.layers, each, strict=True)
        join = layer.join if isinstance(layer.join, str) else getattr(layer.join, "__name__", "join")
        blocks = [_drawn(child, _at(path, k), own, depth - 1) for k, (child, own) in enumerate(pairs)]
        return Beside(blocks, "+" if join == "add" else join, _shown(layer.output_shape(shape)))
    if isinstance(layer, Masked) and isinstance(shape[0], tuple):
        shape = shape[0]
    blocks, inside = [], shape
    for k, child in enumerate(layer.layers):
        blocks.append(_drawn(child, _at(path, k), inside, depth - 1))
        inside = child.output_shape(inside)
    if isinstance(layer, Tied):
        blocks.append(Box("Eᵀ, the Embedding's", _at(path, 0), 0, _shown(layer.output_shape(shape))))
    if kind is Residual:
        return Shortcut(blocks, _shown(inside))
    return Chain(blocks)


def _at(path: str, k: int) -> str:
    return f"{path}.{k}" if path else str(k)


def _box(layer: Layer, path: str, out: Any) -> Box:
    """Return a box; of a container that is folded it tells how many layers there are in it."""
    name = re.sub(r"\d+\.\d{5,}", lambda digits: f"{float(digits[0]):.4g}", str(layer))
    inner = getattr(layer, "layers", ())
    if inner and len(name) > 30:
        name = f"{type(layer).__name__} of {len(inner)} layers"
    return Box(name, path, layer.size, _shown(out))


def _fits(block: Block) -> bool:
    """Whether there is room for it on a page."""
    return block.height <= HIGHEST and block.width <= WIDEST


def _shortened(chain: Block) -> Block:
    """Return a chain of many with one box for its middle, and anything else as it is."""
    if not isinstance(chain, Chain) or len(chain.blocks) <= 2 * ENDS:
        return chain
    first, middle, last = chain.blocks[:ENDS], chain.blocks[ENDS:-ENDS], chain.blocks[-ENDS:]
    size, out = sum(block.size for block in middle), middle[-1].out
    return Chain([*first, Box(f"… {len(middle):,} more …", "", size, out), *last])


def _shown(shape: Any) -> str:
    """Return a shape as the docstrings write it: (N, 28, 28)."""
    if shape and isinstance(shape[0], tuple):
        return ", ".join(map(_shown, shape))
    words = ["N" if n is None else str(n) for n in shape]
    return f"({', '.join(words)}{',' if len(words) == 1 else ''})"
