"""Optimizers, in increasing order of difficulty. Each is one elementwise rule, mapped over θ by the backend.

A rule is `rule(xp, θ, *slots, *inputs, *scalars) -> (θ, *slots)`, written on "numbers": it uses augmented assignment
only on its state and on temporaries of its own, and holds no number literals, which libraries would read in different
precisions. All the numbers a step needs come from `scalars(t)`, host floats.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Any, NamedTuple

from xpnet.arrays import Array, Namespace, Vector, each
from xpnet.backends import Backend, backend_of
from xpnet.backends.base import Rule
from xpnet.schedules import Schedule, rate


class State(NamedTuple):
    """What an optimizer remembers: the number of steps done, and vectors like θ."""

    t: int
    slots: tuple[Vector, ...]


class Update(NamedTuple):
    """What an update gives: new θ and slots, the gradient's 2-norm, and whether every gradient so far was finite."""

    theta: Vector
    slots: tuple[Vector, ...]
    norm: Array
    alive: Array


@dataclass(frozen=True)
class Optimizer(ABC):
    """θ and dθ in, θ out. A gradient that is not finite changes nothing, neither θ nor the slots.

    `lr` is a number or a schedule. `weight_decay` λ adds λ θ to the gradient, on matrices only if `init` is told which
    elements those are. `clip_norm` scales a gradient with a larger 2-norm down to that norm, before all else.
    """

    lr: float | Schedule
    weight_decay: float = field(default=0.0, kw_only=True)
    clip_norm: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, (int, float)) and not 0 <= value < float("inf"):
                raise ValueError(f"{type(self).__name__}: {name} must not be negative or infinite, got {value}")
            if name in ("momentum", "beta1", "beta2", "alpha") and value >= 1:
                raise ValueError(f"{type(self).__name__}: {name} must be below 1, got {value}")
        if self.clip_norm == 0:
            raise ValueError(f"{type(self).__name__}: clip_norm must be above 0, or None for no clipping")

    @property
    @abstractmethod
    def rule(self) -> Rule:
        """The elementwise rule."""

    @property
    def moments(self) -> int:
        """How many vectors like θ the rule carries from step to step."""
        return 0

    @property
    def decoupled(self) -> bool:
        """Whether the rule takes the weight decay itself, the 0/1 vector being its last input."""
        return False

    def rate(self, t: int) -> float:
        """Return the learning rate at step t, 0 for the first."""
        return rate(self.lr, t)

    def scalars(self, t: int) -> tuple[float, ...]:
        """Return the rule's numbers at step t, 0 for the first."""
        return (self.rate(t),)

    def init(self, theta: Vector, decayed: Vector | None = None) -> State:
        """Return the state before the first step.

        `decayed` is a vector like θ, 1 where weight decay applies, else 0 (`net.decayed()`); None means everywhere.
        """
        xp = _backend(theta).xp
        slots = tuple(each(xp.zeros_like, theta) for _ in range(self.moments))
        if self.weight_decay:
            slots += (each(xp.ones_like, theta) if decayed is None else decayed,)
        return State(0, slots)

    def step(self, theta: Vector, dtheta: Vector, state: State) -> tuple[Vector, State]:
        """Return θ and the state after one step; both may be overwritten, so keep what is returned."""
        new = self.update(theta, dtheta, state.slots, self.scalars(state.t))
        return new.theta, State(state.t + 1, new.slots)

    def update(
        self,
        theta: Vector,
        dtheta: Vector,
        slots: tuple[Vector, ...],
        scalars: Sequence[Any],
        alive: Array | None = None,
        backend: Backend | None = None,
        loss: Array | None = None,
    ) -> Update:
        """Do one step with these scalars; change nothing if gradient or loss is not finite, or `alive` is False."""
        backend = backend or _backend(theta)
        xp = backend.xp
        norm, alive = backend.native(measure)(xp, dtheta, alive, loss)
        if self.clip_norm is not None:
            factor = self.clip_norm / xp.maximum(norm, self.clip_norm)
            dtheta = each(lambda g: g * factor, dtheta)
        moments, decayed = slots[: self.moments], slots[self.moments :]
        inputs = (dtheta, *decayed)
        if decayed and not self.decoupled:
            inputs = (each(lambda g, d, p: g + self.weight_decay * (d * p), dtheta, *decayed, theta),)
        new = backend.map(self.rule)((theta, *moments), inputs, scalars, alive)
        return Update(new[0], (*new[1:], *decayed), norm, alive)


def _backend(theta: Vector) -> Backend:
    return backend_of(theta[0] if isinstance(theta, tuple) else theta)


def measure(xp: Namespace, gradient: Vector, alive: Array | None, loss: Array | None) -> tuple[Array, Array]:
    """Return the gradient's 2-norm, and whether it and the loss are finite and `alive` is true, as 0-d arrays."""
    norm = _norm(xp, gradient)
    finite = xp.isfinite(norm)
    finite = finite if loss is None else xp.isfinite(loss) & finite
    return norm, finite if alive is None else alive & finite


def _norm(xp: Namespace, vector: Vector) -> Array:
    """The 2-norm of a vector like θ, as a 0-d array."""
    if isinstance(vector, tuple):
        return xp.sqrt(sum(xp.sum(part * part) for part in vector))
    return xp.sqrt(vector @ vector)


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


def sgd_rule(xp: Namespace, theta: Array, g: Array, rate: float) -> tuple[Array, ...]:
    """θ ← θ − η g"""
    theta -= rate * g
    return (theta,)


def momentum_rule(xp: Namespace, theta: Array, v: Array, g: Array, rate: float, mu: float) -> tuple[Array, ...]:
    """v ← μ v + g;  θ ← θ − η v"""
    v *= mu
    v += g
    theta -= rate * v
    return theta, v


def nesterov_rule(xp: Namespace, theta: Array, v: Array, g: Array, rate: float, mu: float) -> tuple[Array, ...]:
    """v ← μ v + g;  θ ← θ − η (g + μ v)"""
    v *= mu
    v += g
    ahead = mu * v
    ahead += g
    ahead *= rate
    theta -= ahead
    return theta, v


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

    def scalars(self, t: int) -> tuple[float, ...]:
        """Return α, 1 − α, η, ε."""
        return self.alpha, 1.0 - self.alpha, self.rate(t), self.eps


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


@dataclass(frozen=True)
class Adam(Optimizer):
    """m ← β₁ m + (1 − β₁) g,  v ← β₂ v + (1 − β₂) g²,  θ ← θ − η m̂ / (√v̂ + ε),  m̂ = m / (1 − β₁ᵗ),  v̂ = v / (1 − β₂ᵗ)

    Kingma & Ba, ICLR 2015, algorithm 1; the corrections are folded into two scalars, as at the end of its section 2.
    """

    lr: float | Schedule = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    @property
    def rule(self) -> Rule:
        """Adam's rule."""
        return adam_rule

    @property
    def moments(self) -> int:
        """The means m of the gradient and v of its square."""
        return 2

    def scalars(self, t: int) -> tuple[float, ...]:
        """Return β₁, 1 − β₁, β₂, 1 − β₂, η √c / (1 − β₁ᵗ), ε √c with c = 1 − β₂ᵗ, t counted from 1."""
        root = sqrt(1.0 - self.beta2 ** (t + 1))
        step = self.rate(t) * root / (1.0 - self.beta1 ** (t + 1))
        return self.beta1, 1.0 - self.beta1, self.beta2, 1.0 - self.beta2, step, self.eps * root


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


@dataclass(frozen=True)
class AdamW(Adam):
    """θ ← θ − η λ θ, then Adam's step on the gradient alone        (Loshchilov & Hutter, ICLR 2019, algorithm 2)"""

    weight_decay: float = field(default=0.01, kw_only=True)

    @property
    def rule(self) -> Rule:
        """Adam's rule, after the decay."""
        return adamw_rule if self.weight_decay else adam_rule

    @property
    def decoupled(self) -> bool:
        """The decay acts on θ, not on the gradient."""
        return True

    def scalars(self, t: int) -> tuple[float, ...]:
        """Return η λ, then Adam's."""
        decay = (self.rate(t) * self.weight_decay,) if self.weight_decay else ()
        return decay + super().scalars(t)


def adamw_rule(
    xp: Namespace, theta: Array, m: Array, v: Array, g: Array, decayed: Array, decay: float, *adam: float
) -> tuple[Array, ...]:
    """θ ← θ − decay θ where decayed, then Adam's rule"""
    shrink = decayed * theta
    shrink *= decay
    theta -= shrink
    return adam_rule(xp, theta, m, v, g, *adam)
