import numpy as np
import pytest

import xpnet as xn
from xpnet.errors import DataError, ShapeError
from xpnet.testing import assert_close

NET = xn.Sequential(xn.Linear(3, 6), xn.Tanh(), xn.Dropout(0.5), xn.Linear(6, 1))


def noise_free(n=40):
    x = np.random.default_rng(2).normal(size=(n, 3))
    return x, np.sin(x[:, :1]) - 0.5 * x[:, 1:2] * x[:, 2:]


def model_on(backend, dtype="float64", net=NET, loss=xn.mean_squared_error):
    return xn.Model(net, loss, xn.SGD(0.1, weight_decay=0.5), backend=backend, dtype=dtype)


def test_it_gives_float64_value_and_gradient_of_the_loss_alone(backend):
    x, y = noise_free()
    model = model_on(backend)
    before = backend.asnumpy(model.theta).copy()
    objective = model.objective(x, y)
    value, gradient = objective(before)
    assert type(value) is float
    assert (gradient.dtype, gradient.shape) == (np.float64, before.shape)
    assert value == pytest.approx(model.evaluate(x, y)["loss"], rel=1e-12)
    step = 1e-6 * np.random.default_rng(0).normal(size=before.shape)
    slope = objective(before + step)[0] - objective(before - step)[0]
    assert slope == pytest.approx(2 * float(gradient @ step), rel=1e-6)
    again = objective(before)
    assert again[0] == value
    assert np.array_equal(again[1], gradient)  # no dropout, and no array that two calls share
    assert again[1] is not gradient
    assert np.array_equal(backend.asnumpy(model.theta), before)


def test_float32_models_take_float64_vectors(backend):
    x, y = noise_free()
    model, fine = model_on(backend, "float32"), model_on(backend)
    theta = np.random.default_rng(1).normal(size=NET.size)
    value, gradient = model.objective(x, y)(theta)
    expected, slope = fine.objective(x, y)(theta)
    assert (type(value), gradient.dtype) == (float, np.float64)
    assert value == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(gradient, slope, rtol=0, atol=1e-5 * np.abs(slope).max())


def test_l_bfgs_finds_what_least_squares_finds(backend):
    minimize = pytest.importorskip("scipy.optimize", reason="SciPy is not installed: pip install scipy").minimize
    x, _ = noise_free()
    y = x @ np.asarray([[1.0], [-2.0], [0.5]]) + 3.0
    model = model_on(backend, net=xn.Linear(3, 1))
    found = minimize(model.objective(x, y), backend.asnumpy(model.theta), jac=True, method="L-BFGS-B", tol=1e-14)
    np.testing.assert_allclose(found.x, [1.0, -2.0, 0.5, 3.0], atol=1e-5)
    model.theta = backend.asarray(found.x, dtype=model.dtype)
    assert model.evaluate(x, y)["loss"] < 1e-10


def test_labels_and_other_methods():
    minimize = pytest.importorskip("scipy.optimize", reason="SciPy is not installed: pip install scipy").minimize
    x = np.random.default_rng(4).normal(size=(60, 2))
    labels = (x[:, 0] * x[:, 1] > 0).astype(int)
    net = xn.Sequential(xn.Linear(2, 8), xn.Tanh(), xn.Linear(8, 2))
    model = xn.Model(net, xn.cross_entropy, xn.SGD(0.1), backend="numpy", metrics=["accuracy"])
    for method in ("L-BFGS-B", "CG"):
        found = minimize(model.objective(x, labels), net.init(1, "numpy"), jac=True, method=method)
        model.theta = model.backend.asarray(found.x, dtype="float32")
        assert model.evaluate(x, labels)["accuracy"] > 0.95, method


def test_bad_input(backend):
    x, y = noise_free()
    model = model_on(backend)
    with pytest.raises(ShapeError, match=rf"theta must be a vector of {NET.size} numbers, got shape \(3,\)"):
        model.objective(x, y)(np.zeros(3))
    with pytest.raises(ShapeError, match="they must be as many"):
        model.objective(x, y[1:])
    with pytest.raises(DataError, match="labels choose between outputs, and the network has one"):
        model_on(backend, loss=xn.cross_entropy).objective(x, y)


def test_weights_and_sources_count_in_batches_as_all_at_once(backend, monkeypatch):
    x, y = noise_free()
    weights = np.random.default_rng(3).uniform(0.0, 2.0, len(x))
    weights[:9] = 0.0  # a batch of none
    model = model_on(backend)
    theta = np.random.default_rng(1).normal(size=NET.size)
    value, gradient = model.objective(x, y, weights)(theta)
    error = backend.asnumpy(model.net(backend.asarray(theta, dtype="float64"), backend.asarray(x))[0]) - y
    assert value == pytest.approx(float(np.average(error[:, 0] ** 2, weights=weights)), rel=1e-6)
    whole = model.objective(x, y)(theta)
    monkeypatch.setattr("xpnet.training.sizing.BATCH", 9)
    for data, right in (((x, y, weights), (value, gradient)), ((xn.Rows(x, y, weights),), (value, gradient))):
        found = model.objective(*data)(theta)
        assert found[0] == pytest.approx(right[0], rel=1e-6)
        assert_close(backend, backend.asarray(found[1]), right[1])
    assert model.objective(x, y)(theta)[0] == pytest.approx(whole[0], rel=1e-6)
    assert whole[0] != pytest.approx(value, rel=1e-3)
