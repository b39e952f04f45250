"""The loop over a sequence's positions, of which the libraries that compile have one of their own."""

from collections.abc import Callable
from typing import Any, TypeAlias

from xpnet.arrays import Array, Namespace
from xpnet.backends import Backend

Arrays: TypeAlias = tuple[Array, ...]
Column: TypeAlias = Any
"""What there is at each step: an array, time first, or a list."""
Step: TypeAlias = Callable[[Backend, Arrays, Arrays, Arrays], tuple[Arrays, Arrays]]
"""One step: `step(backend, carry, fixed, x) -> carry, y`."""


def scan(
    backend: Backend, step: Step, carry: Arrays, fixed: Arrays, xs: tuple[Column, ...], reverse: bool
) -> tuple[Arrays, tuple[Column, ...]]:
    """carry, yₜ = step(carry, fixed, xₜ) for t = 0, 1, …, or with `reverse` from the last to the first

    Returns the last carry, and the yₜ in the order of time: as lists, so that nothing is copied that is only read step
    by step again, or as arrays where a library has a loop of its own.
    """
    ys: list[Arrays] = []
    steps = range(len(xs[0]) if isinstance(xs[0], list) else xs[0].shape[0])
    for t in reversed(steps) if reverse else steps:
        carry, y = step(backend, carry, fixed, tuple(x[t] if isinstance(x, list) else x[t, ...] for x in xs))
        ys.append(y)
    return carry, tuple(map(list, zip(*(reversed(ys) if reverse else ys), strict=True)))


def joined(xp: Namespace, column: Column) -> Array:
    """Return what there is at each step as one array (T, N, …)."""
    return xp.stack(column) if isinstance(column, list) else column
