"""A search for a learning rate: it finds one that trains, says why it cannot, and leaves the model as it is."""

import re

import numpy as np
import pytest

import xpnet as xn
from xpnet.rate_finder import Rise, smoothed

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3)).astype("float32")
Y = (X[:, 0] + X[:, 1] > 0).astype("int32")
NET = xn.Sequential(xn.Linear(3, 8), xn.BatchNorm(8), xn.Tanh(), xn.Dropout(0.1), xn.Linear(8, 2))


def classifier(backend="numpy", optimizer=None, **how):
    return xn.Model(NET, xn.cross_entropy, optimizer or xn.Adam(1e-3), backend=backend, metrics=["accuracy"], **how)


def everything(model):
    """Return all that a model holds, as bytes and numbers."""
    home, state = model.backend.asnumpy, model.state
    vectors = [model.step.flat(vector) for vector in (state.theta, *state.slots)]
    arrays = [home(array).tobytes() for array in (*vectors, *model.buffers.values())]
    return arrays, state.t, state.epoch, model.optimizer, model.metrics


def test_the_model_stays_as_it_is_to_the_last_bit(backend):
    searched, other = classifier(backend), classifier(backend)
    for model in (searched, other):
        model.fit(X, Y, epochs=1, batch_size=16, progress=False)
    found = xn.find_rate(searched, X, Y, batch_size=16, steps=20)
    assert everything(searched) == everything(other)
    assert len(found.rates) == len(found.losses) == len(found.smoothed) <= 20


def test_every_backend_finds_the_same(backend):
    host, other = (xn.find_rate(classifier(one), X, Y, batch_size=16, steps=20) for one in ("numpy", backend))
    count = min(len(host.losses), len(other.losses)) - 2  # where the loss blows up, so do the roundings
    np.testing.assert_allclose(other.losses[:count], host.losses[:count], rtol=1e-3)
    assert host.rates[0] == other.rates[0] == 1e-6


def test_the_first_steps_are_those_of_training_at_these_rates():
    model, other = classifier(optimizer=xn.SGD(0.5)), classifier(optimizer=xn.SGD(Rise(1e-3, 10.0, 12)))
    losses = []

    class Each(xn.Callback):
        def on_step_end(self, model, numbers):
            losses.append(numbers["loss"])

    other.fit(X, Y, epochs=2, batch_size=10, callbacks=[Each()], progress=False)
    found = xn.find_rate(model, X, Y, lowest=1e-3, steps=12, batch_size=10)
    assert np.mean(found.losses[:6]) == pytest.approx(losses[0])
    np.testing.assert_allclose(found.rates, np.geomspace(1e-3, 10.0, 12)[: len(found.rates)])


def test_the_rate_that_is_found_trains():
    images, labels = (part[:6000] for part in xn.datasets.mnist()[0])
    net = xn.Sequential(xn.Flatten(), xn.Scale(1 / 255), xn.Linear(784, 32), xn.ReLU(), xn.Linear(32, 10))
    for optimizer, low, high in ((xn.Adam(9.0), 3e-4, 1e-2), (xn.SGD(9.0, momentum=0.9), 3e-3, 0.1)):
        model = xn.Model(net, xn.cross_entropy, optimizer, backend="numpy")
        found = xn.find_rate(model, images, labels)
        assert low < found.best < high
        assert found.best == pytest.approx(found.rates[np.argmin(found.smoothed)] / 10, rel=1e-12)
        model.adjust(lr=found.best)
        assert model.fit(images, labels, 2, 64, progress=False)["loss"][-1] < 0.8


def test_sources_weights_and_batches_are_those_of_fit():
    loader = [(X[k : k + 10], Y[k : k + 10]) for k in range(0, 60, 10)]
    weights = np.ones(60)
    plain, weighed = (xn.find_rate(classifier(), X, Y, sample_weight=w, batch_size=16) for w in (None, weights))
    source, batches = (xn.find_rate(classifier(), data, batch_size=16) for data in (xn.Rows(X, Y), loader))
    np.testing.assert_allclose(weighed.losses, plain.losses, rtol=1e-4)
    np.testing.assert_array_equal(source.losses, plain.losses)
    assert len(batches.losses) > 50


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"lowest": 0.0}, ValueError, "find_rate: lowest must be a number above 0.0, got 0.0"),
        ({"lowest": 1.0, "highest": 0.1}, ValueError, "find_rate: highest must be a number above 1.0, got 0.1"),
        ({"steps": 5}, ValueError, "find_rate: steps must be an integer of at least 10, got 5"),
        ({"batch_size": 0}, xn.DataError, "batch_size must be an integer of at least 1, got 0"),
        (
            {"lowest": 1e6, "highest": 1e9},
            xn.DataError,
            "find_rate: the loss grows beyond all bounds after 3 of 100 steps: pass a smaller lowest=",
        ),
    ],
)
def test_what_cannot_be_is_said(settings, error, text):
    model = xn.Model(xn.Linear(3, 1), xn.mean_squared_error, xn.SGD(0.1), backend="numpy")
    with pytest.raises(error, match=f"^{re.escape(text)}$"):
        xn.find_rate(model, X, X[:, :1] + 1, **settings)


def test_a_loss_that_only_grows_has_no_best_rate():
    model = xn.Model(xn.Linear(3, 1), xn.mean_squared_error, xn.SGD(0.1), backend="numpy")
    model.theta = model.theta * 0
    text = "find_rate: the loss is never less than at the rate 0.1, the lowest: pass a smaller lowest="
    with pytest.raises(xn.DataError, match=f"^{re.escape(text)}$"):
        xn.find_rate(model, X, np.zeros((60, 1)) * X[:, :1], lowest=0.1, batch_size=60)


def test_a_mean_of_neighbours():
    values = np.asarray([4.0, 2.0, 3.0, 7.0])
    np.testing.assert_allclose(smoothed(values, 1), [3.0, 3.0, 4.0, 5.0])
    np.testing.assert_allclose(smoothed(values, 0), values)


def test_a_search_has_a_picture():
    pytest.importorskip("matplotlib", reason="matplotlib is not installed").use("Agg")
    import matplotlib.pyplot as plt

    found = xn.find_rate(classifier(), X, Y, batch_size=16)
    ax = xn.plot.rates(found)
    assert ax.get_xscale() == "log"
    raw, smooth, best = ax.lines
    np.testing.assert_array_equal(raw.get_xydata(), np.column_stack([found.rates, found.losses]))
    np.testing.assert_array_equal(smooth.get_ydata(), found.smoothed)
    assert set(best.get_xdata()) == {found.best}
    assert [text.get_text() for text in ax.get_legend().get_texts()][-1] == f"best: {found.best:.2g}"
    plt.close(ax.figure)
    with pytest.raises(TypeError, match=r"^expected what xn.find_rate returned, got list$"):
        xn.plot.rates([1, 2])
