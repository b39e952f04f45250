"""Layers, losses, metrics, optimizers and schedules as data: names that xpnet knows, and numbers.

    {"is": "layers.Linear", "nin": 784, "nout": 10, "bias": true, "initializer": "normal"}

Reading a description builds those and nothing else.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from xpnet import layers, losses, metrics, optimizers, parameters, schedules
from xpnet.errors import CheckpointError
from xpnet.layers import Sequential


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
