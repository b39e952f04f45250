"""The first number that a backend computes otherwise than NumPy: a training, array by array, on both at once.

Arrays are compared in the order in which they are made: batch, forward and backward pass of each layer by itself, the
fused pass, the update; then calls of K steps, one by one and compiled. An error that the library raises has its place
in that order, too.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import xpnet as xn
from xpnet import random
from xpnet.arrays import Array
from xpnet.backends import Backend
from xpnet.parameters import split
from xpnet.training.state import State
from xpnet.training.step import Step

Named = Iterator[tuple[str, Any]]
DTYPES = ("float64", "float32")
SINGLE, TRAINED = 256, 4096
"""How many eps of its largest number an array may be off: one made by one operation, and one made by a training."""
STEPS, CALLS = 6, 4
"""A compiled step runs its first call step by step, captures the second, and launches the others."""


@dataclass(frozen=True)
class Case:
    """A network and its data."""

    name: str
    net: xn.Sequential
    features: int
    classes: int
    batch: int

    def step(self, backend: Backend, dtype: str) -> Step:
        """Return the training step. A usual ε would have Adam make large numbers of rounding errors."""
        rule = xn.AdamW(1e-2, eps=1e-3, weight_decay=0.1, clip_norm=1.0)
        return xn.Model(self.net, xn.cross_entropy, rule, 3, backend, (), dtype).step

    def data(self, backend: Backend) -> tuple[Array, Array]:
        """Return images and labels on the device."""
        rng, n = np.random.default_rng(0), STEPS * self.batch
        x, y = rng.integers(0, 256, (n, self.features)), rng.integers(0, self.classes, n)
        return backend.asarray(x.astype(np.uint8)), backend.asarray(y.astype(np.int32))


def cases() -> list[Case]:
    """Return sizes that are no multiple of anything with every kind of layer, and the benchmark's network."""
    odd = xn.Sequential(
        *(xn.Flatten(), xn.Scale(1 / 255), xn.Linear(6, 13), xn.ReLU(), xn.Dropout(0.3), xn.Linear(13, 9), xn.Tanh()),
        *(xn.Linear(9, 7, bias=False), xn.Residual(xn.Linear(7, 7), xn.GELU()), xn.Sigmoid()),
        *(xn.Linear(7, 6), xn.ReLU(), xn.Linear(6, 5), xn.LeakyReLU(), xn.SiLU()),
    )
    usual = xn.Sequential(xn.Flatten(), xn.Scale(1 / 255), xn.Linear(784, 128), xn.ReLU(), xn.Linear(128, 10))
    return [Case("odd sizes", odd, 6, 5, 12), Case("784-128-10", usual, 784, 10, 128)]


# What is compared


def layer_by_layer(step: Step, theta: Any, x: Any, y: Any, key: int) -> Named:
    """Yield outputs, loss and gradients with every layer called by itself."""
    backend, start, tape = step.backend, 0, []
    context = xn.Context(backend, True, key)
    params = split(backend.xp, theta, step.net.layout)
    for k, layer in enumerate(step.net.layers):
        stop = start + len(layer.parameters())
        x, pullback = layer.forward(params[start:stop], x, context.at(k))
        tape.append((f"backward, {k} {layer}", layer, pullback))
        start = stop
        yield f"forward, {k} {layer}", x
    loss, dx = backend.native(step.loss)(x, y)
    yield from (("loss", loss), ("loss: gradient", dx))
    for name, layer, pullback in reversed(tape):
        dx, gradients = pullback(dx)
        for parameter, gradient in zip(layer.parameters(), gradients, strict=True):
            yield f"{name}: d {parameter.name}", gradient
        yield f"{name}: dx", dx


def one_step(case: Case, backend: Backend, dtype: str) -> Named:
    """Yield the arrays of one step, layer by layer, then fused, then the optimizer's update."""
    step, data, xp = case.step(backend, dtype), case.data(backend), backend.xp
    theta = step.net.init(step.seed, backend, dtype)
    yield "θ at the start", theta
    index = random.permutation(5, 0, STEPS * case.batch)[: case.batch]
    x, y = step.batch(data, backend.asarray(index))
    x, key = xp.astype(x, getattr(xp, dtype)), random.step_key(step.seed, 0)
    yield from (("batch: inputs", x), ("batch: labels", y))
    yield from layer_by_layer(step, theta, x, y, key)
    prediction, backward = step.net(theta, x, True, key=key, backend=backend)
    yield "fused: prediction", prediction
    loss, dprediction = backend.native(step.loss)(prediction, y)
    yield "fused: loss", loss
    gradient = backward(dprediction)
    yield from windows(step, "fused: gradient of", gradient)
    state = step.start(theta)
    carry = theta, state.slots, {}, state.alive
    (theta, slots, _, alive), (_, norm) = step.update(carry, step.optimizer.row(0), [gradient, loss], {})
    yield from (("update: norm of the gradient", norm), ("update: finite", alive))
    yield from windows(step, "update:", theta)
    for k, slot in enumerate(slots):
        yield from windows(step, f"update: slot {k},", slot)


def some_calls(case: Case, backend: Backend, dtype: str) -> Named:
    """Yield losses, θ and slots after each call of K steps, one by one and then compiled."""
    step, data = case.step(backend, dtype), case.data(backend)
    plain = replace(step, compiled=Backend.compile(backend, step.one))
    for name, one in (("step by step", plain), ("compiled", step)):
        state = one.start(one.net.init(one.seed, backend, dtype))
        for call in range(CALLS):
            block = random.permutation(5, call, STEPS * case.batch).reshape(STEPS, case.batch)
            outcome = one.many(state, data, block)
            state = outcome.state
            yield from after_call(one, f"{name}, call {call + 1}", state, outcome.values)


def after_call(step: Step, where: str, state: State, values: np.ndarray) -> Named:
    """Yield what a call of K steps has left."""
    yield from ((f"{where}: losses", values[0]), (f"{where}: norms of the gradients", values[1]))
    yield from windows(step, f"{where}: θ,", state.theta)
    for k, slot in enumerate(state.slots):
        yield from windows(step, f"{where}: slot {k},", slot)


def windows(step: Step, what: str, vector: Any) -> Named:
    """Yield the parameters' parts of a vector like θ."""
    for name, window in step.net.windows(vector).items():
        yield f"{what} {name}", window


STAGES: tuple[tuple[str, Callable[[Case, Backend, str], Named], int], ...] = (
    ("one step", one_step, SINGLE),
    ("calls", some_calls, TRAINED),
)


# How it is compared


def home(backend: Backend, arrays: Named) -> Named:
    """Bring each array home before the next one is made."""
    for name, array in arrays:
        yield name, np.array(array if isinstance(array, np.ndarray) else backend.asnumpy(array))


def difference(found: np.ndarray, expected: np.ndarray, multiple: float, dtype: str) -> dict[str, Any] | None:
    """Return index and both numbers of the first number that is off, and how many are; None if none is."""
    if found.shape != expected.shape:
        return {"shape": list(found.shape), "expected shape": list(expected.shape)}
    finite = np.isfinite(expected)
    scale = float(np.max(np.abs(expected[finite]), initial=0.0)) or 1.0
    error = np.abs(np.where(finite, found, 0).astype(np.float64) - np.where(finite, expected, 0))
    same = np.where(finite, error <= multiple * float(np.finfo(dtype).eps) * scale, False)
    same |= ~finite & ((found == expected) | (np.isnan(expected) & np.isnan(found)))
    if same.all():
        return None
    index = np.unravel_index(int(np.argmin(same)), same.shape)
    numbers = {"found": float(found[index]), "expected": float(expected[index])}
    return {"index": [int(i) for i in index], **numbers, "off": int(same.size - same.sum()), "of": int(same.size)}


def first_wrong(found: Named, expected: Named, multiple: float, dtype: str) -> tuple[int, dict[str, Any] | None]:
    """Go through both in step; return how many arrays agree before the first that does not, and what is wrong there."""
    count, last = 0, "nothing"
    while True:
        try:
            pair = next(found, None)
        except Exception as error:  # whatever a library raises
            said = str(error).strip().partition("\n")[0]
            return count, {"array": f"what comes after {last}", "raised": f"{type(error).__name__}: {said}"}
        other = next(expected, None)
        if pair is None or other is None:
            return count, None
        if wrong := difference(pair[1], other[1], multiple, dtype):
            return count, {"array": pair[0], **wrong}
        count, last = count + 1, pair[0]


def isolate(backend: Backend) -> dict[str, Any]:
    """Return how many arrays were compared, and of each stage in which a number is wrong the first."""
    numpy, compared, wrong = xn.backend("numpy"), 0, []
    for case in cases():
        for dtype in DTYPES:
            for name, stage, multiple in STAGES:
                found, expected = (home(one, stage(case, one, dtype)) for one in (backend, numpy))
                count, first = first_wrong(found, expected, multiple, dtype)
                compared += count
                where = f"{case.name}, {dtype}, {name}"
                print(f"{where}: {count} arrays agree, then {in_words(first) if first else 'none is left'}", flush=True)
                wrong += [{"where": where, **first}] if first else []
    return {"compared": compared, "wrong": wrong}


def in_words(wrong: dict[str, Any]) -> str:
    """Say what is wrong in a line."""
    if "raised" in wrong:
        return f"{wrong['array']} raises {wrong['raised']}"
    if "shape" in wrong:
        return f"{wrong['array']} has shape {wrong['shape']} where {wrong['expected shape']} is right"
    numbers = f"{wrong['found']!r} where {wrong['expected']!r} is right ({wrong['off']} of {wrong['of']} are off)"
    return f"{wrong['array']} {wrong['index']} is {numbers}"
