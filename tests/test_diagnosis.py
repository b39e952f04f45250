"""A loss or gradient that is not finite: training stops, says where it began, and θ is still the last good one."""

import re

import numpy as np
import pytest

import xpnet as xn
from xpnet import random
from xpnet.data import batches
from xpnet.errors import DataWarning, NonFiniteError

CLEAN = "; theta is as it was before: clean the data"
TARGETS = "; theta is as it was before: scale the targets, or mend the loss"
REMEDY = "; theta is as it was before: lower the learning rate, scale the input, or set clip_norm"
N, BATCH = 30, 4  # 7 full batches and one of 2
X = np.random.default_rng(0).normal(size=(N, 3)).astype("float32")
Y = np.arange(N) % 2
NET = xn.Sequential(xn.Linear(3, 4), xn.Tanh(), xn.Linear(4, 2))


def classifier(backend, optimizer=None):
    return xn.Model(NET, xn.cross_entropy, optimizer or xn.Adam(0.01), backend=backend)


def stopped_after(model, steps, x, y, monkeypatch):
    """Train a model for some steps of its first epoch and return θ."""
    whole = batches.batches

    def few(order, *rest):
        done = 0
        for block in whole(order, *rest):
            part = block[: steps - done]
            done += len(part)
            if len(part):
                yield part

    with monkeypatch.context() as patch:
        patch.setattr(batches, "batches", few)
        model.fit(x, y, epochs=1, batch_size=BATCH)
    assert model.state.t == steps
    return np.array(model.backend.asnumpy(model.theta))


@pytest.mark.parametrize(("value", "what"), [(np.inf, "the gradient's norm"), (np.nan, "loss")])  # tanh bounds inf
def test_one_bad_sample_stops_training_at_its_step_with_the_theta_before_it(backend, value, what, monkeypatch):
    order = random.permutation(0, 0, N).tolist()
    row = order[5 * BATCH + 1]  # a sample of the sixth batch
    bad = np.array(X)
    bad[row, 1] = value
    model = classifier(backend)
    with (
        pytest.warns(DataWarning, match=f"^x holds {value} at row {row}, column 1: clean the data$"),
        pytest.raises(NonFiniteError) as caught,
    ):
        model.fit(bad, Y, epochs=3, batch_size=BATCH)
    assert str(caught.value) == f"{what} became NaN at step 6 (epoch 1): first non-finite value in the input{CLEAN}"
    good = classifier(backend)
    assert np.array_equal(backend.asnumpy(model.theta), stopped_after(good, 5, X, Y, monkeypatch))
    assert (model.state.t, model.epoch) == (5, 0)
    for slot, other in zip(model.state.slots, good.state.slots, strict=True):
        for a, b in zip(NET.windows(slot).values(), NET.windows(other).values(), strict=True):
            assert np.array_equal(backend.asnumpy(a), backend.asnumpy(b))
    still = np.array(backend.asnumpy(model.theta))
    assert model.fit(X, Y, epochs=1, batch_size=BATCH)["epoch"] == [1]  # and it can go on
    assert not np.any(np.isclose(backend.asnumpy(model.theta), still, rtol=0, atol=1e-9))
    assert model.state.t == 5 + 8


def test_a_learning_rate_that_explodes_later(backend):
    # The weights become huge at step 11, which is the third of the second epoch; step 12 cannot be computed.
    net = xn.Sequential(*[layer for _ in range(5) for layer in (xn.Linear(3, 3), xn.LeakyReLU(0.5))], xn.Linear(3, 2))
    model = xn.Model(net, xn.cross_entropy, xn.SGD(lambda step: 2e11 if step == 10 else 0.1), backend=backend)
    with pytest.raises(NonFiniteError) as caught:
        model.fit(X, Y, epochs=3, batch_size=BATCH)
    where = r"at step 12 \(epoch 2\): first non-finite value in the output of layer \d+"
    assert re.fullmatch(f"loss became (NaN|inf) {where}{REMEDY}", str(caught.value))  # by the order of a sum
    assert (model.state.t, model.epoch) == (11, 1)
    theta = backend.asnumpy(model.theta)
    assert np.all(np.isfinite(theta))
    assert np.max(np.abs(theta)) > 1e8


def wide(scale):
    """A sample of one huge number; the weight starts at zero."""
    net = xn.Sequential(xn.Tanh(), xn.Linear(1, 1, initializer="zeros"), xn.Scale(scale))
    return net, np.ones((2, 1), "float32")


def spoiled(value, gradient):
    def loss(prediction, target):
        good, slope = xn.mean_squared_error(prediction, target)
        return good * value, slope * gradient

    return loss


@pytest.mark.parametrize(
    ("scale", "target", "loss", "message"),
    [
        (
            1.0,
            1e10,
            spoiled(1.0, np.inf),
            "the gradient's norm became inf at step 1 (epoch 1): first non-finite value in the gradient of the loss",
        ),
        (
            1.0,
            1e10,
            spoiled(np.nan, np.nan),
            "loss became NaN at step 1 (epoch 1): first non-finite value in the loss",
        ),
        (
            1e30,
            1e10,
            xn.mean_squared_error,
            'the gradient\'s norm became inf at step 1 (epoch 1): first non-finite value in the gradient of "1.bias"',
        ),
        (
            1e20,
            1e10,
            xn.mean_squared_error,
            "the gradient's norm became inf at step 1 (epoch 1): first non-finite value in "
            "the norm of the gradient, too large a number for its precision",
        ),
        (1.0, 1e20, xn.mean_squared_error, "loss became inf at step 1 (epoch 1): first non-finite value in the loss"),
        (1.0, 1.0, spoiled(np.nan, 1.0), "loss became NaN at step 1 (epoch 1): first non-finite value in the loss"),
    ],
)
def test_the_place_where_it_began_is_named(backend, scale, target, loss, message):
    net, x = wide(scale)
    model = xn.Model(net, loss, xn.SGD(1e-10), backend=backend)
    with pytest.raises(NonFiniteError) as caught:
        model.fit(x, np.full((2, 1), target), epochs=1)
    assert str(caught.value) == message + (TARGETS if message.endswith("the loss") else REMEDY)
    assert not np.any(backend.asnumpy(model.theta))


def test_layers_within_layers_are_named_by_their_path(backend):
    net = xn.Sequential(xn.Linear(3, 4), xn.Sequential(xn.Scale(1e30), xn.Residual(xn.Scale(1e30))), xn.Linear(4, 2))
    model = xn.Model(net, xn.cross_entropy, xn.SGD(0.1), backend=backend)
    with pytest.raises(
        NonFiniteError, match=r"^loss became NaN at step 1 \(epoch 1\): .* in the output of layer 1\.1\.0; "
    ):
        model.fit(X, Y, epochs=1)


def test_a_network_that_is_one_layer(backend):
    model = xn.Model(
        xn.Linear(3, 2), xn.cross_entropy, xn.SGD(lambda step: 2e11 if step == 0 else 0.1), backend=backend
    )
    with (
        pytest.warns(DataWarning, match="too large to train well"),
        pytest.raises(NonFiniteError, match=r"at step 2 .* first non-finite value in the output of the network; "),
    ):
        model.fit(X * 1e17, Y, epochs=2, batch_size=15)


def test_dropout_has_the_mask_of_the_step_that_is_looked_into(backend):
    # Layer 2 overflows only where the mask lets its input through, twice as large.
    net = xn.Sequential(xn.Scale(1e30), xn.Dropout(0.5), xn.Scale(2.5e8), xn.Linear(1, 2))
    model = xn.Model(net, xn.cross_entropy, xn.SGD(0.0), seed=8, backend=backend)
    with pytest.raises(NonFiniteError) as caught:
        model.fit(np.ones((8, 1), "float32"), np.arange(8) % 2, batch_size=1)
    keys = [random.step_key(8, step) for step in range(8)]
    dropped = [bool(random.bernoulli(np, (1, 1), 0.5, key, "1", None)[0, 0]) for key in keys]
    assert dropped == [True] * 5 + [False] + dropped[6:]
    assert " at step 6 (epoch 1): first non-finite value in the output of layer 2; " in str(caught.value)
