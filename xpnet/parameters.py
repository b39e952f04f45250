"""How the layers' parameters lie on θ: names, shapes, offsets, and the values they start from.

All parameters of a network live in one flat array θ. A `Parameter` is what a layer asks for, a `Window` is where it
lies on θ, and `split` gives the windows as arrays.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from xpnet import random
from xpnet.arrays import Array, Namespace, Vector
from xpnet.checks import integer, number, settle
from xpnet.errors import ShapeError

Shape: TypeAlias = tuple[int, ...]
Initializer: TypeAlias = Callable[[np.random.Generator, Shape], np.ndarray]
"""`initializer(rng, shape) -> float64 host array`, for a weight of shape (fan_in, fan_out), or (K, L, I/G, O)."""


def fans(shape: Shape) -> tuple[int, int]:
    """Return how many inputs each output has, and how many outputs each input: a kernel's taps count as either."""
    if len(shape) < 2:
        return max(*shape, 1), max(*shape, 1)
    return max(math.prod(shape[:-1]), 1), max(math.prod(shape[:-2]) * shape[-1], 1)


def normal(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """N(0, 1/√fan_in): outputs as large as inputs, the lesson's choice (LeCun et al., "Efficient BackProp", 1998)."""
    return rng.normal(0.0, 1.0 / math.sqrt(fans(shape)[0]), shape)


def glorot(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """U(−a, a) with a = √(6 / (fan_in + fan_out)), for tanh and sigmoid (Glorot & Bengio, AISTATS 2010, eq. 16)."""
    bound = math.sqrt(6.0 / sum(fans(shape)))
    return rng.uniform(-bound, bound, shape)


def he(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """N(0, √(2/fan_in)), for ReLU, which loses half the signal (He et al., ICCV 2015, eq. 10)."""
    return rng.normal(0.0, math.sqrt(2.0 / fans(shape)[0]), shape)


def zeros(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """All zeros: for biases, and for a single layer, whose loss is convex."""
    return np.zeros(shape)


def ones(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """All ones: for factors, which change nothing at first."""
    return np.ones(shape)


@dataclass(frozen=True)
class Constant:
    """An initializer: one value everywhere."""

    value: float

    def __call__(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        return np.full(shape, self.value)


@dataclass(frozen=True)
class Normal:
    """An initializer: N(0, scale)."""

    scale: float

    def __post_init__(self) -> None:
        settle(self, scale=number("Normal", "scale", self.scale, least=0))

    def __call__(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        return rng.normal(0.0, self.scale, shape)


@dataclass(frozen=True)
class Uniform:
    """An initializer: U(−bound, bound)."""

    bound: float

    def __post_init__(self) -> None:
        settle(self, bound=number("Uniform", "bound", self.bound, least=0))

    def __call__(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        return rng.uniform(-self.bound, self.bound, shape)


INITIALIZERS: dict[str, Initializer] = {"normal": normal, "glorot": glorot, "he": he, "zeros": zeros}


def find_initializer(name: str | Initializer) -> Initializer:
    """Return the initializer of that name, or the function itself; ValueError lists the known names."""
    if callable(name):
        return name
    if not isinstance(name, str) or name not in INITIALIZERS:
        raise ValueError(f"unknown initializer {name!r}: choose one of {', '.join(INITIALIZERS)}, or pass a function")
    return INITIALIZERS[name]


@dataclass(frozen=True)
class Parameter:
    """What a layer asks for: a name within the layer, a shape, and how it starts."""

    name: str
    shape: Shape
    init: Initializer = zeros
    axes: tuple[int, ...] = ()
    """The order of its axes in PyTorch, where that is another: (1, 0) for a weight (I, O) that is (O, I) there."""
    shared: str = ""
    """What it is called wherever it occurs again, if it does: one window serves them all."""

    def __post_init__(self) -> None:
        who = f'Parameter "{self.name}"'
        shape = tuple(integer(who, "shape", size, least=0) for size in self.shape)
        settle(self, shape=shape, init=find_initializer(self.init))

    def named(self, prefix: object) -> "Parameter":
        """Return the same parameter one level up: `weight` becomes `0.weight`."""
        return replace(self, name=f"{prefix}.{self.name}")


@dataclass(frozen=True)
class Window:
    """Where a parameter lies on θ: θ[start:stop], seen in `shape`."""

    parameter: Parameter
    start: int
    stop: int

    @property
    def name(self) -> str:
        """The parameter's path, as in PyTorch: `0.weight`."""
        return self.parameter.name

    @cached_property
    def shape(self) -> Shape:
        """The parameter's shape."""
        return self.parameter.shape

    @cached_property
    def place(self) -> slice:
        """The slice of θ."""
        return slice(self.start, self.stop)

    @property
    def decayed(self) -> bool:
        """Whether weight decay applies: to matrices, not to biases."""
        return len(self.shape) >= 2


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a parameter's name fits one of the patterns, such as `"0.*"` or `"*.bias"`."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def check_patterns(setting: str, patterns: Iterable[str], windows: Sequence[Window]) -> None:
    """Raise ValueError for a pattern of this setting that fits no parameter."""
    names = [window.name for window in windows]
    for pattern in patterns:
        if not any(matches(name, [pattern]) for name in names):
            raise ValueError(f'{setting}: "{pattern}" matches no parameter: there are {", ".join(names) or "none"}')


def lay_out(parameters: Sequence[Parameter]) -> tuple[Window, ...]:
    """Lay parameters end to end on θ, in order; one that is shared lies where it came first."""
    windows, start, known = [], 0, dict[str, Parameter]()
    for parameter in parameters:
        if parameter.shared and (first := known.setdefault(parameter.shared, parameter)) is not parameter:
            if first.shape != parameter.shape:
                shapes = f"{first.shape} and {parameter.shape}"
                raise ShapeError(f'"{parameter.shared}" is shared by two layers that differ, its shapes are {shapes}')
            continue
        stop = start + math.prod(parameter.shape)
        windows.append(Window(parameter, start, stop))
        start = stop
    return tuple(windows)


class Ties(NamedTuple):
    """Which window each parameter of a network is, where one window is several of them."""

    places: tuple[int, ...]

    def given(self, windows: Sequence[Array]) -> tuple[Array, ...]:
        """Return the parameters that these windows are."""
        return tuple(windows[place] for place in self.places)

    def wishes(self, outs: Sequence[Array | None]) -> tuple[Array | None, ...]:
        """Return where each parameter's gradient may be written: nowhere, if it is to be added to others."""
        return tuple(outs[place] if self.places.count(place) == 1 else None for place in self.places)

    def added(self, gradients: Sequence[Array]) -> tuple[Array, ...]:
        """Return the gradient of each window: the sum of those of the parameters that it is."""
        sums: dict[int, Array] = {}
        for place, gradient in zip(self.places, gradients, strict=True):
            sums[place] = sums[place] + gradient if place in sums else gradient
        return tuple(sums.values())


def tie(parameters: Sequence[Parameter]) -> Ties | None:
    """Return which window each parameter is; None where each has its own."""
    order: dict[Any, int] = {}
    places = tuple(order.setdefault(p.shared or k, len(order)) for k, p in enumerate(parameters))
    return Ties(places) if len(order) < len(places) else None


def draw(windows: Sequence[Window], seed: int, dtype: str = "float64") -> np.ndarray:
    """Draw the host's θ: each window from a stream of its own, in float64, keyed by the seed and the window's name."""
    theta = np.empty(windows[-1].stop if windows else 0, dtype=dtype)
    for window in windows:
        values = np.asarray(window.parameter.init(random.generator(seed, window.name), window.shape))
        if values.shape != window.shape:
            came = f"must return shape {window.shape}, got {values.shape}"
            raise ShapeError(f'the initializer of "{window.name}" {came}')
        theta[window.place] = values.reshape(-1)
    return theta


def split(xp: Namespace, theta: Array, windows: Sequence[Window]) -> tuple[Array, ...]:
    """Return the windows of a flat θ as arrays: views, where the library has views."""
    cut = [(theta[w.place], w.shape) for w in windows]
    return tuple([part if len(shape) == 1 else xp.reshape(part, shape) for part, shape in cut])


class Parts(NamedTuple):
    """Some parts of a vector like θ: slices of a flat one, or numbers of windows."""

    places: tuple[Any, ...]

    def of(self, vector: Vector) -> tuple[Array, ...]:
        """Return the parts: views, where the library has views."""
        return tuple(vector[place] for place in self.places)

    def put(self, xp: Namespace, vector: Vector, parts: Sequence[Array], new: Sequence[Array]) -> Vector:
        """Return the vector with `new` for `parts`; where those were overwritten, it is the vector itself."""
        if isinstance(vector, tuple):
            replaced = dict(zip(self.places, new, strict=True))
            return tuple(replaced.get(k, window) for k, window in enumerate(vector))
        if all(n is p for n, p in zip(new, parts, strict=True)):
            return vector
        pieces, start = [], 0
        for place, piece in zip(self.places, new, strict=True):
            pieces += [vector[start : place.start], piece]
            start = place.stop
        return xp.concat([*pieces, vector[start:]])


def choose(windows: Sequence[Window], wanted: Callable[[Window], Any], flat: bool) -> Parts:
    """Return the parts of θ in windows that are wanted; on a flat θ neighbours wanted alike are one slice."""
    if not flat:
        return Parts(tuple(k for k, window in enumerate(windows) if wanted(window)))
    runs: list[tuple[Any, slice]] = []
    for window in windows:
        why = wanted(window)
        if why and runs and runs[-1][0] == why and runs[-1][1].stop == window.start:
            runs[-1] = (why, slice(runs[-1][1].start, window.stop))
        elif why:
            runs.append((why, window.place))
    return Parts(tuple(place for _, place in runs))
