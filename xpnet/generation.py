"""Writing: a network that scores the next token is asked again and again, and what is drawn is given to it as input.

Each position is computed once. What later positions read of it, keys, values and states, is kept in arrays of a fixed
size, so that one compiled step serves every position.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from xpnet import checks, random
from xpnet.arrays import Array
from xpnet.backends import Backend
from xpnet.backends import backend as find_backend
from xpnet.data import door
from xpnet.errors import DataError, ShapeError
from xpnet.layers import Context, Layer, Positions
from xpnet.layers.context import Stream
from xpnet.model import Model

Next = Callable[..., tuple[Array, dict[str, Array]]]
"""`next(theta, token, position, kept, buffers) -> (scores, kept)`."""


def generate(
    model: Model,
    prompt: Any,
    count: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
    length: int | None = None,
) -> np.ndarray:
    """Return the prompt and `count` tokens more, each drawn from softmax(scores / temperature): integers, host memory.

    prompt (T,), or (N, T) for N texts at once. `temperature` 0 takes the best token, below 1 likely ones more often;
    `top_k` leaves out all but the k best (Fan et al., ACL 2018). The same seed gives the same text: what decides is
    drawn on the host, the same numbers on every backend.

    `length` is how many positions the network may see at a time, those of `Positions` or else all; a longer text is
    gone on with from its last half of them.

    DataError for tokens out of range; ShapeError for a network that does not score the tokens it reads at every
    position; ValueError for one that reads from later positions, or across them in a way that is not kept.
    """
    count = checks.integer("generate", "count", count, least=0)
    temperature = checks.number("generate", "temperature", temperature, least=0)
    top_k = None if top_k is None else checks.integer("generate", "top_k", top_k)
    vocabulary = _vocabulary(model.net)
    text = _prompt(prompt, vocabulary)
    length = _length(model.net, length, text.shape[1] + count)
    with model.holder as holder, model.backend.working():
        writer = _Writer(model, holder.state, length, text.shape[0])
        writer.check(vocabulary)
        scores = writer.read(text[:, -length:])
        for k in range(count):
            drawn = draw(scores, temperature, top_k, random.generator(seed, f"generate/{k}"))
            text = np.concatenate([text, drawn[:, None]], axis=1)
            if k + 1 < count:
                more = text[:, -1:] if writer.position < length else text[:, -max(length // 2, 1) :]
                scores = writer.read(more)
    return text if np.ndim(prompt) == 2 else text[0]


def draw(scores: np.ndarray, temperature: float, top_k: int | None, rng: np.random.Generator) -> np.ndarray:
    """Return a token for each row of scores (N, V): the best at temperature 0, else one by softmax(scores / T)."""
    order = np.argsort(-scores, axis=1, kind="stable")
    if temperature == 0.0:
        return order[:, 0]
    best = np.take_along_axis(scores.astype(np.float64), order, axis=1)[:, :top_k]
    shares = np.cumsum(np.exp((best - best[:, :1]) / temperature), axis=1)
    place = (shares < rng.random((len(scores), 1)) * shares[:, -1:]).sum(axis=1)
    return np.take_along_axis(order, place[:, None], axis=1)[:, 0]


class _Writer:
    """Reads a text position by position, on the device."""

    def __init__(self, model: Model, state: Any, length: int, rows: int) -> None:
        self.model, self.state, self.length, self.rows = model, state, length, rows
        self.next = _compiled(model.net, model.backend, length)
        self.position = 0
        self.kept: dict[str, Array] = {}

    def read(self, text: np.ndarray) -> np.ndarray:
        """Return the scores (N, V) after some more tokens (N, T), read from the start if there is no room for them."""
        if self.position + text.shape[1] > self.length:
            self.position, self.kept = 0, {}
        backend, scores = self.model.backend, None
        for column in text.T:
            token = backend.asarray(column[:, None], dtype="int32")
            place = backend.asarray(np.asarray(self.position, np.int32), dtype="int32")
            scores, self.kept = self.next(self.state.theta, token, place, self.kept, self.state.buffers)
            self.position += 1
        return np.array(backend.asnumpy(scores))

    def check(self, vocabulary: int) -> None:
        """Raise ValueError unless a few tokens read one by one score as they do together."""
        some = np.arange(min(3, self.length))[None, :] % vocabulary
        whole = self.model.predict(np.repeat(some, self.rows, axis=0))[:, -1, :]
        alone = self.read(np.repeat(some, self.rows, axis=0))
        self.position, self.kept = 0, {}
        size = np.max(np.abs(whole), initial=1.0)
        if not np.allclose(alone, whole, rtol=0.0, atol=1e-3 * size, equal_nan=True):
            reason = "read one by one its tokens score otherwise than together"
            remedy = "across positions use layers that look back alone: causal attention, RNN, GRU, LSTM"
            raise ValueError(f"{self.model.net} cannot write, {reason}: {remedy}")


@lru_cache(maxsize=8)
def _compiled(net: Layer, backend: Backend, length: int) -> Next:
    """Return the function that scores what comes after one more position."""

    def advance(
        theta: Any, token: Array, position: Array, kept: dict[str, Array], buffers: dict[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        windows = theta if isinstance(theta, tuple) else backend.split(theta, net.layout)
        params = windows if net.ties is None else net.ties.given(windows)
        stream = Stream(position, length, dict(kept))
        scores, _ = net.forward(params, token, Context(backend, buffers=dict(buffers), stream=stream))
        return scores[:, 0, :], stream.kept

    return backend.jit(advance)


def _length(net: Layer, length: int | None, whole: int) -> int:
    """Return how many positions the network may see; ValueError for more than it knows."""
    known = min((leaf.count for _, leaf, _ in net.walk((1, 1)) if isinstance(leaf, Positions)), default=None)
    if length is None:
        return known or whole
    length = checks.integer("generate", "length", length)
    if known is not None and length > known:
        raise ValueError(f"generate: length must be at most {known}, which Positions knows, got {length}")
    return length


def _vocabulary(net: Layer) -> int:
    """Return how many tokens there are; ShapeError unless the network reads them and scores them at every position."""
    tokens = net.tokens()
    output = net.output_shape((1, 2)) if tokens else ()
    if not tokens or output != (1, 2, tokens):
        reason = f"it gives {output} for tokens (1, 2)" if tokens else "it reads no tokens: begin with Embedding(…)"
        raise ShapeError(f"generate expects a network that scores each next token, (N, T) -> (N, T, V), but {reason}")
    return tokens


def _prompt(prompt: Any, vocabulary: int) -> np.ndarray:
    """Return the prompt as (N, T); DataError if that is not what it is, or a token is out of range."""
    text = np.asarray(prompt)
    if text.ndim not in (1, 2) or not text.size or text.dtype.kind not in "iu":
        raise DataError(f"prompt must hold tokens, integers (T,) or (N, T), got {checks.shown(prompt)}")
    door.check_tokens("prompt", text, vocabulary, find_backend("numpy"))
    return text.reshape(-1, text.shape[-1]).astype(np.int64)
