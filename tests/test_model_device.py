"""Prediction, and where a model keeps its arrays."""

from dataclasses import replace

import numpy as np
import pytest

import xpnet as xn
from xpnet.data import door
from xpnet.errors import ShapeError
from xpnet.testing import assert_close

NET = xn.Sequential(xn.Linear(2, 8), xn.Tanh(), xn.Linear(8, 3))


def blobs(n=60, dtype="float32"):
    """Three heaps of points in the plane, which a small network tells apart."""
    rng = np.random.default_rng(5)
    labels = np.arange(n) % 3
    centre = np.asarray([[0.0, 1.5], [1.3, -0.7], [-1.3, -0.7]])
    return (centre[labels] + rng.normal(0, 0.2, (n, 2))).astype(dtype), labels


def home(model):
    return np.array(model.backend.asnumpy(model.theta))


def classifier(backend, optimizer=None, net=NET, **settings):
    return xn.Model(net, xn.cross_entropy, optimizer or xn.SGD(0.3, momentum=0.9), backend=backend, **settings)


# Predict and evaluate


def test_batched_prediction_is_prediction_in_one_go(backend):
    x, labels = blobs(23)
    model = classifier(backend, metrics=["accuracy"])
    whole, score = model.predict(x), model.evaluate(x, labels)
    assert type(whole) is np.ndarray
    assert whole.dtype == np.float32
    for size in (1, 7, 23, 24):
        assert_close(backend, backend.asarray(model.predict(x, batch_size=size)), whole)
        assert model.evaluate(x, labels, batch_size=size) == pytest.approx(score, rel=1e-6)
    assert_close(backend, backend.asarray(model.predict(x.tolist())), whole)


def test_prediction_of_device_data_stays_on_the_device(backend, monkeypatch):
    x, _ = blobs(10)
    model = classifier(backend)
    expected = model.predict(x)
    monkeypatch.setattr(backend, "asnumpy", lambda array: pytest.fail("predict took data home"))
    y = model.predict(backend.asarray(x), batch_size=4)
    monkeypatch.undo()
    assert backend.owns(y)
    assert_close(backend, y, expected)


def test_a_loss_of_ones_own_gets_the_targets_as_they_are(backend):
    def shift(prediction, target):
        return xn.mean_squared_error(prediction, target[:, 0, :])

    x = np.ones((6, 1))
    model = xn.Model(xn.Linear(1, 2), shift, xn.SGD(0.3), backend=backend)
    history = model.fit(x, np.ones((6, 5, 2)), epochs=20, batch_size=6)
    assert history["loss"][-1] < 1e-3


# Where things are


def test_device_data_stays_where_it_is(backend, monkeypatch):
    if isinstance(backend.asarray([0.0]), np.ndarray):
        pytest.skip(f"{backend.name}: the device is the host itself, and nothing travels")
    x, labels = blobs(50)
    xd, yd = backend.asarray(x), backend.asarray(labels)
    seen = door.place("x", xd, backend, "float32")
    assert seen is xd
    sent = []
    asarray = backend.asarray

    def spy(host, *args, **kwargs):
        sent.append(host)
        return asarray(host, *args, **kwargs)

    model = classifier(backend)
    monkeypatch.setattr(backend, "asarray", spy)
    model.fit(xd, yd, epochs=1, batch_size=16)
    order = [host for host in sent if host.dtype == np.int32]
    rest = 0 if len(order) == len(sent) else 4 * 5  # of four compiled steps: key, rate, and where three results lie
    assert 100 <= sum(host.size for host in sent) <= 100 + rest, "which rows are looked at, and the samples' order"


def test_no_step_waits_for_the_device(backend, monkeypatch):
    if getattr(backend, "reads_free", False):
        pytest.skip(f"{backend.name}: the device is the host itself, and reading costs no waiting")
    x, labels = blobs(64)
    asnumpy, calls = backend.asnumpy, []
    monkeypatch.setattr(backend, "asnumpy", lambda array: calls.append(1) or asnumpy(array))
    counts = []
    for size in (32, 2):  # 2 steps an epoch, 32 steps an epoch
        model = classifier(backend)
        run = model.step.run

        def watched(*args, run=run):
            before = len(calls)
            result = run(*args)
            assert len(calls) == before, "a step took data home"
            return result

        model.step = replace(model.step, compiled=watched)
        calls.clear()
        model.fit(x, labels, epochs=1, batch_size=size)
        counts.append(len(calls))
    assert counts[0] == counts[1]


def test_float64_models_compute_in_float64(backend):
    x, labels = blobs(20)
    model = classifier(backend, dtype="float64")
    model.fit(x, labels, epochs=1, batch_size=8)
    assert model.theta.dtype == backend.xp.float64
    assert model.predict(x).dtype == np.float64
    assert model.predict(backend.asarray(x)).dtype == backend.xp.float64  # float32 on the device is read as float64
    exact = classifier("numpy", dtype="float64")
    exact.fit(x, labels, epochs=1, batch_size=8)
    assert np.max(np.abs(home(model) - home(exact))) < 1e-14


def test_theta_that_is_assigned_is_checked_and_copied(backend):
    x, labels = blobs(12)
    model = classifier(backend)
    message = rf"theta must be a {backend.name} float32 vector of {NET.size} numbers"
    wide = backend.asarray(np.zeros(NET.size))
    for wrong in (backend.asarray(np.zeros(3, "float32")), wide, [0.0] * NET.size, None):
        with pytest.raises(ShapeError, match=message):
            model.theta = wrong
    other = "strict" if backend.name == "numpy" else "numpy"
    with pytest.raises(ShapeError, match=message):
        model.theta = xn.backend(other).asarray(np.zeros(NET.size), dtype="float32")
    mine = backend.asarray(np.full(NET.size, 0.25), dtype="float32")
    model.theta = mine
    model.fit(x, labels, epochs=1, batch_size=12)
    assert np.array_equal(backend.asnumpy(mine), np.full(NET.size, 0.25))
    assert not np.array_equal(home(model), backend.asnumpy(mine))


def test_models_do_not_share_theta(backend):
    x, labels = blobs(12)
    a, b = classifier(backend), classifier(backend, seed=1)
    b.theta = a.theta
    before = home(a)
    b.fit(x, labels, epochs=1, batch_size=12)
    assert np.array_equal(home(a), before)
