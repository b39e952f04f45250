"""Metrics over the batches of an epoch: what is averaged, what is concluded from it, what needs all predictions."""

from functools import partial

import numpy as np
import pytest
from test_metrics_weights import CASES, WEIGHTS, N, every, on

import xpnet as xn
from xpnet import metrics
from xpnet.errors import DataWarning
from xpnet.files.description import from_data, to_data
from xpnet.random import permutation
from xpnet.testing import assert_close
from xpnet.training.trial import fitting_metrics

RANKED = (metrics.roc_auc, metrics.average_precision)


def function(metric):
    return getattr(metric, "func", metric)


def over_batches(backend, metric, prediction, target, weights, sizes):
    """Return the value of the mean over batches, added up on the host, each weighed by its weight."""
    part, total, sums, start = metrics.averaged(metric), 0.0, 0.0, 0
    for size in sizes:
        p, t = (backend.asarray(a[start : start + size]) for a in (prediction, target))
        w = None if weights is None else backend.asarray(weights[start : start + size])
        size_or_weight = float(size if weights is None else weights[start : start + size].sum())
        value = backend.asnumpy(part(p, t) if w is None else part(p, t, weights=w)).astype("float64")
        sums, total, start = sums + value * size_or_weight, total + size_or_weight, start + size
    return metrics.concluded(metric, sums / total)


@every
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
def test_the_mean_of_batches_gives_the_value_of_the_whole(backend, case, weights):
    metric, prediction, target = CASES[case]
    if function(metric) in (*RANKED, metrics.confusion_matrix, metrics.class_shares, metrics.squared_errors):
        return
    metric = metrics.for_data(metric, target, weights)
    whole = metric(prediction, target) if weights is None else metric(prediction, target, weights=weights)
    found = over_batches(backend, metric, prediction, target, weights, (4, 4, 4))
    assert found == pytest.approx(float(whole), rel=1e-13)
    if backend.name == "numpy":
        for sizes in ((12,), (1, 11), (5, 2, 5)):
            found = over_batches(backend, metric, prediction, target, weights, sizes)
            assert found == pytest.approx(float(whole), rel=1e-13)


@every
def test_what_is_averaged_can_be_compiled(backend, case):
    metric, *arrays = on(backend, case)
    part = metric if function(metric) is metrics.confusion_matrix else metrics.averaged(metric)
    if function(metric) is metrics.confusion_matrix:
        return  # it looks for what is no class on the host
    compiled = backend.jit(lambda p, t, w: part(p, t, weights=w))
    w = backend.asarray(WEIGHTS)
    assert_close(backend, compiled(*arrays, w), backend.asnumpy(part(*arrays, weights=w)), scale=4.0)


def test_settings_go_where_they_belong():
    given = partial(metrics.f1, average=1, threshold=0.25, ignore_index=7)
    part = metrics.averaged(given)
    assert (part.func, part.keywords) == (metrics.class_shares, {"threshold": 0.25, "ignore_index": 7})
    shares = np.asarray([[0.5, 0.125], [0.5, 0.25], [0.75, 0.25]])
    assert metrics.concluded(given, shares) == 0.5
    assert metrics.concluded(metrics.precision, shares) == 0.75
    assert metrics.concluded(metrics.recall, shares) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert metrics.concluded(partial(metrics.recall, average="micro"), shares) == 0.625
    assert metrics.concluded(metrics.root_mean_squared_error, np.asarray([4.0, 16.0])) == 3.0
    assert metrics.averaged(metrics.mean_squared_error) is metrics.mean_squared_error


def test_nothing_that_counts_is_concluded_without_a_warning():
    for metric in (metrics.balanced_accuracy, metrics.precision, metrics.recall, metrics.f1):
        assert metrics.concluded(metric, np.zeros((3, 4))) == 0.0
    assert np.isnan(metrics.concluded(metrics.f1, np.full((3, 4), np.nan)))


def test_what_ranks_needs_all():
    def own(prediction, target):
        return prediction

    for metric in RANKED:
        for given in (metric, partial(metric, ignore_index=-1)):
            assert metrics.needs_all(given)
            assert not metrics.is_mean(given)
    for metric in (metrics.accuracy, partial(metrics.accuracy, threshold=0.5), metrics.WholeR2((1.0,))):
        assert metrics.is_mean(metric)
        assert not metrics.needs_all(metric)
    for metric in (own, partial(own), np.add, None):
        assert not metrics.is_mean(metric)
        assert not metrics.needs_all(metric)


def test_evaluate_ranks_all_predictions_at_once(backend):
    x = np.linspace(-1.0, 1.0, N, dtype="float32")[:, None]
    y = np.asarray([0, 0, 0, 1, 0, 1, 0, 1, 1, 0, 1, 1], dtype="float32")[:, None]
    net = xn.Sequential(xn.Linear(1, 1))
    given = {"auc": metrics.roc_auc, "ap": partial(metrics.average_precision), "mse": metrics.mean_squared_error}
    model = xn.Model(net, xn.binary_cross_entropy, xn.SGD(0.1), metrics=given, backend=backend)
    scores = model.predict(x)
    found = model.evaluate(x, y, batch_size=3)  # the first and the last have one class only
    assert found["auc"] == pytest.approx(float(metrics.roc_auc(scores, y)))
    assert found["ap"] == pytest.approx(float(metrics.average_precision(scores, y)))
    assert found["mse"] == pytest.approx(float(metrics.mean_squared_error(scores, y)))


def test_fit_leaves_batches_out_in_which_a_ranking_is_not_defined(backend):
    x = np.linspace(-1.0, 1.0, N, dtype="float32")[:, None]
    y = (np.arange(N) == 7).astype("float32")[:, None]
    given = {"auc": metrics.roc_auc, "mse": metrics.mean_squared_error}
    model = xn.Model(xn.Linear(1, 1), xn.binary_cross_entropy, xn.SGD(1e-6), metrics=given, backend=backend)
    rows = next(rows for rows in permutation(0, 0, N).reshape(4, 3) if 7 in rows)  # all other batches have one class
    defined = metrics.roc_auc(model.predict(x[rows]), y[rows])
    history = model.fit(x, y, 1, 3, progress=False)
    assert history["auc"][-1] == pytest.approx(float(defined))
    assert history["mse"][-1] == pytest.approx(float(np.mean((model.predict(x) - y) ** 2)), rel=1e-4)


def test_classes_begin_at_one_half_after_sigmoid_in_what_is_averaged():
    net = xn.Sequential(xn.Linear(2, 1), xn.Sigmoid())
    fitted = fitting_metrics(net, {"f1": metrics.f1, "p": partial(metrics.precision, threshold=0.2)})
    assert fitted["f1"].func is fitted["p"].func is metrics.class_shares
    assert (fitted["f1"].keywords, fitted["p"].keywords) == ({"threshold": 0.5}, {"threshold": 0.2})


@pytest.mark.parametrize("metric", [metrics.log_loss, metrics.perplexity], ids=lambda metric: metric.__name__)
@pytest.mark.parametrize("layer", [xn.Softmax(), xn.Sigmoid()], ids=["Softmax", "Sigmoid"])
def test_a_metric_of_scores_warns_of_probabilities(metric, layer):
    told = f"^m takes scores, but the network ends in {type(layer).__name__}: drop it$"
    with pytest.warns(DataWarning, match=told):
        fitting_metrics(xn.Sequential(xn.Linear(2, 2), layer), {"m": metric})
    fitting_metrics(xn.Sequential(xn.Linear(2, 2), xn.Tanh()), {"m": metric})


@pytest.mark.parametrize("metric", [metrics.f1, metrics.roc_auc, metrics.mean_squared_error, metrics.log_loss])
def test_new_metrics_are_data(metric):
    assert from_data(to_data(metric)) is metric
    again = from_data(to_data(partial(metrics.f1, average=1)))
    assert (again.func, again.keywords) == (metrics.f1, {"average": 1})
