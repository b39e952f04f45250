"""Attention, norms, GELU and an embedding's gradient on a GPU, or on the stand-in, against the plain forms."""

from operator import attrgetter

import numpy as np
import pytest

import xpnet as xn
from xpnet.backends.cuda import sequences
from xpnet.backends.cupy import NATIVE
from xpnet.backends.numpy import NumpyBackend
from xpnet.layers.activations import gelu
from xpnet.layers.attention import attention
from xpnet.layers.embedding import scatter_rows
from xpnet.layers.normalization import standardize_features
from xpnet.losses import cross_entropy
from xpnet.selfcheck import STAND_IN

pytestmark = pytest.mark.gpu

DTYPE = pytest.mark.parametrize("dtype", ["float32", "float64"])


@pytest.fixture
def plain():
    """NumPy with the plain forms, as the standard has them."""
    backend = NumpyBackend()
    backend.native = lambda function: function
    return backend


def close(backend, found, expected):
    """Compare with the host's array, to some units in the last place of the largest number."""
    found = backend.asnumpy(found)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    atol = 64 * np.finfo(expected.dtype).eps * float(np.nanmax(np.abs(expected), initial=1.0))
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def served(backend, function):
    """Return the function's own form, which must not leave its work to the plain one."""

    own = attrgetter(NATIVE[f"{function.__module__}.{function.__name__}"])(backend)

    def call(*arguments):
        with backend.working():
            result = own(*arguments)
        assert result is not None, f"{function.__name__} was left to the plain form"
        return result

    return call


def heads(rng, n, h, t, d, dtype):
    """Queries, keys and values as the layer makes them: views on one product."""
    cut = rng.normal(size=(n, t, 3, h, d)).astype(dtype).transpose(2, 0, 3, 1, 4)
    return cut, rng.normal(size=(n, t, h, d)).astype(dtype).transpose(0, 2, 1, 3)


MASKS = {
    "no mask": lambda n, t: None,
    "of each": lambda n, t: np.arange(t) < 1 + np.arange(n)[:, None] % t,
    "all is padding": lambda n, t: np.arange(t) < np.arange(n)[:, None] * t,
    "holes": lambda n, t: np.arange(t) + np.arange(n)[:, None] & 1,
    "for all": lambda n, t: (np.arange(t) < 2)[None, :],
}


def attended(gpu, plain, arrays, dy, causal, mask, keep):
    """Compare value and gradients of attention; return the GPU's value."""
    own = (*map(gpu.asarray, arrays),)
    if arrays[0].base is not None and arrays[0].base is arrays[1].base:
        own = tuple(gpu.asarray(arrays[0].base).transpose(2, 0, 3, 1, 4)[k] for k in range(3))
    others = [None if a is None else gpu.asarray(a) for a in (mask, keep)]
    y, back = served(gpu, attention)(gpu, *own, causal, *others)
    expected, plain_back = attention(plain, *arrays, causal, mask, keep)
    close(gpu, y, expected)
    for found, wanted in zip(back(gpu.asarray(dy)), plain_back(dy), strict=True):
        close(gpu, found, wanted)
    return y


@DTYPE
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("causal", [False, True], ids=["both ways", "causal"])
@pytest.mark.parametrize("drops", [False, True], ids=["", "dropout"])
def test_attention(gpu, plain, dtype, mask, causal, drops):
    rng, (n, h, t, d) = np.random.default_rng(0), (3, 2, 5, 4)
    cut, dy = heads(rng, n, h, t, d, dtype)
    rows = MASKS[mask](n, t)
    rows = None if rows is None else rows[:, None, None, :]
    keep = (rng.random((n, h, t, t)) < 0.7).astype(dtype) / np.asarray(0.7, dtype) if drops else None
    attended(gpu, plain, tuple(cut), dy, causal, rows, keep)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 1, 33, 2), (1, 3, 70, 6)], ids=str)
@pytest.mark.parametrize("causal", [False, True], ids=["both ways", "causal"])
def test_sequences_of_many_lengths(gpu, plain, shape, causal):
    cut, dy = heads(np.random.default_rng(0), *shape, "float32")
    attended(gpu, plain, tuple(cut), dy, causal, None, None)


def test_one_position_that_reads_from_those_before(gpu, plain):
    rng = np.random.default_rng(0)
    arrays = tuple(rng.normal(size=(2, 3, length, 4)) for length in (1, 6, 6))
    past = (np.arange(6) < 4).astype("int32")[None, None, None, :]
    attended(gpu, plain, arrays, rng.normal(size=(2, 3, 1, 4)), False, past, None)


def test_huge_and_missing_scores(gpu, plain):
    cut, dy = heads(np.random.default_rng(0), 2, 2, 4, 3, "float32")
    cut[0] *= 1e4
    attended(gpu, plain, tuple(cut), dy, True, None, None)
    cut[0][0, 0, 3] = np.nan
    y, _ = served(gpu, attention)(gpu, *(gpu.asarray(a) for a in cut), True, None, None)
    assert np.argwhere(np.isnan(gpu.asnumpy(y)).any(axis=-1)).tolist() == [[0, 0, 3]]


@pytest.mark.parametrize(
    ("mask", "kind", "causal", "length"),
    [((2, 1, 4, 4), "int32", False, 4), ((2, 1, 1, 4), "float64", False, 4), (None, "", True, 4), (None, "", False, 0)],
    ids=["a mask for each position", "a mask of numbers", "causal, of two lengths", "nothing"],
)
def test_attention_that_is_left_to_the_plain_form(gpu, mask, kind, causal, length):
    q, k = gpu.cupy.zeros((2, 3, 4 - causal, 4)), gpu.cupy.zeros((2, 3, length, 4))
    mask = None if mask is None else gpu.cupy.zeros(mask, kind)
    assert gpu.sequences.attention(gpu, q, k, k, causal, mask, None) is None


@pytest.mark.parametrize(("dtype", "kind"), [("float32", "int32"), ("float64", "int64")])
@pytest.mark.parametrize(
    ("count", "m", "d"), [(1, 1, 1), (5, 40, 3), (65, 700, 40), (70, 9, 130), (200, 600, 8), (3, 1000, 33)], ids=str
)
def test_sums_of_an_embeddings_rows(gpu, plain, dtype, kind, count, m, d):
    rng = np.random.default_rng(0)
    index, rows = rng.integers(0, count, m).astype(kind), rng.integers(-9, 10, (m, d)).astype(dtype)
    found = served(gpu, scatter_rows)(gpu.xp, gpu.asarray(index), gpu.asarray(rows), count)
    np.testing.assert_array_equal(gpu.asnumpy(found), scatter_rows(plain.xp, index, rows, count))


def test_rows_are_added_up_in_their_order(gpu, plain):
    rows = np.asarray([[1e8], [1.0], [-1e8], [1.0]], "float32")
    index = np.zeros(4, "int32")
    found = served(gpu, scatter_rows)(gpu.xp, gpu.asarray(index), gpu.asarray(rows), 2)
    assert gpu.asnumpy(found).tolist() == [[1.0], [0.0]]


def test_tokens_out_of_range_are_nobodys(gpu, plain):
    index, rows = np.asarray([-1, 0, 5, 6, 2**31 - 1], "int32"), np.ones((5, 2))
    found = served(gpu, scatter_rows)(gpu.xp, gpu.asarray(index), gpu.asarray(rows), 6)
    assert gpu.asnumpy(found)[:, 0].tolist() == [1, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(("count", "m", "parts"), [(65, 16384, 64), (10000, 8192, 3), (50000, 4096, 1), (4, 100, 1)])
def test_parts(count, m, parts, gpu, monkeypatch):
    """In all no more sums than four times the rows, and no more parts than are worth their turn."""
    seen = []
    own = sequences.Sequences(gpu.images, gpu.matmul)
    monkeypatch.setattr(own, "kernels", type("", (), {"function": lambda *a: lambda grid, *b: seen.append(grid)})())
    own.scatter_rows(gpu.xp, gpu.cupy.zeros(m, "int32"), gpu.cupy.zeros((m, 1), "float32"), count)
    assert seen[0][2] == parts


@DTYPE
@pytest.mark.parametrize("shape", [(1, 1), (5, 3, 40), (2, 300), (7, 1)], ids=str)
@pytest.mark.parametrize("need_dx", [True, False])
def test_norms_over_features(gpu, plain, dtype, shape, need_dx):
    rng = np.random.default_rng(0)
    x, dy = rng.normal(3.0, 2.0, shape).astype(dtype), rng.normal(size=shape).astype(dtype)
    gamma, beta = rng.normal(size=(2, shape[-1])).astype(dtype)
    y, back = served(gpu, standardize_features)(gpu, *map(gpu.asarray, (x, gamma, beta)), 1e-5)
    expected, plain_back = standardize_features(plain, x, gamma, beta, 1e-5)
    close(gpu, y, expected)
    dx, gradients = back(gpu.asarray(dy), need_dx)
    expected_dx, expected_gradients = plain_back(dy, need_dx)
    assert (dx is None) == (not need_dx)
    for found, wanted in zip((dx, *gradients), (expected_dx, *expected_gradients), strict=True):
        if found is not None:
            close(gpu, found, wanted)
    if need_dx and shape[-1] == 1:  # x does not count: 0 without the rounding of what cancels
        assert not gpu.asnumpy(dx).any()


def test_the_norm_beside_a_large_mean(gpu, plain):
    x, ones = (1e6 + np.random.default_rng(0).normal(size=(4, 65))).astype("float32"), np.ones(65, "float32")
    y, _ = served(gpu, standardize_features)(gpu, *map(gpu.asarray, (x, ones, 0 * ones)), 1e-5)
    exact, _ = standardize_features(plain, *(a.astype("float64") for a in (x, ones, 0 * ones)), 1e-5)
    np.testing.assert_allclose(gpu.asnumpy(y), exact, rtol=0, atol=1e-4)


@DTYPE
@pytest.mark.parametrize("exact", [False, True], ids=["tanh", "exact"])
def test_gelu(gpu, plain, dtype, exact):
    x = np.concatenate([np.linspace(-12, 12, 99), [0.0, 150.0, -150.0, np.inf, -np.inf, np.nan, 3e38]]).astype(dtype)
    y, back = served(gpu, gelu)(gpu, gpu.asarray(x), exact)
    expected, plain_back = gelu(plain, x, exact)
    for found, wanted in ((y, expected), (back(gpu.asarray(np.ones_like(x))), plain_back(np.ones_like(x)))):
        eps = 16 * float(np.finfo(dtype).eps)
        np.testing.assert_allclose(gpu.asnumpy(found), wanted, rtol=eps, atol=eps)


@DTYPE
@pytest.mark.parametrize("shape", [(2, 3), (2, 1, 4)], ids=str)
def test_cross_entropy_on_any_axes(gpu, dtype, shape):
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(*shape, 11)).astype(dtype), rng.integers(0, 11, shape).astype("int32")
    found = served(gpu, cross_entropy)(gpu.asarray(scores), gpu.asarray(labels))
    for one, other in zip(found, cross_entropy(scores, labels), strict=True):
        np.testing.assert_allclose(gpu.asnumpy(one), other, rtol=0, atol=8 * np.finfo(dtype).eps)


def test_batches_of_products(gpu):
    """What attention multiplies, and what no library multiplies by itself in a graph."""
    rng = np.random.default_rng(0)
    for dtype in ("float32", "float64"):
        a, b = (rng.normal(size=shape).astype(dtype) for shape in ((3, 5, 2, 4), (3, 6, 2, 4)))
        left, right = gpu.asarray(a).transpose(0, 2, 1, 3), gpu.asarray(b).transpose(0, 2, 3, 1)
        assert gpu.products.multiply(left, right) is not None
        close(gpu, gpu.matmul(left, right), a.transpose(0, 2, 1, 3) @ b.transpose(0, 2, 3, 1))
        close(gpu, gpu.matmul(left, right[:1, 1]), a.transpose(0, 2, 1, 3) @ b.transpose(0, 2, 3, 1)[:1, 1])


def test_a_step_of_a_transformer_of_one_block_is_seventy_six_nodes(gpu, monkeypatch):
    """Ten of them attention's: heads into one piece, two products and the weights; dy, four products, ds.

    Of the products four are our own, linear layers' with a bias. Of the others one may be three on a device: cuBLASLt
    clears what it counts in, multiplies in parts, and adds them up.
    """
    products, run = [], gpu.products.lt.run
    monkeypatch.setattr(gpu.products.lt, "run", lambda *arguments: products.append(run(*arguments)))
    block = xn.TransformerBlock(8, 2, causal=True)
    net = xn.Tied(xn.Embedding(11, 8), xn.Positions(9, 8), block, xn.LayerNorm(8))
    model = xn.Model(net, xn.cross_entropy, xn.AdamW(), backend=gpu)
    text = np.random.default_rng(0).integers(0, 11, (24, 7)).astype("uint8")
    model.fit(text[:, :-1], text[:, 1:], 3, 8)
    assert len(products) == 6 * 17, "three steps to warm up and three captured"
    most = 76 if STAND_IN in gpu.describe() else 76 + 2 * 17
    assert 76 <= model.step.run.nodes_per_step <= most + 1


@pytest.mark.filterwarnings("error:steps run one by one")
def test_padding_waves_turns_and_recomputation_are_captured(gpu):
    block = xn.Recompute(xn.TransformerBlock(8, 2, dropout=0.2, rotary=True, hidden=12))
    net = xn.Masked(xn.Embedding(11, 8), xn.Sinusoidal(), block, xn.Pooled(), xn.Linear(8, 3))
    model, rng = xn.Model(net, xn.cross_entropy, xn.SGD(0.1), backend=gpu), np.random.default_rng(0)
    x, mask = rng.integers(0, 11, (16, 6)), np.arange(6) < rng.integers(0, 7, 16)[:, None]
    model.fit((x, mask), rng.integers(0, 3, 16), 3, 8)
    assert model.step.run.nodes_per_step is not None
