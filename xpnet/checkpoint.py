"""A model in one file, without pickle: the safetensors format, arrays behind a JSON header.

    8 bytes   the header's length, little-endian
    header    JSON: each array's type, shape and place; `__metadata__` holds the model's description and a checksum
    arrays    end to end

The description is data: names of the layers and functions that xpnet knows, and numbers. Reading it builds those and
nothing else; no code is ever taken from a file. (Format: https://huggingface.co/docs/safetensors)
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet import layers, losses, metrics, optimizers, parameters, schedules
from xpnet.arrays import Vector
from xpnet.backends import Backend
from xpnet.errors import CheckpointError
from xpnet.layers import Layer, Sequential
from xpnet.optimizers import State

if TYPE_CHECKING:
    from xpnet.model import Model

FORMAT = "xpnet 1"
TYPES = {"F32": "<f4", "F64": "<f8"}
PATH = str | os.PathLike[str]


def save(model: "Model", path: PATH) -> None:
    """Write a model to a file: a temporary one beside it, flushed to the disk and then renamed over the old."""
    from importlib.metadata import version  # slow to import, and needed here alone

    description = {
        "net": to_data(model.net),
        "loss": to_data(model.loss),
        "optimizer": to_data(model.optimizer),
        "metrics": [to_data(metric) for metric in model.metrics.values()],
        "seed": int(model.seed),
        "dtype": model.dtype,
        "epoch": model.epoch,
        "step": model.state.t,
        "backend": model.backend.name,
        "versions": {"xpnet": version("xpnet"), "numpy": np.__version__},
    }
    vectors = {"": model.theta} | {f"optimizer.{k}/": slot for k, slot in enumerate(model.state.slots)}
    arrays = {
        prefix + name: model.backend.asnumpy(window)
        for prefix, vector in vectors.items()
        for name, window in model.net.windows(vector).items()
    }
    _write_whole(Path(path), _encode(json.dumps(description), arrays))


def load(make: Callable[..., "Model"], path: PATH, backend: Backend, custom: Sequence[Callable[..., Any]]) -> "Model":
    """Read a model from a file, made by `make(net, loss, optimizer, …)`; CheckpointError says what is wrong with it."""
    try:
        text, arrays = _decode(Path(path).read_bytes())
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not a sound xpnet checkpoint: {error}") from None
    try:
        saved = json.loads(text)
        net, loss, optimizer = (from_data(saved[key], custom) for key in ("net", "loss", "optimizer"))
        chosen = [from_data(metric, custom) for metric in saved["metrics"]]
        step, epoch = int(saved["step"]), int(saved["epoch"])
        if not (isinstance(net, Layer) and callable(loss) and isinstance(optimizer, optimizers.Optimizer)):
            raise TypeError("it does not describe a network, a loss and an optimizer")
        if min(step, epoch) < 0:
            raise ValueError(f"it stands at step {step} of epoch {epoch}")
        expected = {window.name: window.shape for window in net.layout}
        came = {name: array.shape for name, array in arrays.items() if not name.startswith("optimizer.")}
        if came != expected:
            raise ValueError(f"its arrays {came} are not the network's {expected}")
        model = make(net, loss, optimizer, saved["seed"], backend, chosen, saved["dtype"])
        model.theta = _vector(arrays, "", model)
        slots = [_carried(_vector(arrays, f"optimizer.{k}/", model), model) for k in range(len(model.state.slots))]
        model.state, model.epoch = State(step, tuple(slots)), epoch
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} does not describe a model that can be built: {error}") from None
    return model


def _vector(arrays: dict[str, np.ndarray], prefix: str, model: "Model") -> Any:
    for window in model.net.layout:
        if arrays[prefix + window.name].shape != window.shape:
            raise ValueError(f'"{prefix}{window.name}" must have the shape {window.shape}')
    parts = [arrays[prefix + window.name].reshape(-1) for window in model.net.layout]
    return model.backend.asarray(np.concatenate(parts) if parts else np.zeros(0), dtype=model.dtype, copy=True)


def _carried(vector: Any, model: "Model") -> Vector:
    return vector if model.backend.flat else parameters.split(model.backend.xp, vector, model.net.layout)


def _registry(custom: Sequence[Callable[..., Any]] = ()) -> dict[str, Any]:
    """Everything a description may name."""
    rooms = (layers, losses, metrics, optimizers, parameters, schedules)
    known = {}
    for room in rooms:
        prefix = room.__name__.rpartition(".")[2]
        for name, value in vars(room).items():
            if callable(value) and getattr(value, "__module__", "").startswith(room.__name__) and name[0] != "_":
                known[f"{prefix}.{name}"] = value
    return known | {f"custom.{value.__name__}": value for value in custom}


def to_data(value: Any) -> Any:
    """Return a layer, optimizer, schedule, loss or metric as JSON data: `{"is": "layers.Linear", "nin": 784, …}`."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (tuple, list)):
        return [to_data(item) for item in value]
    kind = value if not is_dataclass(value) and hasattr(value, "__name__") else type(value)
    name = next((name for name, known in _registry().items() if known is kind), f"custom.{kind.__name__}")
    if kind is value:
        return {"is": name}
    if not is_dataclass(value):
        raise CheckpointError(
            f"{kind.__name__} cannot be saved: make it a frozen dataclass, so that its settings are data"
        )
    return {"is": name} | {field.name: to_data(getattr(value, field.name)) for field in fields(value)}


def from_data(data: Any, custom: Sequence[Callable[..., Any]] = ()) -> Any:
    """Build what `to_data` described; only names that xpnet registers or that are handed in as `custom` can occur."""
    if isinstance(data, list):
        return tuple(from_data(item, custom) for item in data)
    if not isinstance(data, dict):
        return data
    settings = {key: from_data(value, custom) for key, value in data.items() if key != "is"}
    name, known = data.get("is"), _registry(custom)
    if name not in known:
        raise ValueError(f'it needs "{name}", which is not one of xpnet\'s: hand it in, custom=[…]')
    made = known[name]
    if not isinstance(made, type):
        return made
    return made(*settings["layers"]) if issubclass(made, Sequential) else made(**settings)


def _encode(description: str, arrays: dict[str, np.ndarray]) -> list[bytes]:
    """Return the file as pieces: length and header, then the arrays."""
    names = {np.dtype(code): name for name, code in TYPES.items()}
    header: dict[str, Any] = {}
    pieces, place = [], 0
    for name, array in arrays.items():
        piece = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        header[name] = {
            "dtype": names[array.dtype.newbyteorder("<")],
            "shape": list(array.shape),
            "data_offsets": [place, place + len(piece)],
        }
        pieces.append(piece)
        place += len(piece)
    header["__metadata__"] = {"format": FORMAT, "model": description, "sha256": _digest(description, header, pieces)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little") + text, *pieces]


def _decode(content: bytes) -> tuple[str, dict[str, np.ndarray]]:
    """Return description and arrays; ValueError unless every size, type, place and the checksum is right."""
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 + length or length < 2:
        raise ValueError("it is too short")
    try:
        header = json.loads(content[8 : 8 + length])
        about = header.pop("__metadata__")
        description, digest, kind = about["model"], about["sha256"], about["format"]
        entries = sorted(header.items(), key=lambda item: item[1]["data_offsets"][0])
        arrays, place, body = {}, 0, memoryview(content)[8 + length :]
        for name, entry in entries:
            dtype, shape = np.dtype(TYPES[entry["dtype"]]), tuple(map(int, entry["shape"]))
            start, stop = entry["data_offsets"]
            if (
                start != place
                or stop - start != prod(shape) * dtype.itemsize
                or stop > len(body)
                or min(shape, default=1) < 0
            ):
                raise ValueError(f'"{name}" does not lie where its shape says')
            arrays[name] = np.frombuffer(body[start:stop], dtype).reshape(shape)
            place = stop
        true = _digest(description, header, [body])
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError) as error:
        raise ValueError(f"its header is not as it should be ({type(error).__name__})") from None
    if kind != FORMAT:
        raise ValueError(f'its format is "{kind}", this version reads "{FORMAT}"')
    if place != len(body) or digest != true:
        raise ValueError("its checksum is wrong: it was damaged or changed")
    return description, arrays


def _digest(description: str, entries: dict[str, Any], pieces: Sequence[bytes | memoryview]) -> str:
    sha = hashlib.sha256(json.dumps([description, entries], sort_keys=True).encode())
    for piece in pieces:
        sha.update(piece)
    return sha.hexdigest()


def _write_whole(path: Path, pieces: list[bytes]) -> None:
    """Write all or nothing: until the new file is safe on the disk, the old one stays."""
    try:
        temporary = path.parent / f"{path.name}.{os.urandom(4).hex()}.part"
        try:
            with temporary.open("xb") as file:
                file.writelines(pieces)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}; what was there is untouched") from None
