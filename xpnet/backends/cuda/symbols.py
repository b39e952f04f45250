"""A rule on numbers, run once on symbols: the operations it does, as C++ text and as NumPy calls.

`trace(adam_rule, 3, 1, 6)` calls the rule with symbols in place of arrays and keeps what it returns as a graph of
operations. A graph is emitted as the body of a CUDA kernel, and can be interpreted with NumPy, which is how the tests
know without a GPU that it says what the rule says. Arithmetic between two Python numbers happens in Python, so
constants are folded in double precision.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from xpnet.arrays import Array

NAN_SAFE = "({0} {sign} {1} || {0} != {0}) ? {0} : {1}"  # NaN on either side wins, as in the standard

OPERATIONS: dict[str, str] = {
    "negative": "-{0}",
    "add": "{0} + {1}",
    "subtract": "{0} - {1}",
    "multiply": "{0} * {1}",
    "divide": "{0} / {1}",
    "square": "{0} * {0}",
    "sqrt": "sqrt({0})",
    "exp": "exp({0})",
    "expm1": "expm1({0})",
    "log": "log({0})",
    "log1p": "log1p({0})",
    "tanh": "tanh({0})",
    "abs": "fabs({0})",
    "maximum": NAN_SAFE.replace("{sign}", ">="),
    "minimum": NAN_SAFE.replace("{sign}", "<="),
    "where": "{0} ? {1} : {2}",
}
"""The functions of the standard that a rule may use on numbers, and their C++."""

CONDITIONS: dict[str, str] = {
    "less": "{0} < {1}",
    "less_equal": "{0} <= {1}",
    "greater": "{0} > {1}",
    "greater_equal": "{0} >= {1}",
    "equal": "{0} == {1}",
    "not_equal": "{0} != {1}",
    "logical_and": "{0} && {1}",
    "logical_or": "{0} || {1}",
    "logical_not": "!{0}",
    "isfinite": "isfinite({0})",
}
"""The functions that give a truth value, and their C++."""

TEXTS = OPERATIONS | CONDITIONS


class TraceError(Exception):
    """A rule does something that cannot become one elementwise kernel."""


@dataclass(frozen=True, eq=False)
class Symbol:
    """A number that is not known yet: an argument of the rule, or an operation on symbols and Python numbers."""

    name: str
    arguments: tuple["Symbol | float", ...] = ()

    def __bool__(self) -> bool:
        raise TraceError("a branch on a value: use xp.where")

    def __neg__(self) -> Any:
        return apply("negative", self)

    def __pow__(self, power: object) -> Any:
        if power != 2:
            raise TraceError(f"a power of {power}")
        return apply("square", self)


def apply(name: str, *arguments: Any) -> Any:
    """Return the symbol of an operation, or its value in double precision if every argument is a Python number."""
    if all(isinstance(a, (int, float)) for a in arguments):
        return float(getattr(np, name)(*map(float, arguments)))
    for a in arguments:
        if not isinstance(a, (Symbol, int, float)):
            raise TraceError(f"{name} of a {type(a).__name__}")
    return Symbol(name, arguments)


def _operator(name: str, swapped: bool = False) -> Callable[[Any, Any], Any]:
    return (lambda a, b: apply(name, b, a)) if swapped else (lambda a, b: apply(name, a, b))


for _sign, _name in (("add", "add"), ("sub", "subtract"), ("mul", "multiply"), ("truediv", "divide")):
    setattr(Symbol, f"__{_sign}__", _operator(_name))
    setattr(Symbol, f"__r{_sign}__", _operator(_name, swapped=True))
for _sign, _name in (("lt", "less"), ("le", "less_equal"), ("gt", "greater"), ("ge", "greater_equal")):
    setattr(Symbol, f"__{_sign}__", _operator(_name))


class Functions:
    """The namespace that a rule sees while it is traced."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in TEXTS:
            raise TraceError(f"xp.{name}")
        return lambda *arguments: apply(name, *arguments)


class Program(NamedTuple):
    """A traced rule: its name, how many arguments of each kind it takes, and the symbols of the new state."""

    name: str
    state: tuple[Symbol, ...]
    inputs: tuple[Symbol, ...]
    scalars: tuple[Symbol, ...]
    results: tuple[Symbol | float, ...]

    def steps(self) -> Iterator[tuple[str, Symbol]]:
        """Yield each operation once, named, after those it needs."""
        done: set[int] = {id(s) for s in (*self.state, *self.inputs, *self.scalars)}
        stack = [s for s in reversed(self.results) if isinstance(s, Symbol)]
        while stack:
            symbol = stack[-1]
            missing = [a for a in symbol.arguments if isinstance(a, Symbol) and id(a) not in done]
            if id(symbol) not in done and not missing:
                done.add(id(symbol))
                yield f"t{len(done)}", symbol
            stack = stack + missing[::-1] if missing else stack[:-1]

    def body(self, by_value: bool = False) -> str:
        """Return the C++ that turns state `s0 …`, inputs `x0 …` and `scalars` into new state, where `alive` is true.

        The scalars are an array, or, if `by_value`, arguments `c0 …`.
        """
        names = {id(s): f"old{k}" for k, s in enumerate(self.state)}
        names |= {id(x): f"x{k}" for k, x in enumerate(self.inputs)}
        names |= {id(c): f"c{k}" for k, c in enumerate(self.scalars)}

        def text(value: Symbol | float) -> str:
            return names[id(value)] if isinstance(value, Symbol) else literal(value)

        lines = [f"const T old{k} = s{k};" for k in range(len(self.state))]
        lines += [] if by_value else [f"const T c{k} = scalars[{k}];" for k in range(len(self.scalars))]
        for name, symbol in self.steps():
            kind = "bool" if symbol.name in CONDITIONS else "T"
            expression = TEXTS[symbol.name].format(*map(text, symbol.arguments))
            lines.append(f"const {kind} {name} = {expression};")
            names[id(symbol)] = name
        lines += [f"s{k} = {text(value)};" for k, value in enumerate(self.results)]
        return "if (alive[0]) {\n  " + "\n  ".join(lines) + "\n}"

    def interpret(self, state: list[Array], inputs: list[Array], scalars: list[float]) -> list[np.ndarray]:
        """Return the new state, every operation done by NumPy in the precision of the state."""
        number = state[0].dtype.type
        numbers = [number(c) for c in scalars]
        symbols = (*self.state, *self.inputs, *self.scalars)
        values = {id(s): v for s, v in zip(symbols, (*state, *inputs, *numbers), strict=True)}

        def value(argument: Symbol | float) -> Any:
            return values[id(argument)] if isinstance(argument, Symbol) else number(argument)

        for _, symbol in self.steps():
            values[id(symbol)] = getattr(np, symbol.name)(*map(value, symbol.arguments))
        return [np.broadcast_to(value(r), state[0].shape) for r in self.results]


def literal(value: float) -> str:
    """Return a Python number as C++, rounded once from double to the kernel's precision."""
    if math.isnan(value):
        return "T(__int_as_float(0x7fffffff))"
    if math.isinf(value):
        return f"T(__int_as_float(0x{'7f' if value > 0 else 'ff'}800000))"
    return f"T({float(value)!r})"


def trace(rule: Callable[..., tuple[Array, ...]], state: int, inputs: int, scalars: int) -> Program:
    """Run a rule on symbols, given how many arguments of each kind it takes; TraceError if it cannot be done."""
    symbols = [Symbol(f"argument {k}") for k in range(state + inputs + scalars)]
    kinds = symbols[:state], symbols[state : state + inputs], symbols[state + inputs :]
    name = getattr(rule, "__name__", "rule")
    try:
        results = tuple(rule(Functions(), *symbols))
    except (TypeError, AttributeError) as error:
        raise TraceError(str(error)) from None
    if len(results) != state:
        raise TraceError(f"it returns {len(results)} arrays for a state of {state}")
    conditions = [r for r in results if isinstance(r, Symbol) and r.name in CONDITIONS]
    if conditions or not all(isinstance(r, (Symbol, int, float)) for r in results):
        raise TraceError("it returns something else than numbers")
    return Program(name, tuple(kinds[0]), tuple(kinds[1]), tuple(kinds[2]), results)
