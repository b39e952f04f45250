"""The learning rate that a schedule is going to give."""

import math
from typing import Any

import numpy as np

from xpnet import schedules
from xpnet.checks import integer, number
from xpnet.errors import DataError
from xpnet.look.plot.canvas import DASHES, Axes, axes, colour, legend, tidy

POINTS = 1000
"""Steps that are asked for at most."""


def schedule(
    lr: Any,
    steps: int,
    steps_per_epoch: int | None = None,
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """Draw the learning rate η of the first `steps` steps, before a step is done.

    `lr` is a schedule, any function of the step, a number, or an optimizer. With `steps_per_epoch` the axis counts
    epochs, and schedules that are given in epochs know how long they are. Called again with the same `ax`, another
    schedule is added; `label` is its name.

    DataError names a step whose rate is not finite, ValueError a schedule in epochs without `steps_per_epoch`.
    """
    steps = integer("schedule", "steps", steps, least=1)
    rate = getattr(lr, "lr", lr) if hasattr(lr, "init") else lr
    if not callable(rate):
        rate = schedules.constant(number("schedule", "lr", rate, least=0.0))
    if steps_per_epoch is not None:
        rate = schedules.paced(rate, integer("schedule", "steps_per_epoch", steps_per_epoch, least=1))
    places = np.unique(np.linspace(0, steps - 1, min(steps, POINTS)).round().astype(np.int64))
    rates = [schedules.rate(rate, int(step)) for step in places]
    wrong = next((k for k, value in enumerate(rates) if not math.isfinite(value)), None)
    if wrong is not None:
        raise DataError(f"schedule: the learning rate at step {places[wrong]} is {rates[wrong]}: expected a number")
    ax = axes(ax, (5.6, 3.2))
    k = len(ax.lines)
    marker = "o" if len(places) == 1 else ""
    ax.plot(places / (steps_per_epoch or 1), rates, DASHES[k % 4], color=colour(k), label=label, lw=1.8, marker=marker)
    if ax.get_ylim()[0] < 0 or min(rates) < 0.5 * max(rates):
        ax.set_ylim(bottom=0.0)
    if any(not str(line.get_label()).startswith("_") for line in ax.lines):
        legend(ax)
    return tidy(ax, "step" if steps_per_epoch is None else "epoch", "learning rate η")
