"""What the estimators are made of: a network and an optimizer from names and numbers, and where θ begins."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet import (
    GELU,
    SGD,
    Adam,
    Dropout,
    Layer,
    LeakyReLU,
    Linear,
    Optimizer,
    ReLU,
    Sequential,
    Sigmoid,
    SiLU,
    Tanh,
)
from xpnet.random import generator

ACTIVATIONS: dict[str, Layer | None] = {
    "identity": None,
    "logistic": Sigmoid(),
    "tanh": Tanh(),
    "relu": ReLU(),
    "leaky_relu": LeakyReLU(),
    "gelu": GELU(),
    "silu": SiLU(),
}


def each_layer(name: str, value: Any, count: int) -> list[Any]:
    """Return one setting a hidden layer: a single one holds for all of them."""
    values = list(value) if isinstance(value, (list, tuple)) else [value] * count
    if len(values) != count:
        raise ValueError(f"{name} must be one value, or one for each of the {count} hidden layers, got {value!r}")
    return values


def network(sizes: Sequence[int], activation: Any, dropout: Any) -> Sequential:
    """Return Linear, activation, Dropout for each hidden layer, and a Linear at the end."""
    hidden = len(sizes) - 2
    chosen = zip(each_layer("activation", activation, hidden), each_layer("dropout", dropout, hidden), strict=True)
    layers: list[Layer] = []
    for (act, p), nin, nout in zip(chosen, sizes, sizes[1:], strict=False):
        if not isinstance(act, Layer) and act not in ACTIVATIONS:
            raise ValueError(f"unknown activation {act!r}: choose one of {', '.join(ACTIVATIONS)}, or pass a layer")
        layer = act if isinstance(act, Layer) else ACTIVATIONS[act]
        layers += [Linear(nin, nout), *([layer] if layer else []), *([Dropout(p)] if p else [])]
    return Sequential(*layers, Linear(sizes[-2], sizes[-1]))


def start(net: Layer, seed: int, factor: float) -> np.ndarray:
    """Return θ as scikit-learn begins: of each layer weights and biases U(−a, a), a = √(factor / (nin + nout))."""
    theta, bound = np.empty(net.size), 0.0
    for window in net.layout:  # a weight, then the bias that goes with it
        bound = math.sqrt(factor / sum(window.shape)) if len(window.shape) == 2 else bound
        theta[window.place] = generator(seed, window.name).uniform(-bound, bound, window.stop - window.start)
    return theta


def optimizer(settings: Any, decay: float) -> Optimizer:
    """Return the optimizer that an estimator's settings describe, with this weight_decay; L-BFGS uses none."""
    lr = settings.learning_rate_init
    if settings.solver == "sgd":
        nesterov = bool(settings.nesterovs_momentum and settings.momentum > 0)
        return SGD(lr, settings.momentum, nesterov, weight_decay=decay)
    return Adam(lr, settings.beta_1, settings.beta_2, settings.epsilon, weight_decay=decay)
