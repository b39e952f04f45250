"""Pools: images made smaller by the largest or the mean of each patch; and larger by repetition."""

from dataclasses import dataclass
from functools import cached_property, reduce
from math import prod
from operator import add
from typing import Any

from xpnet.arrays import Array, Namespace
from xpnet.checks import pair, settle
from xpnet.errors import ShapeError
from xpnet.geometry import Grid, Pair
from xpnet.layers.base import Layer, Params, Pullback
from xpnet.layers.context import Context
from xpnet.layers.convolution import fitting
from xpnet.layers.patches import pieces, spread
from xpnet.parameters import Shape

PIXEL = Grid((1, 1))


@dataclass(frozen=True)
class MaxPool2d(Layer):
    """y[n, h, w] = maxᵢⱼ x[n, s h + i − p, s w + j − p]        x (N, H, W, C)   y (N, H′, W′, C)

    dx: every dy at the pixel that was the largest, the first of equals     (Ranzato et al., CVPR 2007)

    H′ = ⌊(H + 2p − K) / s⌋ + 1; the stride is the kernel unless given. Padding never is the largest, and is at most
    half of the kernel.
    """

    kernel: int | Pair
    stride: int | Pair | None = None
    padding: int | Pair = 0

    def __post_init__(self) -> None:
        who = type(self).__name__
        kernel = pair(who, "kernel", self.kernel)
        stride = kernel if self.stride is None else pair(who, "stride", self.stride)
        padding = pair(who, "padding", self.padding, least=0)
        if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
            raise ValueError(f"{who}: padding must be at most half of kernel {self.kernel}, got {self.padding}")
        settle(self, kernel=kernel, stride=stride, padding=padding)

    def __str__(self) -> str:
        stride = "" if self.stride == self.kernel else f", stride={self.stride}"
        padding = f", padding={self.padding}" if self.padding != (0, 0) else ""
        return f"{type(self).__name__}({'×'.join(map(str, self.grid.kernel))}{stride}{padding})"

    @cached_property
    def grid(self) -> Grid:
        """How the patch moves."""
        return Grid(self.kernel, self.stride, self.padding, self.padding)  # type: ignore[arg-type]

    def output_shape(self, shape: Shape) -> Shape:
        """(N, H, W, C) -> (N, H′, W′, C)."""
        return (shape[0], *_check(self, shape, self.grid), shape[3])

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return the largest of each patch, and the pullback."""
        y, spread_back = ctx.backend.native(max_pool)(ctx.xp, x, self.grid)
        return y, _without_parameters(spread_back)


@dataclass(frozen=True)
class AvgPool2d(MaxPool2d):
    """y[n, h, w] = Σᵢⱼ x[n, s h + i − p, s w + j − p] / (K L)        x (N, H, W, C)   y (N, H′, W′, C)

    dx: of every dy an equal share to each pixel of its patch     (LeCun et al., 1998)

    Settings are those of `MaxPool2d`. Padding counts as zeros, as is PyTorch's default.
    """

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return the mean of each patch, and the pullback."""
        y, spread_back = ctx.backend.native(average_pool)(ctx.xp, x, self.grid)
        return y, _without_parameters(spread_back)


@dataclass(frozen=True)
class GlobalAvgPool2d(Layer):
    """y = Σₕᵥ x / (H W)        x (N, H, W, C)   y (N, C)        dx = dy / (H W)        (Lin, Chen & Yan, ICLR 2014)"""

    def output_shape(self, shape: Shape) -> Shape:
        """(N, H, W, C) -> (N, C)."""
        _check(self, shape)
        return (shape[0], shape[3])

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return the mean of each image and channel, and the pullback."""
        xp, shape = ctx.xp, x.shape
        share = 1.0 / prod(shape[1:3])

        def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Array, Params]:
            return xp.broadcast_to(dy[:, None, None, :] * share, shape), ()

        return xp.sum(x, axis=(1, 2)) * share, backward


@dataclass(frozen=True)
class Upsample(Layer):
    """y[n, h, w] = x[n, ⌊h/f⌋, ⌊w/f⌋]        x (N, H, W, C)   y (N, f H, f W, C): each pixel f times in both directions

    dx: the sum of the dy of each pixel's copies. PyTorch's `Upsample(scale_factor=f, mode="nearest")`.
    """

    factor: int | Pair = 2

    def __post_init__(self) -> None:
        settle(self, factor=pair("Upsample", "factor", self.factor))

    def __str__(self) -> str:
        return f"Upsample({'×'.join(map(str, self.factor))})"  # type: ignore[arg-type]

    def output_shape(self, shape: Shape) -> Shape:
        """(N, H, W, C) -> (N, f H, f W, C)."""
        _check(self, shape)
        (f, g), (n, h, w, c) = self.factor, shape  # type: ignore[misc]
        return (n, h * f, w * g, c)

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return the larger images and the pullback."""
        xp, (f, g), (_, h, w, c) = ctx.xp, self.factor, x.shape  # type: ignore[misc]
        y = xp.repeat(xp.repeat(x, f, axis=1), g, axis=2)

        def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Array, Params]:
            return xp.sum(xp.reshape(dy, (dy.shape[0], h, f, w, g, c)), axis=(2, 4)), ()

        return y, backward


def max_pool(xp: Namespace, x: Array, grid: Grid) -> tuple[Array, Any]:
    """Return the largest of each patch (N, H′, W′, C), and `dx(dy)`."""
    taps = pieces(xp, x, grid, float("-inf"))
    y = reduce(xp.maximum, taps)

    def back(dy: Array) -> Array:
        free, parts = xp.ones_like(y, dtype=xp.bool), []
        for tap in taps:
            hit = (tap == y) & free  # of equals the first
            free = free & ~hit
            parts.append(dy * xp.astype(hit, dy.dtype))
        return spread(xp, parts, x.shape[1:3], grid)

    return y, back


def average_pool(xp: Namespace, x: Array, grid: Grid) -> tuple[Array, Any]:
    """Return the mean of each patch (N, H′, W′, C), and `dx(dy)`."""
    share = 1.0 / prod(grid.kernel)

    def back(dy: Array) -> Array:
        return spread(xp, [dy * share] * prod(grid.kernel), x.shape[1:3], grid)

    return reduce(add, pieces(xp, x, grid)) * share, back


def _without_parameters(back: Any) -> Pullback:
    """Make a pullback of a function of dy alone."""
    return lambda dy, need_dx=True, out=(): (back(dy) if need_dx else None, ())


def _check(layer: Layer, shape: Shape, grid: Grid = PIXEL) -> Pair:
    """Return the height and width that a kernel makes of images (N, H, W, C); ShapeError if they are none, or small."""
    if len(shape) != 4:
        remedy = ": add Channels() before it, which gives images their channel axis" if len(shape) == 3 else ""
        raise ShapeError(f"expects images (N, H, W, C), got {shape}{remedy}", who=str(layer))
    return fitting(layer, grid, shape)
