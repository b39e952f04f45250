"""What a layer is: a function that returns its value and its pullback; and the door through which θ comes in."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from math import prod
from typing import Any, TypeAlias

from xpnet.arrays import Array, Vector, describe, is_floating, shape_of
from xpnet.backends import Backend, backend_of
from xpnet.backends import backend as find_backend
from xpnet.checks import precision
from xpnet.errors import ShapeError
from xpnet.layers.context import Context, Total
from xpnet.parameters import Parameter, Parts, Shape, Ties, Window, choose, draw, lay_out, tie

Params: TypeAlias = tuple[Array, ...]
Pullback: TypeAlias = Callable[..., tuple[Array | None, Params]]
"""`backward(dy, need_dx=True, out=(None, …)) -> (dx, gradients)`; it may write each gradient into its `out`."""


class Layer(ABC):
    """A function of parameters and input that returns its value and its pullback.

    A layer is an immutable description (a frozen dataclass) and holds no arrays. Every layer is a network too: it can
    be called on θ. A new layer needs `forward`, and, where they are not the defaults, `parameters` and `output_shape`.
    """

    def parameters(self) -> tuple[Parameter, ...]:
        """Return what the layer asks for, in the order in which it lies on θ."""
        return ()

    def buffers(self) -> tuple[Parameter, ...]:
        """Return what the layer carries from step to step without training it, such as running statistics."""
        return ()

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of the output for an input of this shape, batch axis included; ShapeError if it is wrong."""
        return shape

    @abstractmethod
    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return the value and the pullback, `backward(dy, need_dx=True, out=(None, …)) -> (dx, gradients)`."""

    @cached_property
    def layout(self) -> tuple[Window, ...]:
        """Where each parameter lies on θ."""
        return lay_out(self.parameters())

    @cached_property
    def ties(self) -> Ties | None:
        """Which window each parameter is; None where each has its own."""
        return tie(self.parameters())

    @property
    def takes_several(self) -> bool:
        """Whether x may be a tuple of inputs: `Parallel` gives each of its layers one."""
        return False

    def tokens(self, k: int | None = None) -> int:
        """Return how many different integers x holds, or input k of several: tokens 0, 1, …; 0 if it holds numbers."""
        return 0

    @property
    def size(self) -> int:
        """The length of θ."""
        return self.layout[-1].stop if self.layout else 0

    def init(self, seed: int = 0, backend: str | Backend | None = None, dtype: str = "float32") -> Array:
        """Return a new θ, one flat array; the same bits on every backend for the same seed.

        ValueError if `dtype` is not "float32" or "float64", or the seed no integer in 0..2⁶⁴−1.
        """
        return find_backend(backend).adopt(draw(self.layout, seed, precision("init", dtype)))

    def init_buffers(self, backend: str | Backend | None = None, dtype: str = "float32") -> dict[str, Array]:
        """Return what the network carries as it is before the first step, by path: `{"1.running_mean": …}`."""
        found, precise = find_backend(backend), precision("init_buffers", dtype)
        return {p.name: found.adopt(draw(lay_out((p,)), 0, precise).reshape(p.shape)) for p in self.buffers()}

    def decayed(self, flat: bool = True) -> Parts:
        """Return the parts of θ to which weight decay applies, the matrices: for a flat θ, or for its windows."""
        return choose(self.layout, lambda window: window.decayed, flat)

    def windows(self, theta: Vector) -> dict[str, Array]:
        """Return the parameters by path, `{"0.weight": …}`: views on θ, where the library has views."""
        if not isinstance(theta, tuple):
            theta = backend_of(theta).split(theta, self.layout)
        return {window.name: array for window, array in zip(self.layout, theta, strict=True)}

    def __call__(
        self,
        theta: Vector,
        x: Array,
        training: bool = False,
        *,
        key: int | Array | None = None,
        buffers: dict[str, Array] | None = None,
        watch: Callable[[str, Array], None] | None = None,
        backend: Backend | None = None,
        row: int | Array = 0,
        total: Total | None = None,
    ) -> tuple[Array, Callable[[Array], Vector]]:
        """Return f(θ, x) and the pullback, `backward(dy) -> dθ`, which can be called once.

        θ is one flat vector or the tuple of its windows, and dθ is of the same kind. x is an array (N, …), or a tuple
        of them for a network that begins with `Parallel` or `Masked`; integers are read as numbers of θ's precision,
        but for tokens, which `Embedding` reads. `training` turns dropout on, which needs a `key`: an integer, another
        one at each step; of a minibatch that is run in parts `row` tells where a part begins, so that dropout draws
        what it would for the whole. `buffers` is what the network carries, by path (`init_buffers`; of a model
        `model.buffers`): training puts new arrays into the dict, or forgets them if there is none; without training
        BatchNorm cannot do without. `total` gives sums over all processes that train together, if there are several.

        ShapeError or TypeError if θ or x does not fit; ValueError where dropout finds no key, or BatchNorm no buffers.
        """
        ties, several = self.ties, isinstance(theta, tuple)
        backend = backend or backend_of((*theta, x)[0] if several else theta)
        if buffers is not None and buffers.keys() != self._carried:
            raise ValueError(f"buffers must hold {_listed(self._carried)}, got {_listed(buffers)}")
        with backend.working():
            x = self._admit(theta, x, backend)
            params = theta if several else backend.split(theta, self.layout)
            params = params if ties is None else ties.given(params)
            carried = {} if buffers is None else buffers
            y, pullback = self.forward(params, x, Context(backend, training, key, carried, watch, row=row, total=total))
        tape = [pullback]

        def backward(dy: Array) -> Vector:
            if not tape:
                raise RuntimeError("this pullback was used already: call the network again for a new one")
            with backend.working():
                outs, finish = ((None,) * len(theta), tuple) if several else backend.join(theta, self.layout)
                wishes = outs if ties is None else ties.wishes(outs)
                gradients = tape.pop()(dy, False, wishes)[1]
                return finish(gradients if ties is None else ties.added(gradients))

        return y, backward

    def _admit(self, theta: Vector, x: Any, backend: Backend) -> Any:
        """Return x as the network reads it, or raise: one library and device, one precision, shapes that fit."""
        first = theta[0] if isinstance(theta, tuple) and theta else theta
        several = isinstance(x, tuple)
        for part in x if several else (x,):
            if not backend.owns(part):
                raise TypeError(f"theta is {describe(first)}, but x is {describe(part)}: pass backend.asarray(x)")
        shape = tuple(part.shape for part in x) if several else x.shape
        if shape not in self._shapes_seen:
            check_inputs(self, x)
            self.output_shape(shape_of(x))
            self._shapes_seen.add(shape)
        if not isinstance(theta, tuple) and theta.shape != (self.size,):
            raise ShapeError(f"theta must be a vector of {self.size} numbers, got shape {tuple(theta.shape)}")
        if isinstance(theta, tuple) and len(theta) != len(self.layout):
            raise ShapeError(f"theta must have {len(self.layout)} windows, got {len(theta)}")
        if not self.layout or (not several and x.dtype == first.dtype and not self._tokens):
            return x
        if not several:
            return _as_read(backend, x, first, self._tokens)
        return tuple(_as_read(backend, part, first, self.tokens(k)) for k, part in enumerate(x))

    @cached_property
    def _carried(self) -> frozenset[str]:
        return frozenset(p.name for p in self.buffers())

    @cached_property
    def _tokens(self) -> int:
        return self.tokens()

    @cached_property
    def _shapes_seen(self) -> set[Shape]:
        return set()

    def walk(self, shape: Shape) -> Iterator[tuple[str, "Layer", Shape]]:
        """Yield the path, the layer and the output shape of every leaf, for an input of this shape."""
        yield "", self, self.output_shape(shape)

    def work(self, input_shape: Sequence[Any]) -> int:
        """Return the multiply-adds that parameters do for a sample: each at every position (row, pixel) of an output.

        A network of linear layers has one for each parameter. The batch axis comes first and may be None.
        """
        return sum(leaf.size * prod(shape[1:-1]) for _, leaf, shape in self.walk(tuple(input_shape)))

    def widest(self, input_shape: Sequence[Any]) -> int:
        """Return how many numbers of a sample the largest output with positions has; 0 if all are rows (N, C)."""
        return max((prod(shape[1:]) for _, _, shape in self.walk(tuple(input_shape)) if len(shape) > 2), default=0)

    def shapes(self, input_shape: Sequence[Any]) -> dict[str, Shape]:
        """Return the output shape of every leaf by path; the batch axis comes first and may be None.

        `Sequential(Linear(4, 3), ReLU()).shapes((None, 4))` is `{"0": (None, 3), "1": (None, 3)}`.
        """
        return {path: shape for path, _, shape in self.walk(tuple(input_shape))}

    def summary(self, input_shape: Sequence[Any]) -> str:
        """Return a table of the leaves: path, layer, output shape, number of parameters."""
        rows = [("path", "layer", "output", "parameters")]
        for path, layer, shape in self.walk(tuple(input_shape)):
            output = ", ".join("N" if n is None else str(n) for n in shape)
            rows.append((path, str(layer), f"({output})", f"{layer.size:,}"))
        rows.append(("", "", "", f"{self.size:,}"))
        width = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [f"{a:{width[0]}}  {b:{width[1]}}  {c:{width[2]}}  {d:>{width[3]}}".rstrip() for a, b, c, d in rows]
        return "\n".join(lines)


def check_inputs(net: Layer, x: Any) -> None:
    """Raise ShapeError for a tuple of inputs to a network that reads one."""
    if isinstance(x, tuple) and not net.takes_several:
        raise ShapeError(
            f"the network reads one array, got {len(x)}: begin with Parallel(…), a layer for each, or Masked(…)"
        )


def by_rows(layer: Layer, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
    """Run a layer of rows (N, I) on x (…, I): all axes but the last count samples."""
    xp, shape = ctx.xp, x.shape
    y, pullback = layer.forward(params, xp.reshape(x, (-1, shape[-1])), ctx)

    def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Array | None, Params]:
        rows = xp.reshape(dy, (-1, dy.shape[-1]))
        dx, gradients = pullback(rows, need_dx, out) if out else pullback(rows, need_dx)
        return None if dx is None else xp.reshape(dx, shape), gradients

    return xp.reshape(y, (*shape[:-1], y.shape[-1])), backward


def _as_read(backend: Backend, x: Array, theta: Array, tokens: int) -> Array:
    """Return tokens as they are, else x in the precision of θ, integers read as numbers; TypeError for other types."""
    if tokens:
        if not backend.xp.isdtype(x.dtype, ("integral", "bool")):
            raise TypeError(f"expected tokens, integers in 0..{tokens - 1}, got {x.dtype}: cast them with astype")
        return backend.xp.astype(x, backend.xp.uint8) if x.dtype == backend.xp.bool else x
    if x.dtype == theta.dtype:
        return x
    if is_floating(backend.xp, x):
        raise TypeError(f"theta is {theta.dtype}, but x is {x.dtype}: make them the same precision")
    return backend.xp.astype(x, theta.dtype)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"
