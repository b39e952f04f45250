"""PyTorch's weights, without PyTorch: safetensors files with the names and layouts of `torch.nn.Sequential`.

    save_weights(model, "net.safetensors")    # for module.load_state_dict(safetensors.torch.load_file(…))
    load_weights(model, "net.safetensors")    # what safetensors.torch.save_file(module.state_dict(), …) wrote

Names are the same on both sides, `0.weight`, `0.bias`, `1.running_mean`, …; layouts differ, and are turned. The weight
of a Linear is (I, O) here and (O, I) there, that of a convolution (K, L, I/G, O) and (O, I/G, K, L); where images are
flattened, features come in the order (H, W, C) here and (C, H, W) there. `to_torch` and `from_torch` are the same for
host arrays in memory.

Neither PyTorch nor the safetensors library is needed here.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from xpnet.arrays import Vector
from xpnet.backends import backend_of
from xpnet.errors import CheckpointError
from xpnet.files import storage
from xpnet.interop.flattened import held, interleaved
from xpnet.layers import Layer
from xpnet.model import Model
from xpnet.parameters import Parameter, Shape

PATH = str | os.PathLike[str]


def to_torch(net: Layer, theta: Vector, buffers: Mapping[str, Any] | None = None) -> dict[str, np.ndarray]:
    """Return θ, and what the network carries, as host arrays, by PyTorch's names and in PyTorch's layouts.

    `buffers` are the running statistics (of a model `model.buffers`): a network that has some cannot do without. What
    reads flattened images, a Linear after Flatten, gets its features in PyTorch's order (C, H, W). CheckpointError
    where that cannot be known, or for other buffers than the network's.
    """
    _check_layouts(net)
    carried = {p.name: p for p in net.buffers()}
    if (buffers or {}).keys() != carried.keys():
        raise CheckpointError(f"the network carries {_quoted(carried)}, got {_quoted(buffers or {})}: pass buffers=")
    order = interleaved(net)
    held_here = {**net.windows(theta), **(buffers or {})}
    arrays = {}
    for p, name in _places(net):
        array = backend_of(held_here[name]).asnumpy(held_here[name])
        array = np.take(array, _theirs(p, order[name]), axis=0) if name in order else array
        arrays[p.name] = np.array(array.transpose(p.axes) if p.axes else array, order="C")
    return arrays


def from_torch(
    net: Layer, arrays: Mapping[str, Any], dtype: str = "float64", buffers: dict[str, Any] | None = None
) -> np.ndarray:
    """Return θ, a host vector, of arrays by PyTorch's names; CheckpointError lists all that does not fit.

    What the network carries, running statistics, is put into `buffers`, a dict, as host arrays by path; a network that
    has some cannot do without. PyTorch's `num_batches_tracked` beside them is left out. What reads flattened images, a
    Linear after Flatten, gets its features in the order (H, W, C).
    """
    _check_layouts(net)
    carried = {p.name for p in net.buffers()}
    if carried and buffers is None:
        raise CheckpointError(
            f"the network carries {_quoted(carried)}: pass buffers={{}}, a dict that they are put into"
        )
    order = interleaved(net)
    arrays = {name: array for name, array in arrays.items() if not _counts_batches(name, carried)}
    problems = list(_problems(_places(net), arrays, dtype))
    if problems:
        raise CheckpointError(f"these weights are not the network's: {'; '.join(problems)}")
    known = {}
    for p, name in _places(net):
        array = np.asarray(arrays[p.name]).transpose(np.argsort(p.axes)) if p.axes else np.asarray(arrays[p.name])
        known[name] = np.take(array, np.argsort(_theirs(p, order[name])), axis=0) if name in order else array
    theta = np.empty(net.size, dtype)
    for window in net.layout:
        theta[window.place] = known[window.name].reshape(-1)
    if buffers is not None:
        buffers.update({name: np.array(known[name], dtype) for name in carried})
    return theta


def save_weights(model: Model, path: PATH) -> None:
    """Write the model's weights and running statistics to a safetensors file.

    It is the state_dict of the same `torch.nn.Sequential`.
    """
    with model.holder:
        arrays = to_torch(model.net, model.theta, model.buffers)
    storage.write(path, storage.plain(arrays))


def load_weights(model: Model, path: PATH) -> None:
    """Put the weights and running statistics of a safetensors file into the model.

    CheckpointError lists all that does not fit; the model is then as it was.
    """
    try:
        arrays = storage.tensors(path)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not a safetensors file of weights: {error}") from None
    buffers: dict[str, Any] = {}
    theta = from_torch(model.net, arrays, model.dtype, buffers)
    with model.holder:
        model.theta = model.backend.asarray(theta, dtype=model.dtype)
        model.buffers = {name: model.backend.asarray(array, dtype=model.dtype) for name, array in buffers.items()}


def _places(net: Layer) -> list[tuple[Parameter, str]]:
    """Return each parameter and buffer, and the name under which its numbers lie here: of shared ones the first."""
    first: dict[str, str] = {}
    own = [(p, first.setdefault(p.shared, p.name) if p.shared else p.name) for p in net.parameters()]
    return own + [(p, p.name) for p in net.buffers()]


def _theirs(p: Parameter, channels: int) -> np.ndarray:
    """Return where PyTorch's features lie here: there a channel's pixels stand together, here a pixel's channels."""
    return np.arange(p.shape[0]).reshape(-1, channels).T.reshape(-1)


def _counts_batches(name: str, carried: Collection[str]) -> bool:
    path, _, own = name.rpartition("num_batches_tracked")
    return not own and f"{path}running_mean" in carried


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in sorted(names)) or "nothing"


def _there(p: Parameter) -> Shape:
    return tuple(p.shape[axis] for axis in p.axes) if p.axes else p.shape


def _check_layouts(net: Layer) -> None:
    """Raise CheckpointError if a container names its layers' parameters in such a way that their layout is lost."""
    parts = {id(layer): layer for layer in held(net)}.values()
    marked = Counter(p.shape for layer in parts for p in layer.parameters() if p.axes)
    if marked - Counter(p.shape for p in net.parameters() if p.axes):
        raise CheckpointError(
            f"which parameters of {type(net).__name__} are weights of its Linear layers cannot be known: "
            "let its parameters() return layer.parameters()'s own, renamed by parameter.named(prefix)"
        )
    for layer in parts:
        _check_layouts(layer)


def _problems(places: Sequence[tuple[Parameter, str]], arrays: Mapping[str, Any], dtype: str) -> Iterator[str]:
    for p, first in places:
        name, shape = p.name, _there(p)
        if name not in arrays:
            yield f'"{name}" {shape} is missing'
        elif np.shape(arrays[name]) != shape:
            yield f'"{name}" must be {shape}, got {np.shape(arrays[name])}'
        elif problem := _problem(arrays[name], dtype):
            yield f'"{name}" {problem}'
        elif name != first and first in arrays and not np.array_equal(arrays[name], arrays[first]):
            yield f'"{name}" must be "{first}", with which it is shared'
    expected = {p.name for p, _ in places}
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
