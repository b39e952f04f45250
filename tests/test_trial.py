"""Whether the parts of a model fit: last layer, loss, metrics; and losses and metrics of one's own, tried once."""

import functools
import warnings
from dataclasses import dataclass

import numpy as np
import pytest

import xpnet as xn
from xpnet.arrays import namespace
from xpnet.errors import DataError, DataWarning
from xpnet.layers import Layer
from xpnet.training.feeding import Feeding
from xpnet.training.trial import check_parts, fitting_metrics, try_parts

X = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")


@dataclass(frozen=True)
class Mine(Layer):
    """A last layer of one's own."""

    def forward(self, params, x, ctx):
        return x, lambda dy, need_dx=True, out=(): (dy, ())


def ending_in(*layers):
    return xn.Sequential(xn.Linear(4, 3), xn.Sequential(*layers))


# The last layer and the loss


@pytest.mark.parametrize(
    ("loss", "layer", "text"),
    [
        (
            xn.cross_entropy,
            xn.Softmax(),
            "cross_entropy takes scores, but the network ends in Softmax: drop it, or use negative_log_likelihood",
        ),
        (xn.cross_entropy, xn.Sigmoid(), "cross_entropy takes scores, but the network ends in Sigmoid: drop it"),
        (
            xn.binary_cross_entropy,
            xn.Sigmoid(),
            "binary_cross_entropy takes scores, but the network ends in Sigmoid: drop it",
        ),
        (xn.hinge, xn.Sigmoid(), "hinge takes scores, but the network ends in Sigmoid: drop it"),
        (
            functools.partial(xn.hinge, margin=0.5),
            xn.Softmax(),
            "hinge takes scores, but the network ends in Softmax: drop it",
        ),
        (xn.perceptron, xn.Softmax(), "perceptron takes scores, but the network ends in Softmax: drop it"),
        (
            xn.negative_log_likelihood,
            xn.Linear(3, 3),
            "negative_log_likelihood takes probabilities that add up to 1, but the network ends in Linear: "
            "put Softmax() at its end, or use cross_entropy on scores",
        ),
        (
            xn.negative_log_likelihood,
            xn.Residual(xn.Softmax()),
            "negative_log_likelihood takes probabilities that add up to 1, but the network ends in Residual: "
            "put Softmax() at its end, or use cross_entropy on scores",
        ),
    ],
)
def test_a_loss_that_does_not_fit_the_last_layer(loss, layer, text):
    with pytest.warns(DataWarning) as record:
        check_parts(ending_in(layer), loss)
    assert [(str(w.message), w.filename) for w in record] == [(text, __file__)]


@pytest.mark.parametrize(
    ("loss", "layer"),
    [
        (xn.cross_entropy, xn.Linear(3, 3)),
        (xn.cross_entropy, xn.Tanh()),
        (xn.cross_entropy, Mine()),
        (xn.binary_cross_entropy, xn.Linear(3, 1)),
        (xn.negative_log_likelihood, xn.Softmax()),
        (xn.negative_log_likelihood, Mine()),
        (xn.mean_squared_error, xn.Sigmoid()),
        (xn.hinge, xn.Tanh()),
        (lambda p, t: None, xn.Softmax()),
    ],
)
def test_parts_that_fit_are_not_warned_of(loss, layer):
    check_parts(ending_in(layer), loss)
    check_parts(xn.Sequential(), xn.cross_entropy)


def test_classes_begin_at_one_half_after_sigmoid():
    def own(prediction, target):
        return prediction

    chosen = {"accuracy": xn.metrics.accuracy, "zero_one": xn.metrics.zero_one, "r2": xn.metrics.r2, "own": own}
    assert fitting_metrics(ending_in(xn.Tanh()), chosen) == chosen
    fitted = fitting_metrics(ending_in(xn.Sigmoid()), chosen)
    assert list(fitted) == list(chosen)
    assert (fitted["r2"], fitted["own"]) == (xn.metrics.r2, own)
    for name in ("accuracy", "zero_one"):
        assert fitted[name].func is chosen[name]
        assert fitted[name].keywords == {"threshold": 0.5}
    assert not isinstance(chosen["accuracy"], functools.partial)


# Losses and metrics of one's own


def squared(prediction, target):
    xp = namespace(prediction=prediction)
    error = prediction - xp.astype(target, prediction.dtype)
    return xp.mean(error * error), 2 * error / (error.shape[0] * error.shape[1])


def value_alone(prediction, target):
    return squared(prediction, target)[0]


def three(prediction, target):
    return (*squared(prediction, target), None)


def sample_by_sample(prediction, target):
    gradient = squared(prediction, target)[1]
    return gradient[:, 0], gradient


def plain_number(prediction, target):
    return 0.5, squared(prediction, target)[1]


def sum_of_gradient(prediction, target):
    value, gradient = squared(prediction, target)
    return value, namespace(p=prediction).sum(gradient, axis=1)


def broken(prediction, target):
    raise KeyError("beta\nand more")


def tried(backend, loss=xn.mean_squared_error, metrics=None, y=X[:, :1], outputs=1, n=6):
    """Try the functions; return the one line they are refused with."""
    x, y = backend.asarray(X[:n]), backend.asarray(y[:n])
    with pytest.raises(DataError) as caught:
        try_parts(xn.Linear(4, outputs), loss, metrics or {}, (x, y), backend, "float32")
    assert "\n" not in str(caught.value)
    return str(caught.value)


SHAPES = "the prediction has (2, 1), the target (2, 1)"


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (
            value_alone,
            "the loss value_alone must return (value, gradient), got an array of the shape (): "
            "return the gradient with respect to the prediction too, and nothing else",
        ),
        (
            three,
            "the loss three must return (value, gradient), got 3 things: "
            "return the gradient with respect to the prediction too, and nothing else",
        ),
        (
            sample_by_sample,
            "the loss sample_by_sample must return (value, gradient), the value a 0-d array, "
            "got an array of the shape (2,): return the mean",
        ),
        (
            plain_number,
            "the loss plain_number must return (value, gradient), the value a 0-d array, got a float: "
            "drop float(...) and .item()",
        ),
        (
            sum_of_gradient,
            "the loss sum_of_gradient must return (value, gradient), the gradient like the prediction, got an array of "
            f"the shape (2,); {SHAPES}: it is the derivative of the value by each number of the prediction",
        ),
        (broken, "the loss broken, tried on a prediction (2, 1) and a target (2, 1), raised KeyError: 'beta"),
    ],
)
def test_a_loss_of_ones_own_that_misbehaves(backend, loss, message):
    came = tried(backend, loss)
    assert came.startswith(message) if loss is broken else came == message
    assert tried(backend, loss, n=1) == came


def test_targets_without_the_axis_of_the_output(backend):
    message = (
        "the loss squared must return (value, gradient), the gradient like the prediction, got an array of the shape "
        "(2, 2); the prediction has (2, 1), the target (2,): give y the axis that it lacks, y.reshape(-1, 1)"
    )
    assert tried(backend, squared, y=X[:, 0]) == message
    assert tried(backend, squared, y=X[:, 0], n=1) == message
    for outputs, shapes in ((2, "a prediction (3, 2) and a target (3,)"), (3, "a prediction (2, 3) and a target (2,)")):
        came = tried(backend, squared, y=X[:, 0], outputs=outputs)
        assert came.startswith(f"the loss squared, tried on {shapes}, raised ")


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (lambda p, t: 0.5, "got a float: drop float(...) and .item()"),
        (lambda p, t: p[:, 0], "got an array of the shape (2,): return a mean over all axes"),
        (lambda p, t: None, "got a NoneType: drop float(...) and .item()"),
    ],
)
def test_a_metric_of_ones_own_that_misbehaves(backend, metric, message):
    must = "the metric m must return a 0-d array of the prediction's library"
    assert tried(backend, metrics={"m": metric}) == f"{must}, {message}"


def test_a_metric_that_raises_is_named(backend):
    start = "the metric m, tried on a prediction (2, 1) and a target (2, 1), raised "
    assert tried(backend, metrics={"m": broken}).startswith(f"{start}KeyError: 'beta")
    if backend.name == "jax":
        assert tried(backend, metrics={"m": lambda p, t: float(p[0, 0])}).startswith(f"{start}ConcretizationTypeError")


def test_what_behaves_is_called_once_and_changes_nothing(backend):
    seen = []

    def loss(prediction, target):
        seen.append((tuple(prediction.shape), str(prediction.dtype).rpartition(".")[2], tuple(target.shape)))
        return squared(prediction, target)

    def metric(prediction, target):
        return namespace(p=prediction).max(prediction)

    x, y = backend.asarray(X), backend.asarray(X[:, :2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try_parts(xn.Linear(4, 2), loss, {"m": metric}, (x, y), backend, "float64")
        try_parts(xn.Linear(4, 1), loss, {"m": metric, "r2": xn.metrics.r2}, (x, y[:, :1]), backend, "float32")
    assert seen == [((3, 2), "float64", (3, 2)), ((2, 1), "float32", (2, 1))]
    assert np.array_equal(backend.asnumpy(y), X[:, :2])


def test_numpy_scalars_are_values_on_numpy():
    backend = xn.backend("numpy")
    for kind in (np.float32, np.float64):
        try_parts(
            xn.Linear(4, 1),
            lambda p, t, kind=kind: (kind(0.5), squared(p, t)[1]),
            {"m": lambda p, t, kind=kind: kind(0.5)},
            (X, X[:, :1]),
            backend,
            "float32",
        )


def test_logarithms_of_zero_and_errors_that_numpy_is_set_to_raise():
    def entropy(prediction, target):
        return np.mean(target * np.log(prediction - 0.5)), target / (prediction - 0.5)

    with np.errstate(all="raise"):
        try_parts(xn.Linear(4, 1), entropy, {}, (X, X[:, :1]), xn.backend("numpy"), "float32")


def test_functions_of_xpnet_are_not_called(backend, monkeypatch):
    monkeypatch.setattr(type(backend), "abstractly", lambda *_: pytest.fail("tried"))
    x, y = backend.asarray(X), backend.asarray(np.zeros(6, "int32"))
    try_parts(xn.Linear(4, 3), xn.cross_entropy, {"accuracy": xn.metrics.accuracy}, (x, y), backend, "float32")


def test_jax_compiles_nothing():
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    backend, compiled = xn.backend("jax"), []
    x, y = backend.asarray(X), backend.asarray(X[:, :1])
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: compiled.append(name))
    try:
        try_parts(xn.Linear(4, 1), squared, {"m": lambda p, t: p[0, 0]}, (x, y), backend, "float32")
        assert not [name for name in compiled if "backend_compile" in name]
        jax.jit(lambda x: x * 3.25)(x)
        assert [name for name in compiled if "backend_compile" in name], "the listener hears compilations"
    finally:
        jax.monitoring.clear_event_listeners()


# In a model


def probabilities(rng, n=400):
    x = rng.normal(size=(n, 3)).astype("float32")
    return x, (x[:, 0] > 0).astype("float32")


def test_accuracy_of_a_sigmoid_counts_from_one_half(backend, rng):
    x, y = probabilities(rng)
    net = xn.Sequential(xn.Linear(3, 8), xn.Tanh(), xn.Linear(8, 1), xn.Sigmoid())
    model = xn.Model(net, xn.mean_squared_error, xn.Adam(0.05), backend=backend, metrics=["accuracy", "zero_one"])
    history = model.fit(x, y, epochs=8, batch_size=40, validation=0.25)
    assert history["accuracy"][-1] > 0.9
    assert history["val_accuracy"][-1] > 0.9
    scores = model.evaluate(x, y)
    assert scores["accuracy"] == pytest.approx(np.mean((model.predict(x)[:, 0] > 0.5) == (y > 0.5)), abs=1e-6)
    assert scores["zero_one"] == pytest.approx(1 - scores["accuracy"], abs=1e-6)


def test_r2_of_an_epoch_is_that_of_all_its_samples(backend, rng):
    """Where θ stands still, the mean over batches, evaluation in parts and NumPy agree."""
    x = rng.normal(size=(90, 3)).astype("float32")
    y = (x @ np.asarray([[1.0, 0.2], [0.5, 0.0], [0.0, 3.0]]) + 5.0).astype("float32")
    model = xn.Model(xn.Linear(3, 2), xn.mean_squared_error, xn.SGD(0.0), backend=backend, metrics=["r2"])
    p = np.asarray(model.predict(x), dtype=float)
    expected = np.mean(1 - np.sum((p - y) ** 2, axis=0) / np.sum((y - y.mean(axis=0)) ** 2, axis=0))
    history = model.fit(x, y, batch_size=4, validation=(x, y))
    assert history["r2"] == pytest.approx([expected], rel=1e-5)
    assert history["val_r2"] == pytest.approx([expected], rel=1e-5)
    assert model.evaluate(x, y, batch_size=7)["r2"] == pytest.approx(expected, rel=1e-5)
    assert model.evaluate(x[:30], y[:30])["r2"] != pytest.approx(expected, rel=1e-3)


def test_the_same_targets_are_compiled_for_once(rng):
    x, y = probabilities(rng, 40)
    model = xn.Model(xn.Linear(3, 1), xn.mean_squared_error, xn.SGD(0.01), backend="numpy", metrics=["r2"])
    first = model.step.on(Feeding(model.step).samples(x, y))
    assert model.step.on(Feeding(model.step).samples(x, y)) is first
    assert model.step.on(Feeding(model.step).samples(x, 2 * y)) is not first


def test_a_metric_of_ones_own_sees_all_predictions(backend, rng):
    x, y = probabilities(rng, 50)
    seen = []

    def span(prediction, target):
        seen.append(prediction.shape[0])
        return backend.xp.max(prediction) - backend.xp.min(prediction)

    model = xn.Model(xn.Linear(3, 1), xn.mean_squared_error, xn.SGD(0.01), backend=backend, metrics=[span])
    found = model.evaluate(x, y, batch_size=8)["span"]
    assert found == pytest.approx(np.ptp(model.predict(x)), rel=1e-5)
    assert seen[-1] == 50
