"""What the estimators minimize, as scikit-learn does: a loss that carries weights, and the L2 penalty of each batch."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, cast

import numpy as np

from xpnet import losses
from xpnet.arrays import Array, Vector, namespace
from xpnet.data.source import Parts
from xpnet.optimizers.finite import measure
from xpnet.parameters import Parts as Windows
from xpnet.training.state import State
from xpnet.training.step import Outcome, Step


def half_poisson_deviance(scores: Array, counts: Array, *, weights: Array | None = None) -> tuple[Array, Array]:
    """L = mean(y log(y / eˢ) − y + eˢ)        ∂L/∂s = (eˢ − y) / size

    `xpnet.losses.poisson` less its least value, that of eˢ = y.
    """
    how = {} if weights is None else {"weights": weights}
    value, gradient = losses.poisson(scores, counts, **how)
    xp = namespace(counts=counts)
    best = xp.where(counts > 0, xp.log(xp.where(counts > 0, counts, 1.0)), -math.inf)
    least, _ = losses.poisson(best, counts, **how)
    return value - least, gradient


LOSSES: dict[str, losses.Loss] = {
    "squared_error": losses.mean_squared_error,
    "absolute_error": losses.mean_absolute_error,
    "huber": losses.huber,
    "poisson": half_poisson_deviance,
}


@dataclass(frozen=True)
class Objective:
    """factor · loss."""

    loss: losses.Loss
    factor: float = 1.0
    shown: float = 1.0
    """What the value is multiplied by in the history."""
    batch: int = 0
    """Samples of the batch that the optimizer's weight_decay is meant for; 0 for any."""

    def __call__(self, prediction: Array, target: Array, weights: Array | None = None) -> tuple[Array, Array]:
        """Return value and gradient with respect to the prediction."""
        how = {} if weights is None else {"weights": weights}
        value, gradient = self.loss(prediction, target, **how)
        return (value, gradient) if self.factor == 1.0 else (value * self.factor, gradient * self.factor)


def mean_of(weights: np.ndarray | None) -> float:
    """Return the mean of sample weights of any scale, 1 if there are none; ValueError if all are 0."""
    if weights is None:
        return 1.0
    largest = float(weights.max())
    if largest == 0:
        raise ValueError("sample_weight and class_weight leave no sample of a set any weight: one must be above 0")
    return max(float((weights / largest).mean()) * largest, float(np.finfo(np.float64).tiny))


def scaled(weights: np.ndarray | None) -> np.ndarray | None:
    """Return weights scaled to a mean of 1."""
    return None if weights is None else weights / mean_of(weights)


class Penalized(Step):
    """A step on an Objective and the L2 penalty of its batch, ½ α ‖W‖² / n: in the gradient and in the loss it reports.

    The optimizer's weight_decay λ is α / n for a batch of n = `objective.batch` samples; a shorter one has its own.
    """

    @classmethod
    def of(cls, step: Step) -> "Penalized":
        """Return a step of this kind with the same parts."""
        return cls(**{field.name: getattr(step, field.name) for field in fields(step)})

    @property
    def objective(self) -> Objective:
        """The loss, or what stands for one that a user has put in its place."""
        return self.loss if isinstance(self.loss, Objective) else Objective(self.loss)

    def decay(self, weight_decay: float) -> "Penalized":
        """Return the step with another λ, compiled no further: λ is an argument of what is compiled."""
        old = self.optimizer
        compiled = self.run if bool(weight_decay) == bool(old.weight_decay) else None
        return replace(self, optimizer=replace(old, weight_decay=weight_decay), compiled=compiled)

    def many(
        self, state: State, fixed: Parts, block: np.ndarray, meanwhile: Callable[[], None] = lambda: None
    ) -> Outcome:
        """Do K steps on the batches of rows (K, B), with the λ of this B."""
        size = block.shape[1]
        if size not in self._sized:
            share = (self.objective.batch or size) / size
            self._sized[size] = self if share == 1.0 else self.decay(self.optimizer.weight_decay * share)
        return Step.many(self._sized[size], state, fixed, block, meanwhile)

    @cached_property
    def _sized(self) -> dict[int, "Penalized"]:
        """The step for each size of a batch that has come."""
        return {}

    @cached_property
    def native_loss(self) -> losses.Loss:
        """The objective with its loss as this library does it."""
        return replace(self.objective, loss=self.backend.native(self.objective.loss))

    def one(self, carry: Any, fixed: Any, x: Any) -> tuple[Any, tuple[Array, ...]]:
        """Do one step; the loss is as it is shown, with the penalty of the weights before the step."""
        theta, slots, buffers, alive = carry
        penalty: Any = 0.0
        if self.optimizer.weight_decay:
            square, alive = self._square(theta, alive)
            penalty = 0.5 * x[2][0] * square
        carry, (loss, *others) = super().one((theta, slots, buffers, alive), fixed, x)
        return carry, (loss * self.objective.shown + penalty, *others)

    def _square(self, theta: Vector, alive: Array) -> tuple[Array, Array]:
        """Return ‖W‖² of all that decays, and whether it is finite and `alive` is true."""
        live = theta if self.live is None else self.live.of(theta)
        parts, square = cast(Windows, self.decayed).of(live), 0.0  # there are no groups: estimators give no factors
        for vector in parts if self.backend.flat else [parts]:
            norm, alive = self.backend.native(measure)(self.backend.xp, vector, alive, None)
            square = square + norm * norm
        return square, alive

    @cached_property
    def judge(self) -> Callable[..., list[Array]]:
        """Loss, as it is shown, and means of a batch's prediction, compiled."""
        plain = super().judge

        def judge(*given: Array) -> list[Array]:
            loss, *means = plain(*given)
            return [loss * self.objective.shown, *means]

        return judge
