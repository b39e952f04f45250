"""NumPy's rules as one compiled loop, where Numba is installed (the extra `fast`).

Numba compiles the rule itself, so there is nothing to keep in step with it; the machine code is cached on disk.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from types import FunctionType
from typing import Any, TypeAlias

import numpy as np

from xpnet.arrays import Array
from xpnet.backends.base import Rule

OPTIONS: dict[str, Any] = {"fastmath": True, "error_model": "numpy"}
SOURCE = """
def {name}({arguments}):
    for i in range({first}.size):
        {targets} = rule(np, {values})
"""


Fused: TypeAlias = Callable[[Sequence[Array], Sequence[Array], Sequence[float]], bool]
"""`fused(state, inputs, scalars)` does the rule in place and returns True, or returns False and has done nothing."""


def fused_available() -> bool:
    """Whether Numba is installed."""
    return find_spec("numba") is not None


def fuse(rule: Rule, states: int, inputs: int, scalars: int) -> Fused:
    """Return the rule as one loop over flat arrays, for so many state arrays, inputs and scalars."""
    try:
        from numba import njit
        from numba.core.errors import NumbaError
    except ImportError:
        return lambda state, inputs, scalars: False
    s, i, c = ([f"{letter}{k}" for k in range(n)] for letter, n in zip("sic", (states, inputs, scalars), strict=True))
    source = SOURCE.format(
        name=f"{rule.__name__}_loop",
        arguments=", ".join(s + i + c),
        first=s[0],
        targets="".join(f"{x}[i], " for x in s),
        values=", ".join([f"{x}[i]" for x in s + i] + c),
    )
    # compiled under the rule's own file and module, which is where Numba looks to see whether its cache is stale
    scope: dict[str, Any] = {"np": np, "rule": _jitted(rule), "__name__": rule.__module__}
    exec(compile(source, rule.__code__.co_filename, "exec"), scope)
    loop: Any = njit(cache=True, **OPTIONS)(scope[f"{rule.__name__}_loop"])

    def fused(state: Sequence[Array], inputs: Sequence[Array], scalars: Sequence[float]) -> bool:
        nonlocal loop
        shape = state[0].shape
        if loop is None or len(shape) != 1 or any(array.shape != shape for array in (*state, *inputs)):
            return False
        try:
            # scalars of the arrays' own type: with doubles among them the whole loop would be done in double
            loop(*state, *inputs, *map(state[0].dtype.type, scalars))
        except NumbaError:  # raised by the compiler, before anything has run
            loop = None
            return False
        return True

    return fused


def _jitted(rule: Any) -> Any:
    """Return the rule for Numba, and with it the rules that it calls."""
    from numba import njit

    called = {name: rule.__globals__[name] for name in rule.__code__.co_names if name in rule.__globals__}
    jitted = {name: _jitted(value) for name, value in called.items() if isinstance(value, FunctionType)}
    return njit(**OPTIONS)(FunctionType(rule.__code__, rule.__globals__ | jitted, rule.__name__))
