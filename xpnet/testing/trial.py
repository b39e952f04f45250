"""A layer with arrays to try it on: how every check draws them, runs forward, and asks the pullback."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import index
from typing import Any, TypeAlias

import numpy as np

from xpnet.arrays import Array, inputs
from xpnet.backends import Backend
from xpnet.layers import Context, Layer
from xpnet.layers.base import Params
from xpnet.parameters import draw
from xpnet.random import generator

Pull: TypeAlias = Callable[..., tuple[Array, ...]]
"""`pull(dy, need_dx=True, out=None) -> (dx, *gradients)`."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A layer, where and how it runs, and arrays: θ flat and in windows, x, a dy of the output's shape, buffers.

    x is an array, or a tuple of several inputs; inputs that are tokens have no gradient and stay as they are. A layer
    of `Shared` ones is given each window as often as it needs it. `output` and `gradients` are compiled, where the
    library compiles; `forward` is not.
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
        ties, windows, own = self.layer.ties, arrays[self.moving :], iter(arrays)
        xs = tuple(x if tokens else next(own) for x, tokens in zip(inputs(self.x), self.tokens, strict=True))
        x = xs if isinstance(self.x, tuple) else xs[0]
        params = ties.given(windows) if ties else windows
        buffers = dict(self.buffers) if buffers is None else buffers
        y, pullback = self.layer.forward(params, x, Context(self.backend, self.training, self.key, buffers))

        def pull(dy: Array, need_dx: bool = True, out: Sequence[Any] | None = None) -> tuple[Array, ...]:
            outs = (None,) * len(windows) if out is None else tuple(out)
            dx, gradients = pullback(dy, need_dx, ties.wishes(outs) if ties else outs)
            dxs = (None,) * len(xs) if dx is None else inputs(dx)
            moved = (dx for dx, tokens in zip(dxs, self.tokens, strict=True) if not tokens)
            return *moved, *(ties.added(gradients) if ties else gradients)

        return y, pull

    def output(self) -> Array:
        """Return the value."""
        return self._value(*self.arguments().values())

    def gradients(self, dy: Array, need_dx: bool = True, out: Sequence[Any] | None = None) -> tuple[Array, ...]:
        """Return dx, one for each input of numbers, and the windows' gradients."""
        pull = self._pull if need_dx else self._pull_params
        return pull(dy, out, *self.arguments().values())

    @cached_property
    def _value(self) -> Callable[..., Array]:
        return self.backend.jit(lambda *arrays: self.forward(*arrays)[0])

    @cached_property
    def _pull(self) -> Callable[..., tuple[Array, ...]]:
        return self.backend.jit(lambda dy, out, *arrays: self.forward(*arrays)[1](dy, True, out))

    @cached_property
    def _pull_params(self) -> Callable[..., tuple[Array, ...]]:
        return self.backend.jit(lambda dy, out, *arrays: self.forward(*arrays)[1](dy, False, out))

    @property
    def tokens(self) -> tuple[int, ...]:
        """How many different tokens each input holds; 0 for numbers."""
        return tokens_of(self.layer, isinstance(self.x, tuple), len(inputs(self.x)))

    @property
    def moving(self) -> int:
        """How many inputs hold numbers, and so have a gradient."""
        return self.tokens.count(0)

    def arguments(self) -> dict[str, Array]:
        """Return the inputs that hold numbers and the windows, by name."""
        several = isinstance(self.x, tuple)
        pairs = enumerate(zip(inputs(self.x), self.tokens, strict=True))
        named = {f"input[{k}]" if several else "input": x for k, (x, tokens) in pairs if not tokens}
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
    xs = [
        backend.asarray(
            rng.integers(tokens, size=size) if tokens else rng.normal(size=size), "int32" if tokens else dtype
        )
        for size, tokens in zip(shapes, tokens_of(layer, several, len(shapes)), strict=True)
    ]
    dy = backend.asarray(rng.normal(size=output), dtype=dtype)
    params = backend.split(theta, layer.layout)
    if buffers is None:
        buffers = {p.name: p.init(rng, p.shape) + rng.uniform(0.0, 0.5, p.shape) for p in layer.buffers()}
    kept = {path: _buffer(backend, value, dtype) for path, value in buffers.items()}
    return Trial(layer, backend, training, key, theta, params, tuple(xs) if several else xs[0], dy, kept)


def tokens_of(layer: Layer, several: bool, count: int) -> tuple[int, ...]:
    """Return how many different tokens each input of a layer holds; 0 for numbers."""
    return tuple(layer.tokens(k) for k in range(count)) if several else (layer.tokens(),)


def _buffer(backend: Backend, value: Any, dtype: str) -> Array:
    host = np.asarray(backend.asnumpy(value) if backend.owns(value) else value)
    return backend.asarray(host, dtype=dtype if host.dtype.kind == "f" else None, copy=True)
