import math
from fractions import Fraction

import numpy as np
import pytest

import xpnet as xn
from xpnet import checks


def zero_d(backend, value):
    home = xn.backend("strict") if backend.name == "strict" else backend  # where the host may read
    return home.asarray(np.asarray(value))


def message(check, *args, **bounds):
    with pytest.raises(ValueError, match=r"^\w+: \w+ must be ") as caught:
        check(*args, **bounds)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What passes comes back as Python's own


@pytest.mark.parametrize("value", [4, np.int64(4), np.uint8(4), np.array(4)])
def test_an_integer_of_any_kind_becomes_an_int(value):
    got = checks.integer("Linear", "nin", value)
    assert got == 4
    assert type(got) is int


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.longdouble(0.5), np.array(0.5), Fraction(1, 2)])
def test_a_number_of_any_kind_becomes_a_float(value):
    got = checks.number("Adam", "lr", value, least=0)
    assert got == 0.5
    assert type(got) is float


def test_a_0d_array_of_any_library_is_a_number(backend):
    assert checks.integer("Linear", "nin", zero_d(backend, np.int32(3))) == 3
    assert checks.number("Adam", "lr", zero_d(backend, np.float32(0.25))) == 0.25
    assert "got True" in message(checks.number, "Adam", "lr", zero_d(backend, True))


def test_bounds_are_in_or_out():
    assert checks.integer("warmup", "steps", 0, least=0) == 0
    assert checks.number("one_cycle", "rise", 1, least=0, most=1) == 1.0
    assert checks.number("a", "b", 0, least=0) == 0.0
    for bounds in ({"above": 0}, {"below": 0}, {"least": 1e-300}, {"most": -1e-300}):
        message(checks.number, "a", "b", 0, **bounds)


# What does not


@pytest.mark.parametrize("value", [True, np.True_, "4", None, 4.0, np.float32(4), np.array([4]), 1j, [4], math.nan])
def test_what_is_no_integer(value):
    assert message(checks.integer, "Linear", "nin", value).startswith("Linear: nin must be an integer of at least 1, ")


@pytest.mark.parametrize("value", [False, np.array(True), "0.1", np.array("0.1"), None, 1j, np.zeros((9, 9)), math.nan])
def test_what_is_no_number(value):
    assert message(checks.number, "Adam", "lr", value).startswith("Adam: lr must be a finite number, got ")


def test_messages():
    assert message(checks.number, "Adam", "lr", math.nan, least=0) == "Adam: lr must be a number of at least 0, got nan"
    assert message(checks.number, "A", "b", np.float64(1), least=0, below=1) == (
        "A: b must be a number of at least 0 and below 1, got 1.0"
    )
    assert message(checks.number, "A", "b", 10**400, above=0).startswith("A: b must be a finite number above 0, got 1")
    assert message(checks.number, "A", "b", -math.inf, most=1) == "A: b must be a finite number of at most 1, got -inf"
    assert len(message(checks.number, "A", "b", "x" * 1000)) < 120


# Precision


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_precision_by_name_or_type(backend, name):
    own = getattr(backend.xp, name)
    assert {checks.precision("init", t) for t in (name, getattr(np, name), np.dtype(name), own)} == {name}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", np.complex64, None, int, float, "f4", np.dtype("i8"), 32])
def test_other_precisions_are_refused(dtype):
    assert message(checks.precision, "Model", dtype).startswith('Model: dtype must be "float32" or "float64", got ')
