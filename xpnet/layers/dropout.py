"""Dropout."""

from dataclasses import dataclass

from xpnet.arrays import Array
from xpnet.layers.base import Context, Layer, Params, Pullback
from xpnet.random import bernoulli


@dataclass(frozen=True)
class Dropout(Layer):
    """y = x mask / (1 − p) in training, a mask bit being 0 with probability p; else y = x        dx = dy mask / (1 − p)

    Srivastava et al., JMLR 2014, in the inverted form: the expected value is that of x. The mask depends on the seed,
    the step, the layer's path and the position alone, so it is the same bits on every backend.
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.p < 1.0:
            raise ValueError(f"Dropout(p): p must be in 0 ≤ p < 1, got {self.p}")

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return x with some elements dropped and the others scaled up, and the pullback."""
        if not ctx.training or self.p == 0.0:
            return x, lambda dy, need_dx=True, out=(): (dy, ())
        dropped = ctx.backend.native(bernoulli)(ctx.xp, x.shape, self.p, ctx.key, ctx.path, ctx.device)
        factor = ctx.xp.astype(~dropped, x.dtype)
        factor *= 1.0 / (1.0 - self.p)

        def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Array, Params]:
            return dy * factor, ()

        return x * factor, backward
