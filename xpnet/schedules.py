"""Learning-rate schedules: plain functions of the step, given to an optimizer as `lr=`.

    optimizer = xn.Adam(lr=xn.schedules.cosine(1e-3, steps=5000))
    optimizer = xn.Adam(lr=xn.schedules.cosine(1e-3, epochs=12))  # their steps are counted by `fit`
    optimizer = xn.Adam(1e-3, schedule="cosine")  # the same for as many epochs as `fit` is asked for: epochs="all"

`schedule(step) -> rate`, step = 0 for the first update; host floats throughout. Any function of the step will do; these
are frozen dataclasses, so that they can be compared, printed and stored as data.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeAlias

from xpnet.checks import integer, number, settle, shown

Schedule: TypeAlias = Callable[[int], float]
Epochs: TypeAlias = float | Literal["all"] | None
"""How long a schedule takes: a number of epochs, which need not be whole, or all that `fit` is asked for."""

LIMITS: dict[str, dict[str, float]] = {
    "rise": {"least": 0, "most": 1},
    "start": {"above": 0},
    "end": {"above": 0},
    "epochs": {"above": 0},
}
"""What a number must be where "not negative" is not enough."""


def rate(lr: float | Schedule, step: int) -> float:
    """Return the learning rate at a step: the number itself, or what the schedule says."""
    return float(lr(step) if callable(lr) else lr)


def times(lr: float | Schedule, factor: float) -> float | Schedule:
    """Return a learning rate, a number or a schedule, times a factor."""
    if not callable(lr):
        return lr * factor
    return scaled(lr.lr, lr.factor * factor) if isinstance(lr, scaled) else scaled(lr, factor)


def paced(lr: Any, steps: int, whole: int | None = None) -> Any:
    """Return a schedule whose epochs have so many steps: `cosine(0.1, epochs=3)` as a cosine of that many steps.

    `whole` is for those that take all epochs: the steps to the end of the training, from the optimizer's first one.
    `fit` does so with the optimizer's before each epoch; what is not given in epochs is returned as it is.
    """
    return lr.paced(steps, whole) if isinstance(lr, _Checked) else lr


def named(who: str, name: Any, lr: float | Schedule) -> Schedule:
    """Return the schedule of that name at a rate, as long as the training; ValueError if there is none.

    "constant", "linear" (`polynomial` with the power 1), "cosine" or "one_cycle".
    """
    makers: dict[str, Callable[..., Schedule]] = {"linear": polynomial, "cosine": cosine, "one_cycle": one_cycle}
    if callable(lr):
        raise ValueError(f"{who}: lr is a schedule already, got schedule={shown(name)} too: give lr as a number")
    if name == "constant":
        return constant(lr)
    if not isinstance(name, str) or name not in makers:
        known = ", ".join(f'"{one}"' for one in ("constant", *makers))
        raise ValueError(f"{who}: schedule must be one of {known}, got {shown(name)}: any other one is given as lr=")
    return makers[name](lr, epochs="all")


class _Checked:
    """A schedule whose settings are looked at when it is made; ValueError names one that cannot be."""

    nests = False
    """Whether `lr` may be another schedule."""
    counted = "steps"
    """The setting that `epochs` stand for."""
    whole = False
    """Whether it may take all epochs there are."""

    def __post_init__(self) -> None:
        settings: Any = self  # a dataclass
        settle(self, **{field.name: self._checked(field.name) for field in fields(settings)})

    def _checked(self, name: str) -> Any:
        who, value = type(self).__name__, getattr(self, name)
        epochs = getattr(self, "epochs", None)
        if (name == "lr" and self.nests and callable(value)) or (name == "epochs" and value is None):
            return value
        if name == "epochs" and self.whole and isinstance(value, str) and value == "all":
            return value
        if name == self.counted and value is None and epochs is not None:
            return value
        if name == self.counted and value is None and hasattr(self, "epochs"):
            raise ValueError(f"{who}: give {name}= or epochs=, how long it takes")
        if name in ("steps", "every", "growth"):
            return integer(who, name, value)
        return number(who, name, value, **LIMITS.get(name, {"least": 0}))

    def paced(self, steps: int, whole: int | None = None) -> Any:
        """Return the schedule, and the one that it holds, if so many steps are an epoch."""
        settings: Any = self
        epochs = getattr(self, "epochs", None)
        count = whole if epochs == "all" else None if epochs is None else max(1, round(epochs * steps))
        counted = {} if count is None else {self.counted: count}
        return replace(settings, lr=paced(settings.lr, steps, whole), **counted)

    @property
    def _count(self) -> int:
        """The number of steps that it is made for; ValueError if it is given in epochs, and not yet paced."""
        count: int | None = getattr(self, self.counted)
        if count is None:
            raise ValueError(
                f"{self}: only fit knows how many steps an epoch has: pass {self.counted}= instead of epochs="
            )
        return count


@dataclass(frozen=True)
class constant(_Checked):
    """η(t) = lr"""

    lr: float

    def __call__(self, step: int) -> float:
        return self.lr


@dataclass(frozen=True)
class scaled(_Checked):
    """η(t) = factor · lr(t), of another schedule or a number"""

    lr: float | Schedule
    factor: float
    nests = True

    def __call__(self, step: int) -> float:
        return self.factor * rate(self.lr, step)


@dataclass(frozen=True)
class step_decay(_Checked):
    """η(t) = lr · factor^⌊t / every⌋"""

    lr: float
    every: int | None = None
    factor: float = 0.1
    epochs: float | None = field(default=None, kw_only=True)
    counted = "every"

    def __call__(self, step: int) -> float:
        return self.lr * self.factor ** (step // self._count)


@dataclass(frozen=True)
class polynomial(_Checked):
    """η(t) = final + (lr − final) (1 − t / steps)^power, then final: a straight line, or a curve that ends flat"""

    lr: float
    steps: int | None = None
    power: float = 1.0
    final: float = 0.0
    epochs: Epochs = field(default=None, kw_only=True)
    whole = True

    def __call__(self, step: int) -> float:
        left = 1.0 - min(step / self._count, 1.0)
        return self.final + (self.lr - self.final) * (left**self.power if left else 0.0)


@dataclass(frozen=True)
class cosine(_Checked):
    """η(t) = final + ½ (lr − final) (1 + cos(π t / steps)), then final        (Loshchilov & Hutter, ICLR 2017)"""

    lr: float
    steps: int | None = None
    final: float = 0.0
    epochs: Epochs = field(default=None, kw_only=True)
    whole = True

    def __call__(self, step: int) -> float:
        return _half_wave(self.final, self.lr, min(step / self._count, 1.0))


@dataclass(frozen=True)
class warm_restarts(_Checked):
    """η(t) = final + ½ (lr − final) (1 + cos(π c / C)), c the step of a cycle: C is `steps` at first, then `growth` · C

    Loshchilov & Hutter, "SGDR", ICLR 2017, equation 5; `steps` is its T₀ and `growth`, an integer, its T_mult.
    """

    lr: float
    steps: int | None = None
    growth: int = 1
    final: float = 0.0
    epochs: float | None = field(default=None, kw_only=True)

    def __call__(self, step: int) -> float:
        length = self._count
        if self.growth == 1:
            step %= length
        while step >= length:
            step, length = step - length, length * self.growth
        return _half_wave(self.final, self.lr, step / length)


def _half_wave(end: float, start: float, done: float) -> float:
    """From start to end, as the cosine falls."""
    return end + 0.5 * (start - end) * (1.0 + math.cos(math.pi * done))


@dataclass(frozen=True)
class warmup(_Checked):
    """η(t) = lr · (t + 1) / steps while t < steps, then lr(t − steps)        (Goyal et al., 2017, section 2.2)

    `lr` is a number or another schedule: `warmup(cosine(1e-3, steps=5000), steps=500)`.
    """

    lr: float | Schedule
    steps: int | None = None
    nests = True
    epochs: float | None = field(default=None, kw_only=True)

    def paced(self, steps: int, whole: int | None = None) -> Any:
        """Return it, if so many steps are an epoch; a schedule behind it that takes all has what is left."""
        made = super().paced(steps)
        return replace(made, lr=paced(self.lr, steps, None if whole is None else max(1, whole - made._count)))

    def __call__(self, step: int) -> float:
        steps = self._count
        if step < steps:
            return rate(self.lr, 0) * (step + 1) / steps
        return rate(self.lr, step - steps)


@dataclass(frozen=True)
class one_cycle(_Checked):
    """η rises from lr/start to lr for the first `rise` of the steps, then falls to lr/(start·end), each half a cosine.

    `lr` is the highest rate. (Smith & Topin, "Super-convergence", 2018, with cosines for straight lines)
    """

    lr: float
    steps: int | None = None
    rise: float = 0.3
    start: float = 25.0
    end: float = 1e4
    epochs: Epochs = field(default=None, kw_only=True)
    whole = True

    def __call__(self, step: int) -> float:
        steps = self._count
        first, last = self.lr / self.start, self.lr / self.start / self.end
        peak = self.rise * steps - 1
        if step < peak:
            return _half_wave(self.lr, first, step / peak)
        return _half_wave(last, self.lr, min((step - peak) / (steps - 1 - peak or 1.0), 1.0))
