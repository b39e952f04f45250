"""Rules as one compiled loop, and what happens where they cannot be compiled."""

import sys
import types
import warnings

import numpy as np
import pytest

import xpnet as xn
from xpnet import optimizers
from xpnet.backends import fused
from xpnet.backends.numpy import NumpyBackend

RULES = [xn.SGD(0.1), xn.SGD(0.1, momentum=0.9), xn.RMSProp(0.1), xn.Adam(0.1), xn.AdamW(0.1, weight_decay=0.1)]
RULES += [xn.Adam(0.1, amsgrad=True), xn.NAdam(0.1), xn.Lion(0.1)]


@pytest.fixture(autouse=True)
def as_found():
    fused.fused_available.cache_clear()
    yield
    fused.fused_available.cache_clear()


def numba_that(monkeypatch, njit):
    """Put a module there that passes for Numba."""
    module = types.ModuleType("numba")
    module.__spec__ = types.SimpleNamespace(name="numba")
    if isinstance(njit, Exception):
        module.__getattr__ = lambda name: throw(njit)
    else:
        module.njit = njit
    monkeypatch.setitem(sys.modules, "numba", module)


def throw(error):
    raise error


def homeless(function=None, cache=False, **options):
    """`njit` where no folder can be written, or the function has no file."""
    if function is None:
        return lambda function: homeless(function, cache)
    if cache:
        raise RuntimeError("cannot cache function: no locator available for file '<stdin>'\\nand more")
    return function


def uncompilable(function=None, cache=False, **options):
    """`njit` of a version that cannot read the loop's source."""

    def call(*arguments):
        raise SyntaxError("unterminated string literal")

    if function is None:
        return uncompilable
    return call if "loop" in function.__name__ else function


def apply(rule=optimizers.sgd.sgd_rule):
    """Do a rule by a backend of its own, so that nothing was compiled before."""
    theta = np.asarray([1.0, -2.0], dtype=np.float32)
    return NumpyBackend().map(rule)((theta,), (np.ones(2, dtype=np.float32),), (0.5,))[0].tolist()


@pytest.mark.parametrize("njit", [OSError("libllvm.so\nand more"), homeless], ids=["broken", "homeless"])
def test_where_numba_does_not_work_the_plain_form_runs_with_one_warning(monkeypatch, njit):
    numba_that(monkeypatch, njit)
    with warnings.catch_warnings(record=True, action="always") as caught:
        assert apply() == [0.5, -2.5]
        assert apply() == [0.5, -2.5]
        assert xn.backend("numpy").bits()["rules"] == "plain"
    (text,) = (str(warning.message) for warning in caught)
    assert text.startswith("Numba cannot compile any rule here, so the plain form runs, slower (")
    assert "\n" not in text
    assert text.endswith("folder that can be written") == (njit is homeless)


def test_where_the_compiler_fails_the_plain_form_runs_with_one_warning(monkeypatch):
    numba_that(monkeypatch, uncompilable)
    backend, ones = NumpyBackend(), np.ones(2, dtype=np.float32)
    with warnings.catch_warnings(record=True, action="always") as caught:
        for _ in range(2):
            theta = np.asarray([1.0, -2.0], dtype=np.float32)
            backend.map(optimizers.sgd.sgd_rule)((theta,), (ones,), (0.5,))
            assert theta.tolist() == [0.5, -2.5]
    (text,) = (str(warning.message) for warning in caught)
    assert text.startswith("Numba cannot compile sgd_rule, so the plain form runs, slower (SyntaxError: unterminated")


def test_where_numba_is_missing_the_plain_form_runs(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    assert apply() == [0.5, -2.5]
    assert xn.backend("numpy").bits()["rules"] == "plain"


def test_the_loop_stands_where_its_rule_stands(monkeypatch):
    """Numba asks `inspect` for the source at that file and line: what it finds there must be a whole function."""
    loops = []
    numba_that(monkeypatch, lambda **options: lambda function: loops.append(function) or function)
    fused._loop(optimizers.adam.adam_rule, 3, 1, 6)
    code = loops[-1].__code__
    assert code.co_filename == optimizers.adam.__file__
    assert code.co_firstlineno == optimizers.adam.adam_rule.__code__.co_firstlineno
    assert loops[-1].__module__ == "xpnet.optimizers.adam"


# With Numba


@pytest.mark.parametrize("optimizer", RULES, ids=lambda o: f"{type(o).__name__}-{o.moments}")
def test_numba_compiles_every_rule(optimizer):
    pytest.importorskip("numba", reason="Numba is not installed")
    theta = np.linspace(0.1, 1, 7, dtype=np.float32)
    state, inputs = [theta.copy() for _ in range(1 + optimizer.moments)], [theta - 0.5]
    scalars = optimizer.scalars(3)
    expected = optimizer.rule(np, *[s.copy() for s in state], *inputs, *scalars)
    assert fused.fuse(optimizer.rule, len(state), len(inputs), len(scalars))(state, inputs, scalars)
    for got, wanted in zip(state, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
    assert xn.backend("numpy").bits()["rules"] == "fused"


def test_a_rule_of_a_namespace_without_a_name_is_compiled_and_found_again(tmp_path):
    pytest.importorskip("numba", reason="Numba is not installed")
    source = "def lone_rule(xp, theta, g, rate):\n    theta -= rate * g\n    return (theta,)\n"
    path = tmp_path / "rules.py"
    path.write_text(source)
    for _ in range(2):  # the second time it comes out of Numba's cache
        scope = {}
        exec(compile(source, str(path), "exec"), scope)
        assert scope["lone_rule"].__module__ is None or scope["lone_rule"].__module__ == "builtins"
        theta = np.ones(2, "float32")
        assert fused.fuse(scope["lone_rule"], 1, 1, 1)((theta,), (np.ones(2, "float32"),), (0.5,))
        assert theta.tolist() == [0.5, 0.5]


def test_a_rule_without_a_file_runs_in_its_plain_form():
    pytest.importorskip("numba", reason="Numba is not installed")
    scope = {"__name__": "__main__"}
    exec("def nameless_rule(xp, theta, g, rate):\n    theta -= rate * g\n    return (theta,)\n", scope)
    with pytest.warns(UserWarning, match="Numba cannot compile nameless_rule, so the plain form runs"):
        assert apply(scope["nameless_rule"]) == [0.5, -2.5]
