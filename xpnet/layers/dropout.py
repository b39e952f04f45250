"""Dropout."""

from dataclasses import dataclass

from xpnet.arrays import Array
from xpnet.checks import number, settle
from xpnet.layers.base import Context, Layer, Params, Pullback
from xpnet.random import bernoulli, mask_key


@dataclass(frozen=True)
class Dropout(Layer):
    """y = x mask / (1 − p) in training, a mask bit being 0 with probability p; else y = x        dx = dy mask / (1 − p)

    Srivastava et al., JMLR 2014, in the inverted form: the expected value is that of x. The mask depends on the seed,
    the step, the layer's path and the position alone, so it is the same bits on every backend.
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        settle(self, p=number("Dropout", "p", self.p, least=0, below=1))

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return x with some elements dropped and the others scaled up, and the pullback."""
        if not ctx.training or self.p == 0.0:
            return x, lambda dy, need_dx=True, out=(): (dy, ())
        key = mask_key(ctx.key, f"Dropout at layer {ctx.path}" if ctx.path else "Dropout")
        dropped = ctx.backend.native(bernoulli)(ctx.xp, x.shape, self.p, key, ctx.path, ctx.device)
        factor = ctx.xp.astype(~dropped, x.dtype)
        factor *= 1.0 / (1.0 - self.p)

        def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Array, Params]:
            return dy * factor, ()

        return x * factor, backward
