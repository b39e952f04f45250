"""Layers that only rearrange or rescale their input."""

import math
from dataclasses import dataclass

from xpnet.arrays import Array
from xpnet.layers.base import Context, Layer, Params, Pullback
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

        def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Array, Params]:
            return xp.reshape(dy, shape), ()

        return xp.reshape(x, self.output_shape(shape)), backward


@dataclass(frozen=True)
class Scale(Layer):
    """y = factor · x + shift        dx = factor · dy

    `Scale(1/255)` makes numbers in 0..1 of raw bytes; it has no parameters and learns nothing.
    """

    factor: float
    shift: float = 0.0

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return factor · x + shift and its pullback."""
        y = x * self.factor
        if self.shift:
            y += self.shift

        def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Array, Params]:
            return dy * self.factor, ()

        return y, backward
