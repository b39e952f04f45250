"""Losses of scores on any axes, with what is ignored, smoothed or weighted: gradients, PyTorch's values, bad input."""

import itertools
import math
from functools import partial

import numpy as np
import pytest

import xpnet as xn
from xpnet.errors import DataError, ShapeError
from xpnet.losses.choices import counted
from xpnet.testing import assert_close, gradcheck_loss

INF, NAN = math.inf, math.nan
NUMPY = xn.backend("numpy")
SHAPES = [(5, 3), (2, 3, 4), (2, 1, 2, 3)]
CLASSES = [0.5, 2.0, 1.25, 0.0, 3.0]
LABELLED = [xn.cross_entropy, xn.negative_log_likelihood, xn.focal]


def softmax(scores):
    exp = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)


def data(loss, shape, soft=False, ignored=False, seed=0):
    """Return a prediction and targets for a loss, with a label of -1 here and there if some are to be ignored."""
    rng = np.random.default_rng((seed, *shape))
    scores = rng.normal(size=shape)
    prediction = softmax(scores / 2) if loss is xn.negative_log_likelihood else scores
    if loss is xn.poisson:
        return prediction, rng.poisson(2.0, shape).astype(float)
    if soft or loss is xn.kl_divergence:
        return prediction, softmax(2 * rng.normal(size=shape))
    labels = rng.integers(0, shape[-1], shape[:-1])
    if ignored:
        labels[rng.random(labels.shape) < 0.3] = -1
        labels.flat[0] = 0
    return prediction, labels


def settings(loss, shape, names):
    """Return the keywords that go by these names."""
    rng = np.random.default_rng(len(names))
    known = {
        "ignore_index": -1,
        "label_smoothing": 0.2,
        "class_weight": (CLASSES * 2)[: shape[-1]],
        "weights": rng.uniform(0.5, 2.0, shape[0]),
        "gamma": 0.7,
    }
    return {name: known[name] for name in names}


NAMES = ["ignore_index", "label_smoothing", "class_weight", "weights"]
HARD = [names for r in range(5) for names in itertools.combinations(NAMES, r)]
CASES = [(xn.cross_entropy, shape, False, names) for shape in SHAPES for names in HARD]
CASES += [
    (loss, shape, False, names)
    for loss in LABELLED[1:]
    for shape in SHAPES
    for names in HARD
    if "label_smoothing" not in names
]
CASES += [(xn.focal, shape, False, ("gamma", *names)) for shape in SHAPES[:2] for names in [(), ("class_weight",)]]
CASES += [
    (loss, shape, True, names)
    for loss in (xn.cross_entropy, xn.negative_log_likelihood)
    for shape in SHAPES
    for names in [(), ("class_weight",), ("weights",), ("class_weight", "weights")]
]
CASES += [(xn.cross_entropy, shape, True, ("label_smoothing", "class_weight")) for shape in SHAPES]
CASES += [
    (loss, shape, True, n) for loss in (xn.kl_divergence, xn.poisson) for shape in SHAPES for n in [(), NAMES[3:]]
]


def name(case):
    loss, shape, soft, names = case
    return "-".join([loss.__name__, "x".join(map(str, shape)), *(["soft"] if soft else []), *names])


def on(backend, case):
    """Return loss with its settings, prediction and target, the latter two on the host."""
    loss, shape, soft, names = case
    chosen = settings(loss, shape, names)
    if "weights" in chosen:
        chosen["weights"] = backend.asarray(chosen["weights"])
    return (partial(loss, **chosen), *data(loss, shape, soft, "ignore_index" in names))


@pytest.mark.parametrize("case", CASES, ids=name)
def test_gradient(case):
    loss, prediction, target = on(NUMPY, case)
    gradcheck_loss(loss, prediction, target, backend=NUMPY)


SOME = [
    (xn.cross_entropy, (2, 3, 4), False, ("ignore_index", "class_weight", "weights")),
    (xn.cross_entropy, (2, 3, 4), False, tuple(NAMES)),
    (xn.cross_entropy, (2, 3, 4), True, ("label_smoothing", "class_weight", "weights")),
    (xn.negative_log_likelihood, (2, 3, 4), False, ("ignore_index", "class_weight")),
    (xn.focal, (2, 3, 4), False, ("ignore_index", "class_weight", "weights")),
    (xn.kl_divergence, (2, 3, 4), True, ("weights",)),
    (xn.poisson, (2, 3, 4), True, ("weights",)),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", SOME, ids=name)
def test_every_backend_gives_numpys_numbers_compiled_too(backend, case, dtype):
    loss, prediction, target = on(backend, case)
    p, t = backend.asarray(prediction, dtype=dtype), backend.asarray(target)
    value, gradient = backend.jit(loss)(p, t)
    expected = on(NUMPY, case)[0](prediction.astype(dtype), target)
    assert value.dtype == gradient.dtype == p.dtype
    assert gradient.shape == p.shape
    assert backend.owns(value)
    assert_close(backend, value, expected[0], multiple=16, scale=4.0)
    assert_close(backend, gradient, expected[1], multiple=16)


# PyTorch


def torch_pair(loss, prediction, target, soft):
    """Return prediction and target as PyTorch wants them, the classes on the second axis."""
    import torch

    order = (0, prediction.ndim - 1, *range(1, prediction.ndim - 1))
    leaf = torch.tensor(prediction, requires_grad=True)
    return leaf, leaf.permute(order).contiguous(), torch.tensor(target).permute(order) if soft else torch.tensor(target)


@pytest.mark.parametrize("case", [case for case in CASES if "weights" not in case[3]], ids=name)
def test_values_and_gradients_are_those_of_pytorch(case):
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    loss, shape, soft, names = case
    function, prediction, target = on(NUMPY, case)
    if shape[-1] > 3:
        target = np.where(target == 3, 0, target) if not soft else target  # PyTorch's mean of no weight is NaN
    chosen = settings(loss, shape, names)
    leaf, p, t = torch_pair(loss, prediction, target, soft)
    rest = {"ignore_index": -1 if not soft else -100}
    rest |= {"weight": torch.tensor(chosen["class_weight"], dtype=torch.float64)} if "class_weight" in chosen else {}
    if loss is xn.cross_entropy:
        expected = F.cross_entropy(p, t, label_smoothing=chosen.get("label_smoothing", 0.0), **rest)
    elif loss is xn.poisson:
        expected = F.poisson_nll_loss(p, t, log_input=True, full=False)
    elif loss is xn.kl_divergence:
        expected = F.kl_div(F.log_softmax(p, 1), t, reduction="sum") / math.prod(shape[:-1])
    elif soft:
        weight = rest.get("weight", torch.ones(shape[-1])).reshape(1, -1, *[1] * (len(shape) - 2))
        expected = -(weight * t * torch.log(p)).sum() / math.prod(shape[:-1])
    elif loss is xn.negative_log_likelihood:
        expected = F.nll_loss(torch.log(p), t, **rest)
    else:
        each = F.nll_loss(F.log_softmax(p, 1), t, reduction="none", ignore_index=-1)
        each = (1 - torch.exp(-each)) ** chosen.get("gamma", 2.0) * each
        weight = rest.get("weight", torch.ones(shape[-1], dtype=torch.float64))[t.clamp(min=0)] * (t != -1)
        expected = (weight * each).sum() / weight.sum()
    expected.backward()
    value, gradient = function(prediction, target)
    assert abs(value - expected.item()) <= 1e-12
    assert np.max(np.abs(gradient - leaf.grad.numpy())) <= 1e-12


# What the settings mean


@pytest.mark.parametrize("loss", LABELLED, ids=lambda loss: loss.__name__)
def test_rows_of_positions_are_rows(backend, loss):
    prediction, labels = data(loss, (2, 3, 4))
    expected = loss(backend.asarray(prediction.reshape(6, 4)), backend.asarray(labels.reshape(6)))
    value, gradient = loss(backend.asarray(prediction), backend.asarray(labels))
    assert_close(backend, value, backend.asnumpy(expected[0]), multiple=0)
    assert_close(backend, gradient, backend.asnumpy(expected[1]).reshape(2, 3, 4), multiple=0)


@pytest.mark.parametrize(
    "loss", [*LABELLED, partial(xn.cross_entropy, label_smoothing=0.1)], ids=["cross", "likelihood", "focal", "smooth"]
)
def test_what_is_ignored_is_not_there(backend, loss):
    prediction, labels = data(loss, (4, 3, 5))
    prediction = softmax(prediction)
    gone = np.random.default_rng(3).random((4, 3)) < 0.4
    expected = loss(backend.asarray(prediction[~gone]), backend.asarray(labels[~gone]))
    prediction[gone], labels[gone] = NAN, -100
    settled = backend.jit(partial(loss, ignore_index=-100))
    value, gradient = settled(backend.asarray(prediction), backend.asarray(labels))
    assert_close(backend, value, backend.asnumpy(expected[0]))
    slopes = np.zeros(prediction.shape)
    slopes[~gone] = backend.asnumpy(expected[1])
    assert_close(backend, gradient, slopes)


@pytest.mark.parametrize("loss", LABELLED, ids=lambda loss: loss.__name__)
@pytest.mark.parametrize("more", [{}, {"class_weight": [1.0, 2.0, 0.5]}], ids=["", "class_weight"])
def test_if_all_is_ignored_value_and_gradient_are_0(backend, loss, more):
    value, gradient = loss(
        backend.asarray(np.full((2, 3), 0.4)), backend.asarray([7, 7]), ignore_index=np.int64(7), **more
    )
    assert_close(backend, value, np.asarray(0.0), multiple=0)
    assert_close(backend, gradient, np.zeros((2, 3)), multiple=0)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "int64"])
def test_labels_of_any_integer_type_are_compared_with_what_is_ignored(backend, dtype):
    """In an unsigned type −1 is no number, or the largest."""
    scores = backend.asarray(np.random.default_rng(0).normal(size=(3, 4)))
    top = np.iinfo(dtype).max
    value, _ = xn.cross_entropy(scores, backend.asarray(np.asarray([1, 0, top], dtype)), ignore_index=-1)
    assert_close(backend, value, np.asarray(NAN))
    if top < 2**31:
        value, _ = xn.cross_entropy(scores, backend.asarray(np.asarray([1, 0, top], dtype)), ignore_index=top)
        expected, _ = xn.cross_entropy(scores[:2, :], backend.asarray([1, 0]))
        assert_close(backend, value, backend.asnumpy(expected))


@pytest.mark.parametrize("loss", LABELLED, ids=lambda loss: loss.__name__)
@pytest.mark.parametrize("label", [3, -1, -100])
def test_a_label_out_of_range_makes_the_loss_nan_whatever_else_is_set(backend, loss, label):
    p = backend.asarray(np.full((3, 3), 1 / 3))
    labels = backend.asarray([0, label, -2])
    for more in ({"class_weight": [0.0, 1.0, 1.0]}, {}):
        assert_close(backend, loss(p, labels, ignore_index=-2, **more)[0], np.asarray(NAN))


@pytest.mark.parametrize("names", [*HARD[::3], ("class_weight",), ("class_weight", "label_smoothing")], ids="-".join)
def test_a_weight_holds_for_all_positions_of_its_sample(names):
    names = [name for name in names if name != "weights"]
    shape, counts = (4, 3, 4), [2, 0, 1, 3]
    prediction, labels = data(xn.cross_entropy, shape, ignored=True)
    chosen = settings(xn.cross_entropy, shape, names) | {"ignore_index": -1}
    value, gradient = xn.cross_entropy(prediction, labels, weights=np.asarray(counts), **chosen)
    rows = np.repeat(np.arange(4), counts)
    expected, slopes = xn.cross_entropy(prediction[rows], labels[rows], **chosen)
    summed = np.zeros(shape)
    np.add.at(summed, rows, slopes)
    np.testing.assert_allclose(value, expected, rtol=1e-14)
    np.testing.assert_allclose(gradient, summed, atol=1e-15)


def test_one_hot_probabilities_are_labels(backend):
    scores, labels = data(xn.cross_entropy, (6, 4))
    for more in ({}, {"label_smoothing": 0.3}):
        expected = xn.cross_entropy(backend.asarray(scores), backend.asarray(labels), **more)
        soft = xn.cross_entropy(backend.asarray(scores), backend.asarray(np.eye(4)[labels]), **more)
        for ours, wanted in zip(soft, expected, strict=True):
            assert_close(backend, ours, backend.asnumpy(wanted))


@pytest.mark.parametrize("scale", [1e-60, 1.0, 1e60])
@pytest.mark.parametrize("kind", [list, tuple, np.asarray, "array"])
def test_class_weights_come_in_any_form_and_only_their_ratios_count(backend, kind, scale):
    scores, labels = data(xn.cross_entropy, (6, 4))
    expected = xn.cross_entropy(scores.astype("float32"), labels, class_weight=CLASSES[:4])
    host = [scale * weight for weight in CLASSES[:4]]
    given = backend.asarray(host) if kind == "array" else kind(host)
    ours = xn.cross_entropy(backend.asarray(scores, dtype="float32"), backend.asarray(labels), class_weight=given)
    for got, wanted in zip(ours, expected, strict=True):
        assert_close(backend, got, wanted, multiple=8)


def test_a_gamma_of_0_is_cross_entropy_and_a_larger_one_less(backend):
    scores, labels = data(xn.focal, (6, 4))
    s, t = backend.asarray(scores), backend.asarray(labels)
    for ours, expected in zip(xn.focal(s, t, 0.0), xn.cross_entropy(s, t), strict=True):
        assert_close(backend, ours, backend.asnumpy(expected))
    values = [float(backend.asnumpy(xn.focal(s, t, gamma)[0])) for gamma in (0.0, 0.5, 1.0, 2.0, 5.0)]
    assert values == sorted(values, reverse=True)
    assert_close(backend, xn.focal(s, t)[0], np.asarray(values[3]), multiple=0)


def test_kl_divergence_is_0_where_the_distributions_agree_and_never_less(backend):
    scores = np.random.default_rng(5).normal(size=(6, 4))
    value, gradient = xn.kl_divergence(backend.asarray(scores), backend.asarray(softmax(scores)))
    assert_close(backend, value, np.asarray(0.0), scale=1.0)
    assert_close(backend, gradient, np.zeros((6, 4)), scale=1.0)
    assert float(backend.asnumpy(xn.kl_divergence(backend.asarray(-scores), backend.asarray(softmax(scores)))[0])) > 0


def test_kl_divergence_is_cross_entropy_less_the_targets_entropy(backend):
    scores, targets = data(xn.kl_divergence, (2, 3, 4))
    s, t = backend.asarray(scores), backend.asarray(targets)
    divergence, cross = xn.kl_divergence(s, t), xn.cross_entropy(s, t)
    entropy = -np.sum(targets * np.log(targets)) / 6
    assert_close(backend, divergence[0], backend.asnumpy(cross[0]) - entropy, multiple=8, scale=1.0)
    assert_close(backend, divergence[1], backend.asnumpy(cross[1]))


# Huge and infinite scores: the limits


@pytest.mark.parametrize(("dtype", "gamma"), [("float32", 2.0), ("float64", 1.0), ("float64", 0.5), ("float64", 0.0)])
def test_focal_at_huge_and_infinite_scores(backend, dtype, gamma):
    scores = [[1e4, 0, -1e4], [1e4, 0, -1e4], [INF, 0, 0], [-INF, 0, 0]]
    soft, labels = np.asarray([[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0.5, 0.5]]), [0, 2, 0, 1]
    value, gradient = backend.jit(partial(xn.focal, gamma=gamma))(
        backend.asarray(scores, dtype=dtype), backend.asarray(labels)
    )
    p = 0.5
    slopes = np.asarray([0.0, 1.0, 0.0, (1 - p) ** gamma - gamma * (1 - p) ** (gamma - 1) * p * math.log(p)])
    assert_close(backend, value, np.asarray((2e4 + (1 - p) ** gamma * math.log(2)) / 4), multiple=4)
    assert_close(backend, gradient, slopes[:, None] * (soft - np.eye(3)[labels]) / 4, multiple=4)


@pytest.mark.parametrize("loss", [xn.focal, partial(xn.cross_entropy, label_smoothing=0.1)], ids=["focal", "smooth"])
def test_what_cannot_be_is_infinite(backend, loss):
    value, gradient = backend.jit(loss)(backend.asarray([[0.0, -INF]]), backend.asarray([1]))
    assert_close(backend, value, np.asarray(INF))
    assert np.isfinite(backend.asnumpy(gradient)).all()


def test_a_probability_of_0_asks_nothing_of_an_infinite_score(backend):
    s, t = backend.asarray([[0.0, -INF], [INF, 1.0]]), backend.asarray([[1.0, 0.0], [1.0, 0.0]])
    for loss in (xn.cross_entropy, xn.kl_divergence):
        value, gradient = backend.jit(loss)(s, t)
        assert_close(backend, value, np.asarray(0.0))
        assert_close(backend, gradient, np.zeros((2, 2)))
    assert_close(backend, xn.kl_divergence(s[:1, :], 1.0 - t[:1, :])[0], np.asarray(INF))


def test_poisson_at_huge_and_infinite_scores(backend):
    scores, counts = [-INF, -INF, INF, 1e4, -1e4, -1e4], [0.0, 2.0, 3.0, 3.0, 0.0, 2.0]
    with np.errstate(over="ignore"):
        for score, count, expected in zip(scores, counts, [0.0, INF, INF, INF, 0.0, 2e4], strict=True):
            s, t = backend.asarray([score]), backend.asarray([count])
            value, gradient = xn.poisson(s, t)
            assert_close(backend, value, np.asarray(expected))
            assert_close(backend, gradient, np.asarray([INF if score > 0 else -count]))


# Bad input


def refused(error, message, call, *arguments, **keywords):
    with pytest.raises(error) as caught:
        call(*arguments, **keywords)
    assert str(caught.value) == message


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, 1.5, NAN])
def test_smoothing_outside_0_to_1(smoothing):
    s, t = NUMPY.asarray(np.zeros((2, 3))), NUMPY.asarray([0, 1])
    message = f"label_smoothing must be at least 0 and below 1, got {smoothing}"
    refused(ValueError, message, xn.cross_entropy, s, t, label_smoothing=smoothing)


@pytest.mark.parametrize("gamma", [-0.5, INF, NAN])
def test_a_gamma_below_0(gamma):
    s, t = NUMPY.asarray(np.zeros((2, 3))), NUMPY.asarray([0, 1])
    refused(ValueError, f"gamma must be at least 0 and finite, got {gamma}", xn.focal, s, t, gamma)


@pytest.mark.parametrize("ignored", [0.5, True, "0", 2**31])
@pytest.mark.parametrize("loss", LABELLED, ids=lambda loss: loss.__name__)
def test_what_is_ignored_must_be_an_integer(loss, ignored):
    s, t = NUMPY.asarray(np.zeros((2, 3))), NUMPY.asarray([0, 1])
    message = f"ignore_index must be an integer of 32 bits, such as -1, got {ignored!r}"
    refused(ValueError, message, loss, s, t, ignore_index=ignored)


@pytest.mark.parametrize("loss", LABELLED, ids=lambda loss: loss.__name__)
@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ([1.0, 2.0], ShapeError, "class_weight must hold 3 numbers, one a class, got 2"),
        (1.0, ShapeError, "class_weight must hold 3 numbers, one a class, got a float"),
        ([[1.0, 2.0]] * 3, ShapeError, "class_weight must hold 3 numbers, one a class, got a list"),
        ([1.0, -2.0, 1.0], ValueError, "class_weight must be at least 0 and finite, got -2.0 for class 1"),
        ((1.0, 2.0, INF), ValueError, "class_weight must be at least 0 and finite, got inf for class 2"),
        ([NAN, 2.0, 1.0], ValueError, "class_weight must be at least 0 and finite, got nan for class 0"),
    ],
)
def test_class_weights_that_are_none(backend, loss, weights, error, message):
    s, t = backend.asarray(np.zeros((2, 3))), backend.asarray([0, 1])
    refused(error, message, loss, s, t, class_weight=weights)
    array = backend.asarray([1.0, 2.0])
    if backend.name != "numpy":
        message = "class_weight must hold 3 numbers, one a class, got an array (2,)"
        refused(ShapeError, message, loss, s, t, class_weight=array)


def test_shapes_that_do_not_belong_together():
    def asked(loss, shape, labels, dtype="int64"):
        return loss, NUMPY.asarray(np.zeros(shape)), NUMPY.asarray(np.zeros(labels, dtype))

    wrong = "expected scores (N, T, C) and labels (N, T), got (2, 5, 3) and"
    for loss in LABELLED:
        refused(ShapeError, f"{wrong} (2, 4)", *asked(loss, (2, 5, 3), (2, 4)))
        refused(ShapeError, f"{wrong} (10,)", *asked(loss, (2, 5, 3), (10,)))
        last = f"{wrong} (2, 5, 1): drop the last axis, labels[..., 0]"
        refused(ShapeError, last, *asked(loss, (2, 5, 3), (2, 5, 1)))
        second = f"{wrong} (2, 3): the classes are the last axis of the scores here, not the second"
        refused(ShapeError, second, *asked(loss, (2, 5, 3), (2, 3)))
        hot = f"{wrong} (2, 5, 3): one-hot labels become argmax(axis=-1), or probabilities by astype(float)"
        refused(ShapeError, hot, *asked(loss, (2, 5, 3), (2, 5, 3)))
        with pytest.raises(DataError, match=r"^labels must be integers, got .*float64 \(2, 5\): pass class numbers"):
            loss(*asked(loss, (2, 5, 3), (2, 5), "float64")[1:])
    one = "two classes or more, got (4, 1), and one output has nothing to choose between"
    for loss in (xn.cross_entropy, xn.kl_divergence):
        with pytest.raises(ShapeError) as caught:
            loss(*asked(loss, (4, 1), (4, 1), "float64")[1:])
        assert one in str(caught.value)
    with pytest.raises(
        ShapeError, match=r"^expected scores \(N, C\) and .*probabilities \(N, C\), got \(4,\) and \(4,\)"
    ):
        xn.cross_entropy(*asked(xn.cross_entropy, (4,), (4,), "float64")[1:])
    message = "expected scores and target probabilities of one shape, got (2, 3) and (2,): class numbers are for "
    refused(ShapeError, f"{message}cross_entropy", *asked(xn.kl_divergence, (2, 3), (2,)))


def test_probabilities_have_none_to_ignore():
    s = NUMPY.asarray(np.zeros((2, 3)))
    message = "ignore_index is for class numbers, but the labels are probabilities: use weights"
    refused(DataError, message, xn.cross_entropy, s, s, ignore_index=0)


def test_one_weight_a_sample_not_a_position():
    s, t = NUMPY.asarray(np.zeros((2, 5, 3))), NUMPY.asarray(np.zeros((2, 5), int))
    for loss, target in ((xn.cross_entropy, t), (xn.focal, t), (xn.kl_divergence, s)):
        with pytest.raises(ShapeError, match=r"expected weights \(2,\), one a sample, got \(2, 5\)"):
            loss(s, target, weights=NUMPY.asarray(np.ones((2, 5))))


# What a mean is divided by


def test_what_counts_in_a_batch(backend):
    labels = backend.asarray([[0, 2, -1], [1, -1, -1]])
    home = backend.asnumpy
    assert counted(labels) == 2
    assert float(home(counted(labels, -1))) == 3
    assert float(home(counted(labels, -1, [1.0, 2.0, 4.0]))) == (1 + 4 + 2) / 4
    assert float(home(counted(backend.asarray([0, 1]), None, np.asarray([1.0, 3.0])))) == (1 + 3) / 3
    assert counted(backend.asarray(np.ones((5, 3))), None, [1.0, 3.0, 2.0]) == 5
