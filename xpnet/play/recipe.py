"""From settings to a network that learns: each part is a call, which is done and is written down, so both are the same.

Calls name what this file and the closed lists of `settings` name; nothing that a page has sent is ever a name.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

import numpy as np

import xpnet as xn
from xpnet.play import points
from xpnet.play.settings import ACTIVATIONS, LOSSES, OPTIMIZERS, Settings

NAMES = SimpleNamespace(xn=xn, points=points)


@dataclass(frozen=True)
class Call:
    """A call of something public, `xn.Linear(2, 8)`."""

    name: str
    arguments: tuple[Any, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def do(self) -> Any:
        """Return what the call gives."""
        arguments = (one.do() if isinstance(one, Call) else one for one in self.arguments)
        return attrgetter(self.name)(NAMES)(*arguments, **self.settings)

    def __str__(self) -> str:
        words = [str(one) for one in self.arguments]
        words += [f"{name}={value!r}" for name, value in self.settings.items()]
        return f"{self.name}({', '.join(words)})"


def network(settings: Settings) -> Call:
    """Return the network: linear layers, an activation after each but the last, and dropout after that if asked for."""
    images = settings.kind == "mnist"
    layers = [Call("xn.Flatten"), Call("xn.Scale", (Fraction(1, 255),))] if images else []
    widths = [784 if images else 2, *settings.hidden, settings.outputs]
    for k, (nin, nout) in enumerate(pairwise(widths)):
        layers.append(Call("xn.Linear", (nin, nout)))
        if k < len(settings.hidden):
            layers.append(Call(f"xn.{ACTIVATIONS[settings.activation]}"))
            layers += [Call("xn.Dropout", (settings.dropout,))] * bool(settings.dropout)
    return Call("xn.Sequential", tuple(layers))


def optimizer(settings: Settings) -> Call:
    """Return the optimizer with its rate, and with weight decay if asked for."""
    name, own = OPTIMIZERS[settings.optimizer]
    decay = {"weight_decay": settings.decay} if settings.decay else {}
    return Call(f"xn.{name}", (settings.rate,), own | decay)


def loss(settings: Settings) -> str:
    """Return the name of the loss."""
    return f"xn.{LOSSES[settings.loss][0]}"


def model(settings: Settings) -> xn.Model:
    """Return a new model, untrained."""
    parts = network(settings).do(), attrgetter(loss(settings))(NAMES), optimizer(settings).do()
    return xn.Model(*parts, seed=settings.seed, backend=settings.backend)


def planar(settings: Settings, seed: int) -> Call:
    """Return the call that makes points in the plane."""
    how = {"noise": settings.noise, "seed": seed}
    if settings.data != "xor":
        how = {"classes": settings.classes, **how}
    return Call(
        f"{'xn.datasets' if settings.data == 'spirals' else 'points'}.{settings.data}", (settings.samples,), how
    )


@dataclass(frozen=True)
class Data:
    """What is trained on, x and its classes, and what is only looked at, another draw; None for points of one's own."""

    x: np.ndarray
    labels: np.ndarray
    test: tuple[np.ndarray, np.ndarray] | None


TESTS = 1000
"""Images of MNIST's test set that are looked at."""


def data(settings: Settings) -> Data:
    """Return the data."""
    if settings.data == "own":
        x = np.array([point[:2] for point in settings.points], np.float32).reshape(-1, 2)
        return Data(x, np.array([point.label for point in settings.points], np.int64), None)
    if settings.data == "mnist":
        (x, labels), (x_test, test_labels) = xn.datasets.mnist()
        n = settings.samples
        return Data(x[:n], labels[:n], (x_test[:TESTS], test_labels[:TESTS]))
    x, labels = planar(settings, seed=0).do()
    return Data(x, labels, planar(settings, seed=1).do())


def targets(settings: Settings, labels: np.ndarray) -> np.ndarray:
    """Return what the loss compares with: the labels, or a row for each with 1 at its class and 0, or −1, elsewhere."""
    kind = LOSSES[settings.loss][1]
    if kind == "labels":
        return labels
    hot: np.ndarray = np.eye(settings.outputs, dtype=np.float32)[labels]
    return hot if kind == "0 and 1" else 2 * hot - 1
