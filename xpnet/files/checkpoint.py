"""A step, its state and where a run stands as a file, and as host data for copies: no code, only data and arrays."""

import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from xpnet.arrays import Vector
from xpnet.backends import Backend
from xpnet.backends import backend as find_backend
from xpnet.checks import integer
from xpnet.errors import CheckpointError, DataWarning
from xpnet.files import description, storage
from xpnet.files.description import from_data
from xpnet.layers import Layer
from xpnet.optimizers import Optimizer
from xpnet.training import parts
from xpnet.training.history import History
from xpnet.training.holder import Holder
from xpnet.training.state import Run, State
from xpnet.training.step import Step
from xpnet.version import __version__
from xpnet.world import World

PATH = str | os.PathLike[str]


def save(path: PATH, holder: Holder) -> None:
    """Write what it holds to a file, all or nothing; CheckpointError if it cannot be written, or not be read again."""
    step, state, run = holder.step, holder.state, holder.run
    vectors: dict[str, Vector] = {"": state.theta}
    vectors |= {f"optimizer.{k}/": slot for k, slot in enumerate(state.slots)}
    about = describe(step) | {"epoch": state.epoch, "step": state.t, "run": None}
    if run is not None:
        kept = [_divide(one) for one in run.callbacks]
        vectors |= {f"callback.{k}.{name}/": v for k, (_, some) in enumerate(kept) for name, v in some.items()}
        about["run"] = vars(run) | {"callbacks": [plain for plain, _ in kept]}
    home = step.backend.asnumpy
    arrays = {
        prefix + name: home(window)
        for prefix, vector in vectors.items()
        for name, window in step.net.windows(vector).items()
    }
    arrays |= {f"buffer/{name}": home(array) for name, array in state.buffers.items()}
    storage.write(path, storage.encode(json.dumps(about), arrays))


def describe(step: Step) -> dict[str, Any]:
    """Return a step as data; CheckpointError for a part that could not be made again from it."""
    backend = step.backend
    metrics = tuple(step.metrics.values())
    made = description.describe(net=step.net, loss=step.loss, optimizer=step.optimizer, metrics=metrics)
    return made | {
        "metrics": dict(zip(step.metrics, made["metrics"], strict=True)),
        "seed": step.seed,
        "dtype": step.dtype,
        "frozen": list(step.frozen),
        "shards": step.shards,
        "bits": backend.bits(),
        "versions": {"xpnet": __version__, "numpy": np.__version__, backend.name: backend.version},
    }


def _divide(state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Vector]]:
    """Return what of a callback's state is plain data, and what vectors like θ."""
    vectors = {name: value for name, value in state.items() if hasattr(value, "shape")}
    return {name: value for name, value in state.items() if name not in vectors}, vectors


def load(
    path: PATH, backend: Backend, custom: Sequence[Callable[..., Any]], world: World | None = None
) -> tuple[Step, State, Run | None]:
    """Read them from a file, on any backend; CheckpointError says what is wrong with it."""
    try:
        text, arrays = storage.read(path)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not a sound xpnet checkpoint: {error}") from None
    try:
        about = json.loads(text)
        step = _step(about, backend, custom, world or World())
        state, run = _state(about, arrays, step)
        bits = dict(about["bits"])
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} does not describe a model that can be built: {error}") from None
    others = {key: value for key, value in backend.bits().items() if bits.get(key) != value}
    if run is not None and others:
        text = ", ".join(f"{key} {bits.get(key)} there, {value} here" for key, value in others.items())
        warnings.warn(f"resumed training will differ in its last bits: {text}", DataWarning, stacklevel=3)
    return step, state, run


def _step(about: dict[str, Any], backend: Backend, custom: Sequence[Callable[..., Any]], world: World) -> Step:
    net, loss, optimizer = (from_data(about[part], custom) for part in ("net", "loss", "optimizer"))
    if not (isinstance(net, Layer) and callable(loss) and isinstance(optimizer, Optimizer)):
        raise TypeError("it does not describe a network, a loss and an optimizer")
    saved = about["metrics"]
    metrics = (
        {name: from_data(metric, custom) for name, metric in saved.items()}
        if isinstance(saved, dict)
        else [from_data(metric, custom) for metric in saved]
    )
    frozen = parts.patterns(about.get("frozen", ()))
    how: dict[str, Any] = {"frozen": frozen, "world": world, "shards": about.get("shards")}
    return Step(net, loss, optimizer, parts.named(metrics), about["seed"], backend, about["dtype"], **how)


def _state(about: dict[str, Any], arrays: Mapping[str, np.ndarray], step: Step) -> tuple[State, Run | None]:
    count, epoch = int(about["step"]), int(about["epoch"])
    if min(count, epoch) < 0:
        raise ValueError(f"it stands at step {count} of epoch {epoch}")
    expected = {window.name: window.shape for window in step.net.layout}
    came = {name: array.shape for name, array in arrays.items() if "/" not in name}
    if came != expected:
        raise ValueError(f"its arrays {came} are not the network's {expected}")

    def vector(prefix: str) -> Any:
        return step.backend.adopt(_joined(arrays, prefix, step))

    slots = tuple(step.carried(vector(f"optimizer.{k}/")) for k in range(step.optimizer.moments))
    held = {name.removeprefix("buffer/"): array for name, array in arrays.items() if name.startswith("buffer/")}
    carried, shapes = parts.carried(step.net), {name: array.shape for name, array in held.items()}
    if shapes != carried:
        raise ValueError(f"its buffers {shapes} are not the network's {carried}")
    buffers = {name: step.backend.adopt(held[name].astype(step.dtype, copy=False)) for name in carried}
    state = State(step.carried(vector("")), slots, buffers, step.backend.asarray(True), count, epoch)
    if about["run"] is None:
        return state, None
    run = Run(**about["run"] | {"history": History(about["run"]["history"])})
    for k, kept in enumerate(run.callbacks):
        start = f"callback.{k}."
        names = {name[len(start) :].partition("/")[0] for name in arrays if name.startswith(start)}
        kept |= {name: vector(f"{start}{name}/") for name in names}
    return state, run


def _joined(arrays: Mapping[str, np.ndarray], prefix: str, step: Step) -> np.ndarray:
    """Return the host vector like θ whose windows have this prefix: where they were read to, if it has θ's type."""
    windows = [arrays[prefix + window.name] for window in step.net.layout]
    for window, array in zip(step.net.layout, windows, strict=True):
        if array.shape != window.shape:
            raise ValueError(f'"{prefix}{window.name}" must have the shape {window.shape}')
    return storage.joined(windows).astype(step.dtype, copy=False)


class Keeper:
    """Saves a run: at once when told so, else when `every` steps were done since the last time."""

    def __init__(self, path: PATH, every: int | None, holder: Holder) -> None:
        self.every = None if every is None else integer("fit", "every", every)
        describe(holder.step)  # what cannot be saved is refused now, not after an epoch; and so is a bad path
        storage.check(path)
        self.path, self.holder, self.saved = path, holder, holder.state.t

    def __call__(self, now: bool) -> None:
        """Save, if it is time."""
        if now or (self.every is not None and self.holder.state.t - self.saved >= self.every):
            with self.holder as holder:
                save(self.path, holder)
                self.saved = holder.state.t


def to_host(holder: Holder) -> dict[str, Any]:
    """Return what it takes to make it all again anywhere: all arrays on the host."""
    step, state, run = holder.step, holder.state, holder.run

    def home(value: Any) -> Any:
        if isinstance(value, tuple):
            return np.concatenate([np.reshape(home(window), -1) for window in value])
        return np.array(step.backend.asnumpy(value)) if hasattr(value, "shape") else value

    made = {field.name: getattr(step, field.name) for field in fields(step) if field.name != "compiled"}
    if run is not None:
        run = replace(
            run,
            history=History(run.history),
            callbacks=[{name: home(value) for name, value in one.items()} for one in run.callbacks],
        )
    return {
        "kind": type(step),
        "step": made,
        "theta": home(state.theta),
        "slots": [home(slot) for slot in state.slots],
        "buffers": {name: home(buffer) for name, buffer in state.buffers.items()},
        "counts": (state.t, state.epoch),
        "run": run,
    }


def from_host(host: dict[str, Any], backend: str | Backend | None = None) -> tuple[Step, State, Run | None]:
    """Make them again, on their own backend or on another."""
    step = host["kind"](**host["step"] | {"backend": find_backend(backend or host["step"]["backend"])})

    def place(array: Any) -> Any:
        return step.backend.adopt(array.copy()) if isinstance(array, np.ndarray) else array

    theta, *slots = (step.carried(place(vector)) for vector in (host["theta"], *host["slots"]))
    buffers = {name: place(buffer) for name, buffer in host["buffers"].items()}
    state = State(theta, tuple(slots), buffers, step.backend.asarray(True), *host["counts"])
    run = host["run"]
    if run is not None:
        run = replace(run, callbacks=[{name: place(value) for name, value in one.items()} for one in run.callbacks])
    return step, state, run
