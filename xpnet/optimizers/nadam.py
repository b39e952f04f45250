"""NAdam: Adam with Nesterov's momentum."""

from dataclasses import dataclass
from math import exp, expm1, log, sqrt
from typing import Any

from xpnet.arrays import Array, Namespace
from xpnet.backends.base import Rule
from xpnet.checks import number, settle
from xpnet.optimizers.adam import momentum_reach
from xpnet.optimizers.base import Optimizer
from xpnet.optimizers.finite import bounded
from xpnet.schedules import Schedule


@dataclass(frozen=True)
class NAdam(Optimizer):
    """Adam with Nesterov's momentum: θ ← θ − η n / (√v̂ + ε),  n = μₜ₊₁ m / (1 − Πₜ₊₁) + (1 − μₜ) g / (1 − Πₜ)

    m, v and v̂ are Adam's, μₜ = β₁ (1 − ½ · 0.96^(t ψ)), Πₜ = μ₁ μ₂ … μₜ, and ψ is `momentum_decay`.
    Dozat, ICLR 2016 workshop, algorithm 2, in the form of PyTorch.
    """

    lr: float | Schedule = 2e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    momentum_decay: float = 4e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, momentum_decay=number("NAdam", "momentum_decay", self.momentum_decay, least=0.0))

    @property
    def rule(self) -> Rule:
        """NAdam's rule."""
        return nadam_rule

    @property
    def moments(self) -> int:
        """The means m of the gradient and v of its square."""
        return 2

    def reach(self, info: Any) -> float:
        """|n| ≤ |m̂| + |g|, since Πₜ ≤ μₜ and Πₜ₊₁ ≤ β₁ᵗ; neither is further than Adam's |m̂| from 0 in units of √v̂"""
        return 2.0 * momentum_reach(info, self.beta1, self.beta2, self.eps)

    def scalars(self, t: int) -> tuple[float, ...]:
        """Return β₁, 1 − β₁, β₂, 1 − β₂, the shares of m and g in n, η √c, ε √c with c = 1 − β₂ᵗ, t counted from 1."""
        t, root = t + 1, sqrt(1.0 - self.beta2 ** (t + 1))
        now, next_one, product = self._momentum(t), self._momentum(t + 1), self._product(t)
        shares = next_one / (1.0 - product * next_one), (1.0 - now) / (1.0 - product)
        return (
            self.beta1,
            1.0 - self.beta1,
            self.beta2,
            1.0 - self.beta2,
            *shares,
            self.rate(t - 1) * root,
            self.eps * root,
        )

    @property
    def _shrinking(self) -> float:
        return self.momentum_decay * log(0.96)

    def _momentum(self, t: int) -> float:
        return self.beta1 * (1.0 - 0.5 * exp(t * self._shrinking))

    def _product(self, t: int) -> float:
        """Πₜ = β₁ᵗ Π (1 − xⁱ/2) with x = 0.96^ψ; log Π (1 − xⁱ/2) = − Σₖ (½)ᵏ/k Σᵢ xᵏⁱ, whose terms halve at least."""
        bound = float(self.beta1**t)
        if bound < 2.0**-60:  # nothing beside 1
            return 0.0
        return bound * exp(-sum(0.5**k / k * powers(k * self._shrinking, t) for k in range(1, 64)))


def powers(exponent: float, t: int) -> float:
    """Σ e^(exponent · i) for i = 1 … t"""
    return exp(exponent) * expm1(exponent * t) / expm1(exponent) if exponent else float(t)


@bounded
def nadam_rule(
    xp: Namespace,
    theta: Array,
    m: Array,
    v: Array,
    g: Array,
    beta1: float,
    rest1: float,
    beta2: float,
    rest2: float,
    ahead: float,
    fresh: float,
    rate: float,
    eps: float,
) -> tuple[Array, ...]:
    """m and v as Adam's;  θ ← θ − rate (ahead m + fresh g) / (√v + ε)"""
    m *= beta1
    m += rest1 * g
    v *= beta2
    square = g * g
    square *= rest2
    v += square
    root = xp.sqrt(v)
    root += eps
    step = ahead * m
    step += fresh * g
    step /= root
    step *= rate
    theta -= step
    return theta, m, v
