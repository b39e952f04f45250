"""Layers that turn, stretch, shear and move images at random while a network trains.

No sine is taken on the device: a table of matrices of whole numbers is made on the host, an image draws one of its
columns, and where a pixel reads is then reckoned in whole parts of a pixel. So it is the same place on every backend.
"""

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from math import cos, radians, sin, tan
from typing import Any, TypeAlias

from xpnet.arrays import Array, Namespace, Table, device, is_floating
from xpnet.checks import number, settle, shown
from xpnet.errors import ShapeError
from xpnet.geometry import Pair
from xpnet.layers.augmentation import Augmentation
from xpnet.layers.base import Params, Pullback
from xpnet.layers.context import Context
from xpnet.layers.patches import pad
from xpnet.parameters import Shape
from xpnet.random import generator

Range: TypeAlias = tuple[float, float]
"""The lowest and the highest value."""

LEVELS = 1024
"""Matrices among which an image draws."""
ONE = 1 << 12
"""The number 1 in a matrix of whole numbers."""
PIXEL = 2 * ONE
"""The distance of two pixels in coordinates: places are counted in half pixels, since a centre may lie at one."""


class Affine(Augmentation):
    """What RandomAffine and RandomRotate share: y at q is x at A(q − centre − t) + centre."""

    @property
    @abstractmethod
    def ranges(self) -> tuple[Range, Range, Range]:
        """The ranges of the angle, the shear and the scale."""

    def reach(self, size: Pair) -> Pair:
        """Return how many rows and columns images of this height and width are moved at most."""
        return 0, 0

    @cached_property
    def table(self) -> Table:
        """A₀₀, A₀₁, A₁₀ and A₁₁ of every choice, in units of 1/4096."""
        rng = generator(0, "affine")
        orders = [rng.permutation(LEVELS).tolist() for _ in self.ranges]
        choices = (
            [low + (k + 0.5) / LEVELS * (high - low) for k, (low, high) in zip(order, self.ranges, strict=True)]
            for order in zip(*orders, strict=True)
        )
        return Table(zip(*(_inverse(*choice) for choice in choices), strict=True))

    def output_shape(self, shape: Shape) -> Shape:
        """Return the same shape."""
        _, h, w, _ = super().output_shape(shape)
        most = 2**29 // max(abs(value) for row in self.table for value in row)
        if h + w > most:
            raise ShapeError(f"expects images of height + width up to {most}, got {shape}", who=str(self))
        return shape

    def change(self, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return the images, seen through the map, and the pullback."""
        xp = ctx.xp
        if not is_floating(xp, x):
            raise TypeError(f"{type(self).__name__} mixes floating-point numbers, got {x.dtype}: cast them first")
        rows, columns = self.places(x, ctx)

        def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Array | None, Params]:
            return spread_bilinear(xp, dy, rows, columns) if need_dx else None, ()

        return sample_bilinear(xp, x, rows, columns), backward

    def places(self, x: Array, ctx: Context) -> tuple[Array, Array]:
        """Return the row and the column of x that each pixel of y reads, in units of 1/8192: int32 (N, H, W) both."""
        xp, (h, w) = ctx.xp, x.shape[1:3]
        table = ctx.backend.constant(self.table, xp.int32)
        drawn = xp.take(table, self.draw(x, ctx, 0, LEVELS, "matrix"), axis=1)  # (4, N)
        a, b, c, d = (drawn[k, :][:, None, None] for k in range(4))
        u = self.offsets(x, ctx, 2)[:, None, :]
        v = self.offsets(x, ctx, 1)[:, :, None]
        return c * u + (d * v + (h - 1) * ONE), a * u + (b * v + (w - 1) * ONE)

    def offsets(self, x: Array, ctx: Context, axis: int) -> Array:
        """Return q − centre − t along an axis, in half pixels: int32 (N, length), or (1, length) if nothing moves."""
        xp, length, most = ctx.xp, x.shape[axis], self.reach(x.shape[1:3])[axis - 1]
        offsets = 2 * xp.arange(length, dtype=xp.int32, device=ctx.device)[None, :] - (length - 1)
        if not most:
            return offsets
        return offsets - 2 * self.draw(x, ctx, -most, most + 1, "rows" if axis == 1 else "columns")[:, None]


@dataclass(frozen=True)
class RandomAffine(Affine):
    """y[n, q] = x at A(q − centre − t) + centre, between pixels bilinear and outside zero        x, y (N, H, W, C)

    A = (s R(α) S(φ))⁻¹ acts on (column, row), R(α) = [cos α, −sin α; sin α, cos α], S(φ) = [1, −tan φ; 0, 1]: images
    are sheared by φ, turned clockwise by α, enlarged s times and moved by t. dx: the adjoint of the sampling, as a
    product with the weights of all rows and columns, N·H·W·(H + W C) numbers: dear, but nobody asks for it unless
    layers with parameters come before.

    Settings are torchvision's. `degrees` gives α in −degrees..degrees, or in a range (low, high); `translate` (a, b)
    gives t in −aW..aW columns and −bH..bH rows, whole ones; `scale` (low, high) gives s; `shear` gives φ in degrees, as
    `degrees` does α. Each image draws one of 1,024 triples (α, φ, s), in which every 1,024th part of each range occurs
    once: a Latin hypercube (McKay, Beckman & Conover, Technometrics 1979).

    TypeError for integers, between which there is nothing.
    """

    degrees: float | Range
    translate: Range = (0.0, 0.0)
    scale: Range = (1.0, 1.0)
    shear: float | Range = 0.0

    def __post_init__(self) -> None:
        who = "RandomAffine"
        settle(
            self,
            degrees=_span(who, "degrees", self.degrees, 360),
            translate=_two(who, "translate", self.translate, 0, 1),
            scale=_ascending(who, "scale", _two(who, "scale", self.scale, 0.125, 8)),
            shear=_span(who, "shear", self.shear, 60),
        )

    def __str__(self) -> str:
        rest = {"translate": (0, 0), "scale": (1, 1), "shear": (0, 0)}
        given = [f"{name}={_shown(getattr(self, name))}" for name, none in rest.items() if getattr(self, name) != none]
        return f"RandomAffine({', '.join([_shown(self.degrees), *given])})"

    @property
    def ranges(self) -> tuple[Range, Range, Range]:
        """The ranges of the angle, the shear and the scale."""
        return self.degrees, self.shear, self.scale  # type: ignore[return-value]

    def reach(self, size: Pair) -> Pair:
        """Return how many rows and columns images of this height and width are moved at most."""
        return round(self.translate[1] * size[0]), round(self.translate[0] * size[1])


@dataclass(frozen=True)
class RandomRotate(Affine):
    """y[n, q] = x at R(−α)(q − centre) + centre, between pixels bilinear and outside zero        x, y (N, H, W, C)

    α is in −degrees..degrees, or in a range (low, high), clockwise: torchvision's `RandomRotation` with bilinear
    interpolation. It is `RandomAffine(degrees)`, and all is as there.
    """

    degrees: float | Range

    def __post_init__(self) -> None:
        settle(self, degrees=_span("RandomRotate", "degrees", self.degrees, 360))

    def __str__(self) -> str:
        return f"RandomRotate({_shown(self.degrees)})"

    @property
    def ranges(self) -> tuple[Range, Range, Range]:
        """The range of the angle; no shear, no scale."""
        return self.degrees, (0.0, 0.0), (1.0, 1.0)  # type: ignore[return-value]


def sample_bilinear(xp: Namespace, x: Array, rows: Array, columns: Array) -> Array:
    """Return x (N, H, W, C) at places between its pixels, (N, h, w) in units of 1/8192: (N, h, w, C).

    y = (1 − f)(1 − g) x[r, c] + (1 − f) g x[r, c + 1] + f (1 − g) x[r + 1, c] + f g x[r + 1, c + 1]
    """
    n, h, w, channels = x.shape
    flat, shape = xp.reshape(pad(xp, x, (1, 1), (2, 2)), (-1, channels)), (*rows.shape, channels)
    rows, f = _split(xp, rows, h, x.dtype)
    columns, g = _split(xp, columns, w, x.dtype)
    width = w + 3
    images = xp.arange(n, dtype=xp.int32, device=device(x))[:, None, None] * ((h + 3) * width)
    places = xp.reshape(images + rows * width + columns, (-1,))

    def row(start: int) -> Array:
        left = xp.take(flat, places + start, axis=0)
        right = xp.take(flat, places + (start + 1), axis=0)
        right -= left
        right *= g
        left += right
        return left

    upper, lower = row(0), row(width)
    lower -= upper
    lower *= f
    upper += lower
    return xp.reshape(upper, shape)


def _split(xp: Namespace, place: Array, length: int, dtype: Any) -> tuple[Array, Array]:
    """Return the pixel before a place, counted in the padded image, and how far behind it: (N, h, w) and (N·h·w, 1).

    Whatever is farther outside than a pixel reads the zeros there.
    """
    place = xp.clip(place, -PIXEL, length * PIXEL) + PIXEL
    part = xp.astype(xp.reshape(place & (PIXEL - 1), (-1, 1)), dtype)
    part *= 1.0 / PIXEL
    return place // PIXEL, part


def spread_bilinear(xp: Namespace, dy: Array, rows: Array, columns: Array) -> Array:
    """Return dx, each dy added to the pixels it was read from: dx = Σ weight(row) weight(column) dy."""
    n, h, w, channels = dy.shape

    def weights(place: Array, length: int) -> Array:
        """(N, H·W, length): a tent of one pixel around each place."""
        pixels = xp.arange(0, length * PIXEL, PIXEL, dtype=xp.int32, device=device(dy))
        distance = xp.abs(xp.reshape(place, (n, -1, 1)) - pixels)
        return xp.astype(PIXEL - xp.clip(distance, None, PIXEL), dy.dtype) * (1.0 / PIXEL)

    right = weights(columns, w)[:, :, :, None] * xp.reshape(dy, (n, h * w, 1, channels))
    left = xp.matrix_transpose(weights(rows, h))  # (N, H, H·W)
    return xp.reshape(left @ xp.reshape(right, (n, h * w, w * channels)), dy.shape)


def _inverse(degrees: float, shear: float, scale: float) -> tuple[int, ...]:
    """Return (s R S)⁻¹ row by row, in units of 1/4096."""
    alpha, slope = radians(degrees), tan(radians(shear))
    a, b = cos(alpha), -cos(alpha) * slope - sin(alpha)
    c, d = sin(alpha), -sin(alpha) * slope + cos(alpha)
    return tuple(round(ONE * value / scale) for value in (d, -b, -c, a))


def _span(who: str, name: str, value: Any, most: float) -> Range:
    """Return a range: from −value to value, or as it was given."""
    if isinstance(value, (tuple, list)):
        return _ascending(who, name, _two(who, name, value, -most, most))
    high = number(who, name, value, least=0, most=most)
    return -high, high


def _two(who: str, name: str, value: Any, least: float, most: float) -> Range:
    """Return two numbers within bounds."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError(f"{who}: {name} must be two numbers, got {shown(value)}")
    low, high = (number(who, name, part, least=least, most=most) for part in value)
    return low, high


def _ascending(who: str, name: str, value: Range) -> Range:
    if value[0] > value[1]:
        raise ValueError(f"{who}: {name} must be (low, high), got {shown(value)}")
    return value


def _shown(value: Any) -> str:
    """A range around zero by its end."""
    low, high = value
    return f"{high:g}" if low == -high else f"({low:g}, {high:g})"
