"""PyTorch's weights, without PyTorch: safetensors files with the names and layouts of `torch.nn.Sequential`.

    save_weights(model, "net.safetensors")     # then load_state_dict(safetensors.torch.load_file("net.safetensors"))
    load_weights(model, "net.safetensors")     # what safetensors.torch.save_file(net.state_dict(), …) wrote

Names are the same on both sides, `0.weight`, `0.bias`, `2.weight`, …; only `Linear` differs: its weight is (I, O) here
and (O, I) there. `to_torch` and `from_torch` do the same with host arrays. `pip install xpnet[safetensors]` for files.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from xpnet import Backend, CheckpointError, Layer, Linear, Model, Sequential, backend
from xpnet.arrays import Array, Vector
from xpnet.backends import backend_of

PATH = str | os.PathLike[str]


def to_torch(net: Layer, theta: Vector) -> dict[str, np.ndarray]:
    """Return θ as host arrays by PyTorch's names, in PyTorch's layouts."""
    turned, windows = set(_turned(net)), net.windows(theta)
    home = {name: backend_of(window).asnumpy(window) for name, window in windows.items()}
    return {name: np.ascontiguousarray(array.T if name in turned else array) for name, array in home.items()}


def from_torch(net: Layer, arrays: Mapping[str, Any], backend_name: str | Backend | None = None) -> Array:
    """Return θ, float32, of arrays by PyTorch's names, in PyTorch's layouts; CheckpointError lists all that differs."""
    turned = set(_turned(net))
    expected = {w.name: w.shape[::-1] if w.name in turned else w.shape for w in net.layout}
    _compare(expected, {name: tuple(array.shape) for name, array in arrays.items()})
    theta = np.empty(net.size, np.float64)
    for window in net.layout:
        array = np.asarray(arrays[window.name], dtype=np.float64)
        theta[window.start : window.stop] = (array.T if window.name in turned else array).reshape(-1)
    return backend(backend_name).asarray(theta, dtype="float32")
