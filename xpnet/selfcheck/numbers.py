"""Checks of single things: layers, losses, optimizers, rules, masks, kernels, gradients, the limits."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from xpnet import losses, random, schedules
from xpnet.arrays import Array
from xpnet.backends import Backend
from xpnet.backends import backend as find_backend
from xpnet.data.batches import gather
from xpnet.layers import (
    GELU,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Embedding,
    Flatten,
    GroupNorm,
    Layer,
    LayerNorm,
    LeakyReLU,
    Linear,
    Masked,
    MaxPool2d,
    MultiHeadAttention,
    Parallel,
    Pooled,
    Positions,
    ReLU,
    Residual,
    Scale,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
    Tied,
    TransformerBlock,
)
from xpnet.optimizers import (
    SGD,
    Adam,
    AdamW,
    Lion,
    NAdam,
    Optimizer,
    RMSProp,
    adam,
    decay,
    finite,
    lion,
    nadam,
    rmsprop,
    sgd,
)
from xpnet.parameters import Shape
from xpnet.testing import gradcheck, gradcheck_loss
from xpnet.testing.trial import draw_trial

Figures = dict[str, Any]

ELEMENTWISE, PRODUCT, STEPS = 64, 256, 256
"""Tolerances, in units of eps times the largest number of the answer: for one operation after another, for sums of
hundreds, for a hundred optimizer steps. They allow for fused multiply-add, for sums in another order, and for
subnormal numbers that are flushed to zero."""

LAYERS: list[tuple[Layer, Any]] = [
    (Linear(7, 5), (6, 7)),
    (Linear(7, 5, bias=False), (6, 7)),
    (ReLU(), (4, 9)),
    (LeakyReLU(0.1), (4, 9)),
    (Tanh(), (4, 9)),
    (Sigmoid(), (4, 9)),
    (GELU(), (4, 9)),
    (GELU("none"), (4, 9)),
    (SiLU(), (4, 9)),
    (Softmax(), (4, 9)),
    (Flatten(), (3, 4, 2)),
    (Scale(1 / 255, 0.5), (4, 9)),
    (Dropout(0.4), (4, 9)),
    (Residual(Linear(6, 6), Tanh()), (5, 6)),
    (Sequential(Linear(9, 8), ReLU(), Linear(8, 7), ReLU(), Dropout(0.2), Linear(7, 4), ReLU()), (5, 9)),
    (Sequential(Linear(3, 129), ReLU(), Linear(129, 1)), (1, 3)),
    (Parallel(Linear(6, 3), Sequential(), join="concat"), (5, 6)),
    (Conv2d(3, 4, 3, stride=2, padding=1), (4, 9, 8, 3)),
    (Conv2d(4, 8, (3, 2), padding="same", dilation=2, groups=2), (3, 6, 7, 4)),
    (Conv2d(4, 4, 3, groups=4, bias=False), (3, 6, 7, 4)),
    (ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1), (3, 4, 5, 4)),
    (MaxPool2d(3, 2, 1), (3, 7, 6, 4)),
    (AvgPool2d(2), (3, 7, 6, 4)),
    (BatchNorm(5), (4, 3, 2, 5)),
    (GroupNorm(2, 6), (4, 3, 2, 6)),
    (Embedding(5, 3), (4, 6)),
    (MultiHeadAttention(6, 2, causal=True, dropout=0.2), (3, 5, 6)),
    (Masked(MultiHeadAttention(6, 3, rotary=True), Pooled()), ((3, 5, 6), (3, 5))),
    (Tied(Embedding(7, 6), Positions(8, 6), TransformerBlock(6, 2, causal=True), LayerNorm(6)), (3, 5)),
]
"""With the shapes of what they are given; where that is two inputs, of both."""
LARGE: tuple[Layer, Shape] = (Sequential(Linear(784, 130), ReLU(), Linear(130, 10)), (128, 784))

OPTIMIZERS: list[Optimizer] = [
    SGD(0.1, weight_decay=0.01),
    SGD(0.1, momentum=0.9),
    SGD(0.1, momentum=0.9, nesterov=True, clip_norm=1.0),
    RMSProp(0.01),
    Adam(0.01, weight_decay=0.01),
    AdamW(schedules.cosine(0.01, steps=100), clip_norm=0.5),
    Adam(0.01, amsgrad=True),
    NAdam(0.01),
    Lion(0.001, weight_decay=0.1),
]
RULES: dict[Any, tuple[int, int, int]] = {
    sgd.sgd_rule: (1, 1, 1),
    sgd.momentum_rule: (2, 1, 2),
    sgd.nesterov_rule: (2, 1, 2),
    rmsprop.rmsprop_rule: (2, 1, 4),
    adam.adam_rule: (3, 1, 6),
    adam.amsgrad_rule: (4, 1, 6),
    nadam.nadam_rule: (3, 1, 8),
    lion.lion_rule: (2, 1, 6),
    decay.shrink_rule: (1, 0, 1),
    decay.penalty_rule: (1, 1, 1),
}
"""How many arrays of state, inputs and scalars each rule takes."""
LABELLED = (losses.cross_entropy, losses.negative_log_likelihood, losses.focal)
SIGNED = (losses.hinge, losses.perceptron)
MEASURED = (
    losses.binary_cross_entropy,
    losses.mean_squared_error,
    losses.mean_absolute_error,
    losses.huber,
    losses.poisson,
    losses.kl_divergence,
)


def worst(found: Sequence[np.ndarray], expected: Sequence[np.ndarray], multiple: float, what: object) -> float:
    """Return the largest error in eps of the largest number; AssertionError if it is above `multiple`."""
    errors = [0.0]
    assert len(found) == len(expected), f"{what}: {len(found)} arrays instead of {len(expected)}"
    for f, e in zip(found, expected, strict=True):
        assert (f.shape, f.dtype) == (e.shape, e.dtype), f"{what}: {f.dtype}{f.shape} instead of {e.dtype}{e.shape}"
        finite = np.isfinite(e)
        assert np.array_equal(f[~finite], e[~finite], equal_nan=True), f"{what}: infinities and NaN differ"
        scale = float(np.max(np.abs(e[finite]), initial=0.0)) or 1.0
        difference = np.abs(f[finite].astype(np.float64) - e[finite])
        errors.append(float(np.max(difference, initial=0.0)) / (float(np.finfo(e.dtype).eps) * scale))
    assert max(errors) <= multiple, f"{what}: off by {max(errors):.3g} eps, {multiple} are allowed"
    return max(errors)


def against_numpy(
    backend: Backend, dtype: str, task: Callable[..., Sequence[Array]], multiple: float, what: object
) -> float:
    """Do a task `task(backend, array, rng)` on this backend and on NumPy, and compare the arrays that it returns."""
    results = []
    for one in (backend, find_backend("numpy")):
        rng = np.random.default_rng(7)
        arrays = task(one, lambda host, own=one: own.asarray(host, dtype=dtype, copy=True), rng)
        results.append([np.array(one.asnumpy(a)) for a in arrays])
    return worst(results[0], results[1], multiple, f"{what} in {dtype}")


def dtypes(quick: bool) -> tuple[str, ...]:
    """Return the precisions to check."""
    return ("float32",) if quick else ("float32", "float64")


def figures(errors: Sequence[float], tolerance: float) -> Figures:
    """Return the worst of the errors beside what is allowed."""
    return {"worst": f"{max(errors):.3g} eps", "tolerance": f"{tolerance} eps", "compared": len(errors)}


def layers(backend: Backend, quick: bool) -> Figures:
    """Each layer's value and gradients, in both precisions and through the fused forms, against NumPy."""
    errors = []
    for dtype in dtypes(quick):
        for layer, shape in [*LAYERS, LARGE]:

            def task(one: Backend, array: Any, rng: Any, made: Any = (layer, shape, dtype)) -> Sequence[Array]:
                layer, shape, dtype = made
                trial = draw_trial(layer, shape, one, dtype, training=True, key=12345)
                outs, finish = one.join(trial.theta, layer.layout)
                found = trial.gradients(trial.dy, out=outs)
                return trial.output(), *found[: trial.moving], finish(found[trial.moving :])

            errors.append(against_numpy(backend, dtype, task, PRODUCT, layer))
    return figures(errors, PRODUCT)


def all_losses(backend: Backend, quick: bool) -> Figures:
    """Each loss's value and gradient against NumPy."""
    errors = []
    for loss in (*LABELLED, *SIGNED, *MEASURED):

        def task(one: Backend, array: Any, rng: Any, loss: Any = loss) -> Sequence[Array]:
            scores, targets = rng.normal(size=(300, 11)), rng.uniform(0.01, 0.99, (300, 11))
            labels = one.asarray(rng.integers(0, 11, 300).astype(np.int32))
            if loss in LABELLED:
                prediction, target = array(targets if loss is losses.negative_log_likelihood else scores), labels
            else:
                prediction, target = array(scores), array(np.sign(targets - 0.5) if loss in SIGNED else targets)
            result: Sequence[Array] = one.native(loss)(prediction, target)
            return result

        errors += [against_numpy(backend, dtype, task, ELEMENTWISE, loss.__name__) for dtype in dtypes(quick)]
    return figures(errors, ELEMENTWISE)


def limits(backend: Backend, quick: bool) -> Figures:
    """Infinite, huge and missing numbers in the losses, scores of one class, labels out of range: NumPy's answers."""
    rows = [[np.inf, 0, 1], [-np.inf, 0, 1], [-np.inf] * 3, [np.nan, 0, 1], [3e38, -3e38, 0], [1e-40, 0, -1e-40]]
    errors = []
    for k, row in enumerate(rows):
        for label in (0, 2, 5):

            def task(one: Backend, array: Any, rng: Any, row: Any = row, label: int = label) -> Sequence[Array]:
                labels = one.asarray(np.asarray([label, 1], dtype=np.int32))
                scores = array(np.asarray([row, [0.5, 0.0, 2.0]]))
                result: Sequence[Array] = one.native(losses.cross_entropy)(scores, labels)
                return result

            errors.append(
                against_numpy(backend, "float32", task, ELEMENTWISE, f"cross_entropy, row {k}, label {label}")
            )
    return figures(errors, ELEMENTWISE)


def rules(backend: Backend, quick: bool) -> Figures:
    """Each optimizer's rule, as the backend maps it, against the rule itself on NumPy's arrays."""
    rng, errors = np.random.default_rng(5), []
    for rule, (state, inputs, scalars) in RULES.items():
        for dtype in ("float32", "float64"):
            hosts = [np.abs(rng.normal(size=20_001)).astype(dtype) for _ in range(state + inputs)]
            numbers = tuple(rng.uniform(0.1, 0.9, scalars).tolist())
            expected = rule(np, *(h.copy() for h in hosts), *numbers)
            for gate in (None, True, False):
                arrays = [backend.asarray(h, copy=True) for h in hosts]
                open_ = None if gate is None else backend.asarray(np.asarray(gate))
                new = backend.map(rule)(tuple(arrays[:state]), tuple(arrays[state:]), numbers, open_)
                wanted = hosts[:state] if gate is False else expected
                found = [backend.asnumpy(a) for a in new]
                errors.append(worst(found, wanted, ELEMENTWISE, f"{rule.__name__} in {dtype}, gate {gate}"))
    return figures(errors, ELEMENTWISE)


def all_optimizers(backend: Backend, quick: bool) -> Figures:
    """A hundred steps of each optimizer on a quadratic, against NumPy.

    θ starts off 0: from a tiny gradient NAdam swings so wildly that the last bit of θ decides where it goes.
    """
    errors = []
    for optimizer in OPTIMIZERS:

        def task(one: Backend, array: Any, rng: Any, optimizer: Optimizer = optimizer) -> Sequence[Array]:
            start = rng.uniform(1.0, 2.0, 500) * rng.choice([-1.0, 1.0], 500)
            theta, curvature = array(start), array(rng.uniform(0.1, 2.0, 500))
            state = optimizer.init(theta)
            for _ in range(100):
                new = optimizer.update(theta, theta * curvature, state.slots, optimizer.row(state.t), backend=one)
                theta, state = new.theta, type(state)(state.t + 1, new.slots)
            return theta, *state.slots

        errors += [against_numpy(backend, dtype, task, STEPS, optimizer) for dtype in dtypes(quick)]
    return figures(errors, STEPS)


def masks(backend: Backend, quick: bool) -> Figures:
    """Dropout masks: the same bits as on NumPy."""
    numpy, count = find_backend("numpy"), 0
    for shape in ((1,), (128, 1000), (3, 5, 7), (0, 4)):
        for p, key in ((0.0, 0), (0.3, 7), (0.5, -(2**31)), (0.9, 2**31 - 1)):
            mask, expected = (
                one.asnumpy(one.native(random.bernoulli)(one.xp, shape, p, key, "2", one.device))
                for one in (backend, numpy)
            )
            assert np.array_equal(mask, expected), f"mask of shape {shape}, p = {p}, key {key}"
            count += mask.size
    return {"bits": count, "different": 0}


def batches(backend: Backend, quick: bool) -> Figures:
    """A batch of bytes and labels, and a gradient's norm: the rows that the index names, the sum of NumPy."""

    def task(one: Backend, array: Any, rng: Any) -> Sequence[Array]:
        x = one.asarray(rng.integers(0, 256, (500, 6, 7)).astype(np.uint8))
        y, index = array(rng.normal(size=(500, 2))), one.asarray(rng.permutation(500)[:130].astype(np.int32))
        rows, targets = one.native(gather)(one.xp, x, y, index, "float32")
        gradient = array(rng.normal(size=100_003))
        norm, alive = one.native(finite.measure)(one.xp, gradient, None, None)
        overflow, _ = one.native(finite.measure)(one.xp, gradient * 1e30, alive, norm)
        return one.xp.astype(rows, one.xp.float32), targets, norm, overflow

    return figures([against_numpy(backend, "float32", task, PRODUCT, "gather and norm")], PRODUCT)


def gradients(backend: Backend, quick: bool) -> Figures:
    """Each layer's and loss's backward pass against central differences, in float64."""
    rng, errors = np.random.default_rng(3), []
    some = LAYERS if backend.name != "strict" or not quick else LAYERS[:13]
    for layer, shape in some:
        errors.append(gradcheck(layer, shape, backend=backend, training=True, key=5))
    for loss in (*LABELLED, *MEASURED):
        prediction, target = rng.uniform(0.2, 0.8, (3, 4)), rng.uniform(0.0, 1.0, (3, 4))
        truth = rng.integers(0, 4, 3).astype(np.int32) if loss in LABELLED else target
        errors.append(gradcheck_loss(loss, prediction, truth, backend=backend))
    return {"worst": f"{max(errors):.1e}", "tolerance": "3.7e-09", "compared": len(errors)}


CHECKS = (layers, all_losses, limits, rules, all_optimizers, masks, batches, gradients)
