"""Convolutions on NumPy, band by band: products of patches that are in the cache."""

from collections.abc import Iterator

import numpy as np

from xpnet.arrays import Array, Namespace
from xpnet.backends.native import depthwise
from xpnet.backends.native.bands import Patches, flat
from xpnet.geometry import Grid, Pair


def convolve(xp: Namespace, x: Array, weight: Array, grid: Grid) -> Array:
    """y = patches(x) W"""
    y = np.empty((x.shape[0], *grid.output(x.shape[1:3]), weight.shape[3]), x.dtype)
    if depthwise.serves(weight, grid):
        depthwise.forward(x, weight, grid, y)
        return y
    for (inputs, outputs), one in _groups(weight, grid):
        _convolve(x[..., inputs], weight[..., outputs], one, y[..., outputs])
    return y


def convolve_input(xp: Namespace, dy: Array, weight: Array, size: Pair, grid: Grid) -> Array:
    """dx = spread(dy Wᵀ)"""
    dx = np.empty((dy.shape[0], *size, weight.shape[2] * grid.groups), dy.dtype)
    if depthwise.serves(weight, grid):
        depthwise.backward(dx, dy, weight, grid, dx, None)
        return dx
    for (inputs, outputs), one in _groups(weight, grid):
        _backward(None, dy[..., outputs], weight[..., outputs], one, dx[..., inputs], None)
    return dx


def convolve_weight(xp: Namespace, x: Array, dy: Array, grid: Grid) -> Array:
    """dW = patches(x)ᵀ dy"""
    dweight = np.zeros((*grid.kernel, x.shape[3] // grid.groups, dy.shape[3]), x.dtype)
    if depthwise.serves(dweight, grid):
        depthwise.backward(x, dy, dweight, grid, None, dweight)
        return dweight
    for (inputs, outputs), one in _groups(dweight, grid):
        parts, own = Patches(x[..., inputs], one), dy[..., outputs]
        products = ((parts.patches(band), flat(own, band)) for band in parts)
        dweight[..., outputs] = _sum(products, parts.columns, own).reshape(dweight[..., outputs].shape)
    return dweight


def convolve_gradients(xp: Namespace, x: Array, dy: Array, weight: Array, grid: Grid) -> tuple[Array, Array]:
    """dx and dW, from the same patches."""
    dx, dweight = np.empty(x.shape, x.dtype), np.zeros(weight.shape, x.dtype)
    if depthwise.serves(weight, grid):
        depthwise.backward(x, dy, weight, grid, dx, dweight)
        return dx, dweight
    for (inputs, outputs), one in _groups(weight, grid):
        own = x[..., inputs], dy[..., outputs], weight[..., outputs], one
        _backward(*own, dx[..., inputs], dweight[..., outputs])
    return dx, dweight


def _groups(weight: Array, grid: Grid) -> Iterator[tuple[tuple[slice, slice], Grid]]:
    """Yield each group's channels, in and out, and its grid."""
    own, outputs = weight.shape[2], weight.shape[3] // grid.groups
    for k in range(grid.groups):
        channels = slice(k * own, (k + 1) * own), slice(k * outputs, (k + 1) * outputs)
        yield channels, grid._replace(groups=1)


def _convolve(x: Array, weight: Array, grid: Grid, y: Array) -> None:
    """Make y of patches(x) W."""
    matrix, parts = weight.reshape(-1, weight.shape[3]), Patches(x, grid)
    for band in parts:
        np.matmul(parts.patches(band), matrix, out=flat(y, band))


def _backward(x: Array | None, dy: Array, weight: Array, grid: Grid, dx: Array, dweight: Array | None) -> None:
    """Make dx, and of x dW.

    At stride 1 dx is a convolution too, of dy with the kernel turned by half a turn, and what its taps read of dy for a
    pixel is what the pixel is multiplied by in dW: one set of patches gives both.
    """
    turned = grid.turned()
    if turned is None:
        _spread(x, dy, weight, grid, dx, dweight)
        return
    kernel = np.ascontiguousarray(_turn(weight))  # (K, L, O, I)
    matrix, parts = kernel.reshape(-1, kernel.shape[3]), Patches(dy, turned)

    def products() -> Iterator[tuple[Array, Array]]:
        for band in parts:
            patches = parts.patches(band)
            np.matmul(patches, matrix, out=flat(dx, band))
            if x is not None:
                yield patches, flat(x, band)

    total = _sum(products(), parts.columns, dx)
    if dweight is not None:
        dweight[...] = _turn(total.reshape(kernel.shape))


def _turn(weight: Array) -> Array:
    """Return a kernel turned by half a turn, and its channels exchanged: (K, L, I, O) -> (K, L, O, I)."""
    return weight[::-1, ::-1].transpose(0, 1, 3, 2)


def _spread(x: Array | None, dy: Array, weight: Array, grid: Grid, dx: Array, dweight: Array | None) -> None:
    """Make dx by adding dy Wᵀ where the taps have read, and of x dW."""
    matrix = np.ascontiguousarray(weight.reshape(-1, weight.shape[3]).T)
    parts = Patches(dx if x is None else x, grid)
    made = np.empty(parts.samples * parts.rows * parts.width * parts.columns, dx.dtype)
    dx[...] = 0

    def products() -> Iterator[tuple[Array, Array]]:
        for band in parts:
            own = flat(dy, band)
            if x is not None:
                yield parts.patches(band), own
            rows = made[: own.shape[0] * parts.columns].reshape(-1, parts.columns)
            np.matmul(own, matrix, out=rows)
            parts.add(rows.reshape(*dy[band].shape[:3], *grid.kernel, -1), band, dx)

    total = _sum(products(), parts.columns, dy)
    if dweight is not None:
        dweight[...] = total.reshape(weight.shape)


def _sum(products: Iterator[tuple[Array, Array]], columns: int, right: Array) -> Array:
    """Return Σ AᵀB over all pairs, (columns, C): an array for each product would cost more than to add it."""
    total = np.zeros((columns, right.shape[3]), right.dtype)
    part = np.empty_like(total)
    for a, b in products:
        np.matmul(a.T, b, out=part)
        total += part
    return total
