"""xpnet itself: `Model.fit`, or, eagerly, the loop that the README's first example writes out."""

import numpy as np

import xpnet as xn
from benchmarks.peers.xpnet_nets import data, network
from benchmarks.settings import Settings

BACKENDS = {"cuda": "cupy"}


def optimizer(settings: Settings) -> xn.Optimizer:
    """Adam, or SGD with momentum."""
    return xn.Adam(settings.rate) if settings.optimizer == "adam" else xn.SGD(settings.rate, settings.momentum)


def prepare(settings: Settings):
    """Return `epoch` and `predict` of a model on the backend that the options name; `epoch.nodes()` are the graph's."""
    name = settings.options.get("backend") or BACKENDS.get(settings.device, "numpy")
    backend = xn.backend(name)
    if settings.precision in backend.precisions:  # its products are cuBLASLt's, which know nothing of CUPY_TF32
        backend = backend.with_matmul(settings.precision)
    x, y = data(settings, backend)
    if settings.options.get("eager"):
        return eager(settings, backend, x, y)
    model = xn.Model(network(settings), xn.cross_entropy, optimizer(settings), settings.seed, backend)

    def epoch() -> float:
        history = model.fit(x, y, epochs=1, batch_size=settings.batch, progress=False)
        return history["loss"][-1]

    def predict(images: np.ndarray) -> np.ndarray:
        return model.predict(images).argmax(axis=1)

    epoch.nodes = lambda: getattr(model.step.run, "nodes_per_step", None)
    return epoch, predict


def eager(settings: Settings, backend: xn.Backend, x, y):
    """Return the same with every operation called one by one."""
    net, rule, rng = network(settings), optimizer(settings), np.random.default_rng(settings.seed)
    theta = net.init(settings.seed, backend)
    buffers = net.init_buffers(backend, "float32")
    state, take, t = rule.init(theta), backend.xp.take, 0

    def epoch() -> float:
        nonlocal theta, state, t
        total, order = 0.0, backend.asarray(rng.permutation(settings.samples))
        for start in range(0, settings.samples, settings.batch):
            index, t = order[start : min(start + settings.batch, settings.samples)], t + 1
            scores, backward = net(theta, take(x, index, axis=0), True, key=t, buffers=buffers, backend=backend)
            loss, dscores = xn.cross_entropy(scores, take(y, index, axis=0))
            theta, state = rule.step(theta, backward(dscores), state)
            total = total + loss * index.shape[0]
        backend.synchronize()
        return float(backend.asnumpy(total)) / settings.samples

    def predict(images: np.ndarray) -> np.ndarray:
        return backend.asnumpy(net(theta, backend.asarray(images), buffers=buffers, backend=backend)[0]).argmax(axis=1)

    return epoch, predict
