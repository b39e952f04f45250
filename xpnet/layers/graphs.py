"""Networks beyond a chain: layers side by side, and one layer in several places."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from typing import Any, TypeAlias

from xpnet.arrays import Array, Namespace
from xpnet.backends import backend
from xpnet.errors import ShapeError
from xpnet.layers.base import Layer, Params, Pullback
from xpnet.layers.compose import Sequential
from xpnet.layers.context import Context
from xpnet.parameters import Parameter, Shape

Joined: TypeAlias = tuple[Array, Callable[[Array], tuple[Array, ...]]]
"""y, and its pullback: `backward(dy) -> dy₁, dy₂, …`."""

Join: TypeAlias = Callable[..., Joined]
"""`join(xp, y₁, y₂, …) -> (y, backward)`."""


def add_up(xp: Namespace, *ys: Array) -> Joined:
    """y = Σₖ yₖ        dyₖ = dy"""
    return reduce(add, ys), lambda dy: (dy,) * len(ys)


def concat(xp: Namespace, *ys: Array) -> Joined:
    """y = (y₁, y₂, …) along the last axis        dyₖ = its part of dy"""

    def backward(dy: Array) -> tuple[Array, ...]:
        parts, start = [], 0
        for y in ys:
            parts.append(dy[..., start : start + y.shape[-1]])
            start += y.shape[-1]
        return tuple(parts)

    return xp.concat(ys, axis=-1), backward


JOINS: dict[str, Join] = {"add": add_up, "concat": concat}


@dataclass(frozen=True, init=False)
class Parallel(Sequential):
    """y = f₁(x) + f₂(x) + …, or side by side along the last axis: (f₁(x), f₂(x), …)        dx = Σₖ fₖ′(dyₖ)

    `join` is "add", "concat" or a function `join(xp, y₁, y₂, …) -> (y, backward)` with `backward(dy) -> dy₁, dy₂, …`.
    `Sequential()` is the identity, so that `Parallel(Sequential(), f)` is a shortcut around f (He et al., CVPR 2016),
    `Parallel(Conv2d(I, O, 1), f)` one with a projection, and with "concat" a U-Net's (Ronneberger et al., MICCAI 2015).
    If x is a tuple, each layer has an input of its own: y = f₁(x₁) + f₂(x₂) + …, and dx is the tuple of theirs.
    Paths are those of `Sequential`. ShapeError if what is to be joined does not fit.
    """

    join: str | Join = field(default="add", kw_only=True)

    def __init__(self, *layers: Layer, join: str | Join = "add") -> None:
        super().__init__(*layers)
        if not layers:
            raise ValueError("Parallel expects at least one layer")
        if not callable(join) and join not in JOINS:
            raise ValueError(f'Parallel: join must be "add", "concat" or a function, got {join!r}')
        object.__setattr__(self, "join", join)

    def __str__(self) -> str:
        join = "" if self.join == "add" else f", join={getattr(self.join, '__name__', self.join)}"
        return f"Parallel({', '.join(map(str, self.layers))}{join})"

    @property
    def takes_several(self) -> bool:
        """Yes: one for each layer."""
        return True

    def tokens(self, k: int | None = None) -> int:
        """Return what layer k reads; of one x what any of them reads."""
        layers = self.layers if k is None else self.layers[k : k + 1]
        return max((layer.tokens() for layer in layers), default=0)

    def _each(self, x: Any, several: bool) -> tuple[Any, ...]:
        """Return what each layer reads, of inputs or of their shapes; ShapeError unless there is one for each."""
        if several and len(x) != len(self.layers):
            raise ShapeError(f"has {len(self.layers)} layers, got {len(x)} inputs: give one for each", str(self))
        return x if several else (x,) * len(self.layers)

    def walk(self, shape: Shape) -> Iterator[tuple[str, Layer, Shape]]:
        """Yield path, layer and output shape of every leaf."""
        for k, (layer, own) in enumerate(zip(self.layers, self._each(shape, _several(shape)), strict=True)):
            try:
                for path, leaf, out in layer.walk(own):
                    yield f"{k}.{path}" if path else str(k), leaf, out
            except ShapeError as error:
                raise error.inside(k) from None

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of what the layers give, joined."""
        shapes = []
        for k, (layer, own) in enumerate(zip(self.layers, self._each(shape, _several(shape)), strict=True)):
            try:
                shapes.append(layer.output_shape(own))
            except ShapeError as error:
                raise error.inside(k) from None
        if callable(self.join):
            return _tried(self.join, shapes)
        fit = len({s if self.join == "add" else s[:-1] for s in shapes}) == 1
        if not fit:
            what = "one shape to add" if self.join == "add" else "shapes that differ in the last axis alone"
            raise ShapeError(f"expects layers that give {what}, got {', '.join(map(str, shapes))}", who="Parallel")
        return shapes[0] if self.join == "add" else (*shapes[0][:-1], sum(s[-1] for s in shapes))

    def forward(self, params: Params, x: Any, ctx: Context) -> tuple[Array, Pullback]:
        """Run the layers side by side, and join what they give."""
        several = isinstance(x, tuple)
        ys, tape = [], []
        for (k, layer, own), part in zip(self._slots, self._each(x, several), strict=True):
            child = ctx.at(k)
            y, pullback = layer.forward(params[own], part, child)
            ys.append(y)
            tape.append((pullback, own))
            if ctx.watch is not None:
                ctx.watch(child.path, y)
        y, apart = (self.join if callable(self.join) else JOINS[self.join])(ctx.xp, *ys)

        def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Any, Params]:
            out = out or (None,) * len(params)
            dxs: list[Any] = []
            gradients: Params = ()
            for (pullback, own), own_dy in zip(tape, apart(dy), strict=True):
                dx, own_gradients = pullback(own_dy, need_dx, out[own])
                dxs.append(dx)
                gradients += own_gradients
            if not need_dx:
                return None, gradients
            return tuple(dxs) if several else reduce(add, dxs), gradients

        return y, backward


@dataclass(frozen=True)
class Shared(Layer):
    """y = f(x), f one and the same wherever this name occurs in the network        dW = Σ of all places'

    `Parallel(Shared("tower", f), Shared("tower", f), join=…)` sends two inputs through one tower (Bromley et al., NIPS
    1993); θ holds its parameters once, under the path where it comes first. Dropout masks and running statistics are
    each place's own. ShapeError where the layers of one name have parameters of different shapes.
    """

    name: str
    layer: Layer

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or not isinstance(self.layer, Layer):
            raise TypeError(f'Shared expects a name and a layer, Shared("tower", f), got {self.name!r}, {self.layer!r}')

    def __str__(self) -> str:
        return f'Shared("{self.name}", {self.layer})'

    @property
    def takes_several(self) -> bool:
        """Whether the layer does."""
        return self.layer.takes_several

    def tokens(self, k: int | None = None) -> int:
        """Return what the layer reads."""
        return self.layer.tokens(k)

    def parameters(self) -> tuple[Parameter, ...]:
        """Return the layer's, each marked as shared."""
        return tuple(replace(p, shared=p.shared or f"{self.name}/{p.name}") for p in self.layer.parameters())

    def buffers(self) -> tuple[Parameter, ...]:
        """Return the layer's."""
        return self.layer.buffers()

    def walk(self, shape: Shape) -> Iterator[tuple[str, Layer, Shape]]:
        """Yield path, layer and output shape of every leaf."""
        return self.layer.walk(shape)

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of what the layer gives."""
        return self.layer.output_shape(shape)

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return f(x) and its pullback."""
        return self.layer.forward(params, x, ctx)


def _several(shape: Any) -> bool:
    """Whether these are the shapes of several inputs."""
    return bool(shape) and isinstance(shape[0], tuple)


def _tried(join: Join, shapes: list[Shape]) -> Shape:
    """Return the shape of what a function makes of arrays of these shapes, two samples each."""
    host = backend("numpy")
    y, _ = join(host.xp, *(host.xp.zeros((2, *shape[1:])) for shape in shapes))
    return (shapes[0][0], *map(int, y.shape[1:]))
