"""Backward passes against central differences, in float64.

(f(a + h) − f(a − h)) / 2h is off by about h² from truncation and by about eps/h from rounding: h = eps^⅓ balances the
two, and what remains is a multiple of eps^⅔. (Press et al., "Numerical Recipes", 2007, section 5.7)
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from xpnet.arrays import Array
from xpnet.backends import Backend
from xpnet.backends import backend as find_backend
from xpnet.layers import Layer
from xpnet.losses import Loss
from xpnet.parameters import Shape
from xpnet.random import generator
from xpnet.testing.trial import draw_trial

EPS = float(np.finfo(np.float64).eps)
STEP = EPS ** (1 / 3)
TOLERANCE = 100 * EPS ** (2 / 3)
"""In units of the largest entry of the Jacobian or of the output, whichever is larger: 3.7e-9."""
FULL, RANDOM = 1000, 3
"""Calls of the function up to which the whole Jacobian is compared; beyond, random directions, this many."""

Function: TypeAlias = Callable[..., tuple[Array, Callable[[Array], Sequence[Array]]]]
"""`function(*arrays) -> (y, pullback)`, with `pullback(dy) -> one gradient for each array`."""
OnHosts: TypeAlias = Callable[..., list[np.ndarray]]
"""A function of host arrays in float64 that returns such."""


class Entry(NamedTuple):
    """One number that was compared: its place, what backward and the differences say, and the unit of the error."""

    place: str
    backward: float
    difference: float
    unit: float
    name: str

    @property
    def error(self) -> float:
        """The error in that unit: what the tolerance is compared with."""
        return abs(self.backward - self.difference) / self.unit

    @property
    def relative(self) -> float:
        """The error in units of this entry alone."""
        return abs(self.backward - self.difference) / abs(self.difference) if self.difference else math.inf

    def __str__(self) -> str:
        return (
            f"{self.place} is {self.backward:.10g} by backward and {self.difference:.10g} by central differences: "
            f"off by {self.relative:.1e} of this entry, and by {self.error:.1e} of {self.name}"
        )


def gradcheck(
    layer: Layer,
    input_shape: Sequence[Any],
    *,
    backend: str | Backend | None = None,
    seed: int = 0,
    training: bool = False,
    key: int = 0,
    buffers: Mapping[str, Any] | None = None,
    tolerance: float | None = None,
) -> float:
    """Compare a layer's or network's backward pass with central differences; return the worst error.

    `input_shape` has the batch axis; several inputs have a tuple of shapes. x and θ are drawn from `seed`: x from
    N(0, 1), θ a little off its first values, so that no bias is zero. `buffers` are the running statistics by path, the
    same at every call, and drawn too if they are left out. The whole Jacobian for x and every parameter where it is
    small, random directions where it is large. The error is in units of the largest entry or output. AssertionError
    names the layer, the parameter, the worst entry and both its values.
    """
    chosen = find_backend(backend)
    trial = draw_trial(layer, input_shape, chosen, "float64", seed=seed, training=training, key=key, buffers=buffers)
    arguments = {name: np.array(chosen.asnumpy(array)) for name, array in trial.arguments().items()}
    return check_gradient(trial.forward, arguments, backend=chosen, seed=seed, tolerance=tolerance, who=str(layer))


def gradcheck_loss(
    loss: Loss,
    prediction: Any,
    target: Any,
    *,
    backend: str | Backend | None = None,
    seed: int = 0,
    tolerance: float | None = None,
) -> float:
    """Compare the gradient that a loss returns with central differences; prediction and target are host arrays."""
    chosen = find_backend(backend)
    truth = chosen.asarray(target)

    def function(p: Array) -> tuple[Array, Callable[[Array], Sequence[Array]]]:
        value, gradient = loss(p, truth)
        return value, lambda dy: (dy * gradient,)

    arguments = {"prediction": np.asarray(prediction, dtype=np.float64)}
    who = getattr(loss, "__name__", str(loss))
    return check_gradient(function, arguments, backend=chosen, seed=seed, tolerance=tolerance, who=who)


def check_gradient(
    function: Function,
    arguments: dict[str, np.ndarray],
    *,
    backend: str | Backend | None = None,
    seed: int = 0,
    tolerance: float | None = None,
    who: str = "function",
) -> float:
    """Compare any function's pullback with central differences, for every argument; return the worst error.

    On a library that compiles, the function and its pullback are compiled, as in training.
    """
    chosen = find_backend(backend)
    tolerance = TOLERANCE if tolerance is None else tolerance
    value = _on_hosts(chosen, lambda *arrays: function(*arrays)[:1])
    pull = _on_hosts(chosen, lambda dy, *arrays: tuple(function(*arrays)[1](dy)))
    y = value(*arguments.values())[0]
    outputs, inputs = y.size, sum(a.size for a in arguments.values())
    if not outputs or not inputs:
        raise ValueError(f"{who}: nothing to compare, input or output is empty: use a batch of at least 1")
    full = outputs + 2 * inputs <= FULL
    entries = _compare(value, pull, arguments, None if full else generator(seed, "gradcheck/directions"))
    worst = max(entries, key=lambda entry: math.inf if math.isnan(entry.error) else entry.error)
    if not worst.error <= tolerance:
        raise AssertionError(f"{who} on {chosen.name}: {worst} (tolerance {tolerance:.1e})")
    return worst.error


def _on_hosts(backend: Backend, function: Callable[..., Sequence[Array]]) -> OnHosts:
    """Return a function of arrays, compiled where the library compiles, as one of host arrays in float64."""
    compiled = backend.jit(function)

    def call(*hosts: np.ndarray) -> list[np.ndarray]:
        made = compiled(*(backend.asarray(host.copy(), dtype="float64") for host in hosts))
        return [np.array(backend.asnumpy(array)) for array in made]

    return call


def _compare(
    value: OnHosts, pull: OnHosts, arguments: dict[str, np.ndarray], rng: np.random.Generator | None
) -> Iterator[Entry]:
    """Yield, for each argument a, the worst of ⟨u, ∂y/∂a v⟩: from backward as ⟨∂y/∂aᵀ u, v⟩, and from differences.

    u and v are all unit vectors, and the numbers so the Jacobian's entries; given `rng`, a few random directions.
    """
    y = value(*arguments.values())[0]
    us = _directions(y.size, rng)
    pulled = [pull(u.reshape(y.shape), *arguments.values()) for u in us]
    for name, gradients, a in zip(arguments, zip(*pulled, strict=True), arguments.values(), strict=True):
        for g in gradients:
            assert g.shape == a.shape, f"the gradient of {name} has shape {g.shape}, not {a.shape}"
        if not a.size:
            continue
        vs = _directions(a.size, rng)
        rows = np.stack([g.reshape(-1) for g in gradients])
        backward = rows @ vs.T
        difference = us @ np.stack([_difference(value, arguments, name, v.reshape(a.shape)) for v in vs], axis=1)
        largest = np.max(np.abs(difference)) if rng is None else np.max(np.linalg.norm(rows, axis=1))
        unit = max(float(largest), float(np.max(np.abs(y))), float(np.finfo(float).tiny))
        unit_name = "the largest entry or output" if rng is None else "the gradient's norm or the largest output"
        k, j = map(int, np.unravel_index(int(np.argmax(np.abs(backward - difference))), backward.shape))
        place = f"∂output{_index(k, y.shape)}/∂{name}{_index(j, a.shape)}"
        if rng is not None:
            place = f"the derivative of random direction {k} of the output along random direction {j} of {name}"
        yield Entry(place, float(backward[k, j]), float(difference[k, j]), unit, unit_name)


def _difference(value: OnHosts, arguments: dict[str, np.ndarray], name: str, v: np.ndarray) -> np.ndarray:
    """Return (f(a + h v) − f(a − h v)) / 2h as one row of numbers, v of length 1, 2h as it came out after rounding."""
    ahead, behind = arguments[name] + STEP * v, arguments[name] - STEP * v
    above, below = (value(*(arguments | {name: a}).values())[0] for a in (ahead, behind))
    rise = above - below
    return np.asarray(rise.reshape(-1) / np.sum((ahead - behind) * v))


def _directions(size: int, rng: np.random.Generator | None) -> np.ndarray:
    """Return vectors of length 1 as rows: every axis, or a few at random."""
    if rng is None:
        return np.eye(size)
    rows = rng.normal(size=(RANDOM, size))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def _index(k: int, shape: Shape) -> str:
    return str([int(n) for n in np.unravel_index(k, shape)]) if shape else ""
