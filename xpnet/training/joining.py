"""What several processes that train together must have in common, found before the first step."""

import hashlib
import json
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from xpnet.arrays import shape_of
from xpnet.data.source import Samples
from xpnet.errors import DataWarning
from xpnet.layers import BatchNorm
from xpnet.training.state import Run, State
from xpnet.training.step import Step

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

NAMES = {"_train": "fit"}


def jointly(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Make a method of something that has a `step` one that all its ranks call: an error ends none alone."""

    @wraps(method)
    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self.step.world.together(NAMES.get(method.__name__, method.__name__)):
            return method(self, *args, **kwargs)

    return call


def check(step: Step, state: State, run: Run, source: Samples, held: Samples | None) -> None:
    """Raise DataError, on all ranks, where a part of the training is another on one of them.

    ValueError for statistics of all ranks where these do not go forward together.
    """
    _check_synchronized(step, run, source)
    world, batch = step.world, run.batch_size * run.accumulate
    if world.rank == 0 and batch < world.size:
        text = f"batches of {batch} leave {world.size - batch} of {world.size} ranks without samples"
        warnings.warn(f"{text}: take a larger batch_size", DataWarning, stacklevel=5)
    home = step.backend.asnumpy

    def numbers(arrays: Any) -> str:
        sha = hashlib.sha256()
        for array in arrays:
            sha.update(np.ascontiguousarray(home(array)).data)
        return sha.hexdigest()

    step.world.check(
        {
            "the backend": lambda: step.backend.name,
            "the network": lambda: repr(step.net),
            "the optimizer": lambda: repr(step.optimizer),
            "the learning rate": lambda: step.optimizer.paced(source.steps(batch), 1).rate(state.t),
            "the precision": lambda: step.dtype,
            "the seed": lambda: step.seed,
            "shards": lambda: step.shards,
            "the metrics": lambda: ", ".join(step.metrics),
            "epochs": lambda: run.until - state.epoch,
            "batch_size": lambda: run.batch_size,
            "accumulate": lambda: run.accumulate,
            "where the run stands": lambda: json.dumps([run.first, run.position, state.epoch, state.t]),
            "the data": source.digest,
            "the validation data": lambda: held and held.digest(),
            "theta": lambda: numbers([step.flat(state.theta)]),
            "what the optimizer remembers": lambda: numbers(map(step.flat, state.slots)),
            "the buffers": lambda: numbers(state.buffers.values()),
        }
    )


def _check_synchronized(step: Step, run: Run, source: Samples) -> None:
    """Raise ValueError unless all ranks run a layer's forward pass at the same time, and the host can add up within."""
    if step.world.size == 1:
        return
    for path, layer, _ in step.net.walk(shape_of(source.like)):
        if isinstance(layer, BatchNorm) and layer.synchronized:
            if step.shards is not None or run.accumulate > 1:
                reason = "a process computes the parts of shards= and accumulate= one after the other"
                raise ValueError(f"{layer} at layer {path}: {reason}: leave them out, or synchronized")
            if not step.backend.eager:
                reason = f"{step.backend.name} compiles the forward pass, and cannot add up over processes within it"
                raise ValueError(f"{layer} at layer {path}: {reason}: take numpy or torch, or leave synchronized out")
