import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xpnet as xn
from xpnet.data import door, source
from xpnet.errors import DataError, DataWarning, NonFiniteError, ShapeError
from xpnet.testing.backends import open_backend

X = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
Y = np.asarray([0, 1, 2, 0, 1, 2])
CATEGORIES = "number its categories, such as np.unique(column, return_inverse=True)[1]"
WANTED = "the layer before it or the data must have"
NET = xn.Sequential(xn.Linear(4, 5), xn.ReLU(), xn.Linear(5, 3))


def classifier(backend="numpy", net=NET, **settings):
    return xn.Model(net, xn.cross_entropy, xn.SGD(0.1), backend=backend, **settings)


def regressor(loss=xn.mean_squared_error, outputs=1, backend="numpy"):
    return xn.Model(xn.Linear(4, outputs), loss, xn.SGD(0.1), backend=backend)


def refused(error, message, call, *args, **kwargs):
    """The call raises this error with exactly this message."""
    with pytest.raises(error) as caught:
        call(*args, **kwargs)
    assert str(caught.value) == message


def changed(array, place, value):
    new = np.array(array)
    new[place] = value
    return new


# Shapes


@pytest.mark.parametrize(
    ("net", "shape", "message"),
    [
        (
            NET,
            (6, 5),
            f"Linear(4→5) at layer 0 expects input (N, 4), got (6, 5): {WANTED} 4 features",
        ),
        (NET, (6, 2, 2), "Linear(4→5) at layer 0 expects input (N, 4), got (6, 2, 2): add Flatten() before it"),
        (NET, (4,), "Linear(4→5) at layer 0 expects input (N, 4), got (4,): give it a batch, one sample a row"),
        (
            xn.Sequential(xn.Sequential(xn.Linear(4, 5), xn.Tanh()), xn.Linear(6, 3)),
            (6, 4),
            f"Linear(6→3) at layer 1 expects input (N, 6), got (6, 5): {WANTED} 6 features",
        ),
        (
            xn.Sequential(xn.Flatten(), xn.Sequential(xn.Tanh(), xn.Linear(5, 3))),
            (6, 2, 2),
            f"Linear(5→3) at layer 1.1 expects input (N, 5), got (6, 4): {WANTED} 5 features",
        ),
        (
            xn.Sequential(xn.Residual(xn.Linear(4, 3)), xn.Linear(3, 3)),
            (6, 4),
            "Residual(Linear(4→3)) at layer 0 expects layers that keep the shape (6, 4), got (6, 3)",
        ),
    ],
)
def test_input_of_the_wrong_shape(backend, net, shape, message):
    model = classifier(backend, net)
    x, labels = np.ones(shape, "float32"), np.zeros(shape[0], int)
    refused(ShapeError, message, model.fit, x, labels)
    refused(ShapeError, message, model.evaluate, x, labels)
    refused(ShapeError, message, model.predict, x)
    assert model.state.t == 0


def test_x_and_y_must_be_as_many(backend):
    message = "x has 6 samples, y has 5: they must be as many"
    refused(ShapeError, message, classifier(backend).fit, X, Y[:5])
    refused(ShapeError, message, classifier(backend).fit, X, Y, validation=(X, Y[:5]))


# Labels


@pytest.mark.parametrize("loss", [xn.cross_entropy, xn.negative_log_likelihood])
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (changed(Y, 3, 10), "labels must be integers in 0..2, got 10 at row 3"),
        (changed(Y, 4, -1), "labels must be integers in 0..2, got -1 at row 4"),
        (changed(Y, 0, 3).astype("uint8"), "labels must be integers in 0..2, got 3 at row 0"),
        (changed(Y, 5, 200).astype("uint8"), "labels must be integers in 0..2, got 200 at row 5"),
        (changed(Y, 2, 40000).astype("uint16"), "labels must be integers in 0..2, got 40000 at row 2"),
        (changed(Y, 1, 2**32), "labels must be integers in 0..2, got 4294967296 at row 1"),
        (
            np.eye(3, dtype=int)[Y],
            "labels must be one integer a sample, (N,), got the shape (6, 3): make it 1-d; one-hot by argmax(axis=1)",
        ),
        (changed(Y.astype("uint64"), 3, 2**63), "labels must be integers in 0..2, got 9223372036854775808 at row 3"),
        (
            changed(Y.astype("uint64"), 3, 2**64 - 1),
            "labels must be integers in 0..2, got 18446744073709551615 at row 3",
        ),
        (changed(Y.astype(">i4"), 3, 256), "labels must be integers in 0..2, got 256 at row 3"),
        (["a", "b", "c", "a", "b", "c"], f"y must hold numbers, got 'a' at row 0: {CATEGORIES}"),
        ([None] * 6, "y has a missing value, None at row 0: fill it, or drop that row"),
        (np.array(["a"] * 6), f"y must hold numbers, got 'a' at row 0: {CATEGORIES}"),
        (
            Y.astype(complex),
            "y holds complex numbers: pass two real ones, np.stack([y.real, y.imag], axis=-1)",
        ),
        (
            changed(Y.astype(float), 4, 0.5),
            "labels must be integers in 0..2, got 0.5 at row 4: "
            "clean them, or use a loss for numbers, mean_squared_error",
        ),
    ],
)
def test_labels_that_are_none(backend, loss, labels, message):
    net = NET if loss is xn.cross_entropy else xn.Sequential(NET, xn.Softmax())
    model = xn.Model(net, loss, xn.SGD(0.1), backend=backend)
    refused(DataError, message, model.fit, X, labels)
    refused(DataError, message, model.evaluate, X, labels)


def test_labels_in_a_column_are_labels(backend):
    model = classifier(backend)
    assert model.evaluate(X, Y[:, None]) == model.evaluate(X, Y)


def test_one_output_has_nothing_to_choose(backend):
    remedy = "use binary_cross_entropy, or give the network 2 outputs"
    message = f"labels choose between outputs, and the network has one, with nothing to choose: {remedy}"
    for labels in (Y, Y[:, None], Y.astype(float)):
        refused(DataError, message, classifier(backend, xn.Linear(4, 1)).fit, X, labels)


def test_float_labels(backend):
    with pytest.raises(
        DataError, match=r"^labels must be integers in 0\.\.2, got (\w+\.)?float32: convert them with astype\(int\)$"
    ):
        classifier(backend).fit(X, Y.astype("float32"))


@given(st.lists(st.integers(-3, 6), min_size=1, max_size=8))
def test_labels_pass_if_and_only_if_all_are_classes(labels):
    model = classifier()
    x = np.ones((len(labels), 4))
    if all(0 <= k < 3 for k in labels):
        model.evaluate(x, labels)
    else:
        row = next(n for n, k in enumerate(labels) if not 0 <= k < 3)
        refused(
            DataError, f"labels must be integers in 0..2, got {labels[row]} at row {row}", model.evaluate, x, labels
        )


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool"])
def test_every_integer_type_will_do(backend, dtype):
    x, labels = np.abs(X * 10).astype(dtype), (Y > 0).astype(dtype)
    model, plain = classifier(backend), classifier(backend)
    assert model.evaluate(x, labels) == plain.evaluate(x.astype("float32"), (Y > 0).astype("int32"))
    assert np.array_equal(model.predict(x), plain.predict(x.astype("float32")))


def test_more_classes_than_the_type_of_the_labels_can_count():
    net = xn.Linear(4, 300)
    assert np.isfinite(classifier(net=net).evaluate(X, np.full(6, 255, "uint8"))["loss"])


def test_labels_are_compared_within_their_own_type(backend):
    net = xn.Linear(4, 300)
    for labels in (np.full(6, -1, "int8"), backend.asarray(np.full(6, -1, "int8"))):
        message = "labels must be integers in 0..299, got -1 at row 0"
        refused(DataError, message, classifier(backend, net).evaluate, X, labels)
    labels = backend.asarray(np.full(6, 127, "int8"))
    assert np.isfinite(classifier(backend, net).evaluate(X, labels)["loss"])


# Targets of the other losses


def test_targets_of_one_output_may_leave_out_its_axis(backend):
    column, row = regressor(backend=backend), regressor(backend=backend)
    column.fit(X, X[:, :1], epochs=2)
    row.fit(X, X[:, 0].tolist(), epochs=2)
    assert np.array_equal(column.predict(X), row.predict(X))


@pytest.mark.parametrize(
    "loss", [xn.mean_squared_error, xn.mean_absolute_error, xn.huber, xn.binary_cross_entropy, xn.hinge, xn.perceptron]
)
def test_targets_have_the_shape_of_the_output(loss):
    message = "y has the shape {}, the network's output {}: make them the same"
    refused(ShapeError, message.format((6, 2), (6, 1)), regressor(loss).fit, X, np.ones((6, 2)))
    refused(ShapeError, message.format((6,), (6, 2)), regressor(loss, 2).fit, X, np.ones(6))
    refused(ShapeError, message.format((6, 1), (6, 2)), regressor(loss, 2).fit, X, np.ones((6, 1)))


@pytest.mark.parametrize(
    ("loss", "target", "message"),
    [
        (xn.binary_cross_entropy, [0, 1, 1, 2, 0, 1], "targets must lie in 0..1, got 2 at row 3, column 0"),
        (xn.binary_cross_entropy, [0, 1, -1, 1, 0, 1], "targets must lie in 0..1, got -1 at row 2, column 0"),
        (xn.hinge, [1, -1, 1, -1, 0, 1], "targets must be -1 or +1, got 0 at row 4, column 0"),
        (xn.perceptron, [1.0, -1.0, 0.5, 1.0, 1.0, 1.0], "targets must be -1 or +1, got 0.5 at row 2, column 0"),
    ],
)
def test_targets_out_of_range(backend, loss, target, message):
    refused(DataError, message, regressor(loss, backend=backend).fit, X, target)


def test_bytes_may_be_signs(backend):
    regressor(xn.hinge, backend=backend).fit(X, np.ones(6, "uint8"))


# Warnings


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (changed(X, (3, 2), np.nan), "x holds nan at row 3, column 2: clean the data"),
        (changed(changed(X, (5, 0), np.nan), (1, 3), -np.inf), "x holds -inf at row 1, column 3: clean the data"),
        (changed(X, (0, 0), np.inf).reshape(6, 2, 2), "x holds inf at row 0, place (0, 0): clean the data"),
    ],
)
def test_data_that_is_not_finite_is_warned_of_with_the_place(backend, x, text):
    net = xn.Sequential(xn.Flatten(), NET)
    with pytest.warns(DataWarning) as record, pytest.raises(NonFiniteError):
        classifier(backend, net).fit(x, Y)
    assert [(str(w.message), w.filename) for w in record] == [(text, __file__)]


def test_targets_that_are_not_finite_are_warned_of(backend):
    with pytest.warns(DataWarning, match=r"^y is not finite at row 2, column 0: clean the data$"):
        regressor(backend=backend).evaluate(X, changed(X[:, 0], 2, np.nan))


BYTES = "input holds raw bytes 0..255: add Scale(1/255) as the first layer"


def image_net(*before):
    return xn.Sequential(xn.Flatten(), *before, xn.Linear(64, 3))


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "int64"])
def test_raw_bytes_of_images_are_warned_of(backend, dtype):
    x = (np.arange(6 * 64).reshape(6, 8, 8) * 7 % 256).astype(dtype)
    with pytest.warns(DataWarning) as record:
        classifier(backend, image_net()).evaluate(x, Y)
    assert [(str(w.message), w.filename) for w in record] == [(BYTES, __file__)]
    classifier(backend, image_net(xn.Scale(1 / 255))).evaluate(x, Y)  # no warning
    classifier(backend, image_net()).evaluate((x / 255).astype("float32"), Y)
    classifier(backend, image_net()).evaluate(np.minimum(x, 100), Y)
    classifier(backend, image_net()).evaluate(x + 0.5, Y)
    classifier(backend, image_net()).evaluate(-(x / 1.0), Y)


def test_a_scale_at_the_end_does_not_bring_the_input_down(backend):
    x = np.full((6, 64), 200, "uint8")
    with pytest.warns(DataWarning, match="raw bytes"):
        classifier(backend, xn.Sequential(xn.Linear(64, 3), xn.Scale(0.5))).evaluate(x, Y)


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32"])
def test_a_table_of_small_integers_is_no_image(backend, dtype):
    classifier(backend).evaluate((np.arange(24).reshape(6, 4) * 11).astype(dtype), Y)
    classifier(backend, xn.Linear(63, 3)).evaluate(np.full((6, 63), 200, dtype), Y)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint16"])
@pytest.mark.parametrize("sign", [1, -1])
def test_large_inputs_are_warned_of_with_their_column(backend, dtype, sign):
    if dtype == "uint16" and sign < 0:
        sign = 1
    x = np.abs(X).astype(dtype)
    x[4, 2], x[1, 3] = sign * 52310, 1001
    wanted = "too large to train well: standardise it, (x - x.mean(0)) / x.std(0), or put Standardize.fit(x) first"
    with pytest.warns(DataWarning) as record:
        classifier(backend).evaluate(x, Y)
    assert [str(w.message) for w in record] == [f"column 2 of x reaches {sign * 52310}, {wanted}"]
    classifier(backend, xn.Sequential(xn.Scale(1e-5), NET)).evaluate(x, Y)  # no warning
    classifier(backend).evaluate(np.full((6, 4), 1000, "float32"), Y)


def test_time_stamps_that_become_one_in_float32_are_warned_of(backend):
    x = np.tile(X.astype("float64"), (200, 1))
    x[:, 1] = 1.7e9 + np.arange(1200)
    labels = np.tile(Y, 200)
    net = xn.Sequential(xn.Scale(1e-9), NET)
    after = len(np.unique(x[:, 1].astype("float32")))
    remedy = 'subtract an offset, or make the model with dtype="float64"'
    for data in (x, x.astype("int64"), x.astype("int32"), backend.asarray(x)):
        with pytest.warns(DataWarning, match=r"^column 1 of x: \d+ distinct values become \d+ as float32: ") as record:
            classifier(backend, net).evaluate(data, labels)
        before, seen = (int(word) for word in str(record[0].message).split() if word.isdigit() and int(word) > 1)
        assert (len(record), record[0].filename) == (1, __file__)
        assert str(record[0].message).endswith(remedy)
        assert seen <= after < 0.02 * before
        classifier(backend, net, dtype="float64").evaluate(data, labels)  # no warning
    with pytest.warns(DataWarning, match=f"^y: 1024 distinct values become 10 as float32: {re.escape(remedy)}$"):
        regressor(backend=backend).evaluate(np.tile(X, (200, 1)), x[:, 1])


def test_neighbours_of_a_long_series_are_looked_at():
    x = np.stack([1.7e9 + np.arange(1e6), np.arange(1e6) % 7], axis=1)
    with pytest.warns(DataWarning, match="^column 0 of x: 1024 distinct values become 3. as float32"):
        xn.Model(xn.Sequential(xn.Scale(1e-9), xn.Linear(2, 1)), xn.mean_squared_error, xn.SGD(0.1)).evaluate(
            x, np.ones(len(x))
        )


def test_what_float32_can_tell_apart_is_not_warned_of(backend):
    net = xn.Sequential(xn.Scale(1e-9), NET)
    for x in (X.astype("float64"), np.full((6, 4), 1.7e9), 2.0**24 - np.arange(24.0).reshape(6, 4), X.astype("int16")):
        classifier(backend, net).evaluate(x, Y)
    classifier(backend, net).evaluate(np.arange(24).reshape(6, 4) + 2**24 - 24, Y)


# Settings


@pytest.mark.parametrize("name", ["epochs", "batch_size"])
@pytest.mark.parametrize(
    "value", [0, -1, 1.5, 8.0, "8", None, True, np.True_, np.float64(8), np.array([8]), np.array(8.0)]
)
def test_epochs_and_batch_size_are_counts(name, value):
    refused(
        DataError, f"{name} must be an integer of at least 1, got {value!r}", classifier().fit, X, Y, **{name: value}
    )


@pytest.mark.parametrize("value", [np.int64(3), np.uint8(3), np.array(3)])
def test_counts_of_numpy_will_do(value):
    assert all(type(n) is int and n == 3 for n in door.check_settings(value, value))
    assert len(classifier().fit(X, Y, epochs=value, batch_size=value)["loss"]) == 3


@pytest.mark.parametrize("value", [0, -1, 1.5])
def test_predict_and_evaluate_check_the_batch_size(value):
    message = f"batch_size must be an integer of at least 1, got {value!r}"
    refused(DataError, message, classifier().predict, X, batch_size=value)
    refused(DataError, message, classifier().evaluate, X, Y, batch_size=value)


@pytest.mark.parametrize("empty", [[], np.ones((0, 4))])
def test_empty_sets(backend, empty):
    message = f"x is empty: it has the shape {np.shape(empty)}, one sample a row is expected"
    refused(DataError, message, classifier(backend).fit, empty, [])
    refused(DataError, message, classifier(backend).predict, empty)
    message = "y is empty: it has the shape (0,), one sample a row is expected"
    refused(DataError, message, classifier(backend).fit, X, [])
    refused(DataError, "y is a single number: pass an array, one sample a row", classifier(backend).fit, X, 1)
    message = "x is empty: it has the shape (6, 0), one sample a row is expected"
    refused(DataError, message, classifier(backend).fit, np.ones((6, 0)), Y)


@pytest.mark.parametrize("count", [6, 7, 0, -1, 0.99, 0.01])
def test_validation_takes_some_and_leaves_some(backend, count):
    message = f"validation asks for {count} of 6 samples: take at least one and leave at least one"
    refused(DataError, message, classifier(backend).fit, X, Y, validation=count)


@pytest.mark.parametrize(
    ("validation", "came"),
    [
        (1.0, "1.0"),
        (1.5, "1.5"),
        (-0.1, "-0.1"),
        (np.nan, "nan"),
        (True, "True"),
        ("0.1", "'0.1'"),
        ([X, Y], "a list"),
        ((X,), "a tuple"),
    ],
)
def test_validation_is_a_pair_a_share_or_a_number(validation, came):
    message = (
        f"validation must be a pair (x, y), a share between 0 and 1, a number of samples, or a HoldOut, got {came}"
    )
    refused(DataError, message, classifier().fit, X, Y, validation=validation)


# Libraries and devices


def test_arrays_of_another_library_are_refused(backend):
    other = "strict" if backend.name == "numpy" else "torch" if backend.name == "strict" else "strict"
    if other == "torch":
        pytest.importorskip("torch", reason="strict's stranger is torch, which is not installed")
    foreign = xn.backend(other).asarray(X)
    remedy = f"pass a NumPy array, or make the model with backend='{other}'"
    message = rf"^x is a \w+ array on .*, but the model is on {backend.name} .*: {remedy}$"
    for call in (lambda m: m.fit(foreign, Y), lambda m: m.predict(foreign), lambda m: m.evaluate(foreign, Y)):
        with pytest.raises(TypeError, match=message):
            call(classifier(backend))
    with pytest.raises(TypeError, match=message.replace("x is", "y is")):
        classifier(backend).fit(X, xn.backend(other).asarray(Y))


def test_arrays_of_another_device_are_refused():
    with open_backend("strict:device1") as backend:
        model = classifier(backend)
        elsewhere = xn.backend("strict:device2").asarray(X)
        message = (
            "x is a array_api_strict array on array_api_strict.Device('device2'), but the model is on strict "
            "array_api_strict.Device('device1'): pass a NumPy array, or make the model on that device"
        )
        refused(TypeError, message, model.fit, elsewhere, Y)
        refused(TypeError, message, model.predict, elsewhere)


def test_an_unknown_backend_lists_the_known():
    message = 'unknown backend "cudo": choose one of auto, numpy, cupy, torch, jax, strict'
    refused(xn.BackendError, message, classifier, "cudo")


def test_what_is_wrong_changes_nothing(backend):
    model = classifier(backend)
    before = np.array(backend.asnumpy(model.theta))
    for x, y, settings in (
        (X[:, :3], Y, {}),
        (X, Y + 9, {}),
        (X, Y, {"validation": 6}),
        (X, Y, {"validation": (X, Y + 9)}),
    ):
        with pytest.raises(ValueError, match=r"expects input|labels must|validation asks"):
            model.fit(x, y, **settings)
    assert (model.state.t, model.epoch) == (0, 0)
    assert np.array_equal(backend.asnumpy(model.theta), before)
    model.fit(X, Y)


# What a run remembers of its data


def arrays(x=X, y=Y, backend="numpy", rows=None):
    chosen = xn.backend(backend)
    return source.Arrays((chosen.asarray(np.array(x)), chosen.asarray(np.array(y))), chosen, rows)


@pytest.mark.parametrize("block", [1, 16, 1 << 22])
def test_the_digest_is_of_every_number_and_shape(block, monkeypatch):
    monkeypatch.setattr(source, "HASHED", block)
    other = {
        "the last input": arrays(np.where(np.arange(24).reshape(6, 4) == 23, 9, X).astype("float32")),
        "a target": arrays(y=[0, 1, 2, 0, 1, 1]),
        "shape": arrays(X.reshape(6, 2, 2)),
        "precision": arrays(X.astype("float64")),
        "rows": arrays(rows=np.asarray([0, 2], np.int32)),
        "other rows": arrays(rows=np.asarray([0, 3], np.int32)),
    }
    digests = [one.digest() for one in (arrays(), *other.values())]
    assert len(set(digests)) == len(digests)
    assert arrays().digest() == arrays(y=Y.astype("int32")).digest()


def test_samples_are_held_out_of_those_that_are_left():
    first, held = arrays(np.arange(40).reshape(20, 2), np.arange(20)).hold_out(5, seed=1)
    kept, more = first.hold_out(5, seed=2)
    parts = [set(one.rows.tolist()) for one in (kept, more, held)]
    assert [len(part) for part in parts] == [10, 5, 5]
    assert set.union(*parts) == set(range(20))
    assert kept.rows.dtype == np.int32
