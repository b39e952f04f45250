"""JAX's forms: what XLA does better than by the standard's operations."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from xpnet.arrays import Array, Namespace
from xpnet.backends.native import Forms


def scatter_rows(xp: Namespace, index: Array, rows: Array, count: int) -> Array:
    """E[v] = Σ of the rows whose index is v."""
    return jnp.zeros((count, rows.shape[1]), rows.dtype).at[index].add(rows)


def afresh(held: Any, dy: Array) -> Any:
    """Let XLA take these for new numbers, which come after dy."""
    return jax.lax.optimization_barrier((held, dy))


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
    "xpnet.layers.embedding.scatter_rows": scatter_rows,
    "xpnet.layers.recompute.afresh": afresh,
    "xpnet.layers.scan.scan": scan,
}
