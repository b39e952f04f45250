"""JAX by hand: one jitted step called from Python, or a scan over all steps of an epoch; the carry is donated.

In bfloat16 parameters and data are cast before they go through the net; parameters and optimizer stay float32.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.jax_nets import data, network, numbers
from benchmarks.settings import Settings

MATMUL = {"float32": "float32", "tf32": "tensorfloat32", "bfloat16": "default"}
"""For products of float32 arrays."""


def update(settings: Settings, params, gradients, state):
    """Adam, or SGD with momentum: return the new parameters and state."""
    t, m, v = state
    t, tree = t + 1, jax.tree.map
    if settings.optimizer == "momentum":
        m = tree(lambda m, g: settings.momentum * m + g, m, gradients)
        return tree(lambda p, m: p - settings.rate * m, params, m), (t, m, v)
    beta1, beta2 = settings.beta1, settings.beta2
    m = tree(lambda m, g: beta1 * m + (1 - beta1) * g, m, gradients)
    v = tree(lambda v, g: beta2 * v + (1 - beta2) * g * g, v, gradients)
    rate = settings.rate * jnp.sqrt(1 - beta2**t) / (1 - beta1**t)
    return tree(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + settings.epsilon), params, m, v), (t, m, v)


def prepare(settings: Settings):
    """Return `epoch` and `predict`; the option `scan` makes an epoch one program."""
    jax.config.update("jax_default_matmul_precision", MATMUL[settings.precision])
    rng, device, net = np.random.default_rng(settings.seed), jax.devices(settings.device)[0], network(settings)
    x, y = jax.device_put(data(settings), device)
    params = net.start(rng)
    zeros = jax.tree.map(np.zeros_like, params)
    carry = jax.device_put((params, (np.float32(0), zeros, zeros)), device)

    def half(array):
        return array.astype(jnp.bfloat16) if jnp.issubdtype(array.dtype, jnp.floating) else array

    def cross_entropy(params, x, y, t):
        if settings.precision == "bfloat16":
            params, x = jax.tree.map(half, (params, x))
        scores = net.scores(params, x, t).astype(jnp.float32)
        return -jnp.take_along_axis(jax.nn.log_softmax(scores), y[..., None], axis=-1).mean()

    def one(x, y, carry, index):
        params, state = carry
        loss, gradients = jax.value_and_grad(cross_entropy)(params, x[index], y[index], state[0])
        return update(settings, params, gradients, state), loss

    step = jax.jit(lambda carry, x, y, index: one(x, y, carry, index), donate_argnums=0)
    scan = jax.jit(lambda carry, x, y, order: jax.lax.scan(partial(one, x, y), carry, order), donate_argnums=0)

    def epoch() -> float:
        nonlocal carry
        order = rng.permutation(settings.samples).astype(np.int32)
        whole = settings.samples - settings.samples % settings.batch
        parts = [order[:whole].reshape(-1, settings.batch), order[None, whole:]]
        total = []
        for part in (p for p in parts if p.size):
            for rows in [part] if settings.options["scan"] else part:
                carry, loss = (scan if settings.options["scan"] else step)(carry, x, y, rows)
                total.append((loss, part.shape[1]))
        return sum(float(np.sum(loss)) * size for loss, size in total) / settings.samples

    scores = jax.jit(net.scores)
    return epoch, lambda images: np.asarray(scores(carry[0], numbers(settings, images))).argmax(axis=1)
