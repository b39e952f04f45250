"""Standardize: each feature less its mean and by its standard deviation, which are taken from the data once."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

from xpnet.arrays import Array, Table, describe, is_floating, sum_rows
from xpnet.backends import LIBRARIES, backend_of, library_of
from xpnet.backends import backend as find_backend
from xpnet.checks import extent, numbers, settle, shown
from xpnet.errors import DataError, ShapeError
from xpnet.layers.base import Layer, Params, Pullback
from xpnet.layers.context import Context
from xpnet.parameters import Shape

LEAST = 2.0**-126
"""The least standard deviation, whose inverse float32 still holds."""

BLOCK = 2**20
"""Bytes of data that are looked at together."""


@dataclass(frozen=True, repr=False)
class Standardize(Layer):
    """y = (x − mean) / std        dx = dy / std        x, y (N, …, D)   mean, std (D,), or a number for all features

        net = xn.Sequential(xn.Standardize.fit(x_train), xn.Linear(9, 32), …)

    It learns nothing: mean and std are settings, kept as tuples and saved with the network, so that a model is given
    data as they came. The mean is taken off first, so that of large numbers close together nothing is lost.

    ValueError for a std below 1.2e-38. TypeError for integers, if the network has no parameters whose type they take.
    """

    mean: Any
    std: Any = 1.0

    def __post_init__(self) -> None:
        mean, std = numbers("Standardize", "mean", self.mean), numbers("Standardize", "std", self.std)
        for name, value in (("mean", mean), ("std", std)):
            if len(extent(value)) > 1:
                came = f"got the shape {extent(value)}"
                raise ValueError(f"Standardize: {name} must be a number or one for each feature, (D,), {came}")
        lengths = {len(value) for value in (mean, std) if isinstance(value, tuple)}
        if len(lengths) > 1:
            raise ValueError(f"Standardize: mean and std must be for as many features, got {len(mean)} and {len(std)}")
        for k, value in enumerate(std if isinstance(std, tuple) else (std,)):
            if value < LEAST:
                place = f" for feature {k}" if isinstance(std, tuple) else ""
                remedy = "give 1 for a feature that is constant"
                raise ValueError(f"Standardize: std must be a number of at least 1.2e-38, got {value}{place}: {remedy}")
        settle(self, mean=mean, std=std)

    @classmethod
    def fit(cls, x: Any) -> "Standardize":
        """Return the layer that gives each feature of x (N, …, D), the last axis, mean 0 and standard deviation 1.

        mean = Σ x / M,  std = √(Σ (x − mean)² / M),  M = N·…: all axes but the last. A feature that is constant gets
        std 1. The sums are float64, a block of rows at a time on the host (Chan, Golub & LeVeque, The American
        Statistician 1983), so the numbers are the same for every library, and a memory map, an HDF5 or zarr data set
        is never read whole.

        ShapeError unless x has samples and features; TypeError if it holds no numbers; DataError for NaN and infinity.
        """
        mean, std = moments(x)
        return cls(mean, [value if value >= LEAST else 1.0 for value in std])

    @property
    def features(self) -> int | None:
        """D, or None if mean and std are numbers."""
        return next((len(value) for value in (self.mean, self.std) if isinstance(value, tuple)), None)

    @cached_property
    def table(self) -> Table:
        """The mean and 1 / std, each (D,), or (1,)."""
        means, stds = (
            value if isinstance(value, tuple) else (value,) * (self.features or 1) for value in (self.mean, self.std)
        )
        return Table((means, tuple(1.0 / value for value in stds)))

    def __str__(self) -> str:
        return repr(self) if self.features is None else f"Standardize({self.features})"

    def __repr__(self) -> str:
        return f"Standardize(mean={shown(self.mean)}, std={shown(self.std)})"

    def output_shape(self, shape: Shape) -> Shape:
        """Return the same shape; ShapeError if the last axis has not as many features."""
        if self.features is not None and (len(shape) < 2 or shape[-1] != self.features):
            raise ShapeError(f"expects samples (N, …, {self.features}), got {shape}", who=str(self))
        return shape

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return (x − mean) / std and its pullback."""
        if not is_floating(ctx.xp, x):
            raise TypeError(f"Standardize reads floating-point numbers, got {x.dtype}: cast them first")
        table = ctx.backend.constant(self.table, x.dtype)
        mean, factor = table[0, ...], table[1, ...]
        y = x - mean
        y *= factor

        def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Array, Params]:
            return dy * factor, ()

        return y, backward


def moments(x: Any) -> tuple[list[float], list[float]]:
    """Return the mean and the standard deviation of each feature of x (N, …, D): exactly 0 of one that is constant."""
    xp = find_backend("numpy").xp
    count = 0
    first: Array = 0.0
    mean: Array = 0.0
    squares: Array = 0.0
    for block in _blocks(x):
        first = block[0, :] if not count else first
        block = block - first  # a feature that is constant is 0 everywhere, whatever sums would round it to
        n = block.shape[0]
        own = sum_rows(xp, block) / n
        block -= own
        own_squares = sum_rows(xp, block * block)
        total = count + n
        difference = own - mean
        mean = mean + difference * (n / total)
        squares = squares + own_squares + difference * difference * (count * n / total)
        count = total
    return (first + mean).tolist(), xp.sqrt(squares / count).tolist()


def _blocks(x: Any) -> Iterator[Array]:
    """Yield x some samples at a time, as float64 rows (M, D) on the host."""
    host = find_backend("numpy")
    try:
        x = x if hasattr(x, "shape") and hasattr(x, "dtype") else host.asarray(x)
    except (TypeError, ValueError):
        raise TypeError(f"Standardize.fit expects an array of samples, got {describe(x)}: of a source pass x") from None
    shape = tuple(x.shape)
    if len(shape) < 2 or not prod(shape):
        raise ShapeError(f"expects samples (N, …, D), one a row, got the shape {shape}", who="Standardize.fit")
    step = max(1, BLOCK // (8 * prod(shape[1:])))
    for start in range(0, shape[0], step):
        block = x[start : min(start + step, shape[0]), ...]
        if library_of(block) in LIBRARIES:
            backend = backend_of(block)
            block = backend.asnumpy(backend.plain(block))
        block = host.asarray(block)
        if not host.xp.isdtype(block.dtype, ("bool", "integral", "real floating")):
            raise TypeError(
                f"Standardize.fit expects an array of numbers, got {block.dtype}: encode or convert it first"
            )
        rows = host.xp.reshape(host.xp.astype(block, host.xp.float64), (-1, shape[-1]))
        finite = host.xp.isfinite(rows)
        if not bool(host.xp.all(finite)):
            place = int(host.xp.argmin(host.xp.reshape(host.xp.astype(finite, host.xp.int8), (-1,))))
            row, column = start + place // prod(shape[1:]), place % shape[-1]
            value = float(rows[place // shape[-1], column])
            raise DataError(f"Standardize.fit: x holds {value} at row {row}, feature {column}: clean the data first")
        yield rows
