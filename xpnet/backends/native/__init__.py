"""Forms of the layers' functions that are a library's own, by the plain function's dotted name.

A form has the plain function's signature and meaning, and returns None for what it was not made for.
"""

from collections.abc import Callable, Mapping
from typing import Any

Forms = Mapping[str, Callable[..., Any]]


def choose(forms: Forms, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a library's own form of a function, which leaves to the plain one what it does not serve."""
    if (known := _CHOSEN.get((id(forms), function))) is not None:
        return known
    own = forms.get(f"{getattr(function, '__module__', '')}.{getattr(function, '__name__', '')}")
    if own is None:
        return function

    def call(*arguments: Any) -> Any:
        result = own(*arguments)
        return function(*arguments) if result is None else result

    return _CHOSEN.setdefault((id(forms), function), call)


_CHOSEN: dict[tuple[int, Callable[..., Any]], Callable[..., Any]] = {}
"""What was chosen, so that a step need not look again: as many as there are forms."""
