"""Layers for sequences: gradients over their settings, values beside plain loops, masks, and what they refuse."""

import re
import tracemalloc
from itertools import product

import numpy as np
import pytest

import xpnet as xn
from xpnet.arrays import shape_of
from xpnet.layers import Context
from xpnet.layers.activations import gelu
from xpnet.testing import assert_close, check_layer, gradcheck

V = 5


def attentions():
    settings = [(4, 1), (4, 2), (6, 3)], [False, True], [0.0, 0.4], [False, True]
    for (n, heads), causal, dropout, rotary in product(*settings):
        if n // heads % 2 == 0:
            yield xn.MultiHeadAttention(n, heads, causal, dropout, rotary)


SHAPES = [(1, 1), (2, 3), (3, 2), (1, 5)]
"""Samples and positions."""
LARGE = [(3, 5), (2, 6)]
"""So large that random directions stand for the whole Jacobian, which takes less time."""
BLOCKS = list(product([False, True], [0.0, 0.3], [False, True], [None, 3]))
FAMILIES = {
    "Embedding": [(xn.Embedding(V, n), shape) for n in (1, 3) for shape in [(4,), *SHAPES, (2, 2, 2)]],
    "Positions": [(xn.Positions(count, n), (*s, n)) for count in (5, 7) for n in (1, 3) for s in SHAPES],
    "Sinusoidal": [(xn.Sinusoidal(), (*s, n)) for n in (2, 6) for s in SHAPES],
    "Linear": [(xn.Linear(3, 2, bias), (*s, 3)) for bias in (False, True) for s in [*SHAPES, (2, 2, 2)]],
    "MultiHeadAttention": [(layer, (*s, layer.n)) for layer in attentions() for s in SHAPES[:2]],
    "TransformerBlock": [(xn.TransformerBlock(8, 2, *chosen), (*s, 8)) for chosen in BLOCKS for s in LARGE],
    "Pooled": [(xn.Pooled(how), (*s, 3)) for how in ("mean", "last", "first") for s in SHAPES],
    "Tied": [
        (xn.Tied(xn.Embedding(V, 8), xn.Positions(6, 8), *layers), s)
        for layers in [(), (xn.LayerNorm(8),), (xn.TransformerBlock(8, 2, True, 0.2),), (xn.GRU(8, 8),)]
        for s in LARGE
    ],
    "Masked": [
        (xn.Masked(*layers), ((*s, 4), s))
        for layers in [
            (xn.MultiHeadAttention(4, 2),),
            (xn.MultiHeadAttention(4, 2, causal=True, dropout=0.3),),
            (xn.Pooled(),),
            (xn.Pooled("last"),),
            (xn.GRU(4, 3), xn.Pooled("last")),
            (xn.LSTM(4, 2, reverse=True),),
        ]
        for s in SHAPES[1:3]
    ],
    "Masked tokens": [(xn.Masked(xn.Embedding(V, 8), xn.TransformerBlock(8, 2), xn.Pooled()), (s, s)) for s in LARGE],
    "Recompute": [
        (xn.Recompute(*layers), (3, 5, 8))
        for layers in [(), (xn.Linear(8, 3), xn.Tanh()), (xn.TransformerBlock(8, 2, True, 0.3),), (xn.GRU(8, 4),)]
    ],
}
EVERY = {"numpy": 1, "numpy-readonly": 5, "torch": 3, "strict:device1": 17, "jax": 60}
"""Where a call costs more, one case in so many."""


def cases(family, name):
    """Return the cases of a family that are tried on a backend: on JAX, which compiles each operation, few of them."""
    if name == "jax" and family not in ("Embedding", "Positions", "Pooled", "Linear", "Recompute"):
        return []  # trained there, compiled, in test_sequences_pytorch.py
    return FAMILIES[family][:: EVERY.get(name, 9)]


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients(backend, family, request):
    for k, (layer, shape) in enumerate(cases(family, request.node.callspec.params["xpnet_backend"])):
        for training in (False, True) if "dropout=0.0" not in repr(layer) and "dropout" in repr(layer) else (False,):
            gradcheck(layer, shape, backend=backend, seed=k, training=training, key=k)


def test_there_are_enough_of_them():
    assert sum(len(cases(family, name)) for family in FAMILIES for name in EVERY) >= 200


CONTRACT = [
    (xn.Embedding(V, 3), (3, 2)),
    (xn.Positions(4, 2), (3, 2, 2)),
    (xn.Sinusoidal(), (3, 2, 4)),
    (xn.MultiHeadAttention(4, 2, causal=True, dropout=0.5, rotary=True), (3, 4, 4)),
    (xn.TransformerBlock(4, 2), (3, 2, 4)),
    (xn.Tied(xn.Embedding(V, 3), xn.Tanh()), (3, 2)),
    (xn.Masked(xn.Embedding(V, 4), xn.MultiHeadAttention(4, 2), xn.Pooled()), ((3, 4), (3, 4))),
    (xn.Recompute(xn.Linear(3, 2), xn.Dropout(0.5)), (3, 3)),
]


@pytest.mark.skip_backend("jax", reason="compiles each operation for each shape, 3 to 20 s a layer")
@pytest.mark.parametrize(("layer", "shape"), CONTRACT, ids=str)
def test_layer_keeps_the_contract(backend, layer, shape):
    for training in (False, True):
        check_layer(layer, shape, backend=backend, training=training, key=5)


# Values


def values(layer, backend, x, params=(), **context):
    """Return what a layer gives on host arrays in float64."""
    arrays = tuple(backend.asarray(p, dtype="float64") for p in params)
    place = [backend.asarray(part, dtype=part.dtype.name) for part in (x if isinstance(x, tuple) else (x,))]
    return layer.forward(arrays, tuple(place) if isinstance(x, tuple) else place[0], Context(backend, **context))[0]


def drawn(layer, rng):
    return [rng.normal(size=p.shape) for p in layer.parameters()]


@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_what_the_formula_says(backend, causal):
    rng = np.random.default_rng(1)
    layer, x = xn.MultiHeadAttention(4, 2, causal), rng.normal(size=(2, 3, 4))
    w, b, wo, bo = params = drawn(layer, rng)
    q, k, v = np.split(x @ w + b, 3, axis=-1)
    heads = np.zeros(x.shape)
    for n, h, t in product(range(2), range(2), range(3)):
        part, until = slice(2 * h, 2 * h + 2), t + 1 if causal else 3
        scores = k[n, :until, part] @ q[n, t, part] / np.sqrt(2.0)
        p = np.exp(scores) / np.exp(scores).sum()
        heads[n, t, part] = p @ v[n, :until, part]
    assert_close(backend, values(layer, backend, x, params), heads @ wo + bo, multiple=64)


def test_nobody_reads_from_padding(backend):
    rng = np.random.default_rng(2)
    layer, x = xn.MultiHeadAttention(4, 2), rng.normal(size=(2, 5, 4))
    params, lengths = drawn(layer, rng), [3, 5]
    mask = (np.arange(5)[None, :] < np.asarray(lengths)[:, None]).astype("int32")
    y = backend.asnumpy(values(xn.Masked(layer), backend, (x, mask), params))
    for n, length in enumerate(lengths):
        alone = values(layer, backend, x[n : n + 1, :length], params)
        assert_close(backend, backend.asarray(y[n : n + 1, :length]), backend.asnumpy(alone), multiple=64)


def test_a_mask_may_be_of_booleans(backend):
    net = xn.Masked(xn.MultiHeadAttention(4, 2), xn.Pooled("last"))
    theta, x = net.init(0, backend), backend.asarray(np.ones((2, 3, 4), "float32"))
    masks = (np.asarray([[1, 1, 0], [1, 0, 0]], kind) for kind in ("bool", "int32"))
    one, other = (net(theta, (x, backend.asarray(mask)))[0] for mask in masks)
    assert np.array_equal(backend.asnumpy(one), backend.asnumpy(other))


def test_where_all_is_padding_nothing_is_read(backend):
    rng = np.random.default_rng(3)
    layer, x = xn.MultiHeadAttention(4, 2, causal=True), rng.normal(size=(1, 3, 4))
    params = drawn(layer, rng)
    y = values(xn.Masked(layer), backend, (x, np.asarray([[0, 0, 1]], "int32")), params)
    assert_close(backend, y[:, :2, :], np.broadcast_to(params[3], (1, 2, 4)))


def test_pooled_leaves_padding_out(backend):
    x, mask = np.arange(12.0).reshape(2, 3, 2), np.asarray([[1, 0, 1], [0, 0, 0]], "int32")
    ways = ("mean", "last", "first")
    mean, last, first = (values(xn.Masked(xn.Pooled(how)), backend, (x, mask)) for how in ways)
    assert_close(backend, mean, np.asarray([[2.0, 3.0], [0.0, 0.0]]))
    assert_close(backend, last, np.asarray([[4.0, 5.0], [0.0, 0.0]]))
    assert_close(backend, first, np.asarray([[0.0, 1.0], [0.0, 0.0]]))


def test_rotary_scores_depend_on_distances_alone(backend):
    rng = np.random.default_rng(4)
    layer = xn.MultiHeadAttention(4, 1, rotary=True)
    params, x = drawn(layer, rng), np.repeat(rng.normal(size=(1, 1, 4)), 6, axis=1)
    seen = {}
    values(layer, backend, x, params, watch=seen.__setitem__)
    p = np.log(backend.asnumpy(seen["attention"])[0, 0])
    for distance in range(-2, 3):  # the same token everywhere: all that differs is how far away it is
        row = [p[t, t + distance] - p[t, t] for t in range(2, 4)]
        assert np.ptp(row) < 1e-12
    assert np.ptp(p) > 1e-3


def test_sinusoidal_is_what_the_formula_says(backend):
    y = backend.asnumpy(values(xn.Sinusoidal(), backend, np.zeros((1, 7, 6))))[0]
    for t, k in product(range(7), range(3)):
        angle = t * 10000.0 ** (-2 * k / 6)
        assert abs(y[t, 2 * k] - np.sin(angle)) < 1e-15
        assert abs(y[t, 2 * k + 1] - np.cos(angle)) < 1e-15


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "int64"])
def test_tokens_of_any_width(backend, dtype):
    if backend.name == "jax" and dtype == "int64":
        pytest.skip("64-bit integers are off in JAX here")
    table = np.arange(10.0).reshape(5, 2)
    tokens = backend.asarray(np.asarray([[4, 0], [1, 1]], dtype), dtype=dtype)
    y, backward = xn.Embedding(5, 2)(backend.asarray(table.reshape(-1), dtype="float64"), tokens)
    assert_close(backend, y, table[[[4, 0], [1, 1]]])
    gradient = backend.asnumpy(backward(backend.asarray(np.ones((2, 2, 2)), dtype="float64"))).reshape(5, 2)
    assert gradient.tolist() == [[1.0, 1.0], [2.0, 2.0], [0.0, 0.0], [0.0, 0.0], [1.0, 1.0]]


@pytest.mark.parametrize("count", [7, 300])
def test_an_embedding_adds_up_what_came_for_each_token(backend, count):
    rng = np.random.default_rng(5)
    tokens, dy = rng.integers(0, count, 500).astype("int32"), rng.normal(size=(500, 3))
    expected = np.zeros((count, 3))
    np.add.at(expected, tokens, dy)
    layer, place = xn.Embedding(count, 3), backend.asarray(tokens)
    gradients = []
    for _ in range(2):
        _, backward = layer.forward((backend.asarray(np.zeros((count, 3))),), place, Context(backend))
        gradients.append(backend.asnumpy(backward(backend.asarray(dy, dtype="float64"))[1][0]))
    assert_close(backend, backend.asarray(gradients[0]), expected, multiple=64)
    assert np.array_equal(*gradients)


# Recompute


def eight_blocks(wrap):
    blocks = (xn.TransformerBlock(16, 2, causal=True) for _ in range(8))
    return xn.Sequential(*(wrap(block) for block in blocks))


def gradient(net, backend):
    """Return a function of θ and x that goes forward and back."""

    def run(theta, x):
        y, backward = net(theta, x, True, key=1, backend=backend)
        return backward(y)

    return run


def test_recompute_on_eight_blocks_takes_less_than_half_of_the_memory():
    found, peaks, backend = [], [], xn.backend("numpy")
    x = np.random.default_rng(8).normal(size=(8, 32, 16)).astype("float32")
    theta = eight_blocks(xn.Sequential).init(0, backend)
    for wrap in (xn.Sequential, xn.Recompute):
        tracemalloc.start()
        found.append(gradient(eight_blocks(wrap), backend)(theta, x))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert np.array_equal(*found)
    assert peaks[1] < 0.5 * peaks[0], peaks


def test_recompute_takes_less_memory_where_a_step_is_compiled():
    """The compiler would keep what it finds computed twice: `afresh` hides it."""
    jax = pytest.importorskip("jax", reason="JAX is what compiles, and it is not installed")
    backend, found, sizes = xn.backend("jax"), [], []
    x = backend.asarray(np.random.default_rng(9).normal(size=(512, 64)).astype("float32"))
    layers = xn.Linear(64, 64), xn.Tanh(), xn.Linear(64, 64), xn.Tanh(), xn.Linear(64, 64), xn.Tanh()
    for wrap in (xn.Sequential, xn.Recompute):
        net = xn.Sequential(*(wrap(*layers) for _ in range(4)))
        theta = net.init(0, backend)
        program = jax.jit(gradient(net, backend)).lower(theta, x).compile()
        sizes.append(program.memory_analysis().temp_size_in_bytes)
        found.append(np.asarray(program(theta, x)))
    np.testing.assert_allclose(*found, rtol=0, atol=1e-4 * np.max(np.abs(found[0])))
    assert sizes[1] < 0.7 * sizes[0], sizes


def test_gelu_of_a_compiled_step_is_the_plain_one():
    jax = pytest.importorskip("jax", reason="JAX is what compiles, and it is not installed")
    backend, rng = xn.backend("jax:cpu"), np.random.default_rng(10)
    x, dy = (backend.asarray(rng.normal(size=(64, 32)).astype("float32")) * 3.0 for _ in range(2))

    def run(form):
        def both(x, dy):
            y, back = form(backend, x, False)
            return y, back(dy)

        return jax.jit(both)(x, dy)

    assert backend.native(gelu) is not gelu
    for own, plain in zip(run(backend.native(gelu)), run(gelu), strict=True):
        np.testing.assert_allclose(own, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.skip_backend("jax", reason="compiles each operation: it is compiled whole in the test above")
def test_recompute_has_the_same_bits(backend):
    def run(*layers):
        net = xn.Sequential(*layers, xn.Linear(8, 3))
        theta = backend.asarray(np.random.default_rng(6).normal(size=net.size), dtype="float32")
        x = backend.asarray(np.random.default_rng(7).normal(size=(2, 3, 8)), dtype="float32")
        held = net.init_buffers(backend)
        y, backward = net(theta, x, True, key=3, buffers=held)
        arrays = y, backward(backend.asarray(np.ones((2, 3, 3)), dtype="float32")), *held.values()
        return [backend.asnumpy(array) for array in arrays]

    inner = xn.MultiHeadAttention(8, 2, causal=True), xn.BatchNorm(8)
    for plain, again in zip(run(xn.Sequential(*inner)), run(xn.Recompute(*inner)), strict=True):
        assert np.array_equal(plain, again)


def test_recompute_draws_the_same_masks_again(backend):
    if backend.name == "jax":
        pytest.skip("compiles each operation: that masks are the same bits there is shown in test_random.py")
    layer = xn.Recompute(xn.Dropout(0.5))
    y, backward = layer.forward((), backend.asarray(np.ones((4, 50)), dtype="float64"), Context(backend, True, 9))
    dx, _ = backward(backend.asarray(np.ones((4, 50)), dtype="float64"))
    assert 0.0 < float(np.mean(backend.asnumpy(y) == 0)) < 1.0
    assert np.array_equal(backend.asnumpy(dx), backend.asnumpy(y))


# What is refused

NO_PAIRS = "MultiHeadAttention: rotary turns pairs, heads of 3 features have none left over: change n"
SETTINGS = [
    (lambda: xn.Embedding(0, 3), "Embedding: count must be an integer of at least 1, got 0"),
    (lambda: xn.Embedding(3, 3, scale=-1), "Embedding: scale must be a number of at least 0, got -1"),
    (lambda: xn.MultiHeadAttention(10, 3), "MultiHeadAttention: heads must divide 10 features, got 3"),
    (lambda: xn.TransformerBlock(10, 4), "MultiHeadAttention: heads must divide 10 features, got 4"),
    (lambda: xn.MultiHeadAttention(6, 2, rotary=True), NO_PAIRS),
    (lambda: xn.Pooled("max"), 'Pooled: how must be "mean", "last" or "first", got \'max\''),
]


@pytest.mark.parametrize(("make", "text"), SETTINGS, ids=[text for _, text in SETTINGS])
def test_wrong_settings(make, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        make()


FIRST, MASK = "tokens come through Embedding(…) first", "expects a mask (N, T) for x (N, T, …)"
LAST = "the last axis must have 5 features, and Flatten() would make 12 of all"
WRONG = [
    (xn.MultiHeadAttention(4, 2), (2, 3), f"expects sequences (N, T, 4), got (2, 3): {FIRST}"),
    (xn.MultiHeadAttention(4, 2), (2, 3, 5), "expects sequences (N, T, 4), got (2, 3, 5)"),
    (xn.Positions(5, 4), (2, 6, 4), "knows 5 positions, got a sequence of 6: cut it"),
    (xn.Sinusoidal(), (2, 6, 3), "expects an even number of features, a sine and a cosine each, got (2, 6, 3)"),
    (
        xn.Tied(xn.Embedding(V, 4), xn.Linear(4, 3)),
        (2, 6),
        "Tied expects layers that give the table's 4 features, got (2, 6, 3)",
    ),
    (xn.Masked(xn.Pooled()), ((2, 3, 4), (2, 4)), f"{MASK}, got (2, 4) for (2, 3, 4): one number a token"),
    (xn.Masked(xn.Pooled()), ((2, 3, 4), (2, 3), (2, 3)), "expects x and a mask, got 3 inputs"),
    (xn.Linear(12, 3), (2, 3, 4), "expects input (N, 12), got (2, 3, 4): add Flatten() before it"),
    (xn.Linear(5, 3), (2, 3, 4), f"expects input (N, 5), got (2, 3, 4): {LAST}"),
]


@pytest.mark.parametrize(("layer", "shape", "text"), WRONG, ids=[text for _, _, text in WRONG])
def test_shapes_that_do_not_fit(layer, shape, text):
    with pytest.raises(xn.ShapeError, match=re.escape(text)):
        layer.output_shape(shape)


def test_tied_begins_with_an_embedding():
    with pytest.raises(TypeError, match=r"^Tied expects an Embedding first, got Linear\(3→3\)$"):
        xn.Tied(xn.Linear(3, 3))


def classifier(**settings):
    net = xn.Masked(xn.Embedding(V, 4), xn.MultiHeadAttention(4, 2), xn.Pooled(), xn.Linear(4, 2))
    return xn.Model(net, xn.cross_entropy, xn.SGD(0.1), backend="numpy", **settings)


TOKENS = np.asarray([[1, 2, 0], [4, 3, 3]])
DATA = [
    ([[1, 2], [3]], "x must have rows of one length, but row 0 has 2 and row 1 has 1: pad or cut them"),
    (TOKENS + 1, "x must hold tokens, integers in 0..4, got 5 at row 1, column 0"),
    (TOKENS - 1, "x must hold tokens, integers in 0..4, got -1 at row 0, column 2"),
    (TOKENS * 1.0, "x must hold tokens, integers in 0..4, got float32: cast them, x.astype(int)"),
    ((TOKENS, TOKENS), "x[1] must hold 0 and 1, got 2 at row 0, column 1"),
    ((TOKENS, np.ones((2, 3))), "x[1] must hold 0 and 1, got float32: cast them, x[1].astype(int)"),
    ((TOKENS, np.ones((2, 2), int)), f"Masked {MASK}, got (2, 2) for (2, 3): one number a token"),
]


@pytest.mark.parametrize(("x", "text"), DATA, ids=[text for _, text in DATA])
def test_data_that_do_not_fit(x, text):
    model = classifier()
    for call in (lambda: model.fit(x, [0, 1]), lambda: model.predict(x)):
        with pytest.raises((xn.DataError, xn.ShapeError), match=f"^{re.escape(text)}$"):
            call()


def test_tokens_on_the_device_are_looked_at_too(backend):
    model = xn.Model(xn.Embedding(V, 2), xn.mean_squared_error, xn.SGD(0.1), backend=backend)
    with pytest.raises(xn.DataError, match=r"^x must hold tokens, integers in 0\.\.4, got 7 at row 1$"):
        model.predict(backend.asarray(np.asarray([0, 7], "int32")))
    with pytest.raises(TypeError, match=r"^expected tokens, integers in 0\.\.4, got .*float32: cast them with astype$"):
        model.net(model.theta, backend.asarray(np.ones(2, "float32")))


# Trained, saved, loaded


def test_a_masked_model_trains_and_comes_back(tmp_path, backend):
    if backend.name in ("strict", "jax"):
        pytest.skip("takes half a minute there; another network is trained in test_sequences_pytorch.py")
    net = xn.Masked(xn.Embedding(V, 4), xn.TransformerBlock(4, 2, dropout=0.1), xn.Pooled(), xn.Linear(4, 2))
    model = xn.Model(net, xn.cross_entropy, xn.Adam(1e-2), backend=backend)
    rng = np.random.default_rng(7)
    lengths = rng.integers(1, 7, 64)
    mask, tokens = np.arange(6)[None, :] < lengths[:, None], rng.integers(0, V, (64, 6))
    labels = ((tokens == 2) & mask).any(axis=1).astype(int)
    history = model.fit((tokens, mask), labels, epochs=20, batch_size=16, progress=False)
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    tokens[~mask] = (tokens[~mask] + 1) % V  # what stands in the padding changes nothing
    model.save(tmp_path / "model.xpn")
    again = xn.load(tmp_path / "model.xpn", backend)
    assert again.net == net
    assert shape_of(again.predict((tokens, mask))) == (64, 2)
    assert again.evaluate((tokens, mask), labels) == model.evaluate((tokens, mask), labels)


@pytest.mark.parametrize("parts", [2, 3])
def test_accumulated_gradients_are_those_of_the_larger_batch(backend, parts):
    if parts == 3 and backend.name == "jax":
        pytest.skip("is compiled once already, for two parts")
    rng = np.random.default_rng(8)
    x, y = rng.integers(0, V, (26, 4)), rng.integers(0, V, (26, 4))
    net = xn.Tied(xn.Embedding(V, 4), xn.Positions(4, 4), xn.MultiHeadAttention(4, 2, causal=True))

    def trained(batch_size, accumulate):
        model = xn.Model(net, xn.cross_entropy, xn.SGD(0.1, momentum=0.9), backend=backend, metrics=["accuracy"])
        history = model.fit(x, y, 2, batch_size, accumulate=accumulate, progress=False)
        return model, history

    (whole, expected), (model, history) = trained(4 * parts, 1), trained(4, parts)
    assert_close(backend, model.theta, backend.asnumpy(whole.theta), multiple=2000)
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-5)
    np.testing.assert_allclose(history["accuracy"], expected["accuracy"], rtol=1e-5)
