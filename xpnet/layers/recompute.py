"""Memory for time: a layer that keeps nothing but its input."""

from dataclasses import dataclass, replace

from xpnet.arrays import Array
from xpnet.layers.base import Context, Params, Pullback
from xpnet.layers.compose import Sequential


@dataclass(frozen=True, init=False)
class Recompute(Sequential):
    """y = f(x), f the layers in order; the pullback runs them again instead of keeping what they need

    Between forward and backward x alone is kept: of L such blocks L inputs, and what one block needs at a time, for a
    third more time. The same bits: dropout draws the same masks again, and what is carried moves once.
    (Chen et al., "Training deep nets with sublinear memory cost", 2016)
    """

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return f(x), and the pullback, which runs f first."""
        run, again = super().forward, replace(ctx, buffers=dict(ctx.buffers), watch=None)
        y, _ = run(params, x, ctx)

        def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Array | None, Params]:
            held, given = ctx.backend.native(afresh)((x, params), dy)
            _, pullback = run(held[1], held[0], again)
            return pullback(given, need_dx, out)

        return y, backward


def afresh(held: tuple[Array, Params], dy: Array) -> tuple[tuple[Array, Params], Array]:
    """Return all as it is: where a compiler would find that it was computed before, a library says that it was not."""
    return held, dy
