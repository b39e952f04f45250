"""Standardize: its formula, its fit from data of any kind, its way into files, and the warning that asks for it."""

import copy
import pickle
import re
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xpnet as xn
from xpnet.data import scan
from xpnet.layers import Context, standardize
from xpnet.testing import assert_close, check_layer

TABLE = np.random.default_rng(0).normal([5.0, -1.0, 1e5], [1.0, 0.1, 300.0], size=(200, 3))


def forward(layer, backend, x, **settings):
    return layer.forward((), x, Context(backend, **settings))[0]


# The layer

LAYERS = [
    (xn.Standardize([0.5, -2.0, 3.0], [1.0, 0.25, 4.0]), (5, 3)),
    (xn.Standardize(0.5, 2.0), (4, 2, 2)),
    (xn.Standardize(1.0, [0.5, 3.0]), (2, 3, 2)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda value: str(value))
def test_a_layer_as_any_other(backend, layer, shape):
    check_layer(layer, shape, backend=backend)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_features_of_mean_0_and_deviation_1(backend, dtype):
    y = forward(xn.Standardize.fit(TABLE), backend, backend.asarray(TABLE, dtype=dtype))
    assert y.dtype == getattr(backend.xp, dtype)
    wanted = (TABLE.astype(dtype).astype("float64") - TABLE.mean(0)) / TABLE.std(0)
    assert_close(backend, y, wanted.astype(dtype), scale=8.0 if dtype == "float64" else 32.0)


def test_nothing_is_lost_of_large_numbers_close_together():
    x = (1.7e9 + 128.0 * np.arange(8)).astype("float32")[:, None]
    y = forward(xn.Standardize.fit(x), xn.backend("numpy"), x)
    wanted = (np.arange(8) - 3.5) / np.arange(8).std()
    assert np.allclose(np.diff(y[:, 0]), np.diff(wanted), rtol=1e-6)


def test_shown_shortly():
    layer = xn.Standardize(np.arange(784.0), 2.0)
    assert str(layer) == "Standardize(784)"
    assert len(repr(layer)) < 90
    assert repr(xn.Standardize([0.5, 1.0], 2)) == "Standardize(mean=(0.5, 1.0), std=2.0)"
    assert str(xn.Standardize(0.5)) == "Standardize(mean=0.5, std=1.0)"


CONSTANT = "give 1 for a feature that is constant"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ((None,), "Standardize: mean must be a finite number, got None"),
        (([1.0, np.nan],), "Standardize: mean must be a finite number, got nan"),
        (([[1.0]],), "Standardize: mean must be a number or one for each feature, (D,), got the shape (1, 1)"),
        ((0.0, [[1.0]]), "Standardize: std must be a number or one for each feature, (D,), got the shape (1, 1)"),
        (([1.0, 2.0], [1.0]), "Standardize: mean and std must be for as many features, got 2 and 1"),
        ((0.0, 0), f"Standardize: std must be a number of at least 1.2e-38, got 0.0: {CONSTANT}"),
        ((0.0, [1, -2]), f"Standardize: std must be a number of at least 1.2e-38, got -2.0 for feature 1: {CONSTANT}"),
    ],
    ids=["none", "nan", "mean of two axes", "std of two axes", "lengths", "zero", "negative"],
)
def test_settings_that_are_none(settings, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        xn.Standardize(*settings)


def test_samples_that_do_not_fit(backend):
    net = xn.Sequential(xn.Standardize([1.0, 2.0]), xn.Linear(2, 1))
    with pytest.raises(xn.ShapeError, match=r"^Standardize\(2\) at layer 0 expects samples \(N, …, 2\), got \(5, 3\)$"):
        net.output_shape((5, 3))
    with pytest.raises(TypeError, match=r"^Standardize reads floating-point numbers, got"):
        forward(xn.Standardize(1.0), backend, backend.asarray(np.asarray([[1, 2]], dtype="int32")))
    assert net.output_shape((None, 4, 2)) == (None, 4, 1)


# Its numbers in files and copies


def model(backend="numpy", **settings):
    net = xn.Sequential(xn.Standardize.fit(TABLE), xn.Linear(3, 4), xn.Tanh(), xn.Linear(4, 2))
    return xn.Model(net, xn.cross_entropy, xn.SGD(0.1), backend=backend, **settings)


def test_saved_with_the_model_to_the_last_bit(backend, tmp_path):
    trained = model(backend)
    trained.save(tmp_path / "model")
    for again in (xn.load(tmp_path / "model", backend), copy.deepcopy(trained), pickle.loads(pickle.dumps(trained))):
        assert again.net == trained.net
        assert again.net.layers[0] == xn.Standardize.fit(TABLE)
        assert np.array_equal(again.predict(TABLE), trained.predict(TABLE))


def test_exported_to_onnx(tmp_path):
    pytest.importorskip("ndonnx", reason="ndonnx is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    path, exported = tmp_path / "net.onnx", model()
    xn.export_onnx(exported, path)
    session = onnxruntime.InferenceSession(path)
    x = TABLE.astype("float32")
    np.testing.assert_allclose(session.run(None, {"input": x})[0], exported.predict(x), atol=1e-5)
    layer = exported.net.layers[0]
    about = session.get_modelmeta().custom_metadata_map["input_scaling"]
    assert about == f'{{"mean": {list(layer.mean)}, "std": {list(layer.std)}}}'


def test_weights_for_pytorch_are_turned_behind_it():
    from xpnet.interop.torch import from_torch, to_torch

    first = (xn.Standardize([1.0, 2.0]), xn.Conv2d(2, 3, 1), xn.Standardize(0.5))
    net = xn.Sequential(*first, xn.Flatten(), xn.Linear(12, 2))
    theta = net.init(0, "numpy")
    arrays = to_torch(net, theta)
    rows = net.windows(theta)["4.weight"].reshape(2, 2, 3, 2).transpose(3, 2, 0, 1)  # (O, C, H, W)
    assert np.array_equal(arrays["4.weight"], rows.reshape(2, 12))
    assert np.array_equal(from_torch(net, arrays, "float32"), theta)


# Fitted from data


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "uint8", "bool"])
@pytest.mark.parametrize("shape", [(50, 4), (6, 5, 4), (3, 2, 5, 4)], ids=str)
def test_fit_is_numpys_mean_and_deviation(monkeypatch, dtype, shape):
    monkeypatch.setattr(standardize, "BLOCK", 320)  # ten rows of four, or less
    x = np.random.default_rng(1).normal(50.0, 9.0, shape)
    x = (x > 45).astype(dtype) if dtype == "bool" else x.astype(dtype)
    layer = xn.Standardize.fit(x)
    rows = x.reshape(-1, 4).astype("float64")
    assert np.allclose(layer.mean, rows.mean(0), rtol=1e-14)
    assert np.allclose(layer.std, rows.std(0), rtol=1e-12)


def test_fit_gives_the_same_numbers_for_every_library(backend):
    x = TABLE.astype("float32")
    assert xn.Standardize.fit(backend.asarray(x)) == xn.Standardize.fit(x) == xn.Standardize.fit(x.tolist())


@given(st.floats(-1e6, 1e6), st.integers(1, 400))
def test_a_constant_feature_gets_deviation_1(value, n):
    x = np.stack([np.full(n, value), np.arange(n)], axis=1)
    layer = xn.Standardize.fit(x)
    assert (layer.mean[0], layer.std[0]) == (value, 1.0)
    assert layer.std[1] == (pytest.approx(np.arange(n).std()) if n > 1 else 1.0)


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6, 1e9])
def test_fit_loses_nothing_to_a_large_mean(monkeypatch, offset):
    monkeypatch.setattr(standardize, "BLOCK", 8 * 64)
    deviations = np.random.default_rng(2).integers(-1000, 1000, (5000, 1)) / 1024.0  # exact beside every offset
    layer = xn.Standardize.fit(offset + deviations)
    assert layer.std[0] == pytest.approx(deviations.std(), rel=1e-13)
    assert layer.mean[0] == pytest.approx(offset + deviations.mean(), rel=1e-15)


def test_fit_where_the_first_row_lies_far_out():
    x = np.random.default_rng(2).normal(size=(1000, 1))
    x[0] = 1e8
    layer = xn.Standardize.fit(x)
    assert layer.std[0] == pytest.approx(x.std(), rel=1e-12)


class Watched:
    """Rows that can be read some at a time, and note how many were."""

    def __init__(self, rows):
        self.rows, self.shape, self.dtype, self.read = rows, rows.shape, rows.dtype, []

    def __getitem__(self, key):
        part = self.rows[key]
        self.read.append(len(part))
        return part


def test_fit_reads_what_has_rows_a_block_at_a_time_and_once(tmp_path):
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", "float32", (60_000, 20))
    x[...] = np.random.default_rng(0).normal(size=(60_000, 20))
    watched = Watched(x)
    assert xn.Standardize.fit(watched) == xn.Standardize.fit(x)
    assert sum(watched.read) == 60_000
    assert 20 * 8 * max(watched.read) <= standardize.BLOCK


@pytest.mark.parametrize(
    ("x", "error", "text"),
    [
        (np.ones(3), xn.ShapeError, "Standardize.fit expects samples (N, …, D), one a row, got the shape (3,)"),
        (np.ones((0, 3)), xn.ShapeError, "Standardize.fit expects samples (N, …, D), one a row, got the shape (0, 3)"),
        ([["a", "b"]], TypeError, "Standardize.fit expects an array of numbers, got <U1: encode or convert it first"),
        (np.ones((2, 2)) * 1j, TypeError, "Standardize.fit expects an array of numbers, got complex128: encode or"),
        (
            np.where(np.arange(12).reshape(4, 3) == 7, np.nan, 1.0),
            xn.DataError,
            "Standardize.fit: x holds nan at row 2, feature 1: clean the data first",
        ),
        (
            np.where(np.arange(12).reshape(2, 2, 3) == 8, -np.inf, 1.0),
            xn.DataError,
            "Standardize.fit: x holds -inf at row 1, feature 2: clean the data first",
        ),
    ],
    ids=["one axis", "empty", "texts", "complex", "nan", "infinity"],
)
def test_data_that_cannot_be_fitted(monkeypatch, x, error, text):
    monkeypatch.setattr(standardize, "BLOCK", 48)  # two rows of three
    with pytest.raises(error, match=f"^{re.escape(text)}"):
        xn.Standardize.fit(x)


# The warning for columns of scales far apart

NET = xn.Sequential(xn.Linear(3, 4), xn.ReLU(), xn.Linear(4, 2))


def evaluate(x, net=NET, backend="numpy"):
    xn.Model(net, xn.cross_entropy, xn.SGD(0.1), backend=backend).evaluate(x, np.zeros(x.shape[0], int))


def columns(*deviations, n=300):
    return np.random.default_rng(3).normal(0, deviations, (n, len(deviations))).astype("float32")


def test_columns_of_scales_far_apart_are_warned_of(backend):
    x = columns(1.0, 200.0, 0.01)
    wide, narrow = f"{x[:, 1].std():.3g}", f"{x[:, 2].std():.3g}"
    text = (
        f"column 1 of x has a standard deviation of {wide}, column 2 one of {narrow}, which will hardly train beside it"
    )
    remedy = "standardise it, (x - x.mean(0)) / x.std(0), or put Standardize.fit(x) first"
    for data in (x, backend.asarray(x)):
        with pytest.warns(xn.DataWarning) as record:
            evaluate(data, backend=backend)
        assert [(str(w.message), w.filename) for w in record] == [(f"{text}: {remedy}", __file__)]


SCALED = {
    "Standardize": xn.Standardize.fit(columns(1.0, 200.0, 0.01)),
    "Scale": xn.Scale([1.0, 0.005, 100.0]),
    "BatchNorm": xn.BatchNorm(3),
}


@pytest.mark.parametrize("first", SCALED.values(), ids=SCALED)
def test_a_layer_that_scales_answers_it(first):
    evaluate(columns(1.0, 200.0, 0.01), xn.Sequential(first, NET))  # no warning
    with pytest.warns(xn.DataWarning, match="standard deviation"):
        evaluate(columns(1.0, 200.0, 0.01), xn.Sequential(NET, xn.Scale(1.0)))


def table(column):
    """A column beside one of deviation 200 and one of 1."""
    x = columns(1.0, 200.0, 1.0, n=len(column))
    x[:, 2] = column
    return x


N = np.arange(3000)
QUIET = {
    "all alike": columns(0.5, 0.01, 4.0),
    "constant": table(0.1 + 0 * N),
    "constant but for rounding": table(np.float32(0.1) * (1 + 1e-7 * (N % 3))),
    "an indicator": table((N % 7 == 0) * 0.001),
    "a rare indicator": table((N % 500 == 0) * 1.0),
    "a count that is mostly 0": table((N % 50 == 0) * (N % 7) * 0.01),
    "minus 1 and 1": table(0.001 * (N % 2 * 2 - 1)),
    "integers": (40 * columns(5.0, 0.001, 1.0)).astype("int16"),
    "a factor of 900": columns(90.0, 0.1, 1.0, n=3000),
}


@pytest.mark.parametrize("x", QUIET.values(), ids=QUIET)
def test_no_false_alarm(x):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(x)


def test_sequences_and_images_are_no_tables():
    x = np.tile(columns(1.0, 200.0, 0.01)[:, None, :], (1, 2, 1))
    evaluate(x, xn.Sequential(xn.Flatten(), xn.Linear(6, 2)))  # no warning


def test_of_large_data_some_rows_are_read():
    class Rows(np.ndarray):
        taken = 0

        def __getitem__(self, key):
            part = np.asarray(super().__getitem__(key))
            Rows.taken += part.size
            return part

    x = columns(1.0, 200.0, 0.01, n=100_000).view(Rows)
    (wide, _), (narrow, _) = scan.far_apart(x, xn.backend("numpy"))
    assert (wide, narrow) == (1, 2)
    assert 0 < Rows.taken <= 3 * 1024


def test_of_a_wide_table_the_columns_own_numbers_are_named():
    x = columns(*np.ones(3000), n=40)
    x[:, scan.columns_of(3000)[700]] *= 500
    x[:, scan.columns_of(3000)[900]] /= 500
    (wide, _), (narrow, _) = scan.far_apart(x, xn.backend("numpy"))
    assert (wide, narrow) == (scan.columns_of(3000)[700], scan.columns_of(3000)[900])
