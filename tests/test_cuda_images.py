"""The kernels for images on a GPU, or on the stand-in, against the plain forms on NumPy."""

from operator import attrgetter

import numpy as np
import pytest

import xpnet as xn
from xpnet.arrays import sum_rows
from xpnet.backends.cuda import images
from xpnet.backends.cupy import NATIVE
from xpnet.geometry import Grid
from xpnet.layers import normalization, patches, pooling

pytestmark = pytest.mark.gpu

GRIDS = {
    "1x1": Grid((1, 1)),
    "1x1 by 2": Grid((1, 1), (2, 2)),
    "1x1 padded": Grid((1, 1), (1, 1), (1, 0), (0, 2)),
    "3x3": Grid((3, 3)),
    "3x3 same": Grid((3, 3), (1, 1), (1, 1), (1, 1)),
    "2x2 by 2": Grid((2, 2), (2, 2)),
    "3x3 by 2, padded": Grid((3, 3), (2, 2), (1, 1), (1, 1)),
    "2x3 by 3x1": Grid((2, 3), (3, 1), (0, 2), (0, 2)),
    "4x2 by 2x3, uneven padding": Grid((4, 2), (2, 3), (2, 0), (1, 1)),
    "3x2 dilated 1x3": Grid((3, 2), (1, 1), (1, 2), (0, 1), (1, 3)),
    "3x3 dilated 2x2 by 2": Grid((3, 3), (2, 2), (2, 2), (2, 2), (2, 2)),
    "more padding than reach": Grid((2, 1), (1, 1), (3, 1), (3, 2)),
    "gaps between the patches": Grid((1, 2), (3, 4)),
    "one output": Grid((5, 7)),
}
GRID = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
CHANNELS = {
    "1 to 1": (1, 1, 1),
    "3 to 5": (3, 5, 1),
    "12 to 10 in 2": (12, 10, 2),
    "depthwise": (5, 5, 5),
    "3 each of 2": (2, 6, 2),
    "few": (6, 4, 2),
}
"""In, out, groups: products, a product a group, and three without patches."""
GROUPS = pytest.mark.parametrize(("nin", "nout", "groups"), CHANNELS.values(), ids=CHANNELS)
DTYPE = pytest.mark.parametrize("dtype", ["float32", "float64"])
SIZE = (5, 7)


@pytest.fixture
def plain():
    return xn.backend("numpy").xp


def close(backend, found, expected):
    """Compare with the host's array, to some units in the last place of the largest number."""
    found = backend.asnumpy(found)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    atol = (
        32
        * float(np.finfo(expected.dtype).eps)
        * float(np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected)))
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def served(backend, function):
    """Return the function's own form, which must not leave its work to the plain one."""

    own = attrgetter(NATIVE[f"{function.__module__}.{function.__name__}"])(backend)

    def call(*arguments):
        with backend.working():
            result = own(*arguments)
        assert result is not None, f"{function.__name__} was left to the plain form"
        return result

    return call


def convolutions(gpu, plain, dtype, grid, nin, nout, batch=3):
    """Compare value and gradients of a convolution."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, *SIZE, nin)).astype(dtype)
    weight = rng.normal(size=(*grid.kernel, nin // grid.groups, nout)).astype(dtype)
    dy = rng.normal(size=(batch, *grid.output(SIZE), nout)).astype(dtype)
    a, w, d = map(gpu.asarray, (x, weight, dy))
    xp = gpu.xp
    close(gpu, served(gpu, patches.convolve)(xp, a, w, grid), patches.convolve(plain, x, weight, grid))
    found = served(gpu, patches.convolve_gradients)(xp, a, d, w, grid)
    for one, expected in zip(found, patches.convolve_gradients(plain, x, dy, weight, grid), strict=True):
        close(gpu, one, expected)


@DTYPE
@GRID
@GROUPS
def test_convolutions(gpu, plain, dtype, grid, nin, nout, groups):
    convolutions(gpu, plain, dtype, grid._replace(groups=groups), nin, nout)


@DTYPE
@GROUPS
@pytest.mark.parametrize("batch", [1, 4, 5])
def test_images_in_parts(gpu, plain, dtype, nin, nout, groups, batch, monkeypatch):
    grid = Grid((3, 3), (2, 1), (1, 1), (1, 1), groups=groups)
    each = int(np.prod(grid.output(SIZE))) * 9 * nin * np.dtype(dtype).itemsize
    monkeypatch.setattr(images, "LIMIT", 2 * each + 1)
    convolutions(gpu, plain, dtype, grid, nin, nout, batch)


@pytest.mark.parametrize("grid", [GRIDS["3x3 by 2, padded"], GRIDS["2x3 by 3x1"]], ids=["3x3", "2x3"])
@pytest.mark.parametrize(("nin", "nout", "groups"), [(12, 10, 2), (5, 5, 5)], ids=["patches", "none"])
def test_so_many_that_64_bits_count_them(gpu, plain, grid, nin, nout, groups, monkeypatch):
    monkeypatch.setattr(images, "SHORT", 0)
    fresh = gpu.with_matmul("float32")
    convolutions(fresh, plain, "float32", grid._replace(groups=groups), nin, nout)
    assert {counts for _, _, counts in fresh.images._modules} == {"int64"}


def test_arrays_that_do_not_lie_in_one_piece(gpu, plain):
    grid, rng = Grid((2, 2)), np.random.default_rng(0)
    x, weight = rng.normal(size=(3, 4, 5, 2)), rng.normal(size=(7, 2, 2, 2))
    turned = gpu.asarray(x).transpose(1, 2, 0, 3), gpu.asarray(weight).T
    expected = patches.convolve(plain, x.transpose(1, 2, 0, 3), weight.T, grid)
    close(gpu, served(gpu, patches.convolve)(gpu.xp, *turned, grid), expected)


@pytest.mark.parametrize("batch", [0, 2])
def test_what_is_left_to_the_plain_form(gpu, batch):
    grid, x, weight = (
        Grid((2, 2)),
        np.ones((batch, 3, 3, 1)),
        np.ones((2, 2, 1, 4), "float32" if batch else "float64"),
    )
    y = gpu.native(patches.convolve)(gpu.xp, gpu.asarray(x), gpu.asarray(weight), grid)
    np.testing.assert_array_equal(gpu.asnumpy(y), np.full((batch, 2, 2, 4), 4.0))


@DTYPE
@GRID
@pytest.mark.parametrize("pool", [pooling.max_pool, pooling.average_pool], ids=["max", "average"])
@pytest.mark.parametrize("ties", [True, False], ids=["ties", "no ties"])
def test_pools(gpu, plain, dtype, grid, pool, ties):
    rng = np.random.default_rng(0)
    x = rng.integers(-1, 2, (3, *SIZE, 3)).astype(dtype) if ties else rng.normal(size=(3, *SIZE, 3)).astype(dtype)
    dy = rng.normal(size=(3, *grid.output(SIZE), 3)).astype(dtype)
    y, back = served(gpu, pool)(gpu.xp, gpu.asarray(x), grid)
    expected, plain_back = pool(plain, x, grid)
    close(gpu, y, expected)
    close(gpu, back(gpu.asarray(dy)), plain_back(dy))


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("grid", [GRIDS["3x3 by 2, padded"], GRIDS["2x2 by 2"]], ids=["padded", "tiles"])
def test_pools_of_what_is_not_finite(gpu, plain, special, grid):
    rng = np.random.default_rng(1)
    x = np.where(rng.random((2, *SIZE, 2)) < 0.4, special, rng.normal(size=(2, *SIZE, 2)))
    dy = rng.normal(size=(2, *grid.output(SIZE), 2))
    y, back = served(gpu, pooling.max_pool)(gpu.xp, gpu.asarray(x), grid)
    expected, plain_back = pooling.max_pool(plain, x, grid)
    np.testing.assert_array_equal(gpu.asnumpy(y), expected)
    close(gpu, back(gpu.asarray(dy)), plain_back(dy))


ROWS = pytest.mark.parametrize("shape", [(1, 1), (2, 40), (7, 5, 3), (300, 33), (2100, 2), (64, 9, 8, 6)], ids=str)


@DTYPE
@ROWS
def test_sums_of_rows(gpu, dtype, shape):
    x = np.random.default_rng(0).normal(size=shape).astype(dtype)
    found = gpu.asnumpy(served(gpu, sum_rows)(gpu.xp, gpu.asarray(x)))
    rows = np.abs(x).reshape(-1, shape[-1]).sum(axis=0)
    error = np.abs(found - x.reshape(-1, shape[-1]).astype("float64").sum(axis=0))
    assert found.dtype == dtype
    assert (error <= 4 * np.finfo(dtype).eps * rows).all()


@DTYPE
@ROWS
@pytest.mark.parametrize("need_dx", [True, False])
def test_batch_statistics(gpu, plain, dtype, shape, need_dx):
    rng = np.random.default_rng(0)
    x, dy = rng.normal(3.0, 2.0, shape).astype(dtype), rng.normal(size=shape).astype(dtype)
    gamma, beta = rng.normal(size=(2, shape[-1])).astype(dtype)
    *found, back = served(gpu, normalization.standardize_rows)(gpu.xp, *map(gpu.asarray, (x, gamma, beta)), 1e-5)
    *expected, plain_back = normalization.standardize_rows(plain, x, gamma, beta, 1e-5)
    dx, gradients = back(gpu.asarray(dy), need_dx)
    expected_dx, expected_gradients = plain_back(dy, need_dx)
    assert (dx is None) == (expected_dx is None)
    pairs = zip((*found, dx, *gradients), (*expected, expected_dx, *expected_gradients), strict=True)
    for one, other in pairs:
        if other is not None:
            scale = max(float(np.max(np.abs(other))), 1.0)
            np.testing.assert_allclose(gpu.asnumpy(one), other, rtol=0, atol=100 * np.finfo(dtype).eps * scale)


def test_variance_beside_a_large_mean(gpu):
    x = (1e7 + np.random.default_rng(0).integers(-8, 9, (300, 3))).astype("float32")
    ones = gpu.asarray(np.ones(3, "float32"))
    _, _, variance, _ = served(gpu, normalization.standardize_rows)(gpu.xp, gpu.asarray(x), ones, ones, 1e-5)
    np.testing.assert_allclose(gpu.asnumpy(variance), np.var(x.astype("float64"), axis=0), rtol=1e-5)
