"""JAX's forms: what XLA does better than by the standard's operations."""

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


FORMS: Forms = {
    "xpnet.layers.embedding.scatter_rows": scatter_rows,
    "xpnet.layers.recompute.afresh": afresh,
}
