"""Weight decay: as a part of the gradient, or as a step of its own, on some parts of θ."""

from collections.abc import Sequence
from typing import Any

from xpnet.arrays import Array, Namespace, Vector
from xpnet.backends import Backend
from xpnet.backends.base import Rule
from xpnet.parameters import Parts


def decay_parts(
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
