"""The one entrance for types: numbers come in the same on every backend, all else is refused in a line."""

import tracemalloc
from array import array

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import xpnet as xn
from xpnet.backends.numpy import NumpyBackend
from xpnet.data import door, scan
from xpnet.errors import DataError, DataWarning

X = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
NET = xn.Sequential(xn.Linear(4, 5), xn.ReLU(), xn.Linear(5, 3))
INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


def classifier(backend="numpy", net=NET, **settings):
    return xn.Model(net, xn.cross_entropy, xn.SGD(0.1), backend=backend, **settings)


def told(backend, data, error=DataError, name="x"):
    """The one line with which data are refused."""
    with pytest.raises(error) as caught:
        door.read(name, data, backend, "float32")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def home(backend, data, dtype="float32"):
    return backend.asnumpy(door.place("x", data, backend, dtype))


# Numbers


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (np.array([[True], [False]]), "uint8"),
        ([[True], [False]], "uint8"),
        (np.array([[0], [255]], "uint8"), "uint8"),
        (np.array([[0], [2**15 - 1]], "uint16"), "int16"),
        (np.array([[0], [2**15]], "uint16"), "int32"),
        (np.array([[0], [2**31 - 1]], "uint32"), "int32"),
        (np.array([[0], [2**31]], "uint32"), "int64"),
        (np.array([[0], [2**63 - 1]], "uint64"), "int64"),
        (np.array([[0], [2**64 - 1]], "uint64"), "float32"),
        (np.array([[1], [-2]], ">i2"), "int16"),
        (np.array([[1], [70000]], ">u4"), "int32"),
        (np.array([[0.5], [-2]], ">f4"), "float32"),
        (np.array([[0.5], [-2]], "float16"), "float32"),
        (np.array([[0.5], [-2]], "float64"), "float32"),
        (np.array([[0.5], [-2]], "longdouble"), "float32"),
        ([[1], [-2]], "int64"),
        ([[0.5], [-2]], "float32"),
        (((0.5,), (-2,)), "float32"),
        (range(3), "int64"),
        (array("d", [0.5, -2]), "float32"),
        (memoryview(b"ab"), "uint8"),
        (np.ma.masked_array([[0.5], [2.0]], mask=False), "float32"),
    ],
)
def test_what_becomes_of_each_type(backend, data, dtype):
    placed = home(backend, data)
    assert placed.dtype == dtype
    assert type(door.read("x", data, backend, "float32")) is np.ndarray
    assert np.array_equal(placed.astype(object), np.asarray(data).astype(object)) or dtype == "float32"
    assert np.array_equal(placed, np.asarray(data).astype(dtype))


@given(hnp.arrays(st.sampled_from(INTEGERS + [f">{k}{n}" for k in "iu" for n in (2, 4, 8)]), (3, 2)))
def test_no_integer_changes_its_value(data):
    read = door.read("x", data, NumpyBackend(), "float64")
    if read.dtype.kind == "f":
        assert data.dtype.kind == "u"
        assert data.max() >= 2**63
        assert np.array_equal(read, data.astype("float64"))
    else:
        assert read.dtype.isnative
        assert read.tolist() == data.tolist()


@given(hnp.arrays(st.sampled_from(INTEGERS), 6, elements=st.integers(0, 127)), st.integers(2, 300))
def test_labels_of_every_type_are_classes_or_refused(labels, classes):
    model = classifier(net=xn.Linear(4, classes))
    if labels.max() < classes:
        assert model.evaluate(X, labels) == model.evaluate(X, labels.astype("int64"))
    else:
        with pytest.raises(DataError, match=rf"^labels must be integers in 0\.\.{classes - 1}, got \d+ at row \d$"):
            model.evaluate(X, labels)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "uint16", "uint32", "uint64", "bool", "int8"])
@pytest.mark.parametrize("library", ["torch", "jax"])
def test_types_of_the_library_are_as_those_of_numpy(library, dtype):
    pytest.importorskip(library, reason=f"{library} is not installed")
    backend = xn.backend(library)
    if library == "jax" and dtype == "uint64":
        pytest.skip("JAX has no uint64 without 64-bit types")
    plain = np.array([[0, 1, 1, 0]] * 6)
    data = backend.xp.asarray(plain)
    data = backend.xp.astype(data, getattr(backend.xp, dtype))
    expected = {"bool": "uint8", "uint16": "int16", "uint32": "int32", "uint64": "int64", "int8": "int8"}
    placed = door.place("x", data, backend, "float32")
    assert backend.owns(placed)
    assert backend.asnumpy(placed).dtype == expected.get(dtype, "float32")
    assert np.array_equal(backend.asnumpy(placed), plain)
    if library == "jax" and dtype not in ("bfloat16", "uint32"):
        return  # the model sees what was placed, and compiles anew for every type
    model = classifier(backend)
    assert np.array_equal(backend.asnumpy(model.predict(data)), model.predict(plain.astype("float32")))
    if "float" not in dtype:
        assert model.evaluate(X, data[:, 1]) == model.evaluate(X, plain[:, 1])


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_wide_unsigned_integers_of_the_library_never_wrap(library):
    pytest.importorskip(library, reason=f"{library} is not installed")
    backend = xn.backend(library)
    labels = backend.xp.asarray(np.array([0, 1, 2, 65534, 1, 1], "uint16"))
    with pytest.raises(DataError, match=r"^labels must be integers in 0\.\.2, got 65534 at row 3$"):
        classifier(backend).fit(X, labels)


def test_complex_numbers_of_the_library_are_refused(backend):
    if backend.name == "strict" and not hasattr(backend.xp, "complex64"):
        pytest.skip("no complex numbers here")
    data = backend.xp.astype(backend.asarray(X), backend.xp.complex64)
    assert told(backend, data) == "x holds complex numbers: pass two real ones, np.stack([x.real, x.imag], axis=-1)"
    assert told(backend, np.ones((2, 2), complex)) == told(backend, data)


def test_bool_of_the_library_is_bytes(backend):
    data = backend.asarray(X) > 0
    assert np.array_equal(home(backend, data), (X > 0).astype("uint8"))
    assert home(backend, data).dtype == np.uint8


def test_a_tensor_that_requires_a_gradient_is_data():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = torch.tensor(X, requires_grad=True)
    model = classifier("torch")
    placed = door.place("x", x, model.backend, "float32")
    assert not placed.requires_grad
    assert placed.data_ptr() == x.data_ptr()
    history = model.fit(x, np.arange(6) % 3, epochs=1)
    assert np.isfinite(history["loss"][0])
    assert x.grad is None
    plain = torch.tensor(X)
    assert door.place("x", plain, model.backend, "float32") is plain


def test_jax_without_64_bits():
    pytest.importorskip("jax", reason="JAX is not installed")
    backend = xn.backend("jax")
    assert backend.xp.asarray(np.ones(1)).dtype != np.float64, "64-bit types are on"
    for data in (np.arange(6), np.arange(6).astype("uint64"), np.arange(6.0), np.arange(6).astype("uint32")):
        placed = door.place("x", data, backend, "float32")
        assert placed.dtype == ("float32" if data.dtype.kind == "f" else "int32")
        assert np.array_equal(placed, data)
    with pytest.raises(TypeError, match=r"^JAX makes int32 of int64, which cannot hold 0\.\.4294967295$"):
        door.place("x", np.array([0, 2**32 - 1]), backend, "float32")


# The range of float32


@pytest.mark.parametrize("dtype", ["float64", "longdouble"])
@pytest.mark.parametrize("value", [1e300, -1e39])
def test_a_number_beyond_float32_is_refused_with_its_place(backend, dtype, value, monkeypatch):
    monkeypatch.setattr(scan, "BLOCK", 64)  # a row or two
    x = X.astype(dtype)
    x[2, 1], x[4, 3] = np.nan, value
    remedy = 'float32 ends at 3.4e+38: scale it, or make the model with dtype="float64"'
    assert told(backend, x) == f"x holds {value} at row 4, column 3, {remedy}"
    assert told(backend, x[:, 3], name="y") == f"y holds {value} at row 4, {remedy}"
    if dtype == "float64":
        assert told(backend, backend.asarray(x)) == told(backend, x)
        assert home(backend, x, "float64")[4, 3] == value
    regression = xn.Model(xn.Linear(4, 1), xn.mean_squared_error, xn.SGD(0.1), backend=backend)
    with pytest.raises(DataError, match=r"^y holds"):
        regression.fit(X, x[:, 3])


def test_infinity_and_the_largest_number_are_no_overflow(backend):
    top = float(np.finfo("float32").max)
    x = np.array([[np.inf, -np.inf], [np.nan, top], [-top, 1e-300]])
    for data in (x, backend.asarray(x)):
        assert np.array_equal(home(backend, data), x.astype("float32"), equal_nan=True)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@given(st.integers(1, 40), st.integers(1, 3), st.data())
def test_what_is_not_finite_is_found_wherever_it_stands(value, rows, columns, data):
    row, column = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    x = np.random.default_rng(rows).normal(size=(rows, columns)).astype("float32")
    x[row, column] = value
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "BLOCK", 4 * columns * data.draw(st.integers(1, 5)))  # blocks of 1 to 5 rows
        for layout in (x, np.asfortranarray(x), x[::-1]):
            at = rows - 1 - row if layout.strides[0] < 0 else row
            with pytest.warns(DataWarning) as record:
                door.check_inputs("x", layout, xn.Linear(columns, 1), layout.shape, NumpyBackend())
            assert [str(w.message) for w in record] == [f"x holds {value} at row {at}, column {column}: clean the data"]


@given(st.data())
def test_extremes_and_the_first_are_those_of_the_whole(data):
    x = data.draw(hnp.arrays(st.sampled_from(["float32", "int8", "uint64"]), hnp.array_shapes(min_dims=1, max_dims=3)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "BLOCK", data.draw(st.integers(1, 64)))
        low, high = scan.extremes(x, NumpyBackend())
        assert np.array_equal([low, high], [x.min(), x.max()], equal_nan=x.dtype.kind == "f")
        assert np.array_equal(np.concatenate([x[rows] for rows in scan.blocks(x)]), x, equal_nan=x.dtype.kind == "f")
        places = np.argwhere(x > 3)
        assert scan.first(x, lambda xp, x: x > 3, NumpyBackend()) == (tuple(places[0]) if len(places) else None)


def test_extremes_on_a_device(backend):
    for bad, place in ((np.nan, (5, 3)), (-np.inf, (0, 0)), (np.inf, (3, 1))):
        x = np.array(X)
        x[place] = bad
        assert not scan.finite(*scan.extremes(backend.asarray(x), backend))
        assert scan.first(backend.asarray(x), lambda xp, x: ~xp.isfinite(x), backend) == place
    assert scan.extremes(backend.asarray(X), backend) == (X.min(), X.max())
    assert scan.first(backend.asarray(X), lambda xp, x: ~xp.isfinite(x), backend) is None


# What is no array of numbers


def batches():
    yield X


class Loader:
    """Like a loader of batches: iterable, with a length."""

    def __iter__(self):
        return iter([(X[:3], X[:3, 0]), (X[3:], X[3:, 0])])

    def __len__(self):
        return 2


class Samples:
    """Like a data set of samples: by number."""

    def __getitem__(self, k):
        return X[k], 0.0

    def __len__(self):
        return 6


class Unreadable:
    def __array__(self, dtype=None, copy=None):
        raise TypeError("can't convert cuda:0 device type tensor to numpy.\nUse Tensor.cpu()")


class Sparse:
    shape, dtype, nnz = (6, 4), np.dtype("float32"), 3

    def toarray(self):
        return X


MASKED = np.ma.masked_array(X, mask=np.arange(24).reshape(6, 4) == 6)
COLUMN = "number its categories, such as np.unique(column, return_inverse=True)[1]"
ONCE = (
    "which can be read once: collect it into an array, np.stack(list(x)) of samples, np.concatenate(list(x)) of batches"
)
REFUSED = [
    (None, "x is missing: pass an array, one sample a row"),
    ("abc", "x is a str: pass an array of numbers, one sample a row"),
    (b"abc", "x is a bytes: pass an array of numbers, one sample a row"),
    (1.5, "x is a single number: pass an array, one sample a row"),
    (np.array(3), "x is a single number: pass an array, one sample a row"),
    (batches(), f"x is a generator, {ONCE}"),
    (map(abs, [1]), f"x is a map, {ONCE}"),
    (
        Loader(),
        "x is a Loader, not an array: if it gives batches, collect them, x, y = map(np.concatenate, zip(*batches))",
    ),
    ({1, 2}, "x is a set, not an array: if it gives batches, collect them, x, y = map(np.concatenate, zip(*batches))"),
    (Samples(), "x is a Samples: collect its samples into arrays, x, y = map(np.stack, zip(*dataset))"),
    ({"a": [1, 2]}, "x is a dict: make its columns one array, np.column_stack(list(x.values()))"),
    ([[1, 2], [3, 4], [5]], "x must have rows of one length, but row 0 has 2 and row 2 has 1: pad or cut them"),
    ([1, [2, 3]], "x must have rows of one length, but row 0 has 1 and row 1 has 2: pad or cut them"),
    (Sparse(), "x is sparse (Sparse): use x.toarray()"),
    (MASKED, "x is masked at row 1, column 2: fill it, x.filled(0), or drop those rows"),
    (np.array([["1", "b"]]), f"x must hold numbers, got '1' at row 0, column 0: {COLUMN}"),
    ([[1.5, None]], "x has a missing value, None at row 0, column 1: fill it, or drop that row"),
    (np.array([1, np.nan, "a"], object), "x has a missing value, nan at row 1: fill it, or drop that row"),
    (np.array([1, 2.5], object), "x holds numbers as Python objects: convert them, x.astype(float)"),
    (np.array([1, {}], object), "x must hold numbers, got a dict at row 1: make it one array of numbers"),
    (
        np.array(["2026-01-01"], "M8[D]"),
        "x holds dates (datetime64[D]): subtract a date and divide by a unit, such as np.timedelta64(1, 'D')",
    ),
    (
        np.array([3], "m8[s]"),
        "x holds dates (timedelta64[s]): divide by a unit, such as np.timedelta64(1, 'D')",
    ),
    (np.zeros(2, "i4,f4"), "x must hold numbers, got [('f0', '<i4'), ('f1', '<f4')]: make it one array of numbers"),
    (
        Unreadable(),
        "x is a Unreadable that NumPy cannot read (can't convert cuda:0 device type tensor to numpy.): pass an array",
    ),
]


@pytest.mark.parametrize(("data", "message"), REFUSED, ids=lambda item: type(item).__name__)
def test_what_is_no_array_of_numbers_is_refused_with_the_remedy(backend, data, message):
    if type(data).__name__ == "generator":
        data = batches()
    assert told(backend, data) == message


@pytest.mark.parametrize("call", ["fit", "evaluate", "objective"])
def test_missing_targets_are_missing(backend, call):
    with pytest.raises(
        DataError, match=r"^y is missing: pass an array, one sample a row, or a source of both, xn.Rows\(x, y\)$"
    ):
        getattr(classifier(backend), call)(X, None)


def test_remedies_work():
    x, y = map(np.concatenate, zip(*Loader(), strict=True))
    assert np.array_equal(x, X)
    x, y = map(np.stack, zip(*(Samples()[k] for k in range(6)), strict=True))
    assert (x.shape, y.shape) == ((6, 4), (6,))
    days = (np.array(["2026-01-01", "2026-01-03"], "M8[D]") - np.datetime64("2026-01-01")) / np.timedelta64(1, "D")
    assert days.tolist() == [0.0, 2.0]


@pytest.mark.parametrize("kind", ["csr_array", "coo_matrix"])
def test_sparse_matrices(backend, kind):
    sparse = pytest.importorskip("scipy.sparse", reason="SciPy is not installed")
    assert told(backend, getattr(sparse, kind)(X)) == f"x is sparse ({kind}): use x.toarray()"


def test_sparse_tensors_and_loaders_of_pytorch(backend):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    tensor = torch.tensor(X)
    assert told(backend, tensor.to_sparse()) == "x is sparse (Tensor): use x.to_dense()"
    data = torch.utils.data.TensorDataset(tensor, tensor[:, 0])
    collect = "collect its samples into arrays, x, y = map(np.stack, zip(*dataset))"
    assert told(backend, data) == f"x is a TensorDataset: {collect}"
    loader = torch.utils.data.DataLoader(data, batch_size=4)
    collect = "if it gives batches, collect them, x, y = map(np.concatenate, zip(*batches))"
    assert told(backend, loader) == f"x is a DataLoader, not an array: {collect}"
    for way, source in ((np.stack, data), (np.concatenate, loader)):
        x, y = map(way, zip(*source, strict=True))
        assert np.array_equal(x, X)
        assert np.array_equal(y, X[:, 0])


# Tables


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_tables(backend, library):
    lib = pytest.importorskip(library, reason=f"{library} is not installed")
    table = lib.DataFrame({"a": [1.5, 2.5], "b": [True, False], "c": [3, 4]})
    assert np.array_equal(home(backend, table), [[1.5, 1, 3], [2.5, 0, 4]])
    assert np.array_equal(home(backend, table["c"]), [3, 4])
    mixed = lib.DataFrame({"a": [1.5, 2.5], "city": ["Rome", "Oslo"], "n": [3, 4], "street": ["x", "y"]})
    text = "str" if library == "pandas" else "String"
    columns = f"'city' ({text}), 'street' ({text})"
    assert told(backend, mixed) == f"x must hold numbers, but not all its columns do: encode or drop {columns}"
    assert told(backend, mixed["city"]) == f"x must hold numbers, got 'Rome' at row 0: {COLUMN}"


def test_tables_with_missing_values(backend):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    polars = pytest.importorskip("polars", reason="polars is not installed")
    some = pandas.array([1, None], dtype="Int64")
    table = pandas.DataFrame({"a": [1.5, 2.5], "age": some, "b": [True, False]})
    assert told(backend, table) == "column 'age' of x has missing values: fill them, or drop those rows"
    assert np.array_equal(home(backend, table.fillna({"age": 0})), [[1.5, 1, 1], [2.5, 0, 0]])
    assert np.isnan(home(backend, pandas.Series([1, None]))[1])  # NaN of a float column is NaN
    assert np.array_equal(home(backend, pandas.Series([1, 2], dtype="Int64")), [1, 2])
    for data in (pandas.Series(some), polars.Series([1, None])):
        assert told(backend, data) == "x has missing values: fill them, or drop those rows"
    for data in (pandas.DataFrame({"age": some}), polars.DataFrame({"a": [1.5, 2.5], "age": [1, None]})):
        assert told(backend, data) == "column 'age' of x has missing values: fill them, or drop those rows"
    for data in (polars.Series([1, None]), polars.DataFrame({"a": [1.5, 2.5], "age": [1, None]})):
        assert np.array_equal(home(backend, data.fill_null(0)).shape, data.shape)


# Cost, and the user's own settings


def test_host_data_of_the_right_type_are_not_copied(tmp_path):
    backend = NumpyBackend()
    for dtype in ("float32", "uint8", "int8", "int64"):
        x = np.zeros((5, 3), dtype)
        assert door.read("x", x, backend, "float32") is x
    for dtype in ("bool", "uint16", "uint32", "uint64"):
        x = np.zeros((5, 3), dtype)
        assert np.shares_memory(door.read("x", x, backend, "float32"), x)
    on_disk = np.memmap(tmp_path / "x", "float32", "w+", shape=(5, 3))
    assert np.shares_memory(door.read("x", on_disk, backend, "float32"), on_disk)


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_no_mask_as_large_as_the_data_is_made(dtype):
    x, labels = np.ones((200_000, 20), dtype), np.zeros(200_000, "int32")
    expected = 4 * x.size if dtype == "float64" else 0
    tracemalloc.start()
    try:
        door.admit(x, labels, xn.Linear(20, 3), xn.cross_entropy, NumpyBackend(), "float32")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < expected + 2 * scan.BLOCK  # a mask would be 4 million bytes


def test_the_door_works_where_floating_point_errors_raise(backend):
    x = X.astype("float64")
    x[0, 0] = 1e-300
    with np.errstate(all="raise"):
        model = classifier(backend)
        assert home(backend, x)[0, 0] == 0
        labels = np.arange(6) % 3
        door.admit(x, labels, NET, xn.cross_entropy, model.backend, "float32")
        x[0, 0] = np.nan
        with pytest.warns(DataWarning, match="^x holds nan at row 0, column 0: clean the data$"):
            door.admit(x, labels, NET, xn.cross_entropy, model.backend, "float32")
        x[0, 0] = 1e300
        assert "x holds 1e+300 at row 0, column 0, float32 ends at" in told(backend, x)
