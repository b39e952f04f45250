"""θ stays finite, and is the last good one, whatever the cause: gradient, loss, rate, ε, or a rule that overflows."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xpnet as xn
from xpnet.data.source import Arrays
from xpnet.errors import NonFiniteError
from xpnet.optimizers import Optimizer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype("float32")
Y = np.arange(40) % 2
NET = xn.Sequential(xn.Linear(3, 4), xn.Tanh(), xn.Linear(4, 2))
KINDS = [
    lambda lr: xn.SGD(lr),
    lambda lr: xn.SGD(lr, momentum=0.9),
    lambda lr: xn.SGD(lr, momentum=0.9, nesterov=True),
    lambda lr: xn.RMSProp(lr),
    lambda lr: xn.Adam(lr),
    lambda lr: xn.AdamW(lr),
    lambda lr: xn.Adam(lr, amsgrad=True),
    lambda lr: xn.NAdam(lr),
    lambda lr: xn.Adagrad(lr),
    lambda lr: xn.Lion(lr),
]


def classifier(backend, optimizer, **settings):
    return xn.Model(NET, xn.cross_entropy, optimizer, backend=backend, **settings)


def home(model):
    return np.array(model.backend.asnumpy(model.theta))


# Settings, when they are given


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: xn.SGD(np.float32(-0.1)), "SGD: lr must be a number of at least 0"),
        (lambda: xn.SGD(np.array(np.nan)), "SGD: lr must be a number of at least 0"),
        (lambda: xn.SGD("0.1"), "SGD: lr must be a number of at least 0.*got '0.1'"),
        (lambda: xn.SGD(True), "SGD: lr must be a number of at least 0.*got True"),
        (lambda: xn.Adam(eps=0.0), "Adam: eps must be a number above 0"),
        (lambda: xn.RMSProp(eps=0), "RMSProp: eps must be a number above 0"),
        (lambda: xn.Adam(beta1=np.float64("nan")), "Adam: beta1 must be"),
        (lambda: xn.SGD(0.1, clip_norm=np.float32(0)), "SGD: clip_norm must be a number above 0"),
    ],
)
def test_settings_are_looked_at_when_they_are_given(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_numpys_numbers_become_pythons():
    optimizer = xn.Adam(np.float32(0.5), beta1=np.array(0.25), clip_norm=np.int64(3))
    assert optimizer == xn.Adam(0.5, beta1=0.25, clip_norm=3.0)
    assert all(
        type(value) is float for value in vars(optimizer).values() if not isinstance(value, (tuple, bool, type(None)))
    )


@pytest.mark.parametrize(
    ("optimizer", "dtype", "text"),
    [
        (xn.SGD(1e39), "float32", r"SGD: lr=1e\+39 is too large for theta, at most 2\.75e\+11: take a smaller one"),
        (xn.SGD(1e12, momentum=0.9), "float32", r"SGD: lr=1000000000000.0 is too large for theta, at most 2\.75e\+10"),
        (xn.Adam(1e100), "float64", None),
        (xn.Adam(1e39), "float32", r"Adam: lr=1e\+39 is too large for theta"),
        (xn.Adam(eps=1e-38), "float32", "Adam: eps=1e-38 is 0 in the precision of theta: take a larger one"),
        (xn.Adam(eps=2e-38), "float32", "Adam: eps=2e-38 is 0 in the precision of theta: take a larger one"),
        (xn.RMSProp(eps=2e-38), "float32", None),
        (xn.RMSProp(eps=1e-45), "float32", "RMSProp: eps=1e-45 is 0 in the precision of theta"),
        (xn.Adam(eps=1e-38), "float64", None),
        (xn.AdamW(2.0, weight_decay=0.6), "float32", "AdamW: lr=2.0 is too large for theta, at most 1.67"),
        (xn.SGD(2.0, weight_decay=0.6), "float32", "SGD: lr=2.0 is too large for theta, at most 1.67"),
        (xn.Adam(2.0, weight_decay=0.6), "float32", None),
        (xn.Lion(2.0, weight_decay=0.6), "float32", "Lion: lr=2.0 is too large for theta, at most 1.67"),
        (xn.Adagrad(eps=1e-30), "float32", "Adagrad: eps=1e-30 is 0 in the precision of theta: take a larger one"),
    ],
)
def test_what_has_no_place_in_thetas_precision_is_refused_when_the_model_is_made(optimizer, dtype, text):
    theta = NET.init(dtype=dtype, backend="numpy")
    if text is None:
        assert classifier("numpy", optimizer, dtype=dtype)
        assert optimizer.init(theta)
        return
    with pytest.raises(ValueError, match=text):
        classifier("numpy", optimizer, dtype=dtype)
    with pytest.raises(ValueError, match=text):
        optimizer.init(theta)


# A rate that goes wrong on the way


@pytest.mark.parametrize(
    ("kind", "bad"), list(zip(KINDS[:6], [math.nan, math.inf, -0.1, 1e30, np.float32(np.nan), -math.inf], strict=True))
)
def test_a_schedule_that_fails_once_stops_training_before_that_step(backend, kind, bad):
    model = classifier(backend, kind(lambda t: bad if t == 7 else 0.01))
    good = classifier(backend, kind(0.01))
    with pytest.raises(NonFiniteError, match=r"^the learning rate became .* at step 8 \(epoch 2\): .* mend the "):
        model.fit(X, Y, epochs=3, batch_size=8)
    assert (model.state.t, model.epoch, model.underway.position) == (7, 1, 16)
    good.fit(X, Y, epochs=1, batch_size=8)
    source = Arrays((backend.asarray(X), backend.asarray(Y.astype(np.int32))), backend)
    two = good.step.many(good.state, source.parts, source.order(0, 1)[:16].reshape(2, 8))
    assert np.array_equal(home(model), backend.asnumpy(good.step.flat(two.state.theta)))


def test_after_a_bad_rate_the_run_goes_on_with_another_and_no_sample_is_trained_twice(backend):
    calls = []

    def schedule(t):
        calls.append(t)
        return math.nan if t == 7 and len(calls) < 30 else 0.01

    model, whole = classifier(backend, xn.Adam(schedule)), classifier(backend, xn.Adam(0.01))
    with pytest.raises(NonFiniteError):
        model.fit(X, Y, epochs=3, batch_size=8)
    model.adjust(lr=0.01)
    history, expected = model.resume(X, Y), whole.fit(X, Y, epochs=3, batch_size=8)
    assert model.state.t == 15
    assert np.array_equal(home(model), home(whole))
    assert history["loss"] == pytest.approx(expected["loss"], rel=1e-12)


# Any finite gradient, any rate that is taken


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_changes_nothing_though_its_gradient_is(backend, bad):
    """The numbers of a sum may overflow where the gradient of each is small."""

    def loss(prediction, target, *, weights=None):
        value, gradient = xn.cross_entropy(prediction, target, weights=weights)
        return value * 0 + bad, gradient

    model = xn.Model(NET, loss, xn.SGD(0.1), backend=backend)
    before = home(model)
    with pytest.raises(NonFiniteError, match="loss became"):
        model.fit(X, Y, epochs=1, batch_size=8)
    np.testing.assert_array_equal(home(model), before)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(st.data())
def test_no_finite_gradient_takes_theta_out_of_its_range(dtype, data):
    backend = xn.backend("numpy")
    info = np.finfo(dtype)
    beta1 = data.draw(st.sampled_from([0.0, 0.5, 0.9, 0.999]))
    beta2 = data.draw(st.sampled_from([0.0, 0.5, 0.9, 0.999, 0.999999]))
    eps = data.draw(st.sampled_from([1e-8, 1e-3, 1.0, float(info.smallest_normal) * 1e4]))
    make = data.draw(
        st.sampled_from(
            [
                lambda lr: xn.SGD(lr),
                lambda lr: xn.SGD(lr, momentum=beta1),
                lambda lr: xn.SGD(lr, momentum=0.9, nesterov=True),
                lambda lr: xn.RMSProp(lr, alpha=beta2, eps=eps),
                lambda lr: xn.Adam(lr, beta1, beta2, eps),
                lambda lr: xn.AdamW(lr, beta1, beta2, eps),
                lambda lr: xn.Adam(lr, beta1, beta2, eps, amsgrad=True),
                lambda lr: xn.NAdam(lr, beta1, beta2, eps, momentum_decay=data.draw(st.sampled_from([0.0, 4e-3, 1.0]))),
                lambda lr: xn.Adagrad(lr, eps),
                lambda lr: xn.Lion(lr, beta1, beta2),
            ]
        )
    )
    optimizer = make(make(0.0).fastest(info))  # the largest rate that is taken
    size = st.sampled_from([0.0, float(info.smallest_normal), 1e-20, 1e-6, 1.0, 1e6, math.sqrt(float(info.max)) / 4])
    theta = np.asarray([1.0, float(info.max), -float(info.max), 0.0], dtype=dtype)
    memory = optimizer.init(theta)
    with np.errstate(all="ignore"):
        for _ in range(12):
            g = np.asarray([data.draw(size) * data.draw(st.sampled_from([-1, 1])) for _ in range(4)], dtype=dtype)
            assert np.isfinite(np.sqrt(g @ g))
            theta, memory = optimizer.step(theta, backend.asarray(g), memory)
            assert np.all(np.isfinite(theta))
            assert all(np.all(np.isfinite(slot)) for slot in memory.slots)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "optimizer", [kind(0.0) for kind in KINDS] + [xn.RMSProp(alpha=0.0), xn.Adam(beta2=0.0)], ids=str
)
def test_rate_and_gradient_may_be_multiplied_first(optimizer, dtype):
    info = np.finfo(dtype)
    assert optimizer.fastest(info) * math.sqrt(float(info.max)) < float(info.max)


# A rule of one's own


def wild_rule(xp, theta, v, g, rate):
    v += g
    theta -= rate * (v / g) * (v / g) * (v / g)
    return theta, v


@dataclass(frozen=True)
class Wild(Optimizer):
    """θ ← θ − η (v/g)³, which is nowhere safe."""

    @property
    def rule(self):
        return wild_rule

    @property
    def moments(self):
        return 1


def greedy_rule(xp, theta, v, g, rate):
    v += rate / g
    theta -= rate * g
    return theta, v


@dataclass(frozen=True)
class Greedy(Wild):
    """θ stays finite, and v does not."""

    @property
    def rule(self):
        return greedy_rule


def test_what_a_rule_of_ones_own_remembers_is_watched_too(backend):
    optimizer = Greedy(1.0)
    theta = backend.asarray([1.0, 2.0], dtype="float32", copy=True)
    with np.errstate(all="ignore"):
        theta, memory = optimizer.step(theta, backend.asarray([0.0, 1.0], dtype="float32"), optimizer.init(theta))
    assert backend.asnumpy(theta).tolist() == [1.0, 2.0]
    assert backend.asnumpy(memory.slots[0]).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("flat", [True, False])
def test_a_rule_of_ones_own_is_watched_at_each_step(backend, flat):
    optimizer = Wild(1.0)

    def form(values):
        array = backend.asarray(np.asarray(values), dtype="float32", copy=True)
        return array if flat else (array[:1], array[1:])

    def values(vector):
        parts = (vector,) if flat else vector
        return np.concatenate([backend.asnumpy(part) for part in parts])

    with np.errstate(all="ignore"):
        theta, memory = optimizer.step(form([1.0, 2.0]), form([1.0, 1.0]), optimizer.init(form([1.0, 2.0])))
        assert values(theta).tolist() == [0.0, 1.0]
        theta, memory = optimizer.step(theta, form([0.0, 1.0]), memory)  # 1/0
        assert values(theta).tolist() == [0.0, 1.0]
        assert values(memory.slots[0]).tolist() == [1.0, 1.0]
        theta, memory = optimizer.step(theta, form([1e-20, 1.0]), memory)  # (1e20)³
        assert values(theta).tolist() == [0.0, 1.0]


def test_a_rule_of_ones_own_stops_training_where_it_fails(backend):
    model = classifier(backend, Wild(1.0))
    before = home(model)
    x = np.array(X)
    x[:, 1] = 0.0  # a gradient of exactly 0
    with pytest.raises(NonFiniteError, match=r"^the update became NaN or infinite at step 1 .* the optimizer's rule; "):
        model.fit(x, Y, batch_size=8)
    assert np.array_equal(home(model), before)
