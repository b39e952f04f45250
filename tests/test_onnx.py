import json
import os
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from test_sequences_onnx import SEQUENCES

import xpnet as xn
from xpnet.interop.onnx import export_onnx
from xpnet.layers import Layer

pytest.importorskip("ndonnx", reason="ndonnx is not installed: pip install 'xpnet[onnx]'")
onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'xpnet[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'xpnet[onnx]'")
VERSION = tuple(map(int, onnxruntime.__version__.split(".")[:2]))

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
    xn.GELU("none"),
    xn.SiLU(),
    xn.ELU(0.7),
    xn.Softplus(2.0),
    xn.Mish(),
    xn.Hardswish(),
    xn.PReLU(),
    xn.PReLU(6),
    xn.Softmax(),
    xn.LogSoftmax(),
    xn.Flatten(),
    xn.Scale(0.25, -1.0),
    xn.Scale(2.0),
    xn.Standardize([0.5, 1.0, -2.0, 0.0, 3.0, 1.0], [1.0, 2.0, 0.5, 1.0, 4.0, 1.0]),
    xn.Dropout(0.5),
    xn.Residual(xn.Linear(6, 6), xn.Tanh()),
    xn.Parallel(xn.Linear(6, 3), xn.Sequential(xn.Linear(6, 3), xn.Tanh())),
    xn.Parallel(xn.Sequential(), xn.Linear(6, 2), join="concat"),
    xn.Parallel(xn.Shared("f", xn.Linear(6, 3)), xn.Sequential(xn.Tanh(), xn.Shared("f", xn.Linear(6, 3)))),
    xn.Shared("f", xn.Linear(6, 3)),
    ALL,
]
LENET = xn.Sequential(
    xn.Channels(),
    xn.Conv2d(1, 3, 3, padding="same", bias=False),
    xn.BatchNorm(3),
    xn.ReLU(),
    xn.MaxPool2d(2),
    xn.Parallel(xn.Conv2d(3, 4, 1, stride=2), xn.Conv2d(3, 4, 3, stride=2, padding=1)),
    xn.Dropout2d(0.3),
    xn.Flatten(),
    xn.Linear(4 * 2 * 3, 5),
)
IMAGES = [
    (xn.Conv2d(2, 3, 3), (6, 5, 2)),
    (xn.Conv2d(2, 3, (2, 4), padding="same"), (6, 5, 2)),
    (xn.Conv2d(4, 6, (3, 2), stride=2, padding=1, groups=2, dilation=(1, 2)), (7, 8, 4)),
    (xn.Conv2d(3, 6, 3, padding=(0, 2), groups=3, bias=False), (6, 5, 3)),
    (xn.Conv1d(2, 3, 3, padding=1), (7, 2)),
    (xn.Conv1d(4, 6, 3, stride=2, groups=2), (7, 4)),
    (xn.ConvTranspose2d(3, 2, 3, stride=(2, 3), padding=1, output_padding=(1, 0)), (4, 5, 3)),
    (xn.ConvTranspose2d(4, 6, 2, stride=2, groups=2), (4, 5, 4)),
    (xn.ConvTranspose2d(4, 6, 3, dilation=2, bias=False), (4, 5, 4)),
    (xn.MaxPool2d(2), (6, 4, 2)),
    (xn.MaxPool2d(3, stride=2, padding=1), (6, 5, 2)),
    (xn.AvgPool2d((2, 1)), (6, 4, 2)),
    (xn.AvgPool2d(3, stride=2, padding=1), (6, 5, 2)),
    (xn.GlobalAvgPool2d(), (4, 5, 3)),
    (xn.Upsample(2), (4, 5, 3)),
    (xn.Upsample((1, 3)), (4, 5, 3)),
    (xn.BatchNorm(3), (4, 5, 3)),
    (xn.BatchNorm(3), (3,)),
    (xn.LayerNorm(3), (4, 3)),
    (xn.GroupNorm(2, 4), (3, 5, 4)),
    (xn.GroupNorm(2, 4), (4,)),
    (xn.RMSNorm(3), (4, 3)),
    (xn.Dropout2d(0.4), (4, 4, 3)),
    (xn.Channels(), (4, 5)),
    (xn.RandomShift(1), (4, 5, 2)),
    (xn.RandomFlip(), (4, 5, 2)),
    (xn.RandomCrop((3, 4), padding=1), (4, 5, 2)),
    (xn.Cutout(2), (4, 5, 2)),
    (xn.RandomRotate(10), (4, 5, 2)),
    (xn.RandomAffine(10, translate=(0.1, 0.1)), (4, 5, 2)),
    pytest.param(LENET, (8, 12), id="LENET"),
]


def model_of(net, backend="numpy", **settings):
    model = xn.Model(net, xn.mean_squared_error, xn.SGD(0.1), seed=4, backend=backend, **settings)
    rng = np.random.default_rng(9)  # biases too
    model.theta = model.backend.asarray(rng.normal(0, 0.7, net.size), dtype=model.dtype)
    running = {p.name: rng.uniform(0.5, 2, p.shape) for p in net.buffers()}
    model.buffers = {name: model.backend.asarray(array, dtype=model.dtype) for name, array in running.items()}
    return model


def run(path, x):
    return onnxruntime.InferenceSession(str(path)).run(["output"], {"input": x})[0]


def about(path):
    return {entry.key: json.loads(entry.value) for entry in onnx.load(path).metadata_props}


def test_every_layer_of_the_package_is_here():
    tried = LAYERS + [layer for layer, _ in IMAGES[:-1]] + [layer for layer, *_ in SEQUENCES.values()]
    leaves = {type(leaf) for layer in tried for leaf in [layer, *getattr(layer, "layers", ())]}
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


@pytest.mark.parametrize(("layer", "shape"), IMAGES, ids=str)
def test_onnxruntime_computes_the_same_of_images(layer, shape, tmp_path):
    model = model_of(layer)
    export_onnx(model, tmp_path / "net.onnx", input_shape=shape)
    empty = (0,) * (VERSION >= (1, 32))  # ONNX Runtime before 1.32 divides by the number of images
    for n in (1, 3, 7, *empty):
        x = np.random.default_rng(n).normal(size=(n, *shape)).astype(np.float32)
        expected = model.predict(x) if n else layer(model.theta, x, buffers=model.buffers)[0]
        y = run(tmp_path / "net.onnx", x)
        assert (y.dtype, y.shape) == (np.float32, expected.shape)
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5)


def test_running_statistics_from_every_backend(backend, tmp_path):
    model = model_of(xn.Sequential(xn.Conv2d(1, 2, 2), xn.BatchNorm(2), xn.GlobalAvgPool2d()), backend)
    export_onnx(model, tmp_path / "net.onnx", input_shape=(4, 3, 1))
    x = np.random.default_rng(0).normal(size=(5, 4, 3, 1)).astype(np.float32)
    np.testing.assert_allclose(run(tmp_path / "net.onnx", x), model.predict(x), rtol=0, atol=1e-5)


def test_running_statistics_are_initializers_by_name(tmp_path):
    model = model_of(LENET)
    export_onnx(model, tmp_path / "net.onnx", input_shape=(8, 12))
    proto = onnx.load(tmp_path / "net.onnx")
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    expected = LENET.windows(model.theta) | model.buffers
    assert list(stored) == list(expected)
    assert {"2.running_mean", "2.running_var"} < set(stored)
    assert all(np.array_equal(stored[name], expected[name]) for name in expected)
    assert [value.name for value in proto.graph.input] == ["input"]


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


def test_two_inputs_through_one_tower(tmp_path):
    import onnxruntime

    tower = xn.Shared("tower", xn.Sequential(xn.Linear(4, 3), xn.BatchNorm(3), xn.Tanh()))
    net = xn.Sequential(xn.Parallel(tower, tower, join="concat"), xn.Linear(6, 2))
    model, path = model_of(net), tmp_path / "net.onnx"
    export_onnx(model, path, input_shape=((4,), (4,)))
    session = onnxruntime.InferenceSession(str(path))
    assert [(one.name, one.shape) for one in session.get_inputs()] == [("input_0", ["N", 4]), ("input_1", ["N", 4])]
    x = np.random.default_rng(0).normal(size=(2, 7, 4)).astype(np.float32)
    for n in (1, 3, 7):
        (y,) = session.run(None, {"input_0": x[0, :n], "input_1": x[1, :n]})
        np.testing.assert_allclose(y, model.predict((x[0, :n], x[1, :n])), rtol=0, atol=1e-5)
    assert not np.allclose(model.predict((x[0], x[1])), model.predict((x[1], x[0])), atol=1e-3)


def test_wrong_shapes_and_paths(tmp_path):
    untold = r"^no weight tells what one sample is: pass input_shape=, \(H, W, C\) of an image, \(T, D\) of a sequence$"
    for net in (xn.ReLU(), LENET, xn.Sequential(xn.Conv2d(1, 2, 3), xn.BatchNorm(2)), xn.Conv1d(2, 2, 3)):
        with pytest.raises(xn.ShapeError, match=untold):
            export_onnx(model_of(net), tmp_path / "net.onnx")
    with pytest.raises(xn.ShapeError, match=r"Channels\(\) at layer 0 expects grey images \(N, H, W\), got \(None, 8,"):
        export_onnx(model_of(LENET), tmp_path / "net.onnx", input_shape=(8, 12, 3))
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


@pytest.mark.posix
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
