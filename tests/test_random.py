import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpnet import backend as find_backend
from xpnet import random
from xpnet.testing import assert_close

N = 2**16

STEP_KEYS = [-1827443353, -673289021, -1337562235]
PHILOX = [2644469652128463287, 774384964653106594, 12313486714704152383]
DIGEST = 14291418057784981734
ORDER = [1, 3, 2, 5, 4, 0]
"""What a release must not change: the same seed gives the same weights, batches and masks for ever."""


def lowbias32(x):
    """Wellons' function on Python's own integers."""
    x &= 0xFFFFFFFF
    x ^= x >> 16
    x = x * 0x7FEB352D & 0xFFFFFFFF
    x ^= x >> 15
    x = x * 0x846CA68B & 0xFFFFFFFF
    return x ^ x >> 16


def mask(backend, n=N, p=0.5, key=1, purpose="0"):
    return backend.asnumpy(random.bernoulli(backend.xp, (n,), p, key, purpose, backend.device))


def words(backend, values):
    host = np.asarray(values, dtype=np.uint32).view(np.int32)
    return backend.asnumpy(random.hash32(backend.asarray(host, copy=True))).view(np.uint32)


# The hash


EDGES = [0, 1, 2, 3, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFF, 0x12345678, 0xDEADBEEF, 0xFFFF, 0x10000]


def test_hash_is_lowbias32(backend):
    assert words(backend, EDGES).tolist() == [lowbias32(x) for x in EDGES]


@given(st.lists(st.integers(0, 2**32 - 1), min_size=3, max_size=3))
def test_hash_is_lowbias32_on_any_word(backend, values):
    assert words(backend, values).tolist() == [lowbias32(x) for x in values]


def test_hash_is_a_bijection():
    x = np.arange(2**20, dtype=np.int32)
    assert np.unique(random.hash32(x)).size == 2**20


def test_hash_avalanches():
    """Flipping any bit of the input flips each bit of the output about every other time."""
    x = np.random.default_rng(0).integers(-(2**31), 2**31, 20000).astype(np.int32)
    for bit in range(32):
        flipped = (random.hash32(x.copy()) ^ random.hash32(x ^ np.int32(1 << bit if bit < 31 else -(2**31)))).view(
            np.uint32
        )
        rates = [np.mean(flipped >> out & 1) for out in range(32)]
        assert min(rates) > 0.47
        assert max(rates) < 0.53


# Masks


@pytest.mark.parametrize("key", [0, 1, -1, 2**31 - 1, -(2**31), 123456789])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_masks_are_the_same_bits_on_every_backend(backend, key, p):
    stream = random.digest("3.1", 32)
    limit = min(round(p * 2**32), 2**32 - 1) - 2**31
    signed = [(lowbias32(i ^ (key & 0xFFFFFFFF) ^ (stream ^ 0x80000000)) ^ 0x80000000) - 2**31 for i in range(40)]
    assert mask(backend, 40, p, key, "3.1").tolist() == [word < limit for word in signed]


def test_the_key_may_live_on_the_device(backend):
    for key in (-(2**31), -7, 0, 2**31 - 1):
        array = backend.asarray(np.asarray(key, dtype=np.int32))
        drawn = random.bernoulli(backend.xp, (100,), 0.5, array, "0", backend.device)
        assert_close(backend, drawn, mask(backend, 100, key=key))


def test_shape_and_place(backend):
    drawn = random.bernoulli(backend.xp, (3, 4), 0.5, 5, "0", backend.device)
    assert tuple(drawn.shape) == (3, 4)
    assert backend.owns(drawn)
    assert_close(backend, drawn, mask(backend, 12, key=5).reshape(3, 4))
    assert random.bernoulli(backend.xp, (0, 4), 0.5, 5, "0", backend.device).shape == (0, 4)


def test_probability_0_and_1(backend):
    assert not mask(backend, 1000, p=0.0).any()
    assert mask(backend, 1000, p=1.0).all()


@pytest.mark.parametrize("p", [0.01, 0.3, 0.5, 0.99])
def test_a_mask_has_its_probability(p):
    deviation = 4 * math.sqrt(p * (1 - p) / N)
    shares = [np.mean(mask(find_backend("numpy"), p=p, key=random.step_key(0, step))) for step in range(20)]
    assert max(abs(share - p) for share in shares) < deviation
    assert abs(np.mean(shares) - p) < deviation / math.sqrt(20)


def chi_square(counts):
    expected = np.sum(counts) / counts.size
    return float(np.sum((counts - expected) ** 2 / expected))


@pytest.mark.parametrize("shift", [0, 8, 16, 24])
def test_words_are_uniform(shift):
    """χ² over 256 bins: mean 255, standard deviation 22.6; below five deviations for each byte and key."""
    for step in range(10):
        x = np.arange(N, dtype=np.int32) ^ np.int32(random.step_key(3, step))
        byte = random.hash32(x).view(np.uint32) >> shift & 0xFF
        assert chi_square(np.bincount(byte, minlength=256)) < 255 + 5 * math.sqrt(2 * 255)


def correlation(a, b):
    return abs(float(np.corrcoef(a, b)[0, 1]))


LIMIT = 4 / math.sqrt(N)


def test_masks_of_different_steps_layers_and_seeds_are_independent():
    numpy = find_backend("numpy")
    masks = [
        mask(numpy, key=random.step_key(seed, step), purpose=path)
        for seed in (0, 1)
        for step in (0, 1, 2)
        for path in ("0", "1", "1.0")
    ]
    assert max(correlation(a, b) for k, a in enumerate(masks) for b in masks[:k]) < LIMIT


@pytest.mark.parametrize("distance", [1, 2, 3, 7, 64, 128, 784, 1024])
def test_neighbours_in_a_mask_are_independent(distance):
    for step in range(5):
        m = mask(find_backend("numpy"), key=random.step_key(0, step))
        assert correlation(m[distance:], m[:-distance]) < LIMIT


# The host's generators


def test_step_keys_are_pinned_and_fit_an_int32():
    keys = [random.step_key(seed, step) for seed in range(10) for step in range(100)]
    assert all(-(2**31) <= key < 2**31 for key in keys)
    assert len(set(keys)) == len(keys)
    assert [random.step_key(0, 0), random.step_key(0, 1), random.step_key(1, 0)] == STEP_KEYS


def test_generator_is_pinned():
    words = random.generator(0, "0.weight").bit_generator.random_raw(3)
    assert words.tolist() == PHILOX
    assert random.generator(np.int64(0), "0.weight").bit_generator.random_raw() == PHILOX[0]
    assert random.digest("0.weight") == DIGEST


def test_generator_is_keyed_by_seed_and_purpose():
    first = {
        random.generator(seed, name).integers(2**63) for seed in range(5) for name in ("0.weight", "1.weight", "x")
    }
    assert len(first) == 15


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "0", None])
def test_a_seed_must_be_a_64_bit_integer(seed):
    with pytest.raises(ValueError, match=r"seed must be an integer in 0\.\.2\*\*64-1, got"):
        random.generator(seed, "x")


@given(st.integers(0, 2**64 - 1), st.integers(0, 1000), st.integers(0, 300))
def test_permutation_is_a_permutation(seed, epoch, n):
    order = random.permutation(seed, epoch, n)
    assert order.dtype == np.int32
    assert sorted(order.tolist()) == list(range(n))


@pytest.mark.parametrize("n", [1, 2, 7, 1000, 70000])
def test_an_order_is_that_of_a_new_generator_whatever_was_drawn_before(n):
    for seed, epoch in ((3, 0), (2**64 - 1, 5), (3, 1)):
        new = random.generator(seed, f"shuffle/{epoch}").permutation(np.arange(n, dtype=np.int32))
        assert np.array_equal(random.permutation(seed, epoch, n), new)


def test_permutations_of_epochs_differ_and_repeat():
    assert random.permutation(0, 1, 50).tolist() == random.permutation(0, 1, 50).tolist()
    assert random.permutation(0, 1, 50).tolist() != random.permutation(0, 2, 50).tolist()
    assert random.permutation(0, 0, 6).tolist() == ORDER
