"""Metrics of scores on any axes, with what is ignored; top-k and perplexity."""

import math

import numpy as np
import pytest

import xpnet as xn
from xpnet import metrics
from xpnet.errors import DataError, ShapeError
from xpnet.testing import assert_close

RNG = np.random.default_rng(4)
SCORES = RNG.normal(size=(3, 4, 5))
LABELS = RNG.integers(0, 5, (3, 4))
GONE = np.asarray([[0, 1, 0, 0], [0, 0, 0, 1], [1, 1, 1, 1]], bool)
WITH_GAPS = np.where(GONE, -1, LABELS)
SHARES = [metrics.accuracy, metrics.zero_one, metrics.top_k, metrics.perplexity, metrics.log_perplexity]
EVERY = [*SHARES, metrics.confusion_matrix]

every = pytest.mark.parametrize("metric", EVERY, ids=lambda metric: metric.__name__)


@every
def test_rows_of_positions_are_rows(backend, metric):
    s, t = backend.asarray(SCORES), backend.asarray(LABELS)
    flat = metric(backend.asarray(SCORES.reshape(12, 5)), backend.asarray(LABELS.reshape(12)))
    assert_close(backend, metric(s, t), backend.asnumpy(flat), multiple=0)


@every
def test_what_is_ignored_is_not_there(backend, metric):
    expected = metric(SCORES[~GONE], LABELS[~GONE])
    scores = np.where(GONE[..., None], np.nan, SCORES)
    found = metric(backend.asarray(scores), backend.asarray(WITH_GAPS), ignore_index=-1)
    assert_close(backend, found, expected)


def test_bytes_and_numbers_are_ignored_too():
    for labels in (WITH_GAPS.astype("uint8"), WITH_GAPS.astype("float32") % 256):
        found = metrics.accuracy(SCORES, labels, ignore_index=255)
        assert found == pytest.approx(metrics.accuracy(SCORES[~GONE], LABELS[~GONE]))


@pytest.mark.parametrize("metric", SHARES, ids=lambda metric: metric.__name__)
def test_if_all_is_ignored_nothing_is_right_or_wrong(backend, metric):
    found = metric(backend.asarray(SCORES), backend.asarray(np.full((3, 4), 7)), ignore_index=7)
    assert_close(backend, found, np.asarray(1.0 if metric is metrics.perplexity else 0.0), multiple=0)


def test_one_score_a_position(backend):
    s, t = backend.asarray([[[1.5], [-0.5]], [[0.1], [-2.0]]]), backend.asarray([[1, 0], [0, 1]])
    assert_close(backend, metrics.accuracy(s, t), np.asarray(0.5))
    assert_close(backend, metrics.accuracy(s, t, 0.2), np.asarray(0.75))
    assert_close(backend, metrics.accuracy(s, t, ignore_index=0), np.asarray(0.5))


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_top_k_is_that_of_pytorch(k):
    torch = pytest.importorskip("torch")
    found = torch.topk(torch.tensor(SCORES), k, dim=-1).indices.numpy()
    assert metrics.top_k(SCORES, LABELS, k) == pytest.approx((found == LABELS[..., None]).any(axis=-1).mean())


def test_of_equal_scores_the_first_counts_as_the_largest(backend):
    s, t = backend.asarray(np.zeros((5, 5))), backend.asarray(np.arange(5))
    for k in range(1, 6):
        assert_close(backend, metrics.top_k(s, t, k), np.asarray(k / 5))
    ties = np.round(RNG.normal(size=(40, 4)))
    labels = RNG.integers(0, 4, 40)
    one = metrics.top_k(backend.asarray(ties), backend.asarray(labels), np.int64(1))
    assert_close(backend, one, metrics.accuracy(ties, labels))


def test_a_row_with_nan_and_a_label_that_is_no_class_are_wrong(backend):
    s = np.zeros((4, 3))
    s[0, 2] = np.nan
    labels = backend.asarray([0, 3, -1, 2])
    assert_close(backend, metrics.top_k(backend.asarray(s), labels, 3), np.asarray(0.25))
    infinite = backend.asarray([[-math.inf, math.inf, 0.0]] * 3)
    assert_close(backend, metrics.top_k(infinite, backend.asarray([0, 1, 2]), 2), np.asarray(2 / 3))


def test_perplexity_of_a_fair_die_is_6(backend):
    s, t = backend.asarray(np.full((2, 7, 6), 0.3)), backend.asarray(np.zeros((2, 7), int))
    assert_close(backend, metrics.perplexity(s, t), np.asarray(6.0))
    sure = backend.asarray(1e4 * np.eye(6)[[0, 3]])
    assert_close(backend, metrics.perplexity(sure, backend.asarray([0, 3])), np.asarray(1.0))
    expected = np.exp(xn.cross_entropy(SCORES, LABELS)[0])
    found = metrics.perplexity(backend.asarray(SCORES, dtype="float32"), backend.asarray(LABELS))
    assert_close(backend, found, np.asarray(expected, "float32"), multiple=8)


@pytest.mark.parametrize("k", [0, -1, 6, 2.0, True, "2"])
def test_a_k_that_is_none(k):
    with pytest.raises(ValueError, match=rf"^k must be an integer in 1\.\.5, the number of classes, got {k!r}$"):
        metrics.top_k(SCORES, LABELS, k)


def test_shapes_that_do_not_belong_together():
    for metric in (metrics.top_k, metrics.perplexity):
        with pytest.raises(
            ShapeError, match=r"^expected scores \(N, T, C\) and labels \(N, T\), got \(3, 4, 5\) and \(3, 3\)$"
        ):
            metric(SCORES, LABELS[:, :3])
    for metric in (metrics.accuracy, metrics.confusion_matrix):
        with pytest.raises(ShapeError, match=r"got \(3, 4, 5\) and \(3, 3\)$"):
            metric(SCORES, LABELS[:, :3])
    with pytest.raises(DataError, match=r"the target must be a class in 0\.\.4, got -1 at row 1$"):
        metrics.confusion_matrix(SCORES, WITH_GAPS)
    with pytest.raises(ValueError, match=r"^ignore_index must be an integer of 32 bits, such as -1, got 0\.5$"):
        metrics.accuracy(SCORES, LABELS, ignore_index=0.5)
