"""Prediction, loss and metrics without training, a batch at a time."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from xpnet.arrays import Array, Vector, each, inputs
from xpnet.data.source import Samples
from xpnet.errors import DataError, ShapeError
from xpnet.losses.choices import counted
from xpnet.metrics import concluded
from xpnet.training.state import State
from xpnet.training.step import Step
from xpnet.world import tree


def pieces(x: Any, size: int) -> Iterator[Any]:
    """Yield inputs `size` samples at a time."""
    n = inputs(x)[0].shape[0]
    for start in range(0, n, size):
        rows = slice(start, min(start + size, n))
        yield each(lambda part, rows=rows: part[rows, ...], x)


@np.errstate(all="ignore")
def predict(step: Step, state: State, x: Iterator[Any], n: int | None, home: bool) -> Any:
    """Return the network's output for n inputs, or as many as come, piece by piece: on the device, or, if `home`, as a
    NumPy array of its own.
    """
    parts = (step.infer(state.theta, part, state.buffers) for part in x)
    first = next(parts, None)
    if first is None:
        raise DataError("there is nothing to predict: x gave no samples")
    if home or isinstance(first, np.ndarray):
        whole = chain([first], parts)
        hosts = map(step.backend.asnumpy, whole) if home else whole
        return np.concatenate(list(hosts)) if n is None else _gathered(hosts, n)
    found = [first, *parts]
    return found[0] if len(found) == 1 else step.backend.xp.concat(found)


def _gathered(parts: Iterator[np.ndarray], n: int) -> np.ndarray:
    """Return arrays end to end, n rows in all, no more than one of them held beside the whole."""
    first = next(parts)
    whole = np.empty((n, *first.shape[1:]), dtype=first.dtype)
    whole[: len(first)] = first
    done = len(first)
    for part in parts:
        whole[done : done + len(part)] = part
        done += len(part)
    return whole


@np.errstate(all="ignore")
def score(step: Step, state: State, source: Samples, batch_size: int | None = None) -> dict[str, float]:
    """Return the loss and the metrics over all samples.

    The loss and most of xpnet's own metrics come of means, and batches are averaged, each by what counts in it: samples
    or their weights, or where labels are ignored or classes weighted, labels or their weights. A metric that ranks
    samples, and one of one's own, sees all predictions.
    """
    step, (world, size) = step.on(source), (step.world, batch_size or step.samples(source.like))
    of = step.shards or world.size
    with step.steadily():
        own = [_judged(step, state, source.chunks(size, (k, of))) for k in world.own(of)]
    every = [part for parts in world.gather([part.sums for part in own]) for part in parts]
    sums = tree(every, _added)
    names = ["loss", *step.means]
    means = [one / (total or 1.0) for one, total in sums]
    found = {name: concluded(step.metrics.get(name), mean) for name, mean in zip(names, means, strict=True)}
    if step.wholes:
        whole = _whole(step, [part for one in own for part in one.kept])
        how = {"weights": whole[2]} if len(whole) > 2 else {}
        home = step.backend.asnumpy
        found |= {name: float(home(metric(*whole[:2], **how))) for name, metric in step.wholes.items()}
    return {name: found[name] for name in ("loss", *step.metrics)}


class Judged(NamedTuple):
    """What a part of the samples comes to."""

    sums: list[tuple[Any, float]]
    """Of the loss and each mean over samples: Σ value · size, and Σ size."""
    kept: list[tuple[Array, ...]]
    """Predictions, targets and weights of each batch, if there is a metric that needs all of them."""


def _judged(step: Step, state: State, batches: Iterator[Any]) -> Judged:
    """Return what batches come to."""
    functions, home = {"loss": step.loss} | step.means, step.backend.asnumpy
    sums: list[tuple[Any, float]] = [(0.0, 0.0)] * len(functions)
    kept: list[tuple[Array, ...]] = []
    for x, *target in batches:
        prediction = step.infer(state.theta, x, state.buffers)
        values = map(home, step.judge(prediction, *target))
        sizes = [_size(function, *target, home=home) for function in functions.values()]
        new = [(value.astype(np.float64) * size, size) for value, size in zip(values, sizes, strict=True)]
        sums = _added(sums, new)
        if step.wholes:
            kept.append((prediction, *target))
    return Judged(sums, kept)


def _added(one: list[tuple[Any, float]], other: list[tuple[Any, float]]) -> list[tuple[Any, float]]:
    return [(a + b, m + n) for (a, m), (b, n) in zip(one, other, strict=True)]


def _whole(step: Step, kept: list[tuple[Array, ...]]) -> list[Array]:
    """Return the arrays of batches end to end, those of all ranks."""
    concat, columns = step.backend.xp.concat, zip(*kept, strict=True)
    if step.world.size == 1:
        return [concat(list(column)) if len(column) > 1 else column[0] for column in columns]
    home = [np.concatenate([step.backend.asnumpy(array) for array in column]) for column in columns]
    every = [one for one in step.world.gather(home) if one]
    return [step.backend.asarray(np.concatenate(column)) for column in zip(*every, strict=True)]


def _size(
    function: Callable[..., Any], y: Array, weights: Array | None = None, *, home: Callable[[Array], np.ndarray]
) -> float:
    """Return what counts in a batch of targets for a loss or metric: its samples or their weights, unless its settings
    say otherwise.
    """
    settings: dict[str, Any] = {}
    if isinstance(function, partial) and function.func.__module__.partition(".")[0] == "xpnet":
        settings = {name: function.keywords.get(name) for name in ("ignore_index", "class_weight")}
    size = counted(y, **settings, weights=weights)
    return size if isinstance(size, int) else float(home(size))


@np.errstate(all="ignore")
def max_weight(step: Step, state: State) -> float:
    """Return the largest absolute value in any matrix, 0 if there is none."""
    return max((float(step.backend.asnumpy(value)) for value in step.largest(state.theta)), default=0.0)


def objective(step: Step, state: State, source: Samples) -> Callable[[Any], tuple[float, np.ndarray]]:
    """Return the loss over all samples as a function of a host vector θ, with its gradient, in float64: as many samples
    at once as are evaluated together, each batch counting what counts in it.
    """
    buffers, size, home = dict(state.buffers), step.samples(source.like), step.backend.asnumpy

    def of_batch(vector: Vector, x: Any, *target: Array) -> tuple[float, np.ndarray, float]:
        how = {"weights": target[1]} if len(target) > 1 else {}
        prediction, backward = step.net(vector, x, buffers=dict(buffers), backend=step.backend)
        loss, dprediction = step.loss(prediction, target[0], **how)
        gradient = home(step.flat(backward(dprediction))).astype(np.float64)
        return float(home(loss)), gradient, _size(step.loss, *target, home=home)

    @np.errstate(all="ignore")
    def value_and_gradient(theta: Any) -> tuple[float, np.ndarray]:
        if np.shape(theta) != (step.net.size,):
            raise ShapeError(f"theta must be a vector of {step.net.size} numbers, got shape {np.shape(theta)}")
        value, gradient, total = 0.0, np.zeros(step.net.size), 0.0
        with step.backend.working():
            vector = step.carried(step.backend.asarray(theta, dtype=step.dtype))
            for parts in source.chunks(size):
                loss, slope, counts = of_batch(vector, *parts)
                share = counts / (total + counts or 1.0)  # a mean that goes along: of one batch it is its own bits
                value, total = value + (loss - value) * share, total + counts
                gradient += (slope - gradient) * share
        return value, gradient

    return value_and_gradient
