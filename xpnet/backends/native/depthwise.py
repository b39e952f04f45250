"""Depthwise convolutions on NumPy: no product of matrices, but a factor for each tap and channel."""

from collections.abc import Iterator

import numpy as np

from xpnet.arrays import Array
from xpnet.backends.native import loops
from xpnet.backends.native.bands import Bands
from xpnet.geometry import Grid


def serves(weight: Array, grid: Grid) -> bool:
    """Whether every channel is a group of its own."""
    return grid.groups > 1 and weight.shape[2] == 1


def forward(x: Array, weight: Array, grid: Grid, y: Array) -> None:
    """Make y: of each channel as many as it has kernels."""
    for kernel, own in _kernels(weight, x.shape[3]):
        if not loops.depthwise(x, kernel, y[..., own], grid):
            _forward(x, kernel, grid, y[..., own])


def backward(x: Array, dy: Array, weight: Array, grid: Grid, dx: Array | None, dweight: Array | None) -> None:
    """Make dx, unless it is None, of W, and dW likewise of x."""
    if dx is not None:
        dx[...] = 0
    turned = grid.turned()
    for kernel, own in _kernels(weight, x.shape[3]):
        if dx is not None and not loops.depthwise_input(dy[..., own], kernel, dx, grid):
            if turned is not None and weight.shape[3] == x.shape[3]:
                _forward(dy, kernel[::-1, ::-1], turned, dx)
            else:
                _spread(dy[..., own], kernel, grid, dx)
        if dweight is not None and not loops.depthwise_weight(x, dy[..., own], sums := np.zeros_like(kernel), grid):
            _weight(x, dy[..., own], grid, sums)
        if dweight is not None:
            dweight[:, :, 0, own] = sums


def _kernels(weight: Array, channels: int) -> Iterator[tuple[Array, slice]]:
    """Yield kernels (K, L, C), one for each channel, and which of the channels that come out they make."""
    count = weight.shape[3] // channels
    for k in range(count):
        own = slice(k, None, count)
        yield np.ascontiguousarray(weight[:, :, 0, own]), own


def _forward(x: Array, kernel: Array, grid: Grid, y: Array) -> None:
    parts = Bands(x, grid, 4 * x.shape[3])
    for band in parts:
        taps, total = parts.read(band), y[band]
        np.multiply(taps[:, :, :, 0, 0], kernel[0, 0], out=total)
        part = np.empty_like(total)
        for i, j in list(np.ndindex(grid.kernel))[1:]:
            np.multiply(taps[:, :, :, i, j], kernel[i, j], out=part)
            total += part


def _spread(dy: Array, kernel: Array, grid: Grid, dx: Array) -> None:
    parts = Bands(dx, grid, kernel.size)
    for band in parts:
        parts.add(dy[band][:, :, :, None, None] * kernel, band, dx)


def _weight(x: Array, dy: Array, grid: Grid, sums: Array) -> None:
    parts = Bands(x, grid, 4 * x.shape[3])
    for band in parts:
        taps, own = parts.read(band), dy[band]
        part = np.empty(own.shape, own.dtype)
        ones = np.ones(own.size // own.shape[3], own.dtype)
        for i, j in np.ndindex(grid.kernel):
            np.multiply(taps[:, :, :, i, j], own, out=part)
            sums[i, j] += ones @ part.reshape(-1, own.shape[3])
