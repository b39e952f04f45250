"""NumPy by hand, tuned: one flat θ with views, every array made once, the update in cache-sized blocks."""

from itertools import pairwise
from math import sqrt

import numpy as np

from benchmarks.settings import Settings

BLOCK = 16384


def views(vector: np.ndarray, sizes: tuple[int, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the weight and the bias of each layer, as windows of a flat vector."""
    found, start = [], 0
    for nin, nout in pairwise(sizes):
        middle, stop = start + nin * nout, start + (nin + 1) * nout
        found.append((vector[start:middle].reshape(nin, nout), vector[middle:stop]))
        start = stop
    return found


def prepare(settings: Settings):
    """Return `epoch` and `predict`."""
    rng, sizes, n = np.random.default_rng(settings.seed), settings.sizes, settings.samples
    images, y = settings.train()
    x = images.astype(np.float32) / 255
    theta, gradient, m, v = (np.zeros(settings.parameters, np.float32) for _ in range(4))
    params, gradients = views(theta, sizes), views(gradient, sizes)
    for weight, _ in params:
        weight[...] = rng.standard_normal(weight.shape) * sqrt(2 / len(weight))
    outputs = [np.empty((settings.batch, size), np.float32) for size in sizes]
    deltas, scratch, rows, t = list(map(np.empty_like, outputs)), np.empty((2, BLOCK), np.float32), np.arange(n), 0

    def forward(a: list[np.ndarray]) -> None:
        for k, (weight, bias) in enumerate(params):
            np.matmul(a[k], weight, out=a[k + 1])
            a[k + 1] += bias
            if k < len(params) - 1:
                np.maximum(a[k + 1], 0, out=a[k + 1])

    def update() -> None:
        beta1, beta2, rate = settings.beta1, settings.beta2, settings.rate
        step = rate * sqrt(1 - beta2**t) / (1 - beta1**t)
        for start in range(0, len(theta), BLOCK):
            p, g, mean, square = (array[start : start + BLOCK] for array in (theta, gradient, m, v))
            one, two = scratch[:, : len(p)]
            if settings.optimizer == "momentum":
                mean *= settings.momentum
                mean += g
                p -= np.multiply(mean, rate, out=one)
                continue
            mean += np.multiply(np.subtract(g, mean, out=one), 1 - beta1, out=one)
            square += np.multiply(np.subtract(np.multiply(g, g, out=one), square, out=one), 1 - beta2, out=one)
            root = np.add(np.sqrt(square, out=two), settings.epsilon, out=two)
            p -= np.multiply(np.divide(mean, root, out=one), step, out=one)

    def epoch() -> float:
        nonlocal t
        total, order = 0.0, rng.permutation(n)
        for start in range(0, n, settings.batch):
            index, t = order[start : start + settings.batch], t + 1
            size = len(index)
            a, d, label = [o[:size] for o in outputs], [o[:size] for o in deltas], y[index]
            forward([np.take(x, index, axis=0, out=a[0]), *a[1:]])
            a[-1] -= a[-1].max(axis=1, keepdims=True)
            probability = np.exp(a[-1], out=d[-1])
            sums = probability.sum(axis=1, keepdims=True)
            total += float(np.log(sums).sum()) - float(a[-1][rows[:size], label].sum())
            probability /= sums
            probability[rows[:size], label] -= 1
            probability /= size
            for k in reversed(range(len(params))):
                np.matmul(a[k].T, d[k + 1], out=gradients[k][0])
                np.sum(d[k + 1], axis=0, out=gradients[k][1])
                if k:
                    np.matmul(d[k + 1], params[k][0].T, out=d[k])
                    d[k] *= a[k] > 0
            update()
        return total / n

    def predict(images: np.ndarray) -> np.ndarray:
        arrays = [np.empty((len(images), size), np.float32) for size in sizes]
        arrays[0][...] = images.astype(np.float32) / 255
        forward(arrays)
        return arrays[-1].argmax(axis=1)

    return epoch, predict
