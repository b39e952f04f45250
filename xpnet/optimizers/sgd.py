"""Stochastic gradient descent: plain, with momentum, with Nesterov's momentum."""

from dataclasses import dataclass
from typing import Any

from xpnet.arrays import Array, Namespace
from xpnet.backends.base import Rule
from xpnet.optimizers.base import Optimizer
from xpnet.optimizers.finite import bounded


@dataclass(frozen=True)
class SGD(Optimizer):
    """θ ← θ − η g, the lesson's rule; with momentum μ: v ← μ v + g, θ ← θ − η v; Nesterov: θ ← θ − η (g + μ v)

    Robbins & Monro 1951; Polyak 1964; Sutskever et al., ICML 2013, in the form of PyTorch.
    """

    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and not self.momentum:
            raise ValueError("SGD: nesterov=True needs a momentum above 0, such as 0.9")

    @property
    def shrinks(self) -> bool:
        """θ ← θ − η (g + λ θ)"""
        return True

    def reach(self, info: Any) -> float:
        """|v| ≤ Σ μᵏ |g| = |g| / (1 − μ)"""
        return 1.0 / (1.0 - self.momentum)

    @property
    def rule(self) -> Rule:
        """Plain, with momentum, or Nesterov's."""
        return nesterov_rule if self.nesterov else momentum_rule if self.momentum else sgd_rule

    @property
    def moments(self) -> int:
        """The velocity v, if there is momentum."""
        return 1 if self.momentum else 0

    def scalars(self, t: int) -> tuple[float, ...]:
        """Return η, and μ if there is momentum."""
        return (self.rate(t), self.momentum) if self.momentum else (self.rate(t),)


@bounded
def sgd_rule(xp: Namespace, theta: Array, g: Array, rate: float) -> tuple[Array, ...]:
    """θ ← θ − η g"""
    theta -= rate * g
    return (theta,)


@bounded
def momentum_rule(xp: Namespace, theta: Array, v: Array, g: Array, rate: float, mu: float) -> tuple[Array, ...]:
    """v ← μ v + g;  θ ← θ − η v"""
    v *= mu
    v += g
    theta -= rate * v
    return theta, v


@bounded
def nesterov_rule(xp: Namespace, theta: Array, v: Array, g: Array, rate: float, mu: float) -> tuple[Array, ...]:
    """v ← μ v + g;  θ ← θ − η (g + μ v)"""
    v *= mu
    v += g
    ahead = mu * v
    ahead += g
    ahead *= rate
    theta -= ahead
    return theta, v
