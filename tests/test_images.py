"""Layers for images and sequences: gradients over their settings, values beside plain loops, and what they refuse."""

import re
from itertools import product
from math import prod

import numpy as np
import pytest

import xpnet as xn
from xpnet.layers import Context
from xpnet.testing import assert_close, check_layer, gradcheck

# Gradients, over shape × kernel × stride × padding × dilation × groups


def fitting(make, shapes, *settings):
    """Return each layer that can be made of a choice of settings, with each shape that it takes."""
    found = []
    for chosen in product(*settings):
        try:
            layer = make(*chosen)
        except ValueError:
            continue
        for shape in shapes:
            whole = (*shape, layer.nin) if hasattr(layer, "nin") else shape
            try:
                layer.output_shape((1, *whole))
            except xn.ShapeError:
                continue
            found.append((layer, whole))
    return found


def conv2d(kernel, stride, padding, dilation, channels):
    return xn.Conv2d(*channels[:2], kernel, stride, padding, dilation, channels[2], bias=kernel != 2)


def conv1d(kernel, stride, padding, dilation, channels):
    return xn.Conv1d(*channels[:2], kernel, stride, padding, dilation, channels[2], bias=kernel != 2)


def transposed(kernel, stride, padding, extra, dilation, channels):
    return xn.ConvTranspose2d(*channels[:2], kernel, stride, padding, extra, channels[2], kernel != 2, dilation)


CHANNELS = [(1, 2, 1), (2, 1, 1), (2, 2, 2), (2, 4, 2), (3, 3, 3), (4, 2, 2)]  # inputs, outputs, groups
KERNELS, STRIDES = [1, 2, 3, (2, 3), (3, 1)], [1, 2, (2, 1), (1, 3)]
PADDINGS = [0, 1, (0, 1), (2, 1), "same", "valid"]
POOLS = [(4, 4, 1), (5, 4, 2), (3, 6, 2)], [1, 2, 3, (2, 3)], [None, 1, 2, (1, 3)], [0, 1, (0, 1), (1, 0)]
FEATURES = [(4,), (3, 4), (2, 3, 4)]
FAMILIES = {
    "Conv2d": fitting(conv2d, [(4, 5), (3, 3)], KERNELS, STRIDES, PADDINGS, [1, 2, (1, 2)], CHANNELS)[::29],
    "Conv1d": fitting(conv1d, [(5,), (8,)], [1, 2, 3], [1, 2, 3], [0, 1, 2, "same"], [1, 2], CHANNELS)[::9],
    "ConvTranspose2d": fitting(
        transposed, [(2, 3), (1, 2)], KERNELS, STRIDES, [0, 1, (0, 1)], [0, 1, (1, 0)], [1, 2], CHANNELS
    )[::29],
    "MaxPool2d": fitting(xn.MaxPool2d, *POOLS)[::2],
    "AvgPool2d": fitting(xn.AvgPool2d, *POOLS)[::2],
    "GlobalAvgPool2d": fitting(xn.GlobalAvgPool2d, [(1, 1, 1), (1, 4, 2), (3, 2, 3)]),
    "Upsample": fitting(xn.Upsample, [(1, 1, 1), (2, 3, 2)], [1, 2, 3, (2, 1), (1, 3)]),
    "Channels": fitting(xn.Channels, [(1, 1), (3, 2)]),
    "Dropout2d": fitting(xn.Dropout2d, [(1, 1, 4), (3, 2, 3)], [0.0, 0.3, 0.7]),
    "BatchNorm": fitting(xn.BatchNorm, FEATURES, [4], [1e-5, 0.5]),
    "LayerNorm": fitting(xn.LayerNorm, FEATURES, [4], [1e-5, 0.5]),
    "GroupNorm": fitting(xn.GroupNorm, FEATURES, [1, 2, 4], [4], [1e-5, 0.5]),
    "RMSNorm": fitting(xn.RMSNorm, FEATURES, [4], [None, 0.5]),
}
EVERY = {"numpy": 1, "numpy-readonly": 4, "torch": 5, "strict:device1": 25, "jax": 40}
"""Where a call costs more, one case in so many."""


def cases(family, name):
    """Return the cases of a family that are tried on a backend: on JAX, which compiles each operation, small ones."""
    found = FAMILIES[family]
    if name == "jax":
        found = [case for case in found if prod(getattr(getattr(case[0], "grid", None), "kernel", (1,))) <= 2]
    return found[:: EVERY.get(name, 5)]


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients(backend, family, request):
    for k, (layer, shape) in enumerate(cases(family, request.node.callspec.params["xpnet_backend"])):
        batch = 5 if family == "BatchNorm" else 1 + k % 2  # of two numbers that are close, x̂ bends within a difference
        for training in (False, True) if layer.buffers() or family == "Dropout2d" else (False,):
            gradcheck(layer, (batch, *shape), backend=backend, seed=k, training=training, key=k)


def test_there_are_enough_of_them():
    counts = {name: sum(len(cases(family, name)) for family in FAMILIES) for name in EVERY}
    assert sum(counts.values()) >= 600
    assert min(len(cases(family, name)) for family in FAMILIES for name in EVERY) >= 1
    convolutions = [layer for family in ("Conv2d", "Conv1d", "ConvTranspose2d") for layer, _ in FAMILIES[family]]
    for name in ("kernel", "stride", "padding", "dilation", "groups", "bias"):
        assert len({getattr(layer, name) for layer in convolutions}) > 1
    assert {"same"} < {layer.padding for layer in convolutions}


CONTRACT = [
    (xn.Conv2d(2, 4, (2, 3), stride=(1, 2), padding=1, groups=2), (3, 4, 2)),
    (xn.Conv2d(2, 2, 2, padding="same", bias=False), (3, 2, 2)),
    (xn.Conv1d(2, 3, 2, stride=2, padding=1), (4, 2)),
    (xn.ConvTranspose2d(2, 4, 2, stride=(2, 1), padding=(0, 1), output_padding=(1, 0), groups=2), (2, 3, 2)),
    (xn.MaxPool2d(2, stride=(1, 2), padding=(1, 0)), (3, 4, 2)),
    (xn.AvgPool2d(2), (4, 2, 2)),
    (xn.GlobalAvgPool2d(), (2, 3, 2)),
    (xn.Upsample((2, 1)), (2, 3, 2)),
    (xn.Channels(), (2, 3)),
    (xn.Dropout2d(0.4), (2, 3, 2)),
    (xn.BatchNorm(3), (3,)),
    (xn.BatchNorm(2), (2, 3, 2)),
    (xn.LayerNorm(4), (2, 4)),
    (xn.GroupNorm(2, 4), (3, 4)),
    (xn.RMSNorm(4), (2, 4)),
]


@pytest.mark.skip_backend("jax", reason="compiles each operation for each shape, 3 to 20 s a layer: two are below")
@pytest.mark.parametrize(("layer", "shape"), CONTRACT, ids=str)
def test_layer_keeps_the_contract(backend, layer, shape):
    check_layer(layer, (3, *shape), backend=backend)
    if layer.buffers() or isinstance(layer, xn.Dropout2d):
        check_layer(layer, (3, *shape), backend=backend, training=True, key=5)


@pytest.mark.parametrize(("layer", "shape"), [(xn.Conv2d(1, 2, (1, 2)), (1, 3, 1)), (xn.BatchNorm(2), (2,))], ids=str)
def test_layer_keeps_the_contract_where_each_operation_is_compiled(backend, layer, shape):
    if backend.name == "jax":
        check_layer(layer, (3, *shape), backend=backend, training=bool(layer.buffers()))


# Values, beside loops over every number


def windows(x, layer, grid):
    """Yield for each output (n, h, w) and each tap (i, j) what it reads of images: a row of channels, None outside."""
    (p, q), (s, t), (d, e) = grid.before, grid.stride, grid.dilation
    height, width = x.shape[1] + p + grid.after[0], x.shape[2] + q + grid.after[1]
    size = len(range(0, height - d * (grid.kernel[0] - 1), s)), len(range(0, width - e * (grid.kernel[1] - 1), t))
    assert layer.output_shape(x.shape)[1:3] == size
    for n, h, w in np.ndindex(len(x), *size):
        for i, j in np.ndindex(*grid.kernel):
            row, column = s * h + d * i - p, t * w + e * j - q
            inside = 0 <= row < x.shape[1] and 0 <= column < x.shape[2]
            yield (n, h, w), (i, j), (n, row, column) if inside else None


def convolved(layer, x, weight, bias):
    y = np.zeros(layer.output_shape(x.shape)) + bias
    own, made = layer.nin // layer.groups, layer.nout // layer.groups
    for out, tap, place in windows(x, layer, layer.grid):
        for o in range(layer.nout if place else 0):
            first = o // made * own
            y[(*out, o)] += sum(x[(*place, first + c)] * weight[(*tap, c, o)] for c in range(own))
    return y


def spread(layer, x, weight, bias):
    """What a transposed convolution is: each input, times the kernel, added where that lies."""
    (p, q), (s, t), (d, e) = layer.grid.before, layer.grid.stride, layer.grid.dilation
    (k, m), (r, u) = layer.grid.kernel, np.broadcast_to(layer.output_padding, 2)
    height, width = (
        (x.shape[1] - 1) * s + d * (k - 1) + 1 + r - 2 * p,
        (x.shape[2] - 1) * t + e * (m - 1) + 1 + u - 2 * q,
    )
    y = np.zeros((len(x), height, width, layer.nout)) + bias
    own, made = layer.nin // layer.groups, layer.nout // layer.groups
    for n, h, w, c in np.ndindex(*x.shape):
        for i, j, o in np.ndindex(*layer.grid.kernel, made):
            row, column = s * h + d * i - p, t * w + e * j - q
            if 0 <= row < y.shape[1] and 0 <= column < y.shape[2]:
                y[n, row, column, c // own * made + o] += x[n, h, w, c] * weight[i, j, o, c]
    return y


def pooled(layer, x):
    largest = isinstance(layer, xn.MaxPool2d) and not isinstance(layer, xn.AvgPool2d)
    y = np.full(layer.output_shape(x.shape), -np.inf if largest else 0.0)
    for out, _, place in windows(x, layer, layer.grid):
        if place and largest:
            y[out] = np.maximum(y[out], x[place])
        elif place:
            y[out] += x[place] / prod(layer.grid.kernel)
    return y


def values(layer, backend, x, params=(), **how):
    y, _ = layer.forward(tuple(map(backend.asarray, params)), backend.asarray(x), Context(backend, **how))
    return y


@pytest.mark.parametrize("family", ["Conv2d", "ConvTranspose2d", "MaxPool2d", "AvgPool2d"])
def test_values_are_those_of_plain_loops(family, rng):
    backend = xn.backend("numpy")
    loops = {"Conv2d": convolved, "ConvTranspose2d": spread}.get(family, pooled)
    for layer, shape in FAMILIES[family]:
        x, params = rng.normal(size=(2, *shape)), [rng.normal(size=p.shape) for p in layer.parameters()]
        bias = () if loops is pooled else (params[0], params[1] if layer.bias else 0.0)
        assert_close(backend, values(layer, backend, x, params), loops(layer, x, *bias), multiple=64, what=str(layer))


@pytest.mark.parametrize(("layer", "shape"), CONTRACT[:6], ids=str)
def test_values_on_every_backend(backend, layer, shape, rng):
    x, params = rng.normal(size=(2, *shape)), [rng.normal(size=p.shape) for p in layer.parameters()]
    expected = values(layer, xn.backend("numpy"), x, params)
    assert_close(backend, values(layer, backend, x, params), expected, multiple=64)


def test_a_sequence_is_an_image_of_one_row(backend, rng):
    x, weight, bias = rng.normal(size=(2, 7, 4)), rng.normal(size=(3, 2, 6)), rng.normal(size=6)
    sequence = xn.Conv1d(4, 6, 3, stride=2, padding=2, groups=2)
    image = xn.Conv2d(4, 6, (1, 3), stride=(1, 2), padding=(0, 2), groups=2)
    y = values(image, xn.backend("numpy"), x[:, None], (weight[None], bias))
    assert_close(backend, values(sequence, backend, x, (weight, bias)), y[:, 0])


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (2, 1), ((2, 3), (1, 2))])
def test_a_transposed_convolution_is_the_adjoint(backend, stride, padding, rng):
    forward = xn.Conv2d(2, 4, 3, stride, padding, groups=2, bias=False)
    x, weight = rng.normal(size=(2, 6, 8, 2)), rng.normal(size=(3, 3, 1, 4))
    y = values(forward, backend, x, (weight,))
    dy = rng.normal(size=tuple(y.shape))
    extra = tuple((n + 2 * p - 3) % s for n, p, s in zip((6, 8), forward.grid.before, forward.grid.stride, strict=True))
    back = values(xn.ConvTranspose2d(4, 2, 3, stride, padding, extra, groups=2, bias=False), backend, dy, (weight,))
    assert back.shape == x.shape
    assert abs(np.sum(backend.asnumpy(y) * dy) - np.sum(backend.asnumpy(back) * x)) < 1e-12 * np.abs(x).sum()


def test_upsample_and_the_mean_of_an_image(backend, rng):
    x = rng.normal(size=(2, 2, 3, 2))
    assert_close(backend, values(xn.Upsample((2, 3)), backend, x), np.kron(x, np.ones((1, 2, 3, 1))))
    assert_close(backend, values(xn.GlobalAvgPool2d(), backend, x), x.mean((1, 2)))
    assert_close(backend, values(xn.Channels(), backend, x[..., 0]), x[..., :1])


def test_the_first_of_equals_gets_the_gradient(backend):
    layer, x = xn.MaxPool2d(2), backend.asarray(np.ones((1, 2, 4, 1)))
    y, pullback = layer.forward((), x, Context(backend))
    dx, _ = pullback(y * 3.0)
    assert backend.asnumpy(dx)[0, :, :, 0].tolist() == [[3.0, 0.0, 3.0, 0.0], [0.0] * 4]


def test_padding_is_never_the_largest(backend):
    y = values(xn.MaxPool2d(3, stride=2, padding=1), backend, np.full((1, 3, 3, 1), -7.0))
    assert np.all(backend.asnumpy(y) == -7.0)


def standard(x, axes, eps):
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


@pytest.mark.parametrize("shape", [(5, 4), (3, 2, 4), (2, 3, 2, 4)], ids=str)
def test_norms(backend, shape, rng):
    x, gamma, beta = 100.0 + rng.normal(size=shape), rng.normal(size=4), rng.normal(size=4)
    assert_close(
        backend, values(xn.LayerNorm(4), backend, x, (gamma, beta)), gamma * standard(x, -1, 1e-5) + beta, multiple=1e4
    )
    cut = x.reshape(shape[0], -1, 2, 2)
    expected = gamma * standard(cut, (1, 3), 0.1).reshape(shape) + beta
    assert_close(backend, values(xn.GroupNorm(2, 4, 0.1), backend, x, (gamma, beta)), expected, multiple=1e4)
    expected = gamma * x / np.sqrt((x * x).mean(-1, keepdims=True) + 0.1)
    assert_close(backend, values(xn.RMSNorm(4, 0.1), backend, x, (gamma,)), expected)
    training = values(xn.BatchNorm(4), backend, x, (gamma, beta), training=True)
    rows = tuple(range(len(shape) - 1))
    assert_close(backend, training, gamma * standard(x, rows, 1e-5) + beta, multiple=1e4)


@pytest.mark.parametrize("shape", [(5, 4), (3, 2, 4), (2, 3, 2, 4)], ids=str)
def test_what_batch_norm_carries(backend, shape, rng):
    layer, x = xn.BatchNorm(4, momentum=0.25), rng.normal(2.0, 3.0, size=shape)
    theta, buffers = layer.init(0, backend, "float64"), layer.init_buffers(backend, "float64")
    layer(theta, backend.asarray(x), True, buffers=buffers)
    rows = x.reshape(-1, 4)
    assert_close(backend, buffers["running_mean"], 0.25 * rows.mean(0))
    assert_close(backend, buffers["running_var"], 0.75 + 0.25 * rows.var(0, ddof=1))
    before = {name: np.array(backend.asnumpy(array)) for name, array in buffers.items()}
    y, _ = layer(theta, backend.asarray(x), buffers=buffers)
    expected = (x - before["running_mean"]) / np.sqrt(before["running_var"] + 1e-5)
    assert_close(backend, y, expected)
    assert all(np.array_equal(backend.asnumpy(array), before[name]) for name, array in buffers.items())


def test_whole_maps_are_dropped(backend):
    x = np.ones((8, 3, 2, 16), np.float32)
    y = backend.asnumpy(values(xn.Dropout2d(0.25), backend, x, training=True, key=3))
    assert set(np.unique(y)) == {np.float32(0.0), np.float32(1 / 0.75)}
    assert np.array_equal(y, np.broadcast_to(y[:, :1, :1], x.shape))
    assert 0.1 < np.mean(y == 0) < 0.4
    assert np.array_equal(y, values(xn.Dropout2d(0.25), xn.backend("numpy"), x, training=True, key=3))


def test_an_empty_batch(backend):
    for layer, shape in CONTRACT:
        y, pullback = layer.forward(
            tuple(backend.asarray(np.ones(p.shape)) for p in layer.parameters()),
            backend.asarray(np.zeros((0, *shape))),
            Context(backend, buffers={p.name: backend.asarray(np.ones(p.shape)) for p in layer.buffers()}),
        )
        assert y.shape == (0, *layer.output_shape((0, *shape))[1:])
        dx, gradients = pullback(y)
        assert dx.shape == (0, *shape)
        assert not any(np.any(backend.asnumpy(g)) for g in gradients)


# Bad input


FIRST = "the channels come first there, as in PyTorch: move them to the end, x.transpose(0, 2, 3, 1)"
SHAPES = [
    # too small
    (xn.Conv2d(3, 8, 5), (7, 4, 9, 3), "images of at least 5×5, got 4×9"),
    (xn.Conv2d(3, 8, (3, 2), padding=(1, 0), dilation=4), (7, 6, 4, 3), "images of at least 7×5, got 6×4"),
    (xn.Conv2d(1, 8, 3, padding=2), (7, 0, 5, 1), "images of at least 1×1, got 0×5"),
    (xn.Conv1d(3, 8, 3, dilation=2, padding=1), (7, 2, 3), "sequences of at least 3, got 2"),
    (xn.ConvTranspose2d(3, 8, 2, padding=2), (7, 1, 9, 3), "images of at least 4×4, got 1×9"),
    (
        xn.ConvTranspose2d(3, 8, 3, stride=2, padding=3, output_padding=1),
        (7, 2, 3, 3),
        "images of at least 3×3, got 2×3",
    ),
    (xn.ConvTranspose2d(1, 8, 3), (7, 0, 5, 1), "images of at least 1×1, got 0×5"),
    (xn.MaxPool2d(4, stride=2), (7, 9, 3, 3), "images of at least 4×4, got 9×3"),
    (xn.AvgPool2d(4, padding=1), (7, 1, 3, 3), "images of at least 2×2, got 1×3"),
    (xn.GlobalAvgPool2d(), (7, 0, 3, 3), "images of at least 1×1, got 0×3"),
    # other channels
    (
        xn.Conv2d(3, 8, 3),
        (7, 9, 9, 4),
        "(N, H, W, 3), got (7, 9, 9, 4): the layer before it or the data must have 3 channels",
    ),
    (xn.Conv1d(3, 8, 3), (7, 9, 4), "(N, T, 3), got (7, 9, 4): the layer before it or the data must have 3 channels"),
    (
        xn.ConvTranspose2d(3, 8, 3),
        (7, 9, 9, 4),
        "got (7, 9, 9, 4): the layer before it or the data must have 3 channels",
    ),
    (
        xn.BatchNorm(3),
        (7, 9, 9, 4),
        "3 channels in the last axis, got (7, 9, 9, 4): the layer before it or the data must",
    ),
    (
        xn.GroupNorm(1, 3),
        (7, 4),
        "3 channels in the last axis, got (7, 4): the layer before it or the data must have 3",
    ),
    (xn.LayerNorm(3), (3,), "3 channels in the last axis, got (3,): give it a batch, x[None, ...]"),
    # channels first
    (xn.Conv2d(3, 8, 3), (7, 3, 9, 9), f"(N, H, W, 3), got (7, 3, 9, 9): {FIRST}"),
    (xn.Conv2d(1, 8, 3), (7, 1, 9, 9), f"(N, H, W, 1), got (7, 1, 9, 9): {FIRST}"),
    (xn.Conv1d(3, 8, 3), (7, 3, 9), f"(N, T, 3), got (7, 3, 9): {FIRST.replace('0, 2, 3, 1', '0, 2, 1')}"),
    (xn.ConvTranspose2d(3, 8, 3), (7, 3, 9, 9), f"(N, H, W, 3), got (7, 3, 9, 9): {FIRST}"),
    (xn.BatchNorm(3), (7, 3, 9, 9), f"3 channels in the last axis, got (7, 3, 9, 9): {FIRST}"),
    # other axes
    (xn.Conv2d(1, 8, 3), (7, 9, 9), "(N, H, W, 1), got (7, 9, 9): add Channels() before it, which gives images"),
    (xn.Conv2d(1, 8, 3), (9, 9, 1), "(N, H, W, 1), got (9, 9, 1): give it a batch, x[None, ...]"),
    (xn.Conv2d(3, 8, 3), (9, 9, 3), "(N, H, W, 3), got (9, 9, 3): give it a batch, x[None, ...]"),
    (xn.Conv2d(3, 8, 3), (7, 27), "(N, H, W, 3), got (7, 27): give it images, not rows"),
    (xn.Conv1d(1, 8, 3), (7, 9), "(N, T, 1), got (7, 9): give it an axis of channels, x[..., None]"),
    (xn.MaxPool2d(2), (7, 9, 9), "(N, H, W, C), got (7, 9, 9): add Channels() before it, which gives images"),
    (xn.Upsample(2), (7, 9, 9), "(N, H, W, C), got (7, 9, 9): add Channels() before it, which gives images"),
    (xn.Dropout2d(), (7, 9), "images (N, H, W, C), got (7, 9): Dropout() is for other shapes"),
    (xn.Channels(), (7, 9, 9, 1), "grey images (N, H, W), got (7, 9, 9, 1): drop Channels(), they have channels"),
]


@pytest.mark.parametrize(("layer", "shape", "text"), SHAPES, ids=[f"{layer}-{shape}" for layer, shape, _ in SHAPES])
def test_shapes_that_do_not_fit(layer, shape, text):
    with pytest.raises(xn.ShapeError) as caught:
        layer.output_shape(shape)
    assert str(caught.value).startswith(f"{layer} expects ")
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("layer", [layer for layer, _, text in SHAPES if " of at least" in text], ids=str)
def test_the_smallest_that_is_said_does_fit(layer):
    axes = 1 if isinstance(layer, xn.Conv1d) else 2
    with pytest.raises(xn.ShapeError) as caught:
        layer.output_shape((7, *[0] * axes, getattr(layer, "nin", 3)))
    least = [int(n) for n in re.search(r"of at least ([\d×]+),", str(caught.value))[1].split("×")]
    assert min(layer.output_shape((7, *least, getattr(layer, "nin", 3)))) >= 1
    for k, n in enumerate(least):
        with pytest.raises(xn.ShapeError, match="of at least"):
            layer.output_shape((7, *least[:k], n - 1, *least[k + 1 :], getattr(layer, "nin", 3)))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: xn.Conv2d(3, 8, 3, groups=2), "Conv2d: groups must divide 3 and 8 channels, got 2"),
        (lambda: xn.Conv1d(4, 6, 3, groups=4), "Conv1d: groups must divide 4 and 6 channels, got 4"),
        (lambda: xn.ConvTranspose2d(4, 6, 3, groups=3), "ConvTranspose2d: groups must divide 4 and 6 channels, got 3"),
        (lambda: xn.GroupNorm(2, 3), "GroupNorm: groups must divide 3 channels, got 2"),
        (lambda: xn.Conv2d(1, 2, 0), "Conv2d: kernel must be an integer of at least 1, got 0"),
        (lambda: xn.Conv2d(1, 2, (1, 2, 3)), "Conv2d: kernel must be one integer or two, got (1, 2, 3)"),
        (
            lambda: xn.Conv2d(1, 2, 3, padding="full"),
            """Conv2d: padding must be a number, two, "same" or "valid", got 'full'""",
        ),
        (
            lambda: xn.Conv2d(1, 2, 3, 2, "same"),
            'Conv2d: padding="same" is for stride 1, got stride (2, 2): pass the number of pixels',
        ),
        (lambda: xn.Conv2d(1, 2, 3, padding=-1), "Conv2d: padding must be an integer of at least 0, got -1"),
        (lambda: xn.Conv1d(1, 2, (3,)), "Conv1d: kernel must be an integer of at least 1, got (3,)"),
        (
            lambda: xn.ConvTranspose2d(1, 2, 3, stride=2, output_padding=2),
            "ConvTranspose2d: output_padding must be below stride 2, got 2",
        ),
        (lambda: xn.MaxPool2d(3, padding=2), "MaxPool2d: padding must be at most half of kernel 3, got 2"),
        (lambda: xn.AvgPool2d(2, stride=0), "AvgPool2d: stride must be an integer of at least 1, got 0"),
        (lambda: xn.Upsample(1.5), "Upsample: factor must be an integer of at least 1, got 1.5"),
        (lambda: xn.BatchNorm(3, eps=0), "BatchNorm: eps must be a number above 0, got 0"),
        (
            lambda: xn.BatchNorm(3, momentum=2),
            "BatchNorm: momentum must be a number of at least 0 and of at most 1, got 2",
        ),
        (lambda: xn.LayerNorm((3, 4)), "LayerNorm: n must be an integer of at least 1, got (3, 4)"),
        (lambda: xn.Dropout2d(1.0), "Dropout2d: p must be a number of at least 0 and below 1, got 1.0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings_that_do_not_go_together(make, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        make()


def test_batch_norm_needs_two_numbers_and_its_statistics(backend):
    net = xn.Sequential(xn.Linear(2, 3), xn.BatchNorm(3))
    theta = net.init(0, backend)
    for n in (0, 1):
        text = rf"^BatchNorm\(3\) at layer 1 needs at least 2 numbers a channel to train on, got \({n}, 3\)$"
        with pytest.raises(xn.ShapeError, match=text):
            net(theta, backend.asarray(np.zeros((n, 2)), dtype="float32"), True)
    with pytest.raises(
        ValueError, match=r'^"running_mean" at layer 1 was not handed in: pass buffers=model.buffers, or'
    ):
        net(theta, backend.asarray(np.zeros((3, 2)), dtype="float32"))


def test_images_that_a_model_cannot_take(rng):
    net = xn.Sequential(xn.Conv2d(1, 2, 3), xn.BatchNorm(2), xn.Flatten(), xn.Linear(2 * 4 * 4, 3))
    model = xn.Model(net, xn.cross_entropy, xn.SGD(0.1), backend="numpy")
    x, y = rng.normal(size=(9, 6, 6, 1)).astype("float32"), rng.integers(0, 3, 9)
    for images, text in [
        (x[..., 0], r"^Conv2d\(1→2, 3×3\) at layer 0 expects images .*: add Channels\(\) before it"),
        (
            np.moveaxis(x, -1, 1),
            r"^Conv2d\(1→2, 3×3\) at layer 0 expects .*: the channels come first there, as in PyTorch",
        ),
        (x[:, :2], r"^Conv2d\(1→2, 3×3\) at layer 0 expects images of at least 3×3, got 2×6$"),
    ]:
        with pytest.raises(xn.ShapeError, match=text):
            model.fit(images, y)
    with pytest.raises(xn.DataError, match=r"^x is empty: it has the shape \(0, 6, 6, 1\)"):
        model.fit(x[:0], y[:0])
