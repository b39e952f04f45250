"""Layers, losses, metrics, optimizers and schedules as data: names that xpnet knows, and numbers.

    {"is": "layers.Linear", "nin": 784, "nout": 10, "bias": true, "initializer": "normal"}

Reading a description builds those and nothing else. What is described has been built back and compared.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache, cached_property, partial
from inspect import Parameter, signature
from types import MethodType
from typing import Any

import numpy as np

from xpnet import layers, losses, metrics, optimizers, parameters, schedules
from xpnet.errors import CheckpointError
from xpnet.layers import Sequential

MOST = 10_000
"""Numbers that an array may have as a setting."""
DTYPES = {"bool", "float32", "float64"} | {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
FROZEN = "make it a frozen dataclass, so that its settings are data"
PLAIN = "a setting is a real number, a text, a function, or a tuple, list or dataclass of them"


@cache
def _ours() -> dict[str, Any]:
    """Everything of xpnet's that a description may name."""
    known = {}
    for room in (layers, losses, metrics, optimizers, parameters, schedules):
        prefix = room.__name__.rpartition(".")[2]
        for name, value in vars(room).items():
            if callable(value) and getattr(value, "__module__", "").startswith(room.__name__) and name[0] != "_":
                known[f"{prefix}.{name}"] = value
    return known


def _registry(custom: Sequence[Callable[..., Any]]) -> dict[str, Any]:
    """Everything a description may name; ValueError if two custom things have one name."""
    known: dict[str, Any] = {}
    for value in custom:
        name = getattr(value, "__name__", None)
        if name is None:
            raise ValueError(f"custom must hold classes and functions, got {value!r}")
        if known.setdefault(f"custom.{name}", value) is not value:
            raise ValueError(f'custom holds two things called "{name}": give one of them another name')
    return _ours() | known


def describe(**values: Any) -> dict[str, Any]:
    """Return layers, optimizers, schedules, losses and metrics as JSON data, each under its name.

    CheckpointError at once for what could not be read back, or would come back as something else.
    """
    custom: dict[str, Any] = {}
    return {name: _described(value, "", custom) for name, value in values.items()}


def to_data(value: Any) -> Any:
    """Return a layer, optimizer, schedule, loss or metric as JSON data: `{"is": "layers.Linear", "nin": 784, …}`."""
    return describe(value=value)["value"]


def from_data(data: Any, custom: Sequence[Callable[..., Any]] = ()) -> Any:
    """Build what `to_data` described; only names that xpnet registers or that are handed in as `custom` can occur."""
    return _built(data, _registry(custom))


def _described(value: Any, where: str, custom: dict[str, Any]) -> Any:
    """Return a value as data, and note what is not xpnet's own; CheckpointError names what cannot be data."""
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, np.ndarray):
        return _array(value, where)
    if isinstance(value, (float, np.generic)):
        return _number(value, where)
    if type(value) is tuple:
        return [_described(item, where, custom) for item in value]
    if type(value) is list:
        return {"is": "list", "of": [_described(item, where, custom) for item in value]}
    if type(value) is partial:
        settings = {name: _described(item, f"partial.{name}", custom) for name, item in value.keywords.items()}
        first = [_described(item, "partial", custom) for item in value.args]
        return {"is": "partial", "of": _described(value.func, where, custom), "args": first, "settings": settings}
    if is_dataclass(value) and not isinstance(value, type):
        return _dataclass(value, custom)
    reason = _reason(value)
    if reason:
        raise _refused(where, reason)
    return {"is": _named(value, custom)}


def _dataclass(value: Any, custom: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that the class's __init__ takes; CheckpointError if it does not make the same of them."""
    kind = type(value)
    takes = signature(kind).parameters
    names = [field.name for field in fields(value) if field.init and (field.kw_only or not _takes_layers(kind))]
    names = [name for name in names if name in takes or not isinstance(value, Sequential)]  # layers made of settings
    names = ["layers", *names] if _takes_layers(kind) else names
    data = {"is": _named(kind, custom)}
    data |= {name: _described(getattr(value, name), f"{kind.__name__}.{name}", custom) for name in names}
    if data["is"] in custom:
        remedy = "a frozen dataclass all of whose fields __init__ takes"
        remedy += ", or a function that returns a Sequential" if isinstance(value, Sequential) else ""
        try:
            again = _built(data, _ours() | custom)
        except Exception as error:  # of code that is not ours
            reason = str(error).partition("\n")[0]
            raise CheckpointError(f"{kind.__name__} cannot be built back ({reason}): make it {remedy}") from None
        lost = next(_differences(value, again), None)
        if lost is not None:
            raise CheckpointError(
                f"{kind.__name__}.{lost} would not come back from a file: make {kind.__name__} {remedy}"
            )
    return data


def _takes_layers(kind: type) -> bool:
    """Whether a class is built as `Sequential(*layers)` is."""
    if not issubclass(kind, Sequential):
        return False
    return any(parameter.kind is Parameter.VAR_POSITIONAL for parameter in signature(kind).parameters.values())


def _differences(value: Any, again: Any) -> Iterator[str]:
    """Yield the names of fields and public attributes that are not the same; what is cached or private is none."""
    names = [field.name for field in fields(value) if field.compare]
    for name in getattr(value, "__dict__", ()):
        if name[0] != "_" and not isinstance(getattr(type(value), name, None), cached_property):
            names.append(name)
    yield from (name for name in names if not _same(getattr(value, name, None), getattr(again, name, None)))


def _same(a: Any, b: Any) -> bool:
    """Whether b is what a file makes of a: NumPy's numbers come back as plain ones, all else as it was."""
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype.newbyteorder("=") == b.dtype and np.array_equal(a, b)
    if isinstance(a, (tuple, list)):
        return type(a) is type(b) and len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, partial):
        return isinstance(b, partial) and _same(
            (a.func, a.args, *a.keywords.items()), (b.func, b.args, *b.keywords.items())
        )
    if is_dataclass(a) and not isinstance(a, type):
        return type(a) is type(b) and not any(_differences(a, b))
    try:
        return a is b or bool(a == b)
    except Exception:  # of code that is not ours
        return False


def _number(value: Any, where: str) -> bool | int | float | str:
    plain = value.item() if isinstance(value, np.generic) else float(value)
    if not isinstance(plain, (bool, int, float, str)):
        raise _refused(where, f"{value!r} cannot be saved: {PLAIN}")
    if isinstance(plain, float) and not math.isfinite(plain):
        raise _refused(where, f"{plain} cannot be saved: give a finite number, or None for no limit")
    return plain


def _array(value: np.ndarray, where: str) -> dict[str, Any]:
    """Return an array of modest size as data; its numbers come back to the last bit."""
    if type(value) is not np.ndarray or value.dtype.name not in DTYPES:
        raise _refused(
            where, f"an array of {value.dtype} cannot be saved: give a plain one of float32, float64 or integers"
        )
    if value.size > MOST:
        raise _refused(where, f"an array of {value.size} numbers is too large for a setting: make it a parameter")
    if not np.isfinite(value).all():
        raise _refused(where, "an array with NaN or infinity cannot be saved: give finite numbers")
    return {"is": "array", "dtype": value.dtype.name, "shape": list(value.shape), "of": value.reshape(-1).tolist()}


def _reason(value: Any) -> str:
    """Say why something cannot be named in a file, if it cannot; or nothing."""
    kind, name = type(value).__name__, getattr(value, "__name__", None)
    if isinstance(value, type):
        return f"the class {name} cannot be saved, an instance can: add ()"
    if isinstance(value, Enum):
        return f"{value} cannot be saved: give its value"
    if isinstance(value, (dict, set, frozenset)):
        return f"a {kind} cannot be saved: give a tuple, of pairs if need be"
    if isinstance(value, MethodType):
        return f"the method {name} of an object cannot be saved: {FROZEN}, with __call__"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return "an array on a device cannot be saved: give a list, or a NumPy array"
    if name is None and type(value).__module__ == "builtins":
        return f"{value!r} cannot be saved: {PLAIN}"
    if name is None:
        return f"{kind} cannot be saved: {FROZEN}"
    local = "<locals>" in getattr(value, "__qualname__", "")
    if name == "<lambda>" or local:
        what = "a lambda" if name == "<lambda>" else f"{name}, a function within a function,"
        return (
            f"{what} cannot be saved: define it with def at the top of a module, or as a frozen dataclass with __call__"
        )
    return ""


def _refused(where: str, reason: str) -> CheckpointError:
    return CheckpointError(f"{where}: {reason}" if where else reason)


def _named(thing: Any, custom: dict[str, Any]) -> str:
    """Return the name of a class or function; CheckpointError if another is called so."""
    ours = next((name for name, known in _ours().items() if known is thing), None)
    name = ours or f"custom.{thing.__name__}"
    if not ours and custom.setdefault(name, thing) is not thing:
        raise CheckpointError(f'two things are called "{thing.__name__}": give one of them another name')
    return name


def _built(data: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(data, list):
        return tuple(_built(item, known) for item in data)
    if not isinstance(data, dict):
        return data
    name = data.get("is", "")
    if name == "list":
        return [_built(item, known) for item in data["of"]]
    if name == "array":
        if data["dtype"] not in DTYPES:
            raise ValueError(f"it needs an array of {data['dtype']}")
        return np.asarray(data["of"], data["dtype"]).reshape(data["shape"])
    if name == "partial":
        settings = {key: _built(value, known) for key, value in data["settings"].items()}
        return partial(_built(data["of"], known), *_built(data["args"], known), **settings)
    settings = {key: _built(value, known) for key, value in data.items() if key != "is"}
    if name not in known:
        raise ValueError(f'it needs "{name}", which is not one of xpnet\'s: hand it in, custom=[…]')
    made = known[name]
    if not isinstance(made, type):
        return made
    layers = settings.pop("layers") if _takes_layers(made) else ()
    return made(*layers, **settings)
