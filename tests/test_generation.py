"""Text that a network writes: position by position as all at once, the same on every backend, and what is refused."""

import re

import numpy as np
import pytest

import xpnet as xn
from xpnet.generation import draw
from xpnet.random import generator

V = 7


def transformer(*first, rotary=False):
    block = xn.TransformerBlock(8, 2, causal=True, rotary=rotary, dropout=0.2)
    return xn.Tied(xn.Embedding(V, 8, scale=0.7), *first, block, xn.LayerNorm(8))


NETS = {
    "learned positions": transformer(xn.Positions(6, 8)),
    "sinusoidal": transformer(xn.Sinusoidal()),
    "rotary": transformer(rotary=True),
    "recurrent": xn.Sequential(xn.Embedding(V, 4), xn.GRU(4, 4), xn.LSTM(4, 3), xn.Linear(3, V)),
}


def model(net, backend="numpy", **settings):
    return xn.Model(net, xn.cross_entropy, xn.SGD(0.1), seed=3, backend=backend, **settings)


@pytest.mark.skip_backend("jax", reason="compiles a step for each network: one is below")
@pytest.mark.parametrize("kind", NETS)
def test_the_likeliest_text_is_what_the_whole_network_says(backend, kind):
    writer = model(NETS[kind], backend)
    text = [2, 5]
    for _ in range(4):
        text.append(int(np.argmax(writer.predict(np.asarray([text]))[0, -1])))
    assert xn.generate(writer, [2, 5], 4, temperature=0).tolist() == text


def test_the_same_seed_writes_the_same_text_everywhere(backend):
    written = [xn.generate(model(NETS["learned positions"], b), [1], 12, seed=4) for b in (backend, "numpy")]
    assert written[0].tolist() == written[1].tolist()
    assert len(set(written[0].tolist())) > 1


def test_another_seed_writes_another_text():
    writer = model(NETS["rotary"])
    texts = [tuple(xn.generate(writer, [1], 20, seed=seed, temperature=5.0)) for seed in range(3)]
    assert len(set(texts)) == 3


@pytest.mark.parametrize("seed", range(8))
def test_a_text_longer_than_the_positions_goes_on_from_its_last_half(seed):
    net = xn.Sequential(xn.Embedding(V, 8), xn.Positions(6, 8, scale=1.0), xn.GRU(8, 8), xn.Linear(8, V))
    writer = xn.Model(net, xn.cross_entropy, xn.SGD(0.1), seed=seed, backend="numpy")
    text = xn.generate(writer, np.random.default_rng(seed).integers(0, V, 4), 6, temperature=0)
    assert len(text) == 10
    for t, seen in ((6, 6), (7, 3), (8, 4), (9, 5)):  # with all six positions, then with three again, four, five
        scores = writer.predict(text[None, t - seen : t])[0, -1]
        assert text[t] == np.argmax(scores)


def test_every_token_is_drawn_anew():
    writer = model(xn.Tied(xn.Embedding(V, 8, scale=0.0)))  # all tokens are as likely
    assert set(xn.generate(writer, [1], 60).tolist()) == set(range(V))


def test_several_texts_at_once_are_each_its_own():
    writer = model(NETS["learned positions"])
    prompts = np.asarray([[1, 2], [6, 0], [3, 3]])
    together = xn.generate(writer, prompts, 3, temperature=0)
    assert together.shape == (3, 5)
    for prompt, text in zip(prompts, together, strict=True):
        assert text.tolist() == xn.generate(writer, prompt, 3, temperature=0).tolist()


def test_nothing_more_is_asked_for():
    assert xn.generate(model(NETS["rotary"]), [4, 1], 0).tolist() == [4, 1]


def test_tokens_are_drawn_as_often_as_they_are_likely():
    scores = np.tile(np.log(np.asarray([[0.5, 0.3, 0.2]])), (30_000, 1))
    counts = np.bincount(draw(scores, 1.0, None, generator(0, "test")), minlength=3)
    np.testing.assert_allclose(counts / counts.sum(), [0.5, 0.3, 0.2], atol=0.01)
    counts = np.bincount(draw(scores, 0.5, None, generator(0, "test")), minlength=3)
    np.testing.assert_allclose(counts / counts.sum(), np.asarray([25, 9, 4]) / 38, atol=0.01)
    counts = np.bincount(draw(scores, 1.0, 2, generator(0, "test")), minlength=3)
    np.testing.assert_allclose(counts / counts.sum(), [0.625, 0.375, 0.0], atol=0.01)


def causal(layer):
    return model(xn.Tied(xn.Embedding(V, 8), layer))


REFUSED = [
    (lambda w: xn.generate(w, [1, 9], 2), xn.DataError, "prompt must hold tokens, integers in 0..6, got 9 at row 1"),
    (lambda w: xn.generate(w, [0.5], 2), xn.DataError, "prompt must hold tokens, integers (T,) or (N, T), got [0.5]"),
    (lambda w: xn.generate(w, [], 2), xn.DataError, "prompt must hold tokens, integers (T,) or (N, T), got []"),
    (lambda w: xn.generate(w, [1], -1), ValueError, "generate: count must be an integer of at least 0, got -1"),
    (
        lambda w: xn.generate(w, [1], 2, temperature=-1),
        ValueError,
        "generate: temperature must be a number of at least 0, got -1",
    ),
    (lambda w: xn.generate(w, [1], 2, top_k=0), ValueError, "generate: top_k must be an integer of at least 1, got 0"),
    (
        lambda w: xn.generate(w, [1], 2, length=7),
        ValueError,
        "generate: length must be at most 6, which Positions knows, got 7",
    ),
    (
        lambda w: xn.generate(causal(xn.MultiHeadAttention(8, 2)), [1], 2),
        ValueError,
        "MultiHeadAttention(8, 2) at layer 1 reads from later positions: make it causal to go one by one",
    ),
    (
        lambda w: xn.generate(causal(xn.Conv1d(8, 8, 3, padding=1)), [1], 2),
        ValueError,
        "Tied(Embedding(7, 8), Conv1d(8→8, 3, padding=1)) cannot write, read one by one its tokens score otherwise "
        "than together: across positions use layers that look back alone: causal attention, RNN, GRU, LSTM",
    ),
    (
        lambda w: xn.generate(model(xn.Linear(3, 2)), [1], 2),
        xn.ShapeError,
        "generate expects a network that scores each next token, (N, T) -> (N, T, V), but it reads no tokens: begin "
        "with Embedding(…)",
    ),
    (
        lambda w: xn.generate(model(xn.Embedding(V, 3)), [1], 2),
        xn.ShapeError,
        "generate expects a network that scores each next token, (N, T) -> (N, T, V), but it gives (1, 2, 3) for "
        "tokens (1, 2)",
    ),
]


@pytest.mark.parametrize(("call", "kind", "text"), REFUSED, ids=[text[:60] for _, _, text in REFUSED])
def test_what_cannot_be_written(call, kind, text):
    with pytest.raises(kind, match=f"^{re.escape(text)}$"):
        call(model(NETS["learned positions"]))
