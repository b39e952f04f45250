"""Values and gradients far out, ±1e4, huge, tiny and infinite, beside mpmath with 60 digits."""

import math
import warnings

import numpy as np
import pytest

import xpnet as xn
from xpnet.layers import Context

mp = pytest.importorskip("mpmath")
mp.mp.dps = 60
INF = math.inf

FAR = [0.0, 1e-30, -1e-8, 0.5, -1.0, 3.0, -20.0, 88.5, -104.0, 710.0, -745.0, 1e4, -1e4, 1e18, -1e18]
SCORES = [*FAR, INF, -INF]
ROWS = [
    [0.0, 0.0, 0.0],
    [1e4, -1e4, 0.0],
    [-1e4, -1e4, -1e4],
    [1e4, 1e4 - 0.5, 1e4 - 3.0],
    [1e18, -1e18, 0.0],
    [1e-30, -1e-30, 0.0],
    [88.0, 89.0, -104.0],
    [710.0, -745.0, 3.0],
    [-20.0, 0.0, 20.0],
    [INF, 0.0, 1e4],
    [INF, INF, -1e4],
    [-INF, 0.0, 1.0],
    [-INF, INF, 0.5],
    [1e4, -INF, -INF],
]
"""Scores; a score of −∞ is never the label's here, which would make the loss infinite."""


def exact(x):
    """Return a number for mpmath, ∞ as a number so large that every limit is reached."""
    x = float(x)
    return mp.mpf(x) if math.isfinite(x) else mp.mpf("1e400") * (1 if x > 0 else -1)


def back(x):
    """Return mpmath's number as a float, ∞ if it is one of the large ones."""
    return float(x) if abs(x) < mp.mpf("1e300") else math.copysign(INF, x)


def assert_near(got, wanted, dtype, factor=8.0, floor=0.0):
    """Within `factor` units in the last place, plus `floor` of them of 1, plus what is lost below normal numbers."""
    info, got, wanted = np.finfo(dtype), np.asarray(got, dtype="float64"), np.asarray(wanted)
    wanted = np.where(np.abs(wanted) > float(info.max), np.copysign(INF, wanted), wanted)
    equal = got == wanted
    with np.errstate(invalid="ignore", over="ignore"):
        bound = float(info.eps) * (factor * np.abs(wanted) + floor) + 2 * float(info.smallest_normal)
        wrong = ~(equal | (np.abs(got - wanted) <= bound))
    assert not wrong.any(), f"{got[wrong][:3]} where {wanted[wrong][:3]} is right"


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return request.param


def values(dtype, numbers):
    return np.asarray(numbers, dtype=dtype)


@pytest.mark.parametrize("label", [0, 1, 2])
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_cross_entropy(backend, dtype, row, label):
    host = values(dtype, [row])
    s = [exact(x) for x in host[0]]
    value, gradient = xn.cross_entropy(backend.asarray(host), backend.asarray(np.asarray([label])))
    top = max(s)
    total = mp.fsum(mp.exp(x - top) for x in s)
    softmax = [mp.exp(x - top) / total for x in s]
    loss = back(top - s[label] + mp.log(total))
    assert_near(backend.asnumpy(value), loss, dtype, floor=4)
    # the difference of two scores is rounded, and e raised to it is off by that much
    difference = max((abs(float(x - top)) for x in s if abs(x - top) < 800), default=0.0)
    wanted = [[float(p) - (k == label) for k, p in enumerate(softmax)]]
    assert_near(backend.asnumpy(gradient), wanted, dtype, factor=8 + difference, floor=4)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_softmax_and_likelihood(backend, dtype, row):
    host = values(dtype, [row])
    s = [exact(x) for x in host[0]]
    top = max(s)
    total = mp.fsum(mp.exp(x - top) for x in s)
    difference = max((abs(float(x - top)) for x in s if abs(x - top) < 800), default=0.0)
    y, _ = xn.Softmax().forward((), backend.asarray(host), Context(backend))
    p = backend.asnumpy(y)
    assert_near(p, [[float(mp.exp(x - top) / total) for x in s]], dtype, factor=8 + difference)
    for label in range(3):
        value, gradient = xn.negative_log_likelihood(y, backend.asarray(np.asarray([label])))
        least = max(exact(p[0, label]), exact(np.finfo(dtype).smallest_normal))
        assert_near(backend.asnumpy(value), float(-mp.log(least)), dtype, floor=4)
        assert_near(backend.asnumpy(gradient)[0, label], float(-1 / least), dtype)


@pytest.mark.parametrize("target", [0.0, 1.0, 0.25])
def test_binary_cross_entropy(backend, dtype, target):
    finite = target in (0.0, 1.0)
    host = values(dtype, SCORES if finite else FAR)
    for x in host:
        s, t = exact(x), mp.mpf(target)
        value, gradient = xn.binary_cross_entropy(
            backend.asarray(x.reshape(1)), backend.asarray(values(dtype, [target]))
        )
        # log(1 + e^s) by its tail, where 1 + e^s would need thousands of digits
        softplus = mp.log1p(mp.exp(-abs(s))) + max(s, 0) if abs(s) < 1e5 else max(s, mp.mpf(0))
        sigma = 1 / (1 + mp.exp(-s)) if abs(s) < 1e5 else mp.mpf(s > 0)
        assert_near(backend.asnumpy(value), back(softplus - s * t), dtype)
        assert_near(backend.asnumpy(gradient), [float(sigma - t)], dtype, floor=0 if target == 0 else 4)


def reference(name, x):
    """Return an activation's value and slope."""
    if name == "GELU":
        c, k = mp.sqrt(2 / mp.pi), mp.mpf("0.044715")
        t = mp.tanh(c * (x + k * x**3)) if abs(x) < 1e3 else mp.sign(x)
        slope = (1 + t) / 2 + (x / 2 * (1 - t * t) * c * (1 + 3 * k * x * x) if abs(x) < 1e3 else 0)
        return x * (1 + t) / 2, slope
    sigma = 1 / (1 + mp.exp(-x)) if abs(x) < 1e5 else mp.mpf(x > 0)
    rest = 1 / (1 + mp.exp(x)) if abs(x) < 1e5 else mp.mpf(x < 0)
    if name == "Sigmoid":
        return sigma, sigma * rest
    if name == "SiLU":
        return x * sigma, sigma + (x * sigma * rest if abs(x) < 1e5 else 0)
    t = mp.tanh(x) if abs(x) < 1e5 else mp.sign(x)
    return t, (mp.sech(x) ** 2 if abs(x) < 1e5 else mp.mpf(0))


@pytest.mark.parametrize("name", ["Sigmoid", "SiLU", "GELU", "Tanh"])
def test_activations(backend, dtype, name):
    layer = getattr(xn, name)()
    host = values(dtype, SCORES)
    y, backward = layer.forward((), backend.asarray(host), Context(backend))
    slope, _ = backward(backend.asarray(np.ones_like(host)))
    for x, value, gradient in zip(host, backend.asnumpy(y), backend.asnumpy(slope), strict=True):
        wanted = reference(name, exact(x))
        near = min(abs(float(x)), 100.0)
        # 1 + tanh cancels for negative x, and so does 1 − y² near ±1: absolute, not relative, precision there
        assert_near(value, back(wanted[0]), dtype, factor=8 + near, floor=4 * near if name == "GELU" else 0.0)
        assert_near(gradient, float(wanted[1]), dtype, factor=8 + near, floor=4 * (1 + near))


@pytest.mark.parametrize("loss", ["mean_squared_error", "mean_absolute_error", "huber", "hinge", "perceptron"])
def test_losses_of_errors_and_margins(backend, dtype, loss):
    signed = loss in ("hinge", "perceptron")
    for x in values(dtype, SCORES):
        for target in (-1.0, 1.0):
            s, t = exact(x), mp.mpf(target)
            value, gradient = getattr(xn, loss)(backend.asarray(x.reshape(1)), backend.asarray(values(dtype, [target])))
            e, short = s - t, (loss == "hinge") - t * s
            h = abs(e) <= 1
            wanted, slope = {
                "mean_squared_error": (e * e, 2 * e),
                "mean_absolute_error": (abs(e), mp.sign(e)),
                "huber": (e * e / 2 if h else abs(e) - mp.mpf(1) / 2, e if h else mp.sign(e)),
                "hinge": (max(short, 0), -t if short >= 0 else mp.mpf(0)),
                "perceptron": (max(short, 0), -t if short >= 0 else mp.mpf(0)),
            }[loss]
            if loss == "hinge" and 0 < abs(short) < np.finfo(dtype).eps:
                continue  # 1 − y s is rounded to 0, which counts as short
            assert_near(backend.asnumpy(value), back(wanted), dtype, floor=4)
            assert_near(backend.asnumpy(gradient), [back(slope)], dtype, floor=0 if signed else 4)


def lesson(**settings):
    net = xn.Sequential(xn.Flatten(), xn.Linear(64, 16), xn.ReLU(), xn.Linear(16, 1))
    return xn.Model(net, xn.mean_squared_error, xn.SGD(1.0), backend="numpy", **settings)


def test_raw_pixels_are_reported_and_their_overflow_too(rng):
    x = rng.integers(0, 256, size=(64, 8, 8)).astype("uint8")
    y = rng.integers(0, 10, size=(64, 1)).astype("float32")
    one = lesson()
    with pytest.warns(xn.DataWarning, match=r"raw bytes 0\.\.255: add Scale"), pytest.raises(xn.NonFiniteError) as told:
        one.fit(x, y, epochs=20, batch_size=16)
    assert "at step " in str(told.value)
    assert "first non-finite value in " in str(told.value)
    assert np.isfinite(one.theta).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scaled = xn.Model(xn.Sequential(xn.Scale(1 / 255), *one.net.layers), one.loss, xn.SGD(0.01), backend="numpy")
        losses = scaled.fit(x, y, epochs=20, batch_size=16)["loss"]
    assert losses[-1] < losses[0]
