"""Twenty training steps of a character model in float64: every backend against plain PyTorch, θ and not only the loss.

The keys' bias is left out: what is added to every key changes no softmax, so that its gradient is nothing but rounding
errors, which Adam divides by their own size.

The figures found are printed (`pytest -s`) and recorded as properties of the tests (`pytest --junitxml`).
"""

from functools import lru_cache

import numpy as np
import pytest

import xpnet as xn
from xpnet import random

torch = pytest.importorskip("torch", reason="the reference is a plain PyTorch model, and torch is not installed")
nn, functional = torch.nn, torch.nn.functional

STEPS, BATCH, LIMIT = 20, 4, 1e-10
V, N, HEADS, T, BLOCKS = 11, 8, 2, 6, 2
NET = xn.Tied(
    xn.Embedding(V, N, scale=0.5),
    xn.Positions(T, N),
    *(xn.TransformerBlock(N, HEADS, causal=True) for _ in range(BLOCKS)),
    xn.LayerNorm(N),
)


def data():
    text = np.random.default_rng(5).integers(0, V, (STEPS * BATCH, T + 1))
    return text[:, :-1], text[:, 1:]


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.LayerNorm(N), nn.LayerNorm(N)
        self.attention = nn.MultiheadAttention(N, HEADS, batch_first=True)
        self.wide, self.narrow = nn.Linear(N, 4 * N), nn.Linear(4 * N, N)

    def forward(self, x):
        h, later = self.first(x), torch.triu(torch.ones(T, T, dtype=torch.bool), 1)
        x = x + self.attention(h, h, h, attn_mask=later, need_weights=False)[0]
        return x + self.narrow(functional.gelu(self.wide(self.second(x)), approximate="tanh"))


class Characters(nn.Module):
    """Its parameters in the order of ours."""

    def __init__(self):
        super().__init__()
        self.table, self.places = nn.Embedding(V, N), nn.Embedding(T, N)
        self.blocks, self.norm = nn.Sequential(*(Block() for _ in range(BLOCKS))), nn.LayerNorm(N)

    def forward(self, x):
        h = self.table(x) + self.places.weight
        return self.norm(self.blocks(h)) @ self.table.weight.T


def in_our_order(net):
    """Return the parameters of the PyTorch model in the order in which ours lie on θ."""
    named, found = dict(net.named_parameters()), [net.table.weight, net.places.weight]
    inner = ["first.{}", "attention.in_proj_{}", "attention.out_proj.{}", "second.{}", "wide.{}", "narrow.{}"]
    for k in range(BLOCKS):
        found += [named[f"blocks.{k}.{name.format(kind)}"] for name in inner for kind in ("weight", "bias")]
    return [*found, net.norm.weight, net.norm.bias]


def turned(window, array):
    return array.transpose(window.parameter.axes) if window.parameter.axes else array


@lru_cache(maxsize=1)
def plain_torch():
    """Return θ as a vector, and the losses, after the steps of a model in plain PyTorch."""
    net, start = Characters().double(), NET.init(seed=0, backend="numpy", dtype="float64")
    with torch.no_grad():
        for window, parameter in zip(NET.layout, in_our_order(net), strict=True):
            values = start[window.start : window.stop].reshape(window.shape)
            parameter.copy_(torch.from_numpy(turned(window, values).copy()))
    x, y = map(torch.from_numpy, data())
    stepper, losses = torch.optim.Adam(net.parameters(), 1e-2), []
    for batch in torch.from_numpy(random.permutation(0, 0, STEPS * BATCH).astype("int64")).split(BATCH):
        loss = functional.cross_entropy(net(x[batch]).reshape(-1, V), y[batch].reshape(-1))
        stepper.zero_grad()
        loss.backward()
        stepper.step()
        losses.append(loss.item())
    pairs = zip(NET.layout, in_our_order(net), strict=True)
    return np.concatenate([turned(w, p.detach().numpy()).reshape(-1) for w, p in pairs]), np.mean(losses)


def without_key_bias(theta):
    parts = {w.name: theta[w.start : w.stop] for w in NET.layout}
    return np.concatenate([np.delete(p, slice(N, 2 * N)) if "in_proj_bias" in name else p for name, p in parts.items()])


def test_twenty_steps_are_those_of_plain_pytorch(backend, record_property):
    theta, loss = plain_torch()
    model = xn.Model(NET, xn.cross_entropy, xn.Adam(1e-2), backend=backend, dtype="float64")
    start = np.array(backend.asnumpy(model.theta))
    history = model.fit(*data(), epochs=1, batch_size=BATCH, progress=False)
    assert model.state.t == STEPS
    off = np.abs(without_key_bias(backend.asnumpy(model.theta) - theta))
    found = {"theta": np.max(off), "loss": abs(history["loss"][-1] - loss)}
    assert np.linalg.norm(theta - start) > 0.05 * np.linalg.norm(start)  # there was something to agree on
    print(f"{backend.name}: " + ", ".join(f"{k} {v:.1e}" for k, v in found.items()))
    for name, value in found.items():
        record_property(name, float(value))
    assert max(found.values()) <= LIMIT
