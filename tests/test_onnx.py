import json
import os
import sys
from dataclasses import dataclass

import numpy as np
import pytest

import xpnet as xn
from xpnet.interop.onnx import export_onnx
from xpnet.layers import Layer

pytest.importorskip("ndonnx", reason="ndonnx is not installed: pip install 'xpnet[onnx]'")
onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'xpnet[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'xpnet[onnx]'")

ALL = xn.Sequential(
    xn.Scale(0.5, 0.1),
    xn.Linear(6, 9),
    xn.LeakyReLU(0.2),
    xn.Dropout(0.4),
    xn.Residual(xn.Linear(9, 9), xn.SiLU()),
    xn.Sequential(xn.Linear(9, 5, bias=False), xn.GELU()),
    xn.Linear(5, 4),
    xn.Softmax(),
)
LAYERS = [
    xn.Linear(6, 3),
    xn.Linear(6, 3, bias=False),
    xn.ReLU(),
    xn.LeakyReLU(0.1),
    xn.Tanh(),
    xn.Sigmoid(),
    xn.GELU(),
    xn.SiLU(),
    xn.Softmax(),
    xn.Flatten(),
    xn.Scale(0.25, -1.0),
    xn.Scale(2.0),
    xn.Dropout(0.5),
    xn.Residual(xn.Linear(6, 6), xn.Tanh()),
    ALL,
]


def model_of(net, backend="numpy", **settings):
    model = xn.Model(net, xn.mean_squared_error, xn.SGD(0.1), seed=4, backend=backend, **settings)
    rng = np.random.default_rng(9)  # biases too
    model.theta = model.backend.asarray(rng.normal(0, 0.7, net.size), dtype=model.dtype)
    return model


def run(path, x):
    return onnxruntime.InferenceSession(str(path)).run(["output"], {"input": x})[0]


def about(path):
    return {entry.key: json.loads(entry.value) for entry in onnx.load(path).metadata_props}


def test_every_layer_of_the_package_is_here():
    leaves = {type(leaf) for layer in LAYERS for leaf in [layer, *getattr(layer, "layers", ())]}
    public = {value for value in vars(xn).values() if isinstance(value, type) and issubclass(value, Layer)}
    assert public - {Layer} == leaves


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_onnxruntime_computes_the_same(layer, tmp_path):
    model = model_of(layer)
    export_onnx(model, tmp_path / "net.onnx", input_shape=(6,))
    for n in (1, 2, 33, 0):
        x = np.random.default_rng(n).normal(0, 3, (n, 6)).astype(np.float32)
        expected, _ = layer(model.theta, x)
        y = run(tmp_path / "net.onnx", x)
        assert (y.dtype, y.shape) == (np.float32, expected.shape)
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layer", [xn.ReLU(), xn.Tanh(), xn.Sigmoid(), xn.GELU(), xn.SiLU(), xn.Softmax()], ids=str)
def test_at_the_ends_of_the_numbers(layer, tmp_path):
    export_onnx(model_of(layer), tmp_path / "net.onnx", input_shape=(5,))
    x = np.asarray([[-1e30, -80.0, 0.0, 80.0, 1e30], [-np.inf, -1.0, 0.0, 1.0, np.inf]], np.float32)
    expected, _ = layer(xn.backend("numpy").asarray([], dtype="float32"), x)
    assert np.isfinite(expected[0]).all()
    np.testing.assert_allclose(run(tmp_path / "net.onnx", x), expected, rtol=1e-6, atol=1e-6)


def test_images_and_raw_bytes(tmp_path):
    net = xn.Sequential(xn.Scale(1 / 255), xn.Flatten(), xn.Linear(12, 3))
    model = model_of(net)
    export_onnx(model, tmp_path / "net.onnx", input_shape=(4, 3), input_dtype="uint8")
    x = np.random.default_rng(0).integers(0, 256, (7, 4, 3)).astype(np.uint8)
    np.testing.assert_allclose(run(tmp_path / "net.onnx", x), model.predict(x), atol=1e-5)
    assert about(tmp_path / "net.onnx")["input_scaling"] == {"factor": 1 / 255, "shift": 0.0}


def test_float64(tmp_path):
    model = model_of(ALL, dtype="float64")
    export_onnx(model, tmp_path / "net.onnx")
    x = np.random.default_rng(0).normal(size=(5, 6))
    np.testing.assert_allclose(run(tmp_path / "net.onnx", x), model.predict(x), atol=1e-13)


def test_from_every_backend(backend, tmp_path):
    model = model_of(ALL, backend)
    export_onnx(model, tmp_path / "net.onnx")
    x = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    np.testing.assert_allclose(run(tmp_path / "net.onnx", x), model.predict(x), atol=1e-5)


def test_the_graph_holds_each_parameter_once_by_name_and_a_free_batch(tmp_path):
    model = model_of(ALL)
    export_onnx(model, tmp_path / "net.onnx")
    proto = onnx.load(tmp_path / "net.onnx")
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    windows = ALL.windows(model.theta)
    assert list(stored) == list(windows)
    assert all(np.array_equal(stored[name], windows[name]) for name in windows)
    assert [value.name for value in proto.graph.input] == ["input"]
    for value, size in ((proto.graph.input[0], 6), (proto.graph.output[0], 4)):
        batch, features = value.type.tensor_type.shape.dim
        assert (batch.dim_param, features.dim_value) == ("N", size)
    constants = [a.t for node in proto.graph.node for a in node.attribute if a.HasField("t")]
    assert max(np.prod(tensor.dims) for tensor in constants) <= 2
    kinds = [node.op_type for node in proto.graph.node]
    assert "If" not in kinds
    assert "Slice" not in kinds
    assert kinds.count("MatMul") == 4


def test_metadata(tmp_path):
    model = model_of(ALL)
    export_onnx(model, tmp_path / "net.onnx", labels=np.asarray(["a", "b", "ü", "d"]), metadata={"who": [1, "me"]})
    assert about(tmp_path / "net.onnx") == {
        "input_scaling": {"factor": 0.5, "shift": 0.1},
        "labels": ["a", "b", "ü", "d"],
        "network": str(ALL),
        "who": [1, "me"],
    }
    export_onnx(model_of(xn.Linear(2, 2)), tmp_path / "net.onnx")
    assert about(tmp_path / "net.onnx") == {"network": "Linear(2→2)"}


@dataclass(frozen=True)
class Cube(Layer):
    """One of your own, written against the standard."""

    def forward(self, params, x, ctx):
        y = ctx.xp.sign(x) * ctx.xp.abs(x) ** 3
        return y, lambda dy, need_dx=True, out=(): (3 * x * x * dy, ())


@dataclass(frozen=True)
class Peeking(Layer):
    """Not a function of arrays: it looks at a value."""

    def forward(self, params, x, ctx):
        y = x if bool(ctx.xp.all(x > 0)) else -x
        return y, lambda dy, need_dx=True, out=(): (dy, ())


def test_a_layer_of_ones_own(tmp_path):
    model = model_of(xn.Sequential(xn.Linear(6, 3), Cube()))
    export_onnx(model, tmp_path / "net.onnx")
    x = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    np.testing.assert_allclose(run(tmp_path / "net.onnx", x), model.predict(x), rtol=1e-5, atol=1e-5)


# Bad input


@pytest.mark.parametrize(
    ("net", "name"),
    [
        (xn.Sequential(xn.Linear(6, 3), xn.Sequential(xn.ReLU(), Peeking()), xn.Tanh()), r"Peeking\(\) at layer 1.1"),
        (Peeking(), r"Peeking\(\)"),
    ],
)
def test_a_layer_that_cannot_be_expressed_is_named(net, name, tmp_path):
    with pytest.raises(NotImplementedError, match=f"^{name} cannot be expressed in ONNX: ") as caught:
        export_onnx(model_of(net), tmp_path / "net.onnx", input_shape=(6,))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "net.onnx").exists()


def test_wrong_shapes_and_paths(tmp_path):
    with pytest.raises(xn.ShapeError, match="pass input_shape="):
        export_onnx(model_of(xn.ReLU()), tmp_path / "net.onnx")
    with pytest.raises(xn.ShapeError, match=r"Linear\(6→9\) at layer 1 expects input"):
        export_onnx(model_of(ALL), tmp_path / "net.onnx", input_shape=(7,))
    with pytest.raises(xn.CheckpointError, match=r"cannot write .*nowhere"):
        export_onnx(model_of(ALL), tmp_path / "nowhere" / "net.onnx")


DEEP = xn.Sequential(xn.Linear(4, 3), xn.ReLU(), xn.Linear(3, 2))


@pytest.mark.parametrize(
    ("net", "dtype"),
    [(DEEP, "float64"), (DEEP, "float16"), (DEEP, "int16"), (DEEP, "bool"), (xn.Tanh(), "float64")],
    ids=str,
)
def test_input_of_another_type_is_taken_as_predict_takes_it(net, dtype, tmp_path):
    model = model_of(net)
    export_onnx(model, tmp_path / "net.onnx", input_shape=(4,), input_dtype=dtype)
    x = np.random.default_rng(0).normal(0, 2, (7, 4)).astype(dtype)
    y = run(tmp_path / "net.onnx", x)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, model.predict(x.astype("float32")), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float", "complex64", "sum", "", np.float32])
def test_an_input_that_is_no_number_is_refused(dtype, tmp_path):
    with pytest.raises(ValueError, match=r"^input_dtype must be one of bool, int8, .*float64, got "):
        export_onnx(model_of(ALL), tmp_path / "net.onnx", input_dtype=dtype)
    assert not list(tmp_path.iterdir())


def test_there_are_as_many_labels_as_outputs(tmp_path):
    path = tmp_path / "net.onnx"
    for labels in ([], ["a"], ["a", "b"], np.arange(5)):
        with pytest.raises(ValueError, match=rf"^labels must name the network's 4 outputs, got {len(labels)}: \["):
            export_onnx(model_of(ALL), path, labels=labels)
    with pytest.raises(ValueError, match=r"^labels must name the network's 1 outputs, got 3: \['a', 'b', 'c'\]$"):
        export_onnx(model_of(xn.Linear(2, 1)), path, labels=["a", "b", "c"])
    assert not list(tmp_path.iterdir())
    for outputs, labels in ((1, ["no", "yes"]), (1, ["score"]), (3, [1, "b", 2.5])):
        export_onnx(model_of(xn.Linear(2, outputs)), path, labels=labels)
        assert about(path)["labels"] == labels
    export_onnx(model_of(xn.Linear(2, 2)), path, labels=np.asarray([3, 8]))
    assert about(path)["labels"] == [3, 8]


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "net.onnx"
    export_onnx(model_of(ALL), path)
    path.chmod(0o600)
    before = path.read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(xn.CheckpointError, match="No space left on device; what was there is untouched"):
            export_onnx(model_of(xn.Linear(2, 2)), path)
    assert path.read_bytes() == before
    export_onnx(model_of(xn.Linear(2, 2)), path)
    assert path.read_bytes() != before
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["net.onnx"]


def test_without_the_library(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ndonnx", None)
    with pytest.raises(ImportError, match=r"exporting to ONNX needs ndonnx: pip install 'xpnet\[onnx\]'"):
        export_onnx(model_of(ALL), tmp_path / "net.onnx")
