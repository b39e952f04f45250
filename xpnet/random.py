"""Random numbers that are the same bits on every backend.

Weights and permutations come from NumPy's Philox generator on the host (Salmon et al., "Parallel random numbers: as
easy as 1, 2, 3", SC 2011), keyed by the seed and by a digest of what they are for. Dropout masks come from a
counter-based integer hash in array API operations, so they need no host and can be compiled or captured in a graph.
"""

import math
from functools import lru_cache
from hashlib import blake2b
from threading import local
from typing import Any

import numpy as np

from xpnet import checks
from xpnet.arrays import Array, Namespace


@lru_cache(maxsize=4096)
def digest(text: str, bits: int = 64) -> int:
    """Return the first `bits` of the BLAKE2b digest of a text, as a non-negative integer."""
    return int.from_bytes(blake2b(text.encode(), digest_size=bits // 8).digest(), "little")


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Return the host's generator for one purpose (`"0.weight"`, `"shuffle/3"`): Philox keyed by seed and purpose."""
    return np.random.Generator(np.random.Philox(key=_key(seed, purpose)))


def _key(seed: int, purpose: str) -> np.ndarray:
    return np.asarray([checks.seed(seed), digest(purpose)], dtype=np.uint64)


def permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    """Return the order in which epoch number `epoch` visits n samples: int32 (n,)."""
    return (_order if n <= FORESEEN else _order.__wrapped__)(seed, epoch, n)


class _Kept(local):
    """A thread's own generator, told where to begin: to make one takes longer than to shuffle a few rows."""

    def __init__(self) -> None:
        self.philox = np.random.Philox(0)
        self.generator = np.random.Generator(self.philox)
        self.nothing = np.zeros(4, dtype=np.uint64)
        rest = {"buffer": self.nothing, "buffer_pos": 4, "has_uint32": 0, "uinteger": 0}
        self.start: Any = {"bit_generator": "Philox", **rest}

    def at(self, seed: int, purpose: str) -> np.random.Generator:
        """Return what `generator` does, until the next call."""
        self.philox.state = self.start | {"state": {"counter": self.nothing, "key": _key(seed, purpose)}}
        return self.generator


_kept = _Kept()


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, n: int) -> np.ndarray:
    order = _kept.at(seed, f"shuffle/{epoch}").permutation(np.arange(n, dtype=np.int32))
    order.flags.writeable = False
    return order


FORESEEN = 2**22
"""Samples up to which an order is kept, so that it can be drawn before it is needed."""


@lru_cache(maxsize=1024)
def step_key(seed: int, step: int) -> int:
    """Return the key of one training step, an integer in [−2³¹, 2³¹), from which the step's masks are hashed."""
    return int.from_bytes(blake2b(b"%d/%d" % (seed, step), digest_size=4).digest(), "little", signed=True)


def mask_key(key: int | Array | None, who: str) -> int | Array:
    """Return the key of a mask: an integer brought into [−2³¹, 2³¹), an array as it is; ValueError for None."""
    if key is None:
        raise ValueError(f"{who} draws a new mask at each step of training: pass key=…, another integer each time")
    return signed(int(key)) if isinstance(key, (int, np.integer, np.ndarray)) else key


def signed(word: int) -> int:
    """Return an integer as the 32 bits that it ends in: in [−2³¹, 2³¹)."""
    return (word + 2**31) % 2**32 - 2**31


def hash32(x: Array) -> Array:
    """Return `lowbias32` of an int32 array's bits, in place: a bijection of the 32-bit words that scatters them.

    x ^= x >> 16;  x *= 0x7feb352d;  x ^= x >> 15;  x *= 0x846ca68b;  x ^= x >> 16     (modulo 2³²)

    Chris Wellons, "Prospecting for hash functions", 2018 (public domain). Written on int32, since not every library
    shifts unsigned words: a logical shift is an arithmetic one whose upper bits are masked off.
    """
    x ^= (x >> 16) & 0xFFFF
    x *= 0x7FEB352D
    x ^= (x >> 15) & 0x1FFFF
    x *= 0x846CA68B - 2**32
    x ^= (x >> 16) & 0xFFFF
    return x


def bernoulli(
    xp: Namespace, shape: tuple[int, ...], p: float, key: int | Array, purpose: str, device: object, row: Any = 0
) -> Array:
    """Return a boolean array that is True with probability p: hash32(index ^ key ^ digest(purpose)) below a threshold.

    `key` is an integer or a 0-d int32 array; the same key, purpose and shape give the same bits on every backend.
    `row` is where the first row stands in an array of which these are some rows: they have its bits.
    """
    threshold = min(round(p * 2**32), 2**32 - 1) - 2**31
    first = row * math.prod(shape[1:])
    return xp.reshape(words(xp, math.prod(shape), key, purpose, device, first) < threshold, shape)


def uniform_integers(
    xp: Namespace, count: int, low: int, high: int, key: int | Array, purpose: str, device: object, first: Any = 0
) -> Array:
    """Return integers, low ≤ n < high, all equally likely to within (high − low) / 2³¹: int32 (count,).

    n = low + hash32(index ^ key ^ digest(purpose)) modulo (high − low), of the hash the lower 31 bits; the first one
    has the index `first`.
    """
    return (words(xp, count, key, purpose, device, first) & 0x7FFFFFFF) % (high - low) + low


def words(xp: Namespace, count: int, key: int | Array, purpose: str, device: object, first: Any = 0) -> Array:
    """Return hash32(index ^ key ^ digest(purpose)), the index counted from `first`: int32 (count,)."""
    stream = digest(purpose, 32) - 2**31
    index = xp.arange(count, dtype=xp.int32, device=device)
    if not isinstance(first, int):
        index += first
    elif first:
        index += signed(first)
    return hash32(index ^ (key ^ stream))
