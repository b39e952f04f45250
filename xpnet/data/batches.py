"""Batches: an epoch's order cut into K steps at a time, and the samples of one batch."""

from collections.abc import Iterator

import numpy as np

from xpnet.arrays import Array, Namespace


def gather(xp: Namespace, x: Array, y: Array, index: Array, dtype: str) -> tuple[Array, Array]:
    """Return the rows of x and y that an index names. A library may make numbers of `dtype` of x in passing."""
    return xp.take(x, index, axis=0), xp.take(y, index, axis=0)


CALL = 2e10
"""Floating-point operations worth a call, a few tenths of a second on a processor; a step has 6 · batch · len(θ)."""


def batches(order: np.ndarray, batch_size: int, size: int) -> Iterator[np.ndarray]:
    """Yield the epoch's batches as blocks of indices (K, B): K steps at a time, the last short batch by itself.

    `size` is the length of θ: small steps come in larger blocks, since a call of the backend has a cost of its own.
    """
    full = len(order) // batch_size
    steps = steps_per_call(full, min(max(64, int(CALL / (6.0 * batch_size * max(size, 1)))), 256))
    for start in range(0, full, steps):
        stop = min(start + steps, full)
        yield order[start * batch_size : stop * batch_size].reshape(stop - start, batch_size)
    if len(order) > full * batch_size:
        yield order[None, full * batch_size :]


def steps_per_call(full: int, most: int) -> int:
    """Return how many steps make a call: up to `most`, and if possible a divisor, so that all calls are alike."""
    divisor = next((k for k in range(min(most, full), 0, -1) if full % k == 0), 0)
    return divisor if divisor and divisor * 4 >= min(most, full) else most
