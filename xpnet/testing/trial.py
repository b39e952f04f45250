"""A layer with arrays to try it on: how every check draws them, runs forward, and asks the pullback."""

from collections.abc import Callable, Mapping, Sequence
from operator import index
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from xpnet.arrays import Array
from xpnet.backends import Backend
from xpnet.layers import Context, Layer
from xpnet.layers.base import Params
from xpnet.parameters import draw, split
from xpnet.random import generator

Pull: TypeAlias = Callable[..., tuple[Array, ...]]
"""`pull(dy, need_dx=True, out=None) -> (dx, *gradients)`."""


class Trial(NamedTuple):
    """A layer, where and how it runs, and arrays: θ flat and in windows, x, a dy of the output's shape, buffers."""

    layer: Layer
    backend: Backend
    training: bool
    key: int
    theta: Array
    params: Params
    x: Array
    dy: Array
    buffers: dict[str, Array]

    def forward(self, x: Array, *params: Array, buffers: dict[str, Array] | None = None) -> tuple[Array, Pull]:
        """Return the value and the pullback; the buffers that forward rebinds are its own unless they are given."""
        buffers = dict(self.buffers) if buffers is None else buffers
        y, pullback = self.layer.forward(params, x, Context(self.backend, self.training, self.key, buffers))

        def pull(dy: Array, need_dx: bool = True, out: Sequence[Any] | None = None) -> tuple[Array, ...]:
            dx, gradients = pullback(dy, need_dx, (None,) * len(params) if out is None else out)
            return dx, *gradients

        return y, pull

    def output(self) -> Array:
        """Return the value."""
        return self.forward(self.x, *self.params)[0]

    def gradients(self, dy: Array, need_dx: bool = True, out: Sequence[Any] | None = None) -> tuple[Array, ...]:
        """Return dx and the parameters' gradients."""
        return self.forward(self.x, *self.params)[1](dy, need_dx, out)

    def arguments(self) -> dict[str, Array]:
        """Return x and the parameters by name."""
        return {"input": self.x} | {w.name: p for w, p in zip(self.layer.layout, self.params, strict=True)}


def draw_trial(
    layer: Layer,
    shape: Sequence[int],
    backend: Backend,
    dtype: str,
    *,
    seed: int = 0,
    training: bool = False,
    key: int = 0,
    buffers: Mapping[str, Any] | None = None,
) -> Trial:
    """Return a trial: x and dy from N(0, 1), θ a little off its first values, so that no bias is zero.

    Buffers come as host arrays or this backend's, and those of real numbers get this precision.
    """
    shape, rng = tuple(map(index, shape)), generator(seed, "gradcheck")
    output = layer.output_shape(shape)
    theta = backend.asarray(draw(layer.layout, seed) + rng.normal(0.0, 0.1, layer.size), dtype=dtype)
    x, dy = (backend.asarray(rng.normal(size=size), dtype=dtype) for size in (shape, output))
    params = split(backend.xp, theta, layer.layout)
    kept = {path: _buffer(backend, value, dtype) for path, value in (buffers or {}).items()}
    return Trial(layer, backend, training, key, theta, params, x, dy, kept)


def _buffer(backend: Backend, value: Any, dtype: str) -> Array:
    host = np.asarray(backend.asnumpy(value) if backend.owns(value) else value)
    return backend.asarray(host, dtype=dtype if host.dtype.kind == "f" else None, copy=True)
