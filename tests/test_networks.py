from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xpnet as xn
from xpnet.arrays import describe
from xpnet.errors import ShapeError
from xpnet.layers import Context, Layer
from xpnet.testing import assert_close


def of(net, backend, shape, dtype="float32", seed=0):
    x = np.random.default_rng(seed).normal(size=shape)
    return net.init(seed, backend, dtype), backend.asarray(x, dtype=dtype)


LINEAR = xn.Linear(3, 3)
NET = xn.Sequential(xn.Linear(4, 3), xn.ReLU(), xn.Linear(3, 2))


def test_theta_has_windows_named_as_in_pytorch(backend):
    theta, _ = of(NET, backend, (1, 4))
    windows = NET.windows(theta)
    assert {name: tuple(w.shape) for name, w in windows.items()} == {
        "0.weight": (4, 3),
        "0.bias": (3,),
        "2.weight": (3, 2),
        "2.bias": (2,),
    }
    assert NET.size == 4 * 3 + 3 + 3 * 2 + 2
    flat = np.concatenate([backend.asnumpy(w).reshape(-1) for w in windows.values()])
    assert_close(backend, theta, flat, multiple=0)


def test_a_layer_placed_twice_has_two_sets_of_windows(backend):
    net = xn.Sequential(LINEAR, LINEAR)
    theta, _ = of(net, backend, (1, 3))
    windows = {name: backend.asnumpy(w) for name, w in net.windows(theta).items()}
    assert net.size == 2 * LINEAR.size
    assert not np.array_equal(windows["0.weight"], windows["1.weight"])


def test_integer_input_is_read_in_the_precision_of_theta(backend):
    theta, _ = of(NET, backend, (1, 4), "float64")
    x = np.asarray([[0, 1, 200, 255]], dtype="uint8")
    y, _ = NET(theta, backend.asarray(x), backend=backend)
    y64, _ = NET(theta, backend.asarray(x.astype("float64")), backend=backend)
    assert_close(backend, y, y64, multiple=0)


def test_pullback_is_one_shot(backend):
    theta, x = of(NET, backend, (2, 4))
    y, backward = NET(theta, x)
    backward(y)
    with pytest.raises(RuntimeError, match="this pullback was used already: call the network again"):
        backward(y)


def test_theta_of_a_network_without_parameters(backend):
    net = xn.Sequential(xn.Flatten(), xn.Tanh())
    theta, x = of(net, backend, (2, 2, 2))
    assert theta.shape == (0,)
    for t in (theta, ()):
        y, backward = net(t, x)
        assert_close(backend, y, np.tanh(backend.asnumpy(x)).reshape(2, 4))
        dtheta = backward(y)
        assert dtheta == () if isinstance(t, tuple) else tuple(dtheta.shape) == (0,)


def test_watch_sees_every_layer_by_its_path(backend):
    net = xn.Sequential(xn.Linear(2, 2), xn.Residual(xn.Tanh(), xn.Linear(2, 2)))
    theta, x = of(net, backend, (3, 2))
    seen = {}
    y, _ = net(theta, x, watch=lambda path, y: seen.update({path: y}))
    assert list(seen) == ["0", "1.0", "1.1", "1"]
    assert seen["1"] is y


def test_shapes_summary_and_names():
    net = xn.Sequential(xn.Flatten(), xn.Linear(784, 128), xn.Sequential(xn.ReLU(), xn.Linear(128, 10)))
    assert net.shapes((None, 28, 28)) == {"0": (None, 784), "1": (None, 128), "2.0": (None, 128), "2.1": (None, 10)}
    lines = net.summary((None, 28, 28)).splitlines()
    assert lines[0].split() == ["path", "layer", "output", "parameters"]
    assert lines[2].split() == ["1", "Linear(784→128)", "(N,", "128)", "100,480"]
    assert lines[-1].split() == ["101,770"]
    assert str(net) == "Sequential(Flatten(), Linear(784→128), Sequential(ReLU(), Linear(128→10)))"
    assert xn.Linear(2, 3) == xn.Linear(2, 3)


@given(st.integers(0, 3), st.lists(st.integers(1, 4), min_size=2, max_size=5), st.sampled_from(["float32", "float64"]))
def test_any_stack_of_linear_layers_has_the_announced_shape(backend, n, sizes, dtype):
    if backend.name == "jax":
        sizes, n = sizes[:2], min(n, 1)  # jax compiles for every shape
    net = xn.Sequential(*(xn.Linear(i, o) for i, o in pairwise(sizes)))
    theta, x = of(net, backend, (n, sizes[0]), dtype)
    y, backward = net(theta, x)
    assert tuple(y.shape) == net.output_shape((n, sizes[0])) == (n, sizes[-1])
    dtheta = backward(y)
    assert dtheta.dtype == theta.dtype == y.dtype
    assert dtheta.shape == theta.shape
    if n == 0:
        assert_close(backend, dtheta, np.zeros(net.size))


# Nobody computes a gradient that nobody reads


@dataclass(frozen=True)
class Spy(Layer):
    """y = x; notes whether its pullback was called, and whether a dx was asked for."""

    calls: list

    def forward(self, params, x, ctx):
        def backward(dy, need_dx=True, out=()):
            self.calls.append((ctx.path, need_dx))
            return dy if need_dx else None, ()

        return x, backward


def test_nothing_before_the_first_parameters_gets_a_dx(backend):
    calls = []
    spy = Spy(calls)
    block = xn.Sequential(xn.Residual(spy, xn.Linear(3, 3)), spy, xn.Linear(3, 2))
    net = xn.Sequential(spy, xn.Sequential(spy, xn.Tanh()), block, spy)
    theta, x = of(net, backend, (2, 3))
    y, backward = net(theta, x)
    backward(y)
    assert calls == [("3", True), ("2.1", True)]


def test_linear_computes_dx_only_on_demand(backend, monkeypatch):
    products, matmul = [], backend.matmul

    def noted(a, b, out=None):
        y = matmul(a, b, out=out)
        products.append(tuple(y.shape))
        return y

    monkeypatch.setattr(backend, "matmul", noted)
    x, dy = backend.asarray(np.ones((2, 5))), backend.asarray(np.ones((2, 3)))
    params = backend.asarray(np.ones((5, 3))), backend.asarray(np.zeros(3))
    for need_dx in (True, False):
        _, pullback = xn.Linear(5, 3).forward(params, x, Context(backend))
        products.clear()
        pullback(dy, need_dx)
        assert sorted(products) == ([(2, 5), (5, 3)] if need_dx else [(5, 3)])


# Errors


def message(error, call, *args, **kwargs):
    with pytest.raises(error) as caught:
        call(*args, **kwargs)
    return str(caught.value)


def test_wrong_input_shape_names_the_layer_and_the_remedy(backend):
    net = xn.Sequential(xn.Linear(784, 128), xn.ReLU())
    theta, x = of(net, backend, (64, 28, 28))
    expected = "Linear(784→128) at layer 0 expects input (N, 784), got (64, 28, 28): add Flatten() before it"
    assert message(ShapeError, net, theta, x) == expected


def test_wrong_shapes_are_named_by_path():
    net = xn.Sequential(xn.Linear(4, 3), xn.Sequential(xn.ReLU(), xn.Linear(5, 2)))
    where = (
        "Linear(5→2) at layer 1.1 expects input (N, 5), got (2, 3): "
        "the layer before it or the data must have 5 features"
    )
    assert message(ShapeError, net.output_shape, (2, 4)) == where
    assert message(ShapeError, net.summary, (2, 4)) == where
    assert xn.Linear(4, 3).output_shape((2, 5, 4)) == (2, 5, 3)
    axes = "got (2, 4, 5): the last axis must have 4 features, and Flatten() would make 20 of all"
    assert message(ShapeError, xn.Linear(4, 3).output_shape, (2, 4, 5)).endswith(axes)
    alone = "Linear(4→3) expects input (N, 4), got (4,): give it a batch, one sample a row"
    assert message(ShapeError, xn.Linear(4, 3).output_shape, (4,)) == alone
    residual = xn.Sequential(xn.Residual(xn.Linear(3, 2)))
    text = "Residual(Linear(3→2)) at layer 0 expects layers that keep the shape (2, 3), got (2, 2)"
    assert message(ShapeError, residual.output_shape, (2, 3)) == text


def test_theta_that_does_not_fit(backend):
    theta, x = of(NET, backend, (2, 4))
    windows = tuple(NET.windows(theta).values())
    assert message(ShapeError, NET, theta[:-1], x) == "theta must be a vector of 23 numbers, got shape (22,)"
    assert message(ShapeError, NET, windows[:-1], x) == "theta must have 4 windows, got 3"


def test_mixed_precision_library_or_no_array(backend):
    theta, x = of(NET, backend, (2, 4))
    _, wide = of(NET, backend, (2, 4), "float64")
    assert "float64: make them the same precision" in message(TypeError, NET, theta, wide)
    assert message(TypeError, NET, theta, [[1.0] * 4]).endswith(", but x is a list: pass backend.asarray(x)")
    other = xn.backend("strict" if backend.name == "numpy" else "numpy")
    host = other.asarray(np.ones((2, 4), dtype="float32"))
    text = message(TypeError, NET, theta, host)
    assert text == f"theta is {describe(theta)}, but x is {describe(host)}: pass backend.asarray(x)"
    assert message(TypeError, NET, [0.0] * 23, x).startswith("expected an array, got a list")


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: xn.Linear(0, 3), ValueError, "Linear: nin must be an integer of at least 1, got 0"),
        (lambda: xn.Linear(3, 2.5), ValueError, "Linear: nout must be an integer of at least 1, got 2.5"),
        (lambda: xn.Linear(True, 2), ValueError, "Linear: nin must be an integer of at least 1, got True"),
        (lambda: xn.Linear(3, 2, "he"), ValueError, "Linear: bias must be True or False, got 'he'"),
        (
            lambda: xn.Linear(3, 2, initializer="xavier"),
            ValueError,
            "unknown initializer 'xavier': choose one of normal,",
        ),
        (lambda: xn.Linear(3, 2, initializer=["he"]), ValueError, "unknown initializer ['he']"),
        (lambda: xn.Dropout(1.0), ValueError, "Dropout: p must be a number of at least 0 and below 1, got 1.0"),
        (lambda: xn.Dropout(-0.1), ValueError, "Dropout: p must be a number of at least 0 and below 1, got -0.1"),
        (lambda: xn.Dropout(True), ValueError, "Dropout: p must be a number of at least 0 and below 1, got True"),
        (lambda: xn.Dropout(np.nan), ValueError, "Dropout: p must be a number of at least 0 and below 1, got nan"),
        (lambda: xn.LeakyReLU("0.1"), ValueError, "LeakyReLU: slope must be a finite number, got '0.1'"),
        (lambda: xn.Scale(None), ValueError, "Scale: factor must be a finite number, got None"),
        (lambda: xn.Scale([1.0, np.nan]), ValueError, "Scale: factor must be a finite number, got nan"),
        (lambda: xn.Scale(1.0, []), ValueError, "Scale: shift must be a number or an array of numbers, got []"),
        (lambda: xn.Scale([[1.0], [1, 2]]), ValueError, "Scale: factor must be a number or an array of numbers, got"),
        (lambda: xn.Sequential(xn.ReLU), TypeError, "at position 0, an instance: add ()"),
        (lambda: xn.Sequential(xn.ReLU(), 3), TypeError, "Sequential expects layers, got 3 at position 1"),
        (lambda: xn.Residual([xn.ReLU()]), TypeError, "Residual expects layers, got [ReLU()] at position 0"),
    ],
)
def test_bad_settings(make, error, text):
    assert text in message(error, make)


@pytest.mark.parametrize(
    ("layer", "same"),
    [
        (xn.Linear(np.int64(4), np.array(2), bias=np.True_), xn.Linear(4, 2)),
        (xn.Linear(784, np.array([0, 9], dtype="u1").max() + 1), xn.Linear(784, 10)),
        (xn.Dropout(np.float32(0.25)), xn.Dropout(0.25)),
        (xn.LeakyReLU(np.array(1)), xn.LeakyReLU(1.0)),
        (xn.Scale(np.float64(2), np.int8(1)), xn.Scale(2.0, 1.0)),
        (xn.Scale(np.asarray([1, 2]), [[0.5], [0.25]]), xn.Scale((1.0, 2.0), ((0.5,), (0.25,)))),
    ],
)
def test_settings_are_kept_as_pythons_own(layer, same):
    assert (layer, hash(layer), repr(layer)) == (same, hash(same), repr(same))
    for value in vars(layer).values():
        assert type(value) in (int, float, bool, str, tuple)


def test_a_layer_is_immutable():
    with pytest.raises(AttributeError):
        xn.Linear(3, 2).nin = 4


# Random masks


def test_dropout_in_training_asks_for_a_key(backend):
    net = xn.Sequential(xn.Linear(4, 3), xn.Sequential(xn.Dropout(0.5)))
    theta, x = of(net, backend, (2, 4))
    text = "Dropout at layer 1.0 draws a new mask at each step of training: pass key=…, another integer each time"
    assert message(ValueError, net, theta, x, training=True) == text
    net(theta, x)
    net(theta, x, training=True, key=0)
    still = xn.Sequential(xn.Linear(4, 3), xn.Dropout(0.0))
    still(theta, x, training=True)
    assert message(ValueError, xn.Dropout(0.5), theta[:0], x, training=True).startswith("Dropout draws")


@pytest.mark.parametrize("key", [np.int64(5), np.uint8(5), np.array(5), 5 + 2**32, 5 - 2**40])
def test_any_integer_is_a_key_and_means_the_same(backend, key):
    theta, x = backend.asarray([]), backend.asarray(np.ones((4, 50)))
    expected, _ = xn.Dropout(0.5)(theta, x, training=True, key=5)
    assert_close(backend, xn.Dropout(0.5)(theta, x, training=True, key=key)[0], expected, multiple=0)
