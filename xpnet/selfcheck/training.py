"""Checks of whole trainings: the same twice, the same step by step and compiled, the same as NumPy; memory; MNIST."""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np

from xpnet import random
from xpnet.backends import Backend
from xpnet.backends import backend as find_backend
from xpnet.data import datasets
from xpnet.layers import Dropout, Flatten, Linear, ReLU, Scale, Sequential
from xpnet.losses import cross_entropy
from xpnet.model import Model
from xpnet.optimizers import AdamW
from xpnet.schedules import one_cycle
from xpnet.selfcheck.numbers import Figures

PARITY = {"float32": 2e-3, "float64": 1e-9}
"""How far θ may be from NumPy's after a hundred steps, in units of its largest number: small errors grow."""
MNIST = 0.975


def model(backend: Backend, dtype: str = "float32", dropout: float = 0.2) -> Model:
    """Return a small network with all that a step can contain."""
    net = Sequential(Flatten(), Scale(1 / 255), Linear(784, 64), ReLU(), Dropout(dropout), Linear(64, 10))
    return Model(
        net, cross_entropy, AdamW(2e-3, clip_norm=5.0), seed=1, backend=backend, metrics=["accuracy"], dtype=dtype
    )


def images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first images and labels of MNIST."""
    (x, y), _ = datasets.mnist()
    return x[:count], y[:count].astype(np.int32)


def trained(one: Model, calls: int, steps: int = 8, batch: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Train for some calls of `steps` steps each; return θ and the losses, on the host."""
    x, y = (one.backend.asarray(a) for a in images(512))
    losses = []
    for call in range(calls):
        block = random.permutation(5, call, 512)[: steps * batch].reshape(steps, batch)
        outcome = one.step.many(one.holder.state, (x, y), block)
        one.holder.state = outcome.state
        losses.append(outcome.values[0])
    return np.array(one.backend.asnumpy(one.theta)), np.concatenate(losses)


def replay(backend: Backend, quick: bool) -> Figures:
    """Compiled steps against the same steps one by one, over seven calls: bit for bit on a GPU."""
    compiled, plain = model(backend), model(backend)
    plain.step = replace(plain.step, compiled=Backend.compile(backend, plain.step.one))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # a graph that was refused is a failure here
        (theta, losses), (expected, expected_losses) = trained(compiled, 7), trained(plain, 7)
    same = bool(np.array_equal(theta, expected) and np.array_equal(losses, expected_losses))
    error = float(np.max(np.abs(theta - expected)) / np.max(np.abs(expected)))
    assert same or backend.name != "cupy", f"θ differs by {error:.1e}, it must be the same bits"
    assert error <= PARITY["float32"], f"θ differs by {error:.1e}"
    nodes = getattr(compiled.step.run, "nodes_per_step", None)
    return {"same_bits": same, "worst": f"{error:.1e}", "calls": 7} | ({"nodes_per_step": nodes} if nodes else {})


def repeat(backend: Backend, quick: bool) -> Figures:
    """Two runs give the same bits."""
    (theta, losses), (again, losses_again) = trained(model(backend), 4), trained(model(backend), 4)
    assert np.array_equal(theta, again), "θ differs from run to run"
    assert np.array_equal(losses, losses_again), "the losses differ from run to run"
    return {"same_bits": True, "steps": 32}


def parity(backend: Backend, quick: bool) -> Figures:
    """A hundred steps of training against NumPy, in both precisions."""
    result: Figures = {}
    for dtype, tolerance in PARITY.items():
        theta, _ = trained(model(backend, dtype), 10, steps=10)
        expected, _ = trained(model(find_backend("numpy"), dtype), 10, steps=10)
        error = float(np.max(np.abs(theta - expected)) / np.max(np.abs(expected)))
        assert error <= tolerance, f"θ is off by {error:.1e} in {dtype}, {tolerance} is allowed"
        result |= {dtype: f"{error:.1e}", f"{dtype}_tolerance": f"{tolerance:.0e}"}
    return result


def precisions(backend: Backend, quick: bool) -> Figures:
    """Products in float32, and where the backend offers them in TF32 and bfloat16, against float64."""
    result: Figures = {}
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(256, 784)).astype(np.float32), rng.normal(size=(784, 128)).astype(np.float32)
    exact = a.astype(np.float64) @ b
    scale = np.abs(a).astype(np.float64) @ np.abs(b)
    bits = {"float32": 24, "tf32": 11, "bfloat16": 8}
    for precision in backend.precisions:
        one = backend.with_matmul(precision)
        error = float(np.max(np.abs(one.asnumpy(one.matmul(one.asarray(a), one.asarray(b))) - exact) / scale))
        tolerance = 8 * 2.0 ** -bits[precision]
        assert error <= tolerance, f"{precision}: off by {error:.1e} of Σ|aᵢ||bᵢ|, {tolerance:.1e} is allowed"
        result |= {precision: f"{error:.1e}", f"{precision}_tolerance": f"{tolerance:.1e}"}
    return result


def errors(backend: Backend, quick: bool) -> Figures:
    """Bad input is refused and leaves θ as it was: host arrays in a compiled step, wrong labels, no such device."""
    one = model(backend)
    before = np.array(backend.asnumpy(one.theta))
    refused = 0
    x, y = images(64)
    bad: list[Any] = [
        lambda: one.fit(x, y[:-1]),
        lambda: one.fit(x, y + 10),
        lambda: find_backend(f"{backend.name}:99"),
    ]
    if backend.name == "cupy":
        index = np.arange(64, dtype=np.int32).reshape(2, 32)
        bad.append(lambda: one.step.many(one.state, (x, y), index))
    for attempt in bad:
        try:
            attempt()
        except (ValueError, TypeError, RuntimeError) as error:
            refused += "\n" not in str(error)
    assert refused == len(bad), f"only {refused} of {len(bad)} bad inputs were refused in one line"
    assert np.array_equal(backend.asnumpy(one.theta), before), "θ changed"
    return {"refused": refused}


def memory(backend: Backend, quick: bool) -> Figures:
    """Device memory does not grow over 2,000 steps."""
    one = model(backend)
    if backend.memory() is None:
        return {"growth": "not measured on this backend"}
    calls = 5 if quick else 125
    trained(one, 4, steps=16)
    before = backend.memory()
    trained(one, calls, steps=16)
    growth = (backend.memory() or 0) - (before or 0)
    assert growth <= 0, f"{growth} bytes more after {calls * 16} steps"
    return {"growth": growth, "steps": calls * 16, "held": backend.memory()}


def mnist(backend: Backend, quick: bool) -> Figures:
    """A 784-128-10 network learns MNIST to 97.5 %."""
    if quick:
        return {"accuracy": "left out by --quick"}
    (x, y), test = datasets.mnist()
    net = Sequential(Flatten(), Scale(1 / 255), Linear(784, 128, initializer="he"), ReLU(), Linear(128, 10))
    schedule = one_cycle(4e-3, steps=4 * -(-len(x) // 128))
    one = Model(net, cross_entropy, AdamW(schedule), backend=backend, metrics=["accuracy"])
    history = one.fit(x, y, epochs=4, batch_size=128, progress=False)
    if history.stopped:  # fit ends in peace
        raise KeyboardInterrupt
    accuracy = one.evaluate(*test)["accuracy"]
    assert accuracy >= MNIST, f"{accuracy:.4f}, {MNIST} is wanted"
    return {"accuracy": round(accuracy, 4), "goal": MNIST, "epoch_seconds": [round(s, 3) for s in history["seconds"]]}


CHECKS = (replay, repeat, parity, precisions, errors, memory, mnist)
