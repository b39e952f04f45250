import numpy as np
import pytest

import xpnet as xn
from xpnet.testing import assert_close

RNG = np.random.default_rng(8)
N = 7
SCORES = RNG.normal(size=(N, 3))
LABELS = RNG.integers(0, 3, N)
SIGNS = np.where(RNG.normal(size=(N, 3)) > 0, 1.0, -1.0)
CASES = {
    xn.cross_entropy: (SCORES, LABELS),
    xn.negative_log_likelihood: (np.exp(SCORES) / np.exp(SCORES).sum(axis=1, keepdims=True), LABELS),
    xn.binary_cross_entropy: (SCORES, (SIGNS + 1) / 2),
    xn.mean_squared_error: (SCORES, RNG.normal(size=(N, 3))),
    xn.mean_absolute_error: (SCORES, RNG.normal(size=(N, 3))),
    xn.huber: (3 * SCORES, RNG.normal(size=(N, 3))),
    xn.hinge: (SCORES, SIGNS),
    xn.perceptron: (SCORES, SIGNS),
}
WEIGHTS = np.asarray([0.0, 1.0, 3.0, 2.0, 0.0, 5.0, 1.0])

losses = pytest.mark.parametrize("loss", CASES, ids=lambda loss: loss.__name__)


def test_every_loss_is_here():
    known = vars(xn.losses)
    public = {known[name] for name in known if getattr(known[name], "__module__", "") == "xpnet.losses"}
    assert {f for f in public if f.__name__[0] != "_"} == set(CASES)


def on(backend, loss, rows=slice(None)):
    prediction, target = CASES[loss]
    return backend.asarray(prediction[rows]), backend.asarray(target[rows])


@losses
def test_a_weight_counts_as_so_many_samples(backend, loss):
    value, gradient = loss(*on(backend, loss), weights=backend.asarray(WEIGHTS))
    rows = np.repeat(np.arange(N), WEIGHTS.astype(int))
    expected, repeated = loss(*on(backend, loss, rows))
    assert_close(backend, value, backend.asnumpy(expected), scale=4.0)
    summed = np.zeros(CASES[loss][0].shape)
    np.add.at(summed, rows, backend.asnumpy(repeated))
    assert_close(backend, gradient, summed, scale=4.0)


@losses
def test_equal_weights_change_nothing_and_only_their_ratios_count(backend, loss):
    plain = loss(*on(backend, loss))
    for size in (1.0, 1e-6, 250.0):
        weighted = loss(*on(backend, loss), weights=backend.asarray(np.full(N, size)))
        for ours, expected in zip(weighted, plain, strict=True):
            assert_close(backend, ours, backend.asnumpy(expected), scale=4.0)


@losses
def test_no_weight_at_all_is_no_loss(backend, loss):
    value, gradient = loss(*on(backend, loss), weights=backend.asarray(np.zeros(N)))
    assert float(backend.asnumpy(value)) == 0.0
    assert not backend.asnumpy(gradient).any()


@losses
def test_the_weights_take_the_precision_of_the_prediction(backend, loss):
    prediction, target = CASES[loss]
    prediction = backend.asarray(prediction, dtype="float32")
    value, gradient = loss(prediction, backend.asarray(target), weights=backend.asarray(WEIGHTS))
    assert value.dtype == gradient.dtype == prediction.dtype
    assert value.ndim == 0


@losses
def test_weights_of_a_wrong_shape(backend, loss):
    with pytest.raises(xn.ShapeError, match=r"expected weights \(7,\), one a sample, got \(7, 1\)"):
        loss(*on(backend, loss), weights=backend.asarray(WEIGHTS[:, None]))
