import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xpnet as xn
from xpnet import metrics
from xpnet.errors import ShapeError
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


def test_r2_of_a_target_that_does_not_vary_is_finite_as_in_sklearn(backend):
    target = backend.asarray([3.0, 3.0])
    assert_close(backend, metrics.r2(backend.asarray([1.0, 2.0]), target), np.asarray(0.0))
    assert_close(backend, metrics.r2(target, target), np.asarray(1.0))


def test_r2_as_a_training_metric_outlives_a_last_batch_of_one(backend):
    x = np.linspace(-1.0, 1.0, 9)[:, None]
    model = xn.Model(xn.Linear(1, 1), xn.mean_squared_error, xn.SGD(0.1), metrics=["r2"], backend=backend)
    assert np.isfinite(model.fit(x, 2 * x, epochs=2, batch_size=4)["r2"]).all()


def test_no_samples(backend):
    s, t = backend.asarray(np.zeros((0, 3))), backend.asarray(np.zeros(0, dtype="int64"))
    assert_close(backend, metrics.accuracy(s, t), np.asarray(0.0))
    assert_close(backend, metrics.confusion_matrix(s, t), np.zeros((3, 3), dtype="int32"))
    assert_close(backend, metrics.mean_absolute_error(s, s), np.asarray(0.0))


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
    with pytest.raises(ShapeError, match=r"expected scores \(N, C\) and labels \(N,\), .* got \(4, 3\) and \(3,\)"):
        metrics.accuracy(s, backend.asarray([0, 1, 2]))
    with pytest.raises(ShapeError, match=r"got \(4, 3\) and \(4, 1\)"):
        metrics.confusion_matrix(s, backend.asarray([[0], [1], [1], [2]]))
    with pytest.raises(ShapeError, match=r"got \(4, 3\) and \(4,\): reshape the target"):
        metrics.r2(s, backend.asarray(LABELS))
