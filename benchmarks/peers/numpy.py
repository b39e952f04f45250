"""NumPy by hand, tuned: one flat θ with views, every array made once, the update in cache-sized blocks."""

from itertools import pairwise
from math import sqrt

import numpy as np

from benchmarks.settings import Settings

BLOCK = 16384


def views(vector: np.ndarray, sizes: tuple[int, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the weight and the bias of each layer, as windows of a flat vector."""
    shapes = list(pairwise(sizes))
    parts = np.split(vector, np.cumsum([(nin + 1) * nout for nin, nout in shapes])[:-1])
    return [(part[:-nout].reshape(nin, nout), part[-nout:]) for part, (nin, nout) in zip(parts, shapes, strict=True)]


def forward(params, a: list[np.ndarray]) -> None:
    """Fill in a[1:], the outputs of the layers, from a[0]."""
    for k, (weight, bias) in enumerate(params, 1):
        np.matmul(a[k - 1], weight, out=a[k])
        a[k] += bias
        if k < len(params):
            np.maximum(a[k], 0, out=a[k])


def backward(params, gradients, a: list[np.ndarray], d: list[np.ndarray], label: np.ndarray) -> float:
    """Fill in the gradients; return the sum of the losses. a[-1] and d are used up."""
    rows, size = np.arange(len(label)), len(label)
    a[-1] -= a[-1].max(axis=1, keepdims=True)
    sums = np.exp(a[-1], out=d[-1]).sum(axis=1, keepdims=True)
    loss = float(np.log(sums).sum()) - float(a[-1][rows, label].sum())
    d[-1] /= sums
    d[-1][rows, label] -= 1
    d[-1] /= size
    for k in reversed(range(len(params))):
        np.matmul(a[k].T, d[k + 1], out=gradients[k][0])
        np.sum(d[k + 1], axis=0, out=gradients[k][1])
        if k:
            np.matmul(d[k + 1], params[k][0].T, out=d[k])
            d[k] *= a[k] > 0
    return loss


def update(settings: Settings, t: int, vectors, scratch: np.ndarray) -> None:
    """Adam, or SGD with momentum, in place."""
    beta1, beta2, rate = settings.beta1, settings.beta2, settings.rate
    step = rate * sqrt(1 - beta2**t) / (1 - beta1**t)
    for start in range(0, len(vectors[0]), BLOCK):
        p, g, m, v = (vector[start : start + BLOCK] for vector in vectors)
        one, two = scratch[:, : len(p)]
        if settings.optimizer == "momentum":
            m *= settings.momentum
            m += g
            p -= np.multiply(m, rate, out=one)
            continue
        m += np.multiply(np.subtract(g, m, out=one), 1 - beta1, out=one)
        v += np.multiply(np.subtract(np.multiply(g, g, out=one), v, out=one), 1 - beta2, out=one)
        root = np.add(np.sqrt(v, out=two), settings.epsilon, out=two)
        p -= np.multiply(np.divide(m, root, out=one), step, out=one)


def prepare(settings: Settings):
    """Return `epoch` and `predict`."""
    rng, sizes, t = np.random.default_rng(settings.seed), settings.sizes, 0
    images, y = settings.train()
    x = images.astype(np.float32) / 255
    vectors = [np.zeros(settings.parameters, np.float32) for _ in range(4)]  # θ, its gradient, m and v
    params, gradients = views(vectors[0], sizes), views(vectors[1], sizes)
    for weight, _ in params:
        weight[...] = rng.standard_normal(weight.shape) * sqrt(2 / len(weight))
    outputs, deltas = ([np.empty((settings.batch, size), np.float32) for size in sizes] for _ in range(2))
    scratch = np.empty((2, BLOCK), np.float32)

    def epoch() -> float:
        nonlocal t
        total, order = 0.0, rng.permutation(len(x))
        for start in range(0, len(x), settings.batch):
            index, t = order[start : start + settings.batch], t + 1
            a, d = [o[: len(index)] for o in outputs], [o[: len(index)] for o in deltas]
            np.take(x, index, axis=0, out=a[0], mode="clip")  # "clip" spares a copy
            forward(params, a)
            total += backward(params, gradients, a, d, y[index])
            update(settings, t, vectors, scratch)
        return total / len(x)

    def predict(images: np.ndarray) -> np.ndarray:
        a = [np.empty((len(images), size), np.float32) for size in sizes]
        np.divide(images, np.float32(255), out=a[0])
        forward(params, a)
        return a[-1].argmax(axis=1)

    return epoch, predict
