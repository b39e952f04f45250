"""Settings, checked when they are given: each function takes who asks, the setting's name and its value.

What comes back is Python's own value. A number is Python's, a NumPy scalar or a 0-d array; True, text and NaN are none.
"""

from math import inf, isfinite, isinf, nan
from numbers import Integral, Real
from reprlib import Repr
from typing import Any, TypeGuard

import numpy as np

PRECISIONS = ("float32", "float64")


def integer(who: str, name: str, value: Any, least: int = 1) -> int:
    """Return the value as an int; ValueError if it is not an integer of at least `least`."""
    given = plain(value)
    if not _is(Integral, given) or given < least:
        raise ValueError(f"{who}: {name} must be an integer of at least {least}, got {shown(given)}")
    return int(given)


def pair(who: str, name: str, value: Any, least: int = 1) -> tuple[int, int]:
    """Return two ints, one for the height and one for the width: the value twice, or two values."""
    given = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(given, (tuple, list)) and len(given) == 2:
        return integer(who, name, given[0], least), integer(who, name, given[1], least)
    if isinstance(given, (tuple, list)):
        raise ValueError(f"{who}: {name} must be one integer or two, got {shown(given)}")
    number = integer(who, name, given, least)
    return number, number


def number(
    who: str,
    name: str,
    value: Any,
    least: float | None = None,
    below: float | None = None,
    above: float | None = None,
    most: float | None = None,
) -> float:
    """Return the value as a finite float; ValueError if it is no number, infinite or outside the bounds given."""
    given = plain(value)
    real = _real(given)
    if (
        isfinite(real)
        and (least is None or real >= least)
        and (above is None or real > above)
        and (below is None or real < below)
        and (most is None or real <= most)
    ):
        return real
    bounds = (("of at least", least), ("above", above), ("below", below), ("of at most", most))
    words = " and ".join(f"{word} {limit}" for word, limit in bounds if limit is not None)
    kind = "a finite number" if isinf(real) or not words else "a number"
    raise ValueError(f"{who}: {name} must be {f'{kind} {words}'.rstrip()}, got {shown(given)}")


def numbers(who: str, name: str, value: Any) -> Any:
    """Return a number as a float, and an array or a list of numbers as tuples of floats, nested as its axes are."""
    value = np.asarray(value) if hasattr(value, "shape") and not hasattr(value, "tolist") else value
    nested = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(nested, (list, tuple)):
        return number(who, name, value)
    rows = tuple(numbers(who, name, row) for row in nested)
    if not rows or len({extent(row) for row in rows}) > 1:
        raise ValueError(f"{who}: {name} must be a number or an array of numbers, got {shown(value)}")
    return rows


def extent(value: Any) -> tuple[int, ...]:
    """Return the shape of what `numbers` returns: () of a float."""
    return (len(value), *extent(value[0])) if isinstance(value, tuple) else ()


def flag(who: str, name: str, value: Any) -> bool:
    """Return True or False, NumPy's too; ValueError for anything else."""
    given = plain(value)
    if not isinstance(given, bool):
        raise ValueError(f"{who}: {name} must be True or False, got {shown(given)}")
    return given


def seed(value: Any) -> int:
    """Return a seed as an int; ValueError if it is no integer in 0..2⁶⁴−1."""
    given = plain(value)
    if not _is(Integral, given) or not 0 <= given < 2**64:
        raise ValueError(f"seed must be an integer in 0..2**64-1, got {shown(given)}")
    return int(given)


def precision(who: str, dtype: Any) -> str:
    """Return "float32" or "float64", given by that name or as a library's type; ValueError for any other."""
    name = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", str(dtype).rpartition(".")[2])
    if name not in PRECISIONS:
        raise ValueError(f'{who}: dtype must be "float32" or "float64", got {shown(dtype)}')
    return str(name)


def settle(settings: Any, **values: Any) -> None:
    """Put checked values in place of those that a frozen dataclass was given."""
    for name, value in values.items():
        object.__setattr__(settings, name, value)


def plain(value: Any) -> Any:
    """Return a NumPy scalar or a 0-d array as Python's own value, and all else as it is."""
    if getattr(value, "shape", None) != ():
        return value
    return value.item() if hasattr(value, "item") else np.asarray(value).item()


def shown(value: Any) -> str:
    """Return what came, short and on one line."""
    short = Repr()
    short.maxother = short.maxstring = 60
    return " ".join(short.repr(value).split())


def _is(kind: type, given: Any) -> TypeGuard[Any]:
    """Whether this is a number of a kind; Python takes True for an integer, we do not."""
    return isinstance(given, kind) and not isinstance(given, bool)


def _real(given: Any) -> float:
    """The value as a float: NaN if it is no number, infinite if it is beyond them all."""
    try:
        return float(given) if _is(Real, given) else nan
    except OverflowError:
        return inf if given > 0 else -inf
