"""Networks that read sequences of several lengths, padded to one."""

from dataclasses import dataclass, replace
from typing import Any

from xpnet.arrays import Array
from xpnet.errors import ShapeError
from xpnet.layers.base import Layer, Params, Pullback
from xpnet.layers.compose import Sequential
from xpnet.layers.context import Context
from xpnet.parameters import Shape


@dataclass(frozen=True, init=False)
class Masked(Sequential):
    """y = f(x), f the layers in order, which know where x is padded: the input is a tuple, x (N, T, …) and mask (N, T)

    The mask is 1 (or True) where a sequence has a token and 0 where it is padding. `MultiHeadAttention` reads from no
    padding, `RNN`, `GRU` and `LSTM` keep their state over it, `Pooled` leaves it out. Layers that look at each position
    by itself take no notice, and what comes out at padding has no meaning: a loss leaves it out by `ignore_index`. x
    alone is read as if nothing were padded.
    """

    @property
    def takes_several(self) -> bool:
        """Yes: x and the mask."""
        return True

    def tokens(self, k: int | None = None) -> int:
        """Return what the first layer reads; of the mask 2, as it holds 0 and 1."""
        return 2 if k == 1 else super().tokens()

    def _inner(self, shape: Any) -> Shape:
        """Return x's shape of the shape that comes; ShapeError if the mask does not fit it."""
        if not shape or not isinstance(shape[0], tuple):
            return tuple(shape)
        if len(shape) != 2:
            raise ShapeError(f"expects x and a mask, got {len(shape)} inputs", who="Masked")
        if len(shape[0]) < 2 or shape[1] != shape[0][:2]:
            raise ShapeError(
                f"expects a mask (N, T) for x (N, T, …), got {shape[1]} for {shape[0]}: one number a token",
                who="Masked",
            )
        return tuple(shape[0])

    def walk(self, shape: Shape) -> Any:
        """Yield path, layer and output shape of every leaf."""
        return super().walk(self._inner(shape))

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape that comes out of the last layer."""
        return super().output_shape(self._inner(shape))

    def forward(self, params: Params, x: Any, ctx: Context) -> tuple[Array, Pullback]:
        """Run the layers with the mask at hand."""
        if not isinstance(x, tuple):
            return super().forward(params, x, ctx)
        y, pullback = super().forward(params, x[0], replace(ctx, mask=x[1]))

        def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Any, Params]:
            dx, gradients = pullback(dy, need_dx, out)
            return (dx, None) if need_dx else None, gradients

        return y, backward


@dataclass(frozen=True)
class Pooled(Layer):
    """y = Σₜ mₜ xₜ / Σₜ mₜ, the mean over the positions that are no padding        x (N, T, D)   y (N, D)

    dxₜ = dy mₜ / Σ m. With `how="last"` y is x at the last such position, with "first" at the first one, where a layer
    that reads in reverse ends; dx is dy there. m is 1 everywhere but within `Masked`; where all is padding y is 0.
    """

    how: str = "mean"

    def __post_init__(self) -> None:
        if self.how not in ("mean", "last", "first"):
            raise ValueError(f'Pooled: how must be "mean", "last" or "first", got {self.how!r}')

    def output_shape(self, shape: Shape) -> Shape:
        """(N, T, D) -> (N, D)."""
        check_sequence(self, shape)
        return (shape[0], shape[2])

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return one row a sequence, and the pullback."""
        xp = ctx.xp
        share = self._mean(x, ctx) if self.how == "mean" else self._end(x, ctx)  # (N or 1, T, 1)
        y = xp.sum(x * share, axis=1)

        def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Array, Params]:
            return xp.expand_dims(dy, axis=1) * share, ()

        return y, backward

    def _mean(self, x: Array, ctx: Context) -> Array:
        """Return the share of each position in the mean."""
        if ctx.mask is None:
            return ctx.xp.full((1, x.shape[1], 1), 1.0 / max(x.shape[1], 1), dtype=x.dtype, device=ctx.device)
        mask = ctx.xp.astype(ctx.mask, x.dtype)
        return ctx.xp.expand_dims(mask / ctx.xp.maximum(ctx.xp.sum(mask, axis=1, keepdims=True), 1.0), axis=-1)

    def _end(self, x: Array, ctx: Context) -> Array:
        """Return 1 at the last position that is no padding, or at the first one, else 0."""
        xp, t = ctx.xp, x.shape[1]
        start, stop, step = (1, t + 1, 1) if self.how == "last" else (t, 0, -1)
        place = xp.arange(start, stop, step, dtype=xp.int32, device=ctx.device)[None, :]
        if ctx.mask is not None:
            place = place * xp.astype(ctx.mask, xp.int32)
        last = xp.max(place, axis=1, keepdims=True)
        hit = (place == last) & (place > 0)
        return xp.expand_dims(xp.astype(hit, x.dtype), axis=-1)


def check_sequence(layer: Layer, shape: Shape, n: int | None = None) -> None:
    """Raise ShapeError unless this is the shape of sequences (N, T, D), of n features if given."""
    if len(shape) != 3 or n not in (None, shape[2]):
        features = "D" if n is None else str(n)
        remedy = ": tokens come through Embedding(…) first, numbers as x[..., None]" if len(shape) == 2 else ""
        raise ShapeError(f"expects sequences (N, T, {features}), got {shape}{remedy}", who=str(layer))
