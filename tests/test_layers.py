import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xpnet as xn
from xpnet.layers import Context, Layer
from xpnet.testing import assert_close, check_layer, gradcheck

TWICE = xn.Linear(3, 3)

SMALL = [
    (xn.Linear(3, 2), (3,)),
    (xn.Linear(1, 1), (1,)),
    (xn.Linear(5, 3, initializer="glorot"), (5,)),
    (xn.Linear(4, 4, initializer="he"), (4,)),
    (xn.Linear(4, 3, initializer="zeros"), (4,)),
    (xn.Linear(3, 2, initializer=lambda rng, shape: rng.uniform(0.5, 1.5, shape)), (3,)),
    (xn.Linear(4, 2, bias=False), (4,)),
    (xn.ReLU(), (5,)),
    (xn.ReLU(), (2, 3)),
    (xn.LeakyReLU(), (5,)),
    (xn.LeakyReLU(0.3), (2, 2, 2)),
    (xn.Tanh(), (4,)),
    (xn.Sigmoid(), (4,)),
    (xn.SiLU(), (4,)),
    (xn.GELU(), (4,)),
    (xn.GELU(), (2, 3)),
    (xn.Softmax(), (4,)),
    (xn.Softmax(), (1,)),
    (xn.Softmax(), (2, 3)),
    (xn.Flatten(), (2, 3)),
    (xn.Flatten(), (4,)),
    (xn.Flatten(), (2, 1, 3)),
    (xn.Scale(1 / 255), (4,)),
    (xn.Scale(-2.0, shift=3.0), (2, 2)),
    (xn.Scale(np.asarray([0.5, -2.0, 3.0])), (3,)),
    (xn.Scale(2.0, shift=[[1.0], [-1.0]]), (2, 2)),
    (xn.Scale([1.0, 4.0], [[[0.5, 0.25]], [[1.0, 2.0]]]), (2, 3, 2)),
    (xn.Dropout(0.5), (6,)),
    (xn.Dropout(0.0), (3,)),
    (xn.Sequential(), (3,)),
    (xn.Sequential(xn.Tanh(), xn.Flatten()), (2, 2)),
    (xn.Sequential(xn.Linear(3, 4), xn.Tanh(), xn.Linear(4, 2)), (3,)),
    (xn.Sequential(xn.Flatten(), xn.Scale(0.5), xn.Linear(4, 3), xn.ReLU(), xn.Linear(3, 2), xn.Softmax()), (2, 2)),
    (
        xn.Sequential(
            xn.Sequential(xn.Linear(2, 3)), xn.GELU(), xn.Sequential(xn.SiLU(), xn.Sequential(xn.Linear(3, 2)))
        ),
        (2,),
    ),
    (xn.Sequential(TWICE, xn.Sigmoid(), TWICE), (3,)),
    (xn.Residual(xn.Linear(3, 3), xn.Tanh()), (3,)),
    (xn.Residual(xn.Tanh()), (2, 2)),
    (xn.Residual(xn.Residual(xn.Linear(2, 2, bias=False)), xn.Sequential(xn.SiLU(), xn.Linear(2, 2))), (2,)),
    (xn.Sequential(xn.Linear(2, 4), xn.Dropout(0.3), xn.Residual(xn.Tanh(), xn.Linear(4, 4), xn.Dropout(0.2))), (2,)),
]

LARGE = [
    (xn.Linear(784, 128), (784,)),
    (xn.Softmax(), (1000,)),
    (
        xn.Sequential(xn.Flatten(), xn.Linear(784, 256), xn.GELU(), xn.Residual(xn.Linear(256, 256), xn.Tanh())),
        (28, 28),
    ),
    (xn.Sequential(xn.Linear(100, 300), xn.ReLU(), xn.Dropout(0.4), xn.Linear(300, 10), xn.Softmax()), (100,)),
]


def forward(layer, backend, x, training=False, key=0, params=()):
    return layer.forward(params, x, Context(backend, training, key))


# Gradients and the contract


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize(("layer", "shape"), SMALL, ids=lambda value: str(value))
def test_gradient_is_the_whole_jacobian(backend, layer, shape, batch):
    gradcheck(layer, (batch, *shape), backend=backend, seed=batch, training=True, key=batch)


@pytest.mark.parametrize(("layer", "shape"), LARGE, ids=lambda value: str(value))
def test_gradient_of_a_large_layer_along_random_directions(backend, layer, shape):
    gradcheck(layer, (16, *shape), backend=backend, training=True, key=7)


@pytest.mark.parametrize(("layer", "shape"), SMALL, ids=lambda value: str(value))
def test_layer_keeps_the_contract(backend, layer, shape):
    check_layer(layer, (3, *shape), backend=backend, training=True, key=3)


# Values


def test_linear_is_xw_plus_b(backend):
    x = backend.asarray([[1.0, 2.0], [3.0, 4.0]])
    w = backend.asarray([[1.0, 0.0, -1.0], [0.5, 2.0, 1.0]])
    b = backend.asarray([0.1, 0.2, 0.3])
    y, _ = forward(xn.Linear(2, 3), backend, x, params=(w, b))
    assert_close(backend, y, [[2.1, 4.2, 1.3], [5.1, 8.2, 1.3]])


def sigmoid(x):
    return 0.0 if x == -math.inf else 1 / (1 + math.exp(-x))


VALUES = [
    (xn.ReLU(), lambda x: max(x, 0.0)),
    (xn.LeakyReLU(0.1), lambda x: x if x > 0 else 0.1 * x),
    (xn.Tanh(), math.tanh),
    (xn.Sigmoid(), sigmoid),
    (xn.SiLU(), lambda x: x * sigmoid(x)),
    (xn.GELU(), lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
    (xn.Scale(3.0, -1.0), lambda x: 3 * x - 1),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("layer", "value"), VALUES, ids=lambda value: str(value) if isinstance(value, Layer) else "")
def test_activation_has_its_values(backend, layer, value, dtype):
    x = np.asarray([-3.0, -0.5, -1e-3, 0.0, 1e-3, 0.5, 3.0])
    y, _ = forward(layer, backend, backend.asarray(x, dtype=dtype))
    assert_close(backend, y, [value(v) for v in x], multiple=4, scale=10.0)


HUGE = np.asarray([-math.inf, -1e30, -1e4, -800.0, 800.0, 1e4, 1e30, math.inf])

LIMITS = [
    (xn.ReLU(), np.maximum(HUGE, 0), HUGE > 0),
    (xn.LeakyReLU(0.5), np.where(HUGE > 0, HUGE, 0.5 * HUGE), np.where(HUGE > 0, 1.0, 0.5)),
    (xn.Tanh(), np.sign(HUGE), 0 * np.sign(HUGE)),
    (xn.Sigmoid(), HUGE > 0, 0 * np.sign(HUGE)),
    (xn.SiLU(), np.maximum(HUGE, 0), HUGE > 0),
    (xn.GELU(), np.maximum(HUGE, 0), HUGE > 0),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("layer", "value", "slope"), LIMITS, ids=lambda value: str(value) if isinstance(value, Layer) else ""
)
def test_activation_has_its_limits_at_huge_and_infinite_inputs(backend, layer, value, slope, dtype):
    y, pullback = forward(layer, backend, backend.asarray(HUGE, dtype=dtype))
    assert_close(backend, y, np.asarray(value, dtype), multiple=0)
    dx, _ = pullback(backend.asarray(np.ones(HUGE.shape), dtype=dtype))
    assert_close(backend, dx, np.asarray(slope, dtype), multiple=0)


def test_softmax_at_huge_and_infinite_scores(backend):
    inf = math.inf
    x = [[1e4, 0.0, -1e4], [-1e30, -1e30, -1e30], [inf, 0.0, 1e30], [-inf, 0.0, 0.0], [inf, inf, -inf]]
    y = [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [1, 0, 0], [0, 0.5, 0.5], [0.5, 0.5, 0]]
    got, pullback = forward(xn.Softmax(), backend, backend.asarray(x))
    assert_close(backend, got, y)
    dy = np.asarray([1.0, 2.0, 4.0])
    p = np.asarray(y)
    dx, _ = pullback(backend.asarray(np.tile(dy, (5, 1))))
    assert_close(backend, dx, p * (dy - (p @ dy)[:, None]))


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=6), st.integers(0, 3))
def test_softmax_is_a_distribution(backend, row, n):
    x = backend.asarray(np.tile(np.asarray(row, "float64"), (n, 1)))
    y = forward(xn.Softmax(), backend, x)[0]
    assert y.shape == (n, len(row))
    assert np.all(backend.asnumpy(y) >= 0)
    assert_close(backend, backend.xp.sum(y, axis=1), np.ones(n))


# Scale by arrays


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scale_by_arrays_standardizes_each_feature(backend, rng, dtype):
    x = rng.normal([5.0, -1.0, 100.0], [1.0, 0.1, 30.0], size=(200, 3))
    layer = xn.Scale(1 / x.std(0), -x.mean(0) / x.std(0))
    y, _ = forward(layer, backend, backend.asarray(x, dtype=dtype))
    assert y.dtype == getattr(backend.xp, dtype)
    assert_close(backend, y, ((x - x.mean(0)) / x.std(0)).astype(dtype), multiple=64)


def test_scale_by_an_array_of_the_backends_own(backend):
    home = xn.backend("strict") if backend.name == "strict" else backend  # where the host may read
    assert xn.Scale(home.asarray(np.asarray([0.5, 2.0], dtype="float32"))) == xn.Scale((0.5, 2.0))


def test_scale_by_an_array_that_does_not_fit_the_samples():
    for shape, own in (((5, 4), [1.0] * 5), ((3, 4), [[1.0] * 4] * 3), ((7,), [1.0] * 7), ((2, 3, 4), [[1.0] * 4] * 2)):
        with pytest.raises(xn.ShapeError, match=r"Scale\(factor=array.*expects samples whose last axes are"):
            xn.Scale(own).output_shape(shape)
    net = xn.Sequential(xn.Scale([1.0, 2.0]), xn.Linear(2, 1))
    assert net.output_shape((None, 2)) == (None, 1)
    assert str(net) == "Sequential(Scale(factor=array(2,), shift=0.0), Linear(2→1))"


def test_scale_by_an_array_does_not_round_its_numbers_to_integers(backend):
    with pytest.raises(TypeError, match="Scale by an array multiplies floating-point numbers, got"):
        forward(xn.Scale([0.5]), backend, backend.asarray(np.asarray([[1, 2]], dtype="int32")))


def test_the_array_of_a_scale_is_made_once_where_arrays_can_be_written(backend):
    first, second = (backend.constant((1.0, 2.0), backend.xp.float32) for _ in range(2))
    assert (first is second) == (backend.name in ("numpy", "torch", "cupy"))
    assert backend.constant((1.0, 2.0), backend.xp.float64).dtype == backend.xp.float64


def test_scale_by_an_array_trains(backend):
    x = backend.asarray(np.tile(np.asarray([[1.0, 1000.0]], dtype="float32"), (6, 1)))
    net = xn.Sequential(xn.Scale([1.0, 1e-3]), xn.Linear(2, 2))
    model = xn.Model(net, xn.cross_entropy, xn.SGD(0.1), backend=backend)
    history = model.fit(x, backend.asarray(np.asarray([0] * 6)), epochs=2, batch_size=3)
    assert history["loss"][1] < history["loss"][0] < 2.0


# Dropout


def test_dropout_keeps_its_expectation_and_says_nothing_when_not_training(backend):
    x = backend.asarray(np.ones((200, 100)))
    y = backend.asnumpy(forward(xn.Dropout(0.3), backend, x, training=True, key=5)[0])
    assert set(np.unique(y)) == {0.0, 1 / 0.7}
    assert abs(np.mean(y) - 1.0) < 4 * math.sqrt(0.3 / 0.7 / y.size)  # four standard errors
    assert_close(backend, forward(xn.Dropout(0.3), backend, x)[0], np.ones((200, 100)))


def test_dropout_mask_depends_on_key_and_path_alone(backend):
    net = xn.Sequential(xn.Dropout(0.5), xn.Dropout(0.5))
    theta, x = net.init(0, backend), backend.asarray(np.ones((4, 50), dtype="float32"))

    def masks(key):
        seen = {}
        net(theta, x, training=True, key=key, backend=backend, watch=lambda path, y: seen.update({path: y}))
        first = backend.asnumpy(seen["0"]) > 0
        return first, (backend.asnumpy(seen["1"]) > 0)[first]

    (a, inner), (again, _), (other, _) = masks(1), masks(1), masks(2)
    assert np.array_equal(a, again)
    assert 0.3 < np.mean(a == other) < 0.7
    assert 0.3 < np.mean(inner) < 0.7  # the second layer's mask is not the first's


def test_dropout_mask_is_the_same_on_every_backend(backend):
    x = backend.asarray(np.ones((2, 8), dtype="float32"))
    y, _ = forward(xn.Dropout(0.5), backend, x, training=True, key=11)
    numpy = xn.backend("numpy")
    y0, _ = forward(xn.Dropout(0.5), numpy, numpy.asarray(np.ones((2, 8), dtype="float32")), training=True, key=11)
    assert_close(backend, y, y0, multiple=0)
