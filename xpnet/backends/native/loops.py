"""What is no product of matrices, as one loop over the numbers: compiled where Numba is installed (the extra `fast`).

Every function returns whether it has done its work: it has not without Numba, or on arrays that have gaps.
"""

from typing import Any

import numpy as np

from xpnet.arrays import Array
from xpnet.backends.fused import compiled
from xpnet.geometry import Grid

NUMBERS = {"contract", "reassoc", "nsz", "arcp"}
"""What the compiler may do to a formula: all but take it that no number is NaN."""


def _whole(*arrays: Array) -> bool:
    """Whether arrays lie in memory without gaps, and are of one type."""
    kind = arrays[0].dtype
    return not [array for array in arrays if array.dtype != kind or not array.flags.c_contiguous]


def _numbers(grid: Grid) -> tuple[Any, ...]:
    return grid.stride, grid.before, grid.dilation


def cross_entropy(scores: Array, labels: Array, gradient: Array, value: Array) -> bool:
    """∂L/∂s of scores (N, C), and L in `value` (1,): NaN if a label is not in 0..C−1."""
    return _whole(scores, gradient) and _cross_entropy(scores, labels, gradient, value)


@compiled(fastmath={"contract"})
def _cross_entropy(scores, labels, gradient, value):  # type: ignore[no-untyped-def]
    share, loss = 1.0 / scores.shape[0], 0.0
    for n in range(scores.shape[0]):
        s, g, label = scores[n], gradient[n], labels[n]
        if not 0 <= label < s.shape[0]:
            loss = np.nan
            break
        top = s[0]
        for c in range(s.shape[0]):
            top = max(top, s[c])
        total = 0.0
        for c in range(s.shape[0]):
            g[c] = np.exp(s[c] - top)
            total += g[c]
        loss += np.log(total) - (s[label] - top)
        own = g[label] / total
        for c in range(s.shape[0]):
            g[c] = g[c] / total * share
        g[label] = (own - 1.0) * share
    value[0] = loss * share


@compiled()
def cast(x, y):  # type: ignore[no-untyped-def]
    """y = x, in y's own type: (M,) both."""
    for i in range(x.size):
        y[i] = x[i]


def finish(y: Array, bias: Array, factor: float, relu: bool) -> bool:
    """y = factor · y + bias, row by row, and with `relu` its maximum with 0: NaN stays what it is."""
    return _whole(y, bias) and _finish(y, bias, y.dtype.type(factor), relu)


def rectify(dy: Array, y: Array, sums: Array) -> bool:
    """dy = dy where y > 0, else 0, and its sums over the rows."""
    return _whole(dy, y, sums) and _rectify(dy, y, sums)


@compiled(fastmath=NUMBERS)
def _finish(y, bias, factor, relu):  # type: ignore[no-untyped-def]
    for n in range(y.shape[0]):
        for c in range(y.shape[1]):
            value = factor * y[n, c] + bias[c]
            y[n, c] = y.dtype.type(0) if relu & (value <= 0) else value


@compiled(fastmath=NUMBERS - {"reassoc"})
def _rectify(dy, y, sums):  # type: ignore[no-untyped-def]
    sums[:] = 0
    for n in range(y.shape[0]):
        for c in range(y.shape[1]):
            value = dy[n, c] if y[n, c] > 0 else y.dtype.type(0)
            dy[n, c] = value
            sums[c] += value


def depthwise(x: Array, kernel: Array, y: Array, grid: Grid) -> bool:
    """y = Σ taps · kernel, channel by channel: x (N, H, W, C), kernel (K, L, C), y (N, H′, W′, C)."""
    return _whole(x, kernel, y) and _depthwise(x, kernel, y, *_numbers(grid))


def depthwise_input(dy: Array, kernel: Array, dx: Array, grid: Grid) -> bool:
    """Add dy · kernel to dx where the taps have read."""
    return _whole(dy, kernel, dx) and _depthwise_input(dy, kernel, dx, *_numbers(grid))


def depthwise_weight(x: Array, dy: Array, sums: Array, grid: Grid) -> bool:
    """Add taps · dy to the kernel's sums (K, L, C)."""
    return _whole(x, dy, sums) and _depthwise_weight(x, dy, sums, *_numbers(grid))


@compiled(fastmath=NUMBERS)
def _depthwise(x, kernel, y, stride, before, dilation):  # type: ignore[no-untyped-def]
    for n in range(y.shape[0]):
        for ho in range(y.shape[1]):
            for wo in range(y.shape[2]):
                total = y[n, ho, wo]
                total[:] = 0
                for i in range(kernel.shape[0]):
                    h = ho * stride[0] + i * dilation[0] - before[0]
                    if 0 <= h < x.shape[1]:
                        for j in range(kernel.shape[1]):
                            w = wo * stride[1] + j * dilation[1] - before[1]
                            if 0 <= w < x.shape[2]:
                                for c in range(x.shape[3]):
                                    total[c] += x[n, h, w, c] * kernel[i, j, c]


@compiled(fastmath=NUMBERS)
def _depthwise_input(dy, kernel, dx, stride, before, dilation):  # type: ignore[no-untyped-def]
    for n in range(dy.shape[0]):
        for ho in range(dy.shape[1]):
            for wo in range(dy.shape[2]):
                for i in range(kernel.shape[0]):
                    h = ho * stride[0] + i * dilation[0] - before[0]
                    if 0 <= h < dx.shape[1]:
                        for j in range(kernel.shape[1]):
                            w = wo * stride[1] + j * dilation[1] - before[1]
                            if 0 <= w < dx.shape[2]:
                                for c in range(dx.shape[3]):
                                    dx[n, h, w, c] += dy[n, ho, wo, c] * kernel[i, j, c]


@compiled(fastmath=NUMBERS)
def _depthwise_weight(x, dy, sums, stride, before, dilation):  # type: ignore[no-untyped-def]
    for n in range(dy.shape[0]):
        for ho in range(dy.shape[1]):
            for wo in range(dy.shape[2]):
                for i in range(sums.shape[0]):
                    h = ho * stride[0] + i * dilation[0] - before[0]
                    if 0 <= h < x.shape[1]:
                        for j in range(sums.shape[1]):
                            w = wo * stride[1] + j * dilation[1] - before[1]
                            if 0 <= w < x.shape[2]:
                                for c in range(dy.shape[3]):
                                    sums[i, j, c] += x[n, h, w, c] * dy[n, ho, wo, c]


def max_pool(x: Array, y: Array, grid: Grid) -> bool:
    """y = max of the taps, NaN if one is."""
    return _whole(x, y) and _max_pool(x, y, grid.kernel, *_numbers(grid))


def max_pool_input(x: Array, y: Array, dy: Array, dx: Array, grid: Grid) -> bool:
    """Add dy to dx at the first tap that is as large as y."""
    return _whole(x, y, dy, dx) and _max_pool_input(x, y, dy, dx, grid.kernel, *_numbers(grid))


def moments(x: Array, mean: Array, variance: Array) -> bool:
    """Mean and variance (C,) of rows x (M, C): of a band at a time, beyond the first row, and then put together."""
    return _whole(x, mean, variance) and _moments(x, mean, variance)


def shift(x: Array, mean: Array, factor: Array, beta: Array, y: Array) -> bool:
    """y = (x − mean) · factor + beta, row by row."""
    return _whole(x, mean, factor, beta, y) and _shift(x, mean, factor, beta, y)


def shift_sums(x: Array, mean: Array, dy: Array, dot: Array, total: Array) -> bool:
    """Σ dy · (x − mean) and Σ dy, over rows."""
    return _whole(x, mean, dy, dot, total) and _shift_sums(x, mean, dy, dot, total)


def shift_input(x: Array, mean: Array, dy: Array, along: Array, less: Array, factor: Array, dx: Array) -> bool:
    """dx = (dy + (x − mean) · along − less) · factor, row by row."""
    return _whole(x, mean, dy, along, less, factor, dx) and _shift_input(x, mean, dy, along, less, factor, dx)


@compiled(fastmath=NUMBERS)
def _max_pool(x, y, kernel, stride, before, dilation):  # type: ignore[no-untyped-def]
    for n in range(y.shape[0]):
        for ho in range(y.shape[1]):
            for wo in range(y.shape[2]):
                largest = y[n, ho, wo]
                largest[:] = -np.inf
                for i in range(kernel[0]):
                    h = ho * stride[0] + i - before[0]
                    if 0 <= h < x.shape[1]:
                        for j in range(kernel[1]):
                            w = wo * stride[1] + j - before[1]
                            if 0 <= w < x.shape[2]:
                                for c in range(x.shape[3]):
                                    tap, most = x[n, h, w, c], largest[c]
                                    largest[c] = tap if (tap > most) | (tap != tap) else most


@compiled(fastmath=NUMBERS)
def _max_pool_input(x, y, dy, dx, kernel, stride, before, dilation):  # type: ignore[no-untyped-def]
    left = np.empty(x.shape[3], x.dtype)
    for n in range(y.shape[0]):
        for ho in range(y.shape[1]):
            for wo in range(y.shape[2]):
                left[:] = dy[n, ho, wo]
                for i in range(kernel[0]):
                    h = ho * stride[0] + i - before[0]
                    if 0 <= h < x.shape[1]:
                        for j in range(kernel[1]):
                            w = wo * stride[1] + j - before[1]
                            if 0 <= w < x.shape[2]:
                                for c in range(x.shape[3]):
                                    here = left[c] if x[n, h, w, c] == y[n, ho, wo, c] else x.dtype.type(0)
                                    dx[n, h, w, c] += here
                                    left[c] -= here


@compiled(fastmath=NUMBERS - {"reassoc"})
def _moments(x, mean, variance):  # type: ignore[no-untyped-def]
    count, channels = x.shape
    rows = max(1, 8192 // channels)
    own, spread = np.empty_like(mean), np.empty_like(mean)
    mean[:] = 0
    variance[:] = 0
    for start in range(0, count, rows):
        stop = min(start + rows, count)
        own[:] = 0
        spread[:] = 0
        for m in range(start, stop):
            for c in range(channels):
                own[c] += x[m, c] - x[0, c]
        for c in range(channels):
            own[c] /= stop - start
        for m in range(start, stop):
            for c in range(channels):
                d = x[m, c] - x[0, c] - own[c]
                spread[c] += d * d
        share = (stop - start) / stop
        for c in range(channels):
            d = own[c] - mean[c]
            mean[c] += d * share
            variance[c] += spread[c] + d * d * share * start
    for c in range(channels):
        mean[c] += x[0, c]
        variance[c] /= count


@compiled(fastmath=NUMBERS)
def _shift(x, mean, factor, beta, y):  # type: ignore[no-untyped-def]
    for m in range(x.shape[0]):
        for c in range(x.shape[1]):
            y[m, c] = (x[m, c] - mean[c]) * factor[c] + beta[c]


@compiled(fastmath=NUMBERS)
def _shift_sums(x, mean, dy, dot, total):  # type: ignore[no-untyped-def]
    part, sums = np.empty_like(dot), np.empty_like(dot)
    dot[:] = 0
    total[:] = 0
    for start in range(0, x.shape[0], 128):
        part[:] = 0
        sums[:] = 0
        for m in range(start, min(start + 128, x.shape[0])):
            for c in range(x.shape[1]):
                part[c] += dy[m, c] * (x[m, c] - mean[c])
                sums[c] += dy[m, c]
        for c in range(x.shape[1]):
            dot[c] += part[c]
            total[c] += sums[c]


@compiled(fastmath=NUMBERS)
def _shift_input(x, mean, dy, along, less, factor, dx):  # type: ignore[no-untyped-def]
    for m in range(x.shape[0]):
        for c in range(x.shape[1]):
            dx[m, c] = (dy[m, c] + (x[m, c] - mean[c]) * along[c] - less[c]) * factor[c]
