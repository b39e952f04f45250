import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpnet import arrays
from xpnet import backend as find_backend
from xpnet.errors import DataError, ShapeError
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
        _, same, t = arrays.same_shape(p, backend.asarray([3, 4], dtype=dtype))
        assert same is p
        assert t.dtype == p.dtype
        assert_close(backend, t, [3.0, 4.0], multiple=0)
    for shape in ([[3.0, 4.0]], [[3.0, 4.0], [5.0, 6.0]], 3.0, [[[3.0]], [[4.0]]]):
        with pytest.raises(ShapeError, match=r"one shape, got \(2,\) and \(.*\): reshape the target"):
            arrays.same_shape(p, backend.asarray(shape))


def test_a_column_and_a_row_of_samples_are_the_same_and_the_predictions_shape_is_kept(backend):
    row, column = backend.asarray([3.0, 4.0]), backend.asarray([[5.0], [6.0]])
    for prediction, target in ((row, column), (column, row)):
        _, p, t = arrays.same_shape(prediction, target)
        assert p.shape == t.shape == prediction.shape
        assert_close(backend, t, backend.asnumpy(target).reshape(prediction.shape))


@pytest.mark.parametrize("dtype", ["uint8", "int64", "bool"])
def test_integers_are_computed_in_the_widest_type(backend, dtype):
    prediction = backend.asarray([1, 0], dtype=dtype)
    xp, p, t = arrays.same_shape(prediction, backend.asarray([0.5, 2.0], dtype="float32"))
    assert p.dtype == t.dtype == xp.float64
    assert_close(backend, p, [1.0, 0.0])


def test_what_is_no_real_number_is_refused(backend):
    with pytest.raises(DataError, match=r"expected real numbers, got .*complex64: convert them with astype"):
        arrays.same_shape(*[backend.asarray(np.ones(2, "complex64"))] * 2)


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
