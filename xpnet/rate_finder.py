"""The learning rate to begin with: the rate rises from step to step, and the loss says where it is too low or too high.

L. N. Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017, section 3.3: the LR range test. A tenth
of the rate with the least loss: Howard & Gugger, "Deep Learning for Coders", 2020, chapter 5.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xpnet.checks import integer, number
from xpnet.data import door
from xpnet.data.source import Block, Cut, Samples
from xpnet.errors import DataError
from xpnet.model import Model
from xpnet.training import trial
from xpnet.training.feeding import Feeding
from xpnet.training.state import State
from xpnet.training.step import Step
from xpnet.world import World

DIVERGED = 4.0
"""A smoothed loss so many times the least one so far ends the search."""
NEIGHBOURS = 20
"""The loss is smoothed over one part of the steps in so many, to either side."""
LEAST = 10
"""Losses without which nothing can be said."""
SHARE = 0.1
"""Of the rate with the least loss: there it is about to grow."""


@dataclass(frozen=True, eq=False)
class RateSearch:
    """What was found: `best`, and the curve that `xn.plot.rates` draws."""

    rates: np.ndarray
    """η of each step (K,), from the lowest on, up to where the loss grew beyond all bounds."""
    losses: np.ndarray
    """The loss of each step's batch (K,)."""
    smoothed: np.ndarray
    """Means of the losses around each step (K,)."""
    best: float
    """A tenth of the rate at which the smoothed loss is least: what to give to an optimizer."""


@dataclass(frozen=True)
class Rise:
    """η(t) = lowest · (highest / lowest)^(t / (steps − 1)), as many times more at every step"""

    lowest: float
    highest: float
    steps: int

    def __call__(self, step: int) -> float:
        share = min(step / (self.steps - 1), 1.0)
        return float(self.lowest ** (1.0 - share) * self.highest**share)


def find_rate(
    model: Model,
    x: Any,
    y: Any = None,
    lowest: float = 1e-6,
    highest: float = 10.0,
    steps: int = 100,
    batch_size: int = 128,
    sample_weight: Any = None,
    class_weight: Any = None,
) -> RateSearch:
    """Return the learning rate to begin with, found by a short training in which the rate rises.

        found = xn.find_rate(model, x, labels)
        model.adjust(lr=found.best)
        xn.plot.rates(found)

    A copy of the model makes `steps` steps, from θ as it is and with an optimizer that remembers nothing, at rates from
    `lowest` to `highest`, each as many times the one before, and `best` is a tenth of the rate with the least loss. It
    ends early where the loss is not finite or, smoothed, four times the least so far, or the rate more than the
    optimizer can take. The model itself stays as it is, to the last bit. Data and weights are those of `fit`; batches
    come in the order of the model's next epochs. Each of several processes searches by itself, and finds the same.

    ValueError for settings that cannot be; DataError, ShapeError, TypeError for data that does not fit, and DataError
    if the loss does not fall at any rate.
    """
    who = "find_rate"
    lowest, steps = number(who, "lowest", lowest, above=0.0), integer(who, "steps", steps, LEAST)
    highest = number(who, "highest", highest, above=lowest)
    batch_size = door.count("batch_size", batch_size)
    rise = Rise(lowest, highest, steps)
    alone: dict[str, Any] = {"metrics": {}, "measures": None, "world": World(), "shards": None, "compiled": None}
    step = replace(model.step, optimizer=replace(model.optimizer, lr=rise), **alone)
    with model.backend.working():
        feeding = Feeding(step)
        source = feeding.weighed(feeding.samples(x, y, sample_weight), class_weight)
        batch_size = source.check(1, batch_size)
        trial.check_batches(step.net, source.like, source.count or batch_size, batch_size)
        with model.holder as holder:
            state = step.start(step.flat(holder.state.theta), holder.state.epoch)._replace(buffers=model.buffers)
        losses = _descent(step, state, source, batch_size, steps)
    return _judged(np.asarray([rise(k) for k in range(len(losses))]), losses, steps)


def _descent(step: Step, state: State, source: Samples, batch_size: int, steps: int) -> np.ndarray:
    """Return the loss of each step, up to the first that is out of bounds."""
    losses = np.zeros(0)
    for block in _blocks(step, source, Cut(batch_size, step.net.size, step.work(source.like)), state.epoch):
        outcome = step.many(state, block.parts, block.batches[: steps - len(losses)])
        state = outcome.state
        if len(outcome.sizes):
            losses = np.concatenate([losses, outcome.values[0]])
        smooth = smoothed(losses, steps // NEIGHBOURS)
        far = smooth > DIVERGED * np.minimum.accumulate(np.abs(smooth))
        if far.any():
            return losses[: int(np.argmax(far))]
        if outcome.problem is not None or len(losses) >= steps:
            break
    return losses


def _blocks(step: Step, source: Samples, cut: Cut, epoch: int) -> Iterator[Block]:
    """Yield blocks of batches, epoch after epoch."""
    while True:
        yield from source.blocks(step.seed, epoch, 0, cut)
        epoch += 1


def smoothed(losses: np.ndarray, wide: int) -> np.ndarray:
    """Return the mean of each loss and those around it, `wide` to either side, as far as there are so many."""
    sums, k = np.cumsum(np.concatenate([[0.0], losses])), np.arange(len(losses))
    start, stop = np.maximum(k - wide, 0), np.minimum(k + wide + 1, len(losses))
    return np.asarray((sums[stop] - sums[start]) / (stop - start))


def _judged(rates: np.ndarray, losses: np.ndarray, steps: int) -> RateSearch:
    """Return a tenth of the rate with the least smoothed loss; DataError if that is the first."""
    if len(losses) < LEAST:
        where = f"after {len(losses)} of {steps} steps" if len(losses) else "at the lowest rate already"
        raise DataError(f"find_rate: the loss grows beyond all bounds {where}: pass a smaller lowest=")
    smooth = smoothed(losses, steps // NEIGHBOURS)
    low = int(np.argmin(smooth))
    if low == 0:
        raise DataError(
            f"find_rate: the loss is never less than at the rate {rates[0]:.3g}, the lowest: pass a smaller lowest="
        )
    return RateSearch(rates, losses, smooth, SHARE * float(rates[low]))
