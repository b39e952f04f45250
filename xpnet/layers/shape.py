"""Layers that only rearrange or rescale their input."""

import math
from dataclasses import dataclass
from typing import Any

from xpnet.arrays import Array, is_floating
from xpnet.checks import extent, numbers, settle
from xpnet.errors import ShapeError
from xpnet.layers.base import Layer, Params, Pullback
from xpnet.layers.context import Context
from xpnet.parameters import Shape


@dataclass(frozen=True)
class Flatten(Layer):
    """y = x, every sample in one row        x (N, A, B, …)   y (N, A·B·…)"""

    def output_shape(self, shape: Shape) -> Shape:
        """(N, A, B, …) -> (N, A·B·…)."""
        return (shape[0], math.prod(shape[1:]))

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return the rows and the pullback, which gives them their shape back."""
        xp, shape = ctx.xp, x.shape
        if len(shape) == 2:
            return x, _unchanged

        def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Array, Params]:
            return xp.reshape(dy, shape), ()

        return xp.reshape(x, self.output_shape(shape)), backward


@dataclass(frozen=True)
class Channels(Layer):
    """y = x, one channel a pixel        x (N, H, W)   y (N, H, W, 1): grey images as convolutions read them"""

    def output_shape(self, shape: Shape) -> Shape:
        """(N, H, W) -> (N, H, W, 1)."""
        if len(shape) != 3:
            remedy = ": drop Channels(), they have channels" if len(shape) == 4 else ""
            raise ShapeError(f"expects grey images (N, H, W), got {shape}{remedy}", who=str(self))
        return (*shape, 1)

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return the images with an axis of channels, and the pullback, which takes it away."""
        xp = ctx.xp
        return xp.expand_dims(x, axis=-1), lambda dy, need_dx=True, out=(): (xp.squeeze(dy, axis=-1), ())


@dataclass(frozen=True)
class Scale(Layer):
    """y = factor · x + shift        dx = factor · dy

    `Scale(1/255)` makes numbers in 0..1 of raw bytes; it has no parameters and learns nothing. Arrays of a sample's
    last axes scale each feature by its own: `Scale(1 / x.max(0))`; they are kept as tuples. `Standardize.fit(x)` gives
    each feature mean 0 and standard deviation 1.
    """

    factor: Any
    shift: Any = 0.0

    def __post_init__(self) -> None:
        settle(self, factor=numbers("Scale", "factor", self.factor), shift=numbers("Scale", "shift", self.shift))

    def __str__(self) -> str:
        names = (f"{name}={_named(value)}" for name, value in vars(self).items() if name in ("factor", "shift"))
        return f"Scale({', '.join(names)})"

    @property
    def by_one_number(self) -> bool:
        """Whether it multiplies all by one number, and adds nothing."""
        return isinstance(self.factor, float) and not self.shift

    def output_shape(self, shape: Shape) -> Shape:
        """Return the same shape; ShapeError if factor or shift has axes that a sample has not."""
        for own in (extent(self.factor), extent(self.shift)):
            last = shape[max(1, len(shape) - len(own)) :]
            if len(own) > len(last) or any(a not in (1, b) for a, b in zip(own, last, strict=True)):
                raise ShapeError(f"expects samples whose last axes are {own}, got {shape}", who=str(self))
        return shape

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return factor · x + shift and its pullback."""
        factor, shift = _setting(self.factor, x, ctx), _setting(self.shift, x, ctx)
        y = x * factor
        if self.shift:
            y += shift

        def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Array, Params]:
            return dy * factor, ()

        return y, backward


def _unchanged(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Array, Params]:
    return dy, ()


def _named(value: Any) -> str:
    """A number itself, of an array its shape."""
    return f"array{extent(value)}" if isinstance(value, tuple) else str(value)


def _setting(value: Any, x: Array, ctx: Context) -> Any:
    """The number itself, or the numbers as an array beside x."""
    if not isinstance(value, tuple):
        return value
    if not is_floating(ctx.xp, x):
        raise TypeError(f"Scale by an array multiplies floating-point numbers, got {x.dtype}: cast them first")
    return ctx.backend.constant(value, x.dtype)
