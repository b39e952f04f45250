import copy
import pickle

import numpy as np
import pytest

import xpnet as xn

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'xpnet[sklearn]'")

from scipy import sparse
from sklearn.datasets import load_diabetes, load_iris
from sklearn.neural_network import MLPClassifier as TheirClassifier
from sklearn.preprocessing import scale

from xpnet.interop.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

BOTH = [MLPClassifier, MLPRegressor]


def data(cls):
    x, y = (load_iris if cls is MLPClassifier else load_diabetes)(return_X_y=True)
    return scale(x).astype(np.float32), y if cls is MLPClassifier else scale(y).astype(np.float32)


def quick(cls, **settings):
    return cls(**{"hidden_layer_sizes": (6,), "max_iter": 5, "random_state": 0} | settings)


# Weights that are assigned


def test_weights_of_theirs_give_their_probabilities(backend):
    x, y = data(MLPClassifier)
    theirs = TheirClassifier((6,), activation="tanh", random_state=1).fit(x, y)
    ours = quick(MLPClassifier, activation="tanh", max_iter=1).fit(backend.asarray(x), y)
    before = ours.loss_curve_
    ours.coefs_, ours.intercepts_ = theirs.coefs_, theirs.intercepts_
    found = backend.asnumpy(ours.predict_proba(backend.asarray(x)))
    np.testing.assert_allclose(found, theirs.predict_proba(x), atol=1e-5)
    assert all(backend.owns(array) for array in ours.coefs_ + ours.intercepts_)
    assert ours.loss_curve_ == before


def test_one_array_is_exchanged_and_what_would_be_lost_is_refused():
    x, y = data(MLPRegressor)
    model = quick(MLPRegressor).fit(x, y)
    weights, rest = model.coefs_, model.coefs_[0]
    weights[1] = np.zeros((6, 1))
    assert np.array_equal(model.coefs_[1], np.zeros((6, 1)))
    assert np.array_equal(model.coefs_[0], rest)
    assert set(model.predict(x)) == {model.intercepts_[1][0]}
    model.intercepts_[-1] = [2.5]
    assert set(model.predict(x)) == {np.float32(2.5)}
    with pytest.raises(ValueError, match="read-only"):
        model.coefs_[0][0, 0] = 1.0
    for copied in (copy.deepcopy(model.coefs_), pickle.loads(pickle.dumps(model.coefs_))):
        assert type(copied) is list
        assert np.array_equal(copied[0], rest)


def test_weights_that_do_not_fit_change_nothing():
    x, y = data(MLPRegressor)
    model = quick(MLPRegressor).fit(x, y)
    before = model.predict(x)
    shapes = r"coefs_ must be 2 arrays of the shapes \[\(10, 6\), \(6, 1\)\], got \[\(6, 10\), \(6, 1\)\]"
    with pytest.raises(xn.ShapeError, match=shapes):
        model.coefs_ = [model.coefs_[0].T, model.coefs_[1]]
    with pytest.raises(xn.ShapeError, match=r"intercepts_ must be 2 arrays .* got \[\(1,\)\]"):
        model.intercepts_ = [np.ones(1)]
    with pytest.raises(xn.DataError, match="finite"):
        model.intercepts_[1] = np.full(1, np.nan)
    with pytest.raises(AttributeError, match="no weights yet: call fit first"):
        MLPRegressor().coefs_ = []
    assert np.array_equal(model.predict(x), before)


def test_weights_of_an_activation_are_no_coefs():
    x, y = data(MLPRegressor)
    model = quick(MLPRegressor, activation=xn.PReLU()).fit(x, y)
    assert [array.shape for array in model.coefs_ + model.intercepts_] == [(10, 6), (6, 1), (6,), (1,)]
    assert model.n_layers_ == 3


# Sparse X


@pytest.mark.parametrize("kind", [sparse.csr_array, sparse.csc_matrix, sparse.coo_array])
@pytest.mark.parametrize("settings", [{}, {"shuffle": False}, {"early_stopping": True}, {"solver": "lbfgs"}], ids=str)
@pytest.mark.parametrize("cls", BOTH)
def test_sparse_rows_train_as_dense_ones(cls, settings, kind):
    x, y = data(cls)
    x[np.abs(x) < 0.5] = 0
    weights = np.linspace(0.5, 2.0, len(x))
    how = settings | {"batch_size": 32}
    one, other = (quick(cls, **how).fit(rows, y, weights) for rows in (x, kind(x)))
    assert other.loss_curve_ == one.loss_curve_
    assert other.validation_scores_ == one.validation_scores_
    assert all(np.array_equal(a, b) for a, b in zip(one.coefs_, other.coefs_, strict=True))
    assert np.array_equal(other.predict(kind(x)), one.predict(x))
    assert other.score(kind(x), y) == one.score(x, y)
    if "solver" not in settings:
        valid = quick(cls, **how).fit(kind(x), y, weights, X_val=kind(x[::3]), y_val=y[::3])
        assert len(valid.history_["val_loss"]) == 5


def test_partial_fit_of_sparse_rows():
    x, y = data(MLPClassifier)
    one, other = (quick(MLPClassifier, shuffle=shuffle) for shuffle in (True, False))
    for _ in range(2):
        one.partial_fit(sparse.csr_array(x), y, classes=[0, 1, 2])
        other.partial_fit(sparse.csr_array(x), y, classes=[0, 1, 2])
    assert one.n_iter_ == 1
    assert len(one.loss_curve_) == 2
    assert np.array_equal(one.predict_proba(x), one.predict_proba(sparse.csr_array(x)))


@pytest.mark.parametrize("settings", [{}, {"shuffle": False}, {"solver": "lbfgs"}], ids=str)
def test_a_sparse_matrix_never_becomes_dense_whole(settings, monkeypatch):
    rows, features, seen = 900, 5000, []
    x = sparse.random_array((rows, features), density=1e-4, format="csr", dtype=np.float32, random_state=0)
    dense = sparse.csr_array.toarray

    def watched(self, *args, **how):
        seen.append(self.shape[0])
        return dense(self, *args, **how)

    monkeypatch.setattr(sparse.csr_array, "toarray", watched)
    for limit, size in (
        ("data.stream.BYTES", 1 << 20),
        ("data.stream.MOST", 4 << 20),
        ("interop.given.NUMBERS", 1 << 20),
    ):
        monkeypatch.setattr(f"xpnet.{limit}", size)
    model = quick(MLPRegressor, hidden_layer_sizes=(2,), max_iter=1, **settings).fit(x, np.ones(rows))
    assert model.predict(x).shape == (rows,)
    assert sum(seen) >= 2 * rows
    assert max(seen) <= 256


@pytest.mark.parametrize("library", ["numpy", "torch", "jax"])
def test_sparse_rows_on_other_libraries(library):
    pytest.importorskip(library, reason=f"{library} is not installed")
    x, y = data(MLPClassifier)
    one = quick(MLPClassifier, backend=library, device="cpu").fit(sparse.csr_array(x), y)
    other = quick(MLPClassifier, backend="numpy").fit(x, y)
    assert isinstance(one.predict_proba(sparse.csr_array(x)), np.ndarray)
    np.testing.assert_allclose(one.predict_proba(sparse.csr_array(x)), other.predict_proba(x), atol=1e-5)


# Precision


@pytest.mark.parametrize("cls", BOTH)
def test_the_precision_may_be_that_of_x(cls):
    x, y = data(cls)
    for given, right in ((x, "float32"), (x.astype(np.float64), "float64"), (np.round(4 * x).astype(int), "float64")):
        model = quick(cls, dtype=None).fit(given, y)
        assert {str(array.dtype) for array in model.coefs_ + model.intercepts_} == {right}
        assert model.model_.predict(given[:2]).dtype == right
    same = quick(cls, dtype="float64").fit(x.astype(np.float64), y)
    assert np.array_equal(quick(cls, dtype=None).fit(x.astype(np.float64), y).coefs_[0], same.coefs_[0])
    model = quick(cls, dtype=None, warm_start=True).fit(x, y)
    assert model.fit(x.astype(np.float64), y).coefs_[0].dtype == "float32"  # it goes on as it began


def test_the_precision_of_device_arrays(backend):
    x, y = data(MLPRegressor)
    for kind in ("float32", "float64"):
        model = quick(MLPRegressor, dtype=None).fit(backend.asarray(x, dtype=kind), backend.asarray(y))
        assert str(model.coefs_[0].dtype).endswith(str(backend.asarray(x, dtype=kind).dtype).rpartition(".")[2])


# One class


def test_a_single_class_is_always_predicted():
    x, _ = data(MLPClassifier)
    model = quick(MLPClassifier, early_stopping=True).fit(x, np.full(len(x), "only"))
    assert set(model.predict(-100 * x)) == set(model.predict(100 * x)) == {"only"}
    assert model.predict_proba(x).tolist() == [[1.0]] * len(x)
    assert model.predict_log_proba(x).tolist() == [[0.0]] * len(x)
    assert model.out_activation_ == "logistic"
