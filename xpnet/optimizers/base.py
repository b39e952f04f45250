"""What an optimizer is: one elementwise rule, mapped over θ by the backend.

A rule is `rule(xp, θ, *slots, *inputs, *scalars) -> (θ, *slots)`, written on "numbers": it uses augmented assignment
only on its state and on temporaries of its own, and holds no number literals, which libraries would read in different
precisions. All the numbers a step needs come from `scalars(t)`, host floats.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import nan, sqrt
from typing import Any, NamedTuple

from xpnet.arrays import Array, Namespace, Vector, each
from xpnet.backends import Backend, backend_of
from xpnet.backends.base import Rule
from xpnet.checks import number, settle
from xpnet.optimizers.decay import decay_parts, penalty_rule, shrink_rule
from xpnet.optimizers.factors import Factors, factor, factors, most
from xpnet.optimizers.finite import BOUNDED, measure, sound
from xpnet.parameters import Parts, Window, check_patterns, choose
from xpnet.schedules import Schedule, named, paced, rate, times

SETTINGS: dict[str, dict[str, float]] = {"lr": {}, "weight_decay": {}}
SETTINGS |= {name: {"above": 0.0} for name in ("clip_norm", "eps")}
SETTINGS |= {name: {"below": 1.0} for name in ("momentum", "beta1", "beta2", "alpha")}
"""What numbers an optimizer is made with, and their bounds besides 0; a rule of one's own checks its others itself."""


class Groups(NamedTuple):
    """Parts of θ that are treated each by an optimizer of its own: the same rule at another rate, or decay."""

    members: tuple[tuple[Parts, "Optimizer"], ...]


class Memory(NamedTuple):
    """What an optimizer remembers: the number of steps done, vectors like θ, and the parts of θ treated apart."""

    t: int
    slots: tuple[Vector, ...]
    decayed: Parts | Groups | None = None


class Update(NamedTuple):
    """What an update gives: new θ and slots, the gradient's 2-norm, and whether every step so far was sound."""

    theta: Vector
    slots: tuple[Vector, ...]
    norm: Array
    alive: Array


@dataclass(frozen=True)
class Optimizer(ABC):
    """θ and dθ in, θ out. A gradient that is not finite changes nothing, neither θ nor the slots.

    `lr` is a number or a schedule; `schedule`, "linear", "cosine", "one_cycle" or "constant", makes a schedule of a
    number, as long as `fit`, which `lr` is then. `weight_decay` λ adds λ θ to the gradient, on the parts of θ that
    `init` is told: in a model the weights, and no vectors such as biases. `clip_norm` scales a gradient with a larger
    2-norm down to that norm, before all else.

    `rates` and `decays` are factors on η and λ for the parameters whose names match a pattern, the last one that does:
    `rates={"0.*": 0.1}` lets the first layer learn at a tenth of the rate, `decays={"*": 1, "*.bias": 0.5}` lets all
    decay and biases half as much. Without a pattern the factor of η is 1, that of λ 1 for weights and 0 for vectors.
    """

    lr: float | Schedule
    weight_decay: float = field(default=0.0, kw_only=True)
    clip_norm: float | None = field(default=None, kw_only=True)
    rates: Factors = field(default=(), kw_only=True)
    decays: Factors = field(default=(), kw_only=True)
    schedule: str | None = field(default=None, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        who = type(self).__name__
        settle(self, rates=factors(who, "rates", self.rates), decays=factors(who, "decays", self.decays))
        for name, bounds in SETTINGS.items():
            value = getattr(self, name, None)
            if value is not None and not (name == "lr" and callable(value)):
                bounds = bounds if "above" in bounds else {"least": 0.0, **bounds}
                settle(self, **{name: number(who, name, value, **bounds)})
        if self.schedule is not None:
            settle(self, lr=named(who, self.schedule, self.lr), schedule=None)

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
        """Whether θ ← θ − η λ θ is a step of its own, and no part of the gradient."""
        return False

    @property
    def shrinks(self) -> bool:
        """Whether weight decay takes the part η λ of θ away in a step."""
        return self.decoupled

    @property
    def overwrites_gradient(self) -> bool:
        """Whether an update may change the gradient in place; nothing is known of a rule from outside."""
        return self.clip_norm is not None or bool(self.weight_decay) or self.rule not in BOUNDED

    def rate(self, t: int) -> float:
        """Return the learning rate at step t, 0 for the first."""
        return rate(self.lr, t)

    def paced(self, steps: int | None, whole: int | None = None) -> "Optimizer":
        """Return the optimizer for epochs of so many steps, `whole` in all: itself, unless its rate goes by epochs."""
        lr = self.lr if steps is None else paced(self.lr, steps, whole)
        return self if lr == self.lr else replace(self, lr=lr)

    def scalars(self, t: int) -> tuple[float, ...]:
        """Return the rule's numbers at step t, 0 for the first."""
        return (self.rate(t),)

    def row(self, t: int, decayed: Parts | Groups | None = None) -> tuple[float, ...]:
        """Return all the numbers of step t: those of the weight decay, if there is any, then the rule's; group by group
        where there are groups.
        """
        if isinstance(decayed, Groups):
            return tuple(number for _, own in decayed.members for number in own.row(t))
        if not self.weight_decay:
            return self.scalars(t)
        return (self.rate(t) * self.weight_decay if self.decoupled else self.weight_decay, *self.scalars(t))

    def reach(self, info: Any) -> float:
        """Return how far a step at rate 1 can move an element of θ, in units of √max, for a type's `finfo`.

        No gradient whose 2-norm is finite has an element above √max.
        """
        return 1.0

    @property
    def faintest(self) -> float:
        """The smallest factor on ε in any step."""
        return sqrt(1.0 - getattr(self, "beta2", 0.0))

    def fastest(self, info: Any) -> float:
        """Return the largest rate at which no finite gradient can take θ out of its type's range.

        A move of less than half a unit in the last place of the largest number leaves even that number finite; rate and
        gradient may be multiplied first, in whatever order a compiler likes. And the decay of a step must not take more
        than the whole weight.
        """
        largest = sqrt(float(info.max))
        fastest = min(largest * float(info.eps) / 8.0 / self.reach(info), largest / 8.0)
        decay = self.weight_decay * most(self.decays) if self.shrinks else 0.0
        return (min(fastest, 1.0 / decay) if decay else fastest) / most(self.rates)

    def check(self, info: Any) -> None:
        """Raise ValueError if a setting is too large, or too small, for θ's type."""
        who = type(self).__name__
        eps = getattr(self, "eps", None)
        if eps is not None and eps * self.faintest < float(info.smallest_normal):
            raise ValueError(f"{who}: eps={eps} is 0 in the precision of theta: take a larger one, such as 1e-8")
        if not callable(self.lr) and self.lr > (most := self.fastest(info)):
            raise ValueError(f"{who}: lr={self.lr} is too large for theta, at most {most:.3g}: take a smaller one")

    # Parameters that are treated apart

    def check_patterns(self, windows: Sequence[Window]) -> None:
        """Raise ValueError for a pattern of `rates` or `decays` that matches no parameter."""
        for name in ("rates", "decays"):
            check_patterns(name, (pattern for pattern, _ in getattr(self, name)), windows)

    def kind(self, window: Window) -> tuple[float, float]:
        """Return a parameter's factors on η and λ."""
        decay = factor(self.decays, window.name, float(window.decayed))
        return factor(self.rates, window.name, 1.0), decay if self.weight_decay else 0.0

    def _is(self, kind: tuple[float, float], window: Window) -> bool:
        return self.kind(window) == kind

    def treated(self, windows: Sequence[Window], flat: bool = True) -> Parts | Groups:
        """Return what `init` is to know of a network's windows: the parts that decay, or groups if there are factors.

        memory = optimizer.init(theta, optimizer.treated(net.layout))
        """
        if not (self.rates or self.decays):
            return choose(windows, lambda window: window.decayed, flat)
        groups: list[tuple[Parts, Optimizer]] = []
        for kind in dict.fromkeys(map(self.kind, windows)):
            lr, weight_decay = times(self.lr, kind[0]), self.weight_decay * kind[1]
            own = replace(self, lr=lr, weight_decay=weight_decay, rates=(), decays=())
            groups.append((choose(windows, partial(self._is, kind), flat), own))
        return Groups(tuple(groups))

    def init(self, theta: Vector, decayed: Parts | Groups | None = None) -> Memory:
        """Return what there is to remember before the first step.

        `decayed` names the parts of θ to which weight decay applies (`net.decayed()`); None means everywhere. With
        `rates` or `decays` it is what `treated` returns.
        ValueError if a setting has no place in θ's precision.
        """
        if (self.rates or self.decays) and not isinstance(decayed, Groups):
            call = "init(theta, optimizer.treated(net.layout))"
            raise ValueError(f"{type(self).__name__}: rates and decays name parameters of a network: call {call}")
        backend = _backend(theta)
        xp = backend.xp
        self.check(xp.finfo((theta[0] if isinstance(theta, tuple) else theta).dtype))
        with backend.working():
            return Memory(0, tuple(each(xp.zeros_like, theta) for _ in range(self.moments)), decayed)

    def step(self, theta: Vector, dtheta: Vector, memory: Memory) -> tuple[Vector, Memory]:
        """Return θ and the memory after one step; both may be overwritten, so keep what is returned."""
        backend = _backend(theta)
        with backend.working():
            if self.overwrites_gradient:
                dtheta = each(lambda g: backend.xp.asarray(g, copy=True), dtheta)
            row = self.row(memory.t, memory.decayed)
            new = self.update(theta, dtheta, memory.slots, row, backend=backend, decayed=memory.decayed)
        return new.theta, Memory(memory.t + 1, new.slots, memory.decayed)

    def update(
        self,
        theta: Vector,
        dtheta: Vector,
        slots: tuple[Vector, ...],
        row: Sequence[Any],
        alive: Array | None = None,
        backend: Backend | None = None,
        loss: Array | None = None,
        decayed: Parts | Groups | None = None,
    ) -> Update:
        """Do one step with this row of numbers, overwriting what can be; change nothing if the step is not sound.

        That is, if gradient or loss is not finite, or `alive` is False already.
        """
        backend = backend or _backend(theta)
        xp = backend.xp
        norm, alive = backend.native(measure)(xp, dtheta, alive, loss)
        if self.clip_norm is not None:
            factor = self.clip_norm / xp.maximum(norm, self.clip_norm)
            dtheta = each(lambda g: _scaled(g, factor), dtheta)
        old = theta, *slots
        guarded = self.rule not in BOUNDED
        theta, slots = _copies(xp, theta, slots) if guarded else (theta, slots)
        new = self._moved(backend, (theta, *slots), dtheta, row, alive, decayed)
        if guarded:  # nothing is known of how far a rule from outside can go
            alive = alive & sound(xp, new)
            norm = xp.where(alive, norm, nan)
            new = tuple(each(lambda n, o: xp.where(alive, n, o), n, o) for n, o in zip(new, old, strict=True))
        return Update(new[0], new[1:], norm, alive)

    def _moved(
        self,
        backend: Backend,
        state: tuple[Vector, ...],
        dtheta: Vector,
        row: Sequence[Any],
        alive: Array,
        decayed: Parts | Groups | None,
    ) -> tuple[Vector, ...]:
        """Return θ and slots after decay and rule."""
        if isinstance(decayed, Groups):
            return self._moved_apart(backend, state, dtheta, row, alive, decayed)
        theta, *slots = state
        if self.weight_decay:
            row, decay = row[1:], row[:1]
            if self.decoupled:
                theta = decay_parts(backend, shrink_rule, theta, (), decayed, decay, alive)
            else:
                dtheta = decay_parts(backend, penalty_rule, dtheta, (theta,), decayed, decay, None)
        return backend.map(self.rule)((theta, *slots), (dtheta,), row, alive)

    def _moved_apart(
        self,
        backend: Backend,
        state: tuple[Vector, ...],
        dtheta: Vector,
        row: Sequence[Any],
        alive: Array,
        groups: Groups,
    ) -> tuple[Vector, ...]:
        """Return θ and slots after each group's own decay and rule."""
        decaying = sum(bool(own.weight_decay) for _, own in groups.members)
        numbers = (len(row) - decaying) // len(groups.members)
        for parts, own in groups.members:
            width = numbers + bool(own.weight_decay)
            mine, row = row[:width], row[width:]
            old = tuple(parts.of(vector) for vector in state)
            new = own._moved(backend, old, parts.of(dtheta), mine, alive, None)
            state = tuple(parts.put(backend.xp, *trio) for trio in zip(state, old, new, strict=True))
        return state


def _backend(theta: Vector) -> Backend:
    return backend_of(theta[0] if isinstance(theta, tuple) else theta)


def _scaled(g: Array, factor: Array) -> Array:
    g *= factor
    return g


def _copies(xp: Namespace, theta: Vector, slots: tuple[Vector, ...]) -> tuple[Vector, tuple[Vector, ...]]:
    own = [each(lambda array: xp.asarray(array, copy=True), vector) for vector in (theta, *slots)]
    return own[0], tuple(own[1:])
