"""Batches: an epoch's order cut into K steps at a time, and the samples of one batch."""

from collections.abc import Iterator

import numpy as np

from xpnet.arrays import Array, Namespace


def gather(xp: Namespace, x: Array, y: Array, index: Array, dtype: str) -> tuple[Array, Array]:
    """Return the rows of x and y that an index names. A library may make numbers of `dtype` of x in passing."""
    return xp.take(x, index, axis=0), xp.take(y, index, axis=0)


CALL = 2e10
"""Floating-point operations worth a call, a few tenths of a second on a processor; a step has 6 · batch · work."""
LEAST, MOST = (64, 4), 256
"""Steps in a call at least: of a network whose work is its parameters, and of one that has more, such as on images; and
at most."""


def batches(
    order: np.ndarray, batch_size: int, size: int, work: int | None = None, most: int = MOST
) -> Iterator[np.ndarray]:
    """Yield the epoch's batches as blocks of indices (K, B): K steps at a time, the last short batch by itself.

    `size` is the length of θ, `work` the multiply-adds of a sample, as many unless given: small steps come in larger
    blocks, of no more than `most`, since a call of the backend has a cost of its own.
    """
    full = len(order) // batch_size
    yield from cut(order, batch_size, steps_per_call(full, min(most, worth(batch_size, size, work))))


def cut(order: np.ndarray, batch_size: int, steps: int) -> Iterator[np.ndarray]:
    """Yield blocks of `steps` batches (K, B), the last short batch by itself."""
    full = len(order) // batch_size
    for start in range(0, full, steps):
        stop = min(start + steps, full)
        yield order[start * batch_size : stop * batch_size].reshape(stop - start, batch_size)
    if len(order) > full * batch_size:
        yield order[None, full * batch_size :]


def worth(batch_size: int, size: int, work: int | None = None) -> int:
    """Return how many steps make a call that takes long enough to be worth one, MOST at most."""
    work = max(size if work is None else work, 1)
    return min(max(LEAST[work > max(size, 1)], int(CALL / (6.0 * batch_size * work))), MOST)


def steps_per_call(full: int, most: int) -> int:
    """Return how many steps make a call: up to `most`, and if possible a divisor, so that all calls are alike."""
    divisor = next((k for k in range(min(most, full), 0, -1) if full % k == 0), 0)
    return divisor if divisor and divisor * 4 >= min(most, full) else most
