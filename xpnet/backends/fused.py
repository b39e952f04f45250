"""NumPy's rules as one compiled loop, where Numba is installed (the extra `fast`).

Numba compiles the rule itself, so there is nothing to keep in step with it; the machine code is cached on disk. Where
Numba is broken, or has no place for its cache, the rule runs in its plain form, with a warning.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import cache
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


@cache
def fused_available() -> bool:
    """Whether Numba is installed, can be imported and has a place for its cache; a warning if not all is well."""
    if find_spec("numba") is None:
        return False
    try:
        from numba import njit

        njit(cache=True)(_target)
    except (Exception, SystemExit) as error:
        _plainly(_target, error)
        return False
    return True


def fuse(rule: Rule, states: int, inputs: int, scalars: int) -> Fused:
    """Return the rule as one loop over flat arrays, for so many state arrays, inputs and scalars."""
    loop: Any = None
    if fused_available():
        try:
            loop = _loop(rule, states, inputs, scalars)
        except Exception as error:  # no file of the rule's own to keep the machine code by, say
            _plainly(rule, error)

    def fused(state: Sequence[Array], inputs: Sequence[Array], scalars: Sequence[float]) -> bool:
        nonlocal loop
        shapes = {array.shape for array in (*state, *inputs)}
        if loop is None or len(shapes) > 1 or len(shapes.pop()) != 1:
            return False
        try:
            # scalars of the arrays' own type: with doubles among them the whole loop would be done in double
            loop(*state, *inputs, *map(state[0].dtype.type, scalars))
        except Exception as error:  # raised by the compiler or its cache, before anything has run
            loop = None
            _plainly(rule, error)
            return False
        return True

    return fused


def compiled(**options: Any) -> Callable[[Callable[..., None]], Callable[..., bool]]:
    """Make a function that writes into its arguments one that returns whether it did: it does not without Numba.

    It is compiled when it is first called, for each kind of arguments, and the machine code kept.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., bool]:
        loop: Any = None
        broken = False

        def attempt(*arguments: Any) -> bool:
            nonlocal loop, broken
            if broken or not fused_available():
                return False
            try:
                if loop is None:
                    from numba import njit

                    loop = njit(cache=True, **OPTIONS | options)(function)
                loop(*arguments)
            except Exception as error:  # raised by the compiler or its cache, before anything has run
                broken = True
                _plainly(function, error)
                return False
            return True

        return attempt

    return decorate


def _loop(rule: Rule, states: int, inputs: int, scalars: int) -> Any:
    """Return the loop, compiled when it is first called."""
    from numba import njit

    s, i, c = ([f"{letter}{k}" for k in range(n)] for letter, n in zip("sic", (states, inputs, scalars), strict=True))
    source = SOURCE.format(
        name=f"{rule.__name__}_loop",
        arguments=", ".join(s + i + c),
        first=s[0],
        targets="".join(f"{x}[i], " for x in s),
        values=", ".join([f"{x}[i]" for x in s + i] + c),
    )
    # compiled under the rule's own file, line and module: there Numba looks to see whether its cache is stale
    code = compile("\n" * (rule.__code__.co_firstlineno - 2) + source, rule.__code__.co_filename, "exec")
    scope: dict[str, Any] = {"np": np, "rule": _jitted(rule), "__name__": rule.__module__ or "__main__"}
    exec(code, scope)
    return njit(cache=True, **OPTIONS)(scope[f"{rule.__name__}_loop"])


def _jitted(rule: Any) -> Any:
    """Return the rule for Numba, and with it the rules that it calls."""
    from numba import njit

    called = {name: rule.__globals__[name] for name in rule.__code__.co_names if name in rule.__globals__}
    jitted = {name: _jitted(value) for name, value in called.items() if isinstance(value, FunctionType)}
    scope = {"__name__": "__main__"} | rule.__globals__ | jitted  # Numba asks for the module, which `exec` may not name
    return njit(**OPTIONS)(FunctionType(rule.__code__, scope, rule.__name__))


def _plainly(rule: Any, error: BaseException) -> None:
    """Warn that a rule, or every rule, runs in its plain form."""
    what = "any rule here" if rule is _target else getattr(rule, "__name__", str(rule))
    first = f"{type(error).__name__}: {error}".partition("\n")[0]
    remedy = ": set NUMBA_CACHE_DIR to a folder that can be written" if "cache" in first else ""
    warnings.warn(f"Numba cannot compile {what}, so the plain form runs, slower ({first}){remedy}", stacklevel=2)


def _target() -> None:
    """A function of this package, on which Numba tells whether it can keep machine code here."""
