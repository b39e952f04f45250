"""Layers that bring numbers to mean 0 and variance 1, and then give each feature a factor and a shift of its own.

The variance is taken in two passes and corrected, mean(d²) − mean(d)² with d = x − mean(x): never E[x²] − μ², in which
large means cancel. (Chan, Golub & LeVeque, The American Statistician 1983)
"""

from dataclasses import dataclass
from math import prod
from typing import Any

from xpnet.arrays import Array, Namespace, device, sum_rows
from xpnet.backends import Backend
from xpnet.checks import flag, integer, number, settle
from xpnet.errors import ShapeError
from xpnet.layers.base import Layer, Params, Pullback
from xpnet.layers.context import Context
from xpnet.layers.convolution import displaced
from xpnet.layers.synchronized import standardize_jointly
from xpnet.parameters import Parameter, Shape, ones


@dataclass(frozen=True)
class BatchNorm(Layer):
    """y = γ (x − μ) / √(σ² + ε) + β, over all axes but the last        x, y (N, …, C)   γ, β (C,)

    dx = γ/√(σ² + ε) (dy − mean dy − x̂ mean(dy x̂)),  dγ = Σ dy x̂,  dβ = Σ dy     (Ioffe & Szegedy, ICML 2015)

    In training μ and σ² are those of the batch, and what is carried moves a little towards them, `momentum` m at each
    step: running ← (1 − m) running + m batch, the variance of n numbers with n − 1 below. Otherwise they are what is
    carried, "running_mean" and "running_var": of a model `model.buffers`. For rows (N, C) and images (N, H, W, C)
    alike: PyTorch's BatchNorm1d and BatchNorm2d, with the same names and settings.

    Of several processes each takes the statistics of its own rows, and what is carried moves towards their mean.
    `synchronized`: statistics and gradients of all rows, PyTorch's SyncBatchNorm, at three more sums a step.

    ShapeError in training on a single number a channel, which has no variance.
    """

    n: int
    eps: float = 1e-5
    momentum: float = 0.1
    synchronized: bool = False

    def __post_init__(self) -> None:
        momentum = number("BatchNorm", "momentum", self.momentum, least=0, most=1)
        settle(self, n=integer("BatchNorm", "n", self.n), eps=_eps(self), momentum=momentum)
        settle(self, synchronized=flag("BatchNorm", "synchronized", self.synchronized))

    def __str__(self) -> str:
        return f"BatchNorm({self.n}{', synchronized=True' if self.synchronized else ''})"

    def parameters(self) -> tuple[Parameter, ...]:
        """γ (C,), which starts at one, and β (C,), which starts at zero."""
        return _factor_and_shift(self.n)

    def buffers(self) -> tuple[Parameter, ...]:
        """The mean (C,), zero before the first step, and the variance (C,), one before it."""
        return Parameter("running_mean", (self.n,)), Parameter("running_var", (self.n,), ones)

    def output_shape(self, shape: Shape) -> Shape:
        """Return the same shape."""
        return _features(self, shape, self.n)

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return x by the batch's statistics, or by those carried, and the pullback."""
        (gamma, beta), count = params, prod(x.shape[:-1]) if ctx.training else 0
        if not ctx.training:
            return _by_carried(ctx.xp, x, gamma, beta, ctx.buffer("running_mean"), ctx.buffer("running_var"), self.eps)
        total = ctx.total if self.synchronized else None
        if count < 2 and total is None:
            raise ShapeError(
                f"needs at least 2 numbers a channel to train on, got {tuple(x.shape)}", str(self), ctx.path
            )
        if total is not None:
            y, mean, variance, count, pullback = standardize_jointly(total, ctx.backend, x, gamma, beta, self.eps)
        else:
            y, mean, variance, pullback = ctx.backend.native(standardize_rows)(ctx.xp, x, gamma, beta, self.eps)
        ctx.carry("running_mean", mean, self.momentum)
        ctx.carry("running_var", variance * (count / (count - 1)), self.momentum)
        return y, lambda dy, need_dx=True, out=(None, None): pullback(dy, need_dx)


@dataclass(frozen=True)
class LayerNorm(Layer):
    """y = γ (x − μ) / √(σ² + ε) + β, over the last axis        x, y (N, …, C)   γ, β (C,)

    dx = (g − mean g − x̂ mean(g x̂)) / √(σ² + ε) with g = γ dy,  dγ = Σ dy x̂,  dβ = Σ dy     (Ba, Kiros & Hinton, 2016)
    """

    n: int
    eps: float = 1e-5

    def __post_init__(self) -> None:
        settle(self, n=integer("LayerNorm", "n", self.n), eps=_eps(self))

    def __str__(self) -> str:
        return f"LayerNorm({self.n})"

    def parameters(self) -> tuple[Parameter, ...]:
        """γ (C,), which starts at one, and β (C,), which starts at zero."""
        return _factor_and_shift(self.n)

    def output_shape(self, shape: Shape) -> Shape:
        """Return the same shape."""
        return _features(self, shape, self.n)

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return x by the mean and variance of each position, and the pullback."""
        y, pullback = ctx.backend.native(standardize_features)(ctx.backend, x, *params, self.eps)
        return y, lambda dy, need_dx=True, out=(None, None): pullback(dy, need_dx)


@dataclass(frozen=True)
class GroupNorm(Layer):
    """y = γ (x − μ) / √(σ² + ε) + β, over all positions and C/G channels        x, y (N, …, C)   γ, β (C,)

    The gradients are those of LayerNorm, its means over the same numbers (Wu & He, ECCV 2018). The channels are cut
    into `groups` G; what a sample becomes depends on itself alone. G = C is instance normalisation.
    """

    groups: int
    n: int
    eps: float = 1e-5

    def __post_init__(self) -> None:
        groups, n = integer("GroupNorm", "groups", self.groups), integer("GroupNorm", "n", self.n)
        if n % groups:
            raise ValueError(f"GroupNorm: groups must divide {n} channels, got {groups}")
        settle(self, groups=groups, n=n, eps=_eps(self))

    def __str__(self) -> str:
        return f"GroupNorm({self.groups}, {self.n})"

    def parameters(self) -> tuple[Parameter, ...]:
        """γ (C,), which starts at one, and β (C,), which starts at zero."""
        return _factor_and_shift(self.n)

    def output_shape(self, shape: Shape) -> Shape:
        """Return the same shape."""
        return _features(self, shape, self.n)

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return x by the mean and variance of each sample's groups, and the pullback."""
        xp, own = ctx.xp, (-1, *x.shape[1:])
        cut = (-1, prod(x.shape[1:-1]), self.groups, self.n // self.groups)
        hat, back = standardize(xp, xp.reshape(x, cut), (1, 3), self.eps)
        y, pullback = _scaled(
            ctx.backend, xp.reshape(hat, own), lambda d: xp.reshape(back(xp.reshape(d, cut)), own), params
        )
        return y, lambda dy, need_dx=True, out=(None, None): pullback(dy, need_dx)


@dataclass(frozen=True)
class RMSNorm(Layer):
    """y = γ x / √(mean x² + ε), over the last axis        x, y (N, …, C)   γ (C,)

    dx = (g − x̂ mean(g x̂)) / √(mean x² + ε) with g = γ dy,  dγ = Σ dy x̂     (Zhang & Sennrich, NeurIPS 2019)

    `eps` left out is the distance from 1 to the next number in x's precision, as in PyTorch.
    """

    n: int
    eps: float | None = None

    def __post_init__(self) -> None:
        settle(self, n=integer("RMSNorm", "n", self.n), eps=None if self.eps is None else _eps(self))

    def __str__(self) -> str:
        return f"RMSNorm({self.n})"

    def parameters(self) -> tuple[Parameter, ...]:
        """γ (C,), which starts at one."""
        return _factor_and_shift(self.n)[:1]

    def output_shape(self, shape: Shape) -> Shape:
        """Return the same shape."""
        return _features(self, shape, self.n)

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return x by its root mean square at each position, and the pullback."""
        xp = ctx.xp
        eps = float(xp.finfo(x.dtype).eps) if self.eps is None else self.eps
        scale = 1.0 / xp.sqrt(xp.mean(x * x, axis=-1, keepdims=True) + eps)
        hat = x * scale

        def back(d: Array) -> Array:
            return scale * (d - hat * xp.mean(d * hat, axis=-1, keepdims=True))

        y, pullback = _scaled(ctx.backend, hat, back, params)
        return y, lambda dy, need_dx=True, out=(None,): pullback(dy, need_dx)


def standardize_features(backend: Backend, x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Any]:
    """Return γ (x − μ) / √(σ² + ε) + β, mean and variance over the last axis, and `backward(dy, need_dx)`."""
    return _scaled(backend, *standardize(backend.xp, x, -1, eps), (gamma, beta))


def standardize(xp: Namespace, x: Array, axes: int | tuple[int, ...], eps: float) -> tuple[Array, Any]:
    """Return x̂ = (x − μ) / √(σ² + ε), mean and variance over some axes, and its pullback."""
    d = x - xp.mean(x, axis=axes, keepdims=True)
    rest = xp.mean(d, axis=axes, keepdims=True)
    scale = 1.0 / xp.sqrt(xp.mean(d * d, axis=axes, keepdims=True) - rest * rest + eps)
    hat = d * scale

    def back(g: Array) -> Array:
        along = hat * xp.mean(g * hat, axis=axes, keepdims=True)
        return scale * (g - xp.mean(g, axis=axes, keepdims=True) - along)

    return hat, back


def standardize_rows(xp: Namespace, x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Array, Array, Any]:
    """Return y = γ (x − μ) / √(σ² + ε) + β, the mean μ (C,) and variance σ² (C,) of all rows, and the pullback of y.

    A mean of rows is a product with 1/M: BLAS adds them up faster than a sum over the first axis, and closer.
    """
    rows = xp.reshape(x, (-1, x.shape[-1]))
    count = rows.shape[0]
    each = xp.full((1, count), 1.0 / count, dtype=x.dtype, device=device(x))
    mean = each @ rows
    d = rows - mean
    rest = each @ d
    variance = each @ (d * d) - rest * rest
    scale = 1.0 / xp.sqrt(variance + eps)
    factor = gamma * scale
    y = d * factor
    y += beta

    def backward(dy: Array, need_dx: bool) -> tuple[Array | None, Params]:
        g = xp.reshape(dy, (-1, dy.shape[-1]))
        dbeta, dot = sum_rows(xp, g), sum_rows(xp, g * d)
        dgamma = dot * scale[0, ...]
        if not need_dx:
            return None, (dgamma, dbeta)
        dx = d * (dgamma * scale * (-1.0 / count))
        dx += g
        dx -= dbeta * (1.0 / count)
        dx *= factor
        return xp.reshape(dx, x.shape), (dgamma, dbeta)

    return xp.reshape(y, x.shape), mean[0, ...], variance[0, ...], backward


def _by_carried(
    xp: Namespace, x: Array, gamma: Array, beta: Array, mean: Array, variance: Array, eps: float
) -> tuple[Array, Pullback]:
    """Return x by statistics that are given, which no gradient reaches, and the pullback."""
    scale = 1.0 / xp.sqrt(variance + eps)
    factor = gamma * scale

    def backward(dy: Array, need_dx: bool = True, out: Params = (None, None)) -> tuple[Array | None, Params]:
        gradients = (sum_rows(xp, dy * (x - mean)) * scale, sum_rows(xp, dy))
        return dy * factor if need_dx else None, gradients

    return (x - mean) * factor + beta, backward


def _scaled(backend: Backend, hat: Array, back: Any, params: Params) -> tuple[Array, Any]:
    """Return γ x̂ + β, β if there is one, and the pullback, `back` being that of x̂."""
    xp, total, (gamma, *beta) = backend.xp, backend.native(sum_rows), params

    def backward(dy: Array, need_dx: bool) -> tuple[Array | None, Params]:
        gradients = (total(xp, dy * hat), *(total(xp, dy) for _ in beta))
        return back(dy * gamma) if need_dx else None, gradients

    y = hat * gamma
    return (y + beta[0] if beta else y), backward


def _eps(layer: Any) -> float:
    return number(type(layer).__name__, "eps", layer.eps, above=0)


def _factor_and_shift(n: int) -> tuple[Parameter, Parameter]:
    return Parameter("weight", (n,), ones), Parameter("bias", (n,))


def _features(layer: Layer, shape: Shape, n: int) -> Shape:
    """Return the shape; ShapeError unless its last axis has n features."""
    if len(shape) < 2 or shape[-1] != n:
        remedy = displaced(shape, n) if len(shape) > 1 else ": give it a batch, x[None, ...]"
        raise ShapeError(f"expects {n} channels in the last axis, got {shape}{remedy}", who=str(layer))
    return shape
