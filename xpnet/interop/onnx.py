"""ONNX by running the same forward pass on ndonnx arrays, which write down each operation: `pip install xpnet[onnx]`.

    xn.export_onnx(model, "net.onnx", labels=["cat", "dog"])
    scores = onnxruntime.InferenceSession("net.onnx").run(None, {"input": x})[0]

There is no table of operators here: a layer that follows the array API standard can be exported, one of your own too.
The batch axis is free, dropout is off, and each parameter is a named initializer, `0.weight`, stored once; so are
running statistics, `1.running_mean`.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from importlib import import_module
from typing import Any

import numpy as np

from xpnet.arrays import Array, each, is_floating
from xpnet.backends import Backend
from xpnet.errors import ShapeError
from xpnet.files import storage
from xpnet.layers import Scale, Sequential, Standardize
from xpnet.layers.scan import Arrays, Step, scan
from xpnet.model import Model

INTEGERS = ["bool", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64))]
FLOATS = ["float16", "float32", "float64"]
"""Types that an input may have; tokens are integers."""


def export_onnx(
    model: Model,
    path: str | os.PathLike[str],
    *,
    input_shape: Sequence[int] | None = None,
    input_dtype: str | None = None,
    labels: Sequence[Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write the model's network as an ONNX file with one input, "input" (N, …), and one output, "output".

    `input_shape` is one sample's, (H, W, C) for images; left out, the features that the first weight takes. A
    convolution takes images of any size: there it must be given; and so for several inputs, a shape for each, which are
    called "input_0", "input_1", … Sequences have as many positions as this says, (T, D), or (T,) if they are tokens.
    `input_dtype` is the model's unless given: "uint8" for raw bytes, say, or "float64", which is rounded to the model's
    at once; that of tokens and masks is "int64", or the integers given. `labels` (the names of the classes, one for
    each output, or two for one output), the numbers of a Scale or Standardize at the network's front, and `metadata` of
    your own are in the file's metadata_props, as JSON. A recurrent layer is a Loop over the positions.

    NotImplementedError names a layer that ONNX cannot express.
    """
    ndx, onnx = _libraries()
    weights = model.net.windows(model.theta)
    host = {name: model.backend.asnumpy(array) for name, array in (weights | model.buffers).items()}
    sample: Any = _sample_shape(model) if input_shape is None else tuple(input_shape)
    several = any(isinstance(part, Sequence) for part in sample)
    samples = {f"input_{k}": tuple(one) for k, one in enumerate(sample)} if several else {"input": sample}
    free: Any = tuple((None, *one) for one in samples.values()) if several else (None, *sample)
    names = None if labels is None else _names(labels, model.net.output_shape(free))
    dtypes = _dtypes(model, len(samples) if several else None, input_dtype)
    given = {
        name: ndx.argument(shape=("N", *one), dtype=getattr(ndx, dtype))
        for (name, one), dtype in zip(samples.items(), dtypes, strict=True)
    }
    known = {name: ndx.argument(shape=array.shape, dtype=getattr(ndx, model.dtype)) for name, array in host.items()}
    y = _traced(model, known, tuple(given.values()) if several else given["input"], free, ndx)
    proto = ndx.build(given | known, {"output": y})
    _unguard(proto.graph)
    _settle(proto.graph, host, onnx)
    onnx.helper.set_model_props(proto, {key: json.dumps(value) for key, value in _about(model, names, metadata)})
    proto.producer_name = "xpnet"
    onnx.checker.check_model(proto, full_check=True)
    storage.write(path, [(0, proto.SerializeToString())])


def _dtypes(model: Model, inputs: int | None, asked: str | None) -> list[str]:
    """Return the type of each input, or of the one: tokens are integers; ValueError for what no input can be."""
    tokens = [model.net.tokens()] if inputs is None else [model.net.tokens(k) for k in range(inputs)]
    known = INTEGERS if all(tokens) else INTEGERS + FLOATS
    if asked is not None and asked not in known:
        raise ValueError(f"input_dtype must be one of {', '.join(known)}, got {asked!r}")
    whole = asked if asked in INTEGERS else "int64"
    return [whole if count else asked or model.dtype for count in tokens]


def _names(labels: Sequence[Any], shape: tuple[Any, ...]) -> list[Any]:
    """Return the names of the classes as plain values; ValueError unless there is one for each output."""
    names = [name.item() if isinstance(name, np.generic) else name for name in labels]
    outputs = shape[-1] if len(shape) > 1 else 1
    if len(names) != outputs and (len(names), outputs) != (2, 1):  # one score tells two classes apart
        raise ValueError(f"labels must name the network's {outputs} outputs, got {len(names)}: {names}")
    return names


def _libraries() -> tuple[Any, Any]:
    try:
        return import_module("ndonnx"), import_module("onnx")
    except ImportError as error:
        raise ImportError(f"exporting to ONNX needs {error.name}: pip install 'xpnet[onnx]'") from None


def _sample_shape(model: Model) -> tuple[int, ...]:
    """Return the shape of one sample, if the first weight tells."""
    if model.net.tokens():
        raise ShapeError(
            "tokens come in sequences of any length: pass input_shape=(T,), how many there are in a sample"
        )
    shape: tuple[int, ...] = next((window.shape[:1] for window in model.net.layout), ())
    try:
        model.net.output_shape((None, *shape))  # type: ignore[arg-type]
    except ShapeError:
        shape = ()
    if not shape:
        raise ShapeError(
            "no weight tells what one sample is: pass input_shape=, (H, W, C) of an image, (T, D) of a sequence"
        )
    return shape


class _Namespace:
    """ndonnx with a free axis: a shape that holds the None of an unknown batch is reshape's −1.

    What is made like an array has its shape, which ndonnx forgets: the layers after it ask for heights and widths.
    """

    def __init__(self, library: Any) -> None:
        self._library = library

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)

    def reshape(self, x: Array, shape: Sequence[int | None], **settings: Any) -> Array:
        """Reshape, at most one length unknown."""
        return self._library.reshape(x, tuple(-1 if n is None else n for n in shape), **settings)

    def take(self, x: Array, indices: Array, *, axis: int) -> Array:
        """Take, the indices of any integer type."""
        return self._library.take(x, self._library.astype(indices, self._library.int64), axis=axis)

    def zeros_like(self, x: Array) -> Array:
        """Zeros."""
        return self.reshape(self._library.zeros_like(x), x.shape)

    def full_like(self, x: Array, value: float) -> Array:
        """One value everywhere."""
        return self.reshape(self._library.full_like(x, value), x.shape)


class _Tracing(Backend):
    """The backend whose arrays are nodes of a graph."""

    def owns(self, array: Array) -> bool:
        """Whether this is one of them."""
        return type(array).__module__.partition(".")[0] == self.name

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """Return a @ b: one operation, without the branch for products of no rows that ndonnx puts around each."""
        return self.xp.asarray(_operations().matmul(a.unwrap_spox(), b.unwrap_spox()))

    def native(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return ONNX's own loop for that of the recurrent layers."""
        return _scan if function is scan else function


def _scan(backend: Backend, step: Step, carry: Arrays, fixed: Arrays, xs: Arrays, reverse: bool) -> tuple[Any, Any]:
    """carry, yₜ = step(carry, fixed, xₜ): the operation Loop, whose graph is that of one step."""
    xp, ops, count = backend.xp, _operations(), len(carry)

    def turned(arrays: Sequence[Array]) -> Sequence[Array]:
        return [xp.flip(array, axis=0) for array in arrays] if reverse else arrays

    every = [x.unwrap_spox() for x in turned(xs)]

    def body(t: Any, go_on: Any, *states: Any) -> list[Any]:
        number = ops.reshape(t, ops.const(np.asarray([], "int64")))
        x = tuple(xp.asarray(ops.gather(column, number, axis=0)) for column in every)
        new, ys = step(backend, tuple(map(xp.asarray, states)), fixed, x)
        return [go_on, *(array.unwrap_spox() for array in (*new, *ys))]

    start = [array.unwrap_spox() for array in carry]
    steps = xs[0].shape[0]
    made = [xp.asarray(var) for var in ops.loop(ops.const(np.asarray(steps, "int64")), v_initial=start, body=body)]
    ys = [xp.reshape(y, (steps, *y.shape[1:])) for y in made[count:]]  # how many steps there were is not known
    return tuple(made[:count]), tuple(turned(ys))


def _operations() -> Any:
    """Return ONNX's operations, as spox names them, on which ndonnx is built."""
    return import_module("spox.opset.ai.onnx.v21")


def _traced(model: Model, known: Mapping[str, Array], x: Any, shape: Any, ndx: Any) -> Array:
    """Return the output for an input yet to come; NotImplementedError names the layer that fails."""
    backend, done = _Tracing("ndonnx", _Namespace(ndx), None), set[str]()
    theta = tuple(known[window.name] for window in model.net.layout)
    buffers = {p.name: known[p.name] for p in model.net.buffers()}
    leaves = list(model.net.walk(shape))  # ShapeError if the input does not fit

    def settled(part: Array) -> Array:
        """As predict does it."""
        rounds = part.dtype != getattr(ndx, model.dtype) and is_floating(backend.xp, part)
        return ndx.astype(part, getattr(ndx, model.dtype)) if rounds else part

    x = each(settled, x)
    try:
        y, _ = model.net(theta, x, buffers=buffers, watch=lambda path, _: done.add(path), backend=backend)
    except Exception as error:
        path, layer = next(((p, leaf) for p, leaf, _ in leaves if p not in done), ("", model.net))
        place = f" at layer {path}" if path else ""
        raise NotImplementedError(f"{layer}{place} cannot be expressed in ONNX: {_first_line(error)}") from error
    return y


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def _about(model: Model, labels: list[Any] | None, metadata: Mapping[str, Any] | None) -> Iterator[tuple[str, Any]]:
    """Yield what the file says of itself."""
    layer = model.net
    while type(layer) is Sequential and layer.layers:
        layer = layer.layers[0]
    if isinstance(layer, (Scale, Standardize)):
        yield "input_scaling", {field.name: getattr(layer, field.name) for field in fields(layer)}
    if labels is not None:
        yield "labels", labels
    yield "network", str(model.net)
    yield from (metadata or {}).items()


def _settle(graph: Any, host: Mapping[str, np.ndarray], onnx: Any) -> None:
    """Turn the inputs that are the network's own into initializers; name the output's free axis like the input's."""
    taken = [value for value in graph.input if value.name not in host]
    del graph.input[:]
    graph.input.extend(taken)
    graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in host.items())
    graph.output[0].type.tensor_type.shape.dim[0].dim_param = "N"


def _unguard(graph: Any) -> None:
    """Put the plain operation for every `If` that only asks whether an array is empty, and drop what nobody reads.

    ndonnx guards products and maxima so, for the sake of 0-sized ones; not every runtime takes control flow, and all
    compute a product of no rows rightly.
    """
    made = {output: node for node in graph.node for output in node.output}

    def is_size(name: str) -> bool:
        node = made.get(name)
        return node is not None and (
            node.op_type == "Size" or (node.op_type == "Mul" and all(map(is_size, node.input)))
        )

    nodes = []
    for node in graph.node:
        test = made.get(node.input[0]) if node.op_type == "If" else None
        if test is None or test.op_type != "Equal" or not is_size(test.input[0]):
            nodes.append(node)
            continue
        branch = next(attribute.g for attribute in node.attribute if attribute.name == "else_branch")
        names = {inner.name: outer for inner, outer in zip(branch.output, node.output, strict=True)}
        for inner in branch.node:
            inner.output[:] = [names.get(name, name) for name in inner.output]
            nodes.append(inner)
    del graph.node[:]
    graph.node.extend(nodes)
    _drop_unread(graph)


def _drop_unread(graph: Any) -> None:
    """Leave out the operations whose results nobody reads, and what a Loop collects for nobody."""
    read, kept = {value.name for value in graph.output}, []
    for node in reversed(graph.node):
        if not read & set(node.output):
            continue
        if node.op_type == "Loop":
            body, states = node.attribute[0].g, len(node.input) - 2  # which come after the number of steps and a test
            for k in reversed(range(states, len(node.output))):
                if node.output[k] not in read:
                    del node.output[k], body.output[k + 1]
            _drop_unread(body)
        read |= set(node.input) | _read_inside(node)
        kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))


def _read_inside(node: Any) -> set[str]:
    """Return the names that a node's own graphs read."""
    inner = [n for attribute in node.attribute for n in attribute.g.node]
    return {name for n in inner for name in n.input} | {name for n in inner for name in _read_inside(n)}
