"""Patches of images and their adjoint, in array API operations: what convolutions and pools are made of.

Images are (N, H, W, C). A kernel of K·L taps reads K·L shifted, strided slices of them; to go back, each slice is added
where it was taken. A convolution is Linear on the slices side by side.
"""

from collections.abc import Iterable, Sequence
from functools import reduce
from math import prod
from operator import add

from xpnet.arrays import Array, Namespace, device
from xpnet.geometry import Grid, Pair


def pad(xp: Namespace, x: Array, before: Pair, after: Pair, value: float = 0.0) -> Array:
    """Return images (N, H, W, C) with rows and columns of one value around them: the standard has no pad."""
    for axis in (1, 2):
        edges = [_edge(xp, x, axis, count, value) for count in (before[axis - 1], after[axis - 1])]
        if any(edge is not None for edge in edges):
            x = xp.concat([part for part in (edges[0], x, edges[1]) if part is not None], axis=axis)
    return x


def _edge(xp: Namespace, x: Array, axis: int, count: int, value: float) -> Array | None:
    """Return `count` rows of a value, made of x itself: in an ONNX graph nobody knows how many images there are."""
    if not count:
        return None
    row = xp.full_like(x[:, :1, ...] if axis == 1 else x[:, :, :1, ...], value)
    return xp.concat([row] * count, axis=axis) if count > 1 else row


def pieces(xp: Namespace, x: Array, grid: Grid, value: float = 0.0) -> list[Array]:
    """Return for each tap of the kernel what it reads, (N, Ho, Wo, C), of images padded with a value."""
    padded = pad(xp, x, grid.before, grid.after, value)
    return [padded[:, rows, columns, :] for rows, columns in grid.slices(x.shape[1:3])]


def spread(xp: Namespace, parts: Sequence[Array], size: Pair, grid: Grid) -> Array:
    """Return images (N, H, W, C) of this height and width, each part added where its tap has read: `pieces`' adjoint.

    ⟨pieces(x), p⟩ = ⟨x, spread(p)⟩ for all x and p.
    """
    height, width = grid.padded(size)
    if grid.tiles and (height % grid.kernel[0], width % grid.kernel[1]) == (0, 0):
        total = _tile(xp, parts, grid)
    else:
        (kh, kw), (s, t), (d, e) = grid.kernel, grid.stride, grid.dilation
        rows = []
        for i in range(kh):
            row = _sum(_place(xp, parts[i * kw + j], 2, t, j * e, width) for j in range(kw))
            rows.append(_place(xp, row, 1, s, i * d, height))
        total = _sum(rows)
    (p, q), (h, w) = grid.before, size
    return total[:, p : p + h, q : q + w, :]


def _sum(arrays: Iterable[Array]) -> Array:
    return reduce(add, arrays)


def _tile(xp: Namespace, parts: Sequence[Array], grid: Grid) -> Array:
    """Return parts whose taps never read the same number, side by side."""
    (kh, kw), (n, ho, wo, c) = grid.kernel, parts[0].shape
    rows = [xp.reshape(xp.stack(parts[i * kw : i * kw + kw], axis=3), (n, ho, wo * kw, c)) for i in range(kh)]
    return xp.reshape(xp.stack(rows, axis=2), (n, ho * kh, wo * kw, c))


def _place(xp: Namespace, part: Array, axis: int, stride: int, start: int, length: int) -> Array:
    """Return zeros of this length along an axis, with the part's rows at start, start + stride, …"""
    shape = list(part.shape)
    if stride > 1:
        gaps = xp.zeros((*shape[: axis + 1], stride - 1, *shape[axis + 1 :]), dtype=part.dtype, device=device(part))
        part = xp.concat([xp.expand_dims(part, axis=axis + 1), gaps], axis=axis + 1)
        part = xp.reshape(part, (*shape[:axis], shape[axis] * stride, *shape[axis + 1 :]))
    reach = min(part.shape[axis], length - start)
    part = part[:, :reach, ...] if axis == 1 else part[:, :, :reach, ...]
    before, after = (start, 0), (length - start - reach, 0)
    return pad(xp, part, before, after) if axis == 1 else pad(xp, part, before[::-1], after[::-1])


def patches(xp: Namespace, x: Array, grid: Grid) -> Array:
    """Return what every output of a convolution reads, one row each: (N·Ho·Wo, K·L·C), in groups (G, …, K·L·C/G)."""
    taps = pieces(xp, x, grid)
    count, channels = len(taps), x.shape[-1]
    if grid.groups == 1:
        return xp.reshape(xp.concat(taps, axis=-1), (-1, count * channels))
    own = channels // grid.groups
    rows = xp.reshape(xp.stack(taps, axis=3), (-1, count, grid.groups, own))
    return xp.reshape(xp.permute_dims(rows, (2, 0, 1, 3)), (grid.groups, -1, count * own))


def _grouped(xp: Namespace, array: Array, groups: int) -> Array:
    """Return (…, O) as the rows (M, O), or, in groups, (G, M, O/G)."""
    outputs = array.shape[-1]
    if groups == 1:
        return xp.reshape(array, (-1, outputs))
    return xp.permute_dims(xp.reshape(array, (-1, groups, outputs // groups)), (1, 0, 2))


def convolve(xp: Namespace, x: Array, weight: Array, grid: Grid) -> Array:
    """y = patches(x) W        x (N, H, W, I)   W (K, L, I/G, O)   y (N, Ho, Wo, O)"""
    y = patches(xp, x, grid) @ _grouped(xp, weight, grid.groups)
    if grid.groups > 1:
        y = xp.permute_dims(y, (1, 0, 2))
    return xp.reshape(y, (-1, *grid.output(x.shape[1:3]), weight.shape[-1]))


def convolve_input(xp: Namespace, dy: Array, weight: Array, size: Pair, grid: Grid) -> Array:
    """dx = spread(dy Wᵀ)        dy (N, Ho, Wo, O)   W (K, L, I/G, O)   dx (N, H, W, I), `size` being (H, W)"""
    count, groups, own = prod(grid.kernel), grid.groups, weight.shape[2]
    rows = _grouped(xp, dy, groups) @ xp.matrix_transpose(_grouped(xp, weight, groups))
    if groups > 1:
        rows = xp.permute_dims(xp.reshape(rows, (groups, -1, count, own)), (1, 2, 0, 3))
    taps = xp.reshape(rows, (*dy.shape[:3], count, groups * own))
    return spread(xp, [taps[:, :, :, tap, :] for tap in range(count)], size, grid)


def convolve_weight(xp: Namespace, x: Array, dy: Array, grid: Grid) -> Array:
    """dW = patches(x)ᵀ dy        x (N, H, W, I)   dy (N, Ho, Wo, O)   dW (K, L, I/G, O)"""
    dweight = xp.matrix_transpose(patches(xp, x, grid)) @ _grouped(xp, dy, grid.groups)
    if grid.groups > 1:
        dweight = xp.permute_dims(dweight, (1, 0, 2))
    return xp.reshape(dweight, (*grid.kernel, x.shape[-1] // grid.groups, dy.shape[-1]))


def convolve_gradients(xp: Namespace, x: Array, dy: Array, weight: Array, grid: Grid) -> tuple[Array, Array]:
    """Return dx and dW, both: a library may have them for less than one after the other."""
    return convolve_input(xp, dy, weight, x.shape[1:3], grid), convolve_weight(xp, x, dy, grid)
