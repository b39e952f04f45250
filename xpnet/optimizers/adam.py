"""Adam, AdamW and NAdam: momentum, in units of the gradient's root mean square."""

from dataclasses import dataclass, field
from math import exp, expm1, log, sqrt
from typing import Any

from xpnet.arrays import Array, Namespace
from xpnet.backends.base import Rule
from xpnet.checks import flag, number, settle
from xpnet.optimizers.base import Optimizer
from xpnet.optimizers.finite import bounded, ratio
from xpnet.schedules import Schedule


@dataclass(frozen=True)
class Adam(Optimizer):
    """m ← β₁ m + (1 − β₁) g,  v ← β₂ v + (1 − β₂) g²,  θ ← θ − η m̂ / (√v̂ + ε),  m̂ = m / (1 − β₁ᵗ),  v̂ = v / (1 − β₂ᵗ)

    Kingma & Ba, ICLR 2015, algorithm 1; the corrections are folded into two scalars, as at the end of its section 2.
    `amsgrad` takes the largest v so far for v, so that no element's rate ever rises (Reddi et al., ICLR 2018; corrected
    as PyTorch does it).
    """

    lr: float | Schedule = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    amsgrad: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, amsgrad=flag(type(self).__name__, "amsgrad", self.amsgrad))

    @property
    def rule(self) -> Rule:
        """Adam's rule, or AMSGrad's."""
        return amsgrad_rule if self.amsgrad else adam_rule

    @property
    def moments(self) -> int:
        """The means m of the gradient and v of its square, and the largest v."""
        return 3 if self.amsgrad else 2

    def reach(self, info: Any) -> float:
        """|m̂| / √v̂ ≤ 1 / √((1 − β₂) (1 − β₁² / β₂)) by Cauchy and Schwarz if β₁² < β₂; in any case |m| / ε"""
        return momentum_reach(info, self.beta1, self.beta2, self.eps)

    def scalars(self, t: int) -> tuple[float, ...]:
        """Return β₁, 1 − β₁, β₂, 1 − β₂, η √c / (1 − β₁ᵗ), ε √c with c = 1 − β₂ᵗ, t counted from 1."""
        root = sqrt(1.0 - self.beta2 ** (t + 1))
        step = self.rate(t) * root / (1.0 - self.beta1 ** (t + 1))
        return self.beta1, 1.0 - self.beta1, self.beta2, 1.0 - self.beta2, step, self.eps * root


def momentum_reach(info: Any, beta1: float, beta2: float, eps: float) -> float:
    """Return how large m̂ / (√v̂ + ε) can be, in units of √max."""
    spread = 1.0 - beta1**2 / beta2 if beta1**2 < beta2 else 0.0
    return ratio(info, spread, 1.0 - beta2, eps * sqrt(1.0 - beta2))


def means(m: Array, v: Array, g: Array, beta1: float, rest1: float, beta2: float, rest2: float) -> tuple[Array, Array]:
    """m ← β₁ m + (1 − β₁) g;  v ← β₂ v + (1 − β₂) g²"""
    m *= beta1
    m += rest1 * g
    v *= beta2
    square = g * g
    square *= rest2
    v += square
    return m, v


@bounded
def adam_rule(
    xp: Namespace,
    theta: Array,
    m: Array,
    v: Array,
    g: Array,
    beta1: float,
    rest1: float,
    beta2: float,
    rest2: float,
    rate: float,
    eps: float,
) -> tuple[Array, ...]:
    """m ← β₁ m + (1 − β₁) g;  v ← β₂ v + (1 − β₂) g²;  θ ← θ − rate m / (√v + ε)"""
    m, v = means(m, v, g, beta1, rest1, beta2, rest2)
    root = xp.sqrt(v)
    root += eps
    step = m / root
    step *= rate
    theta -= step
    return theta, m, v


@bounded
def amsgrad_rule(
    xp: Namespace,
    theta: Array,
    m: Array,
    v: Array,
    top: Array,
    g: Array,
    beta1: float,
    rest1: float,
    beta2: float,
    rest2: float,
    rate: float,
    eps: float,
) -> tuple[Array, ...]:
    """m and v as Adam's;  top ← max(top, v);  θ ← θ − rate m / (√top + ε)"""
    m, v = means(m, v, g, beta1, rest1, beta2, rest2)
    top = xp.maximum(top, v)
    root = xp.sqrt(top)
    root += eps
    step = m / root
    step *= rate
    theta -= step
    return theta, m, v, top


@dataclass(frozen=True)
class AdamW(Adam):
    """θ ← θ − η λ θ, then Adam's step on the gradient alone        (Loshchilov & Hutter, ICLR 2019, algorithm 2)"""

    weight_decay: float = field(default=0.01, kw_only=True)

    @property
    def decoupled(self) -> bool:
        """The decay acts on θ, not on the gradient."""
        return True


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
    m, v = means(m, v, g, beta1, rest1, beta2, rest2)
    root = xp.sqrt(v)
    root += eps
    step = ahead * m
    step += fresh * g
    step /= root
    step *= rate
    theta -= step
    return theta, m, v
