"""Each library's own forms of the image layers' functions, against the plain ones in array API operations."""

import itertools

import numpy as np
import pytest

import xpnet as xn
from xpnet.backends import fused
from xpnet.backends.native import bands, normalization
from xpnet.geometry import Grid
from xpnet.layers import patches, pooling
from xpnet.layers.normalization import standardize_rows

FUNCTIONS = [
    patches.convolve,
    patches.convolve_input,
    patches.convolve_weight,
    patches.convolve_gradients,
    pooling.max_pool,
    pooling.average_pool,
    standardize_rows,
]
KERNELS = [(1, 1), (3, 3), (2, 3)]
STRIDES = [(1, 1), (2, 2), (1, 3)]
PADDINGS = [((0, 0), (0, 0)), ((1, 1), (1, 1)), ((0, 2), (1, 0)), ((3, 1), (0, 4))]
CHANNELS = [(3, 4, 1), (16, 5, 1), (4, 6, 2), (4, 4, 4), (3, 6, 3)]
"""In, out, groups."""
BACKENDS = ["numpy", "numpy-plain", "torch"]


@pytest.fixture(params=BACKENDS)
def library(request, monkeypatch):
    """A backend with forms of its own, NumPy also without its loops."""
    name = request.param.partition("-")[0]
    if name not in xn.available_backends():
        pytest.skip(f"{name} is not installed")
    if request.param == "numpy" and not fused.fused_available():
        pytest.skip("Numba is not installed")
    if request.param == "numpy-plain":
        monkeypatch.setattr(fused, "fused_available", lambda: False)
    return xn.backend(name)


@pytest.fixture(params=["whole", "bands"], autouse=True)
def band(request, monkeypatch):
    """Bands as they are, and bands of a few rows."""
    if request.param == "bands":
        monkeypatch.setattr(bands, "BLOCK", 200)
        monkeypatch.setattr(normalization, "BLOCK", 20)


def same(library, found, expected, scale=1.0):
    """Assert that an array is as expected, to some roundings of its type."""
    assert library.owns(found)
    found = library.asnumpy(found)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    largest = float(np.max(np.abs(expected), initial=scale))
    assert np.max(np.abs(found - expected), initial=0.0) <= 100 * np.finfo(found.dtype).eps * largest


def grids(size, paddings=PADDINGS, dilations=((1, 1), (2, 1))):
    for kernel, stride, (before, after), dilation in itertools.product(KERNELS, STRIDES, paddings, dilations):
        grid = Grid(kernel, stride, before, after, dilation)
        if min(grid.output(size)) > 0:
            yield grid


def arrays(library, rng, dtype, *shapes):
    """Return arrays of integers, whose products and sums are exact, on the host and in the library."""
    host = [rng.integers(-3, 4, size=shape).astype(dtype) for shape in shapes]
    return host, [library.asarray(array) for array in host]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_a_function_has_a_form_of_its_own(function, library):
    assert library.native(function) is not function
    assert library.native(xn.focal) is xn.focal


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("samples", [0, 1, 3])
@pytest.mark.parametrize("channels", CHANNELS, ids=str)
def test_convolutions(library, rng, dtype, samples, channels):
    size, (nin, nout, groups) = (9, 7), channels
    for grid in grids(size):
        grid = grid._replace(groups=groups)
        shapes = (samples, *size, nin), (*grid.kernel, nin // groups, nout), (samples, *grid.output(size), nout)
        (x, weight, dy), (x_, weight_, dy_) = arrays(library, rng, dtype, *shapes)
        native, xp = library.native, library.xp
        y = native(patches.convolve)(xp, x_, weight_, grid)
        dx = native(patches.convolve_input)(xp, dy_, weight_, size, grid)
        dweight = native(patches.convolve_weight)(xp, x_, dy_, grid)
        both = native(patches.convolve_gradients)(xp, x_, dy_, weight_, grid)
        if samples:
            plain = patches.convolve(np, x, weight, grid), *patches.convolve_gradients(np, x, dy, weight, grid)
        else:
            plain = np.zeros_like(dy), np.zeros_like(x), np.zeros_like(weight)
        for found, expected in zip((y, dx, dweight, *both), (*plain, *plain[1:]), strict=True):
            same(library, found, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("pool", [pooling.max_pool, pooling.average_pool], ids=lambda pool: pool.__name__)
def test_pools_with_many_equals(library, rng, dtype, samples, pool):
    for size in [(5, 6), (8, 4)]:
        for grid in grids(size, PADDINGS[:2], [(1, 1)]):
            if any(2 * p > k for p, k in zip(grid.before, grid.kernel, strict=True)):
                continue
            (x, dy), (x_, dy_) = arrays(library, rng, dtype, (samples, *size, 5), (samples, *grid.output(size), 5))
            (y, back), (y_, back_) = pool(np, x, grid), library.native(pool)(library.xp, x_, grid)
            same(library, y_, y)
            same(library, back_(dy_), back(dy))


@pytest.mark.parametrize("pool", [pooling.max_pool, pooling.average_pool], ids=lambda pool: pool.__name__)
def test_a_pool_of_no_images(library, pool):
    x, grid = library.asarray(np.zeros((0, 4, 4, 3), "float32")), Grid((2, 2), (2, 2))
    y, back = library.native(pool)(library.xp, x, grid)
    assert (y.shape, back(y).shape) == ((0, 2, 2, 3), (0, 4, 4, 3))


def test_the_largest_of_a_patch_with_nan_is_nan(library):
    x = np.arange(16.0, dtype="float32").reshape(1, 4, 4, 1)
    x[0, 0, 1, 0] = np.nan
    y, _ = library.native(pooling.max_pool)(library.xp, library.asarray(x), Grid((2, 2), (2, 2)))
    assert np.isnan(library.asnumpy(y)).reshape(-1).tolist() == [True, False, False, False]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("offset", [0, 1000])
@pytest.mark.parametrize("shape", [(2, 3), (40, 7), (3, 5, 6, 4), (2000, 16)], ids=str)
def test_norms_over_rows(library, rng, dtype, offset, shape):
    x, dy = (offset + rng.normal(size=shape)).astype(dtype), rng.normal(size=shape).astype(dtype)
    gamma, beta = rng.normal(size=(2, shape[-1])).astype(dtype)
    exact = standardize_rows(np, *(array.astype("float64") for array in (x, gamma, beta)), 1e-5)
    form = library.native(standardize_rows)
    y, mean, variance, back = form(library.xp, *map(library.asarray, (x, gamma, beta)), 1e-5)
    dx, gradients = back(library.asarray(dy), True)
    exact_dx, exact_gradients = exact[3](dy.astype("float64"), True)
    spread = np.sqrt(np.min(exact[2]))
    found = (y, mean, variance, dx, *gradients)
    for one, other in zip(found, (*exact[:3], exact_dx, *exact_gradients), strict=True):
        same(library, one, other.astype(dtype), (1.0 + 10 * offset / spread) * (1 + np.max(np.abs(other))))
    assert back(library.asarray(dy), False)[0] is None


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3)], ids=str)
@pytest.mark.parametrize("stride", [(1, 1), (2, 2)], ids=str)
@pytest.mark.parametrize("groups", [1, 4])
def test_inputs_may_have_gaps_and_are_not_written(library, rng, kernel, stride, groups):
    grid = Grid(kernel, stride, (1, 1), (1, 1), (1, 1), groups)
    shapes = (6, 8, 8, 3), (4, 4 // groups, *kernel), (*grid.output((8, 8)), 4, 3)
    _, whole = arrays(library, rng, "float32", *shapes)
    gaps = [
        library.xp.permute_dims(whole[0], (3, 2, 1, 0))[..., :4],
        library.xp.permute_dims(whole[1], (2, 3, 1, 0)),
        library.xp.permute_dims(whole[2], (3, 0, 1, 2)),
    ]
    x_, weight_, dy_ = [library.asnumpy(array).copy() for array in gaps]
    form = library.native(patches.convolve_gradients)
    if library.name == "numpy":
        for array in gaps:
            array.flags.writeable = False
    for found, expected in zip(
        (
            library.native(patches.convolve)(library.xp, *gaps[:2], grid),
            *form(library.xp, gaps[0], gaps[2], gaps[1], grid),
        ),
        (patches.convolve(np, x_, weight_, grid), *patches.convolve_gradients(np, x_, dy_, weight_, grid)),
        strict=True,
    ):
        same(library, found, expected)
    pools = {name: library.native(getattr(pooling, name)) for name in ("max_pool", "average_pool")}
    for name, pool in pools.items():
        y, back = pool(library.xp, gaps[0], grid._replace(groups=1, kernel=(2, 2)))
        plain, plain_back = getattr(pooling, name)(np, x_, grid._replace(groups=1, kernel=(2, 2)))
        same(library, y, plain)
        same(library, back(y), plain_back(plain))
    assert all(np.array_equal(library.asnumpy(a), b) for a, b in zip(gaps, (x_, weight_, dy_), strict=True))


def test_numpy_never_holds_whole_patches(rng):
    import tracemalloc

    numpy, grid = xn.backend("numpy"), Grid((3, 3), (1, 1), (1, 1), (1, 1))
    x, weight = rng.random((8, 32, 32, 32), dtype=np.float32), rng.random((3, 3, 32, 32), dtype=np.float32)
    tracemalloc.start()
    try:
        y = numpy.native(patches.convolve)(np, x, weight, grid)
        numpy.native(patches.convolve_gradients)(np, x, y, weight, grid)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 2 * (x.nbytes + y.nbytes)
