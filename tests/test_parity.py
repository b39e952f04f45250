"""100 training steps on MNIST: every backend against plain PyTorch with autograd, the same θ and the same batches.

In float64 the network has the ReLU of the main example. In float32 it has tanh: where an input of ReLU lies within a
rounding error of zero, two sound computations differ in its derivative; of 1.6 million such inputs about one does.

The figures found are printed (`pytest -s`) and recorded as properties of the tests (`pytest --junitxml`).
"""

from functools import lru_cache

import numpy as np
import pytest

import xpnet as xn
from xpnet import random

STEPS, BATCH = 100, 128
LIMIT = {"float64": 1e-10, "float32": 1e-5}
OPTIMIZERS = {"adam": xn.Adam(1e-3), "momentum": xn.SGD(0.05, momentum=0.9)}
ACTIVATIONS = {"float64": xn.ReLU, "float32": xn.Tanh}


def network(dtype):
    return xn.Sequential(xn.Flatten(), xn.Scale(1 / 255), xn.Linear(784, 128), ACTIVATIONS[dtype](), xn.Linear(128, 10))


@lru_cache(maxsize=1)
def digits():
    (images, labels), _ = xn.datasets.mnist()
    return images[: STEPS * BATCH], labels[: STEPS * BATCH]


@lru_cache(maxsize=4)
def plain_torch(dtype, optimizer):
    """Return the mean loss, the loss after the last step, and Δθ of a model in plain PyTorch."""
    torch = pytest.importorskip("torch", reason="the reference is a plain PyTorch model, and torch is not installed")
    images, labels = digits()
    x = torch.from_numpy(images.reshape(-1, 784)).to(getattr(torch, dtype)) * (1 / 255)
    y = torch.from_numpy(labels.astype("int64"))
    start = network(dtype).init(seed=0, backend="numpy", dtype=dtype)
    net = torch.nn.Sequential(
        torch.nn.Linear(784, 128), getattr(torch.nn, ACTIVATIONS[dtype].__name__)(), torch.nn.Linear(128, 10)
    ).to(x.dtype)
    parameters = list(net.parameters())
    with torch.no_grad():
        for parameter, window in zip(parameters, network(dtype).windows(start).values(), strict=True):
            parameter.copy_(torch.from_numpy(np.array(window.T)))
    make = torch.optim.Adam if optimizer == "adam" else torch.optim.SGD
    settings = {"lr": 1e-3} if optimizer == "adam" else {"lr": 0.05, "momentum": 0.9}
    stepper = make(net.parameters(), **settings)
    losses = []
    for batch in torch.from_numpy(random.permutation(0, 0, STEPS * BATCH).astype("int64")).split(BATCH):
        loss = torch.nn.functional.cross_entropy(net(x[batch]), y[batch])
        stepper.zero_grad()
        loss.backward()
        stepper.step()
        losses.append(loss.item())
    with torch.no_grad():
        last = torch.nn.functional.cross_entropy(net(x), y).item()
        theta = np.concatenate([p.numpy().T.reshape(-1) for p in parameters])
    return np.mean(losses), last, theta, start


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("dtype", LIMIT)
def test_a_hundred_steps_are_those_of_plain_pytorch(backend, dtype, optimizer, record_property):
    mean, last, theta, start = plain_torch(dtype, optimizer)
    images, labels = digits()
    model = xn.Model(network(dtype), xn.cross_entropy, OPTIMIZERS[optimizer], backend=backend, dtype=dtype)
    assert np.array_equal(backend.asnumpy(model.theta), start)
    history = model.fit(images, labels, epochs=1, batch_size=BATCH)
    assert model.state.t == STEPS
    found = {
        "loss while training": abs(history["loss"][0] / mean - 1),
        "loss at the end": abs(model.evaluate(images, labels)["loss"] / last - 1),
        "theta": float(np.linalg.norm(backend.asnumpy(model.theta) - theta) / np.linalg.norm(theta)),
    }
    assert np.linalg.norm(theta - start) > 0.05 * np.linalg.norm(start)  # there was something to agree on
    print(f"{dtype} {optimizer} {backend.name}: " + ", ".join(f"{k} {v:.1e}" for k, v in found.items()))
    for name, value in found.items():
        record_property(name, value)
    assert max(found.values()) <= LIMIT[dtype]
