"""OpenBLAS, which does the products in NumPy's wheels: how many threads it takes, and which processor it sees."""

import ctypes
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.backends.host import Counted


def one_blas_thread() -> AbstractContextManager[Any]:
    """Do NumPy's products on one thread: in the OpenBLAS of NumPy's wheels, else by threadpoolctl if installed."""
    found = pools()
    return found[0]() if len(found) == 1 else _all(found)


@contextmanager
def _all(found: list[Counted]) -> Iterator[None]:
    with ExitStack() as stack:
        for one in found:
            stack.enter_context(one())
        yield


@cache
def pools() -> list[Counted]:
    """Return the pools of threads that NumPy's products may run on."""
    if openblas := library():
        return [Counted(openblas.scipy_openblas_get_num_threads64_, openblas.scipy_openblas_set_num_threads64_)]
    try:
        from threadpoolctl import ThreadpoolController

        found = ThreadpoolController().select(user_api="blas").lib_controllers
    except (Exception, SystemExit):  # missing, or broken: products are right on any number of threads
        return []
    return [Counted(pool.get_num_threads, pool.set_num_threads) for pool in found]


@cache
def library() -> Any:
    """Return the OpenBLAS of NumPy's wheel, None if NumPy came with another."""
    home = Path(np.__file__).parent
    for folder in (home.parent / "numpy.libs", home / ".dylibs"):  # the latter on macOS, where Apple's may be instead
        for path in folder.glob("*scipy_openblas64*"):
            with suppress(AttributeError, OSError):
                found = ctypes.CDLL(str(path))  # loaded already: this is the same one
                found.scipy_openblas_set_num_threads64_  # noqa: B018
                return found
    return None


def kernels() -> str | None:
    """Return the processor whose kernels OpenBLAS runs, such as `Haswell` (AVX2) or `SkylakeX` (AVX-512)."""
    if (openblas := library()) is None:
        return None
    openblas.scipy_openblas_get_corename64_.restype = ctypes.c_char_p
    return str(openblas.scipy_openblas_get_corename64_().decode())


def advice() -> list[str]:
    """Return what would make products faster: OpenBLAS has AVX-512 kernels that it does not use on AMD's processors."""
    try:
        wide = "avx512f" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        wide = False
    if not wide or kernels() not in ("Haswell", "Zen"):
        return []
    return [f"OpenBLAS runs {kernels()} kernels, but AVX-512 is here: set OPENBLAS_CORETYPE=SkylakeX, which is faster"]
