import ctypes

import numpy as np
import pytest

import xpnet as xn
from xpnet.backends import numpy as numpy_backend
from xpnet.backends import openblas

wheel = pytest.mark.skipif(openblas.library() is None, reason="NumPy here has another BLAS than its wheels have")


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
    with openblas.one_blas_thread():
        pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
        assert pools
        assert {pool["num_threads"] for pool in pools} == {1}


def test_without_either_the_products_run_as_they_are(monkeypatch):
    monkeypatch.setattr(openblas, "library", lambda: None)
    monkeypatch.setattr(openblas, "_threadpools", lambda: None)
    with openblas.one_blas_thread():
        assert (np.ones((2, 2)) @ np.ones((2, 2))).tolist() == [[2.0, 2.0], [2.0, 2.0]]


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
        for _ in range(200):
            parts = [np.ones(100_000, dtype=np.float32) for _ in range(4)]
            del parts
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults()
    assert faults() < 200  # each round would fault 400 pages of 4 KB anew
