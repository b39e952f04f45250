"""JAX by hand: one jitted step called from Python, or a scan over all steps of an epoch; the carry is donated."""

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.settings import Settings


def scores(params, x):
    """Linear layers with ReLU between them."""
    for weight, bias in params[:-1]:
        x = jax.nn.relu(x @ weight + bias)
    weight, bias = params[-1]
    return x @ weight + bias


def cross_entropy(params, x, y):
    """The mean over the batch."""
    return -jnp.take_along_axis(jax.nn.log_softmax(scores(params, x)), y[:, None], axis=1).mean()


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
    jax.config.update("jax_default_matmul_precision", "tensorfloat32" if settings.tf32 else "float32")
    rng, device = np.random.default_rng(settings.seed), jax.devices(settings.device)[0]
    images, labels = settings.train()
    x, y = jax.device_put((images.astype(np.float32) / 255, labels.astype(np.int32)), device)
    pairs = pairwise(settings.sizes)
    params = [
        (rng.standard_normal((i, o), np.float32) * np.float32((2 / i) ** 0.5), np.zeros(o, "f4")) for i, o in pairs
    ]
    zeros = jax.tree.map(np.zeros_like, params)
    carry = jax.device_put((params, (np.float32(0), zeros, zeros)), device)

    def one(x, y, carry, index):
        loss, gradients = jax.value_and_grad(cross_entropy)(carry[0], x[index], y[index])
        return update(settings, carry[0], gradients, carry[1]), loss

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

    net = jax.jit(scores)
    return epoch, lambda images: np.asarray(net(carry[0], images.astype(np.float32) / 255)).argmax(axis=1)
