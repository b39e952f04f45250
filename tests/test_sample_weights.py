"""Weights of samples and of classes: in the loss, the metrics, the history, the validation."""

from functools import partial

import numpy as np
import pytest

import xpnet as xn

RNG = np.random.default_rng(8)
X = RNG.normal(size=(60, 5))
Y = RNG.integers(0, 3, 60)
TIMES = RNG.integers(0, 4, 60)


def model(backend, loss=xn.cross_entropy, metrics=("accuracy",), outputs=3, **settings):
    settings = {"dtype": "float64"} | settings
    return xn.Model(xn.Linear(5, outputs), loss, xn.SGD(0.1), backend=backend, metrics=list(metrics), **settings)


def theta(one):
    return one.backend.asnumpy(one.theta)


def test_a_weight_counts_as_so_many_samples(backend):
    """One step on all samples, their weights whole numbers: the step on as many copies, and 0 leaves one out."""
    weighed, copied = model(backend), model(backend)
    left_out = np.where((TIMES == 0)[:, None], 900.0, X)
    one = weighed.fit(left_out, Y, epochs=3, batch_size=60, sample_weight=TIMES)
    rows = np.repeat(np.arange(60), TIMES)
    two = copied.fit(X[rows], Y[rows], epochs=3, batch_size=len(rows))
    assert np.allclose(theta(weighed), theta(copied), atol=1e-13)
    for name in ("loss", "accuracy", "gradient_norm"):
        assert one[name] == pytest.approx(two[name], abs=1e-12)
    assert weighed.evaluate(X, Y, 7, sample_weight=TIMES) == pytest.approx(
        weighed.evaluate(X[rows], Y[rows]), abs=1e-12
    )


def test_the_history_weighs_batches_by_what_counts_in_them():
    """At a learning rate of 0 the epoch's numbers are those of all samples, in whatever batches."""
    one = xn.Model(
        xn.Linear(5, 3), xn.cross_entropy, xn.SGD(0.0), backend="numpy", metrics=["accuracy"], dtype="float64"
    )
    weights = RNG.random(60) * 5
    for size in (1, 7, 60):
        history = one.fit(X, Y, batch_size=size, sample_weight=weights)
        expected = one.evaluate(X, Y, sample_weight=weights)
        assert history["loss"][-1] == pytest.approx(expected["loss"], rel=1e-12)
        assert history["accuracy"][-1] == pytest.approx(expected["accuracy"], rel=1e-12)


def test_parts_of_a_step_are_weighed_by_what_counts_in_them(backend):
    whole, parts = model(backend), model(backend)
    weights = np.where(np.arange(60) < 30, 0.0, RNG.random(60))
    one = whole.fit(X, Y, epochs=2, batch_size=60, sample_weight=weights)
    two = parts.fit(X, Y, epochs=2, batch_size=12, accumulate=5, sample_weight=weights)
    assert np.allclose(theta(whole), theta(parts), atol=1e-13)
    assert one["loss"] == pytest.approx(two["loss"], abs=1e-12)


def test_balanced_classes_weigh_what_scikit_learn_weighs():
    utils = pytest.importorskip("sklearn.utils")
    rare = np.where(np.arange(60) < 50, 0, np.arange(60) % 3)
    given = utils.compute_sample_weight("balanced", rare)
    one, two, three = model("numpy"), model("numpy"), model("numpy")
    a = one.fit(X, rare, epochs=2, batch_size=7, class_weight="balanced", validation=(X, rare))
    b = two.fit(X, rare, epochs=2, batch_size=7, sample_weight=given, validation=(X, rare))
    numbers = [{name: column for name, column in history.items() if name != "seconds"} for history in (a, b)]
    assert numbers[0] == numbers[1]
    three.fit(X, rare, epochs=2, batch_size=7, class_weight=dict(zip(rare.tolist(), given.tolist(), strict=True)))
    assert np.array_equal(theta(one), theta(three))


@pytest.mark.parametrize("given", ["a pair", "a share"])
def test_class_weights_are_for_the_training_alone(given):
    rare = np.where(np.arange(60) < 50, 0, 1)
    one = model("numpy", outputs=2)
    held = xn.HoldOut(20, last=True)
    x, y, validation = (X[:40], rare[:40], (X[40:], rare[40:])) if given == "a pair" else (X, rare, held)
    if given == "a pair":
        y = rare[20:]
    history = one.fit(x, y, validation=validation, class_weight={1: 5.0})
    assert history["val_loss"][-1] == one.evaluate(X[40:], rare[40:])["loss"]


def test_balanced_is_by_what_is_trained_on():
    rare = np.where(np.arange(60) < 50, 0, 1)
    one, two = model("numpy", outputs=2), model("numpy", outputs=2)
    one.fit(X, rare, validation=xn.HoldOut(8, last=True), class_weight="balanced")
    two.fit(X[:52], rare[:52], class_weight={0: 52 / (2 * 50), 1: 52 / (2 * 2)})
    assert np.array_equal(theta(one), theta(two))


@pytest.mark.parametrize(("loss", "y"), [(xn.binary_cross_entropy, Y % 2), (xn.hinge, 2 * (Y % 2) - 1)])
def test_one_score_a_sample_has_classes_too(backend, loss, y):
    low, high = int(y.min()), int(y.max())
    one, two = model(backend, loss, outputs=1), model(backend, loss, outputs=1)
    one.fit(X, y.astype(float), batch_size=13, class_weight={high: 3.0})
    two.fit(X, y, batch_size=13, sample_weight=np.where(y == low, 1.0, 3.0))
    assert np.array_equal(theta(one), theta(two))


def test_weights_lie_where_they_lie(backend):
    one, two = model(backend), model(backend)
    weights = RNG.random(60)
    one.fit(X, Y, sample_weight=backend.asarray(weights), class_weight={1: 2.0})
    two.fit(backend.asarray(X), backend.asarray(Y), sample_weight=weights, class_weight={1: 2.0})
    assert np.array_equal(theta(one), theta(two))


def test_weights_and_ignored_labels_count_together():
    y = np.where(np.arange(60) % 4 == 0, -1, Y)
    one = model("numpy", partial(xn.cross_entropy, ignore_index=-1), [partial(xn.metrics.accuracy, ignore_index=-1)])
    weights = RNG.random(60)
    kept = y >= 0
    expected = one.evaluate(X[kept], y[kept], sample_weight=weights[kept])
    assert one.evaluate(X, y, 7, sample_weight=weights) == pytest.approx(expected, rel=1e-12)


def test_a_run_with_weights_resumes(tmp_path):
    path, weights = tmp_path / "run.safetensors", RNG.random(60)

    class Once(xn.Callback):
        def on_epoch_end(self, model, history):
            if model.epoch == 2:
                raise RuntimeError("stopped")

    whole, cut = model("numpy"), model("numpy")
    whole.fit(X, Y, epochs=4, batch_size=7, sample_weight=weights)
    with pytest.raises(RuntimeError, match="stopped"):
        cut.fit(X, Y, epochs=4, batch_size=7, sample_weight=weights, callbacks=[Once()], checkpoint=path, every=1)
    again = xn.load(path, "numpy")
    with pytest.raises(xn.DataError, match="the data are not those that this run was trained on"):
        again.resume(X, Y)
    again.resume(X, Y, sample_weight=weights)
    assert np.array_equal(theta(again), theta(whole))


def unweighed(prediction, target):
    return xn.cross_entropy(prediction, target)


def metric(prediction, target):
    return xn.metrics.accuracy(prediction, target)


W = RNG.random(60)
WRONG = {
    "negative": (
        {"sample_weight": -W},
        r"^sample_weight must be at least 0 .*, got -0.\d+ at row 0: 0 leaves a sample out$",
    ),
    "NaN": (
        {"sample_weight": np.where(W[5] == W, np.nan, W)},
        r"^sample_weight must be at least 0 .*, got nan at row 5: ",
    ),
    "huge": (
        {"sample_weight": W * 1e35},
        r"^sample_weight must be .* at most 1e\+30, got .* at row 0: divide by the mean$",
    ),
    "zero": ({"sample_weight": 0 * W}, r"^sample_weight leaves no sample any weight: one must be above 0$"),
    "short": (
        {"sample_weight": W[1:]},
        r"^sample_weight must be 1-d, one number a sample, \(60,\), got the shape \(59,\)$",
    ),
    "a column": ({"sample_weight": W[:, None]}, r"^sample_weight must be 1-d, .* got the shape \(60, 1\)$"),
    "a dict": (
        {"sample_weight": {0: 1.0}},
        r"^sample_weight has a number for each sample, got a dict: .* class_weight$",
    ),
    "a word": ({"class_weight": "balance"}, r"^class_weight must be \"balanced\" or a dict .*, got 'balance'$"),
    "a list": (
        {"class_weight": [1, 2, 3]},
        r"^class_weight must be \"balanced\" or a dict of weights by class, got \[",
    ),
    "a class": ({"class_weight": {5: 1.0}}, r"^class_weight names the class 5: cross_entropy has 0, 1, 2$"),
    "text": (
        {"class_weight": {"cat": 1.0}},
        r"^class_weight must have numbers for classes and weights, got 'cat': 1.0$",
    ),
    "below 0": ({"class_weight": {1: -2.0}}, r"^class_weight must be at least 0 and finite, got -2.0 for class 1$"),
}


@pytest.mark.parametrize("case", WRONG)
def test_weights_that_are_none_are_refused(case):
    settings, text = WRONG[case]
    with pytest.raises(ValueError, match=text):
        model("numpy").fit(X, Y, **settings)


def test_what_takes_no_weights_says_so():
    with pytest.raises(
        xn.DataError, match=r"the loss unweighed.*: samples are weighed, give it the argument weights=None"
    ):
        model("numpy", unweighed).fit(X, Y, sample_weight=W)
    with pytest.raises(
        xn.DataError, match=r"the metric metric.*samples are weighed, give it the argument weights=None"
    ):
        model("numpy", metrics=[metric]).fit(X, Y, sample_weight=W)
    with pytest.raises(
        xn.DataError, match=r"class_weight is for classes, and mean_squared_error has none: pass sample_w"
    ):
        model("numpy", xn.mean_squared_error, []).fit(X, X[:, :3], class_weight="balanced")
    with pytest.raises(xn.DataError, match=r"class_weight needs one class a sample, got targets \(60, 3\)"):
        model("numpy").fit(X, np.eye(3)[Y], class_weight={0: 2.0})
