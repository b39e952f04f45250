"""RMSProp: a step in units of the gradient's root mean square."""

from dataclasses import dataclass
from typing import Any

from xpnet.arrays import Array, Namespace
from xpnet.backends.base import Rule
from xpnet.optimizers.base import Optimizer
from xpnet.optimizers.finite import bounded, ratio
from xpnet.schedules import Schedule


@dataclass(frozen=True)
class RMSProp(Optimizer):
    """v ← α v + (1 − α) g²,  θ ← θ − η g / (√v + ε)        (Tieleman & Hinton, Coursera lecture 6.5, 2012)"""

    lr: float | Schedule = 0.01
    alpha: float = 0.99
    eps: float = 1e-8

    @property
    def rule(self) -> Rule:
        """RMSProp's rule."""
        return rmsprop_rule

    @property
    def moments(self) -> int:
        """The mean square v."""
        return 1

    def reach(self, info: Any) -> float:
        """|g| / √v ≤ 1 / √(1 − α); where v is too small for its type, |g| / ε"""
        return ratio(info, 1.0, 1.0 - self.alpha, self.eps)

    def scalars(self, t: int) -> tuple[float, ...]:
        """Return α, 1 − α, η, ε."""
        return self.alpha, 1.0 - self.alpha, self.rate(t), self.eps


@bounded
def rmsprop_rule(
    xp: Namespace, theta: Array, v: Array, g: Array, alpha: float, rest: float, rate: float, eps: float
) -> tuple[Array, ...]:
    """v ← α v + (1 − α) g²;  θ ← θ − η g / (√v + ε)"""
    v *= alpha
    square = g * g
    square *= rest
    v += square
    root = xp.sqrt(v)
    root += eps
    step = g / root
    step *= rate
    theta -= step
    return theta, v
