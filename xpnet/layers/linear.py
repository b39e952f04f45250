"""The linear (fully connected, dense) layer."""

import math
from dataclasses import dataclass

from xpnet.arrays import Array
from xpnet.checks import flag, integer, settle
from xpnet.errors import ShapeError
from xpnet.layers.base import Layer, Params, Pullback, by_rows
from xpnet.layers.context import Context
from xpnet.parameters import Initializer, Parameter, Shape, find_initializer


@dataclass(frozen=True)
class Linear(Layer):
    """y = x W + b        x (N, I)   W (I, O)   b (O,)   y (N, O)

    dx = dy Wᵀ,  dW = xᵀ dy,  db = Σₙ dy     (Goodfellow et al., "Deep Learning", 2016, section 6.5)

    Of sequences (N, T, I), and of any x (…, I), each position is a row: y is (…, O).

    `initializer` of W: "normal" (1/√I, the lesson's), "glorot", "he", "zeros" or a function (rng, shape) -> host array.
    """

    nin: int
    nout: int
    bias: bool = True
    initializer: str | Initializer = "normal"

    def __post_init__(self) -> None:
        nin, nout = integer("Linear", "nin", self.nin), integer("Linear", "nout", self.nout)
        settle(self, nin=nin, nout=nout, bias=flag("Linear", "bias", self.bias))
        find_initializer(self.initializer)

    def __str__(self) -> str:
        return f"Linear({self.nin}→{self.nout})"

    def parameters(self) -> tuple[Parameter, ...]:
        """W (I, O) and, unless it is left out, b (O,), which starts at zero."""
        weight = Parameter("weight", (self.nin, self.nout), find_initializer(self.initializer), axes=(1, 0))
        return (weight, Parameter("bias", (self.nout,))) if self.bias else (weight,)

    def output_shape(self, shape: Shape) -> Shape:
        """(N, …, I) -> (N, …, O)."""
        if len(shape) >= 2 and shape[-1] == self.nin:
            return (*shape[:-1], self.nout)
        features = math.prod(shape[1:])
        if len(shape) > 2 and features == self.nin:
            remedy = "add Flatten() before it"
        elif len(shape) > 2:
            remedy = f"the last axis must have {self.nin} features, and Flatten() would make {features} of all"
        elif len(shape) < 2:
            remedy = "give it a batch, one sample a row"
        else:
            remedy = f"the layer before it or the data must have {self.nin} features"
        raise ShapeError(f"expects input (N, {self.nin}), got {shape}: {remedy}", who=str(self))

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return x W + b and its pullback."""
        if x.ndim > 2:
            return by_rows(self, params, x, ctx)
        xp, matmul, weight = ctx.xp, ctx.backend.matmul, params[0]
        y = matmul(x, weight)  # (N, O)
        if self.bias:
            y += params[1]

        def backward(dy: Array, need_dx: bool = True, out: Params = (None, None)) -> tuple[Array | None, Params]:
            dx = matmul(dy, weight.T) if need_dx else None  # (N, I)
            dweight = matmul(x.T, dy, out=out[0])  # (I, O)
            return dx, (dweight, xp.sum(dy, axis=0)) if self.bias else (dweight,)

        return y, backward
