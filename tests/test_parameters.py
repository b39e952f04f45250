import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xpnet as xn
from xpnet import parameters
from xpnet.parameters import Parameter, draw, find_initializer, lay_out, split
from xpnet.random import generator
from xpnet.testing import assert_close

NET = xn.Sequential(
    xn.Linear(5, 4), xn.Tanh(), xn.Residual(xn.Linear(4, 4, bias=False, initializer="glorot")), xn.Linear(4, 3)
)

PINNED = [1.0285873247126867, -0.23582574768661385, -0.09552956249896315, 0.09527111868024254, 0.0, 0.0]
"""What a release must not change: the weights of seed 0."""


# Windows


def test_windows_lie_end_to_end():
    a, b, c = lay_out([Parameter("w", (2, 3)), Parameter("b", (3,)), Parameter("empty", (0, 4))])
    assert [(w.name, w.start, w.stop) for w in (a, b, c)] == [("w", 0, 6), ("b", 6, 9), ("empty", 9, 9)]
    assert lay_out([]) == ()
    assert Parameter("w", (2,)).named(0).named("body").name == "body.0.w"


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3), max_size=5))
def test_split_gives_every_number_once(shapes):
    windows = lay_out([Parameter(str(k), tuple(shape)) for k, shape in enumerate(shapes)])
    theta = np.arange(windows[-1].stop if windows else 0)
    parts = split(np, theta, windows)
    assert [part.shape for part in parts] == [tuple(shape) for shape in shapes]
    assert np.concatenate([np.zeros(0), *(part.reshape(-1) for part in parts)]).tolist() == theta.tolist()


def test_windows_are_views_where_the_library_has_views(backend):
    theta = NET.init(0, backend)
    first = NET.windows(theta)["0.weight"]
    if backend.name == "jax":
        with pytest.raises(TypeError):
            first[0, 0] = 5.0
        return
    first[0, 0] = 5.0
    assert backend.asnumpy(theta)[0] == 5.0


# Initial values


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_initial_theta_is_the_same_bits_on_every_backend(backend, dtype):
    theta = NET.init(7, backend, dtype)
    assert theta.dtype == getattr(backend.xp, dtype)
    assert backend.owns(theta)
    assert backend.asnumpy(theta).tobytes() == draw(NET.layout, 7).astype(dtype).tobytes()


def test_init_is_pinned():
    assert xn.Linear(2, 2).init(0, "numpy", "float64").tolist() == PINNED
    assert xn.Linear(2, 2).init(1, "numpy", "float64").tolist() != PINNED


def test_init_is_an_array_of_its_own(backend):
    a, b = NET.init(0, backend), NET.init(0, backend)
    a *= 0.0
    assert np.any(backend.asnumpy(b) != 0)


def test_a_window_keeps_its_values_when_layers_are_added_behind():
    short = xn.Sequential(*NET.layers[:1])
    assert short.init(0, "numpy").tolist() == NET.init(0, "numpy")[: short.size].tolist()


def test_layers_of_one_shape_start_differently():
    net = xn.Sequential(xn.Linear(3, 3), xn.Sequential(xn.Linear(3, 3)))
    windows = net.windows(net.init(0, "numpy"))
    assert not np.array_equal(windows["0.weight"], windows["1.0.weight"])


LIMITS = {"normal": 1 / math.sqrt(400), "glorot": math.sqrt(2 / 1000), "he": math.sqrt(2 / 400), "zeros": 0.0}


@pytest.mark.parametrize("name", LIMITS)
def test_initializers_have_their_spread(name):
    values = find_initializer(name)(generator(0, name), (400, 600))
    assert values.shape == (400, 600)
    assert values.dtype == np.float64
    error = 5 / math.sqrt(values.size)
    assert abs(np.mean(values)) <= LIMITS[name] * error
    assert abs(np.std(values) - LIMITS[name]) <= LIMITS[name] * error
    kurtosis = {"normal": 3.0, "he": 3.0, "glorot": 1.8}.get(name)
    if kurtosis:
        assert np.mean(values**4) / np.mean(values**2) ** 2 == pytest.approx(kurtosis, rel=0.05)


def test_biases_start_at_0_and_a_function_is_an_initializer(backend):
    net = xn.Linear(3, 2, initializer=lambda rng, shape: np.full(shape, 0.5))
    assert_close(backend, net.init(0, backend), [0.5] * 6 + [0.0] * 2, multiple=0)


def test_an_unknown_initializer_lists_the_known():
    with pytest.raises(
        ValueError, match="unknown initializer 'xavier': choose one of normal, glorot, he, zeros, or pass"
    ):
        find_initializer("xavier")
    assert set(parameters.INITIALIZERS) == set(LIMITS)


# What weight decay acts on


def test_matrices_decay_and_biases_do_not():
    flat = np.zeros(NET.size)
    for part in NET.decayed().of(flat):
        part += 1.0
    pieces = NET.decayed(flat=False).of(tuple(np.zeros(window.shape) for window in NET.layout))
    for name, window in NET.windows(flat).items():
        assert np.all(window == float(name.endswith("weight")))
    assert len(pieces) == sum(name.endswith("weight") for name in NET.windows(flat))


def test_neighbours_that_decay_are_one_part():
    net = xn.Sequential(xn.Linear(2, 3, bias=False), xn.Linear(3, 3, bias=False), xn.Linear(3, 2))
    assert net.decayed().places == (slice(0, 21),)
    assert net.decayed(flat=False).places == (0, 1, 2)


def test_neighbours_that_are_wanted_for_other_reasons_are_two_parts():
    net = xn.Sequential(xn.Linear(2, 3), xn.Linear(3, 1))
    parts = parameters.choose(net.layout, lambda window: "decayed" if window.decayed else "plain", True)
    assert parts.places == (slice(0, 6), slice(6, 9), slice(9, 12), slice(12, 13))


def test_parts_that_were_made_anew_are_put_between_the_rest(backend):
    vector = backend.asarray(np.arange(10.0))
    parts = parameters.Parts((slice(0, 2), slice(5, 6), slice(7, 8)))
    old = parts.of(vector)
    new = parts.put(backend.xp, vector, old, tuple(part * 10.0 for part in old))
    assert_close(backend, new, [0, 10, 2, 3, 4, 50, 6, 70, 8, 9], multiple=0)
    assert parts.put(backend.xp, vector, old, old) is vector


@pytest.mark.parametrize("seed", [-1, 2**64, 0.5, True, np.array(False), "1", None, np.float64(1)])
def test_a_seed_that_is_none(seed):
    with pytest.raises(ValueError, match=r"^seed must be an integer in 0..2\*\*64-1, got "):
        NET.init(seed, "numpy")


@pytest.mark.parametrize("seed", [np.int64(7), np.uint8(7), np.array(7)])
def test_a_seed_of_any_kind(seed):
    assert NET.init(seed, "numpy").tolist() == NET.init(7, "numpy").tolist()


def test_a_parameter_checks_what_it_is_given():
    assert Parameter("w", [np.int64(2), 3], "he") == Parameter("w", (2, 3), parameters.he)
    for shape in ((2, -1), (2.0,), (True, 2)):
        with pytest.raises(ValueError, match=r'^Parameter "w": shape must be an integer of at least 0, got '):
            Parameter("w", shape)


@pytest.mark.parametrize("values", [np.ones((2, 3)), np.ones(6), 1.0, np.ones((3, 2, 1))])
def test_an_initializer_that_returns_another_shape(values):
    net = xn.Sequential(xn.Linear(3, 2, initializer=lambda rng, shape: values))
    with pytest.raises(xn.ShapeError, match=r'the initializer of "0.weight" must return shape \(3, 2\), got \('):
        net.init(0, "numpy")
