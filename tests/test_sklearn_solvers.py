import re

import numpy as np
import pytest

import xpnet as xn
from xpnet.testing import assert_close

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'xpnet[sklearn]'")

from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import PoissonRegressor
from sklearn.neural_network import MLPClassifier as TheirClassifier
from sklearn.neural_network import MLPRegressor as TheirRegressor
from sklearn.preprocessing import scale

from xpnet.interop.sklearn import MLPClassifier, MLPRegressor, Objective, half_poisson_deviance

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

BOTH = [MLPClassifier, MLPRegressor]
KINDS = ["classes", "two classes", "labels", "numbers", "several counts", "counts"]


def samples(kind):
    """Both estimators for data of a kind, and the data."""
    if "classes" in kind or kind == "labels":
        x, y = load_iris(return_X_y=True)
        x, y = (x[:100], y[:100]) if kind == "two classes" else (x, y)
        return (
            (TheirClassifier, MLPClassifier),
            scale(x),
            np.stack([y > 0, y > 1], axis=1) * 1 if kind == "labels" else y,
        )
    x, y = load_diabetes(return_X_y=True)
    x, y = scale(x)[::3], scale(y)[::3]
    if "counts" in kind:
        y = np.random.default_rng(0).poisson(np.exp(0.5 * y))
    return (TheirRegressor, MLPRegressor), x, np.stack([y, y[::-1]], axis=1) if "several" in kind else y


def pair(kind, **settings):
    """Both estimators at the same weights, after an epoch that moves nothing, and the data."""
    classes, x, y = samples(kind)
    if "counts" in kind:
        settings["loss"] = "poisson"
    still = {"solver": "sgd", "learning_rate_init": 1e-300, "max_iter": 1, "warm_start": True}
    settings = {"hidden_layer_sizes": (5,), "alpha": 0.5, "random_state": 0, "tol": 1e-9} | settings
    settings = {"learning_rate_init": 1e-3} | settings
    made = [classes[0](**settings | still).fit(x, y), classes[1](dtype="float64", **settings | still).fit(x, y)]
    made[1].coefs_, made[1].intercepts_ = made[0].coefs_, made[0].intercepts_
    return [estimator.set_params(**settings) for estimator in made], x, y


def same(ours, theirs, atol):
    for mine, other in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=atol)


# L-BFGS


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "several counts"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("steps", [3, 12])
def test_lbfgs_goes_where_theirs_goes(kind, weighted, steps):
    (theirs, ours), x, y = pair(kind, solver="lbfgs", max_iter=steps, activation="tanh")
    weights = np.random.default_rng(0).uniform(0.1, 3.0, len(x)) if weighted else None
    for estimator in (theirs, ours):
        with pytest.warns(ConvergenceWarning):
            estimator.fit(x, y, weights)
    same(ours, theirs, 1e-6)
    assert ours.n_iter_ == theirs.n_iter_ == steps
    assert ours.loss_ == pytest.approx(theirs.loss_, abs=1e-7)
    assert ours.loss_curve_[-1] == ours.loss_ == ours.best_loss_
    assert (ours.validation_scores_, ours.best_validation_score_) == (None, None)
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), rtol=1e-5)


@pytest.mark.parametrize("cls", BOTH)
def test_lbfgs_converges_and_goes_on_from_there(cls):
    x, y = (load_iris if cls is MLPClassifier else load_diabetes)(return_X_y=True)
    model = cls(
        hidden_layer_sizes=(4,),
        solver="lbfgs",
        alpha=1.0,
        tol=1e-3,
        random_state=0,
        warm_start=True,
        dtype="float64",
        max_iter=2000,
    )
    model.fit(scale(x), scale(y) if cls is MLPRegressor else y)
    assert model.score(scale(x), scale(y) if cls is MLPRegressor else y) > 0.5
    assert "CONVERGENCE" in model.history_.stopped
    assert model.loss_curve_ == model.history_["loss"] == sorted(model.loss_curve_, reverse=True)
    assert len(model.loss_curve_) == model.n_iter_ > 10
    count = model.n_iter_
    model.fit(scale(x), scale(y) if cls is MLPRegressor else y)
    assert model.n_iter_ < count / 4
    assert len(model.loss_curve_) == count + model.n_iter_


def test_lbfgs_stops_at_max_fun_and_says_so():
    _, x, y = samples("classes")
    with pytest.warns(
        ConvergenceWarning, match=r"not converged after \d+ iterations and \d+ calls .*raise max_iter, max_fun"
    ):
        model = MLPClassifier(solver="lbfgs", max_fun=5, random_state=0).fit(x, y)
    assert model.n_iter_ <= 5


def test_lbfgs_shows_the_loss_of_a_validation_set():
    _, x, y = samples("several counts")
    model = MLPRegressor(hidden_layer_sizes=(4,), solver="lbfgs", random_state=0, max_iter=9, dtype="float64")
    model.fit(x[::2], y[::2], X_val=x[1::2], y_val=y[1::2])
    assert len(model.history_["val_loss"]) == 9
    right = 0.5 * np.mean((model.predict(x[1::2]) - y[1::2]) ** 2)
    assert model.history_["val_loss"][-1] == pytest.approx(right, rel=1e-9)
    square = sum(float((w**2).sum()) for w in model.coefs_)
    loss = 0.5 * np.mean((model.predict(x[::2]) - y[::2]) ** 2) + 0.5 * model.alpha * square / len(x[::2])
    assert model.loss_ == pytest.approx(loss, rel=1e-9)  # a mean over outputs too, as theirs


def test_lbfgs_on_every_backend(backend):
    _, x, y = samples("classes")
    how = {"hidden_layer_sizes": (4,), "solver": "lbfgs", "max_iter": 5, "random_state": 0}
    model = MLPClassifier(**how).fit(backend.asarray(x.astype(np.float32)), y)
    host = MLPClassifier(backend="numpy", **how).fit(x, y)
    assert_close(
        backend, model.predict_proba(backend.asarray(x.astype(np.float32))), host.predict_proba(x), multiple=4096
    )


def test_what_lbfgs_cannot_do():
    _, x, y = samples("classes")
    with pytest.raises(ValueError, match="callbacks go with solver"):
        MLPClassifier(solver="lbfgs", callbacks=[xn.Callback()]).fit(x, y)
    for dropout in (0.5, (0.5,)):
        with pytest.raises(ValueError, match="dropout goes with solver"):
            MLPClassifier(solver="lbfgs", dropout=dropout).fit(x, y)
    MLPClassifier(solver="lbfgs", dropout=(0.0,), max_iter=1).fit(x, y)
    with pytest.raises(AttributeError, match="partial_fit"):
        MLPClassifier(solver="lbfgs").partial_fit  # noqa: B018
    assert not hasattr(MLPRegressor(solver="lbfgs"), "partial_fit")
    model = MLPRegressor(solver="lbfgs", dtype="float64")
    with pytest.warns(xn.DataWarning, match="too large"), pytest.raises(xn.NonFiniteError, match="scale X"):
        model.fit(x * 1e300, y)
    assert not hasattr(model, "model_")


# The order of the samples


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("weighted", [False, True])
def test_without_shuffling_samples_come_as_they_lie(solver, weighted, backend):
    _, x, y = samples("numbers")
    x, y = x[:30].astype(np.float32), y[:30].astype(np.float32)
    weights = np.linspace(0.5, 2.0, 30) if weighted else None
    how = {"hidden_layer_sizes": (3,), "batch_size": 8, "shuffle": False, "random_state": 0, "max_iter": 3}
    model = MLPRegressor(solver=solver, **how).fit(backend.asarray(x), backend.asarray(y), weights)
    theirs = TheirRegressor(solver=solver, **how)
    theirs.set_params(solver="sgd", learning_rate_init=1e-300, warm_start=True, max_iter=1).fit(x, y)
    start = MLPRegressor(solver="sgd", backend="numpy", **how | {"max_iter": 1})
    start.set_params(learning_rate_init=1e-300).fit(x, y)
    theirs.coefs_, theirs.intercepts_ = (
        [array.copy() for array in arrays] for arrays in (start.coefs_, start.intercepts_)
    )
    theirs.loss_curve_, theirs.best_loss_ = [], np.inf
    theirs.set_params(solver=solver, learning_rate_init=1e-3, max_iter=3).fit(x, y, weights)
    if weighted:  # ours counts each batch by the weights in it, theirs by its samples
        assert len(model.loss_curve_) == 3
    else:
        np.testing.assert_allclose(model.loss_curve_, theirs.loss_curve_, rtol=1e-4)
    for mine, other in zip(model.coefs_ + model.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True):
        np.testing.assert_allclose(backend.asnumpy(mine), other, atol=2e-4 if weighted else 2e-5)
    other = MLPRegressor(solver=solver, **how | {"shuffle": True}).fit(backend.asarray(x), backend.asarray(y), weights)
    assert not np.array_equal(backend.asnumpy(other.coefs_[0]), backend.asnumpy(model.coefs_[0]))


# Counts


@pytest.mark.parametrize("kind", ["counts", "several counts"])
def test_counts_are_learned_as_theirs_are(kind):
    (theirs, ours), x, y = pair(kind, shuffle=False, max_iter=20, batch_size=32, epsilon=1e-14, tol=0.0)
    for estimator in (theirs, ours):
        estimator.set_params(warm_start=True).fit(x, y)
    same(ours, theirs, 1e-7)
    np.testing.assert_allclose(ours.loss_curve_[1:], theirs.loss_curve_[1:], rtol=1e-7)
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), rtol=1e-7)
    assert ours.out_activation_ == theirs.out_activation_ == "exp"


def test_counts_without_a_hidden_layer_are_a_poisson_regression(tmp_path):
    _, x, y = samples("counts")
    linear = PoissonRegressor(alpha=0, tol=1e-9, max_iter=1000).fit(x, y)
    model = MLPRegressor("poisson", (), solver="lbfgs", alpha=0, tol=1e-9, dtype="float64", random_state=0).fit(x, y)
    np.testing.assert_allclose(model.predict(x), linear.predict(x), rtol=1e-4)
    model.model_.save(tmp_path / "model.safetensors")
    loaded = xn.load(tmp_path / "model.safetensors", custom=[Objective, half_poisson_deviance])
    assert np.array_equal(np.exp(loaded.predict(x)[:, 0]), model.predict(x))
    with pytest.raises(ValueError, match=r"y must be at least 0, got -1"):
        MLPRegressor("poisson").fit(x, -np.minimum(y, 1))


def test_the_deviance_of_counts(backend):
    scores, counts = np.asarray([[0.0], [1.0], [-1.0], [0.3]]), np.asarray([[0.0], [3.0], [1.0], [0.0]])
    rate = np.exp(scores)
    terms = np.where(counts > 0, counts * np.log(np.where(counts > 0, counts, 1) / rate), 0) - counts + rate
    weights = np.asarray([1.0, 2.0, 0.5, 3.0])
    value, gradient = half_poisson_deviance(backend.asarray(scores), backend.asarray(counts))
    assert float(backend.asnumpy(value)) == pytest.approx(terms.mean(), rel=1e-6)
    assert_close(backend, gradient, (rate - counts) / 4)
    value, _ = half_poisson_deviance(*map(backend.asarray, (scores, counts)), weights=backend.asarray(weights))
    assert float(backend.asnumpy(value)) == pytest.approx(np.average(terms[:, 0], weights=weights), rel=1e-6)


# What is printed


@pytest.mark.parametrize(
    "settings", [{}, {"early_stopping": True}, {"solver": "sgd", "n_iter_no_change": 1, "tol": 1.0}], ids=str
)
def test_verbose_prints_their_lines(settings, capsys):
    lines = []
    (theirs, ours), x, y = pair("classes", max_iter=4, shuffle=False, **settings)
    for estimator in (theirs, ours):
        capsys.readouterr()
        estimator.set_params(verbose=True, warm_start=True).fit(x, y)
        out, err = capsys.readouterr()
        assert err == ""
        lines.append([re.sub(r"(\d\.\d{5})\d+", r"\1", line) for line in out.splitlines() if "did not" not in line])
    assert lines[1] == lines[0]
    assert lines[1][0].startswith("Iteration 1, loss = ")


def test_nothing_is_printed_unless_asked_for_and_lbfgs_prints_too(capsys):
    _, x, y = samples("classes")
    MLPClassifier(max_iter=2).fit(x, y)
    assert capsys.readouterr() == ("", "")
    model = MLPClassifier(solver="lbfgs", max_iter=3, verbose=1).fit(x, y)
    assert capsys.readouterr().out.splitlines()[-1] == f"Iteration 3, loss = {model.loss_:.8f}"
