"""RNN, GRU and LSTM: their gradients, PyTorch's numbers, padding, and sequences that come one position at a time."""

import itertools
import re

import numpy as np
import pytest

import xpnet as xn
from xpnet.interop.torch import from_torch, load_weights, save_weights, to_torch
from xpnet.layers.context import Context, Stream
from xpnet.layers.scan import joined, scan
from xpnet.parameters import split
from xpnet.testing import assert_close, check_layer, gradcheck

CELLS = {
    "rnn": xn.RNN,
    "relu": lambda nin, n, **how: xn.RNN(nin, n, "relu", **how),
    "gru": xn.GRU,
    "lstm": xn.LSTM,
}
LIMIT = 1e-12
NUMPY = xn.backend("numpy")


def padded(layer, shape):
    """Return the layer within Masked, and the shapes of x and mask."""
    return xn.Masked(layer), (shape, shape[:2])


def one_is_enough(backend, cell):
    """Skip all but one kind where each costs seconds: JAX compiles every operation for every shape."""
    if backend.name == "jax" and cell != "lstm":
        pytest.skip("JAX compiles seconds for each case: the LSTM is tried, whose loop the others share")


@pytest.mark.parametrize(
    ("cell", "shape", "bias", "reverse", "mask"),
    list(itertools.product(CELLS, [(1, 1, 3), (3, 3, 1)], [True, False], [False, True], [False, True])),
    ids=lambda value: "x".join(map(str, value)) if isinstance(value, tuple) else str(value),
)
def test_gradients(cell, shape, bias, reverse, mask):
    layer = CELLS[cell](shape[2], 2, bias=bias, reverse=reverse)
    net, shapes = padded(layer, shape) if mask else (layer, shape)
    assert gradcheck(net, shapes, backend="numpy") < 1e-8


@pytest.mark.parametrize("cell", CELLS)
def test_the_contract(backend, cell):
    layer = CELLS[cell](2, 2)
    one_is_enough(backend, cell)
    check = gradcheck if backend.name == "jax" else check_layer
    assert check(layer, (2, 2, 2), backend=backend) < 1e-8


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_contract_over_padding_from_the_end(backend, cell):
    one_is_enough(backend, cell)
    net, shapes = padded(CELLS[cell](2, 1, reverse=True), (2, 2, 2))
    assert gradcheck(net, shapes, backend=backend) < 1e-8


def test_scan_is_the_loop(backend):
    xp = backend.xp

    def step(backend, carry, fixed, x):
        total = carry[0] * fixed[0] + x[0]
        return (total,), (total, x[0])

    x = backend.asarray(np.arange(1.0, 5.0).reshape(4, 1, 1))
    two, zero = backend.asarray(np.full((1, 1), 2.0)), backend.asarray(np.zeros((1, 1)))
    for reverse, last, sums in ((False, 26.0, [1, 4, 11, 26]), (True, 49.0, [49, 24, 11, 4])):
        carry, (totals, same) = backend.native(scan)(backend, step, (zero,), (two,), (x,), reverse)
        assert float(backend.asnumpy(carry[0])[0, 0]) == last
        assert backend.asnumpy(backend.native(joined)(xp, totals))[:, 0, 0].tolist() == sums
        assert backend.asnumpy(backend.native(joined)(xp, same))[:, 0, 0].tolist() == [1, 2, 3, 4]


# ---- PyTorch's numbers ----


def in_torch(cell, reverse, bias=True, nin=3, n=4, **how):
    """Return PyTorch's module, and its parameters in our layouts, by name."""
    torch = pytest.importorskip("torch", reason="the reference is PyTorch's own, and torch is not installed")
    torch.manual_seed(0)
    kind = getattr(torch.nn, {"relu": "RNN"}.get(cell, cell.upper()))
    how |= {"nonlinearity": "relu"} if cell == "relu" else {}
    module = kind(nin, n, bias=bias, batch_first=True, bidirectional=reverse, dtype=torch.float64, **how)
    ours = {name: array.detach().numpy().T for name, array in module.named_parameters()}
    return torch, module, {name: array for name, array in ours.items() if name.endswith("_reverse") == reverse}


def difference(backend, ours, theirs):
    return float(np.max(np.abs(backend.asnumpy(ours) - theirs.detach().numpy())))


@pytest.mark.parametrize("padding", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("cell", CELLS)
def test_value_and_gradients_are_those_of_pytorch(backend, cell, reverse, padding, rng):
    if backend.name in ("jax", "strict") and (padding, reverse) != (cell in ("gru", "lstm"), cell == "gru"):
        pytest.skip("one case for each cell is enough where operations are slow")
    torch, module, windows = in_torch(cell, reverse)
    layer = CELLS[cell](3, 4, reverse=reverse)
    assert [p.name for p in layer.parameters()] == list(windows)
    x, dy, lengths = rng.normal(size=(3, 5, 3)), rng.normal(size=(3, 5, 4)), [5, 2, 4] if padding else [5, 5, 5]
    real = (np.arange(5)[None, :] < np.asarray(lengths)[:, None]).astype("float64")
    dy *= real[:, :, None]
    theirs = torch.tensor(x, requires_grad=True)
    rows = torch.nn.utils.rnn.pack_padded_sequence(theirs, lengths, batch_first=True, enforce_sorted=False)
    y = torch.nn.utils.rnn.pad_packed_sequence(module(rows)[0], batch_first=True)[0]
    y = y[:, :, 4:] if reverse else y
    y.backward(torch.tensor(dy))

    ctx = Context(backend, mask=backend.asarray(real) if padding else None)
    params = tuple(backend.asarray(np.ascontiguousarray(w)) for w in windows.values())
    own, pullback = layer.forward(params, backend.asarray(x), ctx)
    dx, gradients = pullback(backend.asarray(dy))
    assert difference(backend, own * backend.asarray(real)[:, :, None], y) <= LIMIT
    assert difference(backend, dx, theirs.grad) <= LIMIT
    named = dict(module.named_parameters())
    for name, gradient in zip(windows, gradients, strict=True):
        assert (
            difference(backend, gradient, named[name].grad.mT if named[name].ndim > 1 else named[name].grad) <= LIMIT
        ), name


def text_classifier(cell, last):
    body = CELLS[cell](6, 4)
    return xn.Sequential(xn.Embedding(9, 6), body, xn.Pooled("last"), xn.Linear(4, last))


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_weights_of_a_module_are_read_by_their_names(cell, tmp_path, rng):
    torch, module, _ = in_torch(cell, False, nin=6)
    whole = torch.nn.ModuleDict({"0": torch.nn.Embedding(9, 6), "1": module, "3": torch.nn.Linear(4, 2)}).double()
    net = text_classifier(cell, 2)
    state = {name: array.numpy() for name, array in whole.state_dict().items()}
    theta = from_torch(net, state)
    x = rng.integers(0, 9, (3, 7))
    y = whole["3"](whole["1"](whole["0"](torch.tensor(x)))[0][:, -1])
    assert_close(NUMPY, net(theta, x)[0], y.detach().numpy(), multiple=64)
    back = to_torch(net, theta)
    assert list(back) == list(state)
    assert all(np.array_equal(back[name], state[name]) for name in state)
    model = xn.Model(net, xn.cross_entropy, xn.SGD(0.1), backend="numpy", dtype="float64")
    before = model.theta.copy()
    save_weights(model, tmp_path / "net.safetensors")
    model.theta = theta
    load_weights(model, tmp_path / "net.safetensors")
    assert np.array_equal(model.theta, before)
    whole.load_state_dict({name: torch.tensor(array) for name, array in to_torch(net, before).items()})


def test_the_weights_of_a_module_of_two_layers_and_directions(rng):
    torch, module, _ = in_torch("lstm", True, num_layers=2)

    def both(nin):
        return xn.Parallel(xn.LSTM(nin, 4), xn.LSTM(nin, 4, reverse=True), join="concat")

    net = xn.Sequential(both(3), both(8))
    ours = {}
    for name, array in module.state_dict().items():  # weight_ih_l1_reverse is 1.1.weight_ih_l0_reverse here
        start, _, end = name.partition("_l")
        k, _, reverse = end.partition("_")
        ours[f"{k}.{int(reverse == 'reverse')}.{start}_l0{'_reverse' if reverse else ''}"] = array.numpy()
    x = rng.normal(size=(2, 5, 3))
    y, _ = module(torch.tensor(x))
    assert_close(NUMPY, net(from_torch(net, ours), x)[0], y.detach().numpy(), multiple=64)


def test_attention_embedding_and_norm_are_read_by_their_names(rng):
    torch = pytest.importorskip("torch", reason="the reference is PyTorch's own, and torch is not installed")
    attend = torch.nn.MultiheadAttention(6, 2, batch_first=True)
    whole = torch.nn.ModuleDict({"0": torch.nn.Embedding(9, 6), "1": torch.nn.LayerNorm(6), "2": attend}).double()
    torch.nn.init.normal_(attend.in_proj_bias)
    net = xn.Sequential(xn.Embedding(9, 6), xn.LayerNorm(6), xn.MultiHeadAttention(6, 2))
    state = {name: array.numpy() for name, array in whole.state_dict().items()}
    x = rng.integers(0, 9, (3, 5))
    h = whole["1"](whole["0"](torch.tensor(x)))
    y = attend(h, h, h, need_weights=False)[0]
    assert_close(NUMPY, net(from_torch(net, state), x)[0], y.detach().numpy(), multiple=64)
    assert list(to_torch(net, net.init(dtype="float64"))) == list(state)


# ---- what the layers promise ----


@pytest.mark.parametrize("cell", CELLS)
def test_first_values_are_uniform_within_pytorchs_bounds(cell):
    layer = CELLS[cell](30, 25)
    for name, window in layer.windows(layer.init(seed=3)).items():
        assert 0.18 < np.max(np.abs(window)) <= 0.2, name
        assert abs(float(np.mean(window))) < 0.05, name


@pytest.mark.parametrize("cell", CELLS)
def test_over_padding_the_state_stays(backend, cell, rng):
    one_is_enough(backend, cell)
    layer, x = CELLS[cell](2, 3), rng.normal(size=(1, 5, 2))
    mask = backend.asarray(np.asarray([[1, 1, 0, 1, 0]], dtype="int32"))
    theta = layer.init(backend=backend, dtype="float64")
    params = split(backend.xp, theta, layer.layout)
    y, _ = layer.forward(params, backend.asarray(x), Context(backend, mask=mask))
    without, _ = layer.forward(params, backend.asarray(x[:, [0, 1, 3]]), Context(backend))
    assert_close(backend, y, backend.asnumpy(without)[:, [0, 1, 1, 2, 2]], multiple=8)


def test_reverse_reads_the_reversed_sequence(backend, rng):
    forth, back = xn.GRU(2, 3), xn.GRU(2, 3, reverse=True)
    x, theta = rng.normal(size=(2, 4, 2)), forth.init(backend=backend, dtype="float64")
    y, _ = back(theta, backend.asarray(x))
    turned, _ = forth(theta, backend.asarray(np.ascontiguousarray(x[:, ::-1])))
    assert_close(backend, y, backend.asnumpy(turned)[:, ::-1], multiple=8)


@pytest.mark.parametrize("cell", CELLS)
def test_one_position_at_a_time_is_the_whole_sequence(backend, cell, rng):
    one_is_enough(backend, cell)
    net = xn.Sequential(CELLS[cell](2, 3), CELLS[cell](3, 2))
    x, theta = rng.normal(size=(2, 4, 2)), net.init(backend=backend, dtype="float64")
    params, kept = split(backend.xp, theta, net.layout), {}
    whole, _ = net.forward(params, backend.asarray(x), Context(backend))
    for t in range(4):
        stream = Stream(backend.asarray(np.asarray(t, dtype="int32")), 4, kept)
        one = backend.asarray(np.ascontiguousarray(x[:, t : t + 1]))
        y, _ = net.forward(params, one, Context(backend, stream=stream))
        kept = stream.kept
        assert_close(backend, y, backend.asnumpy(whole)[:, t : t + 1], multiple=8)
    names = ("state", "cell") if cell == "lstm" else ("state",)
    assert set(kept) == {f"{k}.{name}" for k in (0, 1) for name in names}


def test_training_is_the_same_on_every_backend(backend, rng):
    x, y = rng.integers(0, 9, (24, 5)), rng.integers(0, 2, 24)
    thetas = []
    for where in ("numpy", backend):
        model = xn.Model(text_classifier("lstm", 2), xn.cross_entropy, xn.Adam(0.01), backend=where, dtype="float64")
        model.fit(x, y, epochs=2, batch_size=8)
        thetas.append(model.backend.asnumpy(model.theta))
    assert np.max(np.abs(thetas[1] - thetas[0])) < 1e-10


def test_it_learns_what_came_first(rng):
    x = rng.integers(0, 3, (256, 6))
    net = xn.Sequential(xn.Embedding(3, 4), xn.LSTM(4, 8), xn.Pooled("last"), xn.Linear(8, 3))
    model = xn.Model(net, xn.cross_entropy, xn.Adam(0.03), backend="numpy")
    model.fit(x, x[:, 0], epochs=30, batch_size=32)
    assert np.mean(np.argmax(model.predict(x), axis=-1) == x[:, 0]) > 0.95


def test_descriptions_come_back(tmp_path):
    net = xn.Sequential(xn.RNN(2, 3, "relu"), xn.GRU(3, 2, bias=False), xn.LSTM(2, 2, reverse=True))
    model = xn.Model(net, xn.mean_squared_error, xn.SGD(0.1), backend="numpy")
    model.save(tmp_path / "net.xn")
    assert xn.load(tmp_path / "net.xn").net == net
    assert str(net) == "Sequential(RNN(2→3), GRU(3→2), LSTM(2→2, reverse))"


# ---- bad input ----


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: xn.LSTM(0, 3), "LSTM: nin must be an integer of at least 1, got 0"),
        (lambda: xn.GRU(3, 2.5), "GRU: n must be an integer of at least 1, got 2.5"),
        (lambda: xn.RNN(3, 2, True), 'RNN: nonlinearity must be "tanh" or "relu", got True'),
        (lambda: xn.GRU(3, 2, "tanh"), "GRU: bias must be True or False, got 'tanh'"),
        (lambda: xn.LSTM(3, 2, reverse=1), "LSTM: reverse must be True or False, got 1"),
    ],
    ids=["no features", "half a unit", "nonlinearity", "bias", "reverse"],
)
def test_wrong_settings(make, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        make()


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        (
            (2, 3),
            "LSTM(3→2) expects sequences (N, T, 3), got (2, 3): "
            "tokens come through Embedding(…) first, numbers as x[..., None]",
        ),
        ((2, 4, 5), "LSTM(3→2) expects sequences (N, T, 3), got (2, 4, 5)"),
        ((2, 0, 3), "LSTM(3→2) expects sequences of at least one position, got (2, 0, 3)"),
    ],
    ids=["rows", "other features", "empty sequences"],
)
def test_wrong_shapes(shape, text):
    layer = xn.LSTM(3, 2)
    with pytest.raises(xn.ShapeError) as error:
        layer(layer.init(), np.zeros(shape, "float32"))
    assert str(error.value) == text


def test_reverse_cannot_go_one_position_at_a_time():
    layer, stream = xn.LSTM(1, 1, reverse=True), Stream(np.asarray(0, "int32"), 3)
    params = split(np, layer.init(backend="numpy"), layer.layout)
    text = "LSTM(1→1, reverse) at layer 2 reads from the end: it cannot go one position at a time"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        layer.forward(params, np.zeros((1, 1, 1), "float32"), Context(xn.backend("numpy"), path="2", stream=stream))
