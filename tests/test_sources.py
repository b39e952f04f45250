"""Sources of rows: the same bits as arrays, containers of many libraries, what a bad source is told, resume."""

import signal
import threading
import time
import tracemalloc

import numpy as np
import pytest

import xpnet as xn
from xpnet.data import ahead, scan, stream
from xpnet.data.stream import windowed

RNG = np.random.default_rng(5)
X = RNG.normal(size=(300, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 300)
W = RNG.integers(0, 3, 300).astype(np.float32)


def model(backend, loss=xn.cross_entropy, **settings):
    net = xn.Sequential(xn.Linear(6, 8), xn.ReLU(), xn.Dropout(0.2), xn.Linear(8, 3))
    return xn.Model(net, loss, xn.Adam(1e-2), backend=backend, metrics=["accuracy"], **settings)


def bits(one):
    return one.backend.asnumpy(one.theta).tobytes()


def numbers(history):
    return {name: column for name, column in history.items() if name != "seconds"}


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few rows, so that an epoch has many."""
    monkeypatch.setattr(stream, "BYTES", 64 * X[0].nbytes)


# The same as arrays


@pytest.mark.parametrize("weights", [None, W], ids=["unweighed", "weighed"])
@pytest.mark.usefixtures("small_blocks")
def test_a_source_trains_to_the_bits_of_arrays(backend, weights):
    arrays, source = model(backend), model(backend)
    one = arrays.fit(X, Y, epochs=2, batch_size=16, validation=0.2, sample_weight=weights)
    two = source.fit(xn.Rows(X, Y, weights), epochs=2, batch_size=16, validation=0.2)
    assert bits(arrays) == bits(source)
    assert numbers(one) == numbers(two)
    assert arrays.evaluate(X, Y, sample_weight=weights) == source.evaluate(xn.Rows(X, Y, weights))
    predicted = source.predict(xn.Rows(X))
    assert np.array_equal(predicted, arrays.predict(X))
    assert np.array_equal(source.predict(xn.Rows(X, Y)), predicted)
    assert np.array_equal(source.predict_proba(xn.Rows(X)), xn.softmax(predicted))


@pytest.mark.usefixtures("small_blocks")
def test_a_tuple_of_inputs_and_tokens_come_from_a_source(backend):
    tokens = RNG.integers(0, 9, (100, 4)).astype(np.uint8)

    def build():
        words = xn.Sequential(xn.Embedding(9, 5), xn.Pooled("mean"))
        net = xn.Sequential(xn.Parallel(words, xn.Linear(6, 5), join="concat"), xn.Linear(10, 3))
        return xn.Model(net, xn.cross_entropy, xn.SGD(0.1), backend=backend)

    arrays, source = build(), build()
    arrays.fit((tokens, X[:100]), Y[:100], epochs=2, batch_size=16)
    source.fit(xn.Rows((tokens, X[:100]), Y[:100]), epochs=2, batch_size=16)
    assert bits(arrays) == bits(source)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("way", ["last", "stratify", "groups"])
def test_what_is_held_out_of_a_source_is_what_is_held_out_of_arrays(way):
    wanted = xn.HoldOut(0.3, **{way: np.arange(300) % 7 if way == "groups" else True})
    one, two = model("numpy"), model("numpy")
    histories = [one.fit(X, Y, validation=wanted), two.fit(xn.Rows(X, Y), validation=wanted)]
    assert numbers(histories[0]) == numbers(histories[1])
    assert bits(one) == bits(two)


@pytest.mark.usefixtures("small_blocks")
def test_r2_and_balanced_classes_read_the_targets_of_a_source_first():
    y = (X[:, :1] * 2 + 1).astype(np.float32)

    def build():
        return xn.Model(xn.Linear(6, 1), xn.mean_squared_error, xn.SGD(0.1), backend="numpy", metrics=["r2"])

    assert numbers(build().fit(X, y, epochs=2)) == numbers(build().fit(xn.Rows(X, y), epochs=2))
    one, two = model("numpy"), model("numpy")
    one.fit(X, Y, class_weight="balanced")
    two.fit(xn.Rows(X, Y), class_weight="balanced")
    assert bits(one) == bits(two)


# Containers


def torch_tensor(x):
    return pytest.importorskip("torch").from_numpy(x)


def memory_map(x, folder):
    np.save(folder / "x.npy", x)
    return np.load(folder / "x.npy", mmap_mode="r")


def h5py_data(x, folder):
    return pytest.importorskip("h5py").File(folder / "x.h5", "w").create_dataset("x", data=x, chunks=(7, *x.shape[1:]))


def zarr_data(x, folder):
    zarr = pytest.importorskip("zarr")
    made = zarr.create_array(str(folder / "x.zarr"), shape=x.shape, dtype=x.dtype, chunks=(7, *x.shape[1:]))
    made[:] = x
    return made


def dask_data(x, folder):
    return pytest.importorskip("dask.array").from_array(x, chunks=(7, *x.shape[1:]))


def columns(x):
    return {f"c{k}": x[:, k] for k in range(x.shape[1])}


def pandas_table(x, folder):
    return pytest.importorskip("pandas").DataFrame(columns(x))


def polars_table(x, folder):
    return pytest.importorskip("polars").DataFrame(columns(x))


def arrow_table(x, folder):
    return pytest.importorskip("pyarrow").table(columns(x))


def parquet_files(x, folder):
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow_table(x, folder), folder / "x.parquet", row_group_size=50)
    return pytest.importorskip("pyarrow.dataset").dataset(folder / "x.parquet")


def hugging_face(x, folder):
    return pytest.importorskip("datasets").Dataset.from_dict(columns(x))


KEPT = [
    memory_map,
    h5py_data,
    zarr_data,
    dask_data,
    pandas_table,
    polars_table,
    arrow_table,
    parquet_files,
    hugging_face,
]
ASKED = np.asarray([299, 0, 5, 5, 17, 18, 3, 140, 0])


@pytest.mark.parametrize("container", [lambda x, folder: x, lambda x, folder: torch_tensor(x), *KEPT])
def test_rows_reads_any_container_in_the_order_asked(container, tmp_path):
    source = xn.Rows(container(X, tmp_path), Y)
    x, y = source[ASKED]
    assert len(source) == 300
    assert type(x) is np.ndarray
    assert np.array_equal(x, X[ASKED])
    assert np.array_equal(y, Y[ASKED])


def test_a_table_of_one_column_is_an_array_of_its_own_shape(tmp_path):
    datasets = pytest.importorskip("datasets")
    images = RNG.integers(0, 255, (30, 4, 4)).astype(np.uint8)
    table = datasets.Dataset.from_dict({"image": images, "label": np.arange(30)}).with_format("numpy")
    x, y = xn.Rows(table.select_columns("image"), table.select_columns("label"))[ASKED[2:7]]
    assert np.array_equal(x, images[ASKED[2:7]])
    assert np.array_equal(y, ASKED[2:7])


def test_a_data_set_in_pytorchs_style_gives_samples():
    torch = pytest.importorskip("torch")

    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return 300

        def __getitem__(self, k):
            assert isinstance(k, int)
            return torch.from_numpy(X[k]), int(Y[k])

    for data in (Images(), torch.utils.data.Subset(Images(), range(300))):
        x, y = xn.Rows(data)[ASKED]
        assert np.array_equal(x, X[ASKED])
        assert np.array_equal(y, Y[ASKED])
    one, two = model("numpy"), model("numpy")
    one.fit(X, Y)
    two.fit(xn.Rows(Images()))
    assert bits(one) == bits(two)
    with pytest.raises(
        xn.DataError, match=r"AssertionError: .*: if it reads a row at a time, wrap it, xn.Rows.source.$"
    ):
        one.fit(Images())


class Recorded:
    """Rows that lie in a file: they are read in the order in which they lie, each once."""

    shape = X.shape

    def __init__(self):
        self.asked = []

    def __len__(self):
        return len(X)

    def __getitem__(self, rows):
        self.asked.append(np.array(rows))
        return X[rows]


def test_what_lies_in_a_file_is_read_in_order_and_once():
    file = Recorded()
    model("numpy").fit(xn.Rows(file, Y), epochs=2, batch_size=16)
    assert len(file.asked) >= 4
    assert all((rows[1:] > rows[:-1]).all() for rows in file.asked)


# Windows


def test_a_window_holds_few_stretches_and_an_epoch_every_row():
    rows = np.delete(np.arange(1000, dtype=np.int32), [3, 500, 501])
    order = windowed(rows, 100, 20, np.random.default_rng(0))
    assert np.array_equal(np.sort(order), rows)
    stretches = [len(set((order[k : k + 100] // 20).tolist())) for k in range(0, 997, 100)]
    assert max(stretches) <= 7
    assert not np.array_equal(order, windowed(rows, 100, 20, np.random.default_rng(1)))
    assert order[:100].max() > 500  # stretches of all the file
    inside = order[:100] // 20
    assert len(np.flatnonzero(inside[1:] != inside[:-1])) > 20  # mixed, not one stretch after the other


def test_each_window_is_read_at_once_and_the_run_resumes(tmp_path):
    file = Recorded()
    whole = model("numpy")
    whole.fit(xn.Rows(file, Y, window=64, stretch=16), epochs=3, batch_size=16)
    read = [len(rows) for rows in file.asked[1:]]
    assert read == [64, 64, 64, 64, 44] * 3
    assert not np.array_equal(file.asked[1], file.asked[6])
    cut = model("numpy")
    path = tmp_path / "run.safetensors"
    with pytest.raises(xn.DataError, match="OSError: gone"):
        cut.fit(
            Failing(8, "raise", xn.Rows(X, Y, window=64, stretch=16)), epochs=3, batch_size=16, checkpoint=path, every=1
        )
    again = xn.load(path, "numpy")
    again.resume(xn.Rows(Recorded(), Y, window=64, stretch=16), checkpoint=path)
    assert bits(again) == bits(whole)


# Bad sources


class Failing:
    """A source that is no longer what it was from the k-th time on that it is read."""

    def __init__(self, k, how, source=None):
        self.left, self.how, self.source = k, how, source or xn.Rows(X, Y)
        self.window, self.stretch = self.source.window, self.source.stretch

    def __len__(self):
        return 300 - (self.left < 0 and self.how == "length")

    def __getitem__(self, rows):
        self.left -= 1
        x, y, *weights = self.source[rows]
        if self.left > 0:
            return (x, y, *weights)
        match self.how:
            case "raise":
                raise OSError("gone\nfor good")
            case "type":
                x = x.astype(np.float64)
            case "shape":
                x = x[:, :5]
            case "rows":
                y = y[1:]
            case "three":
                return x, y, y
            case "label":
                y = np.where(np.arange(len(y)) == 3, 7, y)
            case "nothing":
                return None
        return x, y


PROBLEMS = {
    "raise": r"^block 2 of the source \(48 rows, the first is \d+\): OSError: gone$",
    "type": r"^block 2 .* all samples must be like the first, x of float32 \(6,\) a sample, got x of float64 \(6,\) a",
    "shape": r"^block 2 .* must be like the first, x of float32 \(6,\) a sample, got x of float32 \(5,\) a sample$",
    "rows": r"^block 2 .*: 48 rows were asked for, got 47 of y$",
    "three": r"^block 2 .*: all samples must be like the first, 2 arrays, got 3$",
    "label": r"^block 2 .*: labels must be integers in 0..2, got 7 at row \d+$",
    "nothing": r"^block 2 .*: a source gives \(x, y\) or \(x, y, weights\), got a NoneType$",
}


@pytest.mark.parametrize("how", PROBLEMS)
@pytest.mark.usefixtures("small_blocks")
def test_a_source_that_fails_is_told_where_and_theta_is_the_last_good_one(how):
    bad, whole = model("numpy"), model("numpy")
    with pytest.raises(ValueError, match=PROBLEMS[how]) as caught:
        bad.fit(Failing(3, how), epochs=3, batch_size=16)  # read once before the first block
    assert "\n" not in str(caught.value)
    assert bad.state.t == 3
    assert [thread.name for thread in threading.enumerate() if "reads ahead" in thread.name] == []
    bad.resume(xn.Rows(X, Y))
    whole.fit(X, Y, epochs=3, batch_size=16)
    assert bits(bad) == bits(whole)


@pytest.mark.usefixtures("small_blocks")
def test_a_run_from_a_source_resumes_to_the_same_bits(backend, tmp_path):
    path, cut, whole = tmp_path / "run.safetensors", model(backend), model(backend)
    one = whole.fit(xn.Rows(X, Y, W), epochs=3, batch_size=16)
    with pytest.raises(xn.DataError, match="OSError: gone"):
        cut.fit(Failing(10, "raise", xn.Rows(X, Y, W)), epochs=3, batch_size=16, checkpoint=path, every=1)
    again = xn.load(path, backend)
    assert 0 < again.underway.position < 300
    two = again.resume(xn.Rows(X, Y, W), checkpoint=path)
    assert bits(again) == bits(whole)
    assert numbers(one) == numbers(two)


def test_the_row_of_a_bad_label_is_the_sources_own():
    y = Y.copy()
    y[123] = 9
    with pytest.raises(xn.DataError, match=r"got 9 at row 123$"):
        model("numpy").fit(xn.Rows(X, y))


def test_a_source_that_grows_is_told():
    with pytest.raises(xn.DataError, match=r"had 300 rows when training began and has 299 now: nothing may change it"):
        model("numpy").fit(Failing(2, "length"), epochs=3, batch_size=300)


class Slow(xn.Rows):
    """A source that takes its time once."""

    def __init__(self, seconds, at, then=lambda: None):
        super().__init__(X, Y)
        self.seconds, self.at, self.then, self.wake = seconds, at, then, threading.Event()

    def __getitem__(self, rows):
        self.at -= 1
        if self.at == 0:
            self.then()
            self.wake.wait(self.seconds)
        return super().__getitem__(rows)


@pytest.mark.usefixtures("small_blocks")
def test_a_source_that_blocks_is_told_and_ctrl_c_leaves_it(monkeypatch):
    monkeypatch.setattr(ahead, "PATIENCE", 0.2)
    one = model("numpy")
    with pytest.warns(xn.DataWarning, match=r"^block 3 of the source has not come for 0.2 s: .* Ctrl-C stops$"):
        one.fit(Slow(0.5, 4), batch_size=16)
    other = model("numpy")
    interrupt = threading.Timer(0.3, lambda: signal.raise_signal(signal.SIGINT))
    monkeypatch.setattr(ahead, "PATIENCE", 60.0)
    began = time.perf_counter()
    slow = Slow(4.0, 4, interrupt.start)
    history = other.fit(slow, batch_size=16)
    assert history.stopped == "Ctrl-C"
    assert 0 < other.state.t < 19
    assert time.perf_counter() - began < 3
    slow.wake.set()
    other.resume(xn.Rows(X, Y))
    assert bits(one) == bits(other)


def test_the_thread_of_a_source_gives_no_warnings_but_the_first_rows_do():
    bad = xn.Rows(np.where(np.arange(6) == 0, np.nan, X).astype("float32"), Y)
    warned, raised = (
        pytest.warns(xn.DataWarning, match="x holds nan at row 0, column 0"),
        pytest.raises(xn.NonFiniteError),
    )
    with warned, raised:
        model("numpy").fit(bad)
    assert not scan.SILENT.get()
    assert scan.NAMES.get() is None


def test_a_warning_names_the_row_of_the_source():
    bad = np.vstack([X] * 4)
    bad[1199] = np.nan
    with pytest.warns(xn.DataWarning, match="x holds nan at row 1199, column 0"), pytest.raises(xn.NonFiniteError):
        model("numpy").fit(xn.Rows(bad, np.tile(Y, 4)))


WRONG = {
    "no y": (
        lambda: xn.Rows(X),
        r"^the source \(256 rows.*: a source gives \(x, y\) or \(x, y, weights\), got x alone: y is missing$",
    ),
    "lengths": (lambda: xn.Rows(X, Y[:-1]), r"^x, y and weights must have as many rows, got 300, 299$"),
    "a number": (lambda: xn.Rows(3, Y), r"^Rows reads what has rows, such as an array or a table, got a int$"),
    "a window": (lambda: xn.Rows(X, Y, window=0), r"^window must be an integer of at least 1, got 0$"),
    "None": (lambda: xn.Rows(None), r"^Rows reads what has rows, .*, got a NoneType$"),
    "a scalar": (lambda: xn.Rows(np.float32(3), Y), r"^Rows reads what has rows, .*, got a numpy array on cpu$"),
    "x and y as one": (lambda: xn.Rows((X, Y)), r"^the source .*got x alone: y is missing$"),
    "empty": (lambda: xn.Rows(X[:0], Y[:0]), r"^a source has 1 to 2147483647 rows, got a Rows of 0$"),
    "text": (lambda: xn.Rows(np.asarray(["a", "b"]), Y[:2]), r"^the source .*: x must hold numbers, got 'a' at row 0"),
    "dicts": (lambda: xn.Rows([{"x": 1}, {"x": 2}]), r"^the source .*: Rows without y reads samples .*, got a dict"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_source_is_refused(case):
    make, text = WRONG[case]
    with pytest.raises(ValueError, match=text):
        model("numpy").fit(make())


def test_what_goes_with_arrays_alone_is_refused_beside_a_source():
    with pytest.raises(
        xn.DataError, match=r"steps_per_epoch is for batches that come one after the other, got a Rows$"
    ):
        model("numpy").fit(xn.Rows(X, Y), steps_per_epoch=3)
    with pytest.raises(xn.DataError, match=r"x and y together, got a y as well: leave y out, or make both one source"):
        model("numpy").fit(xn.Rows(X), Y)
    with pytest.raises(xn.DataError, match=r"a source gives x and y together, got a y as well: epochs=5\?$"):
        model("numpy").fit(xn.Rows(X, Y), 5)
    with pytest.raises(xn.DataError, match="a source gives its own weights"):
        model("numpy").fit(xn.Rows(X, Y), sample_weight=W)


def test_a_run_goes_on_with_the_source_that_it_began_with(tmp_path):
    path = tmp_path / "run.safetensors"
    one = model("numpy")
    with pytest.raises(xn.DataError, match="gone"):
        one.fit(Failing(4, "raise"), epochs=9, batch_size=16, checkpoint=path, every=1)
    other = X.copy()
    other[0, 0] += 1
    for source in (xn.Rows(other, Y), xn.Rows(X, Y, window=64), xn.Rows(X, Y, np.ones(300))):
        with pytest.raises(xn.DataError, match="the data are not those that this run was trained on"):
            xn.load(path, "numpy").resume(source)
    xn.load(path, "numpy").resume(xn.Rows(X, Y))


def test_rows_of_a_view_are_read_and_not_the_whole():
    """Of a memory map's columns, or of overlapping windows, only the rows that are asked for are copied."""
    series = np.arange(1_000_000, dtype=np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(series, 1000)
    tracemalloc.start()
    x, _ = xn.Rows(windows, np.zeros(len(windows), np.int32))[np.arange(20)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(x[3], series[3:1003])
    assert peak < 8_000_000


def test_a_sparse_matrix_is_read_a_block_at_a_time():
    sparse = pytest.importorskip("scipy.sparse")
    x = np.where(X > 0, X, 0)
    one, two = model("numpy"), model("numpy")
    one.fit(x, Y)
    two.fit(xn.Rows(sparse.csr_matrix(x), Y))
    assert bits(one) == bits(two)
    assert np.array_equal(xn.Rows(x, Y)[2:5][0], x[2:5])
