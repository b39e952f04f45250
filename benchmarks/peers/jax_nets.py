"""The nets in JAX by hand: `start(rng)` gives the parameters, `scores(params, x, t)` what they say at step t.

Their arrays have the precision of what they are given; means and variances are float32. Batch normalisation keeps no
running averages, which training does not need: a little less work than the others do.
"""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.settings import BLOCKS, FEATURES, HEADS, LENGTH, TOKENS, WIDTH, Settings


def normal(rng, scale: float, *shape: int):
    """Return float32 numbers from N(0, scale²)."""
    return rng.standard_normal(shape, np.float32) * np.float32(scale)


def linear(rng, nin: int, nout: int, gain: float = 2.0):
    """Return weight and bias of a linear layer."""
    return normal(rng, (gain / nin) ** 0.5, nin, nout), np.zeros(nout, np.float32)


def affine(n: int):
    """Return factor and shift of a normalisation."""
    return np.ones(n, np.float32), np.zeros(n, np.float32)


def standardize(x, params, axes):
    """Normalise over some axes, in float32."""
    wide = x.astype(jnp.float32)
    mean, variance = wide.mean(axes, keepdims=True), wide.var(axes, keepdims=True)
    return ((wide - mean) * jax.lax.rsqrt(variance + 1e-5) * params[0] + params[1]).astype(x.dtype)


class Dense:
    """Linear layers with ReLU between them."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self.sizes = sizes

    def start(self, rng):
        """Return weights and biases."""
        return [linear(rng, nin, nout) for nin, nout in pairwise(self.sizes)]

    def scores(self, params, x, t=0):
        """Return the scores (N, C)."""
        for weight, bias in params[:-1]:
            x = jax.nn.relu(x @ weight + bias)
        weight, bias = params[-1]
        return x @ weight + bias


class Convolutional:
    """The network of examples/images.py."""

    def start(self, rng):
        """Return five kernels with their normalisations, and the last layer."""
        c = 4 * WIDTH
        pairs = [*pairwise((1, WIDTH, 2 * WIDTH, c)), (c, c), (c, c)]
        kernels = [(normal(rng, (2 / (9 * i)) ** 0.5, 3, 3, i, o), affine(o)) for i, o in pairs]
        return kernels, linear(rng, 49 * c, 10, 1.0)

    def scores(self, params, x, t=0):
        """Return the scores (N, 10) of images (N, 28, 28, 1)."""
        kernels, (weight, bias) = params

        def part(k, x, pool=False):
            x = jax.lax.conv_general_dilated(x, kernels[k][0], (1, 1), "SAME", dimension_numbers=LAYOUT)
            if pool:
                n, h, w, c = x.shape
                x = x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))
            return standardize(x, kernels[k][1], (0, 1, 2))

        x = jax.nn.relu(part(0, x, True))
        x = jax.nn.relu(part(1, x, True))
        x = jax.nn.relu(part(2, x))
        x = jax.nn.relu(x + part(4, jax.nn.relu(part(3, x)))).reshape(len(x), -1)
        key = jax.random.fold_in(jax.random.key(0, impl="unsafe_rbg"), jnp.asarray(t, jnp.int32))
        x = jnp.where(jax.random.bernoulli(key, 0.7, x.shape), x / 0.7, 0).astype(x.dtype)
        return x @ weight + bias


LAYOUT = ("NHWC", "HWIO", "NHWC")


class Transformer:
    """Blocks that are normalised before each part; one table for what is read and what is predicted."""

    def start(self, rng):
        """Return the table, the positions, the blocks and the last normalisation."""
        n, wide = FEATURES, 4 * FEATURES
        blocks = [
            [
                *(affine(n), linear(rng, n, 3 * n, 1.0), linear(rng, n, n, 1.0)),
                *(affine(n), linear(rng, n, wide, 1.0), linear(rng, wide, n, 1.0)),
            ]
            for _ in range(BLOCKS)
        ]
        return normal(rng, 0.02, TOKENS, n), normal(rng, 0.02, LENGTH, n), blocks, affine(n)

    def scores(self, params, x, t=0):
        """Return the scores (N, T, V) of tokens (N, T)."""
        table, places, blocks, last = params
        x = table[x] + places
        for first, qkv, out, second, up, down in blocks:
            heads = (standardize(x, first, -1) @ qkv[0] + qkv[1]).reshape(*x.shape[:2], 3, HEADS, FEATURES // HEADS)
            read = jax.nn.dot_product_attention(*(heads[:, :, k] for k in range(3)), is_causal=True)
            x = x + read.reshape(x.shape) @ out[0] + out[1]
            x = x + jax.nn.gelu(standardize(x, second, -1) @ up[0] + up[1]) @ down[0] + down[1]
        return standardize(x, last, -1) @ table.T


def network(settings: Settings):
    """Return the net of a task."""
    if settings.kind == "dense":
        return Dense(settings.sizes)
    return Convolutional() if settings.kind == "cnn" else Transformer()


def data(settings: Settings):
    """Return what is learnt, as NumPy arrays."""
    if settings.kind == "transformer":
        return settings.text()
    images, labels = settings.train()
    return numbers(settings, images), labels.astype(np.int32)


def numbers(settings: Settings, images):
    """Return bytes as numbers in 0..1; for convolutions with a channel."""
    x = images.astype(np.float32) / 255
    return x.reshape(-1, 28, 28, 1) if settings.kind == "cnn" else x
