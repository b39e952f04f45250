"""Layers that change images at random while a network trains, and leave them as they are when it does not.

What is drawn are whole numbers from a hash, which depend on the seed, the step, the layer's path and the image's place
in the batch alone: so they are the same on every backend, and nothing waits for the host. Images are (N, H, W, C):
`Channels()` goes before, for grey ones. Rotations are next door, in `affine`.
"""

from abc import abstractmethod
from dataclasses import dataclass

from xpnet.arrays import Array, Namespace, device
from xpnet.checks import number, pair, settle
from xpnet.errors import ShapeError
from xpnet.geometry import Pair
from xpnet.layers.base import Layer, Params, Pullback
from xpnet.layers.context import Context
from xpnet.layers.patches import pad
from xpnet.parameters import Shape
from xpnet.random import bernoulli, mask_key, uniform_integers


class Augmentation(Layer):
    """What all have in common: images (N, H, W, C), the same shape out, and y = x unless this is training."""

    def output_shape(self, shape: Shape) -> Shape:
        """Return the same shape."""
        if len(shape) != 4:
            remedy = ": add Channels() before it, which gives images their channel axis" if len(shape) == 3 else ""
            raise ShapeError(f"expects images (N, H, W, C), got {shape}{remedy}", who=str(self))
        return shape

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return the images, changed if this is training, and the pullback."""
        if not ctx.training or min(x.shape) < 1:
            return self.rest(x, ctx)
        return self.change(x, ctx)

    def rest(self, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return what comes out without training, and the pullback."""
        return x, lambda dy, need_dx=True, out=(): (dy, ())

    @abstractmethod
    def change(self, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return what comes out in training, and the pullback."""

    def draw(self, x: Array, ctx: Context, low: int, high: int, purpose: str) -> Array:
        """Return a whole number for each image, low ≤ number < high: int32 (N,)."""
        key, path = self.key(ctx), f"{ctx.path}/{purpose}"
        return uniform_integers(ctx.xp, x.shape[0], low, high, key, path, ctx.device, ctx.row)

    def key(self, ctx: Context) -> int | Array:
        """Return the key of this step; ValueError if there is none."""
        name = type(self).__name__
        return mask_key(ctx.key, f"{name} at layer {ctx.path}" if ctx.path else name)


@dataclass(frozen=True)
class RandomFlip(Augmentation):
    """y = x, left and right exchanged with probability p        dx = dy, exchanged likewise        x, y (N, H, W, C)

    torchvision's `RandomHorizontalFlip`. Not for digits or letters, which become others.
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        settle(self, p=number("RandomFlip", "p", self.p, least=0, most=1))

    def change(self, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return the images, some of them flipped, and the pullback."""
        xp, shape, draw = ctx.xp, (x.shape[0], 1, 1, 1), ctx.backend.native(bernoulli)
        flipped = draw(xp, shape, self.p, self.key(ctx), ctx.path, ctx.device, ctx.row)

        def flip(images: Array) -> Array:
            return xp.where(flipped, xp.flip(images, axis=2), images)

        return flip(x), lambda dy, need_dx=True, out=(): (flip(dy) if need_dx else None, ())


@dataclass(frozen=True)
class RandomCrop(Augmentation):
    """y[n, h, w] = x[n, h + aₙ − p, w + bₙ − p], x being zero outside of the image

    x (N, H, W, C)   y (N, h, w, C)

    aₙ is uniform in 0..H + 2p − h, bₙ in 0..W + 2p − w; without training both lie in the middle. dx: every dy at the
    pixel that was read. `pixels` (h, w) and `padding` p are one number for both axes, or two: torchvision's
    `RandomCrop(size, padding)`.
    (Krizhevsky, Sutskever & Hinton, NeurIPS 2012)

    ShapeError for images that, with their padding, are smaller than `pixels`.
    """

    pixels: int | Pair
    padding: int | Pair = 0

    def __post_init__(self) -> None:
        pixels, padding = (
            pair("RandomCrop", "pixels", self.pixels),
            pair("RandomCrop", "padding", self.padding, least=0),
        )
        settle(self, pixels=pixels, padding=padding)

    def __str__(self) -> str:
        padding = f", padding={self.padding}" if self.padding != (0, 0) else ""
        return f"RandomCrop({'×'.join(map(str, self.pixels))}{padding})"  # type: ignore[arg-type]

    def output_shape(self, shape: Shape) -> Shape:
        """(N, H, W, C) -> (N, h, w, C)."""
        n, h, w, c = super().output_shape(shape)
        (rows, columns), (p, q) = self.pixels, self.padding  # type: ignore[misc]
        if h + 2 * p < rows or w + 2 * q < columns:
            least = f"{max(rows - 2 * p, 1)}×{max(columns - 2 * q, 1)}"
            raise ShapeError(f"expects images of at least {least} pixels, got {shape}", who=str(self))
        return (n, rows, columns, c)

    def rest(self, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return the middle of the images, and the pullback."""
        xp, (h, w), (rows, columns), (p, q) = ctx.xp, x.shape[1:3], self.pixels, self.padding  # type: ignore[misc]
        top, left = (h + 2 * p - rows) // 2, (w + 2 * q - columns) // 2
        y = pad(xp, x, (p, q), (p, q), 0)[:, top : top + rows, left : left + columns, :]

        def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Array | None, Params]:
            if not need_dx:
                return None, ()
            whole = pad(xp, dy, (top, left), (h + 2 * p - rows - top, w + 2 * q - columns - left), 0)
            return whole[:, p : p + h, q : q + w, :], ()

        return y, backward

    def change(self, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return a part of each image, and the pullback."""
        (h, w), (rows, columns), (p, q) = x.shape[1:3], self.pixels, self.padding  # type: ignore[misc]
        tops = self.draw(x, ctx, 0, h + 2 * p - rows + 1, "rows")
        lefts = self.draw(x, ctx, 0, w + 2 * q - columns + 1, "columns")
        return windows(ctx.xp, x, tops, lefts, self.pixels, self.padding)  # type: ignore[arg-type]


@dataclass(frozen=True)
class RandomShift(Augmentation):
    """y[n, h, w] = x[n, h + aₙ, w + bₙ], x being zero outside of the image        x, y (N, H, W, C)

    aₙ and bₙ are uniform in −p..p, p being `pixels`: one number for both axes, or two. dx: every dy at the pixel that
    was read. `RandomCrop((H, W), padding=p)` does the same to images of one size, this to any.
    """

    pixels: int | Pair

    def __post_init__(self) -> None:
        settle(self, pixels=pair("RandomShift", "pixels", self.pixels, least=0))

    def __str__(self) -> str:
        p, q = self.pixels  # type: ignore[misc]
        return f"RandomShift({p if p == q else f'{p}×{q}'})"

    def change(self, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return the images, moved, and the pullback."""
        p, q = self.pixels  # type: ignore[misc]
        tops, lefts = self.draw(x, ctx, 0, 2 * p + 1, "rows"), self.draw(x, ctx, 0, 2 * q + 1, "columns")
        return windows(ctx.xp, x, tops, lefts, x.shape[1:3], (p, q))


@dataclass(frozen=True)
class Cutout(Augmentation):
    """y = x mask, the mask 0 in a square of each image        dx = dy mask        x, y (N, H, W, C)   mask (N, H, W, 1)

    The square has so many `pixels` a side, or two numbers; its centre is uniform over the image, and part of it may
    lie outside. (DeVries & Taylor, "Improved regularization of convolutional neural networks with cutout", 2017)
    """

    pixels: int | Pair

    def __post_init__(self) -> None:
        settle(self, pixels=pair("Cutout", "pixels", self.pixels))

    def __str__(self) -> str:
        return f"Cutout({'×'.join(map(str, self.pixels))})"  # type: ignore[arg-type]

    def change(self, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return the images with a hole in each, and the pullback."""
        xp, (rows, columns) = ctx.xp, self.pixels  # type: ignore[misc]

        def inside(axis: int, size: int, purpose: str) -> Array:
            """(N, length): whether the square is there."""
            start = self.draw(x, ctx, -(size // 2), x.shape[axis] - size // 2, purpose)[:, None]
            place = xp.arange(x.shape[axis], dtype=xp.int32, device=ctx.device)[None, :]
            return (place >= start) & (place < start + size)

        hole = inside(1, rows, "rows")[:, :, None, None] & inside(2, columns, "columns")[:, None, :, None]
        mask = xp.astype(~hole, x.dtype)
        return x * mask, lambda dy, need_dx=True, out=(): (dy * mask if need_dx else None, ())


def windows(xp: Namespace, x: Array, tops: Array, lefts: Array, size: Pair, padding: Pair) -> tuple[Array, Pullback]:
    """Return of each image, padded with zeros, the part (h, w) whose upper left corner is given; and the pullback.

    The pullback is of the same kind: dx is a part of each dy, padded so far that all of it lies within.
    """
    (h, w), (rows, columns), (p, q) = x.shape[1:3], size, padding
    above, beside = max(h + p - rows, 0), max(w + q - columns, 0)

    def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Array | None, Params]:
        if not need_dx:
            return None, ()
        return _gather(xp, dy, (p + above) - tops, (q + beside) - lefts, (h, w), (above, beside)), ()

    return _gather(xp, x, tops, lefts, size, padding), backward


def _gather(xp: Namespace, x: Array, tops: Array, lefts: Array, size: Pair, padding: Pair) -> Array:
    """Return of each image, padded with zeros, the part that begins at a row and a column: (N, h, w, C)."""
    padded = pad(xp, x, padding, padding, 0)
    n, height, width, channels = padded.shape

    def steps(count: int, stride: int) -> Array:
        return xp.arange(0, count * stride, stride, dtype=xp.int32, device=device(x))

    within = xp.reshape(steps(size[0], width)[:, None] + steps(size[1], 1)[None, :], (1, -1))
    places = (steps(n, height * width) + tops * width + lefts)[:, None] + within
    pixels = xp.take(xp.reshape(padded, (-1, channels)), xp.reshape(places, (-1,)), axis=0)
    return xp.reshape(pixels, (n, *size, channels))
