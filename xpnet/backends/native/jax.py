"""JAX's forms: what XLA does better than by the standard's operations."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from xpnet.arrays import Array, Namespace
from xpnet.backends.native import Forms

HALVES = 64
"""Positions from which causal attention is done in two halves."""


def scatter_rows(xp: Namespace, index: Array, rows: Array, count: int) -> Array:
    """E[v] = Σ of the rows whose index is v."""
    return jnp.zeros((count, rows.shape[1]), rows.dtype).at[index].add(rows)


def attention(
    backend: Any, q: Array, k: Array, v: Array, causal: bool, mask: Array | None, keep: Array | None
) -> tuple[Array, Callable[[Array], tuple[Array, Array, Array]]] | None:
    """y = softmax(q kᵀ / √d) v, and `back(dy) -> dq, dk, dv`: the earlier half of the positions sees half the keys.

    XLA multiplies a transposed matrix of weights slowly on the CPU: pᵀ dy is made as (dyᵀ p)ᵀ.
    """
    t = q.shape[2]
    if not causal or mask is not None or keep is not None or t < HALVES or t != k.shape[2]:
        return None
    scale, turn = 1.0 / math.sqrt(q.shape[3]), jnp.matrix_transpose
    halves = [(slice(0, t // 2), slice(0, t // 2)), (slice(t // 2, t), slice(0, t))]
    kept = []
    for own, past in halves:
        s = (q[:, :, own] * scale) @ turn(k[:, :, past])
        later = jnp.arange(own.start, own.stop)[:, None] < jnp.arange(past.stop)[None, :]
        p = jax.nn.softmax(s + jnp.where(later, -jnp.inf, 0.0).astype(s.dtype))  # a sum is one with the product
        kept.append((p, p @ v[:, :, past]))

    def back(dy: Array) -> tuple[Array, Array, Array]:
        made = []
        for (own, past), (p, y) in zip(halves, kept, strict=True):
            g = dy[:, :, own]
            ds = p * (g @ turn(v[:, :, past]) - jnp.sum(g * y, axis=-1, keepdims=True)) * scale
            made.append((ds @ k[:, :, past], turn(turn(q[:, :, own]) @ ds), turn(turn(g) @ p)))
        (dq, *first), (dq_later, *whole) = made
        dk, dv = (both.at[:, :, : t // 2].add(early) for early, both in zip(first, whole, strict=True))
        return jnp.concatenate([dq, dq_later], axis=2), dk, dv

    return jnp.concatenate([y for _, y in kept], axis=2), back


def standardize_features(backend: Any, x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Any] | None:
    """y = γ (x − μ) / √(σ² + ε) + β over the last axis, its means as products, which XLA on the CPU adds up faster.

    Elsewhere a product may round its factors to fewer bits.
    """
    if backend.device.platform != "cpu":
        return None
    rows = jnp.reshape(x, (-1, x.shape[-1]))
    share = jnp.full((x.shape[-1], 1), 1.0 / x.shape[-1], x.dtype)
    d = rows - rows @ share
    rest = d @ share
    scale = 1.0 / jnp.sqrt((d * d) @ share - rest * rest + eps)
    hat = d * scale

    def backward(dy: Array, need_dx: bool) -> tuple[Array | None, tuple[Array, Array]]:
        rows = jnp.reshape(dy, hat.shape)
        each = jnp.ones((1, len(rows)), dy.dtype)
        gradients = (each @ (rows * hat))[0], (each @ rows)[0]
        if not need_dx:
            return None, gradients
        g = rows * gamma
        return jnp.reshape(scale * (g - g @ share - hat * ((g * hat) @ share)), x.shape), gradients

    return jnp.reshape(hat * gamma + beta, x.shape), backward


def afresh(x: Any, dy: Array) -> Any:
    """Return x, in a form that depends on dy: XLA drops an optimization_barrier on the CPU, and keeps all of f(x).

    Where dy is NaN it is 0, which makes no difference.
    """
    if not dy.size:
        return x
    bad = jnp.isnan(dy[(0,) * dy.ndim])
    return jax.tree.map(lambda part: jnp.where(bad, jnp.zeros_like(part), part), x)


def gelu(backend: Any, x: Array, exact: bool) -> tuple[Array, Callable[[Array], Array]] | None:
    """y = ½ x (1 + t), t = tanh(c x (1 + k x²)), and `dx(dy)`, which computes t again.

    On the CPU that takes less time than to write t and to read it, twice.
    """
    if exact or backend.device.platform != "cpu":
        return None
    c, k, far = math.sqrt(2.0 / math.pi), 0.044715, 1e2  # beyond ±far, t is ±1 in any precision

    def bent(x: Array) -> tuple[Array, Array]:
        near = jnp.clip(x, -far, far)
        return near, jnp.tanh(c * (near * (1.0 + k * (near * near))))

    def back(dy: Array) -> Array:
        near, t = bent(afresh(x, dy))
        slope = (1.0 - t * t) * (c * (1.0 + 3.0 * k * (near * near)))
        return dy * (0.5 * (1.0 + t + near * slope))

    return 0.5 * jnp.maximum(x, -far) * (1.0 + bent(x)[1]), back


def sigmoid(xp: Namespace, x: Array) -> Array:
    """1 / (1 + e^−x)"""
    return jax.nn.sigmoid(x)


@partial(jax.jit, static_argnums=(0, 1, 5))
def scan(backend: Any, step: Any, carry: Any, fixed: Any, xs: Any, reverse: bool) -> tuple[Any, Any]:
    """carry, yₜ = step(carry, fixed, xₜ): one program, compiled once for a layer and the shapes."""
    done: tuple[Any, Any] = jax.lax.scan(lambda carry, x: step(backend, carry, fixed, x), carry, xs, reverse=reverse)
    return done


FORMS: Forms = {
    "xpnet.arrays.sigmoid": sigmoid,
    "xpnet.layers.activations.gelu": gelu,
    "xpnet.layers.embedding.scatter_rows": scatter_rows,
    "xpnet.layers.attention.attention": attention,
    "xpnet.layers.normalization.standardize_features": standardize_features,
    "xpnet.layers.recompute.afresh": afresh,
    "xpnet.layers.scan.scan": scan,
}
