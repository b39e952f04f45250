"""The nets in xpnet, each with its data on the device."""

from itertools import pairwise

import xpnet as xn
from benchmarks.settings import BLOCKS, FEATURES, HEADS, LENGTH, TOKENS, WIDTH, Settings


def dense(sizes: tuple[int, ...]) -> xn.Sequential:
    """Bytes to numbers in 0..1, then linear layers with ReLU between them."""
    layers: list[xn.Layer] = [xn.Flatten(), xn.Scale(1 / 255)]
    for nin, nout in pairwise(sizes):
        layers += [xn.Linear(nin, nout, initializer="he"), xn.ReLU()]
    return xn.Sequential(*layers[:-1])


def convolution(nin: int, nout: int, *pool: xn.Layer) -> list[xn.Layer]:
    """3×3, perhaps a pool, and batch normalisation."""
    return [xn.Conv2d(nin, nout, 3, padding="same", bias=False), *pool, xn.BatchNorm(nout)]


def cnn() -> xn.Sequential:
    """The network of examples/images.py, on images as they are."""
    a, b, c = WIDTH, 2 * WIDTH, 4 * WIDTH
    return xn.Sequential(
        *(xn.Channels(), xn.Scale(1 / 255)),
        *(*convolution(1, a, xn.MaxPool2d(2)), xn.ReLU(), *convolution(a, b, xn.MaxPool2d(2)), xn.ReLU()),
        *(*convolution(b, c), xn.ReLU(), xn.Residual(*convolution(c, c), xn.ReLU(), *convolution(c, c)), xn.ReLU()),
        *(xn.Flatten(), xn.Dropout(0.3), xn.Linear(49 * c, 10)),
    )


def transformer() -> xn.Layer:
    """Blocks that are normalised before each part; one table for what is read and what is predicted."""
    blocks = [xn.TransformerBlock(FEATURES, HEADS, causal=True) for _ in range(BLOCKS)]
    first = xn.Embedding(TOKENS, FEATURES, scale=0.02), xn.Positions(LENGTH, FEATURES)
    return xn.Tied(*first, *blocks, xn.LayerNorm(FEATURES))


def network(settings: Settings) -> xn.Layer:
    """Return the net of a task."""
    if settings.kind == "dense":
        return dense(settings.sizes)
    return cnn() if settings.kind == "cnn" else transformer()


def data(settings: Settings, backend: xn.Backend):
    """Return what is learnt, on the device: images as bytes, labels as the door would have them."""
    if settings.kind == "transformer":
        return tuple(map(backend.asarray, settings.text()))
    images, labels = settings.train()
    shape = (-1, 28, 28) if settings.kind == "cnn" else (-1, 784)
    labels = backend.xp.astype(backend.asarray(labels), backend.xp.int32)
    return backend.asarray(images.reshape(shape)), labels
