"""PyTorch's weights, without PyTorch: safetensors files with the names and layouts of `torch.nn.Sequential`.

    save_weights(model, "net.safetensors")    # for module.load_state_dict(safetensors.torch.load_file(…))
    load_weights(model, "net.safetensors")    # what safetensors.torch.save_file(module.state_dict(), …) wrote

Names are the same on both sides, `0.weight`, `0.bias`, `2.weight`, …; of the layouts `Linear`'s differs: its weight is
(I, O) here and (O, I) there. `to_torch` and `from_torch` are the same for host arrays in memory.

Files need the safetensors library: `pip install xpnet[safetensors]`.
"""

import os
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from xpnet import CheckpointError, Layer, Linear, Model, Sequential
from xpnet.arrays import Vector
from xpnet.backends import backend_of
from xpnet.parameters import Shape

PATH = str | os.PathLike[str]


def to_torch(net: Layer, theta: Vector) -> dict[str, np.ndarray]:
    """Return θ as host arrays, by PyTorch's names and in PyTorch's layouts."""
    turned = set(_linear_weights(net))
    arrays = {name: backend_of(window).asnumpy(window) for name, window in net.windows(theta).items()}
    return {name: np.array(array.T if name in turned else array, order="C") for name, array in arrays.items()}


def from_torch(net: Layer, arrays: Mapping[str, Any]) -> np.ndarray:
    """Return θ, a float64 host vector, of arrays by PyTorch's names; CheckpointError lists all that does not fit."""
    turned = set(_linear_weights(net))
    expected = {w.name: w.shape[::-1] if w.name in turned else w.shape for w in net.layout}
    problems = list(_differences(expected, {name: tuple(array.shape) for name, array in arrays.items()}))
    if problems:
        raise CheckpointError(f"these weights are not the network's: {'; '.join(problems)}")
    theta = np.empty(net.size)
    for window in net.layout:
        array = np.asarray(arrays[window.name])
        theta[window.start : window.stop] = (array.T if window.name in turned else array).reshape(-1)
    return theta


def save_weights(model: Model, path: PATH) -> None:
    """Write the model's weights to a safetensors file, as the state_dict of the same `torch.nn.Sequential`."""
    content = _safetensors().save(to_torch(model.net, model.theta))
    try:
        Path(path).write_bytes(content)
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from None


def load_weights(model: Model, path: PATH) -> None:
    """Put the weights of a safetensors file into the model; CheckpointError lists all that does not fit."""
    library = _safetensors()
    try:
        arrays = library.load_file(path)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from None
    except Exception as error:  # the library's own error for a damaged file, and others for types NumPy has not
        raise CheckpointError(f"{path} is not a safetensors file that NumPy can read: {error}") from None
    model.theta = model.backend.asarray(from_torch(model.net, arrays), dtype=model.dtype)


def _linear_weights(net: Layer, prefix: str = "") -> Iterator[str]:
    """Yield the names of the weights that PyTorch keeps the other way round."""
    if isinstance(net, Linear):
        yield f"{prefix}weight"
    elif isinstance(net, Sequential):
        for k, layer in enumerate(net.layers):
            yield from _linear_weights(layer, f"{prefix}{k}.")


def _differences(expected: Mapping[str, Shape], came: Mapping[str, Shape]) -> Iterator[str]:
    for name, shape in expected.items():
        if name not in came:
            yield f'"{name}" {shape} is missing'
        elif came[name] != shape:
            yield f'"{name}" must be {shape}, got {came[name]}'
    for name in came:
        if name not in expected:
            yield f'"{name}" {came[name]} is not in the network'


def _safetensors() -> Any:
    try:
        return import_module("safetensors.numpy")
    except ImportError:
        raise ImportError("weights for PyTorch need safetensors: pip install 'xpnet[safetensors]'") from None
