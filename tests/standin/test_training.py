"""Training by the real CuPy on the stand-in: NumPy's numbers, and the same bits in whatever order streams work."""

import threading
import warnings
from contextlib import nullcontext
from functools import cache, partial

import numpy as np
import pytest

import standin
import xpnet as xn
from standin import scenarios
from xpnet.backends.cuda import dense
from xpnet.data import stream
from xpnet.training.step import Step

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def no_refused_graph():
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


@cache
def of_numpy(name, dtype):
    return scenarios.ALL[name](xn.backend("numpy"), dtype)


@cache
def lazily(name, dtype):
    with standin.order("lazy"):
        return scenarios.ALL[name](xn.backend("cupy"), dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", scenarios.ALL)
def test_numpys_numbers(name, dtype):
    tolerance = {"float32": 2e-5, "float64": 1e-12}[dtype]
    for found, expected in zip(lazily(name, dtype), of_numpy(name, dtype), strict=True):
        scale = float(np.max(np.abs(expected))) or 1.0
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


ORDERS = ["eager", "others", *(f"random {seed}" for seed in range(20))]


@pytest.mark.parametrize(
    ("name", "order"),
    [(name, order) for name in scenarios.ALL for order in ORDERS[: scenarios.FEW.get(name)]],
)
def test_the_order_of_work_changes_no_bit(name, order):
    kind, _, seed = order.partition(" ")
    with standin.order(kind, int(seed or 0)):
        found = scenarios.ALL[name](xn.backend("cupy"), "float32")
    for one, other in zip(found, lazily(name, "float32"), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def large(monkeypatch):
    """No product is small: cuBLASLt computes them all."""
    monkeypatch.setattr(dense, "SMALL", 0)


@pytest.mark.parametrize("lacks", ["none", "4", "6", "256", "4,6,256"])
def test_epilogues_that_have_no_algorithm(lacks, large, monkeypatch):
    monkeypatch.setenv("STANDIN_LT_LACKS", lacks)
    backend = xn.backend("cupy").with_matmul("float32")
    results = zip(scenarios.two_models(backend, "float32"), of_numpy("two models", "float32"), strict=True)
    for found, expected in results:
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * float(np.max(np.abs(expected))))


@pytest.mark.filterwarnings("ignore:column 0 of x reaches")
@pytest.mark.parametrize("kept", [True, False])
def test_nan_in_a_hidden_layer(kept, large, monkeypatch):
    """What ReLU's epilogue makes of NaN no header says: kept, as by an H200, training ends; dropped, θ stays finite."""
    monkeypatch.setenv("STANDIN_LT_NAN", "keep" if kept else "drop")
    net = xn.Sequential(xn.Linear(2, 12), xn.ReLU(), xn.Linear(12, 5))
    model = xn.Model(net, xn.cross_entropy, xn.SGD(0.1), backend="cupy")
    theta = np.zeros(model.theta.size, "float32")
    theta[[0, 12]] = 2, -2  # the first unit: ∞ - ∞
    model.theta = model.backend.asarray(theta)
    with pytest.raises(xn.NonFiniteError) if kept else nullcontext():
        model.fit(np.full((16, 2), 3e38, "float32"), np.zeros(16, "int32"), epochs=3, batch_size=8)
    assert np.isfinite(scenarios.home(model)).all()


def test_two_threads_train_on_one_backend():
    backend, results = xn.backend("cupy"), {}

    def work(k):
        with standin.order("random", k):
            results[k] = scenarios.dropout(backend, "float32")

    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in range(2):
        for one, other in zip(results[k], lazily("dropout", "float32"), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("order", ["backwards", "1", "2"])
@pytest.mark.parametrize("name", ["dropout", "two models"])
def test_the_order_of_blocks_changes_no_bit(name, order, monkeypatch):
    expected = lazily(name, "float32")
    monkeypatch.setenv("STANDIN_BLOCKS", order)
    found = scenarios.ALL[name](xn.backend("cupy"), "float32")
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_step_is_eight_nodes():
    net = xn.Sequential(xn.Scale(1 / 255), xn.Linear(6, 16), xn.ReLU(), xn.Linear(16, 5))
    model = xn.Model(net, xn.cross_entropy, xn.Adam(), backend="cupy")
    x, y = scenarios.bytes_and_labels()
    model.fit(x, y, epochs=4, batch_size=8)
    assert model.step.run.nodes_per_step == pytest.approx(8, abs=0.5)


def test_a_step_of_a_convolutional_network_is_sixty_nodes():
    """Twenty of them BatchNorm's: two rounds for each of three sums, two maps, what is carried and gated."""
    first = xn.Channels(), xn.Conv2d(1, 8, 3, padding=1, bias=False), xn.BatchNorm(8), xn.ReLU(), xn.MaxPool2d(2)
    rest = xn.Conv2d(8, 8, 3), xn.ReLU(), xn.Flatten(), xn.Dropout(0.2), xn.Linear(32, 5)
    model = xn.Model(xn.Sequential(xn.Scale(1 / 255), *first, *rest), xn.cross_entropy, xn.Adam(), backend="cupy")
    x, y = scenarios.bytes_and_labels(32, 72)
    model.fit(x.reshape(-1, 9, 8), y, epochs=3, batch_size=16)
    assert model.step.run.nodes_per_step == pytest.approx(60, abs=1)


def test_a_loss_with_class_weights_is_captured():
    """They are made once, before the capture, in which nothing can be waited for."""
    x, y = scenarios.bytes_and_labels()
    loss = partial(xn.cross_entropy, class_weight=[1.0, 2.0, 0.5, 1.0, 3.0], ignore_index=4, label_smoothing=0.1)
    net = xn.Sequential(xn.Scale(1 / 255), xn.Linear(6, 5))
    models = [xn.Model(net, loss, xn.SGD(0.1), backend=backend) for backend in ("cupy", "numpy")]
    for model in models:
        model.fit(x, y, epochs=4, batch_size=16)
    assert models[0].step.run.nodes_per_step is not None
    np.testing.assert_allclose(*map(scenarios.home, models), rtol=0, atol=1e-5)


def test_blocks_of_a_source_lie_in_one_place_and_keep_the_graph(monkeypatch):
    seen, many = [], Step.many

    def noting(self, state, parts, block, *meanwhile):
        if len(block) > 1:
            seen.append([part.data.ptr for part in parts])
        return many(self, state, parts, block, *meanwhile)

    monkeypatch.setattr(Step, "many", noting)
    monkeypatch.setattr(stream, "BYTES", 32 * 10)
    x, y = scenarios.bytes_and_labels(160)
    net = xn.Sequential(xn.Scale(1 / 255), xn.Linear(6, 5))
    models = [xn.Model(net, xn.cross_entropy, xn.SGD(0.1), backend=backend) for backend in ("cupy", "numpy")]
    models[0].fit(xn.Rows(x, y), epochs=1, batch_size=16)
    monkeypatch.setattr(Step, "many", many)
    assert len(seen) == 5
    assert all(place == seen[0] for place in seen)
    assert len(models[0].step.run.graphs) == 1
    models[1].fit(x, y, epochs=1, batch_size=16)
    np.testing.assert_allclose(*map(scenarios.home, models), rtol=0, atol=1e-5)
