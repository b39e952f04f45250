"""A layer with arrays to try it on: how every check draws them, runs forward, and asks the pullback."""

from collections.abc import Callable, Mapping, Sequence
from operator import index
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from xpnet.arrays import Array, inputs
from xpnet.backends import Backend
from xpnet.layers import Context, Layer
from xpnet.layers.base import Params
from xpnet.parameters import draw, split
from xpnet.random import generator

Pull: TypeAlias = Callable[..., tuple[Array, ...]]
"""`pull(dy, need_dx=True, out=None) -> (dx, *gradients)`."""


class Trial(NamedTuple):
    """A layer, where and how it runs, and arrays: θ flat and in windows, x, a dy of the output's shape, buffers.

    x is an array, or a tuple of several inputs; a layer of `Shared` ones is given each window as often as it needs it.
    """

    layer: Layer
    backend: Backend
    training: bool
    key: int
    theta: Array
    params: Params
    x: Any
    dy: Array
    buffers: dict[str, Array]

    def forward(self, *arrays: Array, buffers: dict[str, Array] | None = None) -> tuple[Array, Pull]:
        """Return the value for inputs and windows, and the pullback; buffers that are not given are its own."""
        count, ties = len(inputs(self.x)), self.layer.ties
        x = arrays[:count] if isinstance(self.x, tuple) else arrays[0]
        windows = arrays[count:]
        params = ties.given(windows) if ties else windows
        buffers = dict(self.buffers) if buffers is None else buffers
        y, pullback = self.layer.forward(params, x, Context(self.backend, self.training, self.key, buffers))

        def pull(dy: Array, need_dx: bool = True, out: Sequence[Any] | None = None) -> tuple[Array, ...]:
            outs = (None,) * len(windows) if out is None else tuple(out)
            dx, gradients = pullback(dy, need_dx, ties.wishes(outs) if ties else outs)
            dxs = (None,) * count if dx is None else inputs(dx)
            return *dxs, *(ties.added(gradients) if ties else gradients)

        return y, pull

    def output(self) -> Array:
        """Return the value."""
        return self.forward(*self.arguments().values())[0]

    def gradients(self, dy: Array, need_dx: bool = True, out: Sequence[Any] | None = None) -> tuple[Array, ...]:
        """Return dx, one for each input, and the windows' gradients."""
        return self.forward(*self.arguments().values())[1](dy, need_dx, out)

    def arguments(self) -> dict[str, Array]:
        """Return the inputs and the windows by name."""
        several = isinstance(self.x, tuple)
        named = {f"input[{k}]" if several else "input": x for k, x in enumerate(inputs(self.x))}
        return named | {w.name: p for w, p in zip(self.layer.layout, self.params, strict=True)}


def draw_trial(
    layer: Layer,
    shape: Sequence[Any],
    backend: Backend,
    dtype: str,
    *,
    seed: int = 0,
    training: bool = False,
    key: int = 0,
    buffers: Mapping[str, Any] | None = None,
) -> Trial:
    """Return a trial: x and dy from N(0, 1), θ a little off its first values, so that no bias is zero.

    Buffers come as host arrays or this backend's, and those of real numbers get this precision; left out they are a
    little above their first values.
    """
    several = isinstance(shape[0], Sequence)
    shapes = [tuple(map(index, one)) for one in (shape if several else [shape])]
    rng = generator(seed, "gradcheck")
    output = layer.output_shape(tuple(shapes) if several else shapes[0])  # type: ignore[arg-type]
    theta = backend.asarray(draw(layer.layout, seed) + rng.normal(0.0, 0.1, layer.size), dtype=dtype)
    *xs, dy = (backend.asarray(rng.normal(size=size), dtype=dtype) for size in (*shapes, output))
    params = split(backend.xp, theta, layer.layout)
    if buffers is None:
        buffers = {p.name: p.init(rng, p.shape) + rng.uniform(0.0, 0.5, p.shape) for p in layer.buffers()}
    kept = {path: _buffer(backend, value, dtype) for path, value in buffers.items()}
    return Trial(layer, backend, training, key, theta, params, tuple(xs) if several else xs[0], dy, kept)


def _buffer(backend: Backend, value: Any, dtype: str) -> Array:
    host = np.asarray(backend.asnumpy(value) if backend.owns(value) else value)
    return backend.asarray(host, dtype=dtype if host.dtype.kind == "f" else None, copy=True)
