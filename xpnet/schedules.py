"""Learning-rate schedules: plain functions of the step, given to an optimizer as `lr=`.

    optimizer = xn.Adam(lr=xn.schedules.cosine(1e-3, steps=5000))

`schedule(step) -> rate`, step = 0 for the first update; host floats throughout. Any function of the step will do; these
are frozen dataclasses, so that they can be compared, printed and stored as data.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from xpnet.checks import integer, number, settle

Schedule: TypeAlias = Callable[[int], float]

LIMITS: dict[str, dict[str, float]] = {"rise": {"least": 0, "most": 1}, "start": {"above": 0}, "end": {"above": 0}}
"""What a number must be where "not negative" is not enough."""


def rate(lr: float | Schedule, step: int) -> float:
    """Return the learning rate at a step: the number itself, or what the schedule says."""
    return float(lr(step) if callable(lr) else lr)


class _Checked:
    """A schedule whose settings are looked at when it is made; ValueError names one that cannot be."""

    def __post_init__(self) -> None:
        settings: Any = self  # a dataclass
        settle(self, **{field.name: self._checked(field.name) for field in fields(settings)})

    def _checked(self, name: str) -> Any:
        who, value = type(self).__name__, getattr(self, name)
        if name in ("steps", "every"):
            return integer(who, name, value)
        return number(who, name, value, **LIMITS.get(name, {"least": 0}))


@dataclass(frozen=True)
class constant(_Checked):
    """η(t) = lr"""

    lr: float

    def __call__(self, step: int) -> float:
        return self.lr


@dataclass(frozen=True)
class step_decay(_Checked):
    """η(t) = lr · factor^⌊t / every⌋"""

    lr: float
    every: int
    factor: float = 0.1

    def __call__(self, step: int) -> float:
        return self.lr * self.factor ** (step // self.every)


@dataclass(frozen=True)
class cosine(_Checked):
    """η(t) = final + ½ (lr − final) (1 + cos(π t / steps)), then final        (Loshchilov & Hutter, ICLR 2017)"""

    lr: float
    steps: int
    final: float = 0.0

    def __call__(self, step: int) -> float:
        done = min(step / self.steps, 1.0)
        return self.final + 0.5 * (self.lr - self.final) * (1.0 + math.cos(math.pi * done))


@dataclass(frozen=True)
class warmup(_Checked):
    """η(t) = lr · (t + 1) / steps while t < steps, then lr(t − steps)        (Goyal et al., 2017, section 2.2)

    `lr` is a number or another schedule: `warmup(cosine(1e-3, steps=5000), steps=500)`.
    """

    lr: float | Schedule
    steps: int

    def _checked(self, name: str) -> Any:
        return self.lr if name == "lr" and callable(self.lr) else super()._checked(name)

    def __call__(self, step: int) -> float:
        if step < self.steps:
            return rate(self.lr, 0) * (step + 1) / self.steps
        return rate(self.lr, step - self.steps)


@dataclass(frozen=True)
class one_cycle(_Checked):
    """η rises from lr/start to lr for the first `rise` of the steps, then falls to lr/(start·end), each half a cosine.

    `lr` is the highest rate. (Smith & Topin, "Super-convergence", 2018, with cosines for straight lines)
    """

    lr: float
    steps: int
    rise: float = 0.3
    start: float = 25.0
    end: float = 1e4

    def __call__(self, step: int) -> float:
        first, last = self.lr / self.start, self.lr / self.start / self.end
        peak = self.rise * self.steps - 1
        if step < peak:
            low, high, done = first, self.lr, step / peak
            return high + 0.5 * (low - high) * (1.0 + math.cos(math.pi * done))
        done = min((step - peak) / (self.steps - 1 - peak or 1.0), 1.0)
        return last + 0.5 * (self.lr - last) * (1.0 + math.cos(math.pi * done))
