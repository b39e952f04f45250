"""Weights and running statistics of convolutional networks, from PyTorch and back: the same predictions."""

from dataclasses import dataclass

import numpy as np
import pytest

import xpnet as xn
from xpnet.interop.torch import from_torch, load_weights, save_weights, to_torch

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'xpnet[torch]'")
pytest.importorskip("safetensors", reason="safetensors is not installed: pip install 'xpnet[safetensors]'")
nn = torch.nn


class Add(nn.Sequential):
    def forward(self, x):
        return sum(layer(x) for layer in self)


class Concat(nn.Sequential):
    def forward(self, x):
        return torch.cat([layer(x) for layer in self], 1)


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


class ChannelsLast(nn.LayerNorm):
    """A norm over the channels, which in a network of ours are the last axis."""

    def forward(self, x):
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def block(module, i, o, stride):
    """A residual block, ours or theirs: a projection where the shape changes."""
    conv, norm, relu, chain = (
        module.Conv2d,
        getattr(module, "BatchNorm", None) or module.BatchNorm2d,
        module.ReLU,
        module.Sequential,
    )
    body = [conv(i, o, 3, stride, 1, bias=False), norm(o), relu(), conv(o, o, 3, 1, 1, bias=False), norm(o)]
    if (i, stride) == (o, 1):
        return (Residual if module is nn else xn.Residual)(*body)
    join = Add if module is nn else xn.Parallel
    return join(chain(*body), chain(conv(i, o, 1, stride, bias=False), norm(o)))


LENET = (
    xn.Sequential(
        xn.Conv2d(1, 4, 5, padding=2),
        xn.Tanh(),
        xn.AvgPool2d(2),
        xn.Conv2d(4, 6, 3),
        xn.Tanh(),
        xn.MaxPool2d(2, stride=1),
        xn.Flatten(),
        xn.Linear(6 * 3 * 1, 7),
        xn.Tanh(),
        xn.Linear(7, 5),
    ),
    lambda: nn.Sequential(
        nn.Conv2d(1, 4, 5, padding=2),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(4, 6, 3),
        nn.Tanh(),
        nn.MaxPool2d(2, stride=1),
        nn.Flatten(),
        nn.Linear(6 * 3 * 1, 7),
        nn.Tanh(),
        nn.Linear(7, 5),
    ),
    (12, 8, 1),
)
RESNET = (
    xn.Sequential(
        *(xn.Conv2d(3, 4, 3, padding=1, bias=False), xn.BatchNorm(4), xn.ReLU()),
        *(block(xn, 4, 4, 1), xn.ReLU(), block(xn, 4, 6, 2), xn.ReLU(), block(xn, 6, 6, 1), xn.ReLU()),
        *(xn.GlobalAvgPool2d(), xn.Flatten(), xn.Linear(6, 5)),
    ),
    lambda: nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU()),
        *(block(nn, 4, 4, 1), nn.ReLU(), block(nn, 4, 6, 2), nn.ReLU(), block(nn, 6, 6, 1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)),
    ),
    (6, 8, 3),
)
NORMS = (
    xn.Sequential(
        *(xn.Conv2d(2, 4, 2, groups=2), xn.GroupNorm(2, 4), xn.SiLU(), xn.LayerNorm(4), xn.Dropout2d(0.3)),
        *(xn.Flatten(), xn.BatchNorm(4 * 2 * 3), xn.PReLU(4 * 2 * 3), xn.LayerNorm(4 * 2 * 3), xn.Dropout(0.2)),
        xn.Parallel(xn.Linear(4 * 2 * 3, 3), xn.Sequential(xn.Linear(4 * 2 * 3, 3, bias=False), xn.Tanh())),
    ),
    lambda: nn.Sequential(
        *(
            nn.Conv2d(2, 4, 2, groups=2),
            nn.GroupNorm(2, 4),
            nn.SiLU(),
            ChannelsLast(4),
            nn.Dropout2d(0.3),
        ),
        *(nn.Flatten(), nn.BatchNorm1d(4 * 2 * 3), nn.PReLU(4 * 2 * 3), nn.LayerNorm(4 * 2 * 3), nn.Dropout(0.2)),
        Add(nn.Linear(4 * 2 * 3, 3), nn.Sequential(nn.Linear(4 * 2 * 3, 3, bias=False), nn.Tanh())),
    ),
    (3, 4, 2),
)
UNET = (
    xn.Sequential(
        xn.Parallel(
            xn.Sequential(),
            xn.Sequential(xn.Conv2d(2, 4, 2, 2), xn.ReLU(), xn.ConvTranspose2d(4, 4, 2, 2, groups=2)),
            xn.Sequential(xn.MaxPool2d(2), xn.Upsample(2), xn.Conv2d(2, 1, 1)),
            join="concat",
        ),
        *(xn.Conv2d(7, 7, 3, groups=7), xn.Flatten(), xn.Linear(7 * 2 * 4, 3)),
    ),
    lambda: nn.Sequential(
        Concat(
            nn.Sequential(),
            nn.Sequential(nn.Conv2d(2, 4, 2, 2), nn.ReLU(), nn.ConvTranspose2d(4, 4, 2, 2, groups=2)),
            nn.Sequential(nn.MaxPool2d(2), nn.Upsample(scale_factor=2), nn.Conv2d(2, 1, 1)),
        ),
        *(nn.Conv2d(7, 7, 3, groups=7), nn.Flatten(), nn.Linear(7 * 2 * 4, 3)),
    ),
    (4, 6, 2),
)
SEQUENCE = (
    xn.Sequential(
        xn.Conv1d(2, 4, 3, padding=1), xn.BatchNorm(4), xn.PReLU(), xn.PReLU(4), xn.Flatten(), xn.Linear(4 * 5, 3)
    ),
    lambda: nn.Sequential(
        nn.Conv1d(2, 4, 3, padding=1), nn.BatchNorm1d(4), nn.PReLU(), nn.PReLU(4), nn.Flatten(), nn.Linear(4 * 5, 3)
    ),
    (5, 2),
)
PAIRS = {"LeNet": LENET, "ResNet": RESNET, "norms": NORMS, "U-Net": UNET, "sequence": SEQUENCE}


def trained(make, shape, dtype):
    """Return a module of PyTorch's after some passes in training, and images for it, channels first."""
    torch.manual_seed(1)
    module, x = make().to(dtype), torch.randn(16, shape[-1], *shape[:-1], dtype=dtype)
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0.1, 0.5)
    for _ in range(3):
        module(2.0 + 3.0 * x)
    return module.eval(), x


def model_of(net, dtype, backend="numpy"):
    return xn.Model(net, xn.cross_entropy, xn.SGD(0.1), seed=9, dtype=dtype, backend=backend)


def last(x):
    return np.moveaxis(x.numpy(), 1, -1).copy()


@pytest.mark.parametrize(("dtype", "limit"), [("float64", 1e-10), ("float32", 1e-5)])
@pytest.mark.parametrize("pair", PAIRS)
def test_there_and_back_the_predictions_are_the_same(pair, dtype, limit, tmp_path):
    net, make, shape = PAIRS[pair]
    module, x = trained(make, shape, getattr(torch, dtype))
    from safetensors.torch import load_file, save_file

    save_file(module.state_dict(), tmp_path / "theirs.safetensors")
    model = model_of(net, dtype)
    load_weights(model, tmp_path / "theirs.safetensors")
    theirs = module(x).detach().numpy()
    unit = np.abs(theirs).max()
    assert theirs.std() > 0.01 * unit  # there is something to agree on
    assert np.abs(model.predict(last(x)) - theirs).max() <= limit * unit

    other = make().to(getattr(torch, dtype)).eval()
    save_weights(model, tmp_path / "ours.safetensors")
    other.load_state_dict(load_file(tmp_path / "ours.safetensors"), strict=True)
    assert torch.equal(other(x), module(x))


def test_on_every_backend(backend, tmp_path):
    net, make, shape = SEQUENCE
    module, x = trained(make, shape, torch.float32)
    state = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    buffers = {}
    theta = from_torch(net, state, "float32", buffers)
    model = model_of(net, "float32", backend)
    model.theta = backend.asarray(theta)
    model.buffers = {name: backend.asarray(array) for name, array in buffers.items()}
    np.testing.assert_allclose(model.predict(last(x)), module(x).detach().numpy(), rtol=1e-5, atol=1e-5)
    back = to_torch(net, model.theta, model.buffers)
    assert back.keys() == {name for name in state if not name.endswith("num_batches_tracked")}
    assert all(np.array_equal(back[name], state[name]) for name in back)
    assert all(array.flags.c_contiguous for array in back.values())
    save_weights(model, tmp_path / "net.safetensors")
    fresh = model_of(net, "float32", backend)
    load_weights(fresh, tmp_path / "net.safetensors")
    assert np.array_equal(fresh.predict(last(x)), model.predict(last(x)))


def test_the_rows_of_a_linear_after_flatten_are_in_another_order():
    net, make, shape = LENET
    module, x = trained(make, shape, torch.float64)
    state = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    theta = from_torch(net, state)
    weight = net.windows(theta)["7.weight"]  # (3·1 pixels × 6 channels, 7)
    assert np.array_equal(weight.reshape(3, 6, 7), state["7.weight"].reshape(7, 6, 3).transpose(2, 1, 0))
    wrong = dict(net.windows(theta)) | {"7.weight": state["7.weight"].T}
    y, _ = net(tuple(np.ascontiguousarray(window) for window in wrong.values()), last(x))
    assert np.abs(y - module(x).detach().numpy()).max() > 0.01


def test_changes_at_random_leave_the_order_alone():
    convolution, linear = xn.Conv2d(1, 2, 3), xn.Linear(2 * 3 * 4, 5)
    changes = [
        xn.RandomShift(1), xn.RandomFlip(), xn.RandomCrop((5, 6)), xn.Cutout(2), xn.RandomRotate(9), xn.RandomAffine(9)
    ]  # fmt: skip
    bare = xn.Sequential(convolution, xn.Flatten(), linear)
    net = xn.Sequential(*changes, convolution, xn.Flatten(), linear)
    theta = bare.init(2, "numpy")
    expected = list(to_torch(bare, theta).values())
    for one, other in zip(to_torch(net, theta).values(), expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_arrays_that_are_the_same_on_both_sides_stay_as_they_are():
    plain = [
        xn.Sequential(xn.Flatten(), xn.BatchNorm(12), xn.Linear(12, 2)),  # whatever the axes of the input mean
        xn.Sequential(xn.Linear(3, 12), xn.BatchNorm(12), xn.Flatten(), xn.Linear(12, 2)),
        xn.Sequential(xn.Channels(), xn.MaxPool2d(2), xn.Flatten(), xn.Linear(12, 2)),  # one channel
        xn.Sequential(xn.Conv2d(3, 1, 2), xn.BatchNorm(1), xn.Flatten(), xn.Linear(12, 2)),
        xn.Sequential(xn.Conv2d(1, 12, 2), xn.GlobalAvgPool2d(), xn.Flatten(), xn.Linear(12, 2)),  # one pixel
        xn.Sequential(xn.Conv2d(1, 12, 2), xn.Flatten(), xn.Linear(12, 2)),
    ]
    for net in plain:
        theta, buffers = net.init(1, "numpy"), net.init_buffers("numpy")
        windows, arrays = net.windows(theta), to_torch(net, theta, buffers)
        name = list(windows)[-2]
        assert np.array_equal(arrays[name], windows[name].T)


def test_one_layer_in_two_places_has_both_names():
    tower = xn.Sequential(xn.Conv2d(2, 3, 2), xn.Flatten(), xn.Linear(3 * 4, 2))
    net = xn.Parallel(xn.Shared("tower", tower), xn.Shared("tower", tower))
    theta = net.init(3, "numpy", "float64")
    arrays = to_torch(net, theta)
    assert list(arrays) == [f"{k}.{name}" for k in (0, 1) for name in ("0.weight", "0.bias", "2.weight", "2.bias")]
    assert np.array_equal(from_torch(net, arrays), theta)
    with pytest.raises(xn.CheckpointError, match=r': "1.2.bias" must be "0.2.bias", with which it is shared$'):
        from_torch(net, arrays | {"1.2.bias": np.ones(2)})


# Running statistics are never lost


NORMED = xn.Sequential(xn.Conv2d(1, 2, 2), xn.BatchNorm(2))


def state_of(net):
    return to_torch(net, net.init(0, "numpy"), net.init_buffers("numpy"))


def test_running_statistics_must_come_along():
    carried = '"1.running_mean", "1.running_var"'
    theta = NORMED.init(0, "numpy")
    with pytest.raises(xn.CheckpointError, match=rf"^the network carries {carried}, got nothing: pass buffers=$"):
        to_torch(NORMED, theta)
    with pytest.raises(
        xn.CheckpointError, match=rf'^the network carries {carried}, got "1.running_mean": pass buffers=$'
    ):
        to_torch(NORMED, theta, {"1.running_mean": np.zeros(2)})
    with pytest.raises(xn.CheckpointError, match=r'^the network carries nothing, got "0.mean": pass buffers=$'):
        to_torch(xn.Linear(2, 2), xn.Linear(2, 2).init(0, "numpy"), {"0.mean": np.zeros(2)})
    with pytest.raises(
        xn.CheckpointError, match=rf"^the network carries {carried}: pass buffers=\{{\}}, a dict that they"
    ):
        from_torch(NORMED, state_of(NORMED))


def test_missing_statistics_are_listed(tmp_path):
    state = state_of(NORMED)
    del state["1.running_var"]
    state["1.running_mean"] = np.full(2, np.nan, np.float32)
    state["0.num_batches_tracked"] = np.asarray(3)
    buffers = {}
    with pytest.raises(xn.CheckpointError) as caught:
        from_torch(NORMED, state, buffers=buffers)
    assert str(caught.value) == (
        'these weights are not the network\'s: "1.running_mean" holds NaN or infinity; '
        '"1.running_var" (2,) is missing; "0.num_batches_tracked" () is not in the network'
    )
    assert buffers == {}
    pytest.importorskip("safetensors.numpy").save_file(state, tmp_path / "net.safetensors")
    model = model_of(NORMED, "float32")
    before = np.array(model.theta), model.buffers
    with pytest.raises(xn.CheckpointError, match=r'"1.running_var" \(2,\) is missing'):
        load_weights(model, tmp_path / "net.safetensors")
    assert np.array_equal(model.theta, before[0])
    assert all(np.array_equal(array, before[1][name]) for name, array in model.buffers.items())


# What cannot be known is refused


@dataclass(frozen=True)
class Rows(xn.Layer):
    """A flatten of one's own."""

    def output_shape(self, shape):
        return (shape[0], int(np.prod(shape[1:])))

    forward = xn.Flatten.forward


@dataclass(frozen=True)
class Twice(xn.Layer):
    """An activation of one's own."""

    def forward(self, params, x, ctx):
        return 2.0 * x, lambda dy, need_dx=True, out=(): (2.0 * dy, ())


@dataclass(frozen=True)
class Images(Twice):
    """Rows made images."""

    def output_shape(self, shape):
        return (shape[0], 2, 2, shape[1] // 4)


@dataclass(frozen=True)
class Box(Twice):
    """A container of one's own."""

    inside: xn.Layer

    def parameters(self):
        return tuple(p.named("inside") for p in self.inside.parameters())


CONV, HEAD = xn.Conv2d(1, 2, 2), xn.Linear(8, 3)


@pytest.mark.parametrize(
    ("net", "why"),
    [
        (xn.Sequential(CONV, Rows(), HEAD), "Linear(8→3) at layer 2 reads what Rows() at layer 1 has made"),
        (
            xn.Sequential(CONV, Rows(), xn.Flatten(), HEAD),
            "Linear(8→3) at layer 3 reads what Rows() at layer 1 has made",
        ),
        (xn.Sequential(CONV, xn.Flatten(), Twice(), HEAD), "Twice() at layer 2 reads flattened images"),
        (
            xn.Sequential(xn.MaxPool2d(2), xn.Flatten(), HEAD),
            "Linear(8→3) at layer 2 reads flattened images whose number of channels no layer tells",
        ),
        (
            xn.Sequential(CONV, xn.Flatten(), xn.GroupNorm(2, 8), HEAD),
            "GroupNorm(2, 8) at layer 2 cuts flattened images",
        ),
        (
            xn.Sequential(CONV, xn.Flatten(), xn.Residual(xn.Linear(8, 8)), HEAD),
            "Residual at layer 2 joins flattened images with others",
        ),
        (
            xn.Sequential(
                xn.Parallel(
                    xn.Sequential(CONV, xn.Flatten()), xn.Sequential(xn.Flatten(), xn.Linear(9, 8)), join="concat"
                ),
                HEAD,
            ),
            "Linear(9→8) at layer 0.1.1 reads flattened images whose number of channels no layer tells",
        ),
        (
            xn.Sequential(xn.Linear(4, 8), Images(), xn.Conv2d(2, 1, 1)),
            "Conv2d(2→1, 1×1) at layer 2 reads images that were made of rows",
        ),
        (xn.Sequential(CONV, Box(xn.Sequential(xn.Flatten(), HEAD))), "at layer 1 reads images, and may flatten them"),
        (xn.Sequential(xn.Linear(4, 8), Box(CONV)), "at layer 1 makes images of rows"),
        (
            xn.Sequential(CONV, xn.Parallel(xn.Shared("a", HEAD), xn.Sequential(xn.Flatten(), xn.Shared("a", HEAD)))),
            '"a/weight" is shared by places that read flattened images and others that do not',
        ),
    ],
    ids=str,
)
def test_an_order_that_cannot_be_known_is_refused(net, why):
    theta = net.init(0, "numpy")
    remedy = "carry the layers over one by one, and put what reads flattened images in the order (C, H, W) yourself"
    for call in (lambda: to_torch(net, theta), lambda: from_torch(net, {})):
        with pytest.raises(xn.CheckpointError) as caught:
            call()
        text = str(caught.value)
        assert text.startswith("the order of features in PyTorch cannot be known, ")
        assert why in text
        assert text.endswith(remedy)
        assert "\n" not in text


@pytest.mark.parametrize(
    "net",
    [
        xn.Sequential(CONV, Twice(), xn.Flatten(), HEAD),
        xn.Sequential(CONV, xn.Flatten(), HEAD, Twice(), xn.Linear(3, 2)),
        xn.Sequential(
            xn.Parallel(CONV, CONV, join=lambda xp, a, b: (a * b, None)), xn.Conv2d(2, 2, 1), xn.Flatten(), HEAD
        ),
        xn.Sequential(Box(xn.Conv2d(1, 1, 2)), CONV, xn.Flatten(), HEAD),
    ],
    ids=str,
)
def test_layers_of_ones_own_that_leave_the_order_alone(net):
    theta = net.init(0, "numpy")
    windows, arrays = net.windows(theta), to_torch(net, theta)
    head = next(name for name, window in windows.items() if window.shape == (8, 3))
    assert np.array_equal(arrays[head], windows[head].reshape(4, 2, 3).transpose(2, 1, 0).reshape(3, 8))
    assert np.array_equal(from_torch(net, arrays, "float32"), theta)


def test_a_container_of_ones_own_without_images_may_flatten():
    net = Box(xn.Sequential(xn.Flatten(), xn.Linear(2, 2)))
    assert np.array_equal(from_torch(net, to_torch(net, net.init(0, "numpy")), "float32"), net.init(0, "numpy"))


def test_a_linear_that_does_not_fit_the_channels_is_named():
    net = xn.Sequential(CONV, xn.Flatten(), xn.Linear(9, 3))
    text = r"^Linear\(9→3\) at layer 2 cannot read flattened images of 2 channels$"
    with pytest.raises(xn.CheckpointError, match=text):
        to_torch(net, net.init(0, "numpy"))
