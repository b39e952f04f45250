"""Backward passes against central differences, in float64.

(f(a + h) − f(a − h)) / 2h is off by about h² from truncation and by about eps/h from rounding: h = eps^⅓ balances the
two, and what remains is a multiple of eps^⅔. (Press et al., "Numerical Recipes", 2007, section 5.7)
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from xpnet.arrays import Array
from xpnet.backends import Backend
from xpnet.backends import backend as find_backend
from xpnet.layers import Context, Layer
from xpnet.losses import Loss
from xpnet.parameters import Shape, draw
from xpnet.random import generator

EPS = float(np.finfo(np.float64).eps)
STEP = EPS ** (1 / 3)
TOLERANCE = 100 * EPS ** (2 / 3)
"""Of the largest entry of the Jacobian or of the output, whichever is larger: 3.7e-9."""
FULL = 1000
"""Calls of the function up to which the whole Jacobian is compared; beyond, random directions."""

Function: TypeAlias = Callable[..., tuple[Array, Callable[[Array], Sequence[Array]]]]
"""`function(*arrays) -> (y, pullback)`, with `pullback(dy) -> one gradient for each array`."""


class Entry(NamedTuple):
    """One number that was compared: where it is, what backward says, what the differences say, the scale."""

    place: str
    backward: float
    difference: float
    scale: float

    @property
    def error(self) -> float:
        """The relative error."""
        return abs(self.backward - self.difference) / self.scale


def gradcheck(
    layer: Layer,
    input_shape: Shape,
    *,
    backend: str | Backend | None = None,
    seed: int = 0,
    training: bool = False,
    key: int = 0,
    tolerance: float | None = None,
) -> float:
    """Compare a layer's or network's backward pass with central differences; return the worst relative error.

    `input_shape` has the batch axis. x and θ are drawn from `seed`: x from N(0, 1), θ a little off its first values, so
    that no bias is zero. The whole Jacobian for x and every parameter where it is small, random directions where it is
    large. AssertionError names the layer, the parameter, the worst entry and both its values.
    """
    chosen = find_backend(backend)
    layer.output_shape(input_shape)
    rng = generator(seed, "gradcheck")
    theta = draw(layer.layout, seed) + rng.normal(0.0, 0.1, layer.size)
    arguments = {"input": rng.normal(size=input_shape)}
    arguments |= {w.name: theta[w.start : w.stop].reshape(w.shape) for w in layer.layout}

    def function(x: Array, *params: Array) -> tuple[Array, Callable[[Array], Sequence[Array]]]:
        y, pullback = layer.forward(params, x, Context(chosen, training, key))

        def backward(dy: Array) -> Sequence[Array]:
            dx, gradients = pullback(dy, True, (None,) * len(params))
            return dx, *gradients

        return y, backward

    return check_gradient(function, arguments, backend=chosen, seed=seed, tolerance=tolerance, who=str(layer))


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
    """Compare any function's pullback with central differences, for every argument; return the worst relative error."""
    chosen = find_backend(backend)
    tolerance = TOLERANCE if tolerance is None else tolerance

    def evaluate(**hosts: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], list[np.ndarray]]]:
        arrays = [chosen.asarray(host.copy(), dtype="float64") for host in hosts.values()]
        y, pullback = function(*arrays)
        return chosen.asnumpy(y), lambda dy: [
            np.array(chosen.asnumpy(g)) for g in pullback(chosen.asarray(dy, dtype="float64"))
        ]

    size = evaluate(**arguments)[0].size
    if not size:
        raise ValueError(f"{who}: nothing to compare, the output is empty: use a batch of at least 1")
    calls = size + 2 * sum(a.size for a in arguments.values())
    entries = _jacobian(evaluate, arguments) if calls <= FULL else _directions(evaluate, arguments, seed)
    worst = max(entries, key=lambda entry: math.inf if math.isnan(entry.error) else entry.error)
    if not worst.error <= tolerance:
        raise AssertionError(
            f"{who} on {chosen.name}: {worst.place} is {worst.backward:.10g} by backward and {worst.difference:.10g} "
            f"by central differences (relative error {worst.error:.1e}, tolerance {tolerance:.1e})"
        )
    return worst.error


def _jacobian(evaluate: Any, arguments: dict[str, np.ndarray]) -> Iterator[Entry]:
    """Yield the worst entry of each argument's Jacobian ∂y/∂a: by rows from backward, by columns from differences."""
    y = evaluate(**arguments)[0]
    rows = [evaluate(**arguments)[1](row.reshape(y.shape)) for row in np.eye(y.size)]
    for name, gradients, a in zip(arguments, zip(*rows, strict=True), arguments.values(), strict=True):
        backward = np.stack([g.reshape(-1) for g in gradients])  # (y.size, a.size)
        assert backward.shape == (y.size, a.size), (
            f"the gradient of {name} has {backward.shape[1]} numbers, not {a.size}"
        )
        columns = [_difference(evaluate, arguments, name, unit.reshape(a.shape)) for unit in np.eye(a.size)]
        difference = np.stack(columns, axis=1)
        scale = max(np.max(np.abs(difference)), np.max(np.abs(y)), np.finfo(float).tiny)
        k, j = np.unravel_index(int(np.argmax(np.abs(backward - difference))), backward.shape)
        place = f"∂output{_index(int(k), y.shape)}/∂{name}{_index(int(j), a.shape)}"
        yield Entry(place, float(backward[k, j]), float(difference[k, j]), float(scale))


def _directions(evaluate: Any, arguments: dict[str, np.ndarray], seed: int, count: int = 3) -> Iterator[Entry]:
    """Yield, for each argument, ⟨u, ∂y/∂a v⟩ along random unit vectors u and v."""
    rng = generator(seed, "gradcheck/directions")
    for number in range(count):
        y, pullback = evaluate(**arguments)
        u = _unit(rng, y.shape)
        for (name, a), gradient in zip(arguments.items(), pullback(u), strict=True):
            assert gradient.shape == a.shape, f"the gradient of {name} has shape {gradient.shape}, not {a.shape}"
            v = _unit(rng, a.shape)
            difference = np.sum(u.reshape(-1) * _difference(evaluate, arguments, name, v))
            scale = max(float(np.linalg.norm(gradient)), float(np.max(np.abs(y))), float(np.finfo(float).tiny))
            place = f"the derivative along random direction {number} of {name}"
            yield Entry(place, float(np.sum(gradient * v)), float(difference), scale)


def _difference(evaluate: Any, arguments: dict[str, np.ndarray], name: str, v: np.ndarray) -> np.ndarray:
    """Return (f(a + h v) − f(a − h v)) / 2h as one row of numbers, v of length 1, 2h as it came out after rounding."""
    ahead, behind = arguments[name] + STEP * v, arguments[name] - STEP * v
    rise = evaluate(**arguments | {name: ahead})[0] - evaluate(**arguments | {name: behind})[0]
    return np.asarray(rise.reshape(-1) / np.sum((ahead - behind) * v))


def _unit(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    v = rng.normal(size=shape)
    return np.asarray(v / np.sqrt(np.sum(v * v)))


def _index(k: int, shape: Shape) -> str:
    return str([int(n) for n in np.unravel_index(k, shape)]) if shape else ""
