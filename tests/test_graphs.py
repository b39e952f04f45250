"""Layers side by side, one layer in several places, several inputs."""

import numpy as np
import pytest

import xpnet as xn
from xpnet.testing import assert_close, check_layer, gradcheck

TOWER = xn.Sequential(xn.Linear(3, 4), xn.Tanh())


def product(xp, *ys):
    """y = y₁ y₂"""
    one, two = ys
    return one * two, lambda dy: (dy * two, dy * one)


def unet():
    inner = xn.Sequential(xn.AvgPool2d(2), xn.Conv2d(2, 3, 3, padding=1), xn.Tanh(), xn.Upsample(2))
    around = xn.Parallel(xn.Sequential(), inner, join="concat")
    return xn.Sequential(xn.Conv2d(1, 2, 3, padding=1), xn.Tanh(), around, xn.Conv2d(5, 1, 1))


NETS = {
    "sum": (xn.Parallel(xn.Linear(3, 2), xn.Sequential(xn.Linear(3, 2), xn.Tanh())), (3, 3)),
    "shortcut": (xn.Parallel(xn.Sequential(), xn.Linear(3, 3)), (3, 3)),
    "side by side": (xn.Parallel(xn.Sequential(), xn.Linear(3, 2), join="concat"), (3, 3)),
    "product": (xn.Parallel(xn.Linear(3, 2), xn.Linear(3, 2), join=product), (3, 3)),
    "projection": (xn.Parallel(xn.Conv2d(1, 2, 1), xn.Conv2d(1, 2, 3, padding=1)), (2, 3, 3, 1)),
    "u-net": (unet(), (1, 4, 4, 1)),
    "inception": (xn.Parallel(xn.Conv2d(2, 1, 1), xn.MaxPool2d(3, 1, 1), join="concat"), (1, 3, 3, 2)),
    "two inputs": (xn.Parallel(xn.Linear(3, 2), xn.Linear(4, 3), join="concat"), ((3, 3), (3, 4))),
    "two towers": (
        xn.Sequential(xn.Parallel(xn.Shared("tower", TOWER), xn.Shared("tower", TOWER), join=product), xn.Linear(4, 1)),
        ((3, 3), (3, 3)),
    ),
    "one layer twice": (
        xn.Sequential(xn.Shared("f", xn.Linear(3, 3)), xn.Tanh(), xn.Shared("f", xn.Linear(3, 3))),
        (3, 3),
    ),
    "nested": (xn.Residual(xn.Parallel(xn.Linear(2, 2), xn.Residual(xn.Linear(2, 2), xn.Tanh()))), (3, 2)),
}


@pytest.mark.parametrize("name", NETS)
def test_the_contract(backend, name):
    net, shape = NETS[name]
    check = gradcheck if backend.name == "jax" else check_layer  # JAX compiles each operation for each shape
    assert check(net, shape, backend=backend) < 1e-9


def test_the_two_towers_have_one_set_of_parameters(backend):
    net, _ = NETS["two towers"]
    assert net.size == 3 * 4 + 4 + 4 + 1
    assert list(net.windows(net.init(backend=backend))) == ["0.0.0.weight", "0.0.0.bias", "1.weight", "1.bias"]
    assert net.summary(((None, 3), (None, 3))).splitlines()[-1].strip() == "21"


def test_a_shared_layer_is_the_layer_applied_twice(backend):
    net = NETS["one layer twice"][0]
    apart = xn.Sequential(xn.Linear(3, 3), xn.Tanh(), xn.Linear(3, 3))
    theta = net.init(3, backend)
    x = backend.asarray(np.random.default_rng(0).normal(size=(5, 3)), dtype="float32")
    y, backward = net(theta, x)
    both, backward_both = apart(backend.xp.concat([theta, theta]), x)
    assert_close(backend, y, backend.asnumpy(both))
    gradients = backend.asnumpy(backward_both(both))
    assert_close(backend, backward(y), gradients[:12] + gradients[12:], multiple=64)


def test_a_gradient_of_one_place_alone_is_caught():
    """Were the second place's gradient forgotten, differences would tell."""
    net, shape = NETS["one layer twice"]

    class Forgetful(type(net.ties)):
        def added(self, gradients):
            return gradients[:2]

    object.__setattr__(net, "ties", Forgetful(net.ties.places))
    try:
        with pytest.raises(AssertionError, match=r"by central differences"):
            gradcheck(net, shape, backend="numpy")
    finally:
        del net.__dict__["ties"]


def pairs(n=120):
    rng = np.random.default_rng(1)
    one, two = rng.normal(size=(2, n, 3)).astype(np.float32)
    return (one, two), (np.sum(one * two, axis=1) > 0).astype(int)


def model(backend, **settings):
    net = xn.Sequential(*NETS["two towers"][0].layers[:-1], xn.Linear(4, 2))
    return xn.Model(net, xn.cross_entropy, xn.AdamW(0.02), backend=backend, metrics=["accuracy"], **settings)


def test_two_inputs_are_trained_on_evaluated_and_predicted(backend):
    x, y = pairs()
    here = model(backend)
    history = here.fit(x, y, 4, 25, validation=0.2)
    assert history["loss"][-1] < history["loss"][0]
    assert len(history["val_accuracy"]) == 4
    there = model(xn.backend("numpy"))
    there.fit(x, y, 4, 25, validation=0.2)
    np.testing.assert_allclose(backend.asnumpy(here.theta), there.theta, rtol=0, atol=2e-5)
    assert here.predict(x).shape == (120, 2)
    assert type(here.predict(x)) is np.ndarray
    placed = tuple(map(backend.asarray, x))
    assert backend.owns(here.predict(placed, batch_size=50))
    np.testing.assert_allclose(here.predict(x), backend.asnumpy(here.predict(placed, batch_size=50)), atol=1e-5)
    assert here.evaluate(x, y)["accuracy"] == pytest.approx(
        float(np.mean(here.predict(x).argmax(axis=1) == y)), abs=1e-6
    )


def test_a_run_on_two_inputs_resumes_to_the_same_bits(tmp_path):
    x, y = pairs()

    class Stop(xn.Callback):
        def on_epoch_end(self, model, history):
            raise KeyError

    whole, cut = model("numpy"), model("numpy")
    whole.fit(x, y, 3, 25)
    with pytest.raises(KeyError):
        cut.fit(x, y, 3, 25, callbacks=[Stop()], checkpoint=tmp_path / "run.xn", every=1)
    again = xn.load(tmp_path / "run.xn", "numpy", custom=[product])
    with pytest.raises(xn.DataError, match=r"^the data are not those that this run was trained on"):
        again.resume((x[0], x[0]), y)
    again.resume(x, y)
    np.testing.assert_array_equal(again.theta, whole.theta)


@pytest.mark.parametrize("name", [name for name in NETS if name != "product" and name != "two towers"])
def test_networks_come_back_from_a_file(name, tmp_path):
    net = NETS[name][0]
    made = xn.Model(net, xn.mean_squared_error, xn.SGD(0.1), backend="numpy")
    made.save(tmp_path / "net.xn")
    assert xn.load(tmp_path / "net.xn", "numpy").net == net


def test_a_joining_function_is_handed_in_when_a_file_is_read(tmp_path):
    made = model("numpy")
    made.save(tmp_path / "net.xn")
    again = xn.load(tmp_path / "net.xn", "numpy", custom=[product])
    np.testing.assert_array_equal(again.predict(pairs()[0]), made.predict(pairs()[0]))


LAST_AXIS = "expects layers that give shapes that differ in the last axis alone, got"
FAULTS = [
    (lambda: xn.Parallel(), ValueError, "Parallel expects at least one layer"),
    (lambda: xn.Parallel(xn.Tanh(), join="stack"), ValueError, 'join must be "add", "concat" or a function, got \'st'),
    (lambda: xn.Parallel(xn.Tanh, xn.Tanh()), TypeError, r"Parallel expects layers, got .* at position 0, an instance"),
    (lambda: xn.Shared(xn.Tanh(), "f"), TypeError, r'Shared expects a name and a layer, Shared\("tower", f\)'),
    (
        lambda: xn.Parallel(xn.Linear(3, 2), xn.Linear(3, 4)).output_shape((5, 3)),
        xn.ShapeError,
        r"^Parallel expects layers that give one shape to add, got \(5, 2\), \(5, 4\)$",
    ),
    (lambda: xn.Parallel(xn.Flatten(), xn.Tanh(), join="concat").output_shape((5, 3, 2)), xn.ShapeError, LAST_AXIS),
    (
        lambda: xn.Sequential(xn.Tanh(), xn.Parallel(xn.Tanh(), xn.Linear(4, 2))).output_shape((5, 3)),
        xn.ShapeError,
        r"^Linear\(4→2\) at layer 1\.1 expects input \(N, 4\), got \(5, 3\)",
    ),
    (
        lambda: xn.Sequential(xn.Shared("f", xn.Linear(3, 4)), xn.Shared("f", xn.Linear(4, 3))).init(),
        xn.ShapeError,
        r'^"f/weight" is shared by two layers that differ, its shapes are \(3, 4\) and \(4, 3\)$',
    ),
    (lambda: model("numpy").fit((*pairs()[0], pairs()[0][0]), pairs()[1]), xn.ShapeError, "has 2 layers, got 3 inputs"),
    (
        lambda: model("numpy").fit((pairs()[0][0], pairs()[0][1][:7]), pairs()[1]),
        xn.ShapeError,
        r"^x\[1\] has 7 samples, y has 120: they must be as many$",
    ),
    (
        lambda: TOWER(TOWER.init(backend="numpy"), pairs()[0]),
        xn.ShapeError,
        r"^the network reads one array, got 2: begin with Parallel\(…\), a layer for each, or Masked\(…\)$",
    ),
]


@pytest.mark.parametrize(("call", "kind", "text"), FAULTS, ids=[text[:30] for _, _, text in FAULTS])
def test_what_does_not_fit_is_said(call, kind, text):
    with pytest.raises(kind, match=text):
        call()


def test_nan_in_the_second_input_is_named():
    (one, two), y = pairs()
    two[5, 1] = np.nan
    with (
        pytest.warns(xn.DataWarning, match=r"^x\[1\] holds nan at row 5, column 1: clean the data$"),
        pytest.raises(xn.NonFiniteError, match=r"first non-finite value in the input"),
    ):
        model("numpy").fit((one, two), y)
