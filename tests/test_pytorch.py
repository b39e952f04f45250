"""Every layer and loss beside PyTorch's own, value and gradient, in float64."""

import numpy as np
import pytest

import xpnet as xn
from xpnet.layers import Context

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
F = torch.nn.functional
RNG = np.random.default_rng(11)


def close(backend, actual, expected):
    """Within 1e-10 of the largest number."""
    expected = expected.detach().numpy()
    assert np.max(np.abs(backend.asnumpy(actual) - expected)) <= 1e-10 * max(np.max(np.abs(expected)), 1e-300)


LAYERS = [
    (xn.ReLU(), F.relu),
    (xn.LeakyReLU(), F.leaky_relu),
    (xn.LeakyReLU(0.2), lambda x: F.leaky_relu(x, 0.2)),
    (xn.Tanh(), torch.tanh),
    (xn.Sigmoid(), torch.sigmoid),
    (xn.SiLU(), F.silu),
    (xn.GELU(), lambda x: F.gelu(x, approximate="tanh")),
    (xn.Softmax(), lambda x: F.softmax(x, dim=-1)),
    (xn.Flatten(), torch.nn.Flatten()),
    (xn.Scale(0.1, 2.0), lambda x: 0.1 * x + 2.0),
    (xn.Residual(xn.Tanh()), lambda x: x + torch.tanh(x)),
    (xn.Dropout(0.5), torch.nn.Dropout(0.5).eval()),
]


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
@pytest.mark.parametrize(("layer", "peer"), LAYERS, ids=lambda value: str(value)[:20])
def test_layer(backend, rng, layer, peer, scale):
    x, dy = scale * rng.normal(size=(5, 7)), rng.normal(size=(5, 7))
    y, pullback = layer.forward((), backend.asarray(x), Context(backend))
    dx, _ = pullback(backend.asarray(dy))
    leaf = torch.tensor(x, requires_grad=True)
    out = peer(leaf)
    out.backward(torch.tensor(dy))
    close(backend, y, out)
    close(backend, dx, leaf.grad)


def test_a_whole_network(backend, rng):
    net = xn.Sequential(
        xn.Flatten(),
        xn.Linear(12, 8),
        xn.GELU(),
        xn.Residual(xn.Linear(8, 8, bias=False), xn.SiLU()),
        xn.Linear(8, 3),
    )
    x, labels = rng.normal(size=(6, 3, 4)), rng.integers(0, 3, 6)
    theta = net.init(3, backend, "float64")
    scores, backward = net(theta, backend.asarray(x))
    loss, dscores = xn.cross_entropy(scores, backend.asarray(labels))
    dtheta = net.windows(backward(dscores))

    p = {n: torch.tensor(backend.asnumpy(w).copy(), requires_grad=True) for n, w in net.windows(theta).items()}
    h = F.gelu(torch.tensor(x).flatten(1) @ p["1.weight"] + p["1.bias"], approximate="tanh")
    h = h + F.silu(h @ p["3.0.weight"])
    out = h @ p["4.weight"] + p["4.bias"]
    value = F.cross_entropy(out, torch.tensor(labels))
    value.backward()
    close(backend, scores, out)
    close(backend, loss, value)
    assert list(dtheta) == list(p)
    for name, parameter in p.items():
        close(backend, dtheta[name], parameter.grad)


SIGNS = torch.tensor(np.where(RNG.random((6, 4)) < 0.5, -1.0, 1.0))
NUMBERS = torch.tensor(RNG.normal(size=(6, 4)))
SHARES = torch.tensor(RNG.random((6, 4)))
LABELS = torch.tensor(RNG.integers(0, 4, 6))

LOSSES = [
    (xn.cross_entropy, F.cross_entropy, LABELS),
    (xn.negative_log_likelihood, lambda p, t: F.nll_loss(torch.log(p), t), LABELS),
    (xn.binary_cross_entropy, F.binary_cross_entropy_with_logits, SHARES),
    (xn.mean_squared_error, F.mse_loss, NUMBERS),
    (xn.mean_absolute_error, F.l1_loss, NUMBERS),
    (xn.huber, F.huber_loss, NUMBERS),
    (lambda p, t: xn.huber(p, t, 0.3), lambda p, t: F.huber_loss(p, t, delta=0.3), NUMBERS),
    (xn.hinge, lambda p, t: torch.clamp(1 - t * p, min=0).mean(), SIGNS),
    (xn.perceptron, lambda p, t: F.margin_ranking_loss(p, torch.zeros_like(p), t), SIGNS),
]


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
@pytest.mark.parametrize(("loss", "peer", "target"), LOSSES, ids=[str(k) for k in range(len(LOSSES))])
def test_loss(backend, rng, loss, peer, target, scale):
    p = scale * rng.normal(size=(6, 4))
    if loss is xn.negative_log_likelihood:
        p = rng.random((6, 4)) + 1e-3
    value, gradient = loss(backend.asarray(p), backend.asarray(target.numpy()))
    leaf = torch.tensor(p, requires_grad=True)
    out = peer(leaf, target)
    out.backward()
    close(backend, value, out)
    close(backend, gradient, leaf.grad)
