"""What an optimizer is: one elementwise rule, mapped over θ by the backend.

A rule is `rule(xp, θ, *slots, *inputs, *scalars) -> (θ, *slots)`, written on "numbers": it uses augmented assignment
only on its state and on temporaries of its own, and holds no number literals, which libraries would read in different
precisions. All the numbers a step needs come from `scalars(t)`, host floats.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import nan, sqrt
from typing import Any, NamedTuple

from xpnet.arrays import Array, Namespace, Vector, each
from xpnet.backends import Backend, backend_of
from xpnet.backends.base import Rule
from xpnet.checks import number
from xpnet.parameters import Parts
from xpnet.schedules import Schedule, rate

BOUNDED: set[Rule] = set()
SETTINGS: dict[str, dict[str, float]] = {"lr": {}, "weight_decay": {}}
SETTINGS |= {name: {"above": 0.0} for name in ("clip_norm", "eps")}
SETTINGS |= {name: {"below": 1.0} for name in ("momentum", "beta1", "beta2", "alpha")}
"""What numbers an optimizer is made with, and their bounds besides 0; a rule of one's own checks its others itself."""


class Memory(NamedTuple):
    """What an optimizer remembers: the number of steps done, vectors like θ, and the parts of θ that decay."""

    t: int
    slots: tuple[Vector, ...]
    decayed: Parts | None = None


class Update(NamedTuple):
    """What an update gives: new θ and slots, the gradient's 2-norm, and whether every step so far was sound."""

    theta: Vector
    slots: tuple[Vector, ...]
    norm: Array
    alive: Array


@dataclass(frozen=True)
class Optimizer(ABC):
    """θ and dθ in, θ out. A gradient that is not finite changes nothing, neither θ nor the slots.

    `lr` is a number or a schedule. `weight_decay` λ adds λ θ to the gradient, on the parts of θ that `init` is told.
    `clip_norm` scales a gradient with a larger 2-norm down to that norm, before all else.
    """

    lr: float | Schedule
    weight_decay: float = field(default=0.0, kw_only=True)
    clip_norm: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for name, bounds in SETTINGS.items():
            value = getattr(self, name, None)
            if value is not None and not (name == "lr" and callable(value)):
                bounds = bounds if "above" in bounds else {"least": 0.0, **bounds}
                object.__setattr__(self, name, number(type(self).__name__, name, value, **bounds))

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

    def rate(self, t: int) -> float:
        """Return the learning rate at step t, 0 for the first."""
        return rate(self.lr, t)

    def scalars(self, t: int) -> tuple[float, ...]:
        """Return the rule's numbers at step t, 0 for the first."""
        return (self.rate(t),)

    def row(self, t: int) -> tuple[float, ...]:
        """Return all the numbers of step t: those of the weight decay, if there is any, then the rule's."""
        if not self.weight_decay:
            return self.scalars(t)
        return (self.rate(t) * self.weight_decay if self.decoupled else self.weight_decay, *self.scalars(t))

    def reach(self, info: Any) -> float:
        """Return how far a step at rate 1 can move an element of θ, in units of √max, for a type's `finfo`.

        No gradient whose 2-norm is finite has an element above √max.
        """
        return 1.0

    def fastest(self, info: Any) -> float:
        """Return the largest rate at which no finite gradient can take θ out of its type's range.

        A move of less than half a unit in the last place of the largest number leaves even that number finite; rate and
        gradient may be multiplied first, in whatever order a compiler likes. And the decay of a step must not take more
        than the whole weight.
        """
        largest = sqrt(float(info.max))
        most = min(largest * float(info.eps) / 8.0 / self.reach(info), largest / 8.0)
        return min(most, 1.0 / self.weight_decay) if self.weight_decay and self.shrinks else most

    def check(self, info: Any) -> None:
        """Raise ValueError if a setting is too large, or too small, for θ's type."""
        who = type(self).__name__
        eps = getattr(self, "eps", None)
        if eps is not None and eps * sqrt(1.0 - getattr(self, "beta2", 0.0)) < float(info.smallest_normal):
            raise ValueError(f"{who}: eps={eps} is 0 in the precision of theta: take a larger one, such as 1e-8")
        if not callable(self.lr) and self.lr > (most := self.fastest(info)):
            raise ValueError(f"{who}: lr={self.lr} is too large for theta, at most {most:.3g}: take a smaller one")

    def init(self, theta: Vector, decayed: Parts | None = None) -> Memory:
        """Return what there is to remember before the first step.

        `decayed` names the parts of θ to which weight decay applies (`net.decayed()`); None means everywhere.
        ValueError if a setting has no place in θ's precision.
        """
        backend = _backend(theta)
        xp = backend.xp
        self.check(xp.finfo((theta[0] if isinstance(theta, tuple) else theta).dtype))
        with backend.working():
            return Memory(0, tuple(each(xp.zeros_like, theta) for _ in range(self.moments)), decayed)

    def step(self, theta: Vector, dtheta: Vector, memory: Memory) -> tuple[Vector, Memory]:
        """Return θ and the memory after one step; both may be overwritten, so keep what is returned."""
        backend = _backend(theta)
        with backend.working():
            if self.clip_norm is not None or self.weight_decay:  # an update may overwrite the gradient too
                dtheta = each(lambda g: backend.xp.asarray(g, copy=True), dtheta)
            new = self.update(theta, dtheta, memory.slots, self.row(memory.t), decayed=memory.decayed)
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
        decayed: Parts | None = None,
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
        if self.weight_decay:
            row, decay = row[1:], row[:1]
            if self.decoupled:
                theta = _decay(backend, shrink_rule, theta, (), decayed, decay, alive)
            else:
                dtheta = _decay(backend, penalty_rule, dtheta, (theta,), decayed, decay, None)
        new = backend.map(self.rule)((theta, *slots), (dtheta,), row, alive)
        if guarded:  # nothing is known of how far a rule from outside can go
            alive = alive & _sound(xp, new)
            norm = xp.where(alive, norm, nan)
            new = tuple(each(lambda n, o: xp.where(alive, n, o), n, o) for n, o in zip(new, old, strict=True))
        return Update(new[0], new[1:], norm, alive)


def bounded(rule: Rule) -> Rule:
    """Mark a rule of which its optimizer's `reach` says how far it can move θ; others are watched at each step."""
    BOUNDED.add(rule)
    return rule


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


def _scaled(g: Array, factor: Array) -> Array:
    g *= factor
    return g


def _copies(xp: Namespace, theta: Vector, slots: tuple[Vector, ...]) -> tuple[Vector, tuple[Vector, ...]]:
    own = [each(lambda array: xp.asarray(array, copy=True), vector) for vector in (theta, *slots)]
    return own[0], tuple(own[1:])


def _sound(xp: Namespace, state: Sequence[Vector]) -> Array:
    """Return whether θ and slots are finite everywhere, as a 0-d array: 0 times what is not finite is NaN."""
    return xp.isfinite(
        sum(
            each(lambda *ws: sum(xp.sum(w * 0.0) for w in ws), *vector)
            if isinstance(vector, tuple)
            else xp.sum(vector * 0.0)
            for vector in state
        )
    )


def _decay(
    backend: Backend,
    rule: Rule,
    vector: Vector,
    inputs: tuple[Vector, ...],
    decayed: Parts | None,
    decay: Sequence[Any],
    alive: Array | None,
) -> Vector:
    """Return a vector like θ on whose decayed parts a rule has been at work; `inputs` are vectors like it."""
    if decayed is None:
        return backend.map(rule)((vector,), inputs, decay, alive)[0]
    if not decayed.places:
        return vector
    parts = decayed.of(vector)
    (new,) = backend.map(rule)((parts,), tuple(map(decayed.of, inputs)), decay, alive)
    return decayed.put(backend.xp, vector, parts, new)


def shrink_rule(xp: Namespace, theta: Array, decay: float) -> tuple[Array, ...]:
    """θ ← θ − decay θ"""
    theta -= decay * theta
    return (theta,)


def penalty_rule(xp: Namespace, g: Array, theta: Array, decay: float) -> tuple[Array, ...]:
    """g ← g + decay θ"""
    g += decay * theta
    return (g,)


def ratio(info: Any, spread: float, rest: float, eps: float) -> float:
    """Return how large m / (√v + ε) can be, in units of √max: `rest` is what one g² adds to v."""
    largest = sqrt(float(info.max))
    tiny = sqrt(float(info.smallest_normal) / rest) / eps  # v too small for its type
    regular = 1.0 / sqrt(rest * spread) if spread else largest / eps
    return min(max(regular, tiny), largest / eps) / largest
