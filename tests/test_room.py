"""What K steps use again: the windows of θ, and the vector in which the gradient was."""

import gc
import threading
import weakref

import numpy as np
import pytest

import xpnet as xn
from xpnet.training.step import Step

NET = xn.Sequential(xn.Linear(6, 5), xn.ReLU(), xn.Linear(5, 3))


@pytest.fixture(params=["numpy", "torch"])
def library(request):
    if request.param not in xn.available_backends():
        pytest.skip(f"{request.param} is not installed")
    return xn.backend(request.param)


@pytest.fixture
def data(rng):
    return rng.normal(size=(60, 6)).astype(np.float32), rng.integers(0, 3, 60)


@pytest.fixture
def gradients(monkeypatch):
    """The gradients of all steps, as the updates get them."""
    came, update = [], Step.update

    def watched(self, carry, row, found, carried):
        came.append(found[0])
        return update(self, carry, row, found, carried)

    monkeypatch.setattr(Step, "update", watched)
    return came


def trained(library, data, optimizer=None, epochs=2, net=NET, **how):
    model = xn.Model(net, xn.cross_entropy, optimizer or xn.Adam(0.01), backend=library, seed=4)
    model.fit(*data, epochs, 10, progress=False, **how)
    return model


def apart(library, monkeypatch, run):
    """What comes of it where nothing is used again."""
    with monkeypatch.context() as patch:
        patch.setattr(library, "split", library.cut, raising=False)
        patch.setattr(library, "reuse", lambda: None, raising=False)
        return run()


def test_the_gradients_of_a_call_are_written_in_one_place(library, data, gradients):
    trained(library, data, epochs=1)
    assert len(gradients) == 6
    assert all(gradient is gradients[0] for gradient in gradients)


@pytest.mark.parametrize(
    "optimizer",
    [xn.SGD(0.1, 0.9), xn.Adam(0.01, clip_norm=0.1), xn.AdamW(0.01), xn.SGD(0.1, weight_decay=0.1)],
    ids=["momentum", "clipped", "decoupled", "decayed"],
)
@pytest.mark.parametrize("how", [{}, {"accumulate": 3}], ids=["whole", "in parts"])
def test_theta_has_the_same_bits(library, data, monkeypatch, optimizer, how):
    def run():
        return library.asnumpy(trained(library, data, optimizer, **how).theta)

    assert np.array_equal(run(), apart(library, monkeypatch, run))


KEPT = []


class Keeping(xn.SGD):
    """An optimizer that keeps what it was given."""

    def update(self, theta, dtheta, *others, **how):
        KEPT.append((dtheta, np.array(how.get("backend", others[3]).asnumpy(dtheta))))
        return super().update(theta, dtheta, *others, **how)


def test_an_update_of_ones_own_may_keep_its_gradient(library, data):
    KEPT.clear()
    trained(library, data, Keeping(0.1))
    assert len(KEPT) == 12
    for gradient, then in KEPT:
        assert np.array_equal(library.asnumpy(gradient), then)


class Twice(xn.Sequential):
    """A network that asks a smaller one about the θ of the step, and about vectors of its own."""

    def __call__(self, theta, x, *others, **how):
        small, own = xn.Linear(6, 2), how["backend"]
        for vector in (theta, theta * 2.0) if not isinstance(theta, tuple) else ():
            assert [tuple(part.shape) for part in own.split(vector, small.layout)] == [(6, 2), (2,)]
            first = own.split(vector, small.layout)[0]
            assert np.array_equal(own.asnumpy(first).reshape(-1), own.asnumpy(vector)[:12])
        return super().__call__(theta, x, *others, **how)


def test_other_vectors_and_networks_have_windows_of_their_own(library, data, monkeypatch):
    def run():
        return library.asnumpy(trained(library, data, net=Twice(*NET.layers)).theta)

    assert np.array_equal(run(), apart(library, monkeypatch, run))


def test_nothing_is_kept_after_a_call(library, data, gradients):
    model = trained(library, data)
    last = weakref.ref(gradients[-1])
    gradients.clear()
    gc.collect()
    assert last() is None
    theta = library.asnumpy(model.theta).copy()
    parts = library.split(model.theta, NET.layout)
    assert np.array_equal(np.concatenate([library.asnumpy(part).reshape(-1) for part in parts]), theta)


def test_an_error_within_a_step_leaves_the_room_empty(library, data, gradients):
    calls = []

    def failing(prediction, target):
        calls.append(prediction)
        if len(calls) > 6:
            raise RuntimeError("no more")
        return xn.cross_entropy(prediction, target)

    model = xn.Model(NET, failing, xn.SGD(0.1), backend=library)
    with pytest.raises(RuntimeError, match="no more"):
        model.fit(*data, 3, 10, progress=False)
    assert gradients
    last = weakref.ref(gradients[-1])
    gradients.clear()
    gc.collect()
    assert last() is None


def test_models_that_train_at_once_do_not_meet(library, data):
    alone = [library.asnumpy(trained(library, data, xn.SGD(rate), 5).theta) for rate in (0.1, 0.2)]
    found = [None, None]

    def run(k, rate):
        found[k] = library.asnumpy(trained(library, data, xn.SGD(rate), 5).theta)

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate((0.1, 0.2))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(a, b) for a, b in zip(alone, found, strict=True))
