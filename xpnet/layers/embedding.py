"""Tokens and positions as vectors: tables that are learned, and waves that are not."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from xpnet.arrays import Array, Namespace, Table, cast, device
from xpnet.checks import integer, number, settle
from xpnet.errors import ShapeError
from xpnet.layers.base import Layer, Params, Pullback
from xpnet.layers.compose import Sequential
from xpnet.layers.context import Context
from xpnet.layers.sequences import check_sequence
from xpnet.parameters import Normal, Parameter, Shape


@dataclass(frozen=True)
class Embedding(Layer):
    """y = E[x]        x (N, …), tokens 0..V−1   E (V, D)   y (N, …, D)

    dE[v] = Σ dy over the places where x is v     (Bengio et al., JMLR 2003)

    E starts from N(0, `scale`), PyTorch's choice; GPT-2's is 0.02. Tokens are integers of any width. A model's data are
    looked at before they travel: DataError names a token that is out of range. What is called on arrays of the device
    itself is not looked at.
    """

    count: int
    n: int
    scale: float = 1.0

    def __post_init__(self) -> None:
        count, n = integer("Embedding", "count", self.count), integer("Embedding", "n", self.n)
        settle(self, count=count, n=n, scale=number("Embedding", "scale", self.scale, least=0))

    def __str__(self) -> str:
        return f"Embedding({self.count}, {self.n})"

    def tokens(self, k: int | None = None) -> int:
        """V: x holds tokens 0..V−1."""
        return self.count

    def parameters(self) -> tuple[Parameter, ...]:
        """E (V, D)."""
        return (Parameter("weight", (self.count, self.n), Normal(self.scale)),)

    def output_shape(self, shape: Shape) -> Shape:
        """(N, …) -> (N, …, D)."""
        return (*shape, self.n)

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return the rows of the table, and the pullback, which adds up what came for each."""
        xp, (table,), shape = ctx.xp, params, x.shape
        index = xp.reshape(x, (-1,))
        index = index if index.dtype in (xp.int32, xp.int64) else xp.astype(index, xp.int32)
        y = xp.reshape(xp.take(table, index, axis=0), (*shape, self.n))

        def backward(dy: Array, need_dx: bool = True, out: Params = (None,)) -> tuple[None, Params]:
            rows = xp.reshape(dy, (-1, self.n))
            return None, (ctx.backend.native(scatter_rows)(xp, index, rows, self.count),)

        return y, backward


def scatter_rows(xp: Namespace, index: Array, rows: Array, count: int) -> Array:
    """E[v] = Σ of the rows whose index is v: (count, D) of rows (M, D).

    As a product, since the standard cannot scatter: index (M,) holds integers in 0..count−1. Every sum is taken in a
    fixed order, so that two calls give the same bits.
    """
    number = xp.arange(count, dtype=index.dtype, device=device(rows))
    return cast(xp, number[:, None] == index[None, :], rows.dtype) @ rows


@dataclass(frozen=True)
class Positions(Layer):
    """y = x + P[:T]        x, y (N, T, D)   P (L, D), a vector for each of at most L positions

    dP[t] = Σₙ dy[n, t], and 0 from T on     (Gehring et al., ICML 2017; Vaswani et al., NIPS 2017)

    P starts from N(0, `scale`). ShapeError for sequences longer than L.
    """

    count: int
    n: int
    scale: float = 0.02

    def __post_init__(self) -> None:
        count, n = integer("Positions", "count", self.count), integer("Positions", "n", self.n)
        settle(self, count=count, n=n, scale=number("Positions", "scale", self.scale, least=0))

    def __str__(self) -> str:
        return f"Positions({self.count}, {self.n})"

    def parameters(self) -> tuple[Parameter, ...]:
        """P (L, D)."""
        return (Parameter("weight", (self.count, self.n), Normal(self.scale)),)

    def output_shape(self, shape: Shape) -> Shape:
        """Return the same shape."""
        check_sequence(self, shape, self.n)
        if shape[1] is not None and shape[1] > self.count:
            raise ShapeError(f"knows {self.count} positions, got a sequence of {shape[1]}: cut it", who=str(self))
        return shape

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return x with its positions added, and the pullback."""
        xp, (table,), t = ctx.xp, params, x.shape[1]
        own = table[:t, :] if ctx.stream is None else xp.take(table, xp.reshape(ctx.stream.position, (1,)), axis=0)

        def backward(dy: Array, need_dx: bool = True, out: Params = (None,)) -> tuple[Array, Params]:
            dtable = xp.sum(dy, axis=0)
            if t < self.count:
                rest = xp.zeros((self.count - t, self.n), dtype=dy.dtype, device=ctx.device)
                dtable = xp.concat([dtable, rest])
            return dy if need_dx else None, (dtable,)

        return x + own, backward


@dataclass(frozen=True)
class Sinusoidal(Layer):
    """y = x + S[:T],  S[t, 2k] = sin(t ωₖ),  S[t, 2k+1] = cos(t ωₖ),  ωₖ = 10000^(−2k/D)        x, y (N, T, D), D even

    Positions of any number, without parameters. dx = dy     (Vaswani et al., NIPS 2017, section 3.5)
    """

    def output_shape(self, shape: Shape) -> Shape:
        """Return the same shape."""
        check_sequence(self, shape)
        if shape[2] % 2:
            raise ShapeError(f"expects an even number of features, a sine and a cosine each, got {shape}", str(self))
        return shape

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return x with its positions added, and the pullback."""
        xp, (t, n) = ctx.xp, x.shape[1:]
        sine, cosine = waves(ctx, t, n // 2, x.dtype)
        return x + xp.reshape(xp.stack([sine, cosine], axis=-1), (t, n)), lambda dy, need_dx=True, out=(): (dy, ())


def waves(ctx: Context, t: int, count: int, dtype: Any) -> tuple[Array, Array]:
    """Return sin(t ωₖ) and cos(t ωₖ) for every position and wave, (T, count), ωₖ = 10000^(−k/count).

    The angles are computed in the host's float64, and rounded once.
    """
    xp, stream = ctx.xp, ctx.stream
    tables = _waves(t if stream is None else stream.length, count)
    sine, cosine = (ctx.backend.constant(table, dtype) for table in tables)
    if stream is None:
        return sine, cosine
    place = xp.reshape(stream.position, (1,))
    return xp.take(sine, place, axis=0), xp.take(cosine, place, axis=0)


@lru_cache
def _waves(t: int, count: int) -> tuple[Table, Table]:
    """Return the tables of sines and cosines."""
    angles = [[p * 10000.0 ** (-k / count) for k in range(count)] for p in range(t)]
    sine, cosine = (Table(tuple(map(wave, row)) for row in angles) for wave in (math.sin, math.cos))
    return sine, cosine


@dataclass(frozen=True, init=False)
class Tied(Sequential):
    """y = f(E[x]) Eᵀ, E the table of the `Embedding` that comes first, f the other layers        y (N, …, V)

    One table for what is read and what is predicted: dE = the embedding's + dyᵀ f.
    (Press & Wolf, EACL 2017; Inan et al., ICLR 2017)
    """

    def __init__(self, *layers: Layer) -> None:
        super().__init__(*layers)
        if not layers or not isinstance(layers[0], Embedding):
            raise TypeError(f"Tied expects an Embedding first, got {layers[0] if layers else 'nothing'}")

    def output_shape(self, shape: Shape) -> Shape:
        """(N, …) -> (N, …, V)."""
        table, out = self.layers[0], super().output_shape(shape)
        assert isinstance(table, Embedding)
        if out[-1] != table.n:
            raise ShapeError(f"expects layers that give the table's {table.n} features, got {out}", who="Tied")
        return (*out[:-1], table.count)

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return the scores of all tokens, and the pullback."""
        xp, matmul, table = ctx.xp, ctx.backend.matmul, params[0]
        h, pullback = super().forward(params, x, ctx)
        rows = xp.reshape(h, (-1, h.shape[-1]))

        def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[None, Params]:
            scores = xp.reshape(dy, (-1, dy.shape[-1]))
            dh = xp.reshape(matmul(scores, table), h.shape)
            _, (dtable, *others) = pullback(dh, need_dx, (None, *out[1:]))
            return None, (dtable + matmul(scores.T, rows), *others)

        return xp.reshape(matmul(rows, table.T), (*h.shape[:-1], table.shape[0])), backward
