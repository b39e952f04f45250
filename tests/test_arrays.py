import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpnet import arrays
from xpnet import backend as find_backend
from xpnet.errors import ShapeError
from xpnet.testing import assert_close

INF = math.inf


def test_namespace_of_arrays_of_one_library(backend):
    a, b = backend.asarray([1.0]), backend.asarray([1])
    assert arrays.namespace(a=a, b=b) is arrays.namespace(b=b)
    assert hasattr(arrays.namespace(a=a), "matmul")


def test_namespace_refuses_what_is_no_array_or_of_two_libraries(backend):
    a = backend.asarray([1.0])
    with pytest.raises(TypeError, match=r"expected arrays of one library, but a is .*, b is a list: convert them"):
        arrays.namespace(a=a, b=[1.0])
    other = find_backend("strict" if backend.name == "numpy" else "numpy").asarray([1.0])
    with pytest.raises(
        TypeError, match=r"a is a \w+ array on .*, other is a \w+ array on .*: convert them with backend"
    ):
        arrays.namespace(a=a, other=other)


def test_describe(backend):
    name = {"strict": "array_api_strict"}.get(backend.name, backend.name)
    assert arrays.describe(backend.asarray([1.0])).startswith(f"a {name} array on ")
    assert arrays.describe([1]) == "a list"
    assert arrays.describe(1.0) == "a float"
    assert arrays.describe(None) == "a NoneType"


def test_same_shape_makes_the_target_a_number_of_the_predictions_kind(backend):
    p = backend.asarray([1.0, 2.0], dtype="float32")
    for dtype in ("int64", "uint8", "float64", "float32"):
        _, t = arrays.same_shape(p, backend.asarray([3, 4], dtype=dtype))
        assert t.dtype == p.dtype
        assert_close(backend, t, [3.0, 4.0], multiple=0)
    with pytest.raises(ShapeError, match=r"got \(2,\) and \(2, 1\): reshape the target"):
        arrays.same_shape(p, backend.asarray([[3.0], [4.0]]))


def test_is_floating(backend):
    assert arrays.is_floating(backend.xp, backend.asarray([1.0]))
    assert not arrays.is_floating(backend.xp, backend.asarray([1]))


def test_each_takes_a_vector_or_its_windows():
    assert arrays.each(lambda a, b: a + b, 1, 2) == 3
    assert arrays.each(lambda a, b: a + b, (1, 10), (2, 20)) == (3, 30)
    with pytest.raises(ValueError, match="zip"):
        arrays.each(lambda a, b: a + b, (1, 10), (2,))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sigmoid_is_accurate_at_both_ends(backend, dtype):
    x = np.asarray([-INF, -1e4, -80.0, -20.0, -1.0, 0.0, 1.0, 20.0, 80.0, 1e4, INF])
    y = arrays.sigmoid(backend.xp, backend.asarray(x, dtype=dtype))
    exact = [0.0, 0.0, *(1 / (1 + math.exp(-v)) for v in x[2:-2]), 1.0, 1.0]
    assert y.shape == (len(exact),)
    for k, expected in enumerate(exact):  # one by one: each to its own precision
        assert_close(backend, y[k], expected, dtype=dtype, multiple=4, scale=expected)


@given(st.lists(st.floats(-700, 700), min_size=2, max_size=5))
def test_sigmoid_of_minus_x_is_the_rest(backend, x):
    x = backend.asarray(np.resize(np.asarray(x), 4))  # one shape: jax compiles for every other
    total = arrays.sigmoid(backend.xp, x) + arrays.sigmoid(backend.xp, -x)
    assert_close(backend, total, np.ones(4), multiple=2)


def test_exp_shifted_does_not_overflow_and_keeps_infinities_apart(backend):
    x = backend.asarray([[1e300, -1e300, 1e300], [INF, 0.0, INF], [-INF, 0.0, 1.0], [-INF, -INF, -INF]])
    shifted, exp, total = arrays.exp_shifted(backend.xp, x)
    e = math.exp(-1.0)
    assert_close(backend, exp, [[1, 0, 1], [1, 0, 1], [0, e, 1], [1, 1, 1]])
    assert_close(backend, total, [[2], [2], [1 + e], [3]])
    assert_close(backend, shifted, [[0, -2e300, 0], [0, -INF, 0], [-INF, -1, 0], [0, 0, 0]])
