"""Weights of samples in every metric: as so many samples, as in scikit-learn, and what weighs nothing is not there."""

import warnings
from functools import cache, partial

import numpy as np
import pytest

import xpnet as xn
from xpnet import metrics
from xpnet.errors import ShapeError
from xpnet.testing import assert_close

RNG = np.random.default_rng(16)
N = 12
SCORES = np.round(RNG.normal(size=(N, 4)), 1)
LABELS = np.asarray([0, 1, 2, 3, 0, 1, 2, 0, 0, 1, 2, 1])
SCORE = np.round(RNG.normal(size=N), 1)
BINARY = (np.arange(N) % 3 == 0).astype("int64")
NUMBERS, TARGETS = RNG.normal(size=(2, N, 3))
WEIGHTS = np.asarray([0.0, 1.0, 3.0, 2.0, 0.0, 2.0, 1.0, 1.0, 4.0, 0.0, 2.0, 1.0])
EXTREME = 10.0 ** RNG.uniform(-140, 140, N)

SEVERAL = {
    "accuracy": metrics.accuracy,
    "zero_one": metrics.zero_one,
    "balanced_accuracy": metrics.balanced_accuracy,
    "precision": metrics.precision,
    "recall": metrics.recall,
    "f1": metrics.f1,
    "f1 micro": partial(metrics.f1, average="micro"),
    "f1 of class 1": partial(metrics.f1, average=1),
    "class_shares": metrics.class_shares,
    "roc_auc": metrics.roc_auc,
    "average_precision": metrics.average_precision,
    "log_loss": metrics.log_loss,
    "confusion_matrix": metrics.confusion_matrix,
}
"""Metrics of several scores a sample, and of one."""
CASES = {
    **{name: (metric, SCORES, LABELS) for name, metric in SEVERAL.items()},
    **{f"{name}, one score": (metric, SCORE, BINARY) for name, metric in SEVERAL.items()},
    "top_k": (partial(metrics.top_k, k=2), SCORES, LABELS),
    "perplexity": (metrics.perplexity, SCORES, LABELS),
    "log_perplexity": (metrics.log_perplexity, SCORES, LABELS),
    "binary_accuracy": (metrics.binary_accuracy, NUMBERS, (TARGETS > 0).astype("int64")),
    "mean_absolute_error": (metrics.mean_absolute_error, NUMBERS, TARGETS),
    "mean_squared_error": (metrics.mean_squared_error, NUMBERS, TARGETS),
    "root_mean_squared_error": (metrics.root_mean_squared_error, NUMBERS, TARGETS),
    "squared_errors": (metrics.squared_errors, NUMBERS, TARGETS),
    "r2": (metrics.r2, NUMBERS, TARGETS),
    "r2 of the whole": (metrics.WholeR2((2.0, 0.5, 1.0)), NUMBERS, TARGETS),
}
every = pytest.mark.parametrize("case", CASES)
NOT_METRICS = {"averaged", "concluded", "needs_all", "is_mean", "for_data", "variance_of", "WholeR2"}


def on(backend, case, rows=slice(None)):
    metric, prediction, target = CASES[case]
    return metric, backend.asarray(prediction[rows]), backend.asarray(target[rows])


def value(backend, metric, *arrays, weights):
    return backend.asnumpy(metric(*arrays, weights=backend.asarray(weights)))


def test_every_metric_is_here():
    ours = {n for n in metrics.__all__ if getattr(vars(metrics)[n], "__module__", "").startswith("xpnet.metrics")}
    assert ours - NOT_METRICS == {getattr(metric, "func", metric).__name__ for metric, _, _ in CASES.values()}


@every
def test_a_weight_counts_as_so_many_samples(backend, case):
    metric, *arrays = on(backend, case)
    _, prediction, target = CASES[case]
    rows = np.repeat(np.arange(N), WEIGHTS.astype(int))
    expected = np.asarray(metric(prediction[rows], target[rows]), dtype="float64")
    found = metric(*arrays, weights=backend.asarray(WEIGHTS))
    assert_close(backend, found, expected, scale=4.0 * max(1.0, float(np.max(expected))))


@every
def test_what_weighs_nothing_is_not_there(backend, case):
    metric, prediction, target = CASES[case]
    gone = WEIGHTS == 0
    expected = np.asarray(metric(prediction[~gone], target[~gone], weights=WEIGHTS[~gone]))
    target = np.where(gone.reshape(-1, *[1] * (target.ndim - 1)), -7 if target.dtype.kind == "i" else np.nan, target)
    prediction = np.where(gone.reshape(-1, *[1] * (prediction.ndim - 1)), np.nan, prediction)
    found = metric(backend.asarray(prediction), backend.asarray(target), weights=backend.asarray(WEIGHTS))
    assert_close(backend, found, expected, scale=4.0 * max(1.0, float(np.max(expected))))


@pytest.mark.parametrize("backend", ["numpy"], indirect=True)
@every
def test_only_ratios_count_and_the_type_is_the_predictions(backend, case):
    metric, prediction, target = CASES[case]
    plain = metric(prediction.astype("float32"), target)
    for size in (1e-60, 1.0, 1e60):
        found = metric(prediction.astype("float32"), target, weights=np.full(N, size))
        if "confusion" in case:
            np.testing.assert_allclose(found, plain * size)
            assert found.dtype == "float64"
        else:
            np.testing.assert_allclose(found, plain, rtol=1e-5)
            assert found.dtype == "float32"
    exact = metric(prediction, target, weights=EXTREME)
    assert np.isfinite(exact).all()
    np.testing.assert_allclose(
        metric(prediction, target, weights=EXTREME.astype("float64") * 1e-9),
        exact * (1e-9 if "confusion" in case else 1.0),
        rtol=1e-12,
    )


def test_no_weight_at_all(backend):
    for case in CASES:
        metric, *arrays = on(backend, case)
        found = value(backend, metric, *arrays, weights=np.zeros(N))
        undefined = case.startswith(("roc_auc", "average_precision"))
        expected = np.nan if undefined else 1.0 if case == "perplexity" else 0.0
        np.testing.assert_array_equal(found, np.full(found.shape, expected), err_msg=case)


@pytest.mark.parametrize("shape", [(N + 1,), (N, 1)], ids=str)
def test_weights_of_a_wrong_shape(shape):
    for metric, prediction, target in CASES.values():
        with pytest.raises(ShapeError, match=rf"^expected weights \({N},\), one a sample, got \({shape[0]},"):
            metric(prediction, target, weights=np.ones(shape))


def test_a_weight_that_is_nan():
    weights = np.where(np.arange(N) == 5, np.nan, 1.0)
    for case, (metric, prediction, target) in CASES.items():
        assert np.isnan(metric(prediction, target, weights=weights)).any(), case


@pytest.mark.parametrize("case", [case for case in CASES if CASES[case][1] is SCORES])
def test_all_rows_of_a_sample_have_its_weight(backend, case):
    metric = CASES[case][0]
    s, t, w = SCORES.reshape(4, 3, 4), LABELS.reshape(4, 3), np.asarray([2.0, 0.0, 1.0, 3.0])
    ignored = np.where(np.arange(N).reshape(4, 3) % 5 == 2, 3, LABELS.reshape(4, 3))
    for labels, settings in ((t, {}), (ignored, {"ignore_index": 3})):
        rows = np.repeat(w, 3) * (labels.reshape(N) != settings.get("ignore_index"))
        expected = np.asarray(metric(SCORES, labels.reshape(N) % 4, weights=rows))
        found = metric(backend.asarray(s), backend.asarray(labels), weights=backend.asarray(w), **settings)
        assert_close(backend, found, expected, scale=4.0 * max(1.0, float(np.max(expected))))


# scikit-learn


def theirs(name, sk, s, y, w):
    """Return scikit-learn's value; without what weighs nothing, whose labels it counts among those that occur."""
    there = w > 0
    s, y, w = s[there], y[there], w[there]
    several = s.ndim == 2
    e = np.exp(s - s.max(axis=1, keepdims=True)) if several else 1 / (1 + np.exp(-s))
    p = e / e.sum(axis=1, keepdims=True) if several else np.stack([1 - e, e], axis=1)
    best = s.argmax(axis=1) if several else (s > 0).astype(int)
    macro = {"average": "macro", "zero_division": 0, "sample_weight": w}
    hot = np.eye(s.shape[1])[y] if several else y
    calls = {
        "accuracy": lambda: sk.accuracy_score(y, best, sample_weight=w),
        "zero_one": lambda: sk.zero_one_loss(y, best, sample_weight=w),
        "balanced_accuracy": lambda: sk.balanced_accuracy_score(y, best, sample_weight=w),
        "precision": lambda: sk.precision_score(y, best, **macro),
        "recall": lambda: sk.recall_score(y, best, **macro),
        "f1": lambda: sk.f1_score(y, best, **macro),
        "f1 micro": lambda: sk.f1_score(y, best, **macro | {"average": "micro"}),
        "f1 of class 1": lambda: sk.f1_score(y, best, **macro | {"average": None, "labels": [1]})[0],
        "roc_auc": lambda: of_classes(partial(sk.roc_auc_score, sample_weight=w), hot, p if several else s),
        "average_precision": lambda: of_classes(
            partial(sk.average_precision_score, sample_weight=w), hot, p if several else s, undefined=0
        ),
        "log_loss": lambda: sk.log_loss(y, p, sample_weight=w, labels=range(p.shape[1])),
        "confusion_matrix": lambda: sk.confusion_matrix(y, best, sample_weight=w, labels=range(p.shape[1])),
    }
    return calls[name]()


def of_classes(score, hot, p, undefined=None):
    """Return the mean over the classes that are defined, each against the rest; NaN if there are none."""
    hot, p = (a[:, None] if a.ndim == 1 else a for a in (hot, p))
    values = [score(hot[:, k], p[:, k]) for k in range(p.shape[1]) if undefined is None or hot[:, k].any()]
    values = [one for one in values if not np.isnan(one)]
    return np.mean(values) if values else np.nan


def inputs(which, several):
    """Return scores, labels and weights of 12 samples, or of one."""
    r = np.random.default_rng(sum(map(ord, which)))
    s = np.round(r.normal(size=(N, 4) if several else N), 1)
    y, w = r.integers(0, 4 if several else 2, N), r.uniform(0.5, 2.0, N)
    match which:
        case "zeros among the weights":
            w[::3] = 0.0
        case "one class":
            y[:] = 1
        case "the other class":
            y[:] = 0
        case "all ties":
            s[...] = 0.5
        case "one sample":
            s, y, w = s[:1], y[:1], w[:1]
        case "extreme weights":
            w = 10.0 ** r.uniform(-60, 60, N)
        case "no ties":
            s = r.normal(size=s.shape)
    return s, y, w


@cache
def expected(which, several):
    """Return scikit-learn's values, with weights and without."""
    sk = pytest.importorskip("sklearn.metrics")
    s, y, w = inputs(which, several)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            given: {name: theirs(name, sk, s, y, some) for name in sorted(set(SEVERAL) - {"class_shares"})}
            for given, some in (("weighted", w), ("unweighted", np.ones(len(y))))
        }


KINDS = ["ties", "no ties", "zeros among the weights", "one class", "the other class", "all ties", "extreme weights"]
KINDS += ["one sample"]


@pytest.mark.parametrize("which", KINDS)
@pytest.mark.parametrize("several", [True, False], ids=["four scores", "one score"])
def test_values_are_those_of_scikit_learn(backend, which, several):
    if backend.name == "jax" and which == "one sample":
        return  # jax compiles for every shape
    s, y, w = inputs(which, several)
    for given, values in expected(which, several).items():
        how = {"weights": backend.asarray(w)} if given == "weighted" else {}
        for name, value in values.items():
            found = backend.asnumpy(SEVERAL[name](backend.asarray(s), backend.asarray(y), **how))
            np.testing.assert_allclose(found, value, rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("outputs", [(), (1,), (3,)])
def test_regression_is_that_of_scikit_learn(backend, outputs):
    sk = pytest.importorskip("sklearn.metrics")
    r = np.random.default_rng(3)
    for w in (WEIGHTS, 10.0 ** r.uniform(-3, 3, N)):
        y, p = r.normal(size=(2, N, *outputs)) + 5
        for name in ("mean_absolute_error", "mean_squared_error", "root_mean_squared_error", "r2"):
            expected = getattr(sk, "r2_score" if name == "r2" else name)(y, p, sample_weight=w)
            found = getattr(metrics, name)(*(backend.asarray(a) for a in (p, y)), weights=backend.asarray(w))
            np.testing.assert_allclose(backend.asnumpy(found), expected, rtol=1e-12, err_msg=name)


def test_a_weighted_target_that_does_not_vary(backend):
    t = backend.asarray([7.3, 0.1, 0.1, 0.1, np.nan])
    w = backend.asarray([0.0, 1.0, 2.0, 3.0, 0.0])
    assert_close(backend, metrics.r2(t, t, weights=w), np.asarray(1.0))
    assert_close(backend, metrics.r2(2 * t, t, weights=w), np.asarray(0.0))
    assert metrics.variance_of(t, w) == (0.0,)
    varied = metrics.variance_of(backend.asarray(TARGETS), backend.asarray(WEIGHTS))
    np.testing.assert_allclose(varied, np.cov(TARGETS.T, ddof=0, aweights=WEIGHTS).diagonal(), rtol=1e-13)
    whole = metrics.for_data(metrics.r2, backend.asarray(TARGETS), backend.asarray(WEIGHTS))
    assert_close(
        backend,
        whole(backend.asarray(NUMBERS), backend.asarray(TARGETS), weights=backend.asarray(WEIGHTS)),
        np.asarray(metrics.r2(NUMBERS, TARGETS, weights=WEIGHTS)),
    )


# Ranks


def test_a_nan_ranks_as_wrongly_as_it_can(backend):
    sk = pytest.importorskip("sklearn.metrics")
    s, worst = SCORE.copy(), SCORE.copy()
    s[[0, 1, 3, 7]] = np.nan
    worst[[0, 1, 3, 7]] = np.where(BINARY[[0, 1, 3, 7]] == 1, -99.0, 99.0)
    for weights in (np.ones(N), WEIGHTS + 0.5):
        arrays = backend.asarray(s), backend.asarray(BINARY)
        for ours, score in (("roc_auc", sk.roc_auc_score), ("average_precision", sk.average_precision_score)):
            found = value(backend, getattr(metrics, ours), *arrays, weights=weights)
            np.testing.assert_allclose(found, score(BINARY, worst, sample_weight=weights), rtol=1e-12)


@pytest.mark.parametrize("classes", [2, 4])
def test_a_row_with_a_nan_ranks_wrongly_for_every_class(backend, classes):
    y = np.arange(N) % classes
    for factor in (1.0, 5.0):  # probabilities, and scores
        s = factor * np.eye(classes)[y]
        s[0, 1] = np.nan
        found = metrics.roc_auc(backend.asarray(s), backend.asarray(y))
        assert_close(backend, found, np.asarray(5 / 6))


def test_infinite_scores_and_both_zeros_are_ranked(backend):
    s, t = 2 * [-np.inf, -0.0, 0.0, np.inf, np.inf, 3.0], 2 * [0, 1, 0, 1, 0, 1]
    assert_close(backend, metrics.roc_auc(backend.asarray(s), backend.asarray(t)), np.asarray(6.0 / 9))
    columns = np.stack([np.zeros(N), s], axis=1)
    assert_close(backend, metrics.roc_auc(backend.asarray(columns), backend.asarray(t)), np.asarray(6.0 / 9))
    four = np.stack([np.full(N, -np.inf), np.full(N, -np.inf), np.zeros(N), s], axis=1)
    found = metrics.roc_auc(backend.asarray(four), backend.asarray(np.asarray(t) + 2))
    assert_close(backend, found, np.asarray(6.0 / 9))


@pytest.mark.parametrize("classes", [2, 4])
def test_columns_are_ranked_as_their_softmax_is_and_probabilities_as_they_are(backend, classes):
    r = np.random.default_rng(5)
    s, y = r.normal(size=(N, classes)) + 10 * r.normal(size=(N, 1)), np.arange(N) % classes
    p = np.exp(s) / np.exp(s).sum(axis=1, keepdims=True)
    for metric in (metrics.roc_auc, metrics.average_precision):
        one, other = (metric(backend.asarray(a), backend.asarray(y)) for a in (s, p))
        assert_close(backend, one, backend.asnumpy(other))


def test_small_probabilities_are_told_apart(backend):
    small = np.float32(2.0) ** -np.arange(30, 30 + N, dtype="float32")  # 1 − p is 1 in float32
    rare = np.stack([1 - small, small], axis=1)
    rare[N - 1] = 5.0  # no probabilities, but without a weight
    t, w = (
        backend.asarray((np.arange(N) < 3).astype("int64")),
        backend.asarray((np.arange(N) < N - 1).astype("float64")),
    )
    assert_close(backend, metrics.roc_auc(backend.asarray(rare), t, weights=w), np.asarray(1.0, "float32"))


@pytest.mark.parametrize("shape", [(N,), (N, 1), (3, 4), (3, 4, 1)])
@pytest.mark.parametrize("target", ["int64", "uint8", "bool", "float32", "signs"])
def test_one_score_a_sample_in_every_shape(backend, shape, target):
    y = np.where(BINARY == 1, 1, -1) if target == "signs" else BINARY.astype(target)
    labels = y.reshape(shape[:2] if len(shape) == 3 else shape)
    if shape == (3, 4):
        with pytest.raises(ShapeError, match=r"^expected scores"):
            metrics.roc_auc(backend.asarray(SCORE.reshape(shape)), backend.asarray(labels))
        return
    s, t = backend.asarray(SCORE.reshape(shape)), backend.asarray(labels)
    for metric in (metrics.roc_auc, metrics.log_loss, metrics.f1):
        assert_close(backend, metric(s, t), np.asarray(metric(SCORE, BINARY)))


def test_no_samples():
    s, t = np.zeros((0, 3)), np.zeros(0, "int64")
    for metric in (metrics.f1, metrics.balanced_accuracy, metrics.log_loss):
        assert metric(s, t) == metric(s, t, weights=np.zeros(0)) == 0.0
    assert np.isnan(metrics.roc_auc(s, t))
    assert np.isnan(metrics.average_precision(s[:, 0], t))
    assert metrics.accuracy(s.astype("float32"), t, weights=np.zeros(0)).dtype == "float32"


def test_settings_that_are_none():
    told = r'^average must be "macro", "micro" or a class in 0\.\.3, got '
    for average in ("weighted", 4, -1, True, 1.0, None):
        with pytest.raises(ValueError, match=told):
            metrics.f1(SCORES, LABELS, average=average)
    with pytest.raises(ValueError, match=r"^class numbers do not say how many classes there are: pass classes=$"):
        metrics.recall(LABELS, LABELS)
    assert metrics.recall(LABELS, LABELS, classes=4) == metrics.f1(BINARY > 0, BINARY) == 1.0


def test_a_label_that_is_no_class_is_missed_and_a_nan_is_no_class(backend):
    s = np.eye(4)[[0, 1, 2, 0] * 3]
    s[3::4, 1] = np.nan
    s, t = backend.asarray(s), backend.asarray([0, 1, 9, 0] * 3)
    shares = np.asarray([[0.25, 0.25, 0, 0], [0.25, 0.25, 0.25, 0], [0.5, 0.25, 0, 0]])
    assert_close(backend, metrics.class_shares(s, t), shares)
    assert_close(backend, metrics.recall(s, t), np.asarray(1.5 / 3))
    assert_close(backend, metrics.balanced_accuracy(s, t), np.asarray(0.75))
    assert np.isnan(backend.asnumpy(metrics.log_loss(s, t)))


def test_weighted_metrics_by_name_have_a_direction():
    for name in xn.training.parts.NAMES:
        assert callable(getattr(metrics, name))
        xn.EarlyStopping(f"val_{name}")
