"""Recurrent layers: they read a sequence position by position, and what they have read so far is their state."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from xpnet.arrays import Array, sigmoid, sum_rows
from xpnet.backends import Backend
from xpnet.checks import flag, integer, settle, shown
from xpnet.errors import ShapeError
from xpnet.layers.base import Layer, Params, Pullback
from xpnet.layers.context import Context
from xpnet.layers.scan import Arrays, joined, scan
from xpnet.layers.sequences import check_sequence
from xpnet.parameters import Parameter, Shape, Uniform


def of_state(backend: Backend, h: Array, fixed: Arrays) -> Array:
    """u = h U, and + c where the biases do not come with a."""
    u = backend.matmul(h, fixed[0])
    for bias in fixed[1:]:
        u += bias
    return u


class Recurrent(Layer):
    """What `RNN`, `GRU` and `LSTM` share: the loop forth and back, and the products that need no loop.

    hₜ = f(aₜ, hₜ₋₁ U + c),  a = x W + b;  dx = da Wᵀ,  dW = Σₜ xₜᵀ daₜ,  db = Σₜ daₜ,  dU = Σₜ hₜ₋₁ᵀ duₜ,  dc = Σₜ duₜ
    """

    nin: int
    n: int
    bias: bool
    reverse: bool
    gates: ClassVar[int]
    """How many times H numbers are computed of x at each position."""
    apart: ClassVar[bool] = False
    """Whether c is not simply added to a."""
    states: ClassVar[tuple[str, ...]] = ("state",)
    """What goes from position to position, h first."""

    @abstractmethod
    def step(self, backend: Backend, states: Arrays, fixed: Arrays, a: Array) -> tuple[Arrays, Arrays]:
        """Return the next states of a (N, gH), and what the pullback needs; `fixed` is U and, if there is one, c."""

    @abstractmethod
    def pull(
        self, backend: Backend, ds: Arrays, recurrent: Array, states: Arrays, kept: Arrays
    ) -> tuple[Arrays, Arrays]:
        """Return the gradients of the states before, and (da, du), or (da,) where they are the same."""

    def __post_init__(self) -> None:
        who = type(self).__name__
        settle(self, nin=integer(who, "nin", self.nin), n=integer(who, "n", self.n))
        settle(self, bias=flag(who, "bias", self.bias), reverse=flag(who, "reverse", self.reverse))

    def __str__(self) -> str:
        return f"{type(self).__name__}({self.nin}→{self.n}{', reverse' if self.reverse else ''})"

    def parameters(self) -> tuple[Parameter, ...]:
        """W (I, gH), U (H, gH) and, unless they are left out, b and c (gH,), all uniform within ±1/√H."""
        wide, init, end = self.gates * self.n, Uniform(1.0 / math.sqrt(self.n)), "_reverse" if self.reverse else ""
        weights = (
            Parameter(f"weight_ih_l0{end}", (self.nin, wide), init, axes=(1, 0)),
            Parameter(f"weight_hh_l0{end}", (self.n, wide), init, axes=(1, 0)),
        )
        biases = (Parameter(f"bias_ih_l0{end}", (wide,), init), Parameter(f"bias_hh_l0{end}", (wide,), init))
        return (*weights, *biases) if self.bias else weights

    def output_shape(self, shape: Shape) -> Shape:
        """(N, T, I) -> (N, T, H)."""
        check_sequence(self, shape, self.nin)
        if shape[1] == 0:
            raise ShapeError(f"expects sequences of at least one position, got {shape}", who=str(self))
        return (*shape[:2], self.n)

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return the state after each position, and the pullback."""
        xp, matmul, native = ctx.xp, ctx.backend.matmul, ctx.backend.native
        loop, whole = native(scan), native(joined)
        (weight, recurrent), (n, t), wide = params[:2], x.shape[:2], self.gates * self.n
        rows = xp.reshape(xp.permute_dims(x, (1, 0, 2)), (-1, self.nin))  # time first: what a step reads lies together
        a, *apart = self._biased(matmul(rows, weight), *params[2:])
        a = xp.reshape(a, (t, n, wide))  # (T, N, gH)
        mask = () if ctx.mask is None else (xp.expand_dims(xp.permute_dims(ctx.mask, (1, 0)) != 0, axis=-1),)
        zero = xp.zeros_like(a[0, :, : self.n])
        start = (zero,) * len(self.states) if ctx.stream is None else self._kept(zero, ctx)
        forth, back = (self._forth_over, self._back_over) if mask else (self._forth, self._back)
        last, (h, *kept) = loop(ctx.backend, forth, start, (recurrent, *apart), (a, *mask), self.reverse)
        if ctx.stream is not None:
            ctx.stream.kept.update(zip(self._places(ctx), last, strict=True))

        def backward(dy: Array, need_dx: bool = True, out: Params = (None,) * 4) -> tuple[Array | None, Params]:
            xs, zeros = (xp.permute_dims(dy, (1, 0, 2)), *kept, *mask), (zero,) * len(start)
            _, d = loop(ctx.backend, back, zeros, (recurrent,), xs, not self.reverse)
            each = [xp.reshape(whole(xp, column), (-1, wide)) for column in d]
            da, du, past = each[0], each[-1], xp.reshape(whole(xp, kept[0]), (-1, self.n))
            dx = xp.permute_dims(xp.reshape(matmul(da, weight.T), (t, n, self.nin)), (1, 0, 2)) if need_dx else None
            gradients = (matmul(rows.T, da, out=out[0]), matmul(past.T, du, out=out[1]))
            if not self.bias:
                return dx, gradients
            total = native(sum_rows)
            return dx, (*gradients, total(xp, da), total(xp, du))

        return xp.permute_dims(whole(xp, h), (1, 0, 2)), backward

    def _biased(self, a: Array, *biases: Array) -> Arrays:
        """Return a with the biases added that go with it, and the other, if there is one."""
        if not biases:
            return (a,)
        b, c = biases
        if self.apart:
            a += b
            return a, c
        a += b + c
        return (a,)

    def _forth(self, backend: Backend, states: Arrays, fixed: Arrays, x: Arrays) -> tuple[Arrays, Arrays]:
        """One step, of a: the states after it; h, and what the way back needs, the states before among it."""
        new, kept = self.step(backend, states, fixed, x[0])
        return new, (new[0], *states, *kept)

    def _back(self, backend: Backend, ds: Arrays, fixed: Arrays, x: Arrays) -> tuple[Arrays, Arrays]:
        """One step back, of dy and of what was needed."""
        dy, *kept = x
        count = len(ds)
        return self.pull(backend, (ds[0] + dy, *ds[1:]), fixed[0], tuple(kept[:count]), tuple(kept[count:]))

    def _forth_over(self, backend: Backend, states: Arrays, fixed: Arrays, x: Arrays) -> tuple[Arrays, Arrays]:
        """One step, of a and of where it is real (N, 1): where it is padding the states stay."""
        a, real = x
        moved, (_, *kept) = self._forth(backend, states, fixed, (a,))
        new = tuple(backend.xp.where(real, s, old) for s, old in zip(moved, states, strict=True))
        return new, (new[0], *kept)

    def _back_over(self, backend: Backend, ds: Arrays, fixed: Arrays, x: Arrays) -> tuple[Arrays, Arrays]:
        """One step back, over padding: there the gradient passes as it is."""
        where, (dy, *kept, real) = backend.xp.where, x
        moved = tuple(where(real, d, 0.0) for d in ds)
        before, d = self._back(backend, moved, fixed, (where(real, dy, 0.0), *kept))
        stayed = (ds[0] + dy, *ds[1:])
        return tuple(b + where(real, 0.0, s) for b, s in zip(before, stayed, strict=True)), d

    def _places(self, ctx: Context) -> tuple[str, ...]:
        return tuple(f"{ctx.path}.{name}" for name in self.states)

    def _kept(self, zero: Array, ctx: Context) -> Arrays:
        """Return the states after the positions before this one, of a sequence that comes one by one."""
        assert ctx.stream is not None
        if self.reverse:
            raise ValueError(f"{self} at layer {ctx.path} reads from the end: it cannot go one position at a time")
        return tuple(ctx.stream.kept.get(place, zero) for place in self._places(ctx))


@dataclass(frozen=True)
class RNN(Recurrent):
    """hₜ = φ(xₜ W + b + hₜ₋₁ U + c),  φ = tanh or ReLU        x (N, T, I)   W (I, H)   U (H, H)   y = h (N, T, H)

    da = dh φ′,  dhₜ₋₁ = dyₜ₋₁ + da Uᵀ     (Elman, Cognitive Science 1990; Goodfellow et al., 2016, section 10.2)

    The simplest of the three, and the one that forgets soonest: over many positions its gradient vanishes or explodes
    (Bengio, Simard & Frasconi, 1994). `nonlinearity` is "tanh" or "relu"; what else is said of `LSTM` holds here.
    """

    nin: int
    n: int
    nonlinearity: str = "tanh"
    bias: bool = True
    reverse: bool = False
    gates = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nonlinearity not in ("tanh", "relu"):
            raise ValueError(f'RNN: nonlinearity must be "tanh" or "relu", got {shown(self.nonlinearity)}')

    def step(self, backend: Backend, states: Arrays, fixed: Arrays, a: Array) -> tuple[Arrays, Arrays]:
        """H = φ(a + u)."""
        xp, s = backend.xp, a + of_state(backend, states[0], fixed)
        h = xp.tanh(s) if self.nonlinearity == "tanh" else xp.maximum(s, 0.0)
        return (h,), (h,)

    def pull(
        self, backend: Backend, ds: Arrays, recurrent: Array, states: Arrays, kept: Arrays
    ) -> tuple[Arrays, Arrays]:
        """Da = dh φ′."""
        (dh,), (h,) = ds, kept
        da = dh * (1.0 - h * h if self.nonlinearity == "tanh" else backend.xp.astype(h > 0, h.dtype))
        return (backend.matmul(da, recurrent.T),), (da,)


@dataclass(frozen=True)
class GRU(Recurrent):
    """hₜ = (1 − z) g + z hₜ₋₁,  r, z = σ(a + u),  g = tanh(a + r u),  a = xₜ W + b,  u = hₜ₋₁ U + c, in the order r z g

    dg = dh (1 − z)(1 − g²),  dr = dg u r (1 − r),  dz = dh (hₜ₋₁ − g) z (1 − z),  da = (dr, dz, dg),
    du = (dr, dz, r dg),  dhₜ₋₁ = dyₜ₋₁ + z dh + du Uᵀ        x (N, T, I)   W (I, 3H)   U (H, 3H)   y = h (N, T, H)

    The gate z keeps what is not to be forgotten, r says how much of the state the new content g looks at (Cho et al.,
    EMNLP 2014), here, as in PyTorch, after the product with U. What else is said of `LSTM` holds here.
    """

    nin: int
    n: int
    bias: bool = True
    reverse: bool = False
    gates = 3
    apart = True

    def step(self, backend: Backend, states: Arrays, fixed: Arrays, a: Array) -> tuple[Arrays, Arrays]:
        """R, z, g, and h between g and what it was."""
        xp, n, (h,) = backend.xp, self.n, states
        u = of_state(backend, h, fixed)
        rz = backend.native(sigmoid)(xp, a[:, : 2 * n] + u[:, : 2 * n])
        r, z = rz[:, :n], rz[:, n:]
        v = r * u[:, 2 * n :]
        g = xp.tanh(a[:, 2 * n :] + v)
        return (g + z * (h - g),), (r, z, g, v)

    def pull(
        self, backend: Backend, ds: Arrays, recurrent: Array, states: Arrays, kept: Arrays
    ) -> tuple[Arrays, Arrays]:
        """Dr, dz and dg; v is r u."""
        xp, (dh,), (h,), (r, z, g, v) = backend.xp, ds, states, kept
        dg = dh * (1.0 - z) * (1.0 - g * g)
        dr, dz = dg * v * (1.0 - r), dh * (h - g) * z * (1.0 - z)
        du = xp.concat([dr, dz, dg * r], axis=1)
        return (dh * z + backend.matmul(du, recurrent.T),), (xp.concat([dr, dz, dg], axis=1), du)


@dataclass(frozen=True)
class LSTM(Recurrent):
    """hₜ = o tanh c,  c = f cₜ₋₁ + i g,  i, f, o = σ(s),  g = tanh s,  s = xₜ W + b + hₜ₋₁ U + b′, in the order i f g o

    dc = dc₊ + dh o (1 − tanh² c),  di = dc g i (1 − i),  df = dc cₜ₋₁ f (1 − f),  dg = dc i (1 − g²),
    do = dh tanh c o (1 − o),  ds = (di, df, dg, do),  dhₜ₋₁ = dyₜ₋₁ + ds Uᵀ,  dcₜ₋₁ = f dc

    x (N, T, I)   W (I, 4H)   U (H, 4H)   b, b′ (4H,)   y = h (N, T, H)     Long short-term memory (Hochreiter &
    Schmidhuber, 1997; with the forget gate f of Gers, Schmidhuber & Cummins, 2000): the cell c changes by sums, so that
    its gradient survives many positions.

    Parameters have the names, the order and the first values of those of `torch.nn.LSTM` with `batch_first`.
    y holds the state after each position; before the first it is 0, and `Pooled("last")` takes the last. Layers are
    stacked by `Sequential`. With `reverse` the sequence is read from its end:
    `Parallel(LSTM(I, H), LSTM(I, H, reverse=True), join="concat")` reads it both ways. Within `Masked` the state stays
    as it is over padding. The loop is written out, once for each position, where a library has none of its own.
    """

    nin: int
    n: int
    bias: bool = True
    reverse: bool = False
    gates = 4
    states = ("state", "cell")

    def step(self, backend: Backend, states: Arrays, fixed: Arrays, a: Array) -> tuple[Arrays, Arrays]:
        """I, f, g, o, and with them c and h."""
        xp, n, gate, (h, c) = backend.xp, self.n, backend.native(sigmoid), states
        s = a + of_state(backend, h, fixed)
        both, g, o = gate(xp, s[:, : 2 * n]), xp.tanh(s[:, 2 * n : 3 * n]), gate(xp, s[:, 3 * n :])
        i, f = both[:, :n], both[:, n:]
        c = f * c + i * g
        t = xp.tanh(c)
        return (o * t, c), (i, f, g, o, t)

    def pull(
        self, backend: Backend, ds: Arrays, recurrent: Array, states: Arrays, kept: Arrays
    ) -> tuple[Arrays, Arrays]:
        """Di, df, dg and do; t is tanh c."""
        (dh, dc), (_, c), (i, f, g, o, t) = ds, states, kept
        dc = dc + dh * o * (1.0 - t * t)
        di, df, dg = dc * g * i * (1.0 - i), dc * c * f * (1.0 - f), dc * i * (1.0 - g * g)
        da = backend.xp.concat([di, df, dg, dh * t * o * (1.0 - o)], axis=1)
        return (backend.matmul(da, recurrent.T), dc * f), (da,)
