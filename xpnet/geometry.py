"""Where a kernel's taps lie on an image: its sizes, stride, padding and dilation, and how large what comes out is."""

from typing import NamedTuple, TypeAlias

Pair: TypeAlias = tuple[int, int]
"""One number for the height, one for the width."""


class Grid(NamedTuple):
    """How a kernel moves over images (N, H, W, C): tap (i, j) of output (h, w) reads row s·h + d·i − before, …"""

    kernel: Pair
    stride: Pair = (1, 1)
    before: Pair = (0, 0)
    """Rows and columns of padding above and to the left."""
    after: Pair = (0, 0)
    """Below and to the right."""
    dilation: Pair = (1, 1)
    groups: int = 1
    """Parts of equal size into which the channels are cut, each of which sees its own alone."""

    @property
    def reach(self) -> Pair:
        """Rows and columns that a kernel spans."""
        (kh, kw), (d, e) = self.kernel, self.dilation
        return d * (kh - 1) + 1, e * (kw - 1) + 1

    def padded(self, size: Pair) -> Pair:
        """Return height and width with the padding."""
        return size[0] + self.before[0] + self.after[0], size[1] + self.before[1] + self.after[1]

    def output(self, size: Pair) -> Pair:
        """Return height and width of what comes out of images of this height and width."""
        (h, w), (rows, columns), (s, t) = self.padded(size), self.reach, self.stride
        return (h - rows) // s + 1, (w - columns) // t + 1

    def slices(self, size: Pair) -> list[tuple[slice, slice]]:
        """Return for each tap, row by row, which rows and columns of the padded images it reads."""
        (ho, wo), (s, t), (d, e) = self.output(size), self.stride, self.dilation
        return [
            (slice(i * d, i * d + s * (ho - 1) + 1, s), slice(j * e, j * e + t * (wo - 1) + 1, t))
            for i in range(self.kernel[0])
            for j in range(self.kernel[1])
        ]

    def turned(self) -> "Grid | None":
        """Return the grid on which dx is a convolution of dy, with the kernel turned by half a turn.

        None where it is none: at strides, and where there is more padding than a kernel reaches over.
        """
        edges = [n - 1 - p for side in (self.before, self.after) for n, p in zip(self.reach, side, strict=True)]
        if self.stride != (1, 1) or min(edges) < 0:
            return None
        return self._replace(before=(edges[0], edges[1]), after=(edges[2], edges[3]))

    @property
    def tiles(self) -> bool:
        """Whether no two taps read the same number."""
        return self.kernel == self.stride and self.dilation == (1, 1)
