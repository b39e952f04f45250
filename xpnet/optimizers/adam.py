"""Adam and AdamW: momentum, in units of the gradient's root mean square."""

from dataclasses import dataclass, field
from math import sqrt
from typing import Any

from xpnet.arrays import Array, Namespace
from xpnet.backends.base import Rule
from xpnet.checks import flag, settle
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
    m *= beta1
    m += rest1 * g
    v *= beta2
    square = g * g
    square *= rest2
    v += square
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
    m *= beta1
    m += rest1 * g
    v *= beta2
    square = g * g
    square *= rest2
    v += square
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
