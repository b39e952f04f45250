"""Functions called on arrays that are their library's own form: on CuPy, with what the plain form gives."""

import functools
from operator import attrgetter

import numpy as np
import pytest

import xpnet as xn
from xpnet import losses
from xpnet.backends.cupy import NATIVE
from xpnet.errors import BackendError

LOSSES = [name.rpartition(".")[2] for name in NATIVE if name.startswith("xpnet.losses.")]
LOSS = pytest.mark.parametrize("loss", [getattr(losses, name) for name in LOSSES], ids=LOSSES)
LABELS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
SETTINGS = {
    "none": lambda asarray: {},
    "weights": lambda asarray: {"weights": asarray(np.arange(6, dtype=np.float32))},
    "ignored": lambda asarray: {"ignore_index": 1},
    "smoothing": lambda asarray: {"label_smoothing": 0.1},
    "classes": lambda asarray: {"class_weight": (1.0, 2.0, 3.0)},
    "an array of classes": lambda asarray: {"class_weight": asarray(np.arange(3, dtype=np.float32))},
    "all": lambda asarray: {"ignore_index": 1, "label_smoothing": 0.1, "class_weight": (1.0, 2.0, 3.0)},
}
WRONG = {
    "labels of the host": lambda s, y, asarray: (s, np.zeros(6, np.int32)),
    "scores of the host": lambda s, y, asarray: (np.zeros((6, 3), np.float32), y),
    "a list": lambda s, y, asarray: (s, [0, 1, 2, 0, 1, 2]),
    "a number": lambda s, y, asarray: (3.0, y),
    "one class": lambda s, y, asarray: (s[:, :1], y),
    "too few labels": lambda s, y, asarray: (s, y[:5]),
    "labels in a column": lambda s, y, asarray: (s, y[:, None]),
    "one axis": lambda s, y, asarray: (s[0], y[0]),
    "truths for labels": lambda s, y, asarray: (s, y == 1),
    "numbers for labels": lambda s, y, asarray: (s, asarray(np.zeros(6, np.float32))),
    "complex scores": lambda s, y, asarray: (asarray(np.zeros((6, 3), np.complex64)), y),
    "no labels": lambda s, y, asarray: (s,),
    "too many": lambda s, y, asarray: (s, y, y),
}


def scores(rng, kind="float32", shape=(6, 3)):
    return (10 * rng.normal(size=shape)).astype(kind)


def same(gpu, loss, *arrays, **settings):
    """Assert that a loss called by itself and its plain form give the same, to some roundings."""
    with np.errstate(all="ignore"):
        made, expected = loss(*arrays, **settings), loss.plain(*arrays, **settings)
    for one, other in zip(made, expected, strict=True):
        assert gpu.owns(one)
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        one, other = gpu.asnumpy(one), gpu.asnumpy(other)
        largest = float(np.max(np.abs(other), initial=1.0, where=np.isfinite(other)))
        np.testing.assert_allclose(one, other, rtol=0, atol=64 * np.finfo(one.dtype).eps * largest)


@LOSS
def test_a_loss_with_a_form_of_its_own_is_called_so(loss):
    assert loss.plain is not loss
    assert loss.__doc__ == loss.plain.__doc__


@pytest.mark.parametrize("name", ["numpy", "torch", "jax", "cupy"])
@LOSS
def test_what_wraps_a_loss_is_no_loss_of_the_librarys_own(loss, name):
    try:
        library = xn.backend(name)
    except BackendError as problem:
        pytest.skip(str(problem))

    @functools.wraps(loss)
    def doubled(scores, labels):
        value, gradient = loss(scores, labels)
        return 2.0 * value, 2.0 * gradient

    assert library.native(doubled) is doubled


@pytest.mark.parametrize("name", ["numpy", "torch", "jax"])
@LOSS
def test_elsewhere_a_loss_has_the_bits_of_its_formula(loss, name, rng):
    if name not in xn.available_backends():
        pytest.skip(f"{name} is not installed")
    library = xn.backend(name)
    arrays = library.asarray(scores(rng, shape=(50, 3))), library.asarray(rng.integers(0, 3, 50).astype(np.int32))
    for one, other in zip(loss(*arrays), loss.plain(*arrays), strict=True):
        assert library.asnumpy(one).tobytes() == library.asnumpy(other).tobytes()


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["int32", "int64", "uint8"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@LOSS
def test_it_is_one_kernel(gpu, loss, dtype, kind, rng, monkeypatch):
    name = f"{loss.__module__}.{loss.__name__}"
    own, made = attrgetter(NATIVE[name])(gpu), []
    arrays = gpu.asarray(scores(rng, dtype)), gpu.asarray(np.asarray([0, 1, 2, 0, 1, 2], kind))
    monkeypatch.setattr(f"{loss.__module__}.namespace", lambda **arrays: made.append(arrays))
    with gpu.working():
        expected = own(*arrays)
    found = loss(*arrays)
    assert not made, "it was left to the plain form"
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(gpu.asnumpy(one), gpu.asnumpy(other))


@pytest.mark.gpu
@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32"])
@LOSS
def test_it_gives_what_the_plain_form_gives(gpu, loss, dtype, kind, rng):
    for shape in ((6, 3), (2, 3, 5), (0, 3), (300, 200)):
        s, y = scores(rng, dtype, shape), rng.integers(0, min(shape[-1], 128), shape[:-1]).astype(kind)
        same(gpu, loss, gpu.asarray(s), gpu.asarray(y))
    s, y = gpu.asarray(scores(rng, dtype, (3, 6))).T, gpu.asarray(np.arange(12).astype(kind) % 3)
    same(gpu, loss, s, y[::2])


@pytest.mark.gpu
@pytest.mark.parametrize(
    "label", [-1, 3, 2**31 - 1, 2**31, 2**32, -(2**32), 2**63 - 1, -(2**63)], ids=lambda label: f"{label:#x}"
)
@LOSS
def test_a_label_out_of_range_makes_it_nan(gpu, loss, label, rng):
    arrays = gpu.asarray(scores(rng)), gpu.asarray(np.asarray([0, label, 2, 1, 0, 1], np.int64))
    assert np.isnan(gpu.asnumpy(loss(*arrays)[0]))
    same(gpu, loss, *arrays)


@pytest.mark.gpu
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("soft", [False, True], ids=["labels", "probabilities"])
@LOSS
def test_its_settings_are_left_to_the_plain_form(gpu, loss, settings, soft, rng):
    chosen = settings(gpu.asarray)
    labels = rng.integers(0, 3, 6).astype(np.int32)
    if soft:
        chosen.pop("ignore_index", None)
        labels = rng.dirichlet(np.ones(3), 6).astype(np.float32)
    same(gpu, loss, gpu.asarray(scores(rng)), gpu.asarray(labels), **chosen)


@pytest.mark.gpu
@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
@LOSS
def test_what_is_wrong_is_said_as_the_plain_form_does(gpu, loss, wrong, rng):
    arrays = wrong(gpu.asarray(scores(rng)), gpu.asarray(np.asarray([0, 1, 2, 0, 1, 2], np.int32)), gpu.asarray)
    said = []
    for function in (loss, loss.plain):
        with pytest.raises((TypeError, ValueError, AttributeError)) as caught:
            function(*arrays)
        said.append((caught.type, str(caught.value)))
    assert said[0] == said[1]


@pytest.mark.gpu
def test_a_loss_that_calls_one_is_captured(gpu, rng):
    x, y = rng.normal(size=(64, 4)).astype(np.float32), rng.integers(0, 3, 64).astype(np.int32)

    def own(scores, labels):
        value, gradient = xn.cross_entropy(scores, labels)
        return 2.0 * value, 2.0 * gradient

    made = []
    for library in (gpu, xn.backend("numpy")):
        model = xn.Model(xn.Linear(4, 3), own, xn.SGD(0.1), seed=1, backend=library)
        history = model.fit(library.asarray(x), library.asarray(y), 4, 16, progress=False)
        made.append((library.asnumpy(model.theta), history["loss"]))
    np.testing.assert_allclose(made[0][0], made[1][0], atol=1e-5)
    np.testing.assert_allclose(made[0][1], made[1][1], atol=1e-5)
