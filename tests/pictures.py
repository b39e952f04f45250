"""What the tests of pictures share: matplotlib without a screen, data, a model trained on it."""

import numpy as np
import pytest

import xpnet as xn

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402, F401
from matplotlib.figure import Figure  # noqa: E402, F401

STYLES = ("default", "dark_background")


@pytest.fixture(params=STYLES)
def style(request):
    with plt.style.context(request.param):
        yield request.param


def blobs(classes=3, features=2, n=90):
    rng = np.random.default_rng(0)
    labels = np.arange(n) % classes
    x = rng.normal(size=(n, features)) * 0.4
    x[:, 0] += 2.0 * np.cos(2 * np.pi * labels / classes)
    x[:, 1] += 2.0 * np.sin(2 * np.pi * labels / classes)
    return x.astype(np.float32), labels


def trained(classes=3, features=2, epochs=3, callbacks=(), **options):
    x, labels = blobs(classes, features)
    net = xn.Sequential(xn.Linear(features, 8), xn.ReLU(), xn.Linear(8, 8), xn.Tanh(), xn.Linear(8, classes))
    model = xn.Model(net, xn.cross_entropy, xn.Adam(0.02), metrics=["accuracy"], backend="numpy")
    history = model.fit(x, labels, epochs, 16, validation=0.2, callbacks=callbacks, progress=False, **options)
    return model, history, x, labels


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")
