"""What keeps θ finite: the gradient's norm, a look at what a rule made, and how far a rule can go."""

from collections.abc import Sequence
from math import sqrt
from typing import Any

from xpnet.arrays import Array, Namespace, Vector, each
from xpnet.backends.base import Rule

BOUNDED: set[Rule] = set()


def bounded(rule: Rule) -> Rule:
    """Mark a rule of which its optimizer's `reach` says how far it can move θ; others are watched at each step."""
    BOUNDED.add(rule)
    return rule


def measure(xp: Namespace, gradient: Vector, alive: Array | None, loss: Array | None) -> tuple[Array, Array]:
    """Return the gradient's 2-norm, and whether it and the loss are finite and `alive` is true, as 0-d arrays."""
    square = sum(xp.sum(part * part) for part in gradient) if isinstance(gradient, tuple) else gradient @ gradient
    norm = xp.sqrt(square)
    finite = xp.isfinite(norm)
    finite = finite if loss is None else xp.isfinite(loss) & finite
    return norm, finite if alive is None else alive & finite


def sound(xp: Namespace, state: Sequence[Vector]) -> Array:
    """Return whether θ and slots are finite everywhere, as a 0-d array: 0 times what is not finite is NaN."""
    return xp.isfinite(
        sum(
            each(lambda *ws: sum(xp.sum(w * 0.0) for w in ws), *vector)
            if isinstance(vector, tuple)
            else xp.sum(vector * 0.0)
            for vector in state
        )
    )


def ratio(info: Any, spread: float, rest: float, eps: float) -> float:
    """Return how large m / (√v + ε) can be, in units of √max: `rest` is what one g² adds to v."""
    largest = sqrt(float(info.max))
    tiny = sqrt(float(info.smallest_normal) / rest) / eps  # v too small for its type
    regular = 1.0 / sqrt(rest * spread) if spread else largest / eps
    return min(max(regular, tiny), largest / eps) / largest
