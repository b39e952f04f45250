import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    xn.focal: (SCORES, LABELS),
    xn.kl_divergence: (SCORES, np.exp(SCORES[::-1]) / np.exp(SCORES[::-1]).sum(axis=1, keepdims=True)),
    xn.poisson: (SCORES, RNG.poisson(2.0, size=(N, 3)).astype(float)),
    xn.hinge: (SCORES, SIGNS),
    xn.perceptron: (SCORES, SIGNS),
}
WEIGHTS = np.asarray([0.0, 1.0, 3.0, 2.0, 0.0, 5.0, 1.0])

losses = pytest.mark.parametrize("loss", CASES, ids=lambda loss: loss.__name__)


def test_every_loss_is_here():
    known = vars(xn.losses)
    public = {known[name] for name in known if getattr(known[name], "__module__", "").startswith("xpnet.losses.")}
    assert public == set(CASES)


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


@losses
@pytest.mark.parametrize("scale", [1e-50, 1e-300, 1e50, 1e300])
def test_weights_of_any_scale_count_by_their_ratios(backend, loss, scale):
    prediction, target = (backend.asarray(a, dtype="float32" if a.dtype == float else None) for a in CASES[loss])
    expected = loss(prediction, target, weights=backend.asarray(WEIGHTS))
    scaled = loss(prediction, target, weights=backend.asarray(WEIGHTS * scale))
    assert expected[0].dtype == scaled[0].dtype == prediction.dtype
    for ours, wanted in zip(scaled, expected, strict=True):
        assert_close(backend, ours, backend.asnumpy(wanted), scale=4.0)


@losses
@pytest.mark.parametrize("dtype", ["uint8", "int64", "bool", "float32"])
def test_weights_of_any_type(backend, loss, dtype):
    weights = WEIGHTS.astype(dtype)
    expected = loss(*on(backend, loss), weights=backend.asarray(weights.astype("float64")))
    for ours, wanted in zip(loss(*on(backend, loss), weights=backend.asarray(weights)), expected, strict=True):
        assert_close(backend, ours, backend.asnumpy(wanted), scale=4.0)


@losses
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_sample_of_weight_0_is_not_there(backend, loss, bad):
    prediction, target = (np.array(a) for a in CASES[loss])
    kept = WEIGHTS > 0
    expected = loss(*on(backend, loss, kept), weights=backend.asarray(WEIGHTS[kept]))
    prediction[~kept] = bad
    target[~kept] = -1 if target.dtype != float else bad
    value, gradient = loss(backend.asarray(prediction), backend.asarray(target), weights=backend.asarray(WEIGHTS))
    assert_close(backend, value, backend.asnumpy(expected[0]), scale=4.0)
    slopes = np.zeros(prediction.shape)
    slopes[kept] = backend.asnumpy(expected[1])
    assert_close(backend, gradient, slopes, scale=4.0)
    assert not np.asarray(backend.asnumpy(gradient))[~kept].any()


@losses
def test_a_sample_that_counts_is_seen_however_little(backend, loss):
    prediction, target = (np.array(a) for a in CASES[loss])
    prediction[2] = np.nan
    weights = np.where(np.arange(N) == 2, 1e-60, 1.0)
    value, _ = loss(
        backend.asarray(prediction.astype("float32")), backend.asarray(target), weights=backend.asarray(weights)
    )
    assert np.isnan(float(backend.asnumpy(value)))


@losses
def test_a_nan_among_the_weights_is_not_hidden(backend, loss):
    for rest in (1.0, 0.0):
        weights = np.where(np.arange(N) == 3, np.nan, rest)
        value, _ = loss(*on(backend, loss), weights=backend.asarray(weights))
        assert np.isnan(float(backend.asnumpy(value)))


@losses
def test_no_samples_and_no_weights(backend, loss):
    value, gradient = loss(*on(backend, loss, slice(0, 0)), weights=backend.asarray(np.zeros(0)))
    assert float(backend.asnumpy(value)) == 0.0
    assert gradient.shape == (0, 3)


@losses
def test_weights_of_another_library_are_named(backend, loss):
    with pytest.raises(TypeError, match=r"expected arrays of one library, but .*weights is a list"):
        loss(*on(backend, loss), weights=[1.0] * N)


@given(st.lists(st.floats(0, 10), min_size=5, max_size=5).filter(any))
def test_weighted_values_are_those_of_scikit_learn(backend, weights):
    theirs = pytest.importorskip("sklearn.metrics")
    weights = np.asarray(weights)
    rng = np.random.default_rng(5)
    scores, labels, y = rng.normal(size=(5, 3)), np.asarray([0, 1, 2, 1, 0]), rng.normal(size=(5, 3))
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    w = backend.asarray(weights)
    pairs = [
        (
            xn.cross_entropy(backend.asarray(scores), backend.asarray(labels), weights=w),
            theirs.log_loss(labels, p, sample_weight=weights, labels=[0, 1, 2]),
        ),
        (
            xn.mean_squared_error(backend.asarray(scores), backend.asarray(y), weights=w),
            theirs.mean_squared_error(y, scores, sample_weight=weights),
        ),
        (
            xn.mean_absolute_error(backend.asarray(scores), backend.asarray(y), weights=w),
            theirs.mean_absolute_error(y, scores, sample_weight=weights),
        ),
    ]
    for (value, _), expected in pairs:
        assert_close(backend, value, np.asarray(expected), multiple=16)
