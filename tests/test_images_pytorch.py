"""Twenty training steps of a convolutional network in float64: every backend against plain PyTorch, θ and statistics.

No convolution has a bias: BatchNorm takes it away again, so that its gradient is nothing but rounding errors, which
Adam divides by their own size.

The figures found are printed (`pytest -s`) and recorded as properties of the tests (`pytest --junitxml`).
"""

from functools import lru_cache

import numpy as np
import pytest

import xpnet as xn
from xpnet import random

torch = pytest.importorskip("torch", reason="the reference is a plain PyTorch model, and torch is not installed")
nn = torch.nn

STEPS, BATCH, SIZE, CHANNELS = 20, 6, (8, 6), 2
LIMIT = 1e-10
OPTIMIZERS = {"adam": xn.Adam(1e-2), "momentum": xn.SGD(0.05, momentum=0.9)}
NET = xn.Sequential(
    xn.Conv2d(CHANNELS, 3, 3, padding=1, bias=False),
    xn.BatchNorm(3),
    xn.ReLU(),
    xn.MaxPool2d(2),
    xn.Conv2d(3, 4, 3, padding="same", bias=False),
    xn.BatchNorm(4, momentum=0.3),
    xn.ReLU(),
    xn.MaxPool2d(2),
    xn.Flatten(),
    xn.Linear(2 * 1 * 4, 3),
)


def data():
    rng = np.random.default_rng(5)
    return rng.normal(size=(STEPS * BATCH, *SIZE, CHANNELS)), rng.integers(0, 3, STEPS * BATCH)


class LastAxisFlat(nn.Module):
    """Rows of images in our order of features, (H, W, C)."""

    def forward(self, x):
        return x.permute(0, 2, 3, 1).flatten(1)


def in_torch():
    blocks = [nn.Conv2d(CHANNELS, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2)]
    blocks += [nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4, momentum=0.3), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*blocks, LastAxisFlat(), nn.Linear(8, 3)).double()


OURS = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}
"""The order of axes of a parameter of PyTorch's, by how many it has, that makes it ours."""


@lru_cache(maxsize=2)
def plain_torch(optimizer):
    """Return θ as vector, and the statistics by name, after the steps of a model in plain PyTorch."""
    net, start = in_torch(), NET.windows(NET.init(seed=0, backend="numpy", dtype="float64"))
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.copy_(torch.from_numpy(start[name].transpose(np.argsort(OURS[parameter.ndim])).copy()))
    images, labels = data()
    x, y = torch.from_numpy(np.moveaxis(images, -1, 1).copy()), torch.from_numpy(labels)
    settings = {"lr": 1e-2} if optimizer == "adam" else {"lr": 0.05, "momentum": 0.9}
    stepper = (torch.optim.Adam if optimizer == "adam" else torch.optim.SGD)(net.parameters(), **settings)
    for batch in torch.from_numpy(random.permutation(0, 0, STEPS * BATCH).astype("int64")).split(BATCH):
        loss = nn.functional.cross_entropy(net(x[batch]), y[batch])
        stepper.zero_grad()
        loss.backward()
        stepper.step()
    parameters = [p.detach().numpy() for p in net.parameters()]
    theta = np.concatenate([p.transpose(OURS[p.ndim]).reshape(-1) for p in parameters])
    return theta, {n: b.numpy() for n, b in net.named_buffers() if b.ndim}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_twenty_steps_are_those_of_plain_pytorch(backend, optimizer, record_property):
    theta, statistics = plain_torch(optimizer)
    images, labels = data()
    model = xn.Model(NET, xn.cross_entropy, OPTIMIZERS[optimizer], backend=backend, dtype="float64")
    start = np.array(backend.asnumpy(model.theta))
    model.fit(images, labels, epochs=1, batch_size=BATCH)
    assert model.state.t == STEPS
    carried = {name: backend.asnumpy(array) for name, array in model.buffers.items()}
    assert carried.keys() == statistics.keys()
    found = {"theta": np.max(np.abs(backend.asnumpy(model.theta) - theta))}
    found |= {name: np.max(np.abs(carried[name] - statistics[name])) for name in statistics}
    assert np.linalg.norm(theta - start) > 0.05 * np.linalg.norm(start)  # there was something to agree on
    print(f"{optimizer} {backend.name}: " + ", ".join(f"{k} {v:.1e}" for k, v in found.items()))
    for name, value in found.items():
        record_property(name, float(value))
    assert max(found.values()) <= LIMIT
