"""The processor while it trains: BLAS threads, subnormal numbers, and memory that stays with the process.

Two threads on a small product gain little, and when another program keeps a core busy they wait for each other far
longer than the product takes. Subnormals, into which the optimizer's means decay where no gradient comes any more, slow
some processors down by an order of magnitude. Both are set around each call of K steps and put back after it. And the
C library gives memory that a step frees back to the system, which hands it out again, zeroed page by page, in the next.
"""

import ctypes
import ctypes.util
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from threading import Lock, local
from typing import Any

import numpy as np

from xpnet.backends.base import NOTHING, Run, Work, WorkOf

SMALL = 1e8
"""Floating-point operations of a step's forward pass, two for each multiply-add, below which one thread is better."""


KEPT = 1 << 30
"""Bytes of freed memory, at the heap's end, that stay with the process: a step's arrays are all freed together."""
APART = 1 << 28, 1 << 25
"""Bytes from which an array has pages of its own, which go back to the system with it: the first that glibc accepts."""


def small(batch: int, work: Work) -> bool:
    """Whether a step on so many samples is better done on one thread."""
    return 2.0 * batch * work.adds < SMALL


def calmly(
    run: Run, threads: Callable[[], Any], work: WorkOf | None = None, one: Callable[[int, Work], bool] = small
) -> Run:
    """Return the same `run(carry, fixed, xs)`; `threads()` is a context with one thread, for what `one` says.

    `work` gives the work of a sample; unless given, its multiply-adds are taken to be as many as θ is long.
    """

    def calm(carry: Any, fixed: Any, xs: Any) -> tuple[Any, tuple[Any, ...]]:
        theta, batch = carry[0], xs[0].shape[-1]
        keep_memory()
        alone = one(batch, Work(theta.shape[0]) if work is None else work(fixed))
        with threads() if alone else NOTHING, flushed() as flushing:
            carry, results = run(carry, fixed, xs)
        if not flushing:
            sweep(carry[1])
        return carry, results

    return calm


@cache
def keep_memory() -> None:
    """Have the C library keep what arrays free, where it is glibc, whose own thresholds, 64 MB at most, a step exceeds.

    mallopt(3): M_TRIM_THRESHOLD is −1, M_MMAP_THRESHOLD −3.
    """
    if (libc := _glibc()) is not None:
        libc.mallopt(-1, KEPT)
        any(libc.mallopt(-3, size) for size in APART)


@cache
def share_heap() -> None:
    """Have threads that begin from now on take memory from the heap of all, where the C library is glibc.

    A heap of its own, as a thread gets else, holds 64 MB, and what is larger goes back to the system when it is freed:
    the one array in which XLA does a whole step would be zeroed page by page in the next.

    mallopt(3): M_ARENA_MAX is −8.
    """
    if (libc := _glibc()) is not None:
        libc.mallopt(-8, 1)


def _glibc() -> Any:
    """Return the C library, None if it is not glibc."""
    return ctypes.CDLL(None) if sys.platform == "linux" and platform.libc_ver()[0] == "glibc" else None


def sweep(slots: tuple[Any, ...]) -> None:
    """Make zero of the subnormals in the optimizer's vectors: done after each call, it keeps them few."""
    for slot in slots:
        slot *= abs(slot) >= _smallest_normal(str(slot.dtype))


@lru_cache(maxsize=4)
def _smallest_normal(dtype: str) -> float:
    return float(np.finfo(dtype.rpartition(".")[2]).smallest_normal)


def host_bits() -> dict[str, str]:
    """Return what the last bits of a computation on this processor depend on."""
    return {"subnormals": "flushed" if _libm() else "swept", "threads": str(os.cpu_count())}


class Counted:
    """Let a setting have one value while anybody is inside, given the functions that read and set it.

    Calls may overlap, in threads, in tasks and within each other: the first in notes what was there, the last out puts
    it back. Where each thread has a setting of its own (`apart`), so has each its own count; one that begins among
    others has inherited their value, and gets what they had.
    """

    def __init__(self, get: Callable[[], Any], put: Callable[[Any], Any], value: Any = 1, apart: bool = False) -> None:
        self.get, self.put, self.value, self.apart = get, put, value, apart
        self.lock, self.inside, self.before = Lock(), 0, value
        self.threads = local()

    def outside(self) -> Any:
        """Return the value that the setting has for those who are not inside."""
        with self.lock:
            return self.before if self.inside else self.get()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Return the context."""
        with self.lock:
            before = self.get()
            self.put(self.value)
            if not self.inside:
                self.before = before
            self.inside += 1
            mine = vars(self.threads) if self.apart else {}
            if not mine.get("inside"):
                mine |= {"inside": 0, "before": before}
            mine["inside"] += 1
        try:
            yield
        finally:
            with self.lock:
                self.inside -= 1
                mine["inside"] -= 1
                if not (mine if self.apart else vars(self))["inside"]:
                    self.put(mine["before"] if self.apart and mine["before"] != self.value else self.before)


@contextmanager
def flushed() -> Iterator[bool]:
    """Let this thread read and write subnormal numbers as zero, where the C library can (x86-64 with glibc)."""
    libm = _libm()
    before, flushing = (ctypes.c_uint32 * 8)(), (ctypes.c_uint32 * 8)()
    if libm is None or libm.fegetenv(before) or libm.fegetenv(flushing):
        yield False
        return
    flushing[7] |= 0x8040  # MXCSR, the last word of fenv_t: flush to zero, denormals are zero
    libm.fesetenv(flushing)
    try:
        yield True
    finally:
        libm.fesetenv(before)


def floating() -> Callable[[], Any]:
    """Return what makes the thread that calls it treat subnormal numbers as this one does now."""
    libm, mode = _libm(), (ctypes.c_uint32 * 8)()
    if libm is None or libm.fegetenv(mode):
        return lambda: None
    return lambda: libm.fesetenv(mode)


@lru_cache(maxsize=1)
def _libm() -> Any:
    if not (sys.platform == "linux" and platform.machine() == "x86_64" and platform.libc_ver()[0] == "glibc"):
        return None
    return ctypes.CDLL(ctypes.util.find_library("m") or "libm.so.6")
