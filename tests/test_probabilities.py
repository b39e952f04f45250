"""Scores as probabilities: softmax, and what a network's last layer and loss make of its output."""

import re
from functools import partial

import numpy as np
import pytest

import xpnet as xn
from xpnet.testing import assert_close
from xpnet.training.probabilities import probabilities

SCORES = np.asarray([[1.0, -2.0, 0.5], [100.0, 90.0, -3.0], [0.0, 0.0, 0.0]])
INF = np.inf


# xn.softmax


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(3, 3), (9,), (3, 1, 3)], ids=str)
def test_softmax_of_the_last_axis(backend, dtype, shape):
    s = SCORES.reshape(shape)
    exp = np.exp(s - s.max(axis=-1, keepdims=True))
    y = xn.softmax(backend.asarray(s, dtype=dtype))
    assert y.dtype == getattr(backend.xp, dtype)
    assert_close(backend, y, (exp / exp.sum(axis=-1, keepdims=True)).astype(dtype), multiple=8)


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ([INF, 0.0, -INF], [1, 0, 0]),
        ([INF, INF, 3.0], [0.5, 0.5, 0]),
        ([-INF, -INF, 2.0], [0, 0, 1]),
        ([-INF, -INF], [0.5, 0.5]),
        ([1e30, -1e30], [1, 0]),
        ([-80000.0], [1]),
    ],
    ids=str,
)
def test_softmax_at_the_ends_of_the_numbers(backend, row, wanted):
    y = backend.asnumpy(xn.softmax(backend.asarray(np.asarray([row]), dtype="float32")))
    assert y.tolist() == [wanted]


def test_softmax_keeps_a_nan_to_its_row():
    y = xn.softmax(np.asarray([[np.nan, 1.0], [0.0, 0.0]]))
    assert np.isnan(y[0]).all()
    assert y[1].tolist() == [0.5, 0.5]


def test_softmax_of_other_types():
    half = xn.softmax(np.asarray([[2.0**-14, 11.0]], "float16"))
    assert half.dtype == np.float16
    assert half.tolist() == [[float(np.float16(1 / (1 + np.exp(11)))), 1.0]]
    assert xn.softmax(np.asarray([[5, 5], [-3, 250]], "int16")).tolist() == [[0.5, 0.5], [float(np.exp(-253.0)), 1.0]]
    assert xn.softmax(np.zeros((0, 3))).shape == (0, 3)


@pytest.mark.parametrize(
    ("scores", "error", "text"),
    [
        (np.zeros((3, 0)), xn.ShapeError, "softmax expects scores (…, C), got the shape (3, 0)"),
        (np.asarray(1.0), xn.ShapeError, "softmax expects scores (…, C), got the shape ()"),
        ([[1.0, 2.0]], TypeError, "expected arrays of one library, but scores is a list: convert them with"),
        (np.zeros((2, 2), complex), xn.DataError, "expected real numbers, got complex128: convert them with astype"),
    ],
    ids=["no classes", "a number", "a list", "complex"],
)
def test_softmax_of_what_has_none(scores, error, text):
    with pytest.raises(error, match=re.escape(text)):
        xn.softmax(scores)


# Of a network and its loss

LINEAR = xn.Sequential(xn.Linear(2, 3))


def sigma(x):
    return 1 / (1 + np.exp(-x))


OF_CLASSES = {
    "cross_entropy": xn.cross_entropy,
    "smoothed": partial(xn.cross_entropy, label_smoothing=0.1),
    "focal": xn.focal,
    "partial focal": partial(xn.focal, gamma=1.0),
    "kl_divergence": xn.kl_divergence,
}


@pytest.mark.parametrize("loss", OF_CLASSES.values(), ids=OF_CLASSES)
def test_losses_of_classes_take_the_softmax(backend, loss):
    scores = backend.asarray(SCORES)
    assert_close(backend, probabilities(LINEAR, loss, scores), backend.asnumpy(xn.softmax(scores)))


def test_positions_have_probabilities_each():
    scores = np.random.default_rng(0).normal(size=(2, 5, 4))
    y = probabilities(xn.Conv1d(3, 4, 1), xn.cross_entropy, scores)
    assert y.shape == (2, 5, 4)
    assert np.allclose(y.sum(axis=-1), 1)


@pytest.mark.parametrize("shape", [(4, 1), (4,), (2, 2, 1)], ids=str)
def test_one_column_becomes_two(backend, shape):
    s = np.asarray([-60.0, -1.0, 0.0, 60.0]).reshape(shape)
    wanted = np.stack([sigma(-s.reshape(-1)), sigma(s.reshape(-1))], axis=1)
    wanted = wanted.reshape(*shape[: 1 if shape == (4,) else -1], 2)
    y = probabilities(xn.Linear(3, 1), xn.binary_cross_entropy, backend.asarray(s))
    assert_close(backend, y, wanted)
    assert float(backend.asnumpy(y).reshape(-1, 2)[3, 0]) == pytest.approx(
        np.exp(-60.0), rel=1e-9, abs=0
    )  # where 1 − p is 0


def test_several_labels_have_a_probability_each(backend):
    y = probabilities(xn.Linear(2, 3), xn.binary_cross_entropy, backend.asarray(SCORES))
    assert_close(backend, y, sigma(SCORES))


PLAIN = np.asarray([[0.25, 0.75], [1.0, 0.0]])


@pytest.mark.parametrize("loss", [xn.negative_log_likelihood, xn.cross_entropy, xn.mean_squared_error, xn.hinge])
def test_what_ends_in_softmax_is_as_it_is(backend, loss):
    given = backend.asarray(PLAIN)
    assert probabilities(xn.Sequential(xn.Linear(2, 2), xn.Sequential(xn.Softmax())), loss, given) is given


def test_negative_log_likelihood_is_of_probabilities():
    assert probabilities(LINEAR, xn.negative_log_likelihood, PLAIN) is PLAIN


@pytest.mark.parametrize("loss", [xn.binary_cross_entropy, xn.mean_squared_error])
def test_what_ends_in_sigmoid_is_as_it_is_or_two_columns(backend, loss):
    net = xn.Sequential(xn.Linear(2, 2), xn.Sigmoid())
    given = backend.asarray(PLAIN)
    assert probabilities(net, loss, given) is given
    one = probabilities(net, loss, backend.asarray(PLAIN[:, 1:]))
    assert_close(backend, one, PLAIN)


def test_what_ends_in_log_softmax_is_its_exponential(backend):
    def own(prediction, target):
        raise AssertionError

    logs = backend.asarray(np.log(np.asarray([[0.25, 0.75]])))
    net = xn.Sequential(xn.Linear(2, 2), xn.LogSoftmax())
    for loss in (xn.cross_entropy, own):
        assert_close(backend, probabilities(net, loss, logs), np.asarray([[0.25, 0.75]]), multiple=8)


def count_loss(prediction, target):
    raise AssertionError


@pytest.mark.parametrize(
    ("loss", "why"),
    [
        (xn.mean_squared_error, "mean_squared_error fits numbers"),
        (xn.mean_absolute_error, "mean_absolute_error fits numbers"),
        (partial(xn.huber, delta=2.0), "huber fits numbers"),
        (xn.poisson, "poisson fits the logarithm of a count"),
        (xn.hinge, "hinge fits a margin, whose size is no probability"),
        (xn.perceptron, "perceptron fits a margin, whose size is no probability"),
        (count_loss, "count_loss is not one of xpnet's"),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else "",
)
def test_losses_that_say_nothing_of_probabilities(loss, why):
    remedy = "train with cross_entropy or binary_cross_entropy, or end the network in Softmax() or Sigmoid()"
    with pytest.raises(xn.DataError) as caught:
        probabilities(LINEAR, loss, SCORES)
    assert str(caught.value) == f"predict_proba finds no probabilities, the loss {why}: {remedy}"


@pytest.mark.filterwarnings("ignore:max_iter")
def test_as_scikit_learns_estimator():
    sklearn = pytest.importorskip("xpnet.interop.sklearn", reason="scikit-learn is not installed", exc_type=ImportError)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    for y in (x[:, 0] > 0, np.digitize(x[:, 0], [-0.5, 0.5])):
        network = sklearn.MLPClassifier((4,), max_iter=3, tol=1.0, random_state=0, backend="numpy").fit(x, y)
        scores = network.model_.predict(x.astype("float32"))
        loss = xn.binary_cross_entropy if scores.shape[1] == 1 else xn.cross_entropy
        assert np.allclose(probabilities(network.model_.net, loss, scores), network.predict_proba(x), atol=1e-6)
