"""The CuPy backend on a CuPy without a GPU (`fake_cupy`): kernels from their own C++, products by columns, graphs."""

import asyncio
import gc
import warnings
import weakref
from dataclasses import replace
from operator import attrgetter

import cuda_host
import fake_cupy
import numpy as np
import pytest

import xpnet as xn
from xpnet import backends, losses, optimizers
from xpnet.backends import cupy as backend_module
from xpnet.backends.base import Backend
from xpnet.backends.cuda import cublaslt, dense, graph, kernels
from xpnet.errors import BackendError
from xpnet.layers import Context
from xpnet.layers.fused import Chain
from xpnet.parameters import split
from xpnet.selfcheck import numbers, training

pytestmark = cuda_host.needs_compiler


@pytest.fixture(autouse=True)
def small_grids(monkeypatch):
    monkeypatch.setattr(kernels, "BLOCKS", 2)
    monkeypatch.setattr(kernels, "THREADS", 64)
    monkeypatch.setattr(graph.Graph, "nodes", property(lambda self: len(self.executable.tape)))


def data(n=72, features=6, classes=5):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, features)).astype(np.uint8), rng.integers(0, classes, n).astype(np.int32)


def model(backend, optimizer=None, loss=xn.cross_entropy, metrics=("accuracy",), dropout=True, **settings):
    middle = [xn.Dropout(0.3)] if dropout else []
    net = xn.Sequential(
        xn.Scale(1 / 255), xn.Linear(6, 12), xn.ReLU(), *middle, xn.Linear(12, 8), xn.ReLU(), xn.Linear(8, 5)
    )
    return xn.Model(net, loss, optimizer or xn.AdamW(1e-2), seed=3, backend=backend, metrics=metrics, **settings)


def fit(one, epochs=4, batch_size=16):
    x, y = data()
    history = one.fit(one.backend.asarray(x), one.backend.asarray(y), epochs, batch_size, progress=False)
    return np.array(one.backend.asnumpy(one.theta)), history


def close(found, expected, tolerance=1e-6):
    np.testing.assert_allclose(found, expected, atol=tolerance * float(np.max(np.abs(expected))), rtol=0)


# ---- training: what NumPy computes, step by step and replayed ----


@pytest.fixture
def large(monkeypatch):
    """No product is small."""
    monkeypatch.setattr(dense, "SMALL", 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "optimizer",
    [
        xn.SGD(0.1),
        xn.SGD(0.1, momentum=0.9, weight_decay=0.01),
        xn.Adam(xn.cosine(0.01, steps=16), clip_norm=0.5),
        xn.AdamW(),
    ],
    ids=str,
)
def test_training_gives_numpys_numbers(optimizer, dtype):
    one = model(fake_cupy.fake_backend(), optimizer, dtype=dtype)
    theta, history = fit(one)
    expected, reference = fit(model("numpy", optimizer, dtype=dtype))
    close(theta, expected, 2e-5 if dtype == "float32" else 1e-12)
    assert history["accuracy"] == pytest.approx(reference["accuracy"])
    captured = {len(captured.rows[0]): captured.executable.launches for captured in one.step.run.graphs.values()}
    assert captured == {4: 3, 1: 3}, "one epoch to warm up, and three as graphs, one of them for the short batches"


def test_training_with_large_products_gives_numpys_numbers(large):
    theta, _ = fit(model(fake_cupy.fake_backend()))
    close(theta, fit(model("numpy"))[0], 2e-5)


def test_a_graph_gives_the_bits_of_the_same_steps_one_by_one():
    replayed, plain = model(fake_cupy.fake_backend()), model(fake_cupy.fake_backend())
    plain.step = replace(plain.step, compiled=Backend.compile(plain.backend, plain.step.one))
    (theta, history), (expected, reference) = fit(replayed, epochs=6), fit(plain, epochs=6)
    np.testing.assert_array_equal(theta, expected)
    assert history["loss"] == reference["loss"]
    assert replayed.step.run.graphs


def test_a_step_is_eight_nodes():
    """The batch, two products forward and two back, the loss, its gradient's norm and the update; Scale is none."""
    more_layer = 2  # a third linear layer: one product forward, one for both of its gradients
    unreal = 1  # `empty_like` is work for the fake only
    for optimizer, decay in ((xn.Adam(1e-2), 0), (xn.AdamW(1e-2), 3)):  # a kernel for each matrix
        one = model(fake_cupy.fake_backend(), optimizer, metrics=(), dropout=False)
        fit(one, batch_size=8)
        of_a_call = 2 / 9  # the results are collected, and what the step binds anew is written back
        assert one.step.run.nodes_per_step == pytest.approx(8 + more_layer + unreal + decay + of_a_call)


@pytest.mark.parametrize(
    "lacks",
    [
        (cublaslt.EPILOGUE_BGRADA,),
        (cublaslt.EPILOGUE_RELU_BIAS,),
        (cublaslt.EPILOGUE_BIAS, cublaslt.EPILOGUE_RELU_BIAS, cublaslt.EPILOGUE_BGRADA),
    ],
)
def test_epilogues_that_cublaslt_cannot_do_are_done_otherwise(large, lacks):
    theta, _ = fit(model(fake_cupy.fake_backend(lacks=lacks)))
    close(theta, fit(model("numpy"))[0], 2e-5)


def test_without_cublaslt_steps_run_one_by_one_and_say_so_once():
    one = model(fake_cupy.fake_backend(lt=False))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        theta, _ = fit(one)
    assert [str(w.message) for w in caught] == [
        "steps run one by one, not as a CUDA graph: calling cuBLAS API during stream capture is currently unsupported"
    ]
    close(theta, fit(model("numpy"))[0], 2e-5)
    assert one.backend.dense.__class__.__name__ == "Dense"


def test_a_loss_that_waits_for_the_host_is_not_captured():
    def impatient(scores, labels):
        value, gradient = losses.cross_entropy(scores, labels)
        return (value if float(value) >= 0 else -value), gradient

    with pytest.warns(RuntimeWarning, match="one by one, not as a CUDA graph: .*capturing, so reading a value"):
        theta, _ = fit(model(fake_cupy.fake_backend(), loss=impatient))
    close(theta, fit(model("numpy"))[0], 2e-5)


def test_a_bad_step_changes_nothing_and_is_named():
    one = model(fake_cupy.fake_backend(), xn.SGD(2e11), dropout=False)
    x, y = data()
    with pytest.raises(xn.NonFiniteError, match=r"at step \d+ \(epoch 1\)"):
        one.fit(x, y, 3, 16, progress=False)
    assert np.all(np.isfinite(one.backend.asnumpy(one.theta)))


def test_assigned_theta_reaches_the_graph():
    one, reference = model(fake_cupy.fake_backend()), model("numpy")
    x, y = (one.backend.asarray(a) for a in data())
    one.fit(x, y, 3, 16, progress=False)
    reference.fit(*data(), 3, 16, progress=False)
    one.theta = one.backend.asarray(np.array(reference.theta)) * 0.5
    reference.theta = reference.theta * np.float32(0.5)
    one.fit(x, y, 2, 16, progress=False)
    reference.fit(*data(), 2, 16, progress=False)
    close(one.backend.asnumpy(one.theta), reference.theta, 2e-5)


def test_fits_of_one_epoch_on_data_given_anew_launch_one_graph():
    one, reference = model(fake_cupy.fake_backend()), model("numpy")
    x, y = data()
    for _ in range(5):
        x, y = (x + 3).astype(np.uint8), ((y + 1) % 5).astype(np.int64)
        one.fit(x, y, 1, 16, progress=False)
        reference.fit(x, y, 1, 16, progress=False)
    launches = [captured.executable.launches for captured in one.step.run.graphs.values()]
    assert launches == [4, 4], "one fit to warm up, and then a graph for the short batch too"
    close(one.backend.asnumpy(one.theta), reference.theta, 2e-5)


def test_data_changed_where_they_lie_are_read_anew():
    one, reference = model(fake_cupy.fake_backend()), model("numpy")
    x, y = data()
    there = [one.backend.asarray(x), one.backend.asarray(y)]
    for _ in range(4):
        one.fit(*there, 1, 16, progress=False)
        reference.fit(x, y, 1, 16, progress=False)
        x = x // 2
        there[0][...] = one.backend.asarray(x)
    close(one.backend.asnumpy(one.theta), reference.theta, 2e-5)


def test_after_a_fit_nothing_holds_its_data():
    one = model(fake_cupy.fake_backend())
    x, y = (one.backend.asarray(a) for a in data())
    one.fit(x, y, 3, 16, progress=False)
    held = weakref.ref(x), weakref.ref(y)
    del x, y
    gc.collect()
    assert [ref() for ref in held] == [None, None]


def test_a_graph_let_go_frees_its_memory_and_leaves_its_room_to_the_next():
    backend = fake_cupy.fake_backend()
    for _ in range(3):
        one = model(backend)
        fit(one)
        assert len(backend.rooms) == 2, "one for the steps on whole batches, one for that on the short batch"
        assert not backend.idle
        for room in backend.rooms:
            room.pool.freed = False
        del one
        gc.collect()
        assert all(room.pool.freed for room in backend.rooms)
        assert sorted(map(id, backend.idle)) == sorted(map(id, backend.rooms))


def test_two_graphs_share_no_room():
    backend = fake_cupy.fake_backend()
    one, other = model(backend), model(backend)
    fit(one, batch_size=12)
    fit(other, batch_size=12)
    assert len(backend.rooms) == 2
    assert backend.rooms[0].stream is not backend.rooms[1].stream
    assert len(backend.kernels._tickets) == 2, "some for each stream"


def test_the_four_graphs_used_last_are_kept():
    one = model(fake_cupy.fake_backend())
    x, y = (one.backend.asarray(a) for a in data())
    run = one.step.run
    for batch in (8, 9, 12, 18, 8, 24):
        one.fit(x, y, 2, batch, progress=False)
    sizes = [72 // len(captured.rows[0]) for captured in run.graphs.values()]
    assert sizes == [12, 18, 8, 24]
    assert len(one.backend.rooms) == graph.KEPT


def test_a_step_that_reads_its_data_otherwise_has_a_graph_for_each_place():
    backend = fake_cupy.fake_backend()
    steps = backend.compile(lambda carry, fixed, x: ({"n": carry["n"] + fixed[0][0] * x[0]}, (carry["n"],)))
    carry, expected = {"n": fake_cupy.zeros((), "float32")}, 0.0
    places = [(backend.asarray(np.asarray([value], "float32")),) for value in (1.0, 10.0)]
    for turn in range(12):
        fixed = places[turn // 2 % 2]
        carry, _ = steps(carry, fixed, ([1.0, 2.0],))
        expected += 3.0 * float(fixed[0][0])
        assert float(carry["n"]) == expected
    assert steps.direct
    assert not steps.refused
    assert [g.executable is not None for g in steps.graphs.values()] == [True, True]


# ---- what is cut off ----


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("at", [1, 3, 5, 6, 8])
@pytest.mark.filterwarnings("ignore:steps run one by one")
def test_a_call_that_is_cut_off_changes_nothing_and_the_next_works(kind, at):
    backend, count = fake_cupy.fake_backend(), 0
    one, reference = model(backend), model("numpy")
    real = one.step.one

    def planned(carry, fixed, x):
        nonlocal count
        count += 1
        result = real(carry, fixed, x)
        if count == at:
            raise kind("planned")
        return result

    one.step = replace(one.step, compiled=backend.compile(planned))
    source = tuple(backend.asarray(a) for a in data())
    for call in range(4):
        block = np.arange(64, dtype=np.int32).reshape(4, 16) + call
        before = np.array(backend.asnumpy(one.theta))
        try:
            outcome = one.step.many(one.state, source, block)
        except kind:
            assert fake_cupy.tape is None, "no stream is left capturing"
            assert len(fake_cupy.streams) == 1
            np.testing.assert_array_equal(backend.asnumpy(one.theta), before)
            outcome = one.step.many(one.state, source, block)
        one.holder.state = outcome.state
        reference.holder.state = reference.step.many(reference.state, data(), block).state
    assert count >= at
    close(backend.asnumpy(one.theta), reference.theta, 2e-5)


def test_a_single_step_that_fails_changes_nothing():
    def broken(carry, fixed, x):
        carry["n"] += 1.0
        raise ValueError("planned")

    carry = {"n": fake_cupy.zeros((), "float32")}
    with pytest.raises(ValueError, match="planned"):
        fake_cupy.fake_backend().compile(broken)(carry, (), ([0.0],))
    assert float(carry["n"]) == 0.0


def test_what_comes_after_a_failure_waits_for_what_was_under_way():
    backend = fake_cupy.fake_backend()

    def broken(carry, fixed, x):
        raise ValueError("planned")

    fake_cupy.waits.clear()
    with pytest.raises(ValueError, match="planned"):
        backend.compile(broken)((fake_cupy.ones(3, "float32"),), (), ([0.0, 0.0],))
    (room,), default = backend.rooms, fake_cupy.streams[0]
    assert fake_cupy.waits == [(room.stream, default), (default, room.stream)]


def test_a_call_on_another_stream_waits_for_the_call_before():
    backend = fake_cupy.fake_backend()
    steps = backend.compile(lambda carry, fixed, x: ({"n": carry["n"] + x[0]}, (carry["n"],)))
    carry, (mine, other) = {"n": fake_cupy.zeros((), "float32")}, (fake_cupy.Stream(True), fake_cupy.Stream(True))
    for stream in (mine, mine, other):
        fake_cupy.waits.clear()
        with stream:
            carry, _ = steps(carry, (), ([1.0, 2.0],))
    assert (other, mine) in fake_cupy.waits
    assert float(carry["n"]) == 9.0


# ---- two GPUs ----


def second_gpu():
    backend = fake_cupy.fake_backend()
    backend.device = fake_cupy.Device(1)
    return backend


def test_all_work_is_done_on_the_backends_own_gpu():
    one, other, reference = model(fake_cupy.fake_backend()), model(second_gpu()), model("numpy")
    for _ in range(3):
        for m in (one, other, reference):
            m.fit(*data(), 1, 16, progress=False)
            m.evaluate(*data())
            m.predict(data()[0])
            m.objective(*data())(np.array(m.backend.asnumpy(m.theta)))
            m.theta = m.theta
            m.adjust(lr=1e-3)
    close(other.backend.asnumpy(other.theta), reference.theta, 2e-5)
    close(one.backend.asnumpy(one.theta), reference.theta, 2e-5)
    assert (one.theta.device.id, other.theta.device.id) == (0, 1)
    assert fake_cupy.Device.current == 0
    other.optimizer = xn.Adam(1e-2)
    theta, loss = other.theta, xn.cross_entropy
    prediction, backward = other.net(theta, other.backend.asarray(data()[0]), backend=other.backend)
    with other.backend.device:
        _, gradient = loss(prediction, other.backend.asarray(data()[1]))
    update = other.optimizer.update(theta, backward(gradient), other.state.slots, (0.1,) * 6, backend=other.backend)
    assert update.theta.device.id == 1


def test_use_makes_the_gpu_current_and_a_block_takes_it_back():
    with xn.use(second_gpu()):
        assert fake_cupy.Device.current == 1
        with xn.use(fake_cupy.fake_backend()):
            assert fake_cupy.Device.current == 0
        assert fake_cupy.Device.current == 1
    assert fake_cupy.Device.current == 0


def test_a_block_entered_again_makes_its_gpu_current_again():
    block = xn.use(second_gpu())
    for _ in range(2):
        with block, block:
            assert fake_cupy.Device.current == 1
        assert fake_cupy.Device.current == 0


def test_tasks_whose_blocks_overlap_leave_the_gpu_as_it_was():
    """In: a, then b; out: a, then b."""

    async def run():
        steps = [asyncio.Event() for _ in range(3)]

        async def a():
            with xn.use(second_gpu()):
                steps[0].set()
                await steps[1].wait()
            steps[2].set()

        async def b():
            await steps[0].wait()
            with xn.use(second_gpu()):
                steps[1].set()
                await steps[2].wait()
                assert fake_cupy.Device.current == 1

        await asyncio.gather(a(), b())

    asyncio.run(run())
    assert fake_cupy.Device.current == 0


def test_a_generator_suspended_in_a_block_leaves_the_gpu_to_the_block_around_its_end():
    def suspended():
        with xn.use(second_gpu()):
            yield

    one = suspended()
    next(one)
    with xn.use(fake_cupy.fake_backend()):
        assert fake_cupy.Device.current == 0
        one.close()
        assert fake_cupy.Device.current == 0
    assert fake_cupy.Device.current == 0


def test_the_gpu_named_from_outside_is_made_current_once(monkeypatch):
    monkeypatch.setenv("XPNET_BACKEND", "cupy:1")
    monkeypatch.setattr(backends, "_open", lambda name: second_gpu())
    backends._outside.cache_clear()
    try:
        assert xn.backend() is xn.backend()
        assert fake_cupy.Device.current == 1
        fake_cupy.Device(0).use()
        xn.backend()
        assert fake_cupy.Device.current == 0, "not again: it is the user's"
    finally:
        backends._outside.cache_clear()
        fake_cupy.Device(0).use()


def test_opening_a_backend_leaves_the_current_gpu(monkeypatch):
    monkeypatch.setattr(backend_module, "cupy", fake_cupy)
    monkeypatch.setattr(backend_module.detect, "count_devices", lambda cupy: 2)
    monkeypatch.setattr(backend_module.detect, "check_device", lambda cupy, number: None)
    monkeypatch.setattr(backend_module.detect, "check_libraries", lambda cupy, libs: None)
    monkeypatch.setattr(backend_module, "import_module", lambda name: None)
    assert backend_module.connect("1").device == fake_cupy.Device(1)
    assert fake_cupy.Device.current == 0


# ---- bad input ----


def test_host_arrays_in_a_compiled_step_are_refused():
    one = model(fake_cupy.fake_backend())
    x, y = data()
    before = np.array(one.backend.asnumpy(one.theta))
    with pytest.raises(
        TypeError, match=r"a compiled step takes arrays on <CUDA Device 0>, got a numpy array on cpu: use"
    ):
        one.step.many(one.state, (x, y), np.arange(32, dtype=np.int32).reshape(2, 16))
    np.testing.assert_array_equal(one.backend.asnumpy(one.theta), before)


def test_arrays_of_another_gpu_are_refused():
    one = model(fake_cupy.fake_backend())
    x, y = data()
    source = (fake_cupy.ndarray(x, device=1), fake_cupy.ndarray(y))
    with pytest.raises(TypeError, match="takes arrays on <CUDA Device 0>, got a fake_cupy array on <CUDA Device 1>"):
        one.step.many(one.state, source, np.arange(32, dtype=np.int32).reshape(2, 16))


def test_columns_of_two_lengths_are_refused():
    steps = fake_cupy.fake_backend().compile(lambda carry, fixed, x: (carry, ()))
    with pytest.raises(ValueError, match=r"columns of one length, got \[2, 3\]"):
        steps((fake_cupy.ones(3, "float32"),), (), ([1, 2], [1, 2, 3]))


def test_a_step_whose_carry_grows_is_not_captured():
    backend = fake_cupy.fake_backend()

    def grow(carry, fixed, x):
        return {**carry, f"more{len(carry)}": carry["a"] * 1.0}, (backend.xp.sum(carry["a"]),)

    steps = backend.compile(grow)
    carry = {"a": fake_cupy.ones(3, "float32")}
    carry, _ = steps(carry, (), ([0.0, 0.0],))
    with pytest.warns(RuntimeWarning, match="the carry changes its form from step to step"):
        steps({"a": carry["a"]}, (), ([0.0, 0.0],))


def test_what_a_step_rebinds_is_carried_from_launch_to_launch():
    backend = fake_cupy.fake_backend()
    steps = backend.compile(lambda carry, fixed, x: ({"n": carry["n"] + x[0]}, (carry["n"],)))
    carry, seen = {"n": fake_cupy.zeros((), "float32")}, []
    for start in (0.0, 10.0, 20.0, 30.0):
        carry, (before,) = steps(carry, (), ([start + 1.0, start + 2.0],))
        seen += backend.asnumpy(before).tolist()
    assert steps.graphs
    assert seen == [0.0, 1.0, 3.0, 14.0, 26.0, 47.0, 69.0, 100.0]
    assert float(carry["n"]) == 132.0


OPTIMIZERS = [xn.SGD(0.1, momentum=0.9), xn.Adam(clip_norm=0.5), xn.AdamW(weight_decay=0.1), xn.RMSProp(), xn.Lion()]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_update_with_numbers_of_the_host_copies_nothing(optimizer, dtype, monkeypatch):
    rng, backend = np.random.default_rng(0), fake_cupy.fake_backend()
    host = [rng.uniform(0.1, 1.0, 40).astype(dtype) for _ in range(2 + optimizer.moments)]
    one, other = ([backend.asarray(array) for array in host] for _ in range(2))
    row = backend.asarray(np.asarray(optimizer.row(3), dtype))
    monkeypatch.setattr(fake_cupy, "asarray", lambda host: pytest.fail("a copy from the host"))
    new = optimizer.update(*one[:2], tuple(one[2:]), optimizer.row(3), backend=backend)
    same = optimizer.update(*other[:2], tuple(other[2:]), row, backend=backend)
    expected = optimizer.update(*host[:2], tuple(host[2:]), optimizer.row(3))
    np.testing.assert_array_equal(backend.asnumpy(same.theta), backend.asnumpy(new.theta))
    for one, other in zip((new.theta, *new.slots), (expected.theta, *expected.slots), strict=True):
        close(backend.asnumpy(one), other, 1e-6 if dtype == "float32" else 1e-12)


def test_numbers_of_the_host_are_not_captured():
    backend = fake_cupy.fake_backend()

    def step(carry, fixed, x):
        return backend.map(optimizers.sgd.sgd_rule)(carry, carry, (0.5,)), (x[0],)

    run = backend.compile(step)
    theta, _ = run((fake_cupy.ones(3, "float32"),), (), ([0.0, 0.0],))
    with pytest.warns(RuntimeWarning, match="one by one, not as a CUDA graph: a graph would repeat the host's numbers"):
        theta, _ = run(theta, (), ([0.0, 0.0],))
    np.testing.assert_array_equal(backend.asnumpy(theta[0]), np.full(3, 0.5**4))


def test_out_of_memory_says_how_much_and_what_to_lower():
    backend = fake_cupy.fake_backend()

    def hungry(carry, fixed, x):
        error = fake_cupy.OutOfMemoryError("Out of memory")
        error._size = 3 * 2**30
        raise error

    theta = fake_cupy.ones(3, "float32")
    text = r"memory is full: 3,072 MiB asked for, 81,920 MiB of 81,920 MiB free: lower batch_size"
    for steps in (1, 2):
        with pytest.raises(BackendError, match=text):
            backend.compile(hungry)((theta,), (), ([0.0] * steps,))
    np.testing.assert_array_equal(backend.asnumpy(theta), np.ones(3))


@pytest.mark.parametrize("what", ["asarray", "init", "predict", "evaluate", "constant", "theta"])
def test_a_full_memory_is_told_in_one_line_wherever_it_is_met(what, monkeypatch):
    one = model(fake_cupy.fake_backend())
    x, y = (one.backend.asarray(a) for a in data())
    work = {
        "asarray": lambda: one.backend.asarray(np.ones(3)),
        "init": lambda: one.net.init(backend=one.backend),
        "predict": lambda: one.predict(x),
        "evaluate": lambda: one.evaluate(x, y),
        "constant": lambda: one.backend.constant((1.0, 2.0), np.dtype("float32")),
        "theta": lambda: setattr(one, "theta", one.theta),
    }[what]

    def full(*arguments, **keywords):
        error = fake_cupy.OutOfMemoryError("Out of memory allocating\n3 bytes")
        error._size = 2**30
        raise error

    for name in ("asarray", "empty", "operate"):
        monkeypatch.setattr(fake_cupy, name, full)
    with pytest.raises(BackendError, match=r"^the GPU's memory is full: 1,024 MiB asked for, .*: lower batch_size.*$"):
        work()


def test_a_full_memory_of_the_host_is_not_said_to_be_the_gpus():
    with pytest.raises(MemoryError, match="of the host"), fake_cupy.fake_backend().working():
        raise MemoryError("of the host")


def test_precisions():
    backend = fake_cupy.fake_backend()
    assert backend.with_matmul("tf32").products.precision == "tf32"
    assert backend.precision == "float32", "the backend itself stays as it was"
    with pytest.raises(BackendError, match='unknown precision "float16": choose one of float32, tf32, bfloat16'):
        backend.with_matmul("float16")
    lame = fake_cupy.fake_backend(lt=False)
    lame.__class__ = type("Lame", (fake_cupy.FakeBackend,), {"lt": False})
    with pytest.raises(BackendError, match='matmul="tf32" needs cuBLASLt'):
        lame.with_matmul("tf32")
    with pytest.raises(BackendError, match='numpy multiplies in the precision of its arrays: "tf32" needs cupy'):
        xn.backend("numpy").with_matmul("tf32")
    assert xn.backend("numpy").with_matmul("float32") is xn.backend("numpy")


def test_a_missing_gpu_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(backend_module, "cupy", fake_cupy)
    with pytest.raises(BackendError, match=r'CuPy has no device "7" here: choose one of \[\'0\'\]'):
        backend_module.connect("7")


# ---- the seams ----


def test_a_rule_that_cannot_become_a_kernel_runs_in_its_plain_form():
    def by_order(xp, theta, g):
        return (xp.sort(theta - g),)

    backend = fake_cupy.fake_backend()
    theta, g = fake_cupy.asarray(np.asarray([3.0, 1.0, 2.0])), fake_cupy.ones(3, "float64")
    backend.map(by_order)((theta,), (g,), ())
    np.testing.assert_array_equal(backend.asnumpy(theta), [0.0, 1.0, 2.0])


def test_a_rule_may_have_any_name():
    def förster(xp, theta, g):
        theta -= g
        return (theta,)

    backend = fake_cupy.fake_backend()
    theta, g = fake_cupy.ones(3, "float64"), fake_cupy.ones(3, "float64")
    backend.map(lambda xp, theta, g: (theta + g,))((theta,), (g,), ())
    backend.map(förster)((theta,), (g,), ())
    np.testing.assert_array_equal(backend.asnumpy(theta), [1.0, 1.0, 1.0])


def test_the_benchmark_multiplies_in_tf32_and_makes_its_labels_once(monkeypatch):
    from benchmarks.peers import xpnet as peer
    from benchmarks.settings import Settings

    monkeypatch.setattr(Settings, "train", lambda self: (data(72, 784)[0], data()[1].astype(np.uint8)))
    seen = []
    monkeypatch.setattr(xn.Model, "fit", lambda self, x, y, **settings: seen.append((self, y)) or {"loss": [0.0]})
    for precision in ("float32", "tf32"):
        epoch, _ = peer.prepare(
            Settings((784, 4, 5), precision=precision, options={"backend": fake_cupy.fake_backend()})
        )
        epoch()
    assert [one.backend.precision for one, _ in seen] == ["float32", "tf32"]
    assert [y.dtype.name for _, y in seen] == ["int32", "int32"]


def test_functions_without_a_kernel_stay_themselves():
    backend = fake_cupy.fake_backend()
    assert backend.native(losses.huber) is losses.huber
    scores, labels = fake_cupy.ones((3, 4), "float32"), fake_cupy.zeros(3, "int64")
    value, _ = backend.native(losses.cross_entropy)(scores, labels)  # no kernel for 64-bit labels
    assert float(value) == pytest.approx(np.log(4))
    with pytest.raises(xn.ShapeError, match=r"expected scores \(N, C\) and labels \(N,\)"):
        backend.native(losses.cross_entropy)(scores, labels[:2])


def test_every_native_name_is_a_function_that_exists():
    for name, kernel in backend_module.NATIVE.items():
        module, _, function = name.rpartition(".")
        assert callable(getattr(__import__(module, fromlist=[function]), function)), name
        assert callable(attrgetter(kernel)(fake_cupy.fake_backend())), kernel


@pytest.mark.parametrize("need_dx", [True, False])
@pytest.mark.parametrize("out", [True, False])
def test_a_chain_is_its_layers(need_dx, out):
    layers = (xn.Linear(7, 5), xn.ReLU(), xn.Linear(5, 130), xn.Linear(130, 4), xn.ReLU(), xn.Tanh(), xn.Linear(4, 3))
    net, rng = xn.Sequential(*layers), np.random.default_rng(0)
    for slots in net._fused_slots:
        assert [type(layer) for _, layer, _ in slots] == [Chain, xn.Tanh, Chain]
        assert slots[0][1].relu == (True, False, True)
    theta, x, dy = rng.normal(size=net.size), rng.normal(size=(6, 7)), rng.normal(size=(6, 3))
    results = []
    for backend in (fake_cupy.fake_backend(), xn.backend("numpy")):
        t, a, d = (backend.asarray(h) for h in (theta, x, dy))
        y, pullback = net.forward(split(backend.xp, t, net.layout), a, Context(backend))
        outs, finish = backend.join(t, net.layout)
        dx, gradients = pullback(d, need_dx, outs if out else ())
        flat = backend.asnumpy(finish(gradients))
        results.append((backend.asnumpy(y), None if dx is None else backend.asnumpy(dx), flat))
    for found, expected in zip(*results, strict=True):
        assert (found is None) == (expected is None)
        if found is not None:
            close(found, expected, 1e-13)


def test_a_watched_network_is_not_fused():
    net, seen = xn.Sequential(xn.Linear(3, 2), xn.ReLU(), xn.Linear(2, 2)), []
    backend = fake_cupy.fake_backend()
    theta = backend.asarray(np.ones(net.size, dtype="float32"))
    net(theta, fake_cupy.ones((4, 3), "float32"), watch=lambda path, y: seen.append(path), backend=backend)
    assert seen == ["0", "1", "2"]


def test_the_fake_enforces_cupys_rules():
    a = fake_cupy.ones(3, "float32")
    with pytest.raises(TypeError, match="Implicit conversion"):
        np.asarray(a)
    with pytest.raises(TypeError, match="no index"):
        [1, 2, 3][a[0]]
    with pytest.raises(TypeError, match="Unsupported type"):
        a + np.ones(3, "float32")
    assert fake_cupy.xp.sum(a).shape == ()
    taken = fake_cupy.xp.take(a, fake_cupy.asarray(np.asarray([7])), axis=0)
    assert float(taken[0]) == 1.0, "an index out of range wraps"


@pytest.mark.parametrize("check", numbers.CHECKS, ids=lambda check: check.__name__)
def test_selfcheck_passes_on_the_fake(check):
    with np.errstate(all="ignore"):
        assert check(fake_cupy.fake_backend(), quick=True)


@pytest.mark.parametrize(
    "check", [training.replay, training.precisions, training.errors], ids=lambda check: check.__name__
)
def test_selfcheck_of_training_passes_on_the_fake(check):
    assert check(fake_cupy.fake_backend(), quick=True)


def test_optimizers_keep_theta_where_it_is():
    backend = fake_cupy.fake_backend()
    theta = fake_cupy.ones(10, "float32")
    optimizer = optimizers.Adam()
    state = optimizer.init(theta)
    new = optimizer.update(theta, theta * 0.1, state.slots, optimizer.scalars(0), backend=backend)
    assert new.theta is theta
    assert new.slots == state.slots or all(a is b for a, b in zip(new.slots, state.slots, strict=True))
