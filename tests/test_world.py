import json
import warnings
from functools import cache
from importlib.util import find_spec
from operator import add
from pathlib import Path

import numpy as np
import pytest
from launching import launched, mpiexec

import xpnet as xn
from xpnet import world
from xpnet.backends import openblas
from xpnet.world import alone

PROGRAM = Path(__file__).with_name("ranks.py")
SHARED = ("shares", "shares_weighed", "loader", "synchronized", "copied")
EXACT = ("exact", "exact_source", "exact_double")
RUNS = {"numpy": (1, 2, 4, 8), "torch": (1, 2), "jax": (1, 2)}
"""On how many ranks each backend trains."""
CASES = {"numpy": EXACT, "torch": ("exact", "exact_source", "synchronized"), "jax": ("exact",)}
"""What is tried with it: on NumPy and up to 4 ranks everything."""

needs_mpi = pytest.mark.skipif(mpiexec() is None, reason="needs MPI: pip install 'xpnet[mpi]' mpich")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Return what the cases of ranks.py gave, run once for each backend and number of ranks."""
    folder = tmp_path_factory.mktemp("world")

    @cache
    def run(backend, ranks):
        out = folder / f"{backend}{ranks}.json"
        few = [] if backend == "numpy" and ranks < 8 else CASES[backend]
        done = launched([str(PROGRAM), backend, str(out), *few], ranks, limit=300.0, PJRT_NPROC="1")
        assert done.code == 0, done.err[-3000:]
        return json.loads(out.read_text())

    return run


def backends():
    return [name for name in RUNS if find_spec(name)]


def several():
    return [(name, ranks) for name in backends() for ranks in RUNS[name][1:]]


def ids(value):
    return value if isinstance(value, str) else f"{value[0]} on {value[1]}"


@needs_mpi
@pytest.mark.parametrize(
    ("run", "case"), [(run, case) for run in several() for case in EXACT if case in CASES[run[0]]], ids=ids
)
def test_shards_give_the_same_bits_on_any_number_of_ranks(results, run, case):
    backend, ranks = run
    expected, found = results(backend, 1)[case], results(backend, ranks)[case]
    assert found["bits"] == expected["bits"]
    assert found["history"] == expected["history"]


@needs_mpi
@pytest.mark.parametrize("run", [("numpy", 2), ("numpy", 4)], ids=ids)
def test_nodes_add_up_to_the_same_bits(results, run):
    assert set(results(*run)["nodes"]) == set(results(run[0], 1)["nodes"])


@needs_mpi
@pytest.mark.parametrize(
    ("run", "case"),
    [(("numpy", ranks), case) for ranks in (2, 4) for case in SHARED]
    + [(("torch", 2), "synchronized")] * ("torch" in backends()),
    ids=ids,
)
def test_ranks_train_what_one_process_does_but_for_the_order_of_sums(results, run, case):
    backend, ranks = run
    expected, found = results(backend, 1)[case], results(backend, ranks)[case]
    np.testing.assert_allclose(found["theta"], expected["theta"], rtol=0, atol=1e-13)
    assert found["history"].keys() == expected["history"].keys()
    for key, values in expected["history"].items():
        np.testing.assert_allclose(found["history"][key], values, rtol=1e-12)


@needs_mpi
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_each_rank_reads_its_own_rows_and_none_twice(results, ranks):
    found = results("numpy", ranks)["own_rows"]
    assert found["all"]
    assert len(found["counts"]) == ranks
    assert max(found["counts"]) - min(found["counts"]) <= 7  # a row a batch


@needs_mpi
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_all_stop_when_one_asks_for_it(results, ranks):
    assert results("numpy", ranks)["stopped"] == [[1, "Ask asked for it"]] * ranks


@needs_mpi
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_what_shows_is_called_on_the_first_rank_alone(results, ranks):
    assert results("numpy", ranks)["called"] == [["Show", "Note"], *[["Note"]] * (ranks - 1)]


REFUSED = {
    "shards 6": "ValueError: Model: shards must be a power of two that {n} ranks divide, got 6: ",
    "shards": "ValueError: Model: shards must be a power of two that {n} ranks divide, got {half}: ",
    "labels": "DataError: labels must be integers in 0..3, got 5 at row 0",
    "seed": "DataError: all ranks must train the same: the seed of rank 0 and of rank 1 differ, 0 and 1",
    "data": "DataError: all ranks must train the same: the data of rank 0 and of rank 1 differ",
    "rate": "DataError: all ranks must train the same: the optimizer of rank 0 and of rank 1 differ",
    "batch_size": "DataError: all ranks must train the same: batch_size of rank 0 and of rank 1 differ, 10 and 11",
    "batches": "DataError: all ranks must be given the same batches: rank 0 has 3 of 20, rank 1 has 4 of 20",
    "synchronized": "ValueError: BatchNorm(16, synchronized=True) at layer 1: a process computes the parts of shards= "
    "and accumulate= one after the other: leave them out, or synchronized",
}


@needs_mpi
@pytest.mark.parametrize("ranks", [2, 4])
def test_bad_input_is_refused_on_all_ranks_alike_and_training_can_go_on(results, ranks):
    found = results("numpy", ranks)["refused"]
    said = {name: texts[0] for name, texts in found["said"].items()}
    for name, text in REFUSED.items():
        assert said.pop(name).startswith(text.format(n=ranks, half=ranks // 2))
    assert "first non-finite value in the output of layer" in said.pop("not finite")
    assert said.pop("small batches") == "nothing"
    one = "DataError: BatchNorm(16) at layer 1 cannot train on one sample, a batch of 6 in 4 parts: change batch_size"
    assert said == {"one sample": one if ranks == 4 else "nothing"}


@needs_mpi
def test_small_batches_are_warned_of(results):
    _, *warned = results("numpy", 4)["refused"]["said"]["small batches"]
    assert warned == ["batches of 1 leave 3 of 4 ranks without samples: take a larger batch_size"]


@needs_mpi
def test_a_rank_that_stands_somewhere_else_is_found(results):
    text = "all ranks must train the same: the seed of rank 0 and of rank 1 differ, 5 and 9"
    assert results("numpy", 2)["kept"] == text


# ---- alone ----


@pytest.mark.parametrize("count", range(1, 18))
def test_a_tree_of_neighbours_keeps_its_order_if_parts_are_added_up_before(count):
    def join(a, b):
        return f"({a}{b})"

    whole = alone.tree(map(str, range(count)), join)
    assert whole.count("(") == count - 1
    for size in (2, 4, 8):
        if count % size == 0 and count & (count - 1) == 0:
            parts = [alone.tree(map(str, range(k, k + size)), join) for k in range(0, count, size)]
            assert alone.tree(parts, join) == whole


def test_shards_of_one_process_train_as_the_whole_batch(backend):
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((30, 4)).astype(np.float32), rng.integers(0, 3, 30)
    net = xn.Sequential(xn.Linear(4, 8), xn.Tanh(), xn.Dropout(0.2), xn.Linear(8, 3))
    models = [xn.Model(net, xn.cross_entropy, xn.SGD(0.1), backend=backend, shards=shards) for shards in (None, 1, 4)]
    histories = [model.fit(x, y, epochs=2, batch_size=14, validation=0.2, progress=False) for model in models]
    thetas = [backend.asnumpy(model.theta) for model in models]
    for theta, history in zip(thetas[1:], histories[1:], strict=True):
        np.testing.assert_allclose(theta, thetas[0], atol=1e-6)
        np.testing.assert_allclose(history["val_loss"], histories[0]["val_loss"], rtol=1e-5)


def test_running_means_of_shards_are_those_of_the_batch():
    rng = np.random.default_rng(4)
    x, y = rng.normal(3, 2, (64, 5)).astype(np.float32), rng.integers(0, 2, 64)
    net = xn.Sequential(xn.BatchNorm(5), xn.Linear(5, 2))
    means = []
    for shards in (None, 4):
        model = xn.Model(net, xn.cross_entropy, xn.SGD(0.1), backend="numpy", shards=shards)
        model.fit(x, y, epochs=1, batch_size=32, progress=False)
        means.append(model.buffers["0.running_mean"])
    np.testing.assert_allclose(means[1], means[0], rtol=1e-5)


def test_shards_are_computed_on_one_thread():
    pools, seen = openblas.pools(), []
    if not pools:
        pytest.skip("NumPy's library for products has no number of threads that could be read")

    def threads(prediction, target, weights=None):
        seen.extend(pool.get() for pool in pools)
        return np.float32(0)

    x, y = np.zeros((64, 1024), np.float32), np.zeros(64, np.int64)  # enough for more threads
    before = [pool.get() for pool in pools]
    try:
        for pool in pools:
            pool.put(2)
        how = {"metrics": [threads], "backend": "numpy", "shards": 2}
        model = xn.Model(xn.Linear(1024, 1024), xn.cross_entropy, xn.SGD(0.1), **how)
        model.fit(x, y, epochs=1, batch_size=64, progress=False)
    finally:
        for pool, number in zip(pools, before, strict=True):
            pool.put(number)
    assert seen[-len(pools) :] == [1] * len(pools)  # in the step; a metric is tried beforehand


def test_shards_are_kept_in_a_checkpoint(tmp_path):
    model = xn.Model(xn.Linear(3, 2), xn.cross_entropy, xn.SGD(0.1), backend="numpy", shards=4)
    model.save(tmp_path / "model")
    assert xn.load(tmp_path / "model", "numpy").step.shards == 4


@pytest.mark.parametrize("shards", [0, 3, -2, 2.5, True, "8"])
def test_shards_that_are_none(shards):
    with pytest.raises(
        ValueError, match=r"Model: shards must be (a power of two such as 8|an integer of at least 1), got"
    ):
        xn.Model(xn.Linear(3, 2), xn.cross_entropy, xn.SGD(0.1), backend="numpy", shards=shards)


@pytest.mark.parametrize("name", ["mpii", 3, "nccl"])
def test_a_world_that_is_none(name):
    with pytest.raises(xn.BackendError, match=r'unknown world .+: choose "mpi", a communicator of mpi4py, or "alone"'):
        xn.Model(xn.Linear(3, 2), xn.cross_entropy, xn.SGD(0.1), backend="numpy", world=name)


def test_the_world_from_outside(monkeypatch):
    monkeypatch.setenv("XPNET_WORLD", "nowhere")
    with pytest.raises(xn.BackendError, match="unknown world 'nowhere'"):
        world.find()
    monkeypatch.setenv("XPNET_WORLD", "alone")
    assert world.find().size == 1


@pytest.mark.parametrize("names", [("PMI_SIZE", "PMI_RANK"), ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")])
@pytest.mark.parametrize("rank", [0, 1])
def test_processes_that_train_alone_are_told_once(monkeypatch, names, rank):
    world._warn_of_others.cache_clear()
    monkeypatch.delenv("XPNET_WORLD", raising=False)
    monkeypatch.setenv(names[0], "4")
    monkeypatch.setenv(names[1], str(rank))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert (world.find().size, world.find().size) == (1, 1)
    world._warn_of_others.cache_clear()
    text = '4 processes were started, and each trains alone: pass world="mpi", or set XPNET_WORLD=mpi'
    assert [str(one.message).startswith(text) for one in caught] == [True] * (rank == 0)


def test_a_pickle_is_another_program(tmp_path):
    import pickle

    model = xn.Model(xn.Linear(3, 2), xn.cross_entropy, xn.SGD(0.1), backend="numpy", shards=2)
    again = pickle.loads(pickle.dumps(model))
    assert (again.world.size, again.step.shards) == (1, 2)


def test_rows_of_a_mask_have_the_bits_of_the_whole(backend):
    draw, xp = backend.native(xn.random.bernoulli), backend.xp
    whole = backend.asnumpy(draw(xp, (9, 3, 2), 0.4, 7, "1", backend.device))
    part = backend.asnumpy(draw(xp, (4, 3, 2), 0.4, 7, "1", backend.device, 5))
    np.testing.assert_array_equal(part, whole[5:])
    numbers = xn.random.uniform_integers(xp, 4, -3, 9, 7, "1", backend.device, 5)
    expected = xn.random.uniform_integers(xp, 9, -3, 9, 7, "1", backend.device)[5:]
    np.testing.assert_array_equal(backend.asnumpy(numbers), backend.asnumpy(expected))


def test_one_process_adds_nothing():
    one = alone.World()
    parts = [np.ones(3), np.asarray(2.0)]
    assert one.add(parts) is parts
    assert (one.gather(5), one.any(True), one.share(7), list(one.own(4))) == ([5], True, (0, 7), [0, 1, 2, 3])
    assert alone.tree([1, 2, 3], add) == 6
