"""What the estimators are made of: a loss that carries weights, a network from names, rates, and when to stop."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet import (
    GELU,
    SGD,
    Adam,
    Backend,
    Callback,
    Dropout,
    History,
    Layer,
    LeakyReLU,
    Linear,
    Model,
    Optimizer,
    ReLU,
    Sequential,
    Sigmoid,
    SiLU,
    Tanh,
    losses,
)
from xpnet.arrays import Array, namespace
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
LOSSES: dict[str, losses.Loss] = {
    "squared_error": losses.mean_squared_error,
    "absolute_error": losses.mean_absolute_error,
    "huber": losses.huber,
}


@dataclass(frozen=True)
class Objective:
    """factor · loss, on targets that may carry sample weights: labels (N, 2) or targets (N, O + 1), weights last.

    A model moves x and y through its batches; weights that travel as a column of y need no third array.
    """

    loss: losses.Loss
    outputs: int
    """Columns of the target; 0 for class labels."""
    factor: float = 1.0

    def __call__(self, prediction: Array, target: Array) -> tuple[Array, Array]:
        """Return value and gradient with respect to the prediction."""
        weights = {}
        if target.ndim == 2 and target.shape[1] > self.outputs:
            xp = namespace(prediction=prediction, target=target)
            target, weights = target[:, :-1], {"weights": target[:, -1]}
            target = target if self.outputs else xp.astype(target[:, 0], xp.int32)
        value, gradient = self.loss(prediction, target, **weights)
        return (value, gradient) if self.factor == 1.0 else (value * self.factor, gradient * self.factor)


def pack(backend: Backend, target: Array, weights: np.ndarray | None, dtype: str) -> Array:
    """Return targets with their weights, if there are any, as one more column."""
    if weights is None:
        return target
    xp = backend.xp
    columns = xp.astype(xp.reshape(target, (target.shape[0], -1)), getattr(xp, dtype))
    return xp.concat([columns, backend.asarray(weights[:, None], dtype=dtype)], axis=1)


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
        theta[window.start : window.stop] = generator(seed, window.name).uniform(
            -bound, bound, window.stop - window.start
        )
    return theta


@dataclass(frozen=True)
class invscaling:
    """η = lr / (1 + samples seen in earlier epochs)^power"""

    lr: float
    power: float
    samples: int
    steps: int
    """Samples and steps of one epoch."""

    def __call__(self, step: int) -> float:
        return float(self.lr / (1.0 + step // self.steps * self.samples) ** self.power)


@dataclass
class adaptive:
    """η = lr, a fifth of it each time that training no longer gets better"""

    lr: float

    def __call__(self, step: int) -> float:
        return self.lr


class Patience(Callback):
    """Stop when the loss, or `score(model)` if given, has not got better by tol for more than `patience` epochs.

    With a score, the best θ is put back. With an `adaptive` rate, that is cut before anything is stopped.
    """

    def __init__(
        self,
        tol: float,
        patience: float,
        rate: adaptive | None = None,
        score: Callable[[Model], float] | None = None,
    ) -> None:
        self.tol, self.patience, self.rate, self.score = tol, patience, rate, score
        self.best, self.waited, self.scores = -np.inf, 0, list[float]()
        self.theta: Array | None = None

    def on_epoch_end(self, model: Model, history: History) -> bool:
        """Compare with the best so far, which is the largest."""
        value = -history["loss"][-1]
        if self.score is not None:
            value = self.score(model)
            self.scores.append(value)
        self.waited = 0 if value >= self.best + self.tol else self.waited + 1
        if value > self.best:
            self.best = value
            self.theta = None if self.score is None else model.backend.xp.asarray(model.theta, copy=True)
        if self.waited <= self.patience:
            return False
        if self.rate is not None and self.rate.lr > 1e-6:
            self.rate.lr, self.waited = self.rate.lr / 5.0, 0
            return False
        what = "training loss" if self.score is None else "validation score"
        history.stopped = f"the {what} did not get better by tol={self.tol} for more than {self.patience} epochs"
        return True

    def on_train_end(self, model: Model, history: History) -> None:
        """Put the best θ back."""
        if self.theta is not None:
            model.theta = self.theta


def optimizer(settings: Any, samples: int, batch: int, mean_weight: float) -> Optimizer:
    """Return the optimizer that an estimator's settings describe; the L2 penalty counts once a batch."""
    decay = settings.alpha / (batch * mean_weight)
    if settings.solver == "adam":
        return Adam(settings.learning_rate_init, settings.beta_1, settings.beta_2, settings.epsilon, weight_decay=decay)
    lr = settings.learning_rate_init
    rates: dict[str, Any] = {
        "constant": lr,
        "invscaling": invscaling(lr, settings.power_t, samples, -(-samples // batch)),
        "adaptive": adaptive(lr),
    }
    nesterov = settings.nesterovs_momentum and settings.momentum > 0
    return SGD(rates[settings.learning_rate], settings.momentum, nesterov, weight_decay=decay)
