"""Factors by pattern: how an optimizer is told that some parameters learn, or decay, at other rates than the rest."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from xpnet.checks import number, shown
from xpnet.parameters import matches

Factors: TypeAlias = Mapping[str, float] | Sequence[tuple[str, float]]
"""A factor for each pattern of parameters, such as `{"0.*": 0.1}`; of those that match a name the last one counts."""


def factors(who: str, name: str, given: Any) -> tuple[tuple[str, float], ...]:
    """Return factors as pairs, which are data; ValueError if they are no numbers from 0 on by pattern."""
    pairs = list(given.items() if isinstance(given, Mapping) else given if isinstance(given, (tuple, list)) else [None])
    if not all(isinstance(pair, (tuple, list)) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs):
        raise ValueError(f'{who}: {name} must be a dict of factors, such as {{"0.*": 0.1}}, got {shown(given)}')
    return tuple((pattern, number(who, f'{name}["{pattern}"]', factor, least=0.0)) for pattern, factor in pairs)


def factor(pairs: Any, name: str, otherwise: float) -> float:
    """Return the factor of the last pattern that matches a parameter's name."""
    found = [value for pattern, value in pairs if matches(name, [pattern])]
    return float(found[-1]) if found else otherwise


def most(pairs: Any) -> float:
    """Return the largest factor that a parameter can have, at least 1."""
    return float(max([1.0, *(value for _, value in pairs)]))
