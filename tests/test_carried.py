"""What a network carries without training it: BatchNorm's running statistics, from the first step to the last file."""

import copy
import json
import pickle

import numpy as np
import pytest

import xpnet as xn
from xpnet.files import storage

NET = xn.Sequential(xn.Linear(4, 6, bias=False), xn.BatchNorm(6), xn.Tanh(), xn.Dropout(0.2), xn.Linear(6, 2))
NAMES = ["1.running_mean", "1.running_var"]


def data(n=96):
    rng = np.random.default_rng(0)
    x = rng.normal(1.0, 2.0, size=(n, 4)).astype(np.float32)
    return x, (x[:, 0] > 1).astype(int)


def model(backend, optimizer=None, net=NET):
    return xn.Model(net, xn.cross_entropy, optimizer or xn.Adam(0.02), seed=1, backend=backend, metrics=["accuracy"])


def home(model):
    return {name: np.array(model.backend.asnumpy(array)) for name, array in model.buffers.items()}


def test_they_are_there_from_the_start(backend):
    found = home(model(backend))
    assert list(found) == NAMES
    assert {name: (a.dtype.name, a.tolist()) for name, a in found.items()} == {
        NAMES[0]: ("float32", [0.0] * 6),
        NAMES[1]: ("float32", [1.0] * 6),
    }


def test_one_step_moves_them_towards_the_batch(backend):
    x, y = data(32)
    trained = model(backend)
    rows = x @ trained.backend.asnumpy(trained.net.windows(trained.theta)["0.weight"])
    trained.fit(x, y, 1, 32)
    found = home(trained)
    np.testing.assert_allclose(found[NAMES[0]], 0.1 * rows.mean(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found[NAMES[1]], 0.9 + 0.1 * rows.var(axis=0, ddof=1), rtol=1e-5)


def test_all_backends_carry_the_same(backend):
    x, y = data()
    here, there = model(backend), model("numpy")
    for one in (here, there):
        one.fit(x, y, 3, 20)
    for name, value in home(there).items():
        np.testing.assert_allclose(home(here)[name], value, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(here.predict(x), there.predict(x), rtol=0, atol=2e-4)


def test_a_step_that_is_not_sound_leaves_them_as_they_are(backend):
    x, y = data(40)
    trained = model(backend)
    trained.fit(x, y, 1, 10)
    before, theta = home(trained), trained.theta
    x = x.copy()
    x[:] = np.inf
    with pytest.warns(xn.DataWarning, match="x holds inf"), pytest.raises(xn.NonFiniteError):
        trained.fit(x, y, 1, 10)
    for name, value in home(trained).items():
        np.testing.assert_array_equal(value, before[name])
    np.testing.assert_array_equal(backend.asnumpy(trained.theta), backend.asnumpy(theta))


def test_they_come_back_from_files_copies_and_pickles(backend, tmp_path):
    x, y = data()
    trained = model(backend)
    trained.fit(x, y, 2, 20)
    trained.save(tmp_path / "m.xn")
    others = [xn.load(tmp_path / "m.xn", backend), copy.deepcopy(trained), pickle.loads(pickle.dumps(trained))]
    for other in others:
        for name, value in home(trained).items():
            np.testing.assert_array_equal(home(other)[name], value)
        np.testing.assert_array_equal(other.predict(x), trained.predict(x))


def test_a_run_that_was_cut_off_goes_on_to_the_same_bits(tmp_path):
    x, y = data()

    class Stop(xn.Callback):
        def on_epoch_end(self, model, history):
            raise KeyError

    whole, cut = model("numpy"), model("numpy")
    whole.fit(x, y, 4, 20)
    with pytest.raises(KeyError):
        cut.fit(x, y, 4, 20, callbacks=[Stop()], checkpoint=tmp_path / "run.xn", every=1)
    again = xn.load(tmp_path / "run.xn", "numpy")
    again.resume(x, y)
    np.testing.assert_array_equal(again.theta, whole.theta)
    for name, value in home(whole).items():
        np.testing.assert_array_equal(home(again)[name], value)


@pytest.mark.parametrize("change", ["lost", "one lost", "another name", "another shape", "one too many"])
def test_a_file_without_them_is_refused(change, tmp_path):
    path = tmp_path / "m.xn"
    model("numpy").save(path)
    text, arrays = storage.read(path)
    held = {f"buffer/{name}": arrays.pop(f"buffer/{name}") for name in NAMES}
    if change == "one lost":
        held.pop(f"buffer/{NAMES[1]}")
    elif change == "another name":
        held["buffer/1.mean"] = held.pop(f"buffer/{NAMES[0]}")
    elif change == "another shape":
        held[f"buffer/{NAMES[0]}"] = np.zeros(5, np.float32)
    elif change == "one too many":
        held["buffer/2.running_mean"] = np.zeros(6, np.float32)
    arrays |= {} if change == "lost" else held
    storage.write(path, storage.encode(text, arrays))
    with pytest.raises(
        xn.CheckpointError, match=r"its buffers \{.*\} are not the network's \{'1.running_mean': \(6,\)"
    ):
        xn.load(path, "numpy")


def test_the_file_is_changed_by_nothing_else(tmp_path):
    """The test above takes a file apart and puts it together: unchanged, it is read."""
    path = tmp_path / "m.xn"
    model("numpy").save(path)
    text, arrays = storage.read(path)
    storage.write(path, storage.encode(text, arrays))
    assert json.loads(text)["seed"] == 1
    assert list(home(xn.load(path, "numpy"))) == NAMES


def test_the_door_asks_for_them(backend):
    theta, x = NET.init(backend=backend), backend.asarray(data(5)[0])
    place = r'^"running_mean" at layer 1 was not handed in: pass buffers=model.buffers, or net.init_buffers\(\) before'
    with pytest.raises(ValueError, match=place):
        NET(theta, x)
    for wrong in ({}, {NAMES[0]: theta}, dict.fromkeys([*NAMES, "2.running_mean"], theta)):
        with pytest.raises(ValueError, match=r"^buffers must hold 1.running_mean, 1.running_var, got "):
            NET(theta, x, buffers=wrong)
    y, _ = NET(theta, x, buffers=NET.init_buffers(backend))
    assert y.shape == (5, 2)
    carried = NET.init_buffers(backend)
    first = dict(carried)
    NET(theta, x, training=True, key=1, buffers=carried)
    assert all(carried[name] is not first[name] for name in NAMES)
    NET(theta, x, training=True, key=1)  # nobody asked for what the batch was like


def test_what_is_read_is_a_copy_and_what_is_assigned_too(backend):
    x, y = data()
    trained = model(backend)
    before = trained.buffers
    held = {name: np.array(backend.asnumpy(array)) for name, array in before.items()}
    trained.fit(x, y, 1, 20)
    for name, array in before.items():
        np.testing.assert_array_equal(backend.asnumpy(array), held[name])
    after = home(trained)
    trained.buffers = before
    trained.fit(x, y, 1, 20)
    np.testing.assert_array_equal(backend.asnumpy(before[NAMES[0]]), held[NAMES[0]])
    assert not np.array_equal(home(trained)[NAMES[0]], after[NAMES[0]])


ASSIGNED = [
    ({}, r"^buffers must hold 1.running_mean, 1.running_var, got nothing$"),
    ({NAMES[0]: np.zeros(6, np.float32)}, r"got 1.running_mean$"),
    (
        {NAMES[0]: np.zeros(5, np.float32), NAMES[1]: np.ones(6, np.float32)},
        r'^buffer "1.running_mean" must be a numpy float32 array \(6,\)$',
    ),
    ({NAMES[0]: np.zeros(6), NAMES[1]: np.ones(6, np.float32)}, r"must be a numpy float32 array"),
    (
        {NAMES[0]: np.zeros(6, np.float32), NAMES[1]: np.full(6, np.nan, np.float32)},
        r'^buffer "1.running_var" must be finite, got NaN or infinity$',
    ),
]


@pytest.mark.parametrize(("buffers", "text"), ASSIGNED, ids=["none", "one", "shape", "precision", "nan"])
def test_what_cannot_be_assigned(buffers, text):
    with pytest.raises((xn.ShapeError, xn.DataError), match=text):
        model("numpy").buffers = buffers


def test_a_network_that_carries_something_else_is_refused():
    bare = xn.Sequential(*NET.layers[:1], xn.LayerNorm(6), *NET.layers[2:])
    with pytest.raises(
        xn.ShapeError, match=r"^the new network has the buffers \{\}, the model's are \{'1.running_mean'"
    ):
        model("numpy").net = bare


def test_another_optimizer_keeps_them(backend):
    x, y = data()
    trained = model(backend)
    trained.fit(x, y, 1, 20)
    before = home(trained)
    trained.optimizer = xn.SGD(0.1)
    for name, value in home(trained).items():
        np.testing.assert_array_equal(value, before[name])


def test_float64_carries_float64(backend):
    trained = xn.Model(NET, xn.cross_entropy, xn.SGD(0.1), backend=backend, dtype="float64")
    x, y = data(20)
    trained.fit(x.astype(np.float64), y, 1, 10)
    assert {array.dtype.name for array in home(trained).values()} == {"float64"}


@pytest.mark.parametrize(("n", "size"), [(21, 20), (41, 10), (5, 1), (1, 4)])
def test_a_batch_of_one_sample_is_refused_before_the_first_step(n, size):
    x, y = data(n)
    trained = model("numpy")
    before = trained.theta
    with pytest.raises(
        xn.DataError, match=r"^BatchNorm\(6\) at layer 1 cannot train on one sample, .*: change batch_size$"
    ):
        trained.fit(x, y, 1, size)
    np.testing.assert_array_equal(trained.theta, before)


def test_a_batch_of_one_image_is_trained_on():
    net = xn.Sequential(xn.Channels(), xn.Conv2d(1, 2, 3), xn.BatchNorm(2), xn.GlobalAvgPool2d())
    x, y = np.random.default_rng(0).normal(size=(5, 6, 6)).astype(np.float32), np.asarray([0, 1, 0, 1, 1])
    trained = model("numpy", net=net)
    assert np.isfinite(trained.fit(x, y, 1, 2)["loss"]).all()


def test_large_means_do_not_cancel(backend):
    """Var 1 about 10,000: E[x²] − μ² would have no digit left in float32."""
    rng = np.random.default_rng(3)
    host = (10_000.0 + rng.normal(size=(256, 3))).astype(np.float32)
    x, layer = backend.asarray(host), xn.BatchNorm(3)
    carried = layer.init_buffers(backend)
    y, _ = layer(layer.init(backend=backend), x, training=True, buffers=carried)
    exact = host.astype(np.float64)
    np.testing.assert_allclose(
        backend.asnumpy(carried["running_var"]), 0.9 + 0.1 * exact.var(axis=0, ddof=1), rtol=1e-3
    )
    expected = (exact - exact.mean(axis=0)) / np.sqrt(exact.var(axis=0) + 1e-5)
    np.testing.assert_allclose(backend.asnumpy(y), expected, rtol=0, atol=5e-3)
