"""Batches: which samples in which order, K steps at a time, and the samples that are held out."""

import hashlib
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

from xpnet import random
from xpnet.arrays import Array, Namespace, describe
from xpnet.backends import Backend
from xpnet.errors import DataError

Validation: TypeAlias = tuple[Any, Any] | float | int | None
"""A pair (x, y), a share of the data (0 < share < 1) or a number of samples, drawn at random; None for none."""


def hold_out(x: Array, y: Array, count: float | int, seed: int, backend: Backend) -> tuple[Array, Array, Array, Array]:
    """Return x, y for training and x, y for validation: `count` samples, or that share, drawn at random by the seed."""
    n = x.shape[0]
    if isinstance(count, (float, np.floating)) and 0 < count < 1:
        wanted = round(float(count) * n)
    elif isinstance(count, (int, np.integer)) and not isinstance(count, bool):
        wanted = int(count)
    else:
        expected = "a pair (x, y), a share between 0 and 1, or a number of samples"
        raise DataError(
            f"validation must be {expected}, got {describe(count) if isinstance(count, (tuple, list)) else repr(count)}"
        )
    if not 0 < wanted < n:
        raise DataError(f"validation asks for {count} of {n} samples: take at least one and leave at least one")
    order = random.generator(seed, "validation").permutation(n).astype(np.int32)
    kept, held = backend.asarray(np.sort(order[wanted:])), backend.asarray(np.sort(order[:wanted]))
    take = backend.xp.take
    return take(x, kept, axis=0), take(y, kept, axis=0), take(x, held, axis=0), take(y, held, axis=0)


def gather(xp: Namespace, x: Array, y: Array, index: Array, dtype: str) -> tuple[Array, Array]:
    """Return the rows of x and y that an index names. A library may make numbers of `dtype` of x in passing."""
    return xp.take(x, index, axis=0), xp.take(y, index, axis=0)


def digest(x: Array, y: Array, backend: Backend) -> str:
    """Return the SHA-256 of data, their types and shapes included."""
    sha = hashlib.sha256()
    for array in map(backend.asnumpy, (x, y)):
        sha.update(f"{array.dtype} {array.shape}".encode())
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()


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
