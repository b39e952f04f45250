"""Adagrad: a step in units of the root of all squared gradients so far, so that the rate of each element only falls."""

from dataclasses import dataclass
from math import sqrt
from typing import Any

from xpnet.backends.base import Rule
from xpnet.optimizers.base import Optimizer
from xpnet.optimizers.finite import ratio
from xpnet.optimizers.rmsprop import rmsprop_rule
from xpnet.schedules import Schedule

LONG = 2.0**60
"""More steps than anybody does."""


@dataclass(frozen=True)
class Adagrad(Optimizer):
    """s ← s + g²,  θ ← θ − η g / (√s + ε)        (Duchi, Hazan & Singer, JMLR 2011)

    s = t v, where v ← (1 − 1/t) v + g²/t is the mean of g² so far: that stays in its type's range, which a sum leaves.
    So this is RMSProp whose α is 1 − 1/t, whose η and ε are divided by √t. PyTorch's `lr_decay` is a schedule here.
    """

    lr: float | Schedule = 0.01
    eps: float = 1e-10

    @property
    def rule(self) -> Rule:
        """RMSProp's rule."""
        return rmsprop_rule

    @property
    def moments(self) -> int:
        """The mean square v."""
        return 1

    @property
    def faintest(self) -> float:
        """1 / √t"""
        return 1.0 / sqrt(LONG)

    def reach(self, info: Any) -> float:
        """|g| ≤ √s; where v is too small for its type, |g| / ε"""
        return ratio(info, LONG, 1.0 / LONG, self.eps)

    def scalars(self, t: int) -> tuple[float, ...]:
        """Return 1 − 1/t, 1/t, η / √t, ε / √t, t counted from 1."""
        root = sqrt(t + 1)
        return t / (t + 1), 1.0 / (t + 1), self.rate(t) / root, self.eps / root
