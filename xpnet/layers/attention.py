"""Attention: every position reads from the others, as far as it may, by how well its query fits their keys."""

import math
from dataclasses import dataclass
from typing import Any

from xpnet.arrays import Array, Namespace, cast
from xpnet.backends import Backend
from xpnet.checks import flag, integer, number, settle
from xpnet.layers.activations import GELU
from xpnet.layers.base import Layer, Params, Pullback
from xpnet.layers.compose import Residual, Sequential
from xpnet.layers.context import Context
from xpnet.layers.dropout import Dropout
from xpnet.layers.embedding import waves
from xpnet.layers.linear import Linear
from xpnet.layers.normalization import LayerNorm
from xpnet.layers.sequences import check_sequence
from xpnet.parameters import Parameter, Shape, find_initializer

NAME = "attention"
"""Under which weights are shown to who watches, beside the layers' outputs: `3.attention`, (N, heads, T, T)."""


def attention(
    backend: Backend, q: Array, k: Array, v: Array, causal: bool, mask: Array | None, keep: Array | None
) -> tuple[Array, Any]:
    """y = p v,  p = softmax(q kᵀ / √d), row by row        q, k, v, y (N, H, T, d)   p (N, H, T, T)

    dv = pᵀ dy,  dp = dy vᵀ,  ds = p (dp − Σ dp p),  dq = ds k / √d,  dk = dsᵀ q / √d

    `causal`: position t reads from 0..t alone. `mask` (N, 1, …, T): 0 where nobody may read; a position that may read
    from nowhere gets 0. `keep` like p: what dropout multiplies p by. Returns y, and `back(dy) -> dq, dk, dv`.
    """
    xp, matmul, scale = backend.xp, backend.matmul, 1.0 / math.sqrt(q.shape[-1])
    p = weights(backend, q, k, causal, mask)
    kept = p if keep is None else p * keep

    def back(dy: Array) -> tuple[Array, Array, Array]:
        dp = matmul(dy, xp.matrix_transpose(v))
        if keep is not None:
            dp = dp * keep
        ds = dp - xp.sum(dp * p, axis=-1, keepdims=True)
        ds *= p
        ds *= scale
        return matmul(ds, k), matmul(xp.matrix_transpose(ds), q), matmul(xp.matrix_transpose(kept), dy)

    return matmul(kept, v), back


def weights(backend: Backend, q: Array, k: Array, causal: bool, mask: Array | None) -> Array:
    """p = softmax(q kᵀ / √d), row by row: how much each position reads from each."""
    xp = backend.xp
    s = backend.matmul(q * (1.0 / math.sqrt(q.shape[-1])), xp.matrix_transpose(k))
    if mask is not None:
        s = xp.where(mask == 0, float(xp.finfo(s.dtype).min), s)
    if causal:
        now = xp.arange(s.shape[-1], device=backend.device)
        s = xp.where(now[:, None] < now[None, :], -math.inf, s)
    s = s - xp.max(s, axis=-1, keepdims=True)
    p = xp.exp(s)
    p /= xp.sum(p, axis=-1, keepdims=True)
    return p if mask is None else p * cast(xp, mask, p.dtype)


def rotate(xp: Namespace, x: Array, sine: Array, cosine: Array) -> Array:
    """Turn each pair (x[k], x[k + d/2]) by its angle: (a cos − b sin, b cos + a sin)        x (…, T, d)   sine (T, d/2)

    The pullback turns back, by −sine.
    """
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return xp.concat([a * cosine - b * sine, b * cosine + a * sine], axis=-1)


@dataclass(frozen=True)
class MultiHeadAttention(Layer):
    """y = concat(head₁, …) Wₒ + bₒ,  headᵢ = softmax(qᵢ kᵢᵀ / √d + mask) vᵢ,  (q, k, v) = x W + b        x, y (N, T, D)

    Self-attention with H heads of d = D/H features each; W (D, 3D), b (3D,), Wₒ (D, D), bₒ (D,), by PyTorch's names.
    (Vaswani et al., NIPS 2017, section 3.2)

    `causal`: position t reads from 0..t alone, as a model that writes must. `dropout` is that of the weights, in
    training. `rotary`: queries and keys are turned by angles that grow with the position, pairs (k, k + d/2) by
    t·10000^(−2k/d), so that only distances count (Su et al., "RoFormer", 2021): no `Positions` are needed then. Within
    `Masked` nobody reads from padding, and where there is nothing to read from the heads are 0.
    """

    n: int
    heads: int
    causal: bool = False
    dropout: float = 0.0
    rotary: bool = False

    def __post_init__(self) -> None:
        who = "MultiHeadAttention"
        n, heads = integer(who, "n", self.n), integer(who, "heads", self.heads)
        if n % heads:
            raise ValueError(f"{who}: heads must divide {n} features, got {heads}")
        causal, rotary = flag(who, "causal", self.causal), flag(who, "rotary", self.rotary)
        if rotary and n // heads % 2:
            raise ValueError(f"{who}: rotary turns pairs, heads of {n // heads} features have none left over: change n")
        dropout = number(who, "dropout", self.dropout, least=0, below=1)
        settle(self, n=n, heads=heads, causal=causal, dropout=dropout, rotary=rotary)

    def __str__(self) -> str:
        causal = ", causal" if self.causal else ""
        return f"MultiHeadAttention({self.n}, {self.heads}{causal})"

    def parameters(self) -> tuple[Parameter, ...]:
        """W (D, 3D), b (3D,), Wₒ (D, D) and bₒ (D,)."""
        n, normal = self.n, find_initializer("normal")
        return (
            Parameter("in_proj_weight", (n, 3 * n), normal, axes=(1, 0)),
            Parameter("in_proj_bias", (3 * n,)),
            Parameter("out_proj.weight", (n, n), normal, axes=(1, 0)),
            Parameter("out_proj.bias", (n,)),
        )

    def output_shape(self, shape: Shape) -> Shape:
        """Return the same shape."""
        check_sequence(self, shape, self.n)
        return shape

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return what the positions have read, and the pullback."""
        xp, (wide, wide_bias, weight, bias), (t, n) = ctx.xp, params, x.shape[1:]
        qkv, project = Linear(n, 3 * n).forward((wide, wide_bias), x, ctx)
        cut = xp.permute_dims(xp.reshape(qkv, (-1, t, 3, self.heads, n // self.heads)), (2, 0, 3, 1, 4))
        q, k, v = cut[0, ...], cut[1, ...], cut[2, ...]  # (N, H, T, d)
        if self.rotary:
            sine, cosine = waves(ctx, t, n // self.heads // 2, x.dtype)
            q, k = rotate(xp, q, sine, cosine), rotate(xp, k, sine, cosine)
        mask, causal = None if ctx.mask is None else ctx.mask[:, None, None, :], self.causal
        if ctx.stream is not None:
            k, v, mask, causal = self._so_far(k, v, ctx)
        if ctx.watch is not None:
            ctx.watch(f"{ctx.path}.{NAME}" if ctx.path else NAME, weights(ctx.backend, q, k, causal, mask))
        keep = self._keep((*q.shape[:3], k.shape[2]), x, ctx)
        heads, back = ctx.backend.native(attention)(ctx.backend, q, k, v, causal, mask, keep)
        joined = xp.reshape(xp.permute_dims(heads, (0, 2, 1, 3)), x.shape)
        y, gather = Linear(n, n).forward((weight, bias), joined, ctx)

        def backward(dy: Array, need_dx: bool = True, out: Params = (None,) * 4) -> tuple[Array | None, Params]:
            dheads, last = gather(dy, True, out[2:])
            parts = xp.reshape(dheads, (-1, t, self.heads, n // self.heads))
            dq, dk, dv = back(xp.permute_dims(parts, (0, 2, 1, 3)))
            if self.rotary:
                dq, dk = rotate(xp, dq, -sine, cosine), rotate(xp, dk, -sine, cosine)
            rows = [xp.permute_dims(part, (0, 2, 1, 3)) for part in (dq, dk, dv)]
            dqkv = xp.reshape(xp.stack(rows, axis=2), qkv.shape)
            dx, first = project(dqkv, need_dx, out[:2])
            return dx, (*first, *last)

        return y, backward

    def _keep(self, shape: Shape, x: Array, ctx: Context) -> Array | None:
        """Return what dropout multiplies the weights by, if it does anything."""
        if not ctx.training or not self.dropout:
            return None
        ones = ctx.xp.ones(shape, dtype=x.dtype, device=ctx.device)
        return Dropout(self.dropout).forward((), ones, ctx)[0]

    def _so_far(self, k: Array, v: Array, ctx: Context) -> tuple[Array, Array, Array, bool]:
        """Put a position's key and value beside those before it: return all, where they are, and that none is later."""
        xp, stream = ctx.xp, ctx.stream
        assert stream is not None
        if not self.causal:
            raise ValueError(f"{self} at layer {ctx.path} reads from later positions: make it causal to go one by one")
        place = xp.arange(stream.length, dtype=xp.int32, device=ctx.device)
        here = (place == stream.position)[:, None]
        empty = xp.zeros((*k.shape[:2], stream.length, k.shape[3]), dtype=k.dtype, device=ctx.device)
        for name, new in (("key", k), ("value", v)):
            path = f"{ctx.path}.{name}"
            stream.kept[path] = xp.where(here, new, stream.kept.get(path, empty))
        past = cast(xp, place <= stream.position, xp.int32)[None, None, None, :]
        return stream.kept[f"{ctx.path}.key"], stream.kept[f"{ctx.path}.value"], past, False


@dataclass(frozen=True, init=False)
class TransformerBlock(Sequential):
    """y = h + f(norm(h)),  h = x + attention(norm(x)),  f = Linear(D→4D), GELU, Linear(4D→D)        x, y (N, T, D)

    Normalised before each part, which trains without warmup (Xiong et al., ICML 2020); built of `Residual`,
    `LayerNorm`, `MultiHeadAttention`, `Linear` and `Dropout`, whose paths are `0.1.in_proj_weight` and so on. `hidden`
    is 4D unless given. `dropout` is that of the attention's weights and of what each part adds.
    """

    n: int
    heads: int
    causal: bool = False
    dropout: float = 0.0
    rotary: bool = False
    hidden: int | None = None

    def __init__(
        self,
        n: int,
        heads: int,
        causal: bool = False,
        dropout: float = 0.0,
        rotary: bool = False,
        hidden: int | None = None,
    ) -> None:
        part = MultiHeadAttention(n, heads, causal, dropout, rotary)
        wide = 4 * part.n if hidden is None else integer("TransformerBlock", "hidden", hidden)
        drop = Dropout(part.dropout)
        super().__init__(
            Residual(LayerNorm(part.n), part, drop),
            Residual(LayerNorm(part.n), Linear(part.n, wide), GELU(), Linear(wide, part.n), drop),
        )
        settle(self, n=part.n, heads=part.heads, causal=part.causal, dropout=part.dropout, rotary=part.rotary)
        settle(self, hidden=hidden if hidden is None else wide)

    def __str__(self) -> str:
        causal = ", causal" if self.causal else ""
        return f"TransformerBlock({self.n}, {self.heads}{causal})"
