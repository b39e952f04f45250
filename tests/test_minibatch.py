"""A step's own forms on the host, against the plain ones: a batch gathered, judged, measured; layers in a row."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest

import xpnet as xn
from xpnet.backends import fused
from xpnet.backends.dense import Dense
from xpnet.backends.numpy import NumpyBackend
from xpnet.data.batches import gather
from xpnet.losses import cross_entropy
from xpnet.optimizers.finite import measure

LABELS = ["int8", "uint8", "int16", "int32", "int64"]


@pytest.fixture(params=["numpy", "numpy-plain", "torch", "torch-plain"])
def library(request, monkeypatch):
    """A backend with forms of its own, with Numba's loops and without."""
    name, _, plain = request.param.partition("-")
    if name not in xn.available_backends():
        pytest.skip(f"{name} is not installed")
    if plain:
        monkeypatch.setattr(fused, "fused_available", lambda: False)
    elif not fused.fused_available():
        pytest.skip("Numba is not installed")
    return xn.backend(name)


def judged(library, scores, labels):
    """Value and gradient by the library's form and by the plain one, on the host, in float64."""
    arrays = library.asarray(scores, copy=True), library.asarray(labels)
    with np.errstate(all="ignore"):
        made = [f(*arrays) for f in (library.native(cross_entropy), cross_entropy)]
    assert all(library.owns(part) for pair in made for part in pair)
    assert [str(part.dtype) for part in made[0]] == [str(part.dtype) for part in made[1]]
    assert [tuple(part.shape) for part in made[0]] == [tuple(part.shape) for part in made[1]]
    assert np.array_equal(library.asnumpy(arrays[0]), scores, equal_nan=True)
    return [[library.asnumpy(part).astype(np.float64) for part in pair] for pair in made]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("shape", [(1, 2), (5, 3), (128, 10), (40, 127), (3, 1500)])
def test_cross_entropy_is_as_near_to_the_truth(library, dtype, labels, shape, rng):
    scores = rng.normal(size=shape) * 20
    truth = rng.integers(0, min(shape[1], 127), shape[0])
    (value, gradient), (other, slope) = judged(library, scores.astype(dtype), truth.astype(labels))
    exact = [np.asarray(part) for part in cross_entropy(scores.astype(dtype).astype(np.float64), truth)]
    for found, plain, right in ((value, other, exact[0]), (gradient, slope, exact[1])):
        error, theirs = (np.max(np.abs(one - right)) / np.max(np.abs(right)) for one in (found, plain))
        assert error <= 4 * np.finfo(np.float32).eps if dtype == "float32" else error <= 1e-14
        assert library.name != "numpy" or error <= max(theirs, np.finfo(np.float32).eps)


@pytest.mark.parametrize("label", [-1, 3, 100, -128])
@pytest.mark.parametrize("kind", ["int8", "int32", "int64"])
def test_a_label_out_of_range_makes_the_loss_nan(library, label, kind, rng):
    (value, gradient), (_, slope) = judged(library, rng.normal(size=(4, 3)), np.asarray([0, label, 2, 1], kind))
    assert math.isnan(value)
    assert np.array_equal(gradient, slope)


@pytest.mark.parametrize("row", [[np.inf, 0, 1], [-np.inf, 0, 1], [-np.inf] * 3, [np.nan, 0, 1], [1e38, -3e38, 0]])
@pytest.mark.parametrize("label", [0, 2])
def test_scores_without_bounds_have_the_limits_of_the_plain_form(library, row, label):
    scores = np.asarray([row, [0.5, 0.0, 2.0]], np.float32)
    (value, gradient), (other, slope) = judged(library, scores, np.asarray([label, 1], np.int32))
    assert np.allclose(value, other, rtol=1e-6, equal_nan=True)
    assert np.allclose(gradient, slope, rtol=1e-6, equal_nan=True)


def test_cross_entropy_says_what_is_wrong_as_the_plain_form_does(library):
    for shape, labels in (((3, 1), np.zeros(3, np.int32)), ((3, 2), np.zeros(2, np.int32)), ((3, 2), np.zeros(3))):
        said = []
        for function in (library.native(cross_entropy), cross_entropy):
            with pytest.raises((xn.ShapeError, xn.DataError)) as caught:
                function(library.asarray(np.zeros(shape, np.float32)), library.asarray(labels))
            said.append(str(caught.value))
        assert said[0] == said[1]


@pytest.mark.parametrize("scores", [(2, 3, 4), (0, 3)])
def test_other_shapes_are_left_to_the_plain_form(library, scores, rng):
    found, plain = judged(library, rng.normal(size=scores), rng.integers(0, scores[-1], scores[:-1]).astype(np.int32))
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(found, plain, strict=True))


def test_a_batch_is_gathered_as_it_is(library, rng):
    x, y = rng.integers(0, 256, (50, 4, 3), np.uint8), rng.normal(size=(50, 2))
    index = rng.permutation(50)[:20].astype(np.int32)
    arrays = [library.asarray(one) for one in (x, y, index)]
    found = library.native(gather)(library.xp, *arrays, "float32")
    assert all(library.owns(part) for part in found)
    assert np.array_equal(library.asnumpy(found[0]), x[index])
    assert np.array_equal(library.asnumpy(found[1]), y[index])


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_bytes_become_numbers_and_tokens_stay_bytes(library, dtype, rng):
    x, y = np.arange(256, dtype=np.uint8).reshape(64, 4), rng.normal(size=64)
    index = library.asarray(rng.permutation(64).astype(np.int32))
    found = library.native(gather)(library.xp, library.asarray(x), library.asarray(y), index, dtype)[0]
    assert found.dtype in (library.xp.uint8, getattr(library.xp, dtype))
    assert np.array_equal(library.asnumpy(found), x[library.asnumpy(index)])


@pytest.mark.parametrize("alive", [None, True, False])
@pytest.mark.parametrize("loss", [None, 1.0, math.inf, math.nan])
@pytest.mark.parametrize("extreme", [0.0, 1e30, math.nan, -math.inf])
def test_the_norm_is_that_of_the_plain_form(library, alive, loss, extreme, rng):
    gradient = rng.normal(size=1000).astype(np.float32)
    gradient[7] += extreme
    given = [None if one is None else library.asarray(np.asarray(one)) for one in (alive, loss)]
    with np.errstate(all="ignore"):
        found, plain = (f(library.xp, library.asarray(gradient), *given) for f in (library.native(measure), measure))
    assert library.owns(found[0])
    assert np.allclose(library.asnumpy(found[0]), library.asnumpy(plain[0]), rtol=1e-6, equal_nan=True)
    assert bool(found[1]) == bool(plain[1])


@pytest.mark.parametrize("widths", [(7, 5), (7, 5, 3), (7, 4, 6, 2)])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("shape", [(9, 7), (1, 7), (0, 7), (2, 3, 7)])
def test_linear_layers_in_a_row_give_the_numbers_of_one_by_one(library, monkeypatch, widths, last, shape, rng):
    layers = [layer for a, b in pairwise(widths) for layer in (xn.Linear(a, b), xn.ReLU())]
    net = xn.Sequential(*layers[: None if last else -1])
    theta, x = net.init(3, library), library.asarray(rng.normal(size=shape), "float32")
    dy = library.asarray(rng.normal(size=(*shape[:-1], widths[-1])), "float32")
    assert type(library.dense) is not Dense

    def run(fuses):
        monkeypatch.setattr(library, "fuses", fuses, raising=False)
        y, backward = net(theta, x, backend=library)
        return [library.asnumpy(part) for part in (y, backward(dy))]

    for found, expected in zip(run(True), run(False), strict=True):
        if library.name == "numpy":
            assert np.array_equal(found, expected)
        assert np.max(np.abs(found - expected), initial=0.0) <= 1e-5


def with_scale(library, factor):
    """A net that begins with Scale, θ, x and dy, in float32 and, for the host, in float64."""
    net, rng = xn.Sequential(xn.Scale(factor), xn.Linear(9, 7), xn.ReLU(), xn.Linear(7, 3)), np.random.default_rng(5)
    x, dy, theta = rng.integers(0, 256, (40, 9)), rng.normal(size=(40, 3)), net.init(3, "numpy", "float64")
    theta += rng.normal(size=theta.shape) * 0.1  # biases, too
    return net, [(array.astype(np.float32), array.astype(np.float32).astype(np.float64)) for array in (theta, x, dy)]


@pytest.mark.parametrize("factor", [1 / 255, -0.5, 3.0])
@pytest.mark.parametrize("windows", [False, True])
def test_a_scale_before_them_is_done_on_the_way_and_as_exactly(library, monkeypatch, factor, windows):
    net, given = with_scale(library, factor)
    singles, doubles = zip(*given, strict=True)
    exactly = NumpyBackend()
    exactly.fuses = False
    exact, errors = _run(net, *doubles, exactly, windows), {}
    for fuses in (True, False):
        monkeypatch.setattr(library, "fuses", fuses, raising=False)
        found = _run(net, *singles, library, windows)
        errors[fuses] = [np.max(np.abs(a - b)) / np.max(np.abs(b)) for a, b in zip(found, exact, strict=True)]
    for fused_error, layer_by_layer in zip(errors[True], errors[False], strict=True):
        assert fused_error <= max(2 * layer_by_layer, 4 * np.finfo(np.float32).eps)


def _run(net, theta, x, dy, library, windows):
    theta = library.asarray(theta, copy=True)
    parts = library.split(theta, net.layout) if windows else theta
    y, backward = net(parts, library.asarray(x), backend=library)
    gradient = backward(library.asarray(dy))
    gradients = gradient if windows else library.split(gradient, net.layout)
    return [library.asnumpy(part) for part in (y, *gradients)]


@pytest.mark.parametrize("factor", [1e-37, 0.0])
def test_a_factor_far_from_one_brings_x_into_range_before(library, factor):
    net, given = with_scale(library, factor)
    theta, _, dy = (library.asarray(single) for single, _ in given)
    x = library.asarray(np.full((40, 9), 3e38, np.float32))
    with np.errstate(all="ignore"):
        _, backward = net(theta, x, backend=library)
        assert np.isfinite(library.asnumpy(backward(dy))).all()


@dataclass
class Unhashable:
    """A loss with a setting, which Python cannot hash."""

    factor: float = 2.0

    def __call__(self, prediction, target):
        value, gradient = cross_entropy(prediction, target)
        return value * self.factor, gradient * self.factor


def test_a_loss_that_cannot_be_hashed_has_no_form_of_its_own(library):
    loss = Unhashable()
    assert library.native(loss) is loss
