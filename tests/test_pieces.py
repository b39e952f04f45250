"""Large products on two threads that do not spin: the bits of one thread, whatever the second does."""

import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest

import xpnet as xn
from xpnet.backends import openblas, pieces
from xpnet.backends.base import Work
from xpnet.backends.host import flushed

pytestmark = pytest.mark.skipif(openblas.library() is None, reason="NumPy here has another BLAS than its wheels have")

SHAPES = [(128, 784, 512), (512, 128, 784), (784, 128, 500), (700, 300, 300), (65, 700, 1000), (4096, 64, 130)]


@pytest.fixture(autouse=True)
def two_threads():
    """OpenBLAS may take two threads, whatever the machine."""
    pool = openblas.pools()[0]
    before = pool.get()
    pool.put(2)
    yield
    pool.put(before)


@pytest.fixture
def side_by_side(monkeypatch):
    """Each of two threads does a piece at the same time as the other."""
    together, matmul = threading.Barrier(2, timeout=30), np.matmul

    def both(a, b, y):
        together.wait()
        matmul(a, b, y)

    monkeypatch.setattr(pieces.np, "matmul", both)


def matrices(m, k, n, dtype="float32", orders="CC"):
    rng = np.random.default_rng(m + k + n)
    a, b = rng.standard_normal((m, k)), rng.standard_normal((k, n))
    return np.asarray(a, dtype, orders[0]), np.asarray(b, dtype, orders[1])


@pytest.mark.parametrize("orders", ["CC", "CF", "FC", "FF"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_one_thread_and_two_give_the_same_bits(shape, dtype, orders):
    (a, b), pool, found = matrices(*shape, dtype, orders), openblas.pools()[0], []
    for threads in (1, 2):
        pool.put(threads)
        y = np.full((shape[0], shape[2]), np.nan, dtype)
        with openblas.one_blas_thread():
            found.append(pieces.product(a, b))
            assert pieces.product(a, b, y) is y
        assert np.array_equal(found[0], y)
        assert found[0].tobytes() == found[-1].tobytes()
    np.testing.assert_allclose(y, a.astype("f8") @ b.astype("f8"), atol=1e3 * np.finfo(dtype).eps)


def test_the_second_thread_takes_its_part(monkeypatch):
    together = threading.Barrier(2, timeout=30)
    monkeypatch.setattr(pieces.np, "matmul", lambda a, b, y: together.wait())  # ends only if two are in it
    pieces.product(*matrices(*SHAPES[0]))


def test_matrices_of_two_types_are_left_to_numpy():
    a, b = matrices(*SHAPES[0])
    with openblas.one_blas_thread():
        assert pieces.cuts(a, b)
        assert not pieces.cuts(a, b.astype("float64"))
        assert xn.backend("numpy").matmul(a, b.astype("float64")).dtype == np.float64


def test_a_second_thread_that_is_held_up_is_not_waited_for():
    held, (a, b) = threading.Event(), matrices(*SHAPES[0])
    other = pieces._second().submit(held.wait, 30)
    try:
        with openblas.one_blas_thread():
            np.testing.assert_allclose(pieces.product(a, b), a @ b, atol=1e-4)
        assert not other.done()
    finally:
        held.set()


@pytest.mark.parametrize("who", ["first", "second"])
def test_an_error_in_either_thread_is_raised_when_both_are_out(who, monkeypatch):
    first, together, inside, seen = threading.current_thread(), threading.Barrier(2, timeout=30), [], set()

    def matmul(a, b, y):
        inside.append(own := threading.current_thread())
        if own not in seen:
            seen.add(own)
            together.wait()
        try:
            if (own is first) == (who == "first"):
                raise MemoryError(who)
            time.sleep(0.01)
        finally:
            inside.remove(own)

    monkeypatch.setattr(pieces.np, "matmul", matmul)
    with pytest.raises(MemoryError, match=who):
        pieces.product(*matrices(*SHAPES[0]))
    assert not inside


@pytest.mark.parametrize("flushing", [False, True])
def test_both_threads_treat_subnormal_numbers_as_the_first_does(flushing, side_by_side):
    a, b = np.eye(512, dtype=np.float32), np.full((512, 512), 1e-40, np.float32)
    with openblas.one_blas_thread():
        assert pieces.product(a, b).all()
        if flushing:
            with flushed() as can:
                y = pieces.product(a, b)
            assert y.any() != can
        assert pieces.product(a, b).all()


FORKED = """
import os, threading, warnings
import numpy as np
from xpnet.backends import openblas, pieces

openblas.pools()[0].put(2)
a, b = np.ones((128, 784), np.float32), np.ones((784, 512), np.float32)
with openblas.one_blas_thread():
    pieces.product(a, b)
    warnings.simplefilter("ignore")  # there is a second thread, which the child has not
    if child := os.fork():
        raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    right = (pieces.product(a, b) == 784).all()
    together = threading.Barrier(2, timeout=30)
    pieces._second().submit(together.wait)
    together.wait()
    os._exit(not right)
"""


@pytest.mark.posix
def test_a_forked_process_has_a_second_thread_of_its_own():
    assert subprocess.run([sys.executable, "-c", FORKED], timeout=100).returncode == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bias", [False, True])
def test_two_threads_train_to_the_bits_of_one(dtype, bias, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.random((384, 600)).astype(dtype), rng.integers(0, 10, 384)
    thetas, cut, pool, whole = [], [], openblas.pools()[0], pieces.product
    monkeypatch.setattr(pieces, "product", lambda *matrices: cut.append(pool.get()) or whole(*matrices))
    for threads in (1, 2):
        pool.put(threads)
        net = xn.Sequential(xn.Linear(600, 520, bias=bias), xn.ReLU(), xn.Linear(520, 10))
        model = xn.Model(net, xn.cross_entropy, xn.Adam(1e-3), backend="numpy", dtype=dtype)
        model.fit(x, y, epochs=2, batch_size=128, progress=False)
        assert cut == [1] * 12 * threads  # y = x W and dW of the first layer, in six steps
        assert pool.get() == threads
        thetas.append(model.theta)
    assert np.array_equal(*thetas)


LARGE, DEEP = (784 * 1024, 1024 * 1024, 10240), (256 * 256,) * 20


@pytest.mark.parametrize(
    ("threads", "work", "alone"),
    [
        (2, Work(sum(LARGE), LARGE), True),
        (1, Work(sum(LARGE), LARGE), False),
        (4, Work(sum(LARGE), LARGE), False),
        (2, Work(sum(DEEP), DEEP), False),
        (2, Work(sum(LARGE)), False),
        (4, Work(101_770, (784 * 128, 1280)), True),
    ],
    ids=["large", "one thread", "four threads", "many of middle size", "used at many positions", "small"],
)
def test_what_is_done_on_one_thread_of_openblas(threads, work, alone):
    openblas.pools()[0].put(threads)
    assert pieces.one_each(128, work) == alone


def test_a_network_says_which_matrices_it_multiplies_by():
    dense = xn.Sequential(xn.Flatten(), xn.Linear(784, 128), xn.ReLU(), xn.Linear(128, 10))
    images = xn.Sequential(xn.Conv2d(1, 8, 3), xn.Flatten(), xn.Linear(26 * 26 * 8, 10))
    for net, shape, found in ((dense, (28, 28), (784 * 128, 1280)), (images, (28, 28, 1), ())):
        step = xn.Model(net, xn.cross_entropy, xn.SGD(0.1), backend="numpy").step
        assert step.extent(np.zeros((2, *shape), "float32")).matrices == found


def test_what_numpy_is_told_of_overflows_holds_in_both_threads(side_by_side):
    a, b = matrices(*SHAPES[0])
    a[:, 0], b[0] = np.inf, 0.0  # their product is not a number
    with warnings.catch_warnings(), openblas.one_blas_thread():
        warnings.simplefilter("error")
        with np.errstate(all="ignore"):
            assert np.isnan(pieces.product(a, b)).all()
        with np.errstate(invalid="raise"), pytest.raises(FloatingPointError):
            pieces.product(a, b)
