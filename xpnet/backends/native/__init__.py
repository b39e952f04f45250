"""Forms of the layers' functions that are a library's own, by the plain function's dotted name.

A form has the plain function's signature and meaning, and returns None for what it was not made for.
"""

import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

Forms = Mapping[str, Callable[..., Any]]


def choose(forms: Forms, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a library's own form of a function, which leaves to the plain one what it does not serve."""
    own = forms.get(f"{getattr(function, '__module__', '')}.{getattr(function, '__name__', '')}")
    return function if own is None else _served(own, function)


def bears_its_name(function: Callable[..., Any]) -> bool:
    """Whether this is the function that its name names, and none that `functools.wraps` gave the name of another."""
    return getattr(sys.modules.get(function.__module__), function.__name__, None) is function


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the formula in array API operations of a function that is called `natively`; of others the function."""
    return getattr(function, "plain", function)


@cache
def _served(own: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    if not bears_its_name(function):
        return function
    formula = plain(function)

    def call(*arguments: Any) -> Any:
        result = own(*arguments)
        return formula(*arguments) if result is None else result

    return call
