"""A model as a file: architecture as data, θ by window name, the optimizer's state, and where a run stands."""

import json
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet import optimizers
from xpnet.arrays import Array
from xpnet.backends import Backend
from xpnet.errors import CheckpointError, DataWarning
from xpnet.files import storage
from xpnet.files.description import from_data, to_data
from xpnet.layers import Layer
from xpnet.optimizers import State
from xpnet.training.history import History
from xpnet.training.loop import Run

if TYPE_CHECKING:
    from xpnet.model import Model

PATH = str | os.PathLike[str]


def save(model: "Model", path: PATH) -> None:
    """Write a model to a file, whole or not at all; CheckpointError if it cannot be written."""
    from importlib.metadata import version  # slow to import, and needed here alone

    vectors = {"": model.theta}
    vectors |= {f"optimizer.{k}/": slot for k, slot in enumerate(model.state.slots)}
    run: dict[str, Any] | None = None
    if model.underway is not None:
        run = vars(model.underway) | {"callbacks": []}
        for k, state in enumerate(model.underway.callbacks):
            vectors |= {f"callback.{k}.{name}/": value for name, value in state.items() if hasattr(value, "shape")}
            run["callbacks"].append({name: value for name, value in state.items() if not hasattr(value, "shape")})
    description = {
        "net": to_data(model.net),
        "loss": to_data(model.loss),
        "optimizer": to_data(model.optimizer),
        "metrics": [to_data(metric) for metric in model.metrics.values()],
        "seed": int(model.seed),
        "dtype": model.dtype,
        "epoch": model.epoch,
        "step": model.state.t,
        "run": run,
        "bits": model.backend.bits(),
        "versions": {"xpnet": version("xpnet"), "numpy": np.__version__, model.backend.name: model.backend.version},
    }
    arrays = {
        prefix + name: model.backend.asnumpy(window)
        for prefix, vector in vectors.items()
        for name, window in model.net.windows(vector).items()
    }
    storage.write(Path(path), storage.encode(json.dumps(description), arrays))


def load(make: Callable[..., "Model"], path: PATH, backend: Backend, custom: Sequence[Callable[..., Any]]) -> "Model":
    """Read a model from a file, made by `make(net, loss, optimizer, …)`; CheckpointError says what is wrong with it."""
    try:
        text, arrays = storage.decode(Path(path).read_bytes())
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not a sound xpnet checkpoint: {error}") from None
    try:
        model, bits = _build(make, json.loads(text), arrays, backend, custom)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} does not describe a model that can be built: {error}") from None
    others = {key: value for key, value in backend.bits().items() if bits.get(key) != value}
    if model.underway is not None and others:
        text = ", ".join(f"{key} {bits.get(key)} there, {value} here" for key, value in others.items())
        warnings.warn(f"resumed training will differ in its last bits: {text}", DataWarning, stacklevel=3)
    return model


def _build(
    make: Callable[..., "Model"],
    saved: dict[str, Any],
    arrays: dict[str, np.ndarray],
    backend: Backend,
    custom: Sequence[Callable[..., Any]],
) -> tuple["Model", dict[str, str]]:
    net, loss, optimizer = (from_data(saved[key], custom) for key in ("net", "loss", "optimizer"))
    chosen = [from_data(metric, custom) for metric in saved["metrics"]]
    step, epoch = int(saved["step"]), int(saved["epoch"])
    if not (isinstance(net, Layer) and callable(loss) and isinstance(optimizer, optimizers.Optimizer)):
        raise TypeError("it does not describe a network, a loss and an optimizer")
    if min(step, epoch) < 0:
        raise ValueError(f"it stands at step {step} of epoch {epoch}")
    expected = {window.name: window.shape for window in net.layout}
    came = {name: array.shape for name, array in arrays.items() if "/" not in name}
    if came != expected:
        raise ValueError(f"its arrays {came} are not the network's {expected}")
    model = make(net, loss, optimizer, saved["seed"], backend, chosen, saved["dtype"])
    model.theta = _vector(arrays, "", model)
    slots = [model._carried(_vector(arrays, f"optimizer.{k}/", model)) for k in range(len(model.state.slots))]
    model.state, model.epoch = State(step, tuple(slots)), epoch
    if saved["run"] is not None:
        run = Run(**saved["run"] | {"history": History(saved["run"]["history"])})
        for k, state in enumerate(run.callbacks):
            prefix = f"callback.{k}."
            names = {name[len(prefix) :].partition("/")[0] for name in arrays if name.startswith(prefix)}
            state |= {name: _vector(arrays, f"{prefix}{name}/", model) for name in names}
        model.underway = run
    return model, dict(saved["bits"])


def _vector(arrays: dict[str, np.ndarray], prefix: str, model: "Model") -> Array:
    for window in model.net.layout:
        if arrays[prefix + window.name].shape != window.shape:
            raise ValueError(f'"{prefix}{window.name}" must have the shape {window.shape}')
    parts = [arrays[prefix + window.name].reshape(-1) for window in model.net.layout]
    return model.backend.asarray(np.concatenate(parts) if parts else np.zeros(0), dtype=model.dtype, copy=True)


class Keeper:
    """Saves a model during training: at once when told so, else when `every` steps were done since the last time."""

    def __init__(self, model: "Model", path: PATH, every: int | None) -> None:
        if every is not None and (not isinstance(every, int) or every < 1):
            raise ValueError(f"every must be a number of steps of at least 1, or None for each epoch, got {every!r}")
        self.model, self.path, self.every, self.saved = model, path, every, model.state.t

    def __call__(self, now: bool) -> None:
        """Save, if it is time."""
        if now or (self.every is not None and self.model.state.t - self.saved >= self.every):
            save(self.model, self.path)
            self.saved = self.model.state.t
