"""Linear layers' own kernels on a GPU, or on the stand-in, against NumPy in float64."""

import numpy as np
import pytest

import xpnet as xn
from xpnet.backends.cuda import dense
from xpnet.layers import Context
from xpnet.layers.fused import Chain
from xpnet.parameters import split

pytestmark = pytest.mark.gpu

U = 2.0**-24
"""How much a number of float32 may be rounded, as a part of it."""


@pytest.fixture
def own(gpu):
    return gpu.dense.own


LAYOUTS = {
    "rows": lambda array: array,
    "columns": lambda array: array.T.copy().T,
    "a window": lambda array: _window(array, 3),
    "columns of a window": lambda array: _window(array.T, 5).T,
    "every other": lambda array: np.repeat(np.repeat(array, 2, axis=0), 3, axis=1)[::2, ::3],
    "backwards": lambda array: array[::-1, ::-1].copy()[::-1, ::-1],
}
"""How a matrix may lie in memory, as NumPy makes it."""


def _window(array, offset):
    flat = np.full(offset + array.size, np.nan, array.dtype)
    flat[offset:] = array.ravel()
    return flat[offset:].reshape(array.shape)


def placed(gpu, array):
    """Return an array on the device, at the same place in a copy of the memory that it is a view of."""
    base = array
    while base.base is not None:
        base = base.base
    there = gpu.asarray(base.ravel(order="K"), copy=True)
    offset = array.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    return gpu.cupy.ndarray(array.shape, array.dtype, there.data + offset, array.strides)


def matrix(rng, *shape):
    return rng.normal(size=shape).astype("float32")


def near(found, expected, bound):
    """No number is further off than its bound."""
    assert found.shape == expected.shape
    assert np.all(np.abs(found - expected) <= bound), np.max(np.abs(found - expected) / bound)


def size_of(a, b):
    """|a| |b|, by which the errors of a product in whatever order are bounded: (k + 1) u |a| |b| at most."""
    return np.abs(a.astype(float)) @ np.abs(b.astype(float))


OPTIONS = "bias", "relu", "sums", "out"
SHAPES = [(1, 1, 1), (1, 1, 785), (33, 31, 127), (32, 64, 128), (31, 33, 129), (3, 130, 784), (129, 1, 257)]
SHAPES += [(128, 128, 2), (64, 65, 1000), (1, 4224, 3), (4223, 1, 5), (1, 4200, 300)]
"""Rows, columns, depth: one, odd, multiples of a tile and of its depth, one more and less, as many tiles as may be."""


@pytest.mark.parametrize("options", [*zip(OPTIONS, strict=True), OPTIONS, ()], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_small_product(gpu, own, shape, options):
    rng, (m, n, k) = np.random.default_rng(0), shape
    a, b, bias = matrix(rng, m, k), matrix(rng, k, n), matrix(rng, n)
    factor = -0.7 if "out" in options else 1.0
    there = {"bias": gpu.asarray(bias), "relu": True, "sums": gpu.cupy.zeros(n, "float32")}
    there["out"] = gpu.cupy.zeros((m, n), "float32")
    given = {name: there[name] for name in options}
    found = own.multiply(gpu.asarray(a), gpu.asarray(b), factor, **given)
    expected, scale = factor * (a.astype(float) @ b), abs(factor) * size_of(a, b)
    if "bias" in options:
        expected, scale = expected + bias, scale + abs(bias)
    if "relu" in options:
        expected = np.maximum(expected, 0)
    near(gpu.asnumpy(found), expected, (k + 4) * U * scale)
    assert found.data.ptr == there["out"].data.ptr or "out" not in options
    if "sums" in options:
        near(gpu.asnumpy(there["sums"]), b.astype(float).sum(axis=0), (k + 1) * U * np.abs(b).sum(axis=0) + 1e-45)


@pytest.mark.parametrize("left", LAYOUTS)
@pytest.mark.parametrize("right", LAYOUTS)
def test_the_operands_of_a_small_product_may_lie_any_way(gpu, own, left, right):
    rng = np.random.default_rng(1)
    a, b = LAYOUTS[left](matrix(rng, 37, 150)), LAYOUTS[right](matrix(rng, 150, 41))
    sums = gpu.cupy.zeros(41, "float32")
    found = own.multiply(placed(gpu, a), placed(gpu, b), sums=sums)
    near(gpu.asnumpy(found), a.astype(float) @ b, 154 * U * size_of(a, b))
    near(gpu.asnumpy(sums), b.astype(float).sum(axis=0), 151 * U * np.abs(b).sum(axis=0))
    same = own.multiply(gpu.asarray(np.ascontiguousarray(a)), gpu.asarray(np.ascontiguousarray(b)))
    np.testing.assert_array_equal(gpu.asnumpy(found), gpu.asnumpy(same))


def test_an_operand_may_be_one_row_for_all(gpu, own):
    rng = np.random.default_rng(2)
    row, b = matrix(rng, 1, 9), matrix(rng, 9, 4)
    found = own.multiply(gpu.cupy.broadcast_to(gpu.asarray(row), (5, 9)), gpu.asarray(b))
    near(gpu.asnumpy(found), np.repeat(row.astype(float) @ b, 5, axis=0), 13 * U * size_of(row, b))


LAYERS = [(1, 1, 1), (2, 31, 33), (128, 32, 64), (129, 33, 10), (785, 7, 5), (64, 130, 65), (500, 127, 3)]
"""Rows, inputs, outputs."""


@pytest.mark.parametrize("given", [True, False], ids=["a window", "anywhere"])
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_a_small_layer_backwards(gpu, own, layer, given):
    rng, (n, i, o) = np.random.default_rng(3), layer
    x, ds, w, y = matrix(rng, n, i), matrix(rng, n, o), matrix(rng, i, o), np.maximum(matrix(rng, n, i), 0)
    flat = gpu.cupy.zeros(3 + i * o, "float32")
    dweight, dbias = flat[3:].reshape(i, o) if given else None, gpu.cupy.zeros(o, "float32")
    found, dx = own.back(*map(gpu.asarray, (x, ds, w, y)), dweight, dbias)
    assert not given or found is dweight
    near(gpu.asnumpy(found), x.T.astype(float) @ ds, (n + 4) * U * size_of(x.T, ds))
    near(gpu.asnumpy(dbias), ds.astype(float).sum(axis=0), (n + 1) * U * np.abs(ds).sum(axis=0))
    near(gpu.asnumpy(dx), (ds.astype(float) @ w.T) * (y > 0), (o + 4) * U * size_of(ds, w.T))
    assert not gpu.asnumpy(dx)[y == 0].any()
    one = own.multiply(gpu.asarray(x).T, gpu.asarray(ds))
    np.testing.assert_array_equal(gpu.asnumpy(found), gpu.asnumpy(one))


COLUMNS = [(1, 1), (7, 31), (8, 32), (9, 33), (1000, 5), (130, 1025), (4097, 64)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("given", [True, False], ids=["a window", "anywhere"])
@pytest.mark.parametrize("shape", COLUMNS, ids=str)
def test_relu_backwards(gpu, own, shape, given, dtype):
    rng, u = np.random.default_rng(4), np.finfo(dtype).eps / 2
    y, d = np.maximum(rng.normal(size=shape), 0).astype(dtype), rng.normal(size=shape).astype(dtype)
    there, out = gpu.asarray(d, copy=True), gpu.cupy.zeros(shape[1] + 3, dtype)[3:] if given else None
    sums = own.relu_back(gpu.asarray(y), there, out)
    assert not given or sums is out
    np.testing.assert_array_equal(gpu.asnumpy(there), d * (y > 0))
    expected = (d * (y > 0)).astype("longdouble").sum(axis=0)
    near(gpu.asnumpy(sums), expected, shape[0] * u * np.abs(d * (y > 0)).sum(axis=0))


@pytest.mark.parametrize(("shape", "lies"), [((3, 40), "rows"), ((0, 4), "rows"), ((5, 4), "columns")])
def test_where_relu_backwards_has_no_sums_it_still_is_relu_backwards(gpu, own, shape, lies, monkeypatch):
    monkeypatch.setattr(dense, "TICKETS", 1)
    rng = np.random.default_rng(4)
    y, d = np.maximum(matrix(rng, *shape), 0), matrix(rng, *shape)
    there = placed(gpu, LAYOUTS[lies](d)) if d.size else gpu.asarray(d)
    assert own.relu_back(gpu.asarray(y), there) is None
    np.testing.assert_array_equal(gpu.asnumpy(there), d * (y > 0))


def test_more_columns_than_counters_have_their_sums_from_a_product(gpu, monkeypatch):
    monkeypatch.setattr(dense, "TICKETS", 1)
    monkeypatch.setattr(dense, "SMALL", 0)
    net = xn.Sequential(xn.Linear(5, 40), xn.ReLU(), xn.Linear(40, 3))
    near(*of_layers(gpu, net, "float32"), 2e-5)


# ---- numbers that are none ----


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -0.0])
@pytest.mark.parametrize("where", ["a", "b", "bias"])
@pytest.mark.parametrize("relu", [True, False])
def test_what_is_not_finite_comes_out_as_numpy_has_it(gpu, own, value, where, relu):
    rng = np.random.default_rng(5)
    given = {"a": matrix(rng, 35, 140), "b": matrix(rng, 140, 34), "bias": matrix(rng, 34)}
    given[where][(33,) if where == "bias" else (34, 33) if where == "a" else (139, 33)] = value
    sums = gpu.cupy.zeros(34, "float32")
    a, b, bias = map(gpu.asarray, given.values())
    found = gpu.asnumpy(own.multiply(a, b, bias=bias, relu=relu, sums=sums))
    with np.errstate(invalid="ignore"):
        expected = given["a"] @ given["b"] + given["bias"]
        expected = np.maximum(expected, 0) if relu else expected
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(gpu.asnumpy(sums), given["b"].sum(axis=0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_backwards_a_zero_times_what_is_not_finite_is_nan(gpu, own, value):
    """As in the plain form, dx times whether y > 0; NaN is not."""
    y, d = np.asarray([[1, 0, np.nan, 2]], "float32"), np.asarray([[value, value, 1, 1]], "float32")
    with np.errstate(invalid="ignore"):
        expected = d * (y > 0)
    there = gpu.asarray(d, copy=True)
    sums = own.relu_back(gpu.asarray(y), there)
    np.testing.assert_array_equal(gpu.asnumpy(there), expected)
    np.testing.assert_array_equal(gpu.asnumpy(sums), expected[0])
    x, w, dbias = np.ones((1, 4), "float32"), d.T, gpu.cupy.zeros(1, "float32")
    _, dx = own.back(*map(gpu.asarray, (x, np.ones((1, 1), "float32"), w, y)), None, dbias)
    np.testing.assert_array_equal(gpu.asnumpy(dx), expected)


# ---- what is left to others ----


def test_what_is_not_small(gpu, own, monkeypatch):
    empty = gpu.cupy.zeros
    monkeypatch.setattr(dense, "SMALL", 24)
    a, b = empty((2, 3), "float32"), empty((3, 4), "float32")
    assert own.multiply(a, b) is not None
    assert own.multiply(empty((2, 3), "float64"), empty((3, 4), "float64")) is None
    assert own.multiply(empty((2, 3), "float64"), b) is None
    assert own.multiply(empty((2, 3), "int32"), b) is None
    assert own.multiply(empty((2, 3), "float32"), empty((4, 4), "float32")) is None, "depths that differ"
    assert own.multiply(empty((5, 1), "float32"), empty((1, 5), "float32")) is None, "25 multiply-adds"
    for rows, depth, columns in ((0, 3, 4), (2, 0, 4), (2, 3, 0)):
        assert own.multiply(empty((rows, depth), "float32"), empty((depth, columns), "float32")) is None
    assert own.multiply(a, b, out=empty((4, 2), "float32").T) is None
    assert own.multiply(a, b, bias=empty((8,), "float32")[::2]) is None
    assert own.multiply(a, b, sums=empty(4, "float64")) is None


def test_as_many_tiles_as_may_be(gpu, own):
    def product(m, n, **options):
        return own.multiply(gpu.cupy.ones((m, 2), "float32"), gpu.cupy.ones((2, n), "float32"), **options)

    most = dense.TILES * dense.TILE
    assert product(most, 32) is not None
    assert product(most + 1, 32) is None
    assert product(33, most // 2) is not None
    assert product(33, most // 2 + 1) is None
    assert product(most, 32, sums=gpu.cupy.zeros(32, "float32")) is None, "a row of ones more"
    assert product(most - 1, 32, sums=gpu.cupy.zeros(32, "float32")) is not None


def test_what_is_further_than_an_int_reaches(gpu, own):
    """Rows of an array that is not there, 2³⁰ numbers apart."""
    there = gpu.cupy.zeros((4, 4), "float32")
    far = gpu.cupy.ndarray((4, 1), "float32", there.data, (2**32, 4))
    assert own.multiply(far.T, there) is None
    assert own.multiply(there[:1], far) is None


def test_a_layer_that_is_not_small(gpu, own, monkeypatch):
    def back(dtype="float32", n=2, i=3, o=4, x=None):
        sizes = (n, i), (n, o), (i, o), (n, i)
        arrays = [gpu.cupy.ones(size, dtype) for size in sizes]
        return own.back(*([x] if x is not None else arrays[:1]), *arrays[1:], None, gpu.cupy.zeros(o, dtype))

    monkeypatch.setattr(dense, "SMALL", 24)
    assert back() is not None
    assert back("float64") is None
    assert back(n=0) is None
    assert back(n=3) is None
    assert back(x=gpu.cupy.ones((3, 2), "float32").T) is None
    monkeypatch.undo()
    assert back(i=31, n=32 * dense.TILES) is not None
    assert back(i=31, n=32 * dense.TILES + 1) is None


@pytest.mark.parametrize(("name", "limit"), [("SMALL", 64 * 100 * 30), ("TILES", 8)])
def test_on_both_sides_of_a_limit_numbers_are_the_same_within_rounding(gpu, name, limit, monkeypatch):
    net = xn.Sequential(xn.Scale(0.3), xn.Linear(30, 100), xn.ReLU(), xn.Linear(100, 10), xn.ReLU(), xn.Linear(10, 3))
    found = []
    for value in (limit, limit - 1):
        monkeypatch.setattr(dense, name, value)
        found.append(of_layers(gpu, net, "float32", n=64))
    for one, expected in found:
        near(one, expected, 2e-5)
    assert np.any(found[0][0] != found[1][0]), "the other side multiplies in another order"


# ---- orders ----


@pytest.mark.parametrize("order", ["backwards", "1", "2", "3"])
def test_sums_have_one_order_in_whatever_order_blocks_run(gpu, own, order, monkeypatch):
    rng = np.random.default_rng(6)
    x, ds, w, y = (gpu.asarray(matrix(rng, *shape)) for shape in ((700, 70), (700, 40), (70, 40), (700, 70)))

    def all_numbers():
        one, two, three = (gpu.cupy.zeros(size, "float32") for size in (40, 40, 70))
        product = own.multiply(x.T, ds, sums=one)
        dweight, dx = own.back(x, ds, w, y, None, two)
        own.relu_back(y, again := dx + 1, three)
        return [gpu.asnumpy(array).copy() for array in (product, dweight, dx, again, one, two, three)]

    before = all_numbers()
    monkeypatch.setenv("STANDIN_BLOCKS", order)
    for found, expected in zip(all_numbers(), before, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_counters_are_ready_for_the_next_launch(gpu, own):
    rng = np.random.default_rng(7)
    for _ in range(2):
        own.multiply(gpu.asarray(matrix(rng, 40, 900)), gpu.asarray(matrix(rng, 900, 40)))
        own.relu_back(gpu.cupy.ones((900, 70), "float32"), gpu.cupy.ones((900, 70), "float32"))
        assert not gpu.asnumpy(gpu.kernels.tickets()).any()


# ---- layers in a row ----


def of_layers(gpu, net, dtype, n=6, need_dx=True, size=1.0, slope=1.0):
    """Return y, dx and all gradients of a network in one row, as the GPU has them, and as NumPy has in float64."""
    rng = np.random.default_rng(8)
    columns = next(layer for layer in net.layers if isinstance(layer, xn.Linear)).nin
    x, theta = size * rng.normal(size=(n, columns)), rng.normal(size=net.size) / 4
    found = []
    for backend, kind in ((gpu, dtype), (xn.backend("numpy"), "float64")):
        t, a = (backend.asarray(host.astype(dtype).astype(kind)) for host in (theta, x))
        y, pullback = net.forward(split(backend.xp, t, net.layout), a, Context(backend))
        dy = backend.asarray((slope * np.random.default_rng(9).normal(size=y.shape)).astype(dtype).astype(kind))
        outs, finish = backend.join(t, net.layout)
        dx, gradients = pullback(dy, need_dx, outs)
        parts = (y, finish(gradients), *([dx] if need_dx else ()))
        found.append(np.concatenate([np.ravel(backend.asnumpy(p)) / np.max(np.abs(backend.asnumpy(p))) for p in parts]))
    return found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("factor", [1 / 255, -3.0, 1.0])
@pytest.mark.parametrize("need_dx", [True, False])
def test_a_scale_before_them(gpu, dtype, size, factor, need_dx, monkeypatch):
    if size == "large":
        monkeypatch.setattr(dense, "SMALL", 0)
    net = xn.Sequential(xn.Scale(factor), xn.Linear(7, 50), xn.ReLU(), xn.Linear(50, 33), xn.Linear(33, 5), xn.ReLU())
    near(*of_layers(gpu, net, dtype, 40, need_dx), {"float32": 2e-6, "float64": 1e-14}[dtype])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_scale_before_one_layer(gpu, dtype):
    net = xn.Sequential(xn.Scale(0.3), xn.Linear(7, 5))
    near(*of_layers(gpu, net, dtype), {"float32": 2e-6, "float64": 1e-14}[dtype])


@pytest.mark.parametrize("need_dx", [True, False])
def test_no_rows_give_no_gradient(gpu, need_dx):
    net = xn.Sequential(xn.Scale(0.5), xn.Linear(7, 6), xn.ReLU(), xn.Linear(6, 5))
    params = split(gpu.xp, gpu.asarray(np.ones(net.size, "float32")), net.layout)
    y, pullback = net.forward(params, gpu.cupy.zeros((0, 7), "float32"), Context(gpu))
    dx, gradients = pullback(y, need_dx)
    assert y.shape == (0, 5)
    assert dx.shape == (0, 7) if need_dx else dx is None
    assert not any(gpu.asnumpy(gradient).any() for gradient in gradients)
    assert [gradient.shape for gradient in gradients] == [param.shape for param in params]


@pytest.mark.parametrize("size", ["small", "large"])
def test_gradients_land_where_they_belong(gpu, size, monkeypatch):
    if size == "large":
        monkeypatch.setattr(dense, "SMALL", 0)
    net = xn.Sequential(xn.Scale(0.5), xn.Linear(7, 6), xn.ReLU(), xn.Linear(6, 5), xn.Linear(5, 4), xn.ReLU())
    theta = gpu.asarray(np.ones(net.size, "float32"), copy=True)
    y, pullback = net.forward(split(gpu.xp, theta, net.layout), gpu.cupy.ones((3, 7), "float32"), Context(gpu))
    windows, _ = gpu.join(theta, net.layout)
    _, gradients = pullback(y, False, windows)
    assert [gradient.data.ptr for gradient in gradients] == [window.data.ptr for window in windows]


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("factor", [3e37, 1.3e-38])
def test_a_scale_that_brings_numbers_into_range(gpu, size, factor, monkeypatch):
    """Behind the product it would come too late: that has passed float32's range, or lost its digits."""
    if size == "large":
        monkeypatch.setattr(dense, "SMALL", 0)
    net = xn.Sequential(xn.Scale(factor), xn.Linear(60, 5))
    near(*of_layers(gpu, net, "float32", 40, need_dx=False, size=1 / factor, slope=1e-6), 2e-6)


ALONE = [xn.Scale(1.0), xn.Scale(0.5, 1.0), xn.Scale([0.5, 2.0]), xn.Scale(0.5, [0.0, 1.0]), xn.Scale(0.0)]
ALONE += [xn.Scale(1e6), xn.Scale(-1e-6), xn.Scale([0.5])]


@pytest.mark.parametrize("scale", ALONE, ids=repr)
def test_what_scales_otherwise_stays_a_layer(scale):
    net = xn.Sequential(scale, xn.Linear(2, 3), xn.ReLU())
    for slots in net._fused_slots:
        assert [(k, layer) for k, layer, _ in slots] == [(0, scale), (1, Chain((True,)))]


@pytest.mark.parametrize("factor", [2, 0.5, -1 / 255, np.float32(0.25), 2.0**16, 2.0**-16], ids=repr)
def test_a_scale_by_one_number_is_the_first_linear_layers(factor):
    after = xn.Scale(0.5), xn.Tanh(), xn.Linear(3, 2, bias=False), xn.Scale(0.5), xn.ReLU()
    net = xn.Sequential(xn.Scale(factor), xn.Linear(2, 3), xn.ReLU(), xn.Linear(3, 3), *after)
    plain, scaling = net._fused_slots
    assert [layer for _, layer, _ in plain[:2]] == [xn.Scale(factor), Chain((True, False))]
    assert scaling[0] == (0, Chain((True, False), float(factor)), slice(0, 4))
    assert scaling[1:] == plain[2:]
    assert [layer for _, layer, _ in scaling[1:]] == list(after)


def test_the_second_of_two_scales_is():
    net = xn.Sequential(xn.Scale(2.0), xn.Scale(3.0), xn.Linear(2, 3), xn.Scale(4.0), xn.Linear(3, 1))
    chains = (1, Chain((False,), 3.0), slice(0, 2)), (3, Chain((False,), 4.0), slice(2, 4))
    assert net._fused_slots[True] == ((0, xn.Scale(2.0), slice(0, 0)), *chains)


def test_layers_are_seen_and_saved_as_they_were_written(gpu, tmp_path):
    net, seen = xn.Sequential(xn.Scale(1 / 255), xn.Linear(6, 8), xn.ReLU(), xn.Linear(8, 5)), {}
    model, plain = (xn.Model(net, xn.cross_entropy, xn.SGD(0.1), backend=backend) for backend in (gpu, "numpy"))
    x, y = np.random.default_rng(0).integers(0, 256, (32, 6)).astype("uint8"), np.arange(32) % 5
    for one in (model, plain):
        one.fit(x, y, 4, 8)
    model.save(tmp_path / "model.xn")
    again = xn.load(tmp_path / "model.xn", "numpy")
    assert again.net == net
    np.testing.assert_array_equal(again.theta, gpu.asnumpy(model.theta))
    near(gpu.asnumpy(model.theta), plain.theta, 1e-5)
    net(model.theta, gpu.asarray(x), watch=lambda path, y: seen.update({path: gpu.asnumpy(y)}), backend=gpu)
    assert list(seen) == ["0", "1", "2", "3"]
    near(seen["0"], x / 255, 1e-6)
    near(model.predict(x), seen["3"], 1e-5)


@pytest.mark.parametrize("size", ["small", "large"])
def test_samples_in_one_array_of_three_axes(gpu, size, monkeypatch):
    if size == "large":
        monkeypatch.setattr(dense, "SMALL", 0)
    net = xn.Sequential(xn.Scale(0.5), xn.Linear(4, 6), xn.ReLU(), xn.Linear(6, 3))
    rng = np.random.default_rng(0)
    x, theta = rng.normal(size=(2, 5, 4)).astype("float32"), rng.normal(size=net.size).astype("float32")
    y, backward = net(gpu.asarray(theta), gpu.asarray(x), backend=gpu)
    expected, plain = net(theta, x)
    near(gpu.asnumpy(y), expected, 1e-5)
    near(gpu.asnumpy(backward(y)), plain(expected), 1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_float64_is_the_librarys(gpu, own, dtype, monkeypatch):
    calls, real = [], type(own)._launch
    monkeypatch.setattr(type(own), "_launch", lambda self, name, *rest: calls.append(name) or real(self, name, *rest))
    net = xn.Sequential(xn.Scale(0.5), xn.Linear(4, 6), xn.ReLU(), xn.Linear(6, 3))
    near(*of_layers(gpu, net, dtype, need_dx=False), 1e-5)
    assert calls == (["small_product", "small_product", "small_back", "small_product"] if dtype == "float32" else [])


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_small_products_are_of_float32_whatever_precision_is_asked_for(gpu, precision):
    net = xn.Sequential(xn.Linear(30, 20), xn.ReLU(), xn.Linear(20, 4))
    near(*of_layers(gpu.with_matmul(precision), net, "float32", need_dx=False), 2e-6)
