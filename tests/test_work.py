"""How large a network's work is, by which threads, steps in a call and samples at a time are chosen."""

import numpy as np
import pytest

import xpnet as xn
from xpnet.backends.base import Work
from xpnet.backends.host import calmly
from xpnet.data import batches

DENSE = xn.Sequential(xn.Flatten(), xn.Linear(784, 128), xn.ReLU(), xn.Linear(128, 10))
IMAGES = xn.Sequential(xn.Conv2d(1, 32, 3, padding=1), xn.ReLU(), xn.MaxPool2d(2), xn.Flatten(), xn.Linear(6272, 10))


def model(net):
    return xn.Model(net, xn.cross_entropy, xn.SGD(0.1), backend="numpy")


def test_a_dense_network_has_a_multiply_add_for_each_parameter():
    assert DENSE.work((None, 28, 28)) == DENSE.size
    assert DENSE.widest((None, 28, 28)) == 0


def test_a_convolution_has_its_parameters_at_every_pixel():
    assert IMAGES.work((None, 28, 28, 1)) == 320 * 28 * 28 + 62_730
    assert IMAGES.widest((None, 28, 28, 1)) == 28 * 28 * 32


@pytest.mark.parametrize(("net", "shape", "samples"), [(DENSE, (28, 28), 4096), (IMAGES, (28, 28, 1), 512)])
def test_fewer_samples_of_large_images_are_evaluated_at_a_time(net, shape, samples):
    assert model(net).step.samples(np.zeros((2, *shape), "float32")) == samples


def test_predict_chooses_its_batches(monkeypatch):
    x, one = np.random.default_rng(0).random((600, 28, 28, 1), dtype=np.float32), model(IMAGES)
    seen = []
    infer = one.step.infer
    monkeypatch.setitem(
        vars(one.step), "infer", lambda theta, x, buffers: seen.append(len(x)) or infer(theta, x, buffers)
    )
    one.predict(x)
    one.predict(x, batch_size=400)
    assert seen == [512, 88, 400, 200]


def test_more_work_makes_shorter_calls_but_dense_networks_keep_theirs():
    order = np.arange(128 * 256)
    assert next(len(block) for block in batches.batches(order, 128, 10**8)) == 64
    assert next(len(block) for block in batches.batches(order, 128, 10**5, 10**8)) == 4


def test_work_chooses_the_threads():
    entered = []

    class One:
        def __enter__(self):
            entered.append(True)

        def __exit__(self, *problem):
            pass

    def run(carry, fixed, xs):
        return carry, ()

    x = np.zeros((10, 28, 28, 1), "float32")
    carry, xs = (np.zeros(1000, "float32"), ()), (np.zeros((1, 128)),)
    for work, times in ((None, 1), (lambda fixed: Work(1000), 2), (lambda fixed: Work(len(fixed[0]) * 1e6), 2)):
        calmly(run, One, work)(carry, (x, None), xs)
        assert len(entered) == times
