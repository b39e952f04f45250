"""xpnet itself: `Model.fit`, or, eagerly, the loop that the README's first example writes out."""

from itertools import pairwise

import numpy as np

import xpnet as xn
from benchmarks.settings import Settings

BACKENDS = {"cuda": "cupy"}


def network(sizes: tuple[int, ...]) -> xn.Sequential:
    """Bytes to numbers in 0..1, then linear layers with ReLU between them."""
    layers: list[xn.Layer] = [xn.Flatten(), xn.Scale(1 / 255)]
    for nin, nout in pairwise(sizes):
        layers += [xn.Linear(nin, nout, initializer="he"), xn.ReLU()]
    return xn.Sequential(*layers[:-1])


def optimizer(settings: Settings) -> xn.Optimizer:
    """Adam, or SGD with momentum."""
    return xn.Adam(settings.rate) if settings.optimizer == "adam" else xn.SGD(settings.rate, settings.momentum)


def prepare(settings: Settings):
    """Return `epoch` and `predict` of a model on the backend that the options name."""
    name = settings.options.get("backend") or BACKENDS.get(settings.device, "numpy")
    backend = xn.backend(name)
    if settings.tf32 and "tf32" in backend.precisions:  # its products are cuBLASLt's, which know nothing of CUPY_TF32
        backend = backend.with_matmul("tf32")
    images, labels = map(backend.asarray, settings.train())
    labels = backend.xp.astype(labels, backend.xp.int32)  # as the door would, at every call of fit
    if settings.options.get("eager"):
        return eager(settings, backend, images, labels)
    model = xn.Model(network(settings.sizes), xn.cross_entropy, optimizer(settings), settings.seed, backend)

    def epoch() -> float:
        history = model.fit(images, labels, epochs=1, batch_size=settings.batch, progress=False)
        return history["loss"][-1]

    def predict(images: np.ndarray) -> np.ndarray:
        return model.predict(images).argmax(axis=1)

    return epoch, predict


def eager(settings: Settings, backend: xn.Backend, images, labels):
    """Return the same with every operation called one by one."""
    net, rule, rng = network(settings.sizes), optimizer(settings), np.random.default_rng(settings.seed)
    theta = net.init(settings.seed, backend)
    state, take = rule.init(theta), backend.xp.take

    def epoch() -> float:
        nonlocal theta, state
        total, order = 0.0, backend.asarray(rng.permutation(settings.samples))
        for start in range(0, settings.samples, settings.batch):
            index = order[start : min(start + settings.batch, settings.samples)]
            scores, backward = net(theta, take(images, index, axis=0), backend=backend)
            loss, dscores = xn.cross_entropy(scores, take(labels, index, axis=0))
            theta, state = rule.step(theta, backward(dscores), state)
            total = total + loss * index.shape[0]
        backend.synchronize()
        return float(backend.asnumpy(total)) / settings.samples

    def predict(images: np.ndarray) -> np.ndarray:
        return backend.asnumpy(net(theta, backend.asarray(images), backend=backend)[0]).argmax(axis=1)

    return epoch, predict
