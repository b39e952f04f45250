"""Networks of sequences as ONNX files: onnxruntime computes what predict does, of any number of them."""

import numpy as np
import pytest

import xpnet as xn
from xpnet.interop.onnx import export_onnx

pytest.importorskip("ndonnx", reason="ndonnx is not installed: pip install 'xpnet[onnx]'")
onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'xpnet[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'xpnet[onnx]'")

V, T, D = 9, 5, 6
TOKENS, NUMBERS, MASK = (T,), (T, D), (T,)
SEQUENCES = {
    "rnn": (xn.RNN(D, 3, "relu"), NUMBERS),
    "gru": (xn.GRU(D, 3, bias=False), NUMBERS),
    "lstm": (xn.LSTM(D, 3), NUMBERS),
    "both ways": (xn.Parallel(xn.LSTM(D, 3), xn.GRU(D, 2, reverse=True), join="concat"), NUMBERS),
    "embedding": (xn.Embedding(V, D), TOKENS),
    "text to class": (xn.Sequential(xn.Embedding(V, D), xn.GRU(D, 3), xn.Pooled("last"), xn.Linear(3, 2)), TOKENS),
    "positions": (xn.Sequential(xn.Embedding(V, D), xn.Positions(8, D), xn.Sinusoidal()), TOKENS),
    "attention": (xn.MultiHeadAttention(D, 3), NUMBERS),
    "rotary": (xn.MultiHeadAttention(D, 1, causal=True, rotary=True), NUMBERS),
    "transformer": (
        xn.Tied(xn.Embedding(V, D), xn.TransformerBlock(D, 2, causal=True, dropout=0.1), xn.LayerNorm(D)),
        TOKENS,
    ),
    "recompute": (xn.Recompute(xn.Linear(D, 2), xn.Tanh()), NUMBERS),
    "masked recurrence": (xn.Masked(xn.LSTM(D, 3), xn.GRU(3, 2, reverse=True)), NUMBERS, MASK),
    "masked attention": (xn.Masked(xn.MultiHeadAttention(D, 2), xn.Pooled()), NUMBERS, MASK),
    "masked text": (xn.Masked(xn.Embedding(V, D), xn.GRU(D, 3), xn.Pooled("last"), xn.Linear(3, 2)), TOKENS, MASK),
}
"""A network, and what a sample of each of its inputs is."""


def model_of(net):
    model = xn.Model(net, xn.mean_squared_error, xn.SGD(0.1), backend="numpy")
    model.theta = np.random.default_rng(9).normal(0, 0.5, net.size).astype("float32")  # biases too
    return model


def drawn(net, shapes, n, rng):
    """Return n samples of each input; masks end where a sequence does, and one is empty."""
    xs = []
    for k, shape in enumerate(shapes):
        if k:
            lengths = np.arange(n) % (T + 1)
            xs.append((np.arange(T)[None, :] < lengths[:, None]).astype("int64"))
        elif net.tokens():
            xs.append(rng.integers(0, V, (n, *shape)))
        else:
            xs.append(rng.normal(size=(n, *shape)).astype("float32"))
    return tuple(xs) if len(xs) > 1 else xs[0]


def run(path, x):
    session = onnxruntime.InferenceSession(str(path))
    xs = x if isinstance(x, tuple) else (x,)
    feed = {one.name: part for one, part in zip(session.get_inputs(), xs, strict=True)}
    return session.run(["output"], feed)[0]


@pytest.mark.parametrize("name", SEQUENCES)
def test_onnxruntime_computes_the_same(name, tmp_path, rng):
    net, *shapes = SEQUENCES[name]
    model = model_of(net)
    export_onnx(model, tmp_path / "net.onnx", input_shape=tuple(shapes) if len(shapes) > 1 else shapes[0])
    for n in (1, 7, 0):
        x = drawn(net, shapes, n, rng)
        expected = model.predict(x) if n else net(model.theta, x)[0]
        y = run(tmp_path / "net.onnx", x)
        assert (y.dtype, y.shape) == (np.float32, expected.shape)
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5)


def operations(graph):
    """Return how often each operation occurs, in the graph and in those within it."""
    count = {}
    for node in graph.node:
        count[node.op_type] = count.get(node.op_type, 0) + 1
        for attribute in node.attribute:
            for name, times in operations(attribute.g).items():
                count[name] = count.get(name, 0) + times
    return count


def test_a_recurrent_layer_is_one_loop_however_long_the_sequence(tmp_path):
    model, found = model_of(xn.LSTM(D, 3)), []
    for length in (2, 50):
        export_onnx(model, tmp_path / "net.onnx", input_shape=(length, D))
        graph = onnx.load(tmp_path / "net.onnx").graph
        (loop,) = [node for node in graph.node if node.op_type == "Loop"]
        assert len(loop.output) == 3  # h and c, and all h: what only a way back would need is not collected
        found.append(operations(graph))
    assert found[0] == found[1]
    assert (found[0]["MatMul"], found[0]["Loop"], found[0].get("If", 0)) == (2, 1, 0)


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_tokens_of_other_integers(dtype, tmp_path, rng):
    net, shape = SEQUENCES["text to class"]
    model, x = model_of(net), rng.integers(0, V, (3, T)).astype(dtype)
    export_onnx(model, tmp_path / "net.onnx", input_shape=shape, input_dtype=dtype)
    np.testing.assert_allclose(run(tmp_path / "net.onnx", x), model.predict(x), rtol=0, atol=1e-5)


def test_wrong_inputs(tmp_path):
    net, shape = SEQUENCES["text to class"]
    with pytest.raises(xn.ShapeError, match=r"^tokens come in sequences of any length: pass input_shape=\(T,\), how"):
        export_onnx(model_of(net), tmp_path / "net.onnx")
    with pytest.raises(ValueError, match=r"^input_dtype must be one of bool, int8, .*uint64, got 'float32'$"):
        export_onnx(model_of(net), tmp_path / "net.onnx", input_shape=shape, input_dtype="float32")
    with pytest.raises(xn.ShapeError, match=r"^no weight tells what one sample is: .*\(T, D\) of a sequence$"):
        export_onnx(model_of(xn.LSTM(D, 3)), tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())
