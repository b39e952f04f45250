import ctypes
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

import xpnet as xn
from xpnet.backends import numpy as numpy_backend
from xpnet.backends import openblas
from xpnet.backends.host import Counted, calmly

wheel = pytest.mark.skipif(openblas.library() is None, reason="NumPy here has another BLAS than its wheels have")


@pytest.fixture(autouse=True)
def pools_as_found():
    openblas.pools.cache_clear()
    yield
    openblas.pools.cache_clear()


@wheel
def test_small_products_run_on_one_thread_and_the_number_is_put_back():
    count = openblas.library().scipy_openblas_get_num_threads64_
    before = count()
    with openblas.one_blas_thread():
        assert count() == 1
    assert count() == before
    with pytest.raises(ZeroDivisionError), openblas.one_blas_thread():
        raise ZeroDivisionError
    assert count() == before


def test_without_the_wheels_library_threadpoolctl_does_it(monkeypatch):
    threadpoolctl = pytest.importorskip("threadpoolctl")
    monkeypatch.setattr(openblas, "library", lambda: None)
    before = [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    with openblas.one_blas_thread():
        pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
        assert pools
        assert {pool["num_threads"] for pool in pools} == {1}
    after = [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    assert after == before


def test_without_either_the_products_run_as_they_are(monkeypatch):
    monkeypatch.setattr(openblas, "library", lambda: None)
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    assert openblas.pools() == []
    with openblas.one_blas_thread():
        assert (np.ones((2, 2)) @ np.ones((2, 2))).tolist() == [[2.0, 2.0], [2.0, 2.0]]


@pytest.mark.parametrize("folder", ["numpy.libs", "numpy/.dylibs"])
@pytest.mark.parametrize("content", ["no library", "another library", "the library"])
def test_the_library_is_that_of_the_wheel_or_none(folder, content, tmp_path, monkeypatch):
    """Beside NumPy on Linux and Windows, within it on macOS; one that does not load, or is another, ends nothing."""
    other = openblas.library()
    monkeypatch.setattr(np, "__file__", str(tmp_path / "numpy" / "__init__.py"))
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "libscipy_openblas64_-0123.so").write_text("")
    libraries = {"another library": object(), "the library": SimpleNamespace(scipy_openblas_set_num_threads64_=print)}
    if content in libraries:
        monkeypatch.setattr(openblas.ctypes, "CDLL", lambda path: libraries[content])
    openblas.library.cache_clear()
    try:
        assert openblas.library() is (libraries[content] if content == "the library" else None)
    finally:
        openblas.library.cache_clear()
    monkeypatch.undo()
    assert (openblas.library() is None) == (other is None)


# Calls that overlap


class Number:
    """A library's number of threads: the process's, or, as PyTorch's, one a thread that begins as the process's."""

    def __init__(self, value, apart):
        self.value, self.own = value, threading.local() if apart else None

    def get(self):
        return self.value if self.own is None else self.own.__dict__.setdefault("value", self.value)

    def put(self, value):
        self.value = value
        if self.own is not None:
            self.own.value = value


def overlapping(one, get):
    """In: this thread, then another; out: this thread, then the other. Return what both read inside and after."""
    inside, out, seen = threading.Event(), threading.Event(), {}

    def other():
        with one():
            inside.set()
            assert out.wait(60)
            seen["other inside"] = get()
        seen["other after"] = get()

    with ThreadPoolExecutor(1) as pool:
        with one():
            job = pool.submit(other)
            assert inside.wait(60)
            seen["inside"] = get()
        seen["between"] = get()
        out.set()
        job.result(timeout=60)
    with ThreadPoolExecutor(1) as pool:
        fresh = pool.submit(get).result(timeout=60)
    return seen | {"after": get(), "fresh": fresh}


@pytest.mark.parametrize("before", [1, 4])
def test_of_calls_that_overlap_the_last_puts_the_process_number_back(before):
    number = Number(before, apart=False)
    seen = overlapping(Counted(number.get, number.put), number.get)
    assert seen.pop("inside") == seen.pop("other inside") == seen.pop("between") == 1
    assert set(seen.values()) == {before}


@pytest.mark.parametrize("before", [1, 4])
def test_of_calls_that_overlap_each_puts_its_own_number_back(before):
    number = Number(before, apart=True)
    seen = overlapping(Counted(number.get, number.put, apart=True), number.get)
    assert seen.pop("inside") == seen.pop("other inside") == 1
    assert set(seen.values()) == {before}


def test_a_thread_with_a_number_of_its_own_keeps_it():
    number = Number(4, apart=True)
    number.get()
    one = Counted(number.get, number.put, apart=True)

    def other():
        number.put(3)
        with one():
            pass
        return number.get()

    with one(), ThreadPoolExecutor(1) as pool:
        assert pool.submit(other).result(timeout=60) == 3
    assert number.get() == 4


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("order", ["within each other", "as generators"])
def test_calls_within_one_thread_put_the_number_back_when_the_last_is_out(apart, order):
    number = Number(4, apart)
    one = Counted(number.get, number.put, apart=apart)
    first, second = one(), one()
    first.__enter__()
    second.__enter__()
    for block in (second, first) if order == "within each other" else (first, second):
        assert number.get() == 1
        block.__exit__(None, None, None)
    assert (number.get(), one.inside) == (4, 0)


def test_tests_on_jax_that_overlap_leave_its_64_bits_as_they_were():
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    from xpnet.testing import backends

    seen = overlapping(backends._jax_float64, lambda: jax.config.jax_enable_x64)
    assert [seen.pop(when) for when in ("inside", "other inside", "between")] == [True] * 3
    assert set(seen.values()) == {False}


def test_a_library_that_refuses_one_thread_is_left_as_it_was():
    def refuse(value):
        raise OSError("no")

    one = Counted(lambda: 4, refuse)
    with pytest.raises(OSError, match="no"), one():
        pass
    assert one.inside == 0


@wheel
def test_calls_that_overlap_leave_openblas_as_it_was():
    library = openblas.library()
    count, put = library.scipy_openblas_get_num_threads64_, library.scipy_openblas_set_num_threads64_
    found = count()
    put(2)
    try:
        seen = overlapping(openblas.one_blas_thread, count)
        assert seen["inside"] == seen["other inside"] == 1
        assert seen["after"] == seen["other after"] == 2
    finally:
        put(found)


def test_calls_that_overlap_leave_pytorch_as_it_was():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from xpnet.backends.torch import _one_thread

    found = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        seen = overlapping(_one_thread(), torch.get_num_threads)
        assert seen.pop("inside") == seen.pop("other inside") == 1
        assert set(seen.values()) == {2}
    finally:
        torch.set_num_threads(found)


def test_two_fits_that_overlap_leave_the_libraries_as_they_were():
    """The first fit ends while the second is in the middle of a call of K steps."""
    x, y = np.ones((8, 3), dtype=np.float32), np.asarray([0, 1] * 4)
    number = Number(4, apart=False)
    one, inside, out, seen = Counted(number.get, number.put), threading.Event(), threading.Event(), []

    def run(carry, fixed, xs):
        if threading.current_thread() is not threading.main_thread():
            inside.set()
            assert out.wait(60)
        else:
            job.append(pool.submit(fit))
            assert inside.wait(60)
        seen.append(number.get())
        return carry, ()

    fit = lambda: calmly(run, one)((x[:, 0], (x[:, 0],)), None, (y,))  # noqa: E731
    job = []
    with ThreadPoolExecutor(1) as pool:
        fit()
        out.set()
        job[0].result(timeout=60)
    assert (seen, number.get()) == ([1, 1], 4)


@wheel
def test_the_kernels_are_part_of_what_the_bits_depend_on():
    assert openblas.kernels()
    assert xn.backend("numpy").bits()["kernels"] == openblas.kernels()


@pytest.mark.parametrize(
    ("flags", "kernels", "advised"),
    [("avx2 avx512f", "Haswell", True), ("avx2 avx512f", "SkylakeX", False), ("avx2", "Haswell", False)],
)
def test_the_doctor_advises_wider_kernels_where_the_processor_has_them(flags, kernels, advised, monkeypatch):
    monkeypatch.setattr(openblas.Path, "read_text", lambda *_, **__: f"flags : {flags}\n")
    monkeypatch.setattr(openblas, "kernels", lambda: kernels)
    assert ["OPENBLAS_CORETYPE=SkylakeX" in line for line in numpy_backend.details()] == [True] * advised


def test_without_proc_there_is_no_advice(monkeypatch):
    def read(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(openblas.Path, "read_text", read)
    assert openblas.advice() == []


def test_memory_that_arrays_free_stays_with_the_process():
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        pytest.skip("only glibc gives freed memory back at once")
    resource = pytest.importorskip("resource")
    from xpnet.backends.host import keep_memory

    keep_memory()

    def faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            parts = [np.ones(500_000, dtype=np.float32) for _ in range(64)]  # 128 MB, as in a large step
            del parts
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults()
    assert faults() < 1000  # each round would fault its 31,250 pages of 4 KB anew
