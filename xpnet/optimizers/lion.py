"""Lion: every element takes a step of the same length, in the direction of its momentum."""

from dataclasses import dataclass
from math import sqrt
from typing import Any

from xpnet.arrays import Array, Namespace
from xpnet.backends.base import Rule
from xpnet.optimizers.base import Optimizer
from xpnet.optimizers.finite import bounded
from xpnet.schedules import Schedule

TINY = 2.0**-126
"""The smallest normal number of float32, lost beside any c from 1e-22 on: c / (|c| + tiny) is its sign. `xp.sign` is
slower: some libraries ask the device whether a number is NaN."""


@dataclass(frozen=True)
class Lion(Optimizer):
    """θ ← θ − η (sign(β₁ m + (1 − β₁) g) + λ θ),  m ← β₂ m + (1 − β₂) g

    Chen et al., "Symbolic Discovery of Optimization Algorithms", NeurIPS 2023, program 1: with a rate 3 to 10 times
    smaller, and a weight decay λ as much larger, than AdamW's. The sign of 0 is 0.
    """

    lr: float | Schedule = 1e-4
    beta1: float = 0.9
    beta2: float = 0.99

    @property
    def rule(self) -> Rule:
        """Lion's rule."""
        return lion_rule

    @property
    def moments(self) -> int:
        """The momentum m."""
        return 1

    @property
    def decoupled(self) -> bool:
        """The decay acts on θ, not on the gradient."""
        return True

    def reach(self, info: Any) -> float:
        """|sign| ≤ 1"""
        return 1.0 / sqrt(float(info.max))

    def scalars(self, t: int) -> tuple[float, ...]:
        """Return β₁, 1 − β₁, β₂, 1 − β₂, η, and what makes 0 / 0 a 0."""
        return self.beta1, 1.0 - self.beta1, self.beta2, 1.0 - self.beta2, self.rate(t), TINY


@bounded
def lion_rule(
    xp: Namespace,
    theta: Array,
    m: Array,
    g: Array,
    beta1: float,
    rest1: float,
    beta2: float,
    rest2: float,
    rate: float,
    tiny: float,
) -> tuple[Array, ...]:
    """θ ← θ − η sign(β₁ m + (1 − β₁) g);  m ← β₂ m + (1 − β₂) g"""
    step = beta1 * m
    step += rest1 * g
    size = xp.abs(step)
    size += tiny
    step /= size
    step *= rate
    theta -= step
    m *= beta2
    m += rest2 * g
    return theta, m
