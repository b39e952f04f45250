"""PyTorch's weights, without PyTorch: safetensors files with the names and layouts of `torch.nn.Sequential`.

    save_weights(model, "net.safetensors")    # for module.load_state_dict(safetensors.torch.load_file(…))
    load_weights(model, "net.safetensors")    # what safetensors.torch.save_file(module.state_dict(), …) wrote

Names are the same on both sides, `0.weight`, `0.bias`, `2.weight`, …; of the layouts `Linear`'s differs: its weight is
(I, O) here and (O, I) there. `to_torch` and `from_torch` are the same for host arrays in memory.

Neither PyTorch nor the safetensors library is needed here.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from xpnet.arrays import Vector
from xpnet.backends import backend_of
from xpnet.errors import CheckpointError
from xpnet.files import storage
from xpnet.layers import Layer
from xpnet.model import Model
from xpnet.parameters import Shape

PATH = str | os.PathLike[str]


def to_torch(net: Layer, theta: Vector) -> dict[str, np.ndarray]:
    """Return θ as host arrays, by PyTorch's names and in PyTorch's layouts."""
    _check_layouts(net)
    arrays = {name: backend_of(window).asnumpy(window) for name, window in net.windows(theta).items()}
    turned = {w.name: w.parameter.axes or tuple(range(len(w.shape))) for w in net.layout}
    return {name: np.array(array.transpose(turned[name]), order="C") for name, array in arrays.items()}


def from_torch(net: Layer, arrays: Mapping[str, Any], dtype: str = "float64") -> np.ndarray:
    """Return θ, a host vector, of arrays by PyTorch's names; CheckpointError lists all that does not fit."""
    _check_layouts(net)
    expected = {w.name: _there(w.shape, w.parameter.axes) for w in net.layout}
    problems = list(_problems(expected, arrays, dtype))
    if problems:
        raise CheckpointError(f"these weights are not the network's: {'; '.join(problems)}")
    theta = np.empty(net.size, dtype)
    for window in net.layout:
        array, axes = np.asarray(arrays[window.name]), window.parameter.axes
        theta[window.start : window.stop] = (array.transpose(np.argsort(axes)) if axes else array).reshape(-1)
    return theta


def save_weights(model: Model, path: PATH) -> None:
    """Write the model's weights to a safetensors file, as the state_dict of the same `torch.nn.Sequential`."""
    storage.write(path, storage.plain(to_torch(model.net, model.theta)))


def load_weights(model: Model, path: PATH) -> None:
    """Put the weights of a safetensors file into the model; CheckpointError lists all that does not fit."""
    try:
        arrays = storage.tensors(path)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not a safetensors file of weights: {error}") from None
    model.theta = model.backend.asarray(from_torch(model.net, arrays, model.dtype), dtype=model.dtype)


def _there(shape: Shape, axes: tuple[int, ...]) -> Shape:
    return tuple(shape[axis] for axis in axes) if axes else shape


def _check_layouts(net: Layer) -> None:
    """Raise CheckpointError if a container names its layers' parameters in such a way that their layout is lost."""
    held = {id(layer): layer for layer in _held(net)}.values()
    marked = Counter(p.shape for layer in held for p in layer.parameters() if p.axes)
    if marked - Counter(p.shape for p in net.parameters() if p.axes):
        raise CheckpointError(
            f"which parameters of {type(net).__name__} are weights of its Linear layers cannot be known: "
            "let its parameters() return layer.parameters()'s own, renamed by parameter.named(prefix)"
        )
    for layer in held:
        _check_layouts(layer)


def _held(layer: Any) -> Iterator[Layer]:
    """Yield the layers that are a layer's fields, or in them."""
    values = [getattr(layer, field.name) for field in fields(layer)] if is_dataclass(layer) else []
    for value in values:
        inside = value if isinstance(value, (tuple, list)) else [value]
        yield from (item for item in inside if isinstance(item, Layer))


def _problems(expected: Mapping[str, Shape], arrays: Mapping[str, Any], dtype: str) -> Iterator[str]:
    for name, shape in expected.items():
        if name not in arrays:
            yield f'"{name}" {shape} is missing'
        elif np.shape(arrays[name]) != shape:
            yield f'"{name}" must be {shape}, got {np.shape(arrays[name])}'
        elif problem := _problem(arrays[name], dtype):
            yield f'"{name}" {problem}'
    for name in arrays:
        if name not in expected:
            yield f'"{name}" {np.shape(arrays[name])} is not in the network'


def _problem(array: Any, dtype: str) -> str:
    """Say why an array cannot be a weight of this precision, if it cannot; or nothing."""
    if isinstance(array, np.ma.MaskedArray):
        return "has a mask: fill it"
    try:
        array = np.asarray(array)
    except (RuntimeError, TypeError, ValueError) as error:
        return f"is no host array: {str(error).partition(chr(10))[0]}"
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        return f"is {array.dtype}, must be floating-point"
    with np.errstate(all="ignore"):
        ends = np.asarray([array.min(initial=0), array.max(initial=0)], np.float64)
        if not np.isfinite(ends).all():
            return "holds NaN or infinity"
        if not np.isfinite(ends.astype(dtype)).all():
            return f"holds {max(ends, key=abs)}, more than {dtype} can"
    return ""
