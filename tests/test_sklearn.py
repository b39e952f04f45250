import copy
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

from xpnet.interop.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

BOTH = [MLPClassifier, MLPRegressor]
BOTH_CLASSIFIERS = [MLPClassifier, TheirClassifier]
EXACT = {
    "check_sample_weight_equivalence_on_dense_data": "it asks for 1e-7, less than float32 can tell: passes in float64"
}


@parametrize_with_checks(
    [cls(max_iter=100, dtype=dtype) for dtype in ("float32", "float64") for cls in BOTH],
    expected_failed_checks=lambda estimator: EXACT if estimator.dtype == "float32" else {},
)
def test_check_estimator(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


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
    theirs.t_ = 0  # which theirs counts on over warm starts
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


# Going on


@pytest.mark.parametrize("cls", BOTH)
def test_warm_start_goes_on_and_a_cold_one_does_not(cls):
    x, y = data(cls)
    warm = quick(cls, warm_start=True, max_iter=15)
    first = outputs(warm.fit(x, y), x)
    second = outputs(warm.fit(x, y), x)
    losses = warm.loss_curve_
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
    model = quick(MLPRegressor).partial_fit(x, y).partial_fit(x, y)
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


@pytest.mark.parametrize("cls", BOTH)
def test_sparse_is_refused(cls):
    from scipy.sparse import csr_array

    x, y = data(cls)
    with pytest.raises(TypeError, match="dense data is required"):
        cls().fit(csr_array(x), y)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"solver": "lbfgs"}, "solver must be one of adam, sgd, got 'lbfgs'"),
        ({"learning_rate": "fast"}, "learning_rate must be one of constant, invscaling, adaptive"),
        ({"dtype": "float16"}, "dtype must be one of float32, float64"),
        ({"max_iter": 0}, "max_iter must be an integer of at least 1, got 0"),
        ({"batch_size": 2.5}, "batch_size must be an integer of at least 1"),
        ({"validation_fraction": 1.0}, "validation_fraction must lie between 0 and 1"),
        ({"device": "cuda:0"}, "device='cuda:0' needs its library too"),
        ({"activation": "step"}, "unknown activation 'step': choose one of identity, logistic, tanh"),
        ({"activation": ("relu", "tanh")}, "activation must be one value, or one for each of the 1 hidden layers"),
        ({"dropout": (0.1, 0.2)}, "dropout must be one value, or one for each of the 1 hidden layers"),
        ({"loss": "poisson"}, "loss must be"),
        ({"alpha": -1.0}, "weight_decay must not be negative"),
        ({"hidden_layer_sizes": (0,)}, "integer of at least 1"),
    ],
    ids=str,
)
@pytest.mark.parametrize("cls", BOTH)
def test_wrong_settings(cls, settings, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        cls(**settings).fit(*data(cls))


def test_other_bad_input(backend):
    x, y = iris()
    there = backend.asarray(x)
    with pytest.raises(ValueError, match="1 class"):
        MLPClassifier().fit(there, np.zeros(150, dtype=int))
    with pytest.raises(ValueError, match="requires y to be passed"):
        MLPClassifier().fit(there, None)
    with pytest.raises(ValueError, match="samples"):
        MLPClassifier().fit(there, y[:-1])
    with pytest.raises(ValueError, match="NaN"):
        MLPClassifier().fit(backend.asarray(np.full((150, 4), np.nan)), y)
    with pytest.raises(ValueError, match="non-zero"):
        MLPClassifier().fit(there, y, sample_weight=np.zeros(150))
    with pytest.raises(ValueError, match=r"validation set is too small"):
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
