"""A few images at a time: what a kernel's taps read of them, in memory that stays in the processor's cache.

The plain form of a convolution makes patches(x), K·L times as large as x, and multiplies them. Here a band of them is
made, multiplied while it is in the cache, and the next made in the same memory.
"""

from collections.abc import Iterator
from math import prod
from typing import TypeAlias

import numpy as np
from numpy.lib.stride_tricks import as_strided

from xpnet.arrays import Array
from xpnet.geometry import Grid

BLOCK = 1 << 17
"""Numbers of a band."""
FEW = 16
"""Numbers side by side in a patch, L·I, below which runs along an image's rows are longer."""

Band: TypeAlias = tuple[slice, slice]
"""Images and rows of what comes out: some images whole, or some rows of one."""


def flat(images: Array, band: Band) -> Array:
    """Return a band of images as rows (m, C): a view, where the images are whole in memory or channels of such."""
    return images[band].reshape(-1, images.shape[-1])


class Bands:
    """What comes out of images (N, H, W, C), cut into bands, and what the taps read for each."""

    def __init__(self, images: Array, grid: Grid, numbers: int, padding: float = 0.0) -> None:
        """`numbers` is how many are worked on for each position of what comes out."""
        self.images, self.grid = images, grid
        self.height, self.width = grid.output(images.shape[1:3])
        row = max(1, self.width * numbers)
        self.samples = max(1, min(BLOCK // (row * self.height), images.shape[0]))
        self.rows = min(max(1, BLOCK // row), self.height)
        self.padded = any(grid.before + grid.after)
        self.padding = padding
        shape = (self.samples, self._reach(self.rows), grid.padded(images.shape[1:3])[1], images.shape[3])
        self.memory = np.full(shape if self.padded else 0, padding, images.dtype)

    def __iter__(self) -> Iterator[Band]:
        for n in range(0, self.images.shape[0], self.samples):
            for row in range(0, self.height, self.rows):
                stop = min(n + self.samples, self.images.shape[0])
                yield slice(n, stop), slice(row, min(row + self.rows, self.height))

    def _reach(self, rows: int) -> int:
        """Return how many of the padded images' rows so many rows read."""
        return (rows - 1) * self.grid.stride[0] + self.grid.reach[0]

    def place(self, band: Band) -> tuple[Band, slice, int]:
        """Return what a band reads of the images, where in its own rows that lies, and how many these are."""
        samples, rows = band
        count = self._reach(rows.stop - rows.start)
        first = rows.start * self.grid.stride[0] - self.grid.before[0]
        start = min(max(-first, 0), count)
        stop = max(min(self.images.shape[1] - first, count), start)
        return (samples, slice(first + start, first + stop)), slice(start, stop), count

    def read(self, band: Band) -> Array:
        """Return what the taps read for a band, a view (n, rows, W′, K, L, C) on the images or a padded copy."""
        source, inside, count = self.place(band)
        part = self.images[source]
        if self.padded:
            left, padded = self.grid.before[1], self.memory[: len(part), :count]
            padded[:, : inside.start] = self.padding
            padded[:, inside.stop :] = self.padding
            padded[:, inside, left : left + part.shape[2]] = part
            part = padded
        return self.taps(part, band)

    def taps(self, part: Array, band: Band) -> Array:
        """Return a view (n, rows, W′, K, L, C) on the padded rows of a band."""
        n, h, w, c = part.strides
        (s, t), (d, e), rows = self.grid.stride, self.grid.dilation, band[1]
        shape = (len(part), rows.stop - rows.start, self.width, *self.grid.kernel, part.shape[3])
        return as_strided(part, shape, (n, h * s, w * t, h * d, w * e, c))

    def sums(self, band: Band, total: Array) -> Array:
        """Return what is added to for a band: a part of these images, or zeros with the padding, for `put`."""
        source, _, count = self.place(band)
        if not self.padded:
            return total[source]
        sums = self.memory[: band[0].stop - band[0].start, :count]
        sums[...] = 0
        return sums

    def put(self, sums: Array, band: Band, total: Array) -> None:
        """Add a band's sums to the images, if they are not these themselves."""
        if self.padded:
            source, inside, _ = self.place(band)
            left = self.grid.before[1]
            total[source] += sums[:, inside, left : left + total.shape[2]]
            sums[...] = self.padding

    def add(self, parts: Array, band: Band, total: Array) -> None:
        """Add to images what was made for each tap of a band (n, rows, W′, K, L, C), where the tap has read."""
        sums = self.sums(band, total)
        taps = self.taps(sums, band)
        for i, j in np.ndindex(self.grid.kernel):
            taps[:, :, :, i, j] += parts[:, :, :, i, j]
        self.put(sums, band, total)


class Patches(Bands):
    """The patches of images, a band at a time, as the rows of a matrix (m, K·L·C)."""

    def __init__(self, images: Array, grid: Grid) -> None:
        self.columns = prod(grid.kernel) * images.shape[3]
        super().__init__(images, grid, self.columns)
        size = self.samples * self.rows * self.width * self.columns
        self.block = np.empty(0 if grid.kernel == (1, 1) else size, images.dtype)
        self.few = grid.kernel[1] * images.shape[3] < FEW

    def patches(self, band: Band) -> Array:
        """Return a band's patches, which hold until the next are made."""
        taps = self.read(band)
        if not self.block.size:
            return taps.reshape(-1, self.columns)
        block = self.block[: taps.size]
        if self.few:
            block.reshape(*taps.shape[3:], *taps.shape[:3])[...] = taps.transpose(3, 4, 5, 0, 1, 2)
            return block.reshape(self.columns, -1).T
        block.reshape(taps.shape)[...] = taps
        return block.reshape(-1, self.columns)
