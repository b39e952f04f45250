"""Counts that do not depend on the machine's mood, held against committed limits: `python -m benchmarks guard`.

A timing in CI says more about the machine than about the code. How many array functions a training step calls, how
many arrays and bytes it makes, how many Python functions it runs and how many programs JAX compiles say it exactly.
"""

import json
import math
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.files.writer import write_text

LIMITS = Path(__file__).parent / "guard.json"
BATCH, STEPS, REST = 128, 48, 32
COMPILED = "/jax/core/compile/backend_compile_duration"

Counts = dict[str, float]


class Counted(np.ndarray):
    """An array that counts what is called on it, and the arrays that are made of it."""

    calls = arrays = bytes = 0

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: tuple[Any, ...] = (), **rest: Any) -> Any:
        rest |= {"out": tuple(map(plain, out))} if out else {}
        result = getattr(ufunc, method)(*map(plain, inputs), **rest)
        return count(result, out[0] if out else None)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return count(function(*plain(args), **plain(kwargs)), kwargs.get("out"))

    def astype(self, *args: Any, **kwargs: Any) -> Any:
        return count(plain(self).astype(*args, **kwargs))

    def __setitem__(self, key: Any, value: Any) -> None:
        plain(self)[plain(key)] = plain(value)
        Counted.calls += 1


def plain(value: Any) -> Any:
    """Return the same without counting arrays in it."""
    if isinstance(value, Counted):
        return value.view(np.ndarray)
    if isinstance(value, (list, tuple)):
        return type(value)(map(plain, value))
    return {key: plain(one) for key, one in value.items()} if isinstance(value, dict) else value


def count(result: Any, out: Any = None) -> Any:
    """Count a call and the array it made, if it made one; return that, counting on."""
    Counted.calls += 1
    if out is not None:
        return out
    if isinstance(result, np.ndarray):
        if result.base is None:
            Counted.arrays += 1
            Counted.bytes += result.nbytes
        return result.view(Counted)
    return type(result)(map(count, result)) if isinstance(result, (list, tuple)) else result


@contextmanager
def arrays(counts: Counts) -> Iterator[None]:
    """Count what is called on arrays, and what that makes."""
    Counted.calls = Counted.arrays = Counted.bytes = 0
    yield
    counts["array-function calls per step"] = Counted.calls / STEPS
    counts["arrays made per step"] = Counted.arrays / STEPS
    counts["bytes made per step"] = Counted.bytes / STEPS


@contextmanager
def functions(counts: Counts) -> Iterator[None]:
    """Count calls of Python functions."""
    calls, before = 0, sys.getprofile()

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(before)
    counts["Python function calls per step"] = calls / STEPS


@contextmanager
def peak(counts: Counts) -> Iterator[None]:
    """Measure the most memory that is held at once, beyond what was there before."""
    tracemalloc.start()
    try:
        yield
        counts["peak bytes"] = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def fit(backend: Any, steps: int, epochs: int, rest: int = 0) -> None:
    """Train the small net on noise."""
    import xpnet as xn
    from benchmarks.peers.xpnet_nets import dense

    rng, n = np.random.default_rng(0), steps * BATCH + rest
    images, labels = rng.integers(0, 256, (n, 28, 28), np.uint8), rng.integers(0, 10, n, np.uint8)
    model = xn.Model(dense((784, 128, 10)), xn.cross_entropy, xn.Adam(1e-3), backend=backend)
    model.fit(images, labels, epochs, BATCH, progress=False)


def watched(watch: Callable[[Counts], Any], counts: Counts, counting: bool) -> Any:
    """Return NumPy's backend that watches its compiled steps; the last call counts, the first ones have warmed up."""
    from xpnet.backends.numpy import NumpyBackend

    class Watched(NumpyBackend):
        def _place(self, host: np.ndarray, copy: bool | None) -> Any:
            array = super()._place(host, copy)
            return array.view(Counted) if counting else array

        def compile(self, step: Any, work: Any = None) -> Any:
            run = super().compile(step, work)

            def steps(carry: Any, fixed: Any, xs: Any) -> Any:
                with watch(counts):
                    return run(carry, fixed, xs)

            return steps

    return Watched()


def on_numpy() -> Counts:
    """Count for NumPy without extras."""
    hidden = {name: sys.modules.get(name) for name in ("numba", "threadpoolctl")}
    sys.modules.update(dict.fromkeys(hidden))  # None: importing it is an ImportError
    counts: Counts = {}
    for watch in (arrays, functions, peak):
        fit(watched(watch, counts, watch is arrays), STEPS, 2)
    for name, module in hidden.items():
        sys.modules.pop(name)
        sys.modules.update({name: module} if module else {})
    return counts


def on_jax() -> Counts:
    """Count the programs that JAX compiles for three epochs, the last batch of each a short one."""
    import jax

    programs = 0

    def listen(event: str, seconds: float, **rest: Any) -> None:
        nonlocal programs
        programs += event == COMPILED

    jax.monitoring.register_event_duration_secs_listener(listen)
    fit("jax", 2 * STEPS, 3, REST)
    return {"programs compiled in 3 epochs": programs}


def measure() -> dict[str, Counts]:
    """Count on every library that is here."""
    found = {"numpy": on_numpy()}
    try:
        found["jax"] = on_jax()
    except ImportError:
        print("guard: jax is missing, its programs were not counted")
    return found


def grown(found: dict[str, Counts], limits: dict[str, Counts]) -> list[str]:
    """Return a line for each count that is above its limit, or has none."""
    lines = []
    for library, counts in found.items():
        for what, value in counts.items():
            limit = limits.get(library, {}).get(what, 0)
            if value > limit:
                lines.append(f"guard: {library}, {what} grew from {limit:g} to {value:g}")
    return lines


def rounded(found: dict[str, Counts]) -> dict[str, Counts]:
    """Return limits: the counts rounded up, memory with 2 % to spare for Python's own."""

    def limit(what: str, value: float) -> float:
        return math.ceil(value * 1.02) if "bytes" in what else math.ceil(value * 10) / 10

    return {library: {w: limit(w, v) for w, v in counts.items()} for library, counts in found.items()}


def check(update: bool) -> int:
    """Count and compare; return the exit status. `update` makes the counts the limits."""
    found = measure()
    limits = json.loads(LIMITS.read_text()) if LIMITS.exists() else {}
    if update:
        limits |= rounded(found)
        write_text(LIMITS, json.dumps(limits, indent=2) + "\n")
    for library, counts in found.items():
        for what, value in counts.items():
            print(f"{library:6} {what:32} {value:12.1f}  (limit {limits.get(library, {}).get(what, 0):g})")
    lines = grown(found, limits)
    print("; ".join(lines) + ": find out why, or accept it with --update" if lines else "guard: nothing has grown")
    return int(bool(lines))
