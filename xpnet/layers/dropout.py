"""Dropout."""

from dataclasses import dataclass

from xpnet.arrays import Array
from xpnet.checks import number, settle
from xpnet.errors import ShapeError
from xpnet.layers.base import Layer, Params, Pullback
from xpnet.layers.context import Context
from xpnet.parameters import Shape
from xpnet.random import bernoulli, mask_key


@dataclass(frozen=True)
class Dropout(Layer):
    """y = x mask / (1 − p) in training, a mask bit being 0 with probability p; else y = x        dx = dy mask / (1 − p)

    Srivastava et al., JMLR 2014, in the inverted form: the expected value is that of x. The mask depends on the seed,
    the step, the layer's path and the position in the minibatch alone, so it is the same bits on every backend.
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        settle(self, p=number(type(self).__name__, "p", self.p, least=0, below=1))

    def mask_shape(self, shape: Shape) -> Shape:
        """Return the shape of the mask for an x of this shape: a bit for each number."""
        return shape

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return x with some elements dropped and the others scaled up, and the pullback."""
        if not ctx.training or self.p == 0.0:
            return x, lambda dy, need_dx=True, out=(): (dy, ())
        name = type(self).__name__
        key = mask_key(ctx.key, f"{name} at layer {ctx.path}" if ctx.path else name)
        shape, draw = self.mask_shape(x.shape), ctx.backend.native(bernoulli)
        dropped = draw(ctx.xp, shape, self.p, key, ctx.path, ctx.device, ctx.row)
        factor = ctx.xp.astype(~dropped, x.dtype)
        factor *= 1.0 / (1.0 - self.p)

        def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Array, Params]:
            return dy * factor, ()

        return x * factor, backward


@dataclass(frozen=True)
class Dropout2d(Dropout):
    """y = x mask / (1 − p) in training, a mask bit for each image and channel        x (N, H, W, C)   mask (N, 1, 1, C)

    Neighbouring pixels say nearly the same, so whole feature maps are dropped (Tompson et al., CVPR 2015). Settings and
    gradient are those of `Dropout`.
    """

    def output_shape(self, shape: Shape) -> Shape:
        """Return the same shape."""
        if len(shape) != 4:
            raise ShapeError(f"expects images (N, H, W, C), got {shape}: Dropout() is for other shapes", str(self))
        return shape

    def mask_shape(self, shape: Shape) -> Shape:
        """(N, H, W, C) -> (N, 1, 1, C)."""
        return (shape[0], 1, 1, shape[3])
