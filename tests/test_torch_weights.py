import os
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest

import xpnet as xn
from xpnet.interop.torch import from_torch, load_weights, save_weights, to_torch

NET = xn.Sequential(
    xn.Flatten(),
    xn.Linear(6, 5),
    xn.ReLU(),
    xn.Residual(xn.Linear(5, 5, bias=False), xn.Tanh()),
    xn.Sequential(xn.Linear(5, 4), xn.GELU()),
    xn.Linear(4, 3),
)
SHAPES = {"1.weight": (5, 6), "1.bias": (5,), "3.0.weight": (5, 5), "4.0.weight": (4, 5), "4.0.bias": (4,)} | {
    "5.weight": (3, 4),
    "5.bias": (3,),
}


@pytest.fixture
def path(tmp_path):
    pytest.importorskip("safetensors", reason="safetensors is not installed: pip install 'xpnet[safetensors]'")
    return tmp_path / "net.safetensors"


def model_on(backend=None, net=NET, seed=0, **settings):
    return xn.Model(net, xn.cross_entropy, xn.SGD(0.1), seed=seed, backend=backend, **settings)


def home(model):
    return np.array(model.backend.asnumpy(model.theta))


def in_torch():
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'xpnet[torch]'")
    nn = torch.nn

    class Residual(nn.Sequential):
        def forward(self, x):
            return x + super().forward(x)

    return torch, nn.Sequential(
        nn.Flatten(),
        nn.Linear(6, 5),
        nn.ReLU(),
        Residual(nn.Linear(5, 5, bias=False), nn.Tanh()),
        nn.Sequential(nn.Linear(5, 4), nn.GELU("tanh")),
        nn.Linear(4, 3),
    )


def test_names_and_layouts(backend):
    theta = NET.init(3, backend)
    arrays = to_torch(NET, theta)
    assert {name: array.shape for name, array in arrays.items()} == SHAPES
    assert all(array.flags.c_contiguous for array in arrays.values())
    windows = {name: backend.asnumpy(window) for name, window in NET.windows(theta).items()}
    assert np.array_equal(arrays["1.weight"], windows["1.weight"].T)
    assert np.array_equal(arrays["3.0.weight"], windows["3.0.weight"].T)
    assert np.array_equal(arrays["4.0.bias"], windows["4.0.bias"])
    assert np.array_equal(from_torch(NET, arrays), backend.asnumpy(theta).astype(np.float64))
    arrays["1.weight"][:] = 0.0  # the caller's own
    assert backend.asnumpy(theta).any()


def test_a_file_brings_the_same_weights_back(backend, path):
    model, other = model_on(backend), model_on(backend, seed=1)
    save_weights(model, path)
    load_weights(other, path)
    assert np.array_equal(home(model), home(other))
    wide = model_on(backend, seed=2, dtype="float64")
    load_weights(wide, str(path))
    assert np.array_equal(home(wide), home(model).astype(np.float64))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pytorch_computes_the_same_from_our_file(path, dtype):
    torch, module = in_torch()
    model = model_on("numpy", seed=5, dtype=dtype)
    save_weights(model, path)
    module.to(getattr(torch, dtype)).load_state_dict(pytest.importorskip("safetensors.torch").load_file(path))
    x = np.random.default_rng(0).normal(size=(50, 2, 3)).astype(dtype)
    theirs = module(torch.from_numpy(x)).detach().numpy()
    assert np.abs(theirs).max() > 0.1
    np.testing.assert_allclose(model.predict(x), theirs, rtol=0, atol=1e-6)


def test_we_compute_the_same_from_pytorchs_file(path):
    torch, module = in_torch()
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.4)
    pytest.importorskip("safetensors.torch").save_file(module.state_dict(), path)
    model = model_on("numpy")
    load_weights(model, path)
    x = np.random.default_rng(0).normal(size=(50, 2, 3)).astype(np.float32)
    np.testing.assert_allclose(model.predict(x), module(torch.from_numpy(x)).detach().numpy(), rtol=0, atol=1e-6)


def test_half_precision_is_read(path):
    arrays = to_torch(NET, NET.init(0, "numpy"))
    halves = {name: array.astype(np.float16) for name, array in arrays.items()}
    pytest.importorskip("safetensors.numpy").save_file(halves, path)
    model = model_on("numpy")
    load_weights(model, path)
    np.testing.assert_allclose(home(model), NET.init(0, "numpy"), atol=1e-3)


def test_no_torch_is_imported(path):
    code = f"""
import sys, xpnet as xn
from xpnet.interop.torch import load_weights, save_weights
model = xn.Model(xn.Linear(2, 3), xn.cross_entropy, xn.SGD(0.1), backend="numpy")
save_weights(model, {str(path)!r}); load_weights(model, {str(path)!r})
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# Bad input


def test_every_mismatch_is_listed_at_once(path):
    arrays = to_torch(NET, NET.init(0, "numpy"))
    del arrays["1.bias"]
    arrays["5.weight"] = arrays["5.weight"].T.copy()
    arrays["4.0.bias"] = np.zeros((7,), np.float32)
    arrays["6.weight"] = np.zeros((2, 2), np.float32)
    pytest.importorskip("safetensors.numpy").save_file(arrays, path)
    model = model_on("numpy")
    before = home(model)
    with pytest.raises(xn.CheckpointError) as caught:
        load_weights(model, path)
    assert str(caught.value) == (
        "these weights are not the network's: "
        '"1.bias" (5,) is missing; '
        '"4.0.bias" must be (4,), got (7,); '
        '"5.weight" must be (3, 4), got (4, 3); '
        '"6.weight" (2, 2) is not in the network'
    )
    assert np.array_equal(home(model), before)


def test_files_that_cannot_be_read_or_written(path, tmp_path):
    model = model_on("numpy")
    with pytest.raises(xn.CheckpointError, match=r"cannot read .*nowhere"):
        load_weights(model, tmp_path / "nowhere")
    path.write_bytes(b"not safe, no tensors")
    with pytest.raises(xn.CheckpointError, match="is not a safetensors file of weights: it looks like text"):
        load_weights(model, path)
    with pytest.raises(xn.CheckpointError, match=r"cannot write .*nowhere"):
        save_weights(model, tmp_path / "nowhere" / "net.safetensors")


def test_no_library_is_needed(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    model, other = model_on("numpy"), model_on("numpy", seed=1)
    save_weights(model, tmp_path / "net.safetensors")
    load_weights(other, tmp_path / "net.safetensors")
    assert np.array_equal(home(model), home(other))


# Containers of one's own


@dataclass(frozen=True)
class Both(xn.Layer):
    """y = a(x) + b(x): a container that is no Sequential, its layers in fields."""

    a: xn.Layer
    more: tuple[xn.Layer, ...]

    def parts(self):
        return (self.a, *self.more)

    def parameters(self):
        return tuple(p.named(k) for k, part in enumerate(self.parts()) for p in part.parameters())

    def forward(self, params, x, ctx):
        raise NotImplementedError


@dataclass(frozen=True)
class Made(xn.Layer):
    """A container that makes its layers when asked."""

    def parameters(self):
        return tuple(p.named("inner") for p in xn.Linear(3, 3).parameters())

    forward = Both.forward


@dataclass(frozen=True)
class Anew(Both):
    """A container that makes its parameters anew."""

    def parameters(self):
        return tuple(xn.Parameter(f"x.{p.name}", p.shape, p.init) for p in super().parameters())


@pytest.mark.parametrize(
    ("net", "turned"),
    [
        (Both(xn.Linear(3, 3), (xn.Linear(3, 3), xn.Tanh())), ["0.weight", "1.weight"]),
        (xn.Sequential(xn.Linear(3, 3), Both(xn.Sequential(xn.Linear(3, 3)), ())), ["0.weight", "1.0.0.weight"]),
        (xn.Sequential(Made(), xn.Residual(Made())), ["0.inner.weight", "1.0.inner.weight"]),
    ],
)
def test_square_weights_are_turned_in_any_container(net, turned):
    theta = net.init(0, "numpy")
    arrays, windows = to_torch(net, theta), net.windows(theta)
    assert turned == [name for name in arrays if name.endswith("weight")]
    assert all(np.array_equal(arrays[name], windows[name].T) for name in turned)
    assert np.array_equal(from_torch(net, arrays, "float32"), theta)


def test_where_the_layout_is_lost_nothing_is_guessed():
    text = r"of its Linear layers cannot be known: let its parameters\(\)"
    for net in (Anew(xn.Linear(3, 3), ()), xn.Sequential(xn.ReLU(), Anew(Made(), (xn.Linear(2, 2),)))):
        theta = net.init(0, "numpy")
        with pytest.raises(xn.CheckpointError, match=text):
            to_torch(net, theta)
        with pytest.raises(xn.CheckpointError, match=text):
            from_torch(net, net.windows(theta))
    plain = Anew(xn.Tanh(), (xn.Scale(2.0),))
    assert to_torch(plain, plain.init(0, "numpy")) == {}


# Types and values


def state(value, dtype="float32", **others):
    """Weights of a Linear(2, 3), of which the first row of the weight is this."""
    arrays = {"weight": np.zeros((3, 2), dtype), "bias": np.zeros(3, dtype)}
    arrays["weight"][0] = value
    return arrays | others


@pytest.mark.parametrize(
    ("value", "dtype", "problem"),
    [
        (1, "int8", '"weight" is int8, must be floating-point; "bias" is int8, must be floating-point'),
        (1, "uint8", '"weight" is uint8, must be floating-point; "bias" is uint8, must be floating-point'),
        (1, "bool", '"weight" is bool, must be floating-point; "bias" is bool, must be floating-point'),
        (1, "complex64", '"weight" is complex64, must be floating-point; "bias" is complex64, must be floating-point'),
        (np.nan, "float32", '"weight" holds NaN or infinity'),
        (-np.inf, "float16", '"weight" holds NaN or infinity'),
        (-1e300, "float64", '"weight" holds -1e+300, more than float32 can'),
    ],
)
def test_what_cannot_be_a_weight_is_refused(path, value, dtype, problem):
    model = model_on("numpy", xn.Linear(2, 3))
    before = home(model)
    pytest.importorskip("safetensors.numpy").save_file(state(value, dtype), path)
    with pytest.raises(xn.CheckpointError) as caught:
        load_weights(model, path)
    assert str(caught.value) == f"these weights are not the network's: {problem}"
    assert np.array_equal(home(model), before)


def test_large_values_are_right_where_they_fit(path):
    arrays = state(-1e300, "float64")
    pytest.importorskip("safetensors.numpy").save_file(arrays, path)
    model = model_on("numpy", xn.Linear(2, 3), dtype="float64")
    load_weights(model, path)
    assert np.array_equal(to_torch(model.net, model.theta)["weight"], arrays["weight"])


def test_arrays_in_memory_are_looked_at_too():
    net = xn.Linear(2, 3)
    masked = np.ma.masked_array(np.zeros(3), [0, 1, 0])
    with pytest.raises(xn.CheckpointError, match=r'"weight" holds NaN or infinity; "bias" has a mask: fill it$'):
        from_torch(net, state(np.nan, bias=masked))
    with pytest.raises(xn.CheckpointError, match=r'"bias" is <U4, must be floating-point$'):
        from_torch(net, state(0, bias=["some", "text", "here"]))
    assert from_torch(net, state(0, bias=[1.0, 2.0, 3.0])).tolist() == [0] * 6 + [1, 2, 3]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_pytorchs_other_precisions_are_read(path, dtype):
    torch, module = in_torch()
    module.to(getattr(torch, dtype))
    pytest.importorskip("safetensors.torch").save_file(module.state_dict(), path)
    model = model_on("numpy")
    load_weights(model, path)
    theirs = {name: tensor.float().numpy() for name, tensor in module.state_dict().items()}
    assert all(np.array_equal(array, theirs[name]) for name, array in to_torch(NET, model.theta).items())


def test_types_that_numpy_has_not_are_all_named(path):
    torch = pytest.importorskip("torch")
    eight = {name: torch.ones(2).to(torch.float8_e4m3fn) for name in ("a", "b")}
    pytest.importorskip("safetensors.torch").save_file(eight | {"c": torch.ones(2)}, path)
    with pytest.raises(xn.CheckpointError, match=r': NumPy has not all of its types: "a" is F8_E4M3, "b" is F8_E4M3$'):
        load_weights(model_on("numpy"), path)


def test_a_checkpoint_is_no_file_of_weights(tmp_path):
    model = model_on("numpy", xn.Linear(3, 3))
    model.save(tmp_path / "model")
    with pytest.raises(xn.CheckpointError, match=r"it is a checkpoint of xpnet's: read it with xn.load$"):
        load_weights(model, tmp_path / "model")


@pytest.mark.posix
def test_weights_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path, model = tmp_path / "net.safetensors", model_on("numpy")
    save_weights(model, path)
    path.chmod(0o600)
    before = path.read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(xn.CheckpointError, match="No space left on device; what was there is untouched"):
            save_weights(model_on("numpy", seed=1), path)
    assert path.read_bytes() == before
    save_weights(model_on("numpy", seed=1), path)
    assert path.read_bytes() != before
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == [path.name]


def test_the_safetensors_library_reads_what_we_write(path):
    model = model_on("numpy", dtype="float64")
    save_weights(model, path)
    theirs = pytest.importorskip("safetensors.numpy").load_file(path)
    ours = to_torch(NET, model.theta)
    assert theirs.keys() == ours.keys()
    assert all(np.array_equal(theirs[name], ours[name]) for name in ours)
