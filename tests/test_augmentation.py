import math
import re

import numpy as np
import pytest

import xpnet as xn
from xpnet import random
from xpnet.errors import ShapeError
from xpnet.layers import Context
from xpnet.layers.affine import LEVELS
from xpnet.testing import assert_close, check_layer, gradcheck
from xpnet.testing.backends import open_backend

LAYERS = [
    xn.RandomShift(2),
    xn.RandomShift((0, 3)),
    xn.RandomFlip(),
    xn.RandomCrop((3, 2)),
    xn.RandomCrop(4, padding=1),
    xn.RandomCrop((7, 6), padding=(2, 1)),
    xn.Cutout(2),
    xn.Cutout((3, 1)),
    xn.RandomRotate(30),
    xn.RandomRotate((80, 100)),
    xn.RandomAffine(20, translate=(0.2, 0.3), scale=(0.7, 1.3), shear=15),
    xn.RandomAffine((-5, 10), shear=(-20, 5)),
]
IMAGES = (5, 4, 2)
NUMPY = xn.backend("numpy")


def changed(layer, x, key=3, backend=NUMPY, training=True, path="2"):
    """What the layer makes of host images, on the host."""
    x = np.asarray(x)
    y, _ = layer.forward((), backend.asarray(x, dtype=x.dtype.name), Context(backend, training, key, path=path))
    return np.asarray(backend.asnumpy(y))


def numbered(n, h, w, c=1, dtype="float32"):
    """Images whose pixels are all different and none zero."""
    return np.arange(1, n * h * w * c + 1, dtype=dtype).reshape(n, h, w, c)


# Gradients and the contract


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_layer_keeps_the_contract(backend, layer):
    check = gradcheck if backend.name == "jax" else check_layer  # JAX compiles each operation for each shape
    check(layer, (3, *IMAGES), backend=backend, training=True, key=4)


@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("name", ["numpy", "strict:device1"])
def test_layer_keeps_the_contract_at_rest(name, layer):
    with open_backend(name) as backend:
        check_layer(layer, (2, *IMAGES), backend=backend, training=False)


# The same everywhere


@pytest.mark.parametrize("layer", [*LAYERS[:8]], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_what_is_moved_is_the_same_bits_on_every_backend(backend, layer, dtype):
    x = numbered(6, *IMAGES, dtype=dtype)
    for key in (0, -7, 2**31 - 1):
        y = changed(layer, x, key, backend)
        assert y.dtype == dtype
        assert np.array_equal(y, changed(layer, x, key))


@pytest.mark.parametrize("layer", LAYERS[8:], ids=str)
def test_a_map_reads_the_same_places_on_every_backend(backend, layer):
    x = backend.asarray(numbered(6, *IMAGES))
    for key in (0, -7):
        places = layer.places(x, Context(backend, True, key, path="2"))
        expected = layer.places(numbered(6, *IMAGES), Context(NUMPY, True, key, path="2"))
        for place, truth in zip(places, expected, strict=True):
            assert np.array_equal(backend.asnumpy(place), truth)
        assert_close(backend, layer.forward((), x, Context(backend, True, key, path="2"))[0],
                     changed(layer, numbered(6, *IMAGES), key), multiple=4, scale=240.0)  # fmt: skip


def test_integers_are_pinned(backend):
    """What a release must not change: the same seed moves the same images by the same pixels for ever."""
    drawn = random.uniform_integers(backend.xp, 8, -3, 4, -1827443353, "2/rows", backend.device)
    assert backend.owns(drawn)
    assert backend.asnumpy(drawn).tolist() == [-1, -1, 3, 1, -3, 3, 1, -1]


def test_a_key_may_live_on_the_device(backend):
    key = backend.asarray(np.asarray(-12345, dtype=np.int32))
    drawn = random.uniform_integers(backend.xp, 50, 0, 1000, key, "0/rows", backend.device)
    assert_close(backend, drawn, random.uniform_integers(np, 50, 0, 1000, -12345, "0/rows", None))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 5), (-3, 4), (0, 1024)])
def test_integers_are_uniform(low, high):
    n = 2**16
    drawn = random.uniform_integers(np, n, low, high, 99, "0/rows", None)
    counts = np.bincount(drawn - low, minlength=high - low)
    assert counts.size == high - low
    expected, freedom = n / counts.size, counts.size - 1
    assert np.sum((counts - expected) ** 2) / expected < freedom + 5 * math.sqrt(2 * freedom) + 1e-9


# What the layers do


@pytest.mark.parametrize("layer", [layer for layer in LAYERS if not isinstance(layer, xn.RandomCrop)], ids=str)
def test_without_training_nothing_changes(backend, layer):
    x = backend.asarray(numbered(2, *IMAGES))
    y, pullback = layer.forward((), x, Context(backend))
    assert y is x
    assert pullback(x) == (x, ())


def test_without_training_the_middle_is_cut_out(backend):
    x = numbered(2, 6, 5)
    assert np.array_equal(changed(xn.RandomCrop((2, 3)), x, None, backend, training=False), x[:, 2:4, 1:4, :])
    assert np.array_equal(changed(xn.RandomCrop((6, 5), 2), x, None, backend, training=False), x)
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
    larger = changed(xn.RandomCrop((10, 8), 2), x, None, backend, training=False)
    assert np.array_equal(larger, padded[:, :, :8, :])


def test_shift_moves_by_every_pixel_up_to_its_own_and_zeros_come_in():
    n, p, q = 4000, 2, 1
    x = np.broadcast_to(numbered(1, 5, 4), (n, 5, 4, 1))
    y = changed(xn.RandomShift((p, q)), x)
    padded = np.pad(x[0], ((p, p), (q, q), (0, 0)))
    parts = {(a, b): padded[a : a + 5, b : b + 4] for a in range(2 * p + 1) for b in range(2 * q + 1)}
    counts = {move: sum(np.array_equal(image, part) for image in y) for move, part in parts.items()}
    assert sum(counts.values()) == n
    spread = math.sqrt(n / len(parts))
    assert all(abs(count - n / len(parts)) < 5 * spread for count in counts.values())


def test_crop_takes_every_part():
    x = np.broadcast_to(numbered(1, 5, 6), (2000, 5, 6, 1))
    y = changed(xn.RandomCrop((4, 4), (0, 1)), x)
    padded = np.pad(x[0], ((0, 0), (1, 1), (0, 0)))
    counts = [sum(np.array_equal(im, padded[a : a + 4, b : b + 4]) for im in y) for a in range(2) for b in range(5)]
    assert sum(counts) == 2000
    assert min(counts) > 130


def test_flip_exchanges_left_and_right_with_its_probability():
    x = numbered(4000, 2, 3)
    y = changed(xn.RandomFlip(0.3), x)
    flipped = np.all(y == x[:, :, ::-1], axis=(1, 2, 3))
    assert np.all(flipped | np.all(y == x, axis=(1, 2, 3)))
    assert abs(flipped.mean() - 0.3) < 0.03
    assert np.array_equal(changed(xn.RandomFlip(1), x), x[:, :, ::-1])
    assert np.array_equal(changed(xn.RandomFlip(0), x), x)


def test_cutout_cuts_one_square_whose_centre_is_anywhere():
    n, h, w = 4000, 6, 5
    y = changed(xn.Cutout((3, 2)), np.ones((n, h, w, 2), dtype=np.float32))
    assert set(np.unique(y)) == {0.0, 1.0}
    assert np.array_equal(y[..., 0], y[..., 1])
    hole = y[..., 0] == 0
    rows, columns = hole.any(axis=2).sum(axis=1), hole.any(axis=1).sum(axis=1)
    assert np.array_equal(hole.sum(axis=(1, 2)), rows * columns)
    assert np.bincount(rows)[2:].sum() == n  # at least two rows of three, at least one column of two
    assert abs((rows == 2).mean() - 2 / h) < 0.04
    assert abs((columns == 1).mean() - 1 / w) < 0.04


@pytest.mark.parametrize(("degrees", "turns"), [(90, 3), (-90, 1), (180, 2), (360, 0)])
def test_quarter_turns_are_exact_and_clockwise(backend, degrees, turns):
    x = numbered(3, 4, 4, 2)
    assert np.array_equal(changed(xn.RandomRotate((degrees, degrees)), x, backend=backend), np.rot90(x, turns, (1, 2)))


def test_scale_shear_and_translation_do_what_they_say():
    x = np.zeros((1, 9, 9, 1), dtype=np.float32)
    x[0, 4, 4], x[0, 4, 6], x[0, 2, 4] = 1, 2, 3
    larger = changed(xn.RandomAffine(0, scale=(2, 2)), x)[0, :, :, 0]
    assert [larger[4, 4], larger[4, 8], larger[0, 4]] == [1, 2, 3]
    sheared = changed(xn.RandomAffine(0, shear=(45, 45)), x)[0, :, :, 0]
    assert [sheared[4, 4], sheared[4, 6], sheared[2, 6]] == [1, 2, 3]
    moves = set()
    for key in range(300):
        moved = changed(xn.RandomAffine(0, translate=(0.1, 0.25)), x, key)[0, :, :, 0]
        row, column = np.argwhere(moved == 1)[0] - 4
        moves.add((int(row), int(column)))
        assert np.count_nonzero(moved) == 3 - (row == -3)
    assert moves == {(row, column) for row in range(-2, 3) for column in range(-1, 2)}


def bilinear(image, row, column):
    """The image between its pixels, by the definition."""
    total = np.zeros(image.shape[-1])
    for r in range(image.shape[0]):
        for c in range(image.shape[1]):
            total += max(0.0, 1 - abs(row - r)) * max(0.0, 1 - abs(column - c)) * image[r, c]
    return total


def test_affine_is_bilinear_sampling_at_the_inverse_map(rng):
    x = rng.normal(size=(1, 6, 7, 2))
    alpha, slope, s = math.radians(25), math.tan(math.radians(10)), 1.3
    layer = xn.RandomAffine((25, 25), scale=(s, s), shear=(10, 10))
    turn = np.asarray([[math.cos(alpha), -math.sin(alpha)], [math.sin(alpha), math.cos(alpha)]])
    inverse = np.linalg.inv(s * turn @ np.asarray([[1, -slope], [0, 1]]))
    y, centre = changed(layer, x), np.asarray([3.0, 2.5])
    for row in range(6):
        for column in range(7):
            c, r = inverse @ (np.asarray([column, row]) - centre) + centre
            assert np.allclose(y[0, row, column], bilinear(x[0], r, c), atol=5e-3)


def test_angles_cover_their_range_evenly():
    a, _, c, _ = np.asarray(xn.RandomRotate((-10, 30)).table)
    angles = np.sort(np.degrees(np.arctan2(-c, a)))
    assert np.allclose(angles, -10 + 40 * (np.arange(LEVELS) + 0.5) / LEVELS, atol=0.02)
    drawn = random.uniform_integers(np, 4000, 0, LEVELS, 1, "2/matrix", None)
    assert np.unique(drawn).size > 0.9 * LEVELS * (1 - math.exp(-4000 / LEVELS))


def test_layers_and_steps_draw_apart():
    x = numbered(64, 8, 8)
    layer = xn.RandomShift(2)
    first = changed(layer, x)
    assert np.array_equal(first, changed(layer, x))
    for other in (changed(layer, x, key=4), changed(layer, x, path="3")):
        same = np.all(first == other, axis=(1, 2, 3)).mean()
        assert same < 0.2


# In training


def network():
    return xn.Sequential(
        xn.Channels(),
        xn.Scale(1 / 255),
        xn.RandomFlip(),
        xn.RandomAffine(10, translate=(0.1, 0.1), scale=(0.9, 1.1)),
        xn.RandomShift(1),
        xn.RandomCrop(6),
        xn.Cutout(2),
        xn.Flatten(),
        xn.Linear(36, 3),
    )


def test_a_compiled_epoch_is_numpys(backend):
    rng = np.random.default_rng(0)
    x, labels = rng.integers(0, 256, (24, 7, 7)).astype(np.uint8), rng.integers(0, 3, 24)

    def trained(where):
        model = xn.Model(network(), xn.cross_entropy, xn.SGD(0.1), seed=3, backend=where, dtype="float32")
        model.fit(x, labels, epochs=1, batch_size=8)
        return model.backend.asnumpy(model.theta)

    assert np.allclose(trained(backend), trained(NUMPY), rtol=0, atol=2e-6)


def test_augmentation_may_stand_behind_parameters(backend):
    net = xn.Sequential(xn.Conv2d(1, 2, 3), xn.RandomAffine(10), xn.Cutout(1), xn.RandomFlip(), xn.Flatten())
    gradcheck(net, (2, 5, 5, 1), backend=backend, training=True, key=1)


# Errors


WRONG = [
    (lambda: xn.RandomShift(-1), "RandomShift: pixels must be an integer of at least 0, got -1"),
    (lambda: xn.RandomShift((1, 2, 3)), "RandomShift: pixels must be one integer or two, got (1, 2, 3)"),
    (lambda: xn.RandomFlip(1.5), "RandomFlip: p must be a number of at least 0 and of at most 1, got 1.5"),
    (lambda: xn.RandomCrop(0), "RandomCrop: pixels must be an integer of at least 1, got 0"),
    (lambda: xn.RandomCrop(3, padding=-1), "RandomCrop: padding must be an integer of at least 0, got -1"),
    (lambda: xn.Cutout(0), "Cutout: pixels must be an integer of at least 1, got 0"),
    (lambda: xn.RandomRotate(-5), "RandomRotate: degrees must be a number of at least 0 and of at most 360, got -5"),
    (lambda: xn.RandomRotate((5, -5)), "RandomRotate: degrees must be (low, high), got (5.0, -5.0)"),
    (lambda: xn.RandomAffine("x"), "RandomAffine: degrees must be a number of at least 0 and of at most 360, got 'x'"),
    (lambda: xn.RandomAffine(0, translate=0.1), "RandomAffine: translate must be two numbers, got 0.1"),
    (
        lambda: xn.RandomAffine(0, translate=(0, 2)),
        "RandomAffine: translate must be a number of at least 0 and of at most 1, got 2",
    ),
    (
        lambda: xn.RandomAffine(0, scale=(0, 1)),
        "RandomAffine: scale must be a number of at least 0.125 and of at most 8, got 0",
    ),
    (
        lambda: xn.RandomAffine(0, shear=90),
        "RandomAffine: shear must be a number of at least 0 and of at most 60, got 90",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), WRONG, ids=[message[:50] for _, message in WRONG])
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()


SHAPES = [
    (xn.RandomShift(1), (2, 5, 5), "images (N, H, W, C), got (2, 5, 5): add Channels() before it, which gives images"),
    (xn.RandomRotate(5), (2, 5), "images (N, H, W, C), got (2, 5)"),
    (xn.RandomCrop(8, padding=1), (2, 5, 9, 1), "images of at least 6×6 pixels, got (2, 5, 9, 1)"),
    (xn.RandomRotate(5), (1, 2**17, 9, 1), "images of height + width up to 131072, got (1, 131072, 9, 1)"),
]


@pytest.mark.parametrize(("layer", "shape", "message"), SHAPES, ids=[str(layer) for layer, _, _ in SHAPES])
def test_shapes_that_do_not_fit_are_refused(layer, shape, message):
    with pytest.raises(ShapeError, match=f"^{re.escape(f'{layer} expects {message}')}"):
        layer.output_shape(shape)


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_training_needs_a_key(layer):
    with pytest.raises(
        ValueError, match=rf"{type(layer).__name__} at layer 2 draws a new mask at each step of training"
    ):
        changed(layer, numbered(1, *IMAGES), key=None)


def test_integers_cannot_be_rotated(backend):
    with pytest.raises(TypeError, match=r"RandomRotate mixes floating-point numbers, got .*int32: cast them first"):
        changed(xn.RandomRotate(5), numbered(1, *IMAGES, dtype="int32"), backend=backend)
