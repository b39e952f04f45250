import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import xpnet as xn
from xpnet.arrays import namespace
from xpnet.errors import DataError, ShapeError
from xpnet.testing import assert_close, gradcheck_loss

INF, NAN = math.inf, math.nan
RNG = np.random.default_rng(7)
SIGNS = np.where(RNG.random((4, 3)) < 0.5, -1.0, 1.0)


def probabilities(shape, rng=RNG):
    p = np.exp(rng.normal(size=shape))
    return p / p.sum(axis=-1, keepdims=True)


def wide_huber(p, t):
    return xn.huber(p, t, delta=0.3)


def soft(p, t):
    return xn.binary_cross_entropy(p, t)


CASES = [
    (xn.cross_entropy, RNG.normal(size=(4, 3)), np.asarray([0, 2, 1, 1])),
    (xn.cross_entropy, RNG.normal(size=(1, 5)), np.asarray([4], dtype="uint8")),
    (xn.cross_entropy, RNG.normal(size=(3, 2)), np.zeros(3, dtype="int32")),
    (xn.cross_entropy, 30 * RNG.normal(size=(5, 10)), np.asarray([0, 9, 5, 5, 2])),
    (xn.negative_log_likelihood, probabilities((4, 3)), np.asarray([0, 2, 1, 1])),
    (xn.negative_log_likelihood, probabilities((1, 2)), np.asarray([1])),
    (xn.binary_cross_entropy, RNG.normal(size=(4, 1)), np.asarray([[0.0], [1.0], [1.0], [0.0]])),
    (xn.binary_cross_entropy, RNG.normal(size=6), np.asarray([0, 1, 1, 0, 0, 1])),
    (soft, RNG.normal(size=(4, 3)), RNG.random((4, 3))),
    (xn.mean_squared_error, RNG.normal(size=(4, 3)), RNG.normal(size=(4, 3))),
    (xn.mean_squared_error, RNG.normal(size=5), np.asarray([1, 2, 3, 4, 5])),
    (xn.mean_absolute_error, RNG.normal(size=(4, 3)), RNG.normal(size=(4, 3))),
    (xn.huber, 3 * RNG.normal(size=(4, 3)), RNG.normal(size=(4, 3))),
    (wide_huber, RNG.normal(size=(4, 3)), RNG.normal(size=(4, 3))),
    (xn.hinge, RNG.normal(size=(4, 3)), SIGNS),
    (xn.perceptron, RNG.normal(size=(4, 3)), SIGNS),
]
IDS = [f"{loss.__name__}{k}" for k, (loss, _, _) in enumerate(CASES)]
SAMPLES = [(xn.cross_entropy, "labels"), (xn.negative_log_likelihood, "labels")] + [
    (loss, "same")
    for loss in (
        xn.binary_cross_entropy,
        xn.mean_squared_error,
        xn.mean_absolute_error,
        xn.huber,
        xn.hinge,
        xn.perceptron,
    )
]


@pytest.mark.parametrize(("loss", "prediction", "target"), CASES, ids=IDS)
def test_gradient(backend, loss, prediction, target):
    gradcheck_loss(loss, prediction, target, backend=backend)


@pytest.mark.parametrize(("loss", "kind"), SAMPLES)
def test_gradient_along_random_directions(backend, rng, loss, kind):
    n, c = 400, 10
    labels = rng.integers(0, c, n) if kind == "labels" else np.where(rng.random((n, c)) < 0.5, -1.0, 1.0)
    if loss is xn.binary_cross_entropy:
        labels = (labels + 1) / 2
    prediction = probabilities((n, c), rng) if loss is xn.negative_log_likelihood else rng.normal(size=(n, c))
    gradcheck_loss(loss, prediction, labels, backend=backend)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("loss", "prediction", "target"), CASES, ids=IDS)
def test_dtype_and_place_follow_the_prediction_and_nothing_is_modified(backend, loss, prediction, target, dtype):
    p = backend.asarray(prediction, dtype=dtype)
    t = backend.asarray(target)
    before = [np.array(backend.asnumpy(a)) for a in (p, t)]
    value, gradient = loss(p, t)
    assert tuple(value.shape) == ()
    assert gradient.shape == p.shape
    assert value.dtype == gradient.dtype == p.dtype
    assert backend.owns(value)
    assert backend.owns(gradient)
    for a, b in zip((p, t), before, strict=True):
        assert_close(backend, a, b, multiple=0)


@pytest.mark.parametrize(("loss", "kind"), SAMPLES)
def test_a_batch_of_none_has_the_value_0(backend, loss, kind):
    target = np.zeros(0, dtype="int64") if kind == "labels" else np.zeros((0, 3))
    value, gradient = loss(backend.asarray(np.zeros((0, 3))), backend.asarray(target))
    assert_close(backend, value, np.asarray(0.0))
    assert_close(backend, gradient, np.zeros((0, 3)))


# Exact values, to 50 digits


def exact_softmax(row):
    """Return the probabilities and the logarithm of the sum of exponentials."""
    exps = [Decimal(s).exp() for s in row]
    return [e / sum(exps) for e in exps], sum(exps).ln()


def exact_cross_entropy(scores, labels):
    """Return the value and the softmax of each row."""
    with localcontext(prec=50):
        rows = [exact_softmax(row) for row in scores]
        losses = [total - Decimal(row[k]) for (_, total), row, k in zip(rows, scores, labels, strict=True)]
        return float(sum(losses) / len(losses)), [[float(p) for p in soft] for soft, _ in rows]


def exact_binary(score, target):
    with localcontext(prec=500):
        s, t = Decimal(score), Decimal(target)
        return float(t * (1 + (-s).exp()).ln() + (1 - t) * (1 + s.exp()).ln())


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0, 1e3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cross_entropy_is_exact(backend, scale, dtype):
    scores = (scale * np.random.default_rng(1).normal(size=(5, 4))).astype(dtype)
    labels = [0, 3, 1, 1, 2]
    value, gradient = xn.cross_entropy(backend.asarray(scores), backend.asarray(labels))
    exact, soft = exact_cross_entropy(scores.tolist(), labels)
    assert_close(backend, value, np.asarray(exact), multiple=4, scale=max(exact, 1.0))
    assert_close(backend, gradient, (np.asarray(soft) - np.eye(4)[labels]) / 5, multiple=4 * max(scale, 1.0), scale=0.2)


def test_cross_entropy_of_a_sure_and_right_answer_keeps_its_digits(backend):
    """log softmax = −log1p(e^−30): the shifted sum 1 + 9e-14 loses digits of 9e-14, but none of the loss's scale."""
    value, _ = xn.cross_entropy(backend.asarray([[30.0, 0.0]]), backend.asarray([0]))
    assert_close(backend, value, np.asarray(math.log1p(math.exp(-30))), multiple=2, scale=1.0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_binary_cross_entropy_is_exact(backend, dtype):
    scores = np.asarray([-500.0, -40.0, -1.0, -1e-6, 0.0, 1e-6, 1.0, 40.0, 500.0], dtype=dtype)
    for target in (0.0, 1.0, 0.25):
        t = np.full(scores.shape, target, dtype=dtype)
        for k in range(len(scores)):
            value, _ = xn.binary_cross_entropy(backend.asarray(scores[k : k + 1]), backend.asarray(t[k : k + 1]))
            exact = exact_binary(float(scores[k]), target)
            assert_close(backend, value, np.asarray(exact, dtype), multiple=4, scale=exact)


def test_regression_losses_have_their_values(backend):
    p, t = backend.asarray([[1.0, -2.0], [0.5, 4.0]]), backend.asarray([[0.0, 0.0], [0.25, 1.0]])
    errors = [1.0, -2.0, 0.25, 3.0]
    pairs = [
        (xn.mean_squared_error, math.fsum(e * e for e in errors) / 4),
        (xn.mean_absolute_error, math.fsum(map(abs, errors)) / 4),
        (xn.huber, (0.5 + 1.5 + 0.5 * 0.25**2 + 2.5) / 4),
        (wide_huber, math.fsum(0.3 * (abs(e) - 0.15) if abs(e) > 0.3 else e * e / 2 for e in errors) / 4),
    ]
    for loss, expected in pairs:
        assert_close(backend, loss(p, t)[0], np.asarray(expected), multiple=2)


def test_hinge_and_perceptron_count_what_is_on_the_edge(backend):
    s, y = backend.asarray([2.0, 1.0, 0.5, 0.0, -1.0]), backend.asarray([1.0, 1.0, 1.0, -1.0, 1.0])
    value, gradient = xn.hinge(s, y)
    assert_close(backend, value, np.asarray((0 + 0 + 0.5 + 1 + 2) / 5))
    assert_close(backend, gradient, np.asarray([0, -1, -1, 1, -1]) / 5)
    value, gradient = xn.perceptron(s, y)
    assert_close(backend, value, np.asarray(1 / 5))
    assert_close(backend, gradient, np.asarray([0, 0, 0, 1, -1]) / 5)


# Huge and infinite scores: the limits


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cross_entropy_at_huge_and_infinite_scores(backend, dtype):
    scores = [[1e4, 0, -1e4], [1e4, 0, -1e4], [INF, 0, 0], [-INF, 0, 0], [0, -INF, -INF]]
    soft = [[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0.5, 0.5], [1, 0, 0]]
    labels = [0, 2, 0, 1, 0]
    value, gradient = xn.cross_entropy(backend.asarray(scores, dtype=dtype), backend.asarray(labels))
    assert_close(backend, value, np.asarray((0 + 2e4 + 0 + math.log(2) + 0) / 5), multiple=4)
    assert_close(backend, gradient, (np.asarray(soft) - np.eye(3)[labels]) / 5)


def test_cross_entropy_of_an_impossible_label_is_infinite(backend):
    value, gradient = xn.cross_entropy(backend.asarray([[0.0, -INF]]), backend.asarray([1]))
    assert_close(backend, value, np.asarray(INF))
    assert_close(backend, gradient, [[1.0, -1.0]])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_binary_cross_entropy_at_huge_and_infinite_scores(backend, dtype):
    scores = [1e4, 1e4, -1e4, -1e4, INF, INF, -INF, -INF]
    targets = [1.0, 0.0, 1.0, 0.0] * 2
    for k, expected in enumerate([0.0, 1e4, 1e4, 0.0, 0.0, INF, INF, 0.0]):
        s, t = (backend.asarray([v[k]], dtype=dtype) for v in (scores, targets))
        value, gradient = xn.binary_cross_entropy(s, t)
        assert_close(backend, value, np.asarray(expected), multiple=2)
        assert_close(backend, gradient, [(1.0 if scores[k] > 0 else 0.0) - targets[k]])


def test_negative_log_likelihood_of_probability_0_is_large_but_finite(backend):
    value, gradient = xn.negative_log_likelihood(backend.asarray([[1.0, 0.0]]), backend.asarray([1]))
    tiny = float(np.finfo(np.float64).smallest_normal)
    assert_close(backend, value, np.asarray(-math.log(tiny)))
    assert_close(backend, gradient, [[0.0, -1 / tiny]])


def test_regression_losses_at_infinite_errors(backend):
    p, t = backend.asarray([INF, 0.0]), backend.asarray([0.0, 0.0])
    for loss, slope in ((xn.mean_absolute_error, 0.5), (xn.huber, 0.5)):
        value, gradient = loss(p, t)
        assert_close(backend, value, np.asarray(INF))
        assert_close(backend, gradient, [slope, 0.0])


# Bad input


@pytest.mark.parametrize("loss", [xn.cross_entropy, xn.negative_log_likelihood])
@pytest.mark.parametrize("label", [-1, 3, 255])
def test_a_label_out_of_range_makes_the_loss_nan(backend, loss, label):
    value, _ = loss(backend.asarray(np.full((2, 3), 1 / 3)), backend.asarray([1, label]))
    assert_close(backend, value, np.asarray(NAN))


@pytest.mark.parametrize("loss", [xn.cross_entropy, xn.negative_log_likelihood])
def test_wrong_labels_are_named(backend, loss):
    s = backend.asarray(np.ones((2, 3)))
    told = r"labels must be integers, got .*float64 \(2,\): pass class numbers 0\.\.C-1, or probabilities .* \(2, 3\)"
    with pytest.raises(DataError, match=told):
        loss(s, backend.asarray([0.0, 1.0]))
    one_hot = backend.asarray(np.eye(3, dtype="int64")[:2])
    with pytest.raises(
        ShapeError, match=r"got \(2, 3\) and \(2, 3\): one-hot labels become argmax\(axis=-1\), or prob"
    ):
        loss(s, one_hot)
    with pytest.raises(ShapeError, match=r"expected scores \(N, C\) and labels \(N,\), got \(2, 3\) and \(3,\)"):
        loss(s, backend.asarray([0, 1, 2]))
    with pytest.raises(ShapeError, match=r"got \(2,\) and \(2,\)"):
        loss(s[:, 0], backend.asarray([0, 1]))


@pytest.mark.parametrize("loss", [xn.cross_entropy, xn.negative_log_likelihood])
def test_one_output_and_labels_in_a_column_are_told_what_to_do(backend, loss):
    with pytest.raises(
        ShapeError, match=r"two classes or more, got \(3, 1\), and one output .*: use binary_cross_entropy"
    ):
        loss(backend.asarray(np.ones((3, 1))), backend.asarray([0, 0, 0]))
    with pytest.raises(ShapeError, match=r"got \(2, 3\) and \(2, 1\): make the labels 1-d, labels\[:, 0\]"):
        loss(backend.asarray(np.ones((2, 3))), backend.asarray([[0], [1]]))


REGRESSION = pytest.mark.parametrize("loss", [loss for loss, kind in SAMPLES if kind == "same"])


@REGRESSION
@pytest.mark.parametrize("shape", [(3, 2), (1, 3), (3, 1, 1), (1,), ()])
def test_shapes_that_would_broadcast_are_refused(backend, loss, shape):
    column, other = backend.asarray(np.ones((3, 1))), backend.asarray(np.ones(shape))
    if shape != (3, 1, 1):
        with pytest.raises(ShapeError, match=r"one shape, got \(3, 1\) and \(.*\): reshape the target"):
            loss(column, other)
    with pytest.raises(ShapeError, match=r"one shape, got \(.*\) and \(3,\): reshape the target"):
        loss(other, column[:, 0])


@REGRESSION
def test_a_row_of_targets_is_a_column_too(backend, loss):
    column, row = np.asarray([[1.5], [-2.0], [0.25]]), np.asarray([1.0, -1.0, 1.0])
    expected = loss(backend.asarray(column[:, 0]), backend.asarray(row))
    for p, t in ((column, row), (column[:, 0], row[:, None])):
        value, gradient = loss(backend.asarray(p), backend.asarray(t))
        assert gradient.shape == p.shape
        assert_close(backend, value, backend.asnumpy(expected[0]), multiple=0)
        assert_close(backend, gradient, backend.asnumpy(expected[1]).reshape(p.shape), multiple=0)


@pytest.mark.parametrize("delta", [0.0, -1.0, NAN, np.float32(0)])
def test_a_delta_that_is_not_above_0_is_refused(backend, delta):
    p = backend.asarray([1.0])
    with pytest.raises(ValueError, match=r"delta must be above 0, got "):
        xn.huber(p, p, delta=delta)


@pytest.mark.parametrize("margin", [-0.5, NAN])
def test_a_negative_margin_is_refused(backend, margin):
    p = backend.asarray([1.0])
    with pytest.raises(ValueError, match=r"margin must be at least 0, got "):
        xn.hinge(p, p, margin=margin)


@pytest.mark.parametrize("number", [np.float32, np.float64, int])
def test_settings_may_be_numbers_of_numpy(backend, number):
    p, t = backend.asarray([3.0, -0.5], dtype="float32"), backend.asarray([1.0, 1.0], dtype="float32")
    for loss in (xn.huber, xn.hinge):
        for ours, expected in zip(loss(p, t, number(2)), loss(p, t, 2.0), strict=True):
            assert ours.dtype == p.dtype
            assert_close(backend, ours, backend.asnumpy(expected), multiple=0)


# Narrow types


def halves(backend, host):
    """Yield the array in each type below float32 that the library has."""
    array = backend.asarray(np.asarray(host, dtype="float32"))
    xp = namespace(array=array)
    return [xp.astype(array, getattr(xp, name)) for name in ("float16", "bfloat16") if hasattr(xp, name)]


@pytest.mark.parametrize(("loss", "prediction", "target"), CASES, ids=IDS)
def test_half_precision_is_computed_in_float32(backend, loss, prediction, target):
    for p in halves(backend, prediction):
        xp = namespace(p=p)
        wide = xp.astype(p, xp.float32)
        value, gradient = loss(p, backend.asarray(target))
        expected, slope = loss(wide, backend.asarray(target))
        if loss is xn.negative_log_likelihood:
            slope = xp.astype(slope, p.dtype)
        assert value.dtype == xp.float32
        assert gradient.dtype == p.dtype
        assert_close(backend, value, backend.asnumpy(expected), multiple=0)
        same = gradient == xp.astype(slope, p.dtype)
        assert backend.asnumpy(xp.all(same))


def test_half_precision_does_not_overflow(backend):
    for p in halves(backend, np.full(70_000, 300.0)):
        value, gradient = xn.mean_squared_error(p, backend.asarray(np.zeros(70_000)))
        assert_close(backend, value, np.asarray(9e4), multiple=4)
        assert np.isfinite(np.asarray(backend.asnumpy(namespace(p=p).astype(gradient, backend.xp.float32)))).all()
    for p in halves(backend, [[1.0, 0.0]]):
        _, gradient = xn.negative_log_likelihood(p, backend.asarray([1]))
        assert np.isfinite(backend.asnumpy(namespace(p=p).astype(gradient, backend.xp.float32))).all()


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int64", "bool"])
@REGRESSION
def test_integer_predictions_are_numbers(backend, loss, dtype):
    prediction, target = np.asarray([1, 0, 1]), np.asarray([-1.0, 1.0, 0.25])
    ours = loss(backend.asarray(prediction, dtype=dtype), backend.asarray(target))
    for value, expected in zip(ours, loss(prediction.astype("float64"), target), strict=True):
        assert_close(backend, value, expected)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_labels_of_any_type_reach_300_classes(backend, dtype):
    scores = np.random.default_rng(3).normal(size=(4, 300))
    labels = [0, 44, 100, 127]
    value, gradient = xn.cross_entropy(backend.asarray(scores), backend.asarray(labels, dtype=dtype))
    expected, slope = xn.cross_entropy(scores, np.asarray(labels))
    assert_close(backend, value, expected)
    assert_close(backend, gradient, slope)


def test_integer_scores_have_a_cross_entropy(backend):
    for dtype in ("uint8", "int64"):
        value, gradient = xn.cross_entropy(backend.asarray([[0, 3], [2, 1]], dtype=dtype), backend.asarray([0, 0]))
        assert_close(backend, value, np.asarray((math.log1p(math.exp(3)) + math.log1p(math.exp(-1))) / 2))
        assert_close(backend, backend.xp.sum(gradient, axis=1), np.zeros(2))


@pytest.mark.parametrize("loss", [xn.cross_entropy, xn.mean_squared_error])
def test_lists_and_mixed_libraries_are_refused(backend, loss):
    p = backend.asarray(np.ones((2, 3)))
    with pytest.raises(TypeError, match=r"but .* is a list: convert them with backend.asarray"):
        loss(p, [0, 1])
    with pytest.raises(TypeError, match=r"expected arrays of one library, but .* is a list"):
        loss([[1.0, 2.0]], backend.asarray([0]))
    other = xn.backend("strict" if backend.name == "numpy" else "numpy")
    with pytest.raises(TypeError, match=r"expected arrays of one library, but .* array on .*, .* array on"):
        loss(p, other.asarray([0, 1]))


# Properties


finite = st.floats(-1e3, 1e3, width=32)


@given(st.lists(st.lists(finite, min_size=3, max_size=3), min_size=1, max_size=4), st.data())
def test_cross_entropy_is_never_negative_and_its_gradient_sums_to_0(backend, rows, data):
    if backend.name == "jax":
        rows = rows[:1]  # jax compiles for every shape
    labels = data.draw(st.lists(st.integers(0, 2), min_size=len(rows), max_size=len(rows)))
    value, gradient = xn.cross_entropy(backend.asarray(np.asarray(rows, "float64")), backend.asarray(labels))
    assert backend.asnumpy(value) >= 0
    assert_close(backend, backend.xp.sum(gradient, axis=1), np.zeros(len(rows)))


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=5))
def test_huber_lies_below_both_its_neighbours(backend, pairs):
    if backend.name == "jax":
        pairs = pairs[:1]
    p, t = (backend.asarray(np.asarray(column, "float64")) for column in zip(*pairs, strict=True))
    values = [
        float(backend.asnumpy(loss(p, t)[0])) for loss in (xn.huber, xn.mean_absolute_error, xn.mean_squared_error)
    ]
    slack = 1 + 1e-12
    assert 0 <= values[0] <= min(values[1], values[2] / 2) * slack


wild = st.floats(width=32, allow_nan=True, allow_infinity=True, allow_subnormal=True)


@example([NAN, -0.0, 0.0, INF, -INF, -2.0])
@given(st.lists(wild, min_size=6, max_size=6))
def test_the_slope_of_the_absolute_error_is_the_sign_and_nan_for_nan(backend, numbers):
    p = np.asarray(numbers, dtype="float32")
    if backend.name in ("jax", "cupy"):  # XLA reads what is smaller as 0, and what CuPy compiles: -ftz=true
        p[np.abs(p) < np.finfo("float32").smallest_normal] = 0
    with np.errstate(over="ignore"):  # of the value
        _, gradient = xn.mean_absolute_error(backend.asarray(p), backend.asarray(np.zeros(6, "float32")))
    assert_close(backend, gradient, np.sign(p) * (1 / 6), multiple=1)


TORCH = {
    "cross_entropy": "cross_entropy",
    "mean_squared_error": "mse_loss",
    "mean_absolute_error": "l1_loss",
    "huber": "huber_loss",
    "binary_cross_entropy": "binary_cross_entropy_with_logits",
}


@pytest.mark.parametrize("ours", TORCH)
@pytest.mark.parametrize("column", [False, True])
def test_values_and_gradients_are_those_of_pytorch(backend, rng, ours, column):
    torch = pytest.importorskip("torch")
    shape = (6, 1) if column and ours != "cross_entropy" else (6, 4)
    p, t = rng.normal(size=shape), rng.random(shape)
    t = rng.integers(0, 4, 6) if ours == "cross_entropy" else t
    theirs = torch.tensor(p, requires_grad=True)
    expected = getattr(torch.nn.functional, TORCH[ours])(theirs, torch.tensor(t))
    expected.backward()
    target = t[:, 0] if shape == (6, 1) else t
    value, gradient = getattr(xn, ours)(backend.asarray(p), backend.asarray(target))
    assert_close(backend, value, expected.detach().numpy(), multiple=4)
    assert_close(backend, gradient, theirs.grad.numpy(), multiple=4)
