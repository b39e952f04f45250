"""What PyTorch tests its own functions with: our layers give the same values and gradients, or say why they do not."""

import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import xpnet as xn
from xpnet.layers import Context
from xpnet.testing import assert_close

pytest.importorskip("torch", reason="torch is not installed: pip install 'xpnet[torch]'")
pytest.importorskip("expecttest", reason="PyTorch's sample inputs need expecttest: pip install 'xpnet[dev]'")

NUMPY = xn.backend("numpy")
SIGNATURES = {
    "conv1d": "input weight bias stride padding dilation groups",
    "conv2d": "input weight bias stride padding dilation groups",
    "conv_transpose2d": "input weight bias stride padding output_padding groups dilation",
    "max_pool2d": "input kernel_size stride padding dilation ceil_mode return_indices",
    "avg_pool2d": "input kernel_size stride padding ceil_mode count_include_pad divisor_override",
    "batch_norm": "input running_mean running_var weight bias training momentum eps",
    "layer_norm": "input normalized_shape weight bias eps",
    "group_norm": "input num_groups weight bias eps",
    "rms_norm": "input normalized_shape weight eps",
    "interpolate": "input size scale_factor mode align_corners recompute_scale_factor",
    "upsample_nearest": "input size scale_factor",
}
REFUSED = {
    "ceil_mode": "sizes are rounded down: patches that reach over the edge are left out",
    "dilation": "a pool's patch is made of neighbours",
    "divisor_override": "a mean divides by the kernel's size",
    "size": "Upsample takes whole factors, of images",
    "normalized_shape": "a norm is over the last axis alone",
    "output_padding must be below stride": "PyTorch asks for less than stride or dilation, whichever is larger",
    "eps must be a number above 0": "below the root of a variance it must not be negative",
    "momentum must be a number of at least 0": "a share is from 0 to 1",
    "n must be an integer of at least 1": "no channels are nothing to normalise",
}
"""What our layers have no setting for, or what they say; and why."""


class RefusedError(Exception):
    """Our layer has no such setting."""


def single(value):
    """Return a setting for the one axis of a sequence as a number."""
    return value[0] if isinstance(value, tuple) else value


def convolution(make, turn, a):
    """Return a convolution, its parameters, and nothing that is carried."""
    settings = {k: turn(a[k]) for k in ("stride", "padding", "output_padding", "dilation") if k in a}
    weight, groups = a["weight"], a.get("groups", 1)
    nin, nout = weight.shape[1] * groups, weight.shape[0]
    if make is xn.ConvTranspose2d:
        nin, nout = weight.shape[0], weight.shape[1] * groups
    kernel = turn(weight.shape[2:])
    return make(nin, nout, kernel, groups=groups, bias=a.get("bias") is not None, **settings), ("weight", "bias")


def pool(make, turn, a):
    """Return a pool; a size that is rounded up to what it is anyway is no difference."""
    if a.get("dilation", 1) not in (1, (1, 1)):
        raise RefusedError("dilation")
    if a.get("divisor_override") is not None:
        raise RefusedError("divisor_override")
    padding = (
        single(a["padding"]) if len(np.atleast_1d(a.get("padding", 0))) == 1 and "padding" in a else a.get("padding", 0)
    )
    layer = make(a["kernel_size"], a.get("stride") or None, padding)
    *_, h, w, c = layer.output_shape((1, *a["input"].shape[-2:], a["input"].shape[-3]))
    if a.get("ceil_mode") and (c, h, w) != a["y"].shape[-3:]:
        raise RefusedError("ceil_mode")
    return layer, ()


def upsample(make, turn, a):
    """Return the repetition by whole numbers that makes images of this size of those."""
    factors = np.asarray(a["y"].shape[2:]) / a["input"].shape[2:]
    if a["input"].ndim != 4 or any(f % 1 for f in factors):
        raise RefusedError("size")
    return make(tuple(map(int, factors))), ()


def norm(make, turn, a):
    """Return a norm of as many channels as there are."""
    settings = {"eps": a["eps"]} if a.get("eps") is not None else {}
    if make is xn.GroupNorm:
        return make(a["num_groups"], a["input"].shape[1], **settings), ("weight", "bias")
    if make is xn.BatchNorm:
        settings |= {"momentum": a["momentum"]} if "momentum" in a and a.get("training") else {}
        channels = a["input"].shape[1] if a["input"].ndim > 1 else a["input"].shape[0]
        return make(channels, **settings), ("weight", "bias")
    if len(a["normalized_shape"]) > 1:
        raise RefusedError("normalized_shape")
    return make(a["normalized_shape"][0], **settings), ("weight", "bias") if make is xn.LayerNorm else ("weight",)


def same(value):
    """Return a setting as it is."""
    return value


LAYERS = {
    "conv1d": (convolution, xn.Conv1d, single, 3),
    "conv2d": (convolution, xn.Conv2d, same, 4),
    "conv_transpose2d": (convolution, xn.ConvTranspose2d, same, 4),
    "max_pool2d": (pool, xn.MaxPool2d, same, 4),
    "avg_pool2d": (pool, xn.AvgPool2d, same, 4),
    "batch_norm": (norm, xn.BatchNorm, same, 2),
    "layer_norm": (norm, xn.LayerNorm, same, 2),
    "group_norm": (norm, xn.GroupNorm, same, 2),
    "rms_norm": (norm, xn.RMSNorm, same, 2),
    "interpolate": (upsample, xn.Upsample, same, 4),
    "upsample_nearest": (upsample, xn.Upsample, same, 4),
}
AGREE = {
    "conv1d": 10,
    "conv2d": 30,
    "conv_transpose2d": 10,
    "max_pool2d": 400,
    "avg_pool2d": 2,
    "batch_norm": 9,
    "layer_norm": 4,
    "group_norm": 17,
    "rms_norm": 4,
    "interpolate": 2,
    "upsample_nearest": 2,
}
"""How many at least; of the last two PyTorch's samples have no whole factors, and two are added."""


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Return PyTorch's samples by function."""
    path = tmp_path_factory.mktemp("samples") / "samples.pickle"
    script = Path(__file__).with_name("torch_samples.py")
    subprocess.run([sys.executable, "-W", "ignore", str(script), str(path)], check=True)
    with path.open("rb") as file:
        return pickle.load(file)


def outcome(op, sample):
    """Return "agrees" for a sample whose numbers are ours, or the reason for which our layer refuses it."""
    names = SIGNATURES[op].split()
    order = names[: len(sample["given"]) - len(sample["names"])] + sample["names"]
    a, gradients, after = (dict(zip(order, sample[k], strict=True)) for k in ("given", "gradients", "after"))
    find, make, turn, axes = LAYERS[op]
    try:
        layer, parameters = find(make, turn, a | {"y": sample["y"]})
    except RefusedError as refused:
        return str(refused)
    except ValueError as error:
        return next((reason for reason in REFUSED if reason in str(error)), f"unknown: {error}")
    compare(op, layer, parameters, a, gradients, after, sample, len(np.shape(a["input"])) < axes)
    return "agrees"


def compare(op, layer, names, a, gradients, after, sample, alone):
    """Assert that value, gradients and running statistics are PyTorch's; `alone` is a sample without a batch axis."""
    last = op in ("layer_norm", "rms_norm")

    def here(array):
        array = array[None] if alone else array
        return np.array(array if last else np.moveaxis(array, 1, -1), order="C")

    asked = [p for p in layer.parameters() if p.name in names]
    params = [ours(p, a.get(p.name)) for p in asked]
    training = bool(a.get("training"))
    carried = {k: a[k].copy() for k in ("running_mean", "running_var") if a.get(k) is not None}
    y, pullback = layer.forward(tuple(params), here(a["input"]), Context(NUMPY, training, buffers=carried))
    dx, found = pullback(here(sample["dy"]), out=(None,) * len(params))
    pairs = {"y": (y, here(sample["y"])), "dx": (dx, here(gradients["input"]))}
    for p, gradient in zip(asked, found, strict=True):
        if gradients.get(p.name) is not None:
            pairs[f"gradient of {p.name}"] = gradient, ours(p, gradients[p.name])
    for name, array in carried.items():
        pairs[name] = array, after[name]
    for name, (actual, expected) in pairs.items():
        scale = max(1.0, float(np.max(np.abs(expected), initial=0.0)))
        assert_close(NUMPY, actual, expected, multiple=1e4, scale=scale, what=f"{op} {layer}: {name}")


def ours(p, array):
    """Return a parameter of PyTorch's in our layout; where it has none, what changes nothing."""
    if array is None:
        return np.ones(p.shape) if p.name == "weight" else np.zeros(p.shape)
    return np.array(array.transpose(np.argsort(p.axes)) if p.axes else array, order="C")


def repeated(factors):
    """Return a sample of ours for the functions of which PyTorch has none that fits."""
    rng = np.random.default_rng(sum(factors))
    x = rng.normal(size=(2, 3, 2, 4))
    y = np.kron(x, np.ones((1, 1, *factors)))
    dy = rng.normal(size=y.shape)
    dx = dy.reshape(2, 3, 2, factors[0], 4, factors[1]).sum((3, 5))
    return {
        "names": ["scale_factor"],
        "given": [x, factors],
        "after": [x, factors],
        "gradients": [dx, None],
        "y": y,
        "dy": dy,
    }


@pytest.mark.parametrize("op", SIGNATURES)
def test_samples_of_pytorch(op, samples, record_property):
    given = samples[op] + ([repeated((2, 2)), repeated((3, 1))] if LAYERS[op][0] is upsample else [])
    found = Counter(outcome(op, sample) for sample in given)
    print(f"{op}: {dict(found)}")
    record_property(op, str(dict(found)))
    assert set(found) <= {"agrees", *REFUSED}
    assert found["agrees"] >= AGREE[op]


def test_every_reason_is_needed(samples):
    assert {outcome(op, sample) for op in SIGNATURES for sample in samples[op]} == {"agrees", *REFUSED}
