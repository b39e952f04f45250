import subprocess
import sys

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
    with pytest.raises(xn.CheckpointError, match="is not a safetensors file that NumPy can read"):
        load_weights(model, path)
    with pytest.raises(xn.CheckpointError, match=r"cannot write .*nowhere"):
        save_weights(model, tmp_path / "nowhere" / "net.safetensors")


def test_without_the_library(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match=r"pip install 'xpnet\[safetensors\]'"):
        save_weights(model_on("numpy"), tmp_path / "net.safetensors")
