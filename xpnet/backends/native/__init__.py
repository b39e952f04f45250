"""Forms of the layers' functions that are a library's own, by the plain function's dotted name.

A form has the plain function's signature and meaning, and returns None for what it was not made for.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

Forms = Mapping[str, Callable[..., Any]]


def choose(forms: Forms, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a library's own form of a function, which leaves to the plain one what it does not serve."""
    own = forms.get(f"{getattr(function, '__module__', '')}.{getattr(function, '__name__', '')}")
    return function if own is None else _served(own, function)


@cache
def _served(own: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        result = own(*arguments)
        return function(*arguments) if result is None else result

    return call
