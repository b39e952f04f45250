"""What every room knows of an array: its type's name, its namespace, and the stable forms of exp.

The namespace (`xp`) of the arrays in hand says which library computes. It is resolved once, at a public door.
"""

from functools import cache, cached_property
from typing import Any, TypeAlias, TypeVar

import array_api_compat

from xpnet.errors import DataError, ShapeError

Array: TypeAlias = Any
"""An array of any library that follows the Python array API standard, 2024.12 or newer."""

Namespace: TypeAlias = Any
"""The module of array functions, `xp`, that belongs to an array."""

Vector: TypeAlias = Any
"""θ, or a vector like it: one flat array, or (where a library prefers it) the tuple of its windows."""

V = TypeVar("V", bound=Any)


class Table(tuple[tuple[Any, ...], ...]):
    """Rows of a layer's own numbers. Every step looks them up among the backend's constants: their hash is kept."""

    @cached_property
    def _hash(self) -> int:
        return super().__hash__()

    def __hash__(self) -> int:
        return self._hash


def namespace(**arrays: Array) -> Namespace:
    """Return the one namespace of the arrays, given by name; TypeError if one is no array or they disagree."""
    try:
        return array_api_compat.array_namespace(*arrays.values())
    except TypeError:
        came = ", ".join(f"{name} is {describe(array)}" for name, array in arrays.items())
        raise TypeError(f"expected arrays of one library, but {came}: convert them with backend.asarray(...)") from None


def same_shape(prediction: Array, target: Array) -> tuple[Namespace, Array, Array]:
    """Return the namespace, and both as numbers of the type to compute in (`wide`) and of the prediction's shape.

    A target (N,) of a prediction (N, 1), and the reverse, is the same thing; ShapeError if shapes differ otherwise.
    """
    xp = namespace(prediction=prediction, target=target)
    if prediction.shape != target.shape:
        one, other = tuple(prediction.shape), tuple(target.shape)
        if one != (*other, 1) and (*one, 1) != other:
            raise ShapeError(f"expected prediction and target of one shape, got {one} and {other}: reshape the target")
        target = xp.reshape(target, one)
    dtype = wide(xp, prediction)
    return xp, cast(xp, prediction, dtype), cast(xp, target, dtype)


def wide(xp: Namespace, array: Array) -> Any:
    """Return the type to compute with an array in: its own from float32 up, float32 below, `widest` for integers.

    DataError for what is no real number.
    """
    dtype = array.dtype
    if dtype in (xp.float32, xp.float64):
        return dtype
    if xp.isdtype(dtype, ("integral", "bool")):
        return widest(xp, array)
    if not xp.isdtype(dtype, "real floating"):
        raise DataError(f"expected real numbers, got {dtype}: convert them with astype")
    return xp.float32 if xp.finfo(dtype).bits < 32 else dtype


def widest(xp: Namespace, array: Array) -> Any:
    """Return float64, or float32 where the array's device has nothing wider."""
    known = xp.__array_namespace_info__().dtypes(device=device(array), kind="real floating")
    return known.get("float64", xp.float32)


def cast(xp: Namespace, array: Array, dtype: Any) -> Array:
    """Return the array in that type: itself, if it has it."""
    return array if array.dtype == dtype else xp.astype(array, dtype)


def inputs(x: Any) -> tuple[Any, ...]:
    """Return the inputs of a network: the parts of a tuple, or the one."""
    return x if isinstance(x, tuple) else (x,)


def shape_of(x: Any) -> Any:
    """Return the shape of an array, or the shapes of a tuple of them."""
    return tuple(map(shape_of, x)) if isinstance(x, tuple) else tuple(x.shape)


def with_batch(x: Any, n: int | None) -> Any:
    """Return the shape of such an array, or of each of a tuple of them, for n samples."""
    return tuple(with_batch(part, n) for part in x) if isinstance(x, tuple) else (n, *x.shape[1:])


def describe(array: Array) -> str:
    """Say in a few words what an argument is: `a torch array on cpu`, `a list`."""
    root = type(array).__module__.partition(".")[0]
    if not (hasattr(array, "shape") and hasattr(array, "dtype")):
        return f"a {type(array).__name__}"
    return f"a {root.removesuffix('lib')} array on {device(array)}"


def device(array: Array) -> Any:
    """Return the device for arrays that go with this one; None, the default, while JAX traces a function."""
    return getattr(array, "device", None)


def is_floating(xp: Namespace, array: Array) -> bool:
    """Whether the array holds real floating-point numbers."""
    return _is_floating(xp, array.dtype)


@cache
def _is_floating(xp: Namespace, dtype: Any) -> bool:
    return bool(xp.isdtype(dtype, "real floating"))


def each(function: Any, *vectors: V) -> V:
    """Apply a function of arrays to θ-like vectors: once if they are flat, window by window if they are tuples."""
    if isinstance(vectors[0], tuple):
        return tuple(function(*arrays) for arrays in zip(*vectors, strict=True))  # type: ignore[return-value]
    return function(*vectors)  # type: ignore[no-any-return]


def sum_rows(xp: Namespace, x: Array) -> Array:
    """Return the sum over all axes but the last, (C,): as a product with ones, which BLAS adds up faster and closer."""
    rows = xp.reshape(x, (-1, x.shape[-1]))
    return (xp.ones((1, rows.shape[0]), dtype=x.dtype, device=device(x)) @ rows)[0, ...]


def exp_shifted(xp: Namespace, x: Array) -> tuple[Array, Array, Array]:
    """Return x − max x, its exp and the sum of that, along the last axis (kept): softmax that cannot overflow.

    An infinite maximum takes the whole probability: the limit, where plain subtraction would give NaN.
    """
    top = xp.max(x, axis=-1, keepdims=True)
    at_top = x == top
    shifted = xp.where(at_top, 0.0, x) - xp.where(at_top, 0.0, top)
    exp = xp.exp(shifted)
    return shifted, exp, xp.sum(exp, axis=-1, keepdims=True)


def softmax(scores: Array) -> Array:
    """e^sᵢ / Σⱼ e^sⱼ along the last axis, (…, C): scores as probabilities that add up to 1.        (Bridle, 1990)

    The greatest score is taken off first, so nothing overflows. Of infinite scores it is the limit: +∞ takes the whole,
    several share it. An array of any library; scores of half precision are computed in float32, integers in float64.
    TypeError for what is no array, ShapeError where there is nothing to choose from.
    """
    xp = namespace(scores=scores)
    if not scores.ndim or not scores.shape[-1]:
        raise ShapeError(f"softmax expects scores (…, C), got the shape {tuple(scores.shape)}")
    _, exp, total = exp_shifted(xp, cast(xp, scores, wide(xp, scores)))
    probabilities = exp / total
    return cast(xp, probabilities, scores.dtype) if is_floating(xp, scores) else probabilities


def sigmoid(xp: Namespace, x: Array) -> Array:
    """1 / (1 + e^−x), accurate at both ends: the exponential is taken of −|x|, so nothing overflows."""
    exp = xp.exp(-xp.abs(x))
    return xp.where(x < 0, exp, 1.0) / (1.0 + exp)


def softplus(xp: Namespace, x: Array) -> Array:
    """log(1 + e^x), accurate at both ends: the exponential is taken of −|x|, so nothing overflows."""
    return xp.maximum(x, 0.0) + xp.log1p(xp.exp(-xp.abs(x)))
