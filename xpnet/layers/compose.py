"""Layers made of layers: one after the other, and around a shortcut."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from xpnet.arrays import Array
from xpnet.errors import ShapeError
from xpnet.layers.base import Layer, Params, Pullback
from xpnet.layers.context import Context
from xpnet.layers.fused import Slot, fuse
from xpnet.parameters import Parameter, Shape


@dataclass(frozen=True, init=False)
class Sequential(Layer):
    """y = fₖ(… f₂(f₁(x)))        dx = f₁′(f₂′(… fₖ′(dy))), the chain rule from the last layer to the first

    Paths are as in PyTorch: `Sequential(Linear(…), ReLU(), Linear(…))` has `0.weight`, `0.bias`, `2.weight`, `2.bias`.
    A layer placed twice has two sets of windows. No gradient is computed that nobody reads.
    """

    layers: tuple[Layer, ...]

    def __init__(self, *layers: Layer) -> None:
        for k, layer in enumerate(layers):
            if not isinstance(layer, Layer):
                hint = ", an instance: add ()" if isinstance(layer, type) else ""
                raise TypeError(f"{type(self).__name__} expects layers, got {layer!r} at position {k}{hint}")
        object.__setattr__(self, "layers", layers)

    def __str__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(str, self.layers))})"

    @property
    def takes_several(self) -> bool:
        """Whether the first layer does."""
        return bool(self.layers) and self.layers[0].takes_several

    def tokens(self, k: int | None = None) -> int:
        """Return what the first layer reads."""
        return self.layers[0].tokens(k) if self.layers else 0

    def parameters(self) -> tuple[Parameter, ...]:
        """Every child's, in order, each name with the child's number before it."""
        return tuple(p.named(k) for k, layer in enumerate(self.layers) for p in layer.parameters())

    def buffers(self) -> tuple[Parameter, ...]:
        """What every child carries, named likewise."""
        return tuple(p.named(k) for k, layer in enumerate(self.layers) for p in layer.buffers())

    def walk(self, shape: Shape) -> Iterator[tuple[str, Layer, Shape]]:
        """Yield path, layer and output shape of every leaf."""
        for k, layer in enumerate(self.layers):
            try:
                for path, leaf, out in layer.walk(shape):
                    yield f"{k}.{path}" if path else str(k), leaf, out
                shape = layer.output_shape(shape)
            except ShapeError as error:
                raise error.inside(k) from None

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape that comes out of the last layer."""
        for k, layer in enumerate(self.layers):
            try:
                shape = layer.output_shape(shape)
            except ShapeError as error:
                raise error.inside(k) from None
        return shape

    @cached_property
    def _slots(self) -> tuple[Slot, ...]:
        """Each child with its number and the part of `params` that is its own."""
        slots, start = [], 0
        for k, layer in enumerate(self.layers):
            stop = start + len(layer.parameters())
            slots.append((k, layer, slice(start, stop)))
            start = stop
        return tuple(slots)

    @cached_property
    def _fused_slots(self) -> tuple[tuple[Slot, ...], tuple[Slot, ...]]:
        """The same, with linear layers in a row as one, for backends that compute them so; and for those that scale."""
        return fuse(self._slots), fuse(self._slots, scales=True)

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Run the children in order, keep their pullbacks on a tape, and run that backwards."""
        tape: list[tuple[Pullback, slice]] = []
        fused = ctx.backend.fuses and ctx.watch is None
        for k, layer, own in self._fused_slots[ctx.backend.dense.scales] if fused else self._slots:
            child = ctx.at(k)
            x, pullback = layer.forward(params[own], x, child)
            tape.append((pullback, own))
            if ctx.watch is not None:
                ctx.watch(child.path, x)

        def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Array | None, Params]:
            out = out or (None,) * len(params)
            gradients: Params = ()
            dx: Array | None = dy
            while tape:
                pullback, own = tape.pop()
                if not need_dx and own.stop == 0:  # neither this child nor one before it has parameters
                    dx = None
                    continue
                dx, own_gradients = pullback(dx, need_dx or own.start > 0, out[own])
                gradients = own_gradients + gradients
            return dx, gradients

        return x, backward


@dataclass(frozen=True, init=False)
class Residual(Sequential):
    """y = x + f(x), f the layers in order        dx = dy + f′(dy)        (He et al., CVPR 2016)"""

    @property
    def takes_several(self) -> bool:
        """No: x is added to f(x)."""
        return False

    def output_shape(self, shape: Shape) -> Shape:
        """Return the same shape; ShapeError if the layers change it."""
        out = super().output_shape(shape)
        if out != shape:
            raise ShapeError(f"expects layers that keep the shape {shape}, got {out}", who=str(self))
        return shape

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return x + f(x) and its pullback."""
        fx, pullback = super().forward(params, x, ctx)

        def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Array | None, Params]:
            dx, gradients = pullback(dy, need_dx, out)
            return dx + dy if need_dx else None, gradients

        return x + fx, backward
