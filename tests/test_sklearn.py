import copy
import inspect
import pickle
import signal
import warnings

import numpy as np
import pytest

import xpnet as xn
from xpnet.errors import BackendError
from xpnet.testing import assert_close

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'xpnet[sklearn]'")

from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, make_multilabel_classification
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neural_network import MLPClassifier as TheirClassifier
from sklearn.neural_network import MLPRegressor as TheirRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale
from sklearn.utils.estimator_checks import parametrize_with_checks

from xpnet.interop.sklearn import MLPClassifier, MLPRegressor, Objective

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

BOTH = [MLPClassifier, MLPRegressor]
BOTH_CLASSIFIERS = [MLPClassifier, TheirClassifier]
EXACT = {
    f"check_sample_weight_equivalence_on_{kind}_data": "it asks for 1e-7, less than float32 can tell: passes in float64"
    for kind in ("dense", "sparse")
}


def iris():
    x, y = load_iris(return_X_y=True)
    return scale(x).astype(np.float32), y


def diabetes():
    x, y = load_diabetes(return_X_y=True)
    return scale(x).astype(np.float32), scale(y).astype(np.float32)


def data(cls):
    return iris() if cls is MLPClassifier else diabetes()


def quick(cls, **settings):
    return cls(**{"hidden_layer_sizes": (16,), "max_iter": 20, "random_state": 0} | settings)


def outputs(estimator, x):
    return estimator.predict_proba(x) if isinstance(estimator, MLPClassifier) else estimator.predict(x)


# The same meaning as scikit-learn's


@pytest.mark.parametrize("kind", ["classes", "two classes", "numbers", "several numbers"])
@pytest.mark.parametrize(
    "settings",
    [
        {"alpha": 3.0},
        {"solver": "sgd", "learning_rate_init": 0.1, "alpha": 1.0},
        {"solver": "sgd", "learning_rate_init": 0.05, "nesterovs_momentum": False, "momentum": 0.8},
        {"solver": "sgd", "learning_rate_init": 0.2, "learning_rate": "invscaling", "power_t": 0.3, "momentum": 0},
        {"activation": "tanh", "hidden_layer_sizes": (8, 6), "beta_1": 0.8, "beta_2": 0.99},
        {"activation": "logistic"},
        {"activation": "identity"},
    ],
    ids=str,
)
@pytest.mark.parametrize("weighted", [False, True])
def test_from_the_same_weights_it_walks_the_same_way(kind, settings, weighted):
    x, y = iris() if "classes" in kind else diabetes()
    x = x.astype(np.float64)
    if kind == "two classes":
        x, y = x[:100], y[:100]
    if kind == "several numbers":
        y = np.stack([y, -2 * y + x[:, 0]], axis=1)
    names = (TheirClassifier, MLPClassifier) if "classes" in kind else (TheirRegressor, MLPRegressor)
    # With the whole of the data in a batch no order of samples can tell them apart; 30 steps, in double precision.
    fixed = {"batch_size": len(x), "max_iter": 1, "warm_start": True, "tol": 0, "epsilon": 1e-14}
    settings = {"hidden_layer_sizes": (7,)} | fixed | settings
    weights = np.random.default_rng(0).uniform(0.0, 3.0, len(x)) if weighted else None
    theirs, ours = names[0](random_state=0, **settings), names[1](random_state=0, dtype="float64", **settings)
    theirs.fit(x, y, weights)
    ours.fit(x, y, weights)
    windows = [part.ravel() for pair in zip(theirs.coefs_, theirs.intercepts_, strict=True) for part in pair]
    ours.model_.theta = np.concatenate(windows)
    for estimator in (theirs, ours):
        estimator.set_params(max_iter=30, n_iter_no_change=100)
        estimator.fit(x, y, weights)
    assert ours.n_iter_ == theirs.n_iter_ == 30
    for mine, other in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=2e-6)
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), rtol=1e-5, atol=1e-5)
    if "classes" in kind:
        np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-5)
        np.testing.assert_allclose(ours.predict_log_proba(x), theirs.predict_log_proba(x), atol=1e-4)
    assert (ours.n_layers_, ours.n_outputs_, ours.out_activation_) == (
        theirs.n_layers_,
        theirs.n_outputs_,
        theirs.out_activation_,
    )
    assert ours.t_ == theirs.t_
    np.testing.assert_allclose(ours.loss_curve_[1:], theirs.loss_curve_[1:], rtol=1e-6, atol=1e-7)
    assert len(ours.loss_curve_) == len(theirs.loss_curve_) == 31
    assert ours.loss_ == ours.loss_curve_[-1]


class Begin(xn.Callback):
    """Let ours start from weights of theirs."""

    def __init__(self, theirs):
        pairs = zip(theirs.coefs_, theirs.intercepts_, strict=True)
        self.theta = np.concatenate([part.ravel() for pair in pairs for part in pair])

    def on_train_begin(self, model):
        if model.epoch == 0:
            model.theta = self.theta


def untrained(cls, x, y, **settings):
    return cls(**settings | {"solver": "sgd", "learning_rate_init": 1e-300, "max_iter": 1, "alpha": 0.0}).fit(x, y)


def pairs(kind):
    """Both estimators, and data of a kind."""
    x, y = iris() if "classes" in kind else diabetes()
    x = x[::3].astype(np.float64)
    y = y[::3]
    if kind == "several numbers":
        y = np.stack([y, -2 * y + x[:, 0]], axis=1)
    return (TheirClassifier, MLPClassifier) if "classes" in kind else (TheirRegressor, MLPRegressor), x, y


def same(ours, theirs, atol=1e-6):
    for mine, other in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=atol)


@pytest.mark.parametrize("kind", ["classes", "numbers", "several numbers"])
@pytest.mark.parametrize(
    "solver",
    [
        {"solver": "adam"},
        {"solver": "sgd", "momentum": 0.5, "learning_rate_init": 0.02},
        {"solver": "sgd", "momentum": 0.0, "learning_rate_init": 0.05, "learning_rate": "adaptive"},
    ],
    ids=["adam", "sgd", "adaptive"],
)
@pytest.mark.parametrize("batch_size", [16, 32])  # the last batches are short ones
def test_it_stops_where_theirs_stops(kind, solver, batch_size):
    classes, x, y = pairs(kind)
    settings = {"hidden_layer_sizes": (5,), "alpha": 0.5, "tol": 1e-3, "epsilon": 1e-14, "random_state": 0}
    settings |= {"max_iter": 400, "batch_size": batch_size, "learning_rate_init": 0.01} | solver
    settings["shuffle"] = False
    theirs = classes[0](**settings).fit(x, y)
    begin = Begin(untrained(classes[0], x, y, **settings))
    ours = classes[1](dtype="float64", callbacks=[begin], **settings).fit(x, y)
    assert ours.n_iter_ == theirs.n_iter_ < 400
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=0, atol=2e-6)
    assert ours.best_loss_ == pytest.approx(theirs.best_loss_, abs=2e-6)
    assert (ours.validation_scores_, ours.best_validation_score_) == (None, None)
    same(ours, theirs, 1e-5)


@pytest.mark.parametrize("kind", ["classes", "several numbers"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rate", ["constant", "invscaling", "adaptive"])
def test_partial_fit_goes_on_as_theirs_does(kind, weighted, rate):
    classes, x, y = pairs(kind)
    settings = {"hidden_layer_sizes": (5,), "alpha": 2.0, "random_state": 0, "solver": "sgd", "learning_rate_init": 0.1}
    settings |= {"momentum": 0.0, "learning_rate": rate, "n_iter_no_change": 2, "tol": 0.02}
    begin = Begin(untrained(classes[0], x, y, **settings))
    settings["shuffle"] = False
    theirs, ours = classes[0](**settings), classes[1](dtype="float64", callbacks=[begin], **settings)
    extra = {"classes": np.unique(y)} if kind == "classes" else {}
    weights = np.random.default_rng(0).uniform(0.1, 3.0, len(x)) if weighted else np.ones(len(x))
    for k, size in enumerate([40, 10, 25, 7, 30, 11, 9, 13, 40, 8]):
        rows = np.random.default_rng(k).permutation(len(x))[:size]
        for estimator in (theirs, ours):
            estimator.set_params(alpha=2.0 if k < 5 else 0.5 if k < 8 else 0.0)
            estimator.partial_fit(x[rows], y[rows], sample_weight=weights[rows] if weighted else None, **extra)
        same(ours, theirs)
        assert ours.model_.optimizer.lr == pytest.approx(theirs._optimizer.learning_rate, rel=1e-12)
    assert (ours.t_, ours.n_iter_) == (theirs.t_, theirs.n_iter_)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=0, atol=1e-6)
    assert ours.best_loss_ == pytest.approx(theirs.best_loss_, abs=1e-6)
    assert len(ours.history_["loss"]) == 10


@pytest.mark.parametrize("early", [False, True])
def test_warm_starts_count_on_as_theirs_do(early):
    x, y = iris()
    settings = {"hidden_layer_sizes": (8,), "warm_start": True, "early_stopping": early, "random_state": 0}
    settings |= {"n_iter_no_change": 3, "max_iter": 60, "learning_rate_init": 0.02, "tol": 1e-3}
    ours, theirs = MLPClassifier(**settings), TheirClassifier(**settings)
    for estimator in (ours, theirs):
        counts, before = [], None
        for _ in range(3):
            estimator.fit(x, y)
            counts.append(estimator.n_iter_)
            curve = estimator.validation_scores_ if early else estimator.loss_curve_
            assert len(curve) == len(estimator.loss_curve_) == sum(counts)
            assert before is None or curve[: len(before)] == before
            before = list(curve)
        assert counts[0] > 3  # once it has stopped, a warm start that brings nothing ends at once
        assert counts[-1] <= counts[0]
        assert estimator.t_ == sum(counts) * (135 if early else 150)
        best = estimator.best_validation_score_ if early else estimator.best_loss_
        assert best == (max(curve) if early else min(curve))
    assert ours.best_loss_ is theirs.best_loss_ is None if early else ours.best_validation_score_ is None


def test_a_warm_start_needs_the_same_classes():
    x, y = iris()
    for names, wrong in ((y, y[:100]), (y[:100], y)):
        model = quick(MLPClassifier, warm_start=True, max_iter=2).fit(x[: len(names)], names)
        before = model.predict(x)
        with pytest.raises(ValueError, match="classes"):
            model.fit(x[: len(wrong)], wrong)
        assert np.array_equal(model.predict(x), before)
        fewer = x[: len(names)][::5], names[::5]
        model.fit(
            x[: len(names)], names, X_val=fewer[0][:3], y_val=fewer[1][:3]
        )  # what is only looked at may lack some


@pytest.mark.parametrize(("activation", "factor"), [("relu", 6.0), ("tanh", 6.0), ("logistic", 2.0)])
def test_it_starts_where_theirs_starts(activation, factor):
    x, y = iris()
    tiny = {"solver": "sgd", "learning_rate_init": 1e-12, "max_iter": 1, "hidden_layer_sizes": (300,)}
    ours, theirs = (cls(activation=activation, random_state=0, **tiny).fit(x, y) for cls in BOTH_CLASSIFIERS)
    bound = np.sqrt(factor / 304)
    for model in (ours, theirs):
        for array in (model.coefs_[0], model.intercepts_[0]):
            assert 0.97 * bound < np.abs(array).max() <= bound * 1.000001
            assert np.abs(array).mean() == pytest.approx(bound / 2, rel=0.15)
    assert np.abs(ours.intercepts_[1]).max() > 0


def test_it_learns_as_well_as_theirs():
    x, y = load_breast_cancer(return_X_y=True)
    x = scale(x)
    scores = [cross_val_score(cls(random_state=1), x, y, cv=3).mean() for cls in (MLPClassifier, TheirClassifier)]
    assert scores[0] > scores[1] - 0.01


@pytest.mark.parametrize("cls", BOTH)
def test_weights_mean_repetition_in_float32_too(cls):
    x, y = data(cls)
    times = np.random.default_rng(3).integers(0, 4, len(x))
    one = quick(cls, batch_size=1000).fit(x, y, sample_weight=times)
    other = quick(cls, batch_size=1000).fit(np.repeat(x, times, axis=0), np.repeat(y, times))
    plain = quick(cls, batch_size=1000).fit(x, y)
    np.testing.assert_allclose(outputs(one, x), outputs(other, x), atol=2e-5)
    assert np.abs(outputs(one, x) - outputs(plain, x)).max() > 1e-3


def test_class_weights_are_sample_weights():
    x, y = iris()
    by_class = quick(MLPClassifier, class_weight={0: 1.0, 1: 2.0, 2: 5.0}).fit(x, y)
    by_sample = quick(MLPClassifier).fit(x, y, sample_weight=np.asarray([1.0, 2.0, 5.0])[y])
    assert np.array_equal(by_class.predict_proba(x), by_sample.predict_proba(x))
    rare = np.concatenate([np.arange(50), np.arange(100, 105)])
    balanced = quick(MLPClassifier, class_weight="balanced").fit(x[rare], y[rare], sample_weight=np.full(55, 3.0))
    assert (
        balanced.predict_proba(x[100:])[:, 1].mean()
        > quick(MLPClassifier).fit(x[rare], y[rare]).predict_proba(x[100:])[:, 1].mean()
    )


def test_adaptive_cuts_the_rate_and_stops():
    x, y = iris()
    model = quick(MLPClassifier, solver="sgd", learning_rate="adaptive", tol=10.0, n_iter_no_change=1, max_iter=200)
    model.fit(x, y)
    rates = np.asarray(model.history_["learning_rate"])
    assert rates[0] == 1e-3
    steps = rates[1:] / rates[:-1]
    assert set(np.round(steps, 6)) == {1.0, 0.2}
    assert model.n_iter_ < 50
    assert "tol" in model.history_.stopped


def test_tol_and_patience_stop_training_and_max_iter_warns():
    x, y = iris()
    model = quick(MLPClassifier, tol=0.5, n_iter_no_change=4, max_iter=100).fit(x, y)
    assert model.n_iter_ < 20
    with pytest.warns(ConvergenceWarning, match="raise max_iter or tol"):
        quick(MLPClassifier, max_iter=2).fit(x, y)


# What scikit-learn's have not


def test_early_stopping_holds_out_and_puts_the_best_back():
    x, y = iris()
    model = quick(MLPClassifier, early_stopping=True, max_iter=100, n_iter_no_change=3, validation_fraction=0.3)
    model.fit(x, y)
    assert len(model.validation_scores_) == model.n_iter_ == len(model.history_["val_loss"])
    assert model.best_validation_score_ == max(model.validation_scores_)
    assert model.n_iter_ > int(np.argmax(model.validation_scores_)) + 1  # it went on, and came back
    other = quick(MLPClassifier, early_stopping=True, max_iter=int(np.argmax(model.validation_scores_)) + 1)
    other.set_params(validation_fraction=0.3).fit(x, y)
    assert np.array_equal(other.predict_proba(x), model.predict_proba(x))


@pytest.mark.parametrize("cls", BOTH)
def test_a_validation_set_of_ones_own(cls):
    x, y = data(cls)
    model = quick(cls).fit(x[::2], y[::2], X_val=x[1::2], y_val=y[1::2])
    assert len(model.history_["val_loss"]) == 20
    assert model.history_["val_loss"][-1] < model.history_["val_loss"][0]
    stopped = quick(cls, early_stopping=True, max_iter=100, n_iter_no_change=1, tol=1.0)
    stopped.fit(x[::2], y[::2], X_val=x[1::2], y_val=y[1::2])
    assert stopped.best_validation_score_ == pytest.approx(stopped.score(x[1::2], y[1::2]), abs=1e-6)


def test_layers_dropout_losses_and_callbacks():
    x, y = iris()
    seen = []

    class Watch(xn.Callback):
        def on_epoch_end(self, model, history):
            seen.append(history["loss"][-1])

    net = quick(
        MLPClassifier,
        hidden_layer_sizes=(9, 8, 7),
        activation=("gelu", xn.LeakyReLU(0.1), "identity"),
        dropout=(0.1, 0.0, 0.2),
        callbacks=[Watch()],
    ).fit(x, y)
    layers = [type(layer).__name__ for layer in net.model_.net.layers]
    assert layers == ["Linear", "GELU", "Dropout", "Linear", "LeakyReLU", "Linear", "Dropout", "Linear"]
    assert seen == net.loss_curve_ == net.history_["loss"]
    x, y = diabetes()
    absolute = quick(MLPRegressor, loss="absolute_error", max_iter=60).fit(x, y)
    huber = quick(MLPRegressor, loss="huber", max_iter=60).fit(x, y)
    own = quick(MLPRegressor, loss=xn.huber, max_iter=60).fit(x, y)
    assert absolute.score(x, y) > 0.4
    assert np.array_equal(huber.predict(x), own.predict(x))
    assert not np.allclose(huber.predict(x), absolute.predict(x), atol=1e-3)
    own = quick(MLPClassifier, loss=xn.cross_entropy).fit(*iris())
    assert np.array_equal(own.predict_proba(iris()[0]), quick(MLPClassifier).fit(*iris()).predict_proba(iris()[0]))


def test_everything_is_float32():
    x, y = diabetes()
    model = quick(MLPRegressor).fit(x.astype(np.float64), y.astype(np.float64))
    assert {array.dtype for array in [*model.coefs_, *model.intercepts_, model.predict(x)]} == {np.dtype("float32")}
    assert quick(MLPClassifier).fit(*iris()).predict_proba(iris()[0]).dtype == np.float32


def test_many_labels_that_apply_together():
    x, y = make_multilabel_classification(200, 10, n_classes=4, random_state=0)
    model = quick(MLPClassifier, max_iter=100, learning_rate_init=0.01).fit(scale(x), y)
    assert model.predict(scale(x)).shape == model.predict_proba(scale(x)).shape == (200, 4)
    assert (model.predict(scale(x)) == y).mean() > 0.8
    assert model.score(scale(x), y) > 0.5


def test_the_validation_set_is_drawn_as_theirs_is():
    x = np.random.default_rng(0).normal(size=(15, 2))
    three = np.repeat(["a", "b", "c"], [1, 7, 7])
    quick(MLPClassifier, early_stopping=True, validation_fraction=0.2).fit(x, three)  # not by class, if there are many
    two = np.repeat(["rare", "frequent"], [1, 14])
    with pytest.raises(ValueError, match=r"\['rare'\]"):
        quick(MLPClassifier, early_stopping=True, validation_fraction=0.2).fit(x, two)
    x, y = iris()
    model = quick(MLPClassifier, early_stopping=True)
    parts = model._split(*model._admit(x[:100], y[:100], None, reset=True))
    assert [float(part.target.mean()) for part in parts] == [0.5, 0.5]


# Far out, and of any scale


def test_logarithms_of_probabilities_are_exact_far_out():
    x, y = iris()
    for names, count in ((y, 3), (np.minimum(y, 1), 2), (np.stack([y > 0, y > 1], axis=1).astype(int), 2)):
        model = quick(MLPClassifier, activation="identity", max_iter=100, learning_rate_init=0.05).fit(x, names)
        far = 3000 * x[[0, 149]]
        scores = model.model_.predict(far).astype(np.float64)
        if scores.shape[1] == 1:
            scores = np.concatenate([np.zeros_like(scores), scores], axis=1)
        right = np.log1p(np.exp(-np.abs(scores))) + np.maximum(-scores, 0)
        if names.ndim == 1:
            right = np.logaddexp.reduce(scores, axis=1, keepdims=True) - scores
        found = model.predict_log_proba(far)
        assert found.shape == (2, count)
        np.testing.assert_allclose(found, -right, rtol=1e-5)
        assert found.min() < -200
        near = model.predict_proba(x)
        np.testing.assert_allclose(model.predict_log_proba(x), np.log(near), rtol=1e-4, atol=1e-6)


def test_the_probability_of_the_other_class_does_not_vanish():
    x, y = iris()
    model = quick(MLPClassifier, activation="identity", max_iter=200, learning_rate_init=0.05).fit(x[:100], y[:100])
    far = model.predict_proba(8 * x[99:100])[0]
    assert far[1] == 1.0
    assert 0 < far[0] < 1e-8


@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize("scale", [1e-50, 1e-320, 1e50, 1e300])
def test_weights_of_any_scale_mean_the_same(cls, scale):
    x, y = data(cls)
    weights = np.random.default_rng(0).integers(0, 3, len(x)).astype(float)
    one, other = (quick(cls, alpha=0.0).fit(x, y, sample_weight=weights * by) for by in (1.0, scale))
    np.testing.assert_allclose(outputs(one, x), outputs(other, x), atol=1e-5)
    assert one.loss_ == pytest.approx(other.loss_, rel=1e-5)


def test_an_l2_penalty_too_large_for_the_precision_is_refused():
    x, y = iris()
    with pytest.raises(ValueError, match=r"alpha / the sum of a batch's sample_weight is 6.67e\+43.*a mean of 1"):
        quick(MLPClassifier).fit(x, y, sample_weight=np.full(150, 1e-50))
    assert quick(MLPClassifier, dtype="float64").fit(x, y, sample_weight=np.full(150, 1e-50)).loss_ > 1e40
    with pytest.raises(ValueError, match="one must be above 0"):
        quick(MLPClassifier, class_weight={0: 0.0, 1: 0.0, 2: 0.0}).fit(x, y)


# Going on


@pytest.mark.parametrize("cls", BOTH)
def test_warm_start_goes_on_and_a_cold_one_does_not(cls):
    x, y = data(cls)
    warm = quick(cls, warm_start=True, max_iter=15)
    first = outputs(warm.fit(x, y), x)
    second = outputs(warm.fit(x, y), x)
    losses = warm.loss_curve_[15:]
    assert losses == warm.history_["loss"]
    assert losses[0] < quick(cls).fit(x, y).loss_curve_[0] * 0.95
    assert not np.array_equal(first, second)
    warm.set_params(warm_start=False)
    assert np.array_equal(outputs(warm.fit(x, y), x), first)


@pytest.mark.parametrize("cls", BOTH)
def test_partial_fit_is_an_epoch(cls):
    x, y = data(cls)
    extra = {"classes": np.unique(y)} if cls is MLPClassifier else {}
    model = quick(cls, batch_size=32)
    for _ in range(5):
        model.partial_fit(x, y, **extra)
    whole = quick(cls, batch_size=32, max_iter=5).fit(x, y)
    assert np.array_equal(outputs(model, x), outputs(whole, x))
    assert model.loss_curve_ == whole.loss_curve_
    model.fit(x, y)
    assert model.n_iter_ == 20


def test_partial_fit_knows_classes_that_have_not_come_yet():
    x, y = iris()
    names = np.asarray(["a", "b", "c"])[y]
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        quick(MLPClassifier).partial_fit(x[:60], names[:60])
    model = quick(MLPClassifier).partial_fit(x[:60], names[:60], classes=["a", "b", "c"])
    model.partial_fit(x[60:], names[60:], sample_weight=np.ones(90))
    assert model.predict_proba(x).shape == (150, 3)
    with pytest.raises(ValueError, match=r"classes \['d'\]"):
        model.partial_fit(x[:1], ["d"])
    with pytest.raises(ValueError, match="those of the first call"):
        model.partial_fit(x, names, classes=["a", "b"])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_a_copy_goes_on_like_the_original(copied):
    x, y = diabetes()
    model = quick(MLPRegressor, alpha=10.0).partial_fit(x, y).partial_fit(x, y)
    other = copied(model)
    assert np.array_equal(other.predict(x), model.predict(x))
    assert np.array_equal(other.partial_fit(x, y).predict(x), model.partial_fit(x, y).predict(x))


def test_a_copy_lands_where_its_backend_is_or_on_the_usual_one():
    x, y = iris()
    model = quick(MLPClassifier, max_iter=2).fit(x, y)
    state = model.__getstate__()
    state["model_"]["backend"] = "nowhere"
    other = MLPClassifier()
    other.__setstate__(state)
    np.testing.assert_allclose(other.predict_proba(x), model.predict_proba(x), atol=1e-6)
    with pytest.raises(BackendError):
        MLPClassifier().__setstate__(state | {"backend": "nowhere"})


@pytest.mark.parametrize("again", ["fit", "copy", "pickle"])
def test_a_copy_counts_the_penalty_too(again):
    x, y = iris()
    model = quick(MLPClassifier, alpha=20.0, batch_size=32).partial_fit(x, y, classes=[0, 1, 2])
    other = (
        copy.deepcopy(model) if again == "copy" else pickle.loads(pickle.dumps(model)) if again == "pickle" else model
    )
    other.partial_fit(x, y)
    square = sum(float((w.astype(np.float64) ** 2).sum()) for w in other.coefs_)
    plain = other.model_.evaluate(x, y)["loss"]
    assert other.loss_ > plain + 0.5 * 20.0 * square / 32
    if again != "fit":
        assert other.loss_ == model.partial_fit(x, y).loss_


def test_the_model_of_an_estimator_is_saved(tmp_path):
    x, y = diabetes()
    for settings in (
        {},
        {"solver": "sgd", "learning_rate": "invscaling"},
        {"solver": "sgd", "learning_rate": "adaptive"},
    ):
        model = quick(MLPRegressor, early_stopping=True, **settings).fit(x, y)
        model.model_.save(tmp_path / "model.safetensors")
        loaded = xn.load(tmp_path / "model.safetensors", custom=[Objective])
        assert np.array_equal(loaded.predict(x)[:, 0], model.predict(x))
        assert loaded.evaluate(x, y[:, None]) == model.model_.evaluate(x, y[:, None])
        loaded.fit(x, y[:, None])
    with pytest.raises(xn.CheckpointError, match=r"Objective.*custom="):
        xn.load(tmp_path / "model.safetensors")


# Pipelines, frames, strings


def test_pipeline_grid_search_and_clone():
    x, y = load_iris(return_X_y=True)
    pipe = make_pipeline(StandardScaler(), quick(MLPClassifier, max_iter=60, learning_rate_init=0.01))
    search = GridSearchCV(pipe, {"mlpclassifier__alpha": [1e-4, 1e3], "mlpclassifier__dropout": [0.0]}, cv=2)
    search.fit(x, y)
    assert search.best_params_["mlpclassifier__alpha"] == 1e-4
    assert search.score(x, y) > 0.9
    parallel = GridSearchCV(pipe, {"mlpclassifier__activation": ["tanh", "relu"]}, cv=2, n_jobs=2).fit(x, y)
    assert parallel.best_score_ > 0.85
    assert clone(pipe).get_params()["mlpclassifier__learning_rate_init"] == 0.01


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames(library):
    frames = pytest.importorskip(library, reason=f"{library} is not installed: pip install {library}")
    x, y = load_iris(return_X_y=True)
    names = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
    frame = frames.DataFrame(dict(zip(names, x.T, strict=True)))
    series = frames.Series(np.asarray(["setosa", "versicolor", "virginica"])[y].tolist())
    model = quick(MLPClassifier, max_iter=150, learning_rate_init=0.01).fit(frame, series)
    assert model.feature_names_in_.tolist() == names
    assert model.classes_.tolist() == ["setosa", "versicolor", "virginica"]
    assert model.score(frame, series) > 0.9
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame[names[::-1]])


@pytest.mark.parametrize("two", [True, False])
def test_labels_of_any_kind(two):
    x, y = iris()
    x, y = (x[:100], y[:100]) if two else (x, y)
    for names in (["no", "yes", "what"], [7, -2, 100], [True, False] if two else [1.0, 2.0, 3.0]):
        names = names[:2] if two else names
        truth = np.asarray(names)[y]
        model = quick(MLPClassifier, max_iter=100, learning_rate_init=0.02).fit(x, truth)
        guess = model.predict(x)
        assert guess.dtype == truth.dtype
        assert (guess == truth).mean() > 0.9
        assert model.predict_proba(x).shape == (len(x), len(set(names)))


# Arrays that stay on their device


def test_device_arrays_stay_there(backend):
    x, y = iris()
    there = backend.asarray(x)
    model = quick(MLPClassifier).fit(there, backend.asarray(y))
    assert backend.owns(model.predict(there))
    assert all(backend.owns(w) for w in model.coefs_ + model.intercepts_)
    host = quick(MLPClassifier, backend="numpy").fit(x, y)
    assert_close(backend, model.predict_proba(there), host.predict_proba(x), multiple=512)
    assert np.array_equal(backend.asnumpy(model.predict(there)), host.predict(x))
    named = quick(MLPClassifier, early_stopping=True).fit(there, np.asarray(["a", "b", "c"])[y])
    assert set(named.predict(there)) <= {"a", "b", "c"}


def test_regression_on_device_arrays(backend):
    x, y = diabetes()
    there, weights = backend.asarray(x), np.linspace(0.5, 2.0, len(x))
    model = quick(MLPRegressor, dropout=0.1).fit(there, backend.asarray(y), sample_weight=backend.asarray(weights))
    guess = model.predict(there)
    assert backend.owns(guess)
    host = quick(MLPRegressor, dropout=0.1, backend="numpy").fit(x, y, sample_weight=weights)
    assert_close(backend, guess, host.predict(x), multiple=512)
    several = quick(MLPRegressor).fit(there, backend.asarray(np.stack([y, -y], axis=1)))
    assert tuple(several.predict(there).shape) == (len(x), 2)
    copied = pickle.loads(pickle.dumps(model)) if backend.name != "strict" else None
    if copied is not None:
        assert_close(backend, copied.predict(there), backend.asnumpy(guess))


def test_host_data_on_a_backend_by_name():
    pytest.importorskip("torch", reason="torch is not installed: pip install 'xpnet[torch]'")
    x, y = iris()
    model = quick(MLPClassifier, backend="torch", device="cpu").fit(x, y)
    assert isinstance(model.predict_proba(x), np.ndarray)
    assert model.model_.backend.name == "torch"
    np.testing.assert_allclose(
        model.predict_proba(x), quick(MLPClassifier, backend="numpy").fit(x, y).predict_proba(x), atol=1e-4
    )


# Bad input


@pytest.mark.parametrize("cls", BOTH)
def test_unfitted(cls):
    with pytest.raises(NotFittedError, match="fit"):
        cls().predict(np.ones((2, 3)))
    with pytest.raises(AttributeError, match="call fit first"):
        cls().coefs_  # noqa: B018


@pytest.mark.parametrize("cls", BOTH)
def test_wrong_number_of_features(cls, backend):
    x, y = data(cls)
    model = quick(cls, max_iter=1).fit(backend.asarray(x), y)
    name, count = cls.__name__, x.shape[1]
    with pytest.raises(ValueError, match=f"X has 2 features, but {name} is expecting {count} features as input"):
        model.predict(backend.asarray(x[:, :2]))


ANY_FLOAT = "must be a float in the range"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"solver": "newton"}, "The 'solver' parameter of MLP.* must be a str among .*'adam'.*Got 'newton' instead"),
        ({"shuffle": "no"}, "'shuffle' .* must be"),
        ({"max_fun": 0}, "'max_fun' .* must be an int in the range"),
        ({"learning_rate": "fast"}, "'learning_rate' parameter .* must be a str among"),
        ({"learning_rate_init": 0}, rf"'learning_rate_init' .* {ANY_FLOAT} \(0.0, inf\). Got 0"),
        ({"learning_rate_init": np.inf}, rf"'learning_rate_init' .* {ANY_FLOAT}"),
        ({"tol": -1}, rf"'tol' .* {ANY_FLOAT} \[0.0, inf\)"),
        ({"epsilon": 0.0}, rf"'epsilon' .* {ANY_FLOAT} \(0.0, inf\)"),
        ({"beta_1": 1.0}, rf"'beta_1' .* {ANY_FLOAT}"),
        ({"beta_2": -0.1}, rf"'beta_2' .* {ANY_FLOAT}"),
        ({"momentum": 1.0}, rf"'momentum' .* {ANY_FLOAT}"),
        ({"power_t": -1.0}, rf"'power_t' .* {ANY_FLOAT}"),
        ({"alpha": -1.0}, rf"'alpha' .* {ANY_FLOAT} \[0.0, inf\)"),
        ({"alpha": np.nan}, rf"'alpha' .* {ANY_FLOAT}"),
        ({"validation_fraction": 1.0}, rf"'validation_fraction' .* {ANY_FLOAT}"),
        ({"dropout": 1.0}, rf"'dropout' .* {ANY_FLOAT}"),
        ({"n_iter_no_change": 0}, "'n_iter_no_change' .* must be an int in the range"),
        ({"max_iter": 0}, "'max_iter' .* must be an int in the range"),
        ({"batch_size": 2.5}, "'batch_size' .* must be"),
        ({"early_stopping": "no"}, "'early_stopping' .* must be"),
        ({"callbacks": xn.Callback()}, "'callbacks' .* must be an instance of 'list' or"),
        ({"backend": np}, "'backend' .* must be"),
        ({"dtype": "float16"}, "'dtype' .* must be a str among .*'float32'"),
        ({"device": "cuda:0"}, "device='cuda:0' needs its library too"),
        ({"activation": "step"}, "'activation' .* must be a str among .*'tanh'"),
        ({"activation": ("step",)}, "unknown activation 'step': choose one of identity, logistic, tanh"),
        ({"activation": ("relu", "tanh")}, "activation must be one value, or one for each of the 1 hidden layers"),
        ({"dropout": (0.1, 0.2)}, "dropout must be one value, or one for each of the 1 hidden layers"),
        ({"loss": "gamma"}, "'loss' parameter .* must be"),
        ({"hidden_layer_sizes": (0,)}, "hidden_layer_sizes must be an integer of at least 1, got 0"),
        ({"hidden_layer_sizes": (2.5,)}, "hidden_layer_sizes must be an integer of at least 1, got 2.5"),
    ],
    ids=str,
)
@pytest.mark.parametrize("cls", BOTH)
def test_wrong_settings(cls, settings, message):
    with pytest.raises(ValueError, match=message):
        cls(**settings).fit(*data(cls))
    with pytest.raises(ValueError, match=message):
        cls(**settings).partial_fit(*data(cls), **({"classes": [0, 1, 2]} if cls is MLPClassifier else {}))


def test_settings_on_the_edge_pass():
    x, y = iris()
    edge = {"alpha": 0, "tol": 0, "beta_1": 0, "beta_2": 0.0, "n_iter_no_change": np.inf, "max_iter": 2, "power_t": 0}
    quick(MLPClassifier, **edge).fit(x, y)
    sizes = quick(MLPClassifier, hidden_layer_sizes=np.asarray([3, 4]), max_iter=1).fit(x, y)
    assert [w.shape for w in sizes.coefs_] == [(4, 3), (3, 4), (4, 3)]
    linear = quick(MLPClassifier, hidden_layer_sizes=(), max_iter=1).fit(x, y)
    assert [w.shape for w in linear.coefs_] == [(4, 3)]


@pytest.mark.parametrize("pair", [(MLPClassifier, TheirClassifier), (MLPRegressor, TheirRegressor)])
def test_arguments_have_the_order_and_the_defaults_of_theirs(pair):
    ours, theirs = (inspect.signature(cls).parameters for cls in pair)
    assert [name for name in ours if name in theirs] == list(theirs)
    for name in theirs:
        assert (ours[name].default, ours[name].kind) == (theirs[name].default, theirs[name].kind)
    assert {ours[name].kind for name in ours if name not in theirs} == {inspect.Parameter.KEYWORD_ONLY}
    methods = (cls.partial_fit for cls in pair)
    assert len({tuple(inspect.signature(method).parameters) for method in methods}) == 1


def test_estimators_are_compared_and_shown_as_scikit_learns():
    one, other = MLPClassifier((3,), alpha=1.0), MLPClassifier((3,), alpha=1.0)
    assert one != other
    assert hash(one) != hash(other)
    assert repr(one) == "MLPClassifier(alpha=1.0, hidden_layer_sizes=(3,))"
    assert repr(MLPRegressor("huber")) == "MLPRegressor(loss='huber')"
    assert clone(one).get_params() == one.get_params()
    assert one.set_params(loss=xn.cross_entropy).loss is xn.cross_entropy


def test_other_bad_input(backend):
    x, y = iris()
    there = backend.asarray(x)
    with pytest.raises(ValueError, match="at least 2 classes, got 1 class: "):
        MLPClassifier(loss=xn.cross_entropy).fit(there, np.zeros(150, dtype=int))
    with pytest.raises(ValueError, match="requires y to be passed"):
        MLPClassifier().fit(there, None)
    with pytest.raises(ValueError, match="samples"):
        MLPClassifier().fit(there, y[:-1])
    with pytest.raises(ValueError, match="NaN"):
        MLPClassifier().fit(backend.asarray(np.full((150, 4), np.nan)), y)
    with pytest.raises(ValueError, match="non-zero"):
        MLPClassifier().fit(there, y, sample_weight=np.zeros(150))
    with pytest.raises(ValueError, match=r"The validation set is too small"):
        MLPRegressor(early_stopping=True, validation_fraction=0.001).fit(there, x[:, 0])
    with pytest.raises(ValueError, match="early_stopping"):
        MLPRegressor(early_stopping=True).partial_fit(there, x[:, 0])
    with pytest.raises(ValueError, match="had 1 outputs"):
        quick(MLPRegressor).partial_fit(there, x[:, 0]).partial_fit(there, x[:, :2])


# Ctrl-C


class Stop(xn.Callback):
    def on_epoch_end(self, model, history):
        if len(history["epoch"]) == 3:
            signal.raise_signal(signal.SIGINT)


def impatient(prediction, target):
    signal.raise_signal(signal.SIGINT)
    return xn.mean_squared_error(prediction, target)


def test_ctrl_c_keeps_what_was_trained():
    x, y = diabetes()
    model = quick(MLPRegressor, callbacks=[Stop()], batch_size=100).fit(x, y)
    assert model.history_.stopped == "Ctrl-C"
    assert 3 <= model.n_iter_ <= 4
    assert model.predict(x).shape == y.shape


def test_ctrl_c_before_anything_was_trained():
    x, y = diabetes()
    with pytest.raises(KeyboardInterrupt):
        quick(MLPRegressor, loss=impatient, batch_size=2).fit(x, y)


@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize("why", ["Ctrl-C", "error", "not finite"])
def test_a_fit_that_fails_leaves_what_was_there(cls, why):
    x, y = data(cls)

    class Break(xn.Callback):
        def on_epoch_end(self, model, history):
            raise RuntimeError("no more")

    bad = {
        "Ctrl-C": {"loss": impatient if cls is MLPRegressor else impatient_too, "batch_size": 2},
        "error": {"callbacks": [Break()]},
        "not finite": {"solver": "sgd", "learning_rate_init": 1e4, "activation": "identity", "max_iter": 100},
    }[why]
    error = {"Ctrl-C": KeyboardInterrupt, "error": RuntimeError, "not finite": xn.NonFiniteError}[why]
    model = quick(cls, **bad)
    with pytest.raises(error):
        model.fit(x, y)
    with pytest.raises(NotFittedError):
        model.predict(x)
    assert set(vars(model)) == set(model.get_params())
    model = quick(cls, max_iter=2).fit(x, y)
    before, kept = model.predict(x), dict(vars(model))
    with pytest.raises(error):
        model.set_params(**bad).fit(x[:, :2], 10 + 2 * y)
    assert np.array_equal(model.predict(x), before)
    model.set_params(**{name: kept[name] for name in bad})
    assert {name: value is kept[name] for name, value in vars(model).items()} == dict.fromkeys(kept, True)


def impatient_too(scores, labels):
    signal.raise_signal(signal.SIGINT)
    return xn.cross_entropy(scores, labels)


def test_a_first_partial_fit_that_fails_leaves_nothing():
    x, y = iris()
    model = quick(MLPClassifier)
    with pytest.raises(ValueError, match="NaN"):
        model.partial_fit(np.full((3, 4), np.nan), y[:3], classes=[0, 1, 2])
    with pytest.raises(ValueError, match="classes must be passed"):
        model.partial_fit(x, y)
    with pytest.raises(NotFittedError):
        model.predict(x)


@pytest.mark.parametrize("cls", BOTH)
def test_the_remedy_of_what_is_not_finite_is_one_that_they_have(cls):
    x, y = data(cls)
    fast = quick(cls, solver="sgd", learning_rate_init=1e4, activation="identity", max_iter=100)
    with pytest.raises(
        xn.NonFiniteError, match=r"step .*theta is as it was before: lower learning_rate_init,.* scale X"
    ):
        fast.fit(x, y)


def test_a_penalty_that_would_take_more_than_the_whole_weight_is_named():
    x, y = iris()
    settings = {"solver": "sgd", "learning_rate_init": 0.9, "alpha": 3.0, "batch_size": 10}  # 51 samples: 1 is the last
    with pytest.raises(xn.NonFiniteError, match=r"the learning rate became .*: lower learning_rate_init, or alpha$"):
        quick(MLPClassifier, learning_rate="invscaling", **settings).fit(x[:51], y[:51])
    with pytest.raises(ValueError, match=r"too large"):
        quick(MLPClassifier, **settings).fit(x[:51], y[:51])


def test_class_weights_in_pieces():
    x, y = iris()
    with pytest.raises(ValueError, match=r'class_weight="balanced" needs all labels.*compute_class_weight'):
        quick(MLPClassifier, class_weight="balanced").partial_fit(x, y, classes=[0, 1, 2])
    rows = np.r_[0:50, 100:150]  # no sample of class 1, which has a weight; class 2 has none
    model = quick(MLPClassifier, class_weight={0: 3.0, 1: 2.0}).partial_fit(x[rows], y[rows], classes=[0, 1, 2])
    same = quick(MLPClassifier).partial_fit(
        x[rows], y[rows], classes=[0, 1, 2], sample_weight=np.repeat([3.0, 1.0], 50)
    )
    assert np.array_equal(model.predict_proba(x), same.predict_proba(x))


def test_targets_of_another_kind_are_refused_later():
    x, y = iris()
    many = np.stack([y > 0, y > 1], axis=1).astype(int)
    model = quick(MLPClassifier).partial_fit(x, many, classes=[0, 1])
    with pytest.raises(ValueError, match="of one kind"):
        model.partial_fit(x, np.minimum(y, 1))
    with pytest.raises(ValueError, match="of one kind"):
        model.partial_fit(x, np.concatenate([many, many], axis=1))


# scikit-learn's own checks


@parametrize_with_checks(
    [cls(max_iter=100, dtype=dtype) for dtype in ("float32", "float64") for cls in BOTH],
    expected_failed_checks=lambda estimator: EXACT if estimator.dtype == "float32" else {},
)
def test_check_estimator(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)
