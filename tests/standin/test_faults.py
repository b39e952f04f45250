"""What goes wrong around a graph: data given anew, Ctrl-C, errors, threads, two GPUs, full memory, kernels' names."""

import copy
import gc
import os
import subprocess
import sys
import threading
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import standin
import xpnet as xn
from standin import scenarios
from xpnet.backends.cuda import cublaslt
from xpnet.backends.cuda import graph as graphs
from xpnet.selfcheck import training

pytestmark = pytest.mark.gpu


def model(backend="cupy", metrics=(), optimizer=None, **settings):
    return xn.Model(
        scenarios.deep(),
        xn.cross_entropy,
        optimizer or xn.Adam(1e-2),
        backend=backend,
        metrics=list(metrics),
        **settings,
    )


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * float(np.max(np.abs(expected))))


@pytest.fixture
def calls(monkeypatch):
    """Note what each call of a graph was."""
    seen, call = [], graphs.Graph.__call__

    def noted(self, *arguments):
        seen.append("warm-up" if self.results is None else "capture" if self.executable is None else "launch")
        return call(self, *arguments)

    monkeypatch.setattr(graphs.Graph, "__call__", noted)
    return seen


@pytest.mark.parametrize("labels", ["int32", "uint8", "int64"])
@pytest.mark.parametrize("where", ["host", "device", "host, copied"])
def test_fits_of_one_epoch_come_to_launches(calls, labels, where):
    x, y = scenarios.bytes_and_labels(64)
    y = y.astype(labels)
    one, plain = model(), model("numpy")
    for _ in range(5):
        data = tuple(map(one.backend.asarray, (x, y))) if where == "device" else (x, y)
        one.fit(*(tuple(map(np.copy, data)) if "copied" in where else data), epochs=1, batch_size=16)
        plain.fit(x, y, epochs=1, batch_size=16)
    assert calls == ["warm-up", "capture", "launch", "launch", "launch"]
    close(scenarios.home(one), scenarios.home(plain))


@pytest.mark.parametrize("kind", ["uint8", "int64"])
def test_fits_on_new_tokens_come_to_launches(calls, kind):
    net = xn.Masked(xn.Embedding(11, 8), xn.Pooled(), xn.Linear(8, 3))
    one, rng, kept = xn.Model(net, xn.cross_entropy, xn.SGD(0.1), backend="cupy"), np.random.default_rng(0), []
    for _ in range(5):
        data = rng.integers(0, 11, (32, 6)).astype(kind), np.ones((32, 6), bool)
        kept.append(tuple(map(one.backend.asarray, data)))
        one.fit(kept[-1], rng.integers(0, 3, 32), epochs=1, batch_size=8)
    assert calls == ["warm-up", "capture", "launch", "launch", "launch"]


def test_each_of_two_batch_sizes_keeps_its_graph(calls):
    x, y = scenarios.bytes_and_labels(64)
    one = model()
    for _ in range(4):
        for batch in (16, 32):
            one.fit(x, y, epochs=1, batch_size=batch)
    assert calls == ["warm-up"] * 2 + ["capture"] * 2 + ["launch"] * 4


def test_data_that_were_changed_where_they_lie_are_read_anew():
    x, y = scenarios.bytes_and_labels(64)
    other, _ = scenarios.bytes_and_labels(64, seed=9)
    one, plain = model(), model("numpy")
    device = one.backend.asarray(x)
    for data in (x, x, x, other, other):
        device[...] = one.backend.asarray(data)
        one.fit(device, y, epochs=1, batch_size=16)
        plain.fit(data, y, epochs=1, batch_size=16)
    close(scenarios.home(one), scenarios.home(plain))


def test_new_data_leave_no_memory_behind():
    gc.collect()  # what earlier tests have let go is not to be freed in between
    one, used = model(), []
    pool = one.backend.cupy.get_default_memory_pool()
    for seed in range(8):
        x, y = scenarios.bytes_and_labels(512, 60, seed=seed)
        if seed == 0:
            one = xn.Model(
                xn.Sequential(xn.Scale(1 / 255), xn.Linear(60, 5)), xn.cross_entropy, xn.Adam(), backend="cupy"
            )
        one.fit(x, y, epochs=2, batch_size=64)
        del x, y
        used.append(pool.used_bytes())
    assert used[3:] == [used[3]] * 5, used


def test_graphs_that_are_let_go_leave_no_memory_behind():
    x, y = scenarios.bytes_and_labels(200)
    used, backend = [], xn.backend("cupy")
    pool = backend.cupy.get_default_memory_pool()
    for _ in range(6):
        one = model(backend)
        for batch in (10, 11, 12, 13, 14, 15):
            one.fit(x, y, epochs=3, batch_size=batch)
        assert len(one.step.run.graphs) <= graphs.KEPT
        del one
        gc.collect()
        used.append(pool.used_bytes())
        assert not any(room.pool.total_bytes() for room in backend.idle)
    assert used[2:] == [used[2]] * 4, used


def test_memory_that_nobody_uses_may_be_freed_between_fits():
    x, y = scenarios.bytes_and_labels(64)
    one, plain = model(), model("numpy")
    pool = one.backend.cupy.get_default_memory_pool()
    for _ in range(4):
        one.fit(x, y, epochs=2, batch_size=16)
        plain.fit(x, y, epochs=2, batch_size=16)
        pool.free_all_blocks()
    assert one.step.run.nodes_per_step
    close(scenarios.home(one), scenarios.home(plain))


@pytest.mark.parametrize("order", standin.ORDERS)
@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("at", [2, 6], ids=["warming up", "capturing"])
def test_after_a_failure_training_goes_on(order, kind, at):
    """Four steps an epoch, each of which calls the metric: the second epoch is captured."""
    count = 0

    def metric(prediction, target):
        nonlocal count
        count += 1
        if count == at:
            raise kind("stop")
        return xn.metrics.accuracy(prediction, target)

    x, y = scenarios.bytes_and_labels(64)
    with standin.order(order), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # what raised is no longer captured
        one, before = model(metrics=[metric]), model()
        whole = [scenarios.home(before)]
        before.fit(x, y, epochs=1, batch_size=16)
        whole.append(scenarios.home(before))
        count = 0
        with suppress(kind):
            one.fit(x, y, epochs=3, batch_size=16)
        assert not any(room.stream.is_capturing() for room in one.backend.rooms)
        if at == 2 or kind is KeyboardInterrupt:  # a capture that raised something else was begun anew
            np.testing.assert_array_equal(scenarios.home(one), whole[at > 4])
        twin = copy.deepcopy(one)
        for each in (one, twin):
            each.fit(x, y, epochs=4, batch_size=16)
    np.testing.assert_array_equal(scenarios.home(one), scenarios.home(twin))


def test_what_fails_in_a_launch_is_no_reason_to_lose_theta():
    x, y = scenarios.bytes_and_labels(64)
    one = model(optimizer=xn.SGD(lambda t: 0.1 if t < 9 else np.inf))
    with pytest.raises(xn.NonFiniteError):
        one.fit(x, y, epochs=4, batch_size=16)
    plain = model("numpy", optimizer=xn.SGD(lambda t: 0.1 if t < 9 else np.inf))
    with pytest.raises(xn.NonFiniteError):
        plain.fit(x, y, epochs=4, batch_size=16)
    close(scenarios.home(one), scenarios.home(plain))


def test_threads_on_two_backends_of_one_device():
    backends = xn.backend("cupy"), xn.backend("cupy").with_matmul("tf32")
    alone = [scenarios.two_models(backend, "float32") for backend in backends]
    found = {}

    def work(k):
        for _ in range(3):
            found[k] = scenarios.two_models(backends[k], "float32")

    with standin.order("random", 5):
        threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for k, expected in enumerate(alone):
        for one, other in zip(found[k], expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_workspace_is_of_one_stream(monkeypatch):
    """Products are two jobs each, and two streams take turns by lot: sharing a workspace is seen."""
    monkeypatch.setenv("STANDIN_LT_SPLIT", "1")
    backend = xn.backend("cupy")
    cupy = backend.cupy
    a, b = (backend.asarray(np.random.default_rng(k).normal(size=(40, 40)).astype("float32")) for k in range(2))
    expected = backend.asnumpy(backend.matmul(a, b))
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(2)]
    cupy.cuda.Device().synchronize()
    with standin.order("random", 3):
        results = []
        for k in range(20):
            with streams[k % 2]:
                results.append(backend.matmul(a, b))
        for stream in streams:
            stream.synchronize()
    for result in results:
        np.testing.assert_array_equal(backend.asnumpy(result), expected)


def window(backend, host, offset):
    """Return a copy on the device that lies so many numbers behind a boundary, as windows of θ do."""
    flat = backend.asarray(np.concatenate([np.zeros(offset, host.dtype), host.ravel()]))
    return flat[offset:].reshape(host.shape)


@pytest.mark.parametrize("order", ["ascending", "descending"])
def test_products_of_one_shape_whose_windows_lie_differently(order):
    backend, rng = xn.backend("cupy"), np.random.default_rng(0)
    x, w, b = (rng.normal(size=size).astype("float32") for size in ((6, 7), (7, 8), (8,)))
    offsets = range(5) if order == "ascending" else range(4, -1, -1)
    for of_w in offsets:
        for of_b in offsets:
            weight, bias = window(backend, w, of_w), window(backend, b, of_b)
            y = backend.products.multiply(backend.asarray(x), weight, None, cublaslt.EPILOGUE_BIAS, bias)
            close(backend.asnumpy(y), x @ w + b)


def test_products_of_one_shape_with_other_epilogues():
    backend, rng = xn.backend("cupy"), np.random.default_rng(0)
    x, w, b = (backend.asarray(rng.normal(size=size).astype("float32")) for size in ((6, 7), (7, 8), (8,)))
    multiply, home = backend.products.multiply, backend.asnumpy
    plain, sums = home(multiply(x, w)), home(b)
    for factor in (1.0, -0.5):
        shifted = np.float32(factor) * plain + sums
        np.testing.assert_array_equal(home(multiply(x, w, None, cublaslt.EPILOGUE_BIAS, b, factor)), shifted)
        positive = home(multiply(x, w, None, cublaslt.EPILOGUE_RELU_BIAS, b, factor))
        np.testing.assert_array_equal(positive, np.maximum(shifted, 0))


def test_a_stream_of_the_users():
    x, y = scenarios.bytes_and_labels(64)
    one, plain = model(), model("numpy")
    with standin.order("random", 1), one.backend.cupy.cuda.Stream(non_blocking=True) as stream:
        one.fit(x, y, epochs=4, batch_size=16)
        stream.synchronize()
    with standin.order("random", 2):
        one.fit(x, y, epochs=1, batch_size=16)
    plain.fit(x, y, epochs=4, batch_size=16)
    plain.fit(x, y, epochs=1, batch_size=16)
    close(scenarios.home(one), scenarios.home(plain))


def test_what_all_streams_use_is_ready_on_all():
    backend = xn.backend("cupy").with_matmul("float32")
    cupy = backend.cupy
    made, used = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    with standin.order("lazy"):
        with made:
            numbers = backend.constant((3.0, 5.0), "float32")
            true = backend.kernels.true
        with used:
            assert cupy.asnumpy(numbers).tolist() == [3.0, 5.0]
            assert cupy.asnumpy(true.view("uint8")).tolist() == 1


@pytest.mark.parametrize("order", standin.ORDERS)
def test_calls_on_two_streams_follow_each_other(order):
    backend = xn.backend("cupy")
    cupy = backend.cupy

    def step(carry, fixed, x):
        return carry * 2.0 + x[0] * fixed[0][0], (carry,)

    run, fixed = backend.compile(step), (backend.asarray(np.ones(1, "float32")),)
    carry, expected = backend.asarray(np.zeros(1, "float32"), copy=True), 0.0
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(2)]
    cupy.cuda.Device().synchronize()
    with standin.order(order, 4):
        for k in range(8):
            with streams[k % 2]:
                carry, _ = run(carry, fixed, (np.asarray([k, 1.0], "float32"),))
            expected = (expected * 2.0 + k) * 2.0 + 1.0
        streams[1].synchronize()
        assert backend.asnumpy(carry).tolist() == [expected]


@pytest.mark.parametrize("act", ["fit", "predict", "evaluate"])
def test_a_full_memory_is_one_line(act, monkeypatch):
    one = xn.Model(xn.Linear(6, 5), xn.cross_entropy, xn.Adam(), backend="cupy")
    pool = one.backend.cupy.get_default_memory_pool()
    x, y = np.zeros((1 << 18, 6), "float32"), np.zeros(1 << 18, "int32")
    pool.free_all_blocks()
    monkeypatch.setenv("STANDIN_MEMORY", str(1 << 20))
    acts = {
        "fit": lambda: one.fit(x, y, epochs=1, batch_size=1 << 17),
        "predict": lambda: one.predict(x),
        "evaluate": lambda: one.evaluate(x, y),
    }
    with pytest.raises(xn.BackendError, match=r"^the GPU's memory is full: .* lower batch_size") as error:
        acts[act]()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["<lambda>", "größe", "a rule"])
def test_a_rule_may_have_any_name(name):
    backend = xn.backend("cupy")

    def rule(xp, theta, g, rate):
        return (theta - rate * g,)

    rule.__name__ = name
    theta = backend.asarray([1.0, 2.0], copy=True)
    (new,) = backend.map(rule)((theta,), (backend.asarray([1.0, 1.0]),), (0.5,))
    assert backend.asnumpy(new).tolist() == [0.5, 1.5]


def test_a_rules_constants_are_of_its_precision():
    backend = xn.backend("cupy")
    theta = backend.asarray(np.asarray([1.0, 2.0]), copy=True)
    (new,) = backend.map(lambda xp, theta, g: (theta - 0.1 * g,))((theta,), (backend.asarray(np.ones(2)),), ())
    assert backend.asnumpy(new).tolist() == [1.0 - 0.1, 2.0 - 0.1]


def test_a_rule_may_exchange_its_state():
    backend = xn.backend("cupy")
    state = tuple(backend.asarray([value], copy=True) for value in (1.0, 2.0))
    first, second = backend.map(lambda xp, a, b, g: (b, a))(state, (backend.asarray([0.0]),), ())
    assert (backend.asnumpy(first).tolist(), backend.asnumpy(second).tolist()) == ([2.0], [1.0])


def test_the_selfchecks_of_training():
    backend = xn.backend("cupy")
    assert training.replay(backend, True)["same_bits"]
    assert training.repeat(backend, True)["same_bits"]
    assert training.memory(backend, True)["growth"] <= 0


TWO = """
import numpy as np, xpnet as xn
from standin import misuses, scenarios
first, second = xn.backend("cupy:0"), xn.backend("cupy:1")
assert first.cupy.cuda.Device().id == 0, "opening a backend moves nothing"
expected = scenarios.two_models(xn.backend("numpy"), "float32")
for backend in (second, first, second):
    for one, other in zip(scenarios.two_models(backend, "float32"), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-5 * np.max(np.abs(other)))
    assert first.cupy.cuda.Device().id == 0
x, y = scenarios.bytes_and_labels()
models = [xn.Model(scenarios.deep(), xn.cross_entropy, xn.Adam(), backend=b) for b in (first, second)]
for _ in range(4):
    for model in models:
        model.fit(x, y, 1, 16), model.evaluate(x, y), model.predict(x)
assert misuses() == []
print("fine")
"""


def test_two_gpus(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(TWO)
    tests = Path(standin.__file__).parents[1]
    paths = {"PYTHONPATH": f"{tests}:{Path(xn.__file__).parents[1]}", "STANDIN_DEVICES": "2", "STANDIN_ORDER": "random"}

    done = subprocess.run(
        [sys.executable, "-m", "standin", str(script)], env=os.environ | paths, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr[-2000:]
