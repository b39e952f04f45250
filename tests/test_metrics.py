import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xpnet as xn
from xpnet import metrics
from xpnet.arrays import namespace
from xpnet.errors import DataError, ShapeError
from xpnet.files.description import from_data, to_data
from xpnet.testing import assert_close

SCORES = [[2.0, 1.0, 0.0], [0.0, 0.5, 9.0], [1.0, 3.0, 2.0], [0.0, 0.0, 1.0]]
LABELS = [0, 1, 1, 2]


@pytest.mark.parametrize("labels", ["int64", "uint8", "int32"])
def test_accuracy_of_scores_and_labels(backend, labels):
    s, t = backend.asarray(SCORES, dtype="float32"), backend.asarray(LABELS, dtype=labels)
    value = metrics.accuracy(s, t)
    assert value.dtype == s.dtype
    assert backend.owns(value)
    assert_close(backend, value, np.asarray(0.75))
    assert_close(backend, metrics.zero_one(s, t), np.asarray(0.25))


@pytest.mark.parametrize("wrong", [0.0, -1.0])
def test_accuracy_of_one_score_a_sample(backend, wrong):
    s = backend.asarray([[1.5], [-0.5], [0.1], [-2.0]])
    t = backend.asarray([[1.0], [wrong], [wrong], [wrong]])
    assert_close(backend, metrics.accuracy(s, t), np.asarray(0.75))
    assert_close(backend, metrics.confusion_matrix(s, t), [[2, 1], [0, 1]])


def test_confusion_matrix_has_the_truth_in_rows(backend):
    s, t = backend.asarray(SCORES), backend.asarray(LABELS)
    assert_close(backend, metrics.confusion_matrix(s, t), [[1, 0, 0], [0, 1, 1], [0, 0, 1]])
    wide = metrics.confusion_matrix(s, t, classes=4)
    assert_close(backend, wide, np.pad([[1, 0, 0], [0, 1, 1], [0, 0, 1]], (0, 1)))


def test_regression_metrics(backend):
    p, t = backend.asarray([1.0, 2.0, 3.0]), backend.asarray([1, 3, 5])
    assert_close(backend, metrics.mean_absolute_error(p, t), np.asarray(1.0))
    assert_close(backend, metrics.r2(p, t), np.asarray(1 - 5 / 8))
    assert_close(backend, metrics.r2(backend.asarray([1.0, 3.0, 5.0]), t), np.asarray(1.0))
    both = metrics.r2(backend.asarray([[1.0, 1.0], [2.0, 3.0], [3.0, 5.0]]), backend.asarray([[1, 1], [3, 3], [5, 5]]))
    assert_close(backend, both, np.asarray((3 / 8 + 1) / 2))


def test_r2_as_a_training_metric_outlives_a_last_batch_of_one(backend):
    x = np.linspace(-1.0, 1.0, 9)[:, None]
    model = xn.Model(xn.Linear(1, 1), xn.mean_squared_error, xn.SGD(0.1), metrics=["r2"], backend=backend)
    assert np.isfinite(model.fit(x, 2 * x, epochs=2, batch_size=4)["r2"]).all()


def test_no_samples(backend):
    s, t = backend.asarray(np.zeros((0, 3))), backend.asarray(np.zeros(0, dtype="int64"))
    assert_close(backend, metrics.accuracy(s, t), np.asarray(0.0))
    assert_close(backend, metrics.confusion_matrix(s, t), np.zeros((3, 3), dtype="int32"))
    assert_close(backend, metrics.mean_absolute_error(s, s), np.asarray(0.0))
    assert_close(backend, metrics.binary_accuracy(s, s), np.asarray(0.0))
    assert_close(backend, metrics.confusion_matrix(t, t), np.zeros((1, 1), dtype="int32"))
    assert_close(backend, metrics.r2(s, s), np.asarray(np.nan))
    assert_close(backend, metrics.r2(s, s, variance=1.0), np.asarray(0.0))
    with pytest.raises(DataError, match="expected samples to take the variance of, got none"):
        metrics.variance_of(s)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=6, max_size=6))
def test_accuracy_is_the_confusion_matrix_s_diagonal(backend, pairs):
    true, predicted = (np.asarray(column) for column in zip(*pairs, strict=True))
    s, t = backend.asarray(np.eye(4)[predicted]), backend.asarray(true)
    matrix = backend.asnumpy(metrics.confusion_matrix(s, t))
    assert matrix.sum() == 6
    assert_close(backend, metrics.accuracy(s, t), np.asarray(np.trace(matrix) / 6))
    expected = np.zeros((4, 4), dtype=int)
    np.add.at(expected, (true, predicted), 1)
    assert matrix.tolist() == expected.tolist()


def test_shapes_that_do_not_belong_together(backend):
    s = backend.asarray(SCORES)
    with pytest.raises(ShapeError, match=r"expected scores \(N, C\) and labels \(N,\), .* got \(4, 3\) and \(3,\)$"):
        metrics.accuracy(s, backend.asarray([0, 1, 2]))
    with pytest.raises(ShapeError, match=r"got \(4, 3\) and \(4, 2\)$"):
        metrics.confusion_matrix(s, backend.asarray([[0, 1]] * 4))
    with pytest.raises(ShapeError, match=r"got \(4, 3\) and \(4,\): reshape the target"):
        metrics.r2(s, backend.asarray(LABELS))
    with pytest.raises(ShapeError, match=r"got \(4, 1\) and \(4, 3\): reshape the target"):
        metrics.mean_absolute_error(s[:, :1], s)
    with pytest.raises(ShapeError, match=r"got \(4, 3\) and \(4, 1\): reshape the target"):
        metrics.binary_accuracy(s, s[:, :1])


@pytest.mark.parametrize("metric", [metrics.accuracy, metrics.zero_one, metrics.confusion_matrix])
def test_one_hot_targets_and_several_labels_are_refused_with_the_remedy(backend, metric):
    s = backend.asarray(SCORES)
    told = r"got \(4, 3\) and \(4, 3\): one-hot labels become argmax\(axis=1\), several .* are for binary_accuracy"
    with pytest.raises(ShapeError, match=told):
        metric(s, backend.asarray(np.eye(3, dtype="int64")[LABELS]))


# Shapes with two readings


@pytest.mark.parametrize("score_shape", [(5,), (5, 1)])
@pytest.mark.parametrize("label_shape", [(5,), (5, 1)])
@pytest.mark.parametrize("dtype", ["float32", "int64", "int8", "uint8", "bool"])
def test_one_score_a_sample_in_either_shape(backend, score_shape, label_shape, dtype):
    scores, labels = [1.5, -0.5, 0.1, -2.0, 0.0], [1, 0, 0, 1, 0]
    s = backend.asarray(np.reshape(scores, score_shape))
    t = backend.asarray(np.reshape(labels, label_shape).astype(dtype))
    assert_close(backend, metrics.accuracy(s, t), np.asarray(0.6))
    assert_close(backend, metrics.zero_one(s, t), np.asarray(0.4))
    assert_close(backend, metrics.confusion_matrix(s, t), [[2, 1], [1, 1]])
    assert_close(backend, metrics.accuracy(s, t, threshold=0.2), np.asarray(0.8))
    assert_close(backend, metrics.zero_one(s, t, threshold=0.2), np.asarray(0.2))
    assert_close(backend, metrics.confusion_matrix(s, t, threshold=np.float64(0.2)), [[3, 0], [1, 1]])


@pytest.mark.parametrize("dtype", ["int64", "uint8", "int8", "uint64", "uint16", "float64"])
def test_labels_may_be_a_column(backend, dtype):
    s, t = backend.asarray(SCORES), backend.asarray(np.reshape(LABELS, (4, 1)), dtype=dtype)
    assert_close(backend, metrics.accuracy(s, t), np.asarray(0.75))
    assert_close(backend, metrics.confusion_matrix(s, t), [[1, 0, 0], [0, 1, 1], [0, 0, 1]])


def test_a_number_between_two_classes_is_neither(backend):
    s, t = backend.asarray(SCORES), backend.asarray([0.5, 2.0, 1.0, 2.0])
    assert_close(backend, metrics.accuracy(s, t), np.asarray(0.75))
    with pytest.raises(DataError, match=r"the target must be a class in 0\.\.2, got 0\.5 at row 0"):
        metrics.confusion_matrix(s, t)


@pytest.mark.parametrize("shape", [(6,), (6, 1), (3, 2)])
def test_binary_accuracy_counts_each_answer(backend, shape):
    p = np.reshape([0.9, 0.2, -3.0, 0.6, 0.4, -1.0], shape)
    for wrong in (0.0, -1.0):
        t = backend.asarray(np.reshape([1.0, wrong, wrong, 1.0, 1.0, 1.0], shape))
        assert_close(backend, metrics.binary_accuracy(backend.asarray(p), t), np.asarray(4 / 6))
        assert_close(backend, metrics.binary_accuracy(backend.asarray(p), t, threshold=0.5), np.asarray(4 / 6))
        assert_close(backend, metrics.binary_accuracy(backend.asarray(p), t, 0.3), np.asarray(5 / 6))


# Narrow types


def narrow(backend, host):
    """Return the array in each type below float32 that the library has."""
    array = backend.asarray(np.asarray(host, dtype="float32"))
    xp = namespace(array=array)
    return [xp.astype(array, getattr(xp, name)) for name in ("float16", "bfloat16") if hasattr(xp, name)]


@pytest.mark.parametrize("predicted", ["int64", "uint8", "int8", "uint64", "int32"])
@pytest.mark.parametrize("true", ["int64", "uint8", "int16", "uint64", "float32"])
def test_integers_are_class_numbers(backend, predicted, true):
    for shape in ((4,), (4, 1)):
        p = backend.asarray(np.reshape([0, 1, 2, 1], shape), dtype=predicted)
        t = backend.asarray([0, 1, 2, 2], dtype=true)
        assert_close(backend, metrics.accuracy(p, t), np.asarray(0.75))
        assert_close(backend, metrics.zero_one(p, t), np.asarray(0.25))
        assert_close(backend, metrics.confusion_matrix(p, t), [[1, 0, 0], [0, 1, 0], [0, 1, 1]])


def test_booleans_are_class_numbers(backend):
    p = backend.asarray([True, False, True, False])
    for target in ([True, True, True, False], [1, 1, 1, 0]):
        assert_close(backend, metrics.accuracy(p, backend.asarray(target)), np.asarray(0.75))


def test_a_class_beyond_the_labels_type_is_not_wrapped_into_it(backend):
    s = backend.asarray(np.eye(300)[[256, 255, 3]])
    for dtype in ("uint8", "int8"):
        t = backend.asarray([0, -1 if dtype == "int8" else 255, 3], dtype=dtype)
        assert_close(backend, metrics.accuracy(s, t), np.asarray((1 if dtype == "int8" else 2) / 3))
    large = backend.asarray(np.asarray([2**32, 2**32 + 255, 3], dtype="int64"))
    assert_close(backend, metrics.accuracy(s, large), np.asarray(1 / 3))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int64", "uint64", "uint32", "bool"])
def test_regression_metrics_of_integers_do_not_wrap(backend, dtype):
    p, t = np.asarray([1, 0, 1, 0]), np.asarray([0.5, 3.0, 0.0, 100.0])
    ours = [metric(backend.asarray(p, dtype=dtype), backend.asarray(t)) for metric in REGRESSION]
    for value, metric in zip(ours, REGRESSION, strict=True):
        assert_close(backend, value, metric(p.astype("float64"), t))
    both = metrics.mean_absolute_error(*(backend.asarray(a, dtype=dtype) for a in (p, 1 - p)))
    assert_close(backend, both, np.asarray(1.0))


REGRESSION = [metrics.mean_absolute_error, metrics.r2]


def test_half_precision_is_summed_in_float32(backend):
    n = 70_000
    for s in narrow(backend, np.ones((n, 1))):
        xp, t = namespace(s=s), backend.asarray(np.ones(n, dtype="int64"))
        for value in (metrics.accuracy(s, t), metrics.binary_accuracy(s, xp.astype(t, s.dtype))):
            assert value.dtype == xp.float32
            assert_close(backend, value, np.asarray(1.0))
        error = metrics.mean_absolute_error(s * 300, xp.astype(t, s.dtype) * 400)
        assert_close(backend, error, np.asarray(100.0), multiple=4)
        assert_close(backend, metrics.r2(s * 300, s * 400), np.asarray(0.0))
        labels = backend.asarray(np.zeros(n, dtype="int64"))
        assert_close(backend, metrics.accuracy(xp.concat([s, -s], axis=1), labels), np.asarray(1.0))


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_nan_is_never_right(backend, classes):
    scores = np.ones((3, classes)) * [[1.0], [np.nan], [-1.0]]
    if classes > 1:
        scores[1, 1] = 5.0
        scores[2, 0] = 1.0
    labels = [1, 0, 0] if classes == 1 else [0, 0, 0]
    s = backend.asarray(scores)
    for t in (backend.asarray(labels), backend.asarray(np.asarray(labels, dtype="float64"))):
        assert_close(backend, metrics.accuracy(s, t), np.asarray(2 / 3))
        assert_close(backend, metrics.zero_one(s, t), np.asarray(1 / 3))
        with pytest.raises(DataError, match=r"the prediction must be a class in 0\.\.[12], got NaN at row 1"):
            metrics.confusion_matrix(s, t)
    one = metrics.binary_accuracy(backend.asarray([np.nan, 1.0]), backend.asarray([0, 1]))
    assert_close(backend, one, np.asarray(0.5))


EVERY = [metrics.accuracy, metrics.zero_one, metrics.binary_accuracy, metrics.mean_absolute_error, metrics.r2]


@pytest.mark.parametrize("metric", EVERY)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8"])
def test_a_metric_is_one_floating_number_where_the_prediction_is(backend, metric, dtype):
    p, t = backend.asarray([1, 0, 1], dtype=dtype), backend.asarray([1, 0, 0], dtype=dtype)
    value = metric(p, t)
    assert value.shape == ()
    assert backend.owns(value)
    assert value.dtype == getattr(namespace(p=p), dtype if dtype.startswith("float") else "float64")


# The confusion matrix


@pytest.mark.parametrize("label", [3, -1, 255])
def test_labels_and_predictions_out_of_range_are_named(backend, label):
    s = backend.asarray(SCORES)
    with pytest.raises(DataError, match=rf"the target must be a class in 0\.\.2, got {label} at row 2"):
        metrics.confusion_matrix(s, backend.asarray([0, 1, label, label]))
    with pytest.raises(DataError, match=r"the prediction must be a class in 0\.\.1, got 2 at row 1"):
        metrics.confusion_matrix(s, backend.asarray([0, 1, 1, 1]), classes=2)
    with pytest.raises(DataError, match=r"got -1 at row 1"):
        metrics.confusion_matrix(backend.asarray([0, 1]), backend.asarray([0, -1]))


def test_more_samples_than_float32_counts_are_counted_in_pieces(backend, monkeypatch):
    monkeypatch.setattr(metrics.confusion, "PIECE", 3)
    s, t = backend.asarray(SCORES * 2), backend.asarray(LABELS * 2)
    assert_close(backend, metrics.confusion_matrix(s, t), [[2, 0, 0], [0, 2, 2], [0, 0, 2]])
    with pytest.raises(DataError, match="got 9 at row 7"):
        metrics.confusion_matrix(s, backend.asarray([*LABELS, *LABELS[:3], 9]))


@pytest.mark.slow
def test_counts_beyond_2_to_the_24_are_exact():
    n = 2**24 + 5
    ones = np.ones(n, dtype="uint8")
    assert metrics.confusion_matrix(ones, ones).tolist() == [[0, 0], [0, n]]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=8))
def test_class_numbers_are_judged_as_by_scikit_learn(backend, pairs):
    theirs = pytest.importorskip("sklearn.metrics")
    true, predicted = (np.asarray(column) for column in zip(*pairs, strict=True))
    if backend.name == "jax":
        true, predicted = true[:1], predicted[:1]  # jax compiles for every shape
    p, t = backend.asarray(predicted, dtype="uint8"), backend.asarray(true)
    assert_close(backend, metrics.accuracy(p, t), np.asarray(theirs.accuracy_score(true, predicted)))
    expected = theirs.confusion_matrix(true, predicted, labels=range(4))
    assert np.array_equal(backend.asnumpy(metrics.confusion_matrix(p, t, classes=4)), expected)


# R²


def test_r2_of_a_target_that_does_not_vary_is_finite_as_in_sklearn(backend):
    theirs = pytest.importorskip("sklearn.metrics")
    target = np.asarray([3.0, 3.0])
    for prediction in (np.asarray([1.0, 2.0]), target):
        ours = metrics.r2(backend.asarray(prediction), backend.asarray(target))
        assert_close(backend, ours, np.asarray(theirs.r2_score(target, prediction)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [1, 3, 1000, 100_001])
def test_what_rounding_leaves_of_a_constant_target_does_not_count(backend, n, dtype):
    for number in (0.1, 1 / 3, 12345.678, -1e-5):
        target = np.full((n, 2), number, dtype=dtype)
        target[n // 2, 1] = np.nextafter(target[0, 0], target.dtype.type(0))
        t = backend.asarray(target)
        assert_close(backend, metrics.r2(t, t), np.asarray(1.0))
        assert_close(backend, metrics.r2(2 * t, t), np.asarray(0.0))
        assert metrics.variance_of(t)[0] == 0.0


columns = st.lists(st.integers(-1000, 1000), min_size=8, max_size=8)


@given(columns, columns, st.sampled_from([0.0, 1e3, -1e6]))
def test_r2_is_that_of_scikit_learn(backend, true, predicted, shift):
    theirs = pytest.importorskip("sklearn.metrics")
    t, p = np.reshape(true, (4, 2)) / 8 + shift, np.reshape(predicted, (4, 2)) / 8 + shift
    ours = metrics.r2(backend.asarray(p), backend.asarray(t))
    expected = theirs.r2_score(t, p)
    assert_close(backend, ours, np.asarray(expected), multiple=64, scale=abs(expected) + 1)
    found = metrics.variance_of(backend.asarray(t))
    np.testing.assert_allclose(found, t.var(axis=0), rtol=1e-13)


@pytest.mark.parametrize("outputs", [(), (1,), (3,), (2, 2)])
@pytest.mark.parametrize("sizes", [(10,), (4, 4, 2), (1, 9), (9, 1, 0)])
def test_the_mean_of_batches_is_the_r2_of_the_whole(backend, rng, outputs, sizes):
    y = rng.normal(size=(10, *outputs)) * 3 + np.sort(rng.normal(size=10)).reshape(10, *[1] * len(outputs))
    p = y + rng.normal(size=y.shape)
    metric = metrics.for_data(metrics.r2, backend.asarray(y))
    total, start = 0.0, 0
    for size in sizes:
        part = [backend.asarray(a[start : start + size]) for a in (p, y)]
        total, start = total + size * float(backend.asnumpy(metric(*part))), start + size
    whole = metrics.r2(backend.asarray(p), backend.asarray(y))
    assert_close(backend, whole, np.asarray(total / 10), multiple=32)


def test_the_r2_of_the_whole_is_data(backend):
    y = backend.asarray([[0.0, 1.0], [2.0, 1.0]], dtype="float32")
    metric = metrics.for_data(metrics.r2, y)
    assert metric == metrics.WholeR2((1.0, 0.0))
    assert metric.__name__ == "r2"
    assert len({metric, metrics.WholeR2((1.0, 0.0))}) == 1
    assert from_data(json.loads(json.dumps(to_data(metric)))) == metric
    assert metrics.for_data(metrics.accuracy, y) is metrics.accuracy
    assert metric(y, y).dtype == y.dtype
    nearly = backend.asarray([[0.0, 1.0], [1.0, 1.5]], dtype="float32")  # the second output does not vary: half exact
    assert_close(backend, metric(nearly, y), np.asarray((0.5 + 0.5) / 2, "float32"))


def test_a_variance_is_checked(backend):
    p = backend.asarray(np.ones((4, 2)))
    with pytest.raises(ShapeError, match="expected the variance of 2 outputs, got 3"):
        metrics.r2(p, p, variance=(1.0, 2.0, 3.0))
    with pytest.raises(ValueError, match=r"a variance is at least 0, got -2\.0"):
        metrics.r2(p, p, variance=(1.0, -2.0))
    for variance in (4.0, np.float32(4), [4, 4], np.asarray([4.0, 4.0])):
        assert_close(backend, metrics.r2(p, p - 2, variance=variance), np.asarray(0.0))


def test_without_64_bits_integers_become_float32():
    jax = pytest.importorskip("jax")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", False)
    try:
        p, t = jax.numpy.asarray([3, 4], dtype="uint8"), jax.numpy.asarray([3.5, 4.9])
        for value in (metrics.mean_absolute_error(p, t), xn.mean_absolute_error(p, t)[0]):
            assert value.dtype == "float32"
            assert float(value) == pytest.approx(0.7)
        labels = jax.numpy.asarray([3, 5], dtype="uint32")
        assert float(metrics.accuracy(p, labels)) == 0.5
        assert metrics.confusion_matrix(p, labels).sum() == 2
    finally:
        jax.config.update("jax_enable_x64", before)
