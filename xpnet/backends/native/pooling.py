"""Pools on NumPy, band by band, or as one loop."""

from math import prod
from typing import Any

import numpy as np

from xpnet.arrays import Array, Namespace
from xpnet.backends.native import loops
from xpnet.backends.native.bands import Bands
from xpnet.geometry import Grid


def max_pool(xp: Namespace, x: Array, grid: Grid) -> tuple[Array, Any]:
    """The largest of each patch, and `dx(dy)`."""
    y = _empty(x, grid)
    if not loops.max_pool(x, y, grid):
        parts = Bands(x, grid, 4 * x.shape[3], -np.inf)
        for band in parts:
            taps, largest = parts.read(band), y[band]
            largest[...] = taps[:, :, :, 0, 0]
            for i, j in np.ndindex(grid.kernel):
                np.maximum(largest, taps[:, :, :, i, j], out=largest)

    def back(dy: Array) -> Array:
        dx = np.zeros(x.shape, x.dtype)
        if not loops.max_pool_input(x, y, dy, dx, grid):
            _to_largest(x, y, dy, dx, grid)
        return dx

    return y, back


def _to_largest(x: Array, y: Array, dy: Array, dx: Array, grid: Grid) -> None:
    """Add dy to dx where x is y, at the first such tap of each patch."""
    taken, put = Bands(x, grid, 4 * x.shape[3], -np.inf), Bands(dx, grid, 4 * x.shape[3])
    for band in taken:
        taps, largest, left = taken.read(band), y[band], dy[band].copy()
        sums = put.sums(band, dx)
        places = put.taps(sums, band)
        for i, j in np.ndindex(grid.kernel):
            here = left * (taps[:, :, :, i, j] == largest)
            left -= here
            places[:, :, :, i, j] += here
        put.put(sums, band, dx)


def average_pool(xp: Namespace, x: Array, grid: Grid) -> tuple[Array, Any]:
    """The mean of each patch, and `dx(dy)`."""
    y, share = _empty(x, grid), 1.0 / prod(grid.kernel)
    parts = Bands(x, grid, 4 * x.shape[3])
    for band in parts:
        taps, total = parts.read(band), y[band]
        total[...] = taps[:, :, :, 0, 0]
        for i, j in list(np.ndindex(grid.kernel))[1:]:
            total += taps[:, :, :, i, j]
        total *= share

    def back(dy: Array) -> Array:
        dx = np.zeros(x.shape, x.dtype)
        parts = Bands(dx, grid, 4 * x.shape[3])
        for band in parts:
            part, sums = dy[band] * share, parts.sums(band, dx)
            places = parts.taps(sums, band)
            for i, j in np.ndindex(grid.kernel):
                places[:, :, :, i, j] += part
            parts.put(sums, band, dx)
        return dx

    return y, back


def _empty(x: Array, grid: Grid) -> Array:
    return np.empty((x.shape[0], *grid.output(x.shape[1:3]), x.shape[3]), x.dtype)
