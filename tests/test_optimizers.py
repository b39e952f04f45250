import math
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xpnet as xn
from xpnet.backends.base import Backend
from xpnet.backends.numpy import NumpyBackend
from xpnet.parameters import Parts
from xpnet.testing import assert_close

DTYPES = ["float32", "float64"]

SETTINGS = [
    xn.SGD(0.1),
    xn.SGD(0.1, weight_decay=0.05),
    xn.SGD(0.1, momentum=0.9),
    xn.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.05),
    xn.SGD(xn.cosine(0.1, steps=80), momentum=0.5, clip_norm=0.5),
    xn.RMSProp(),
    xn.RMSProp(0.01, alpha=0.9, eps=1e-6, weight_decay=0.1, clip_norm=1.0),
    xn.Adam(),
    xn.Adam(0.01, beta1=0.8, beta2=0.95, weight_decay=0.1),
    xn.Adam(xn.warmup(0.01, steps=10), clip_norm=0.3),
    xn.AdamW(),
    xn.AdamW(0.01, weight_decay=0.3, clip_norm=2.0),
    xn.AdamW(0.01, weight_decay=0.0),
    xn.Adam(0.05, beta2=0.9, amsgrad=True, clip_norm=0.3),
    xn.AdamW(xn.cosine(0.01, steps=80), weight_decay=0.3, amsgrad=True),
    xn.NAdam(),
    xn.NAdam(0.02, beta1=0.8, beta2=0.95, momentum_decay=0.3, weight_decay=0.1, clip_norm=0.5),
    xn.NAdam(xn.warmup(0.01, steps=10), momentum_decay=0.0),
    xn.Adagrad(),
    xn.Adagrad(0.1, eps=1e-6, weight_decay=0.1, clip_norm=1.0),
    xn.Adagrad(lambda t: 0.1 / (1 + 0.05 * t)),
    xn.Lion(0.003),
    xn.Lion(xn.cosine(0.01, steps=80), beta1=0.8, beta2=0.95, weight_decay=0.3, clip_norm=0.5),
]
EACH = pytest.mark.parametrize("optimizer", SETTINGS, ids=lambda one: str(one).partition("0x")[0])


def own(backend, host, dtype="float64"):
    return backend.asarray(host, dtype=dtype, copy=True)


def hosts(n, seed=0, count=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=n) if count == 1 else [rng.normal(size=n) for _ in range(count)]


def home(backend, state):
    return [np.array(backend.asnumpy(slot)) for slot in state.slots]


# Against PyTorch, 100 steps


def torch_optimizer(torch, optimizer, parameter):
    o, name = optimizer, type(optimizer).__name__
    if name == "SGD":
        return torch.optim.SGD([parameter], 0.0, o.momentum, 0.0, o.weight_decay, o.nesterov)
    if name == "RMSProp":
        return torch.optim.RMSprop([parameter], 0.0, o.alpha, o.eps, o.weight_decay)
    if name == "Adagrad":
        return torch.optim.Adagrad([parameter], 0.0, weight_decay=o.weight_decay, eps=o.eps)
    if name == "Lion":
        return lion(torch, o, parameter)
    betas = (o.beta1, o.beta2)
    if name == "NAdam":
        return torch.optim.NAdam([parameter], 0.0, betas, o.eps, o.weight_decay, o.momentum_decay)
    return getattr(torch.optim, name)([parameter], 0.0, betas, o.eps, o.weight_decay, o.amsgrad)


def lion(torch, o, parameter):
    """Return Lion for PyTorch, which has none: the paper's program, as it is printed there."""

    class Lion(torch.optim.Optimizer):
        @torch.no_grad()
        def step(self):
            lr, g = self.param_groups[0]["lr"], parameter.grad
            m = self.state[parameter].setdefault("m", torch.zeros_like(g))
            update = torch.sign(o.beta1 * m + (1 - o.beta1) * g) + o.weight_decay * parameter
            m.copy_(o.beta2 * m + (1 - o.beta2) * g)
            parameter.sub_(lr * update)

    return Lion([parameter], {"lr": 0.0})


@contextmanager
def double(torch):
    """Let PyTorch keep its own scalars in float64: NAdam's product of momenta is float32 else."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def gradient(theta):
    """Return the gradient of a bent valley: curvatures from 0.01 to 4, and waves."""
    return np.linspace(0.01, 4.0, theta.size) * theta + np.sin(3.0 * np.roll(theta, 1))


@EACH
def test_the_same_100_steps_as_pytorch(backend, optimizer):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    start = hosts(20)
    theta = own(backend, start)
    state = optimizer.init(theta)
    parameter = torch.nn.Parameter(torch.tensor(start))
    peer = torch_optimizer(torch, optimizer, parameter)
    for t in range(100):
        theta, state = optimizer.step(theta, backend.asarray(gradient(backend.asnumpy(theta))), state)
        parameter.grad = torch.tensor(gradient(parameter.detach().numpy()))
        if optimizer.clip_norm is not None:
            norm = float(parameter.grad.norm())
            limit = optimizer.clip_norm * (norm + 1e-6) / norm  # PyTorch divides by norm + 1e-6
            torch.nn.utils.clip_grad_norm_([parameter], limit)
        peer.param_groups[0]["lr"] = optimizer.rate(t)
        with double(torch):
            peer.step()
    expected = parameter.detach().numpy()
    tolerance = 1e-10 if getattr(optimizer, "momentum", 0) == 0.9 else 1e-12  # the valley throws it far, both ways
    assert np.max(np.abs(backend.asnumpy(theta) - expected)) <= tolerance * np.max(np.abs(expected))
    assert state.t == 100


# Against the plain form


@pytest.mark.parametrize("dtype", DTYPES)
@EACH
def test_map_gives_what_the_plain_form_gives(backend, optimizer, dtype):
    n = 3 * 8192 + 5  # more than one block
    moments = optimizer.moments
    rule, plain = optimizer.rule, Backend._map(backend, optimizer.rule)
    state = [np.abs(h) for h in hosts(n, 1, 1 + moments)] if moments else [hosts(n, 1)]
    inputs = [hosts(n, 2)]
    fast = tuple(own(backend, s, dtype) for s in state)
    slow = tuple(own(backend, s, dtype) for s in state)
    given = tuple(backend.asarray(i, dtype=dtype) for i in inputs)
    for t in range(3):
        fast = backend.map(rule)(fast, given, optimizer.scalars(t))
        slow = plain(slow, given, optimizer.scalars(t))
    assert len(fast) == 1 + moments
    for a, b in zip(fast, slow, strict=True):
        assert a.dtype == b.dtype == getattr(backend.xp, dtype)
        assert_close(backend, a, b, multiple=4)


@EACH
def test_numpy_without_numba_maps_block_by_block(monkeypatch, optimizer):
    monkeypatch.setattr("xpnet.backends.numpy.fuse", lambda *shape: lambda *arguments: False)
    monkeypatch.setattr("xpnet.backends.numpy.BLOCK", 8192)
    test_map_gives_what_the_plain_form_gives(NumpyBackend(), optimizer, "float32")


@EACH
def test_float32_follows_float64(backend, optimizer):
    thetas = []
    for dtype in DTYPES:
        theta = own(backend, hosts(50), dtype)
        state = optimizer.init(theta)
        for k in range(20):
            theta, state = optimizer.step(theta, backend.asarray(hosts(50, k), dtype=dtype), state)
        thetas.append(theta)
    assert_close(backend, thetas[0], backend.asnumpy(thetas[1]), multiple=100)


# State


def test_state_is_the_step_and_vectors_like_theta(backend):
    theta = own(backend, hosts(7), "float32")
    counts = {xn.SGD(0.1): 0, xn.SGD(0.1, momentum=0.9): 1, xn.RMSProp(): 1, xn.Adam(): 2, xn.Adam(amsgrad=True): 3}
    for optimizer, slots in (counts | {xn.NAdam(): 2, xn.Adagrad(): 1, xn.Lion(): 1}).items():
        state = optimizer.init(theta)
        assert state.t == 0
        assert len(state.slots) == slots
        for slot in state.slots:
            assert_close(backend, slot, np.zeros(7, "float32"), multiple=0)
            assert slot.dtype == theta.dtype
            assert backend.owns(slot)
    assert len(xn.AdamW().init(theta).slots) == 2, "what decays needs no vector"
    _, state = xn.Adam().step(theta, backend.asarray(hosts(7), dtype="float32"), xn.Adam().init(theta))
    assert state.t == 1


def test_adams_first_step_is_the_learning_rate(backend):
    theta, _ = xn.Adam(0.5).step(
        own(backend, [1.0, 1.0]), backend.asarray([3.0, -200.0]), xn.Adam().init(own(backend, [1.0, 1.0]))
    )
    assert_close(backend, theta, [0.5, 1.5], multiple=2**28)  # ε = 1e-8 beside |g| ≥ 3: 3e-9


def test_the_gradient_is_not_modified(backend):
    for optimizer in SETTINGS:
        theta, g = own(backend, hosts(9)), own(backend, hosts(9, 1))
        optimizer.step(theta, g, optimizer.init(theta, Parts((slice(2, 5),))))
        assert_close(backend, g, hosts(9, 1), multiple=0)


@pytest.mark.parametrize(
    "optimizer", [xn.SGD(0.1, weight_decay=0.5), xn.RMSProp(weight_decay=0.5), xn.AdamW(weight_decay=0.5)]
)
def test_weight_decay_acts_on_the_parts_that_are_decayed(backend, optimizer):
    theta, g = own(backend, [2.0, 2.0]), backend.asarray([0.0, 0.0])
    theta, memory = optimizer.step(theta, g, optimizer.init(theta, Parts((slice(0, 1),))))
    values = np.array(backend.asnumpy(theta))
    assert values[0] < 2.0
    assert values[1] == 2.0
    theta, _ = optimizer.step(theta, g, memory)
    later = backend.asnumpy(theta)
    assert later[0] < values[0]
    assert later[1] == 2.0
    both, _ = optimizer.step(own(backend, [2.0, 2.0]), g, optimizer.init(own(backend, [2.0, 2.0])))
    assert_close(backend, both, [values[0], values[0]], multiple=0)


# A gradient that is not finite


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@EACH
def test_a_gradient_that_is_not_finite_changes_no_bit(backend, optimizer, bad):
    theta = own(backend, hosts(30))
    state = optimizer.init(theta)
    for k in range(3):
        theta, state = optimizer.step(theta, backend.asarray(hosts(30, k)), state)
    before = [np.array(backend.asnumpy(theta)), *home(backend, state)]
    g = hosts(30, 9)
    g[17] = bad
    with np.errstate(invalid="ignore"):  # clipping, and the plain form, compute ∞·0 and ∞/∞ before it is thrown away
        theta, state = optimizer.step(theta, backend.asarray(g), state)
    for a, b in zip([backend.asnumpy(theta), *home(backend, state)], before, strict=True):
        assert a.tobytes() == b.tobytes()
    theta, _ = optimizer.step(theta, backend.asarray(hosts(30, 4)), state)
    assert np.all(np.isfinite(backend.asnumpy(theta)))
    assert not np.array_equal(backend.asnumpy(theta), before[0])


def test_once_dead_nothing_moves(backend):
    optimizer = xn.Adam()
    theta = own(backend, hosts(5))
    slots = optimizer.init(theta).slots
    bad = backend.asarray([0.0, math.nan, 0.0, 0.0, 0.0])
    update = optimizer.update(theta, bad, slots, optimizer.scalars(0))
    assert not backend.asnumpy(update.alive)
    update = optimizer.update(update.theta, backend.asarray(hosts(5)), update.slots, optimizer.scalars(1), update.alive)
    assert not backend.asnumpy(update.alive)
    assert_close(backend, update.theta, hosts(5), multiple=0)
    assert_close(backend, update.norm, np.asarray(np.linalg.norm(hosts(5))))


def test_a_gradient_whose_square_overflows_is_not_finite_to_the_norm(backend):
    """The norm is what is looked at; in float32 it is infinite from 1.8e19 on, and the step is left out."""
    theta = own(backend, [1.0, 1.0], "float32")
    with np.errstate(over="ignore"):  # NumPy warns of g·g = ∞, which is the point
        theta, _ = xn.SGD(0.1).step(theta, backend.asarray([1e20, 0.0], dtype="float32"), xn.SGD(0.1).init(theta))
    assert_close(backend, theta, [1.0, 1.0], multiple=0)


# Clipping


@given(st.lists(st.floats(-1e3, 1e3), min_size=4, max_size=4), st.floats(0.01, 100.0))
def test_clipping_keeps_the_direction_and_bounds_the_norm(backend, g, limit):
    g = np.asarray(g)
    norm = np.linalg.norm(g)
    theta, _ = xn.SGD(1.0, clip_norm=limit).step(
        own(backend, np.zeros(4)), backend.asarray(g), xn.SGD(1.0).init(own(backend, g))
    )
    expected = -g if norm <= limit else -g * (limit / norm)
    assert_close(backend, theta, expected, scale=max(1.0, min(norm, limit)))


def test_the_norm_reported_is_that_before_clipping(backend):
    optimizer = xn.SGD(1.0, clip_norm=0.1)
    update = optimizer.update(own(backend, [0.0, 0.0]), own(backend, [3.0, 4.0]), (), optimizer.scalars(0))
    assert_close(backend, update.norm, np.asarray(5.0))
    assert backend.asnumpy(update.alive)


# θ as the tuple of its windows


@EACH
def test_windows_of_theta_are_updated_as_the_flat_vector_is(backend, optimizer):
    net = xn.Sequential(xn.Linear(3, 2), xn.Linear(2, 2))

    def split(vector):
        return tuple(xn.parameters.split(backend.xp, vector, net.layout))

    flat = own(backend, hosts(net.size))
    pieces = split(own(backend, hosts(net.size)))
    state, states = optimizer.init(flat, net.decayed()), optimizer.init(pieces, net.decayed(flat=False))
    for k in range(3):
        g = backend.asarray(hosts(net.size, k))
        flat, state = optimizer.step(flat, g, state)
        pieces, states = optimizer.step(pieces, split(g), states)
    assert isinstance(pieces, tuple)
    for a, b in zip(pieces, split(flat), strict=True):
        assert_close(backend, a, b, scale=4.0)


# Errors


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: xn.SGD(-0.1), "SGD: lr must be a number of at least 0.0, got -0.1"),
        (lambda: xn.SGD(math.nan), "SGD: lr must be a number of at least 0.0, got nan"),
        (lambda: xn.SGD(math.inf), "SGD: lr must be a finite number of at least 0.0, got inf"),
        (lambda: xn.SGD(0.1, momentum=1.0), "SGD: momentum must be a number of at least 0.0 and below 1.0, got 1.0"),
        (lambda: xn.SGD(0.1, nesterov=True), "SGD: nesterov=True needs a momentum above 0, such as 0.9"),
        (lambda: xn.SGD(0.1, weight_decay=-1.0), "SGD: weight_decay must be a number of at least 0.0, got -1.0"),
        (lambda: xn.RMSProp(alpha=1.5), "RMSProp: alpha must be a number of at least 0.0 and below 1.0, got 1.5"),
        (lambda: xn.Adam(beta2=1.0), "Adam: beta2 must be a number of at least 0.0 and below 1.0, got 1.0"),
        (lambda: xn.Adam(eps=-1e-8), "Adam: eps must be a number above 0.0, got -1e-08"),
        (lambda: xn.Adam(amsgrad=1), "Adam: amsgrad must be True or False, got 1"),
        (lambda: xn.NAdam(momentum_decay=-1), "NAdam: momentum_decay must be a number of at least 0.0, got -1"),
        (lambda: xn.Adagrad(eps=0), "Adagrad: eps must be a number above 0.0, got 0"),
        (lambda: xn.Lion(beta2=1), "Lion: beta2 must be a number of at least 0.0 and below 1.0, got 1"),
        (lambda: xn.AdamW(clip_norm=0), "AdamW: clip_norm must be a number above 0.0, got 0"),
        (lambda: xn.AdamW(clip_norm=-1.0), "AdamW: clip_norm must be a number above 0.0, got -1.0"),
    ],
)
def test_bad_settings(make, text):
    with pytest.raises(ValueError, match=text.replace("(", r"\(")):
        make()


def test_a_list_for_theta_is_named():
    with pytest.raises(TypeError, match=r"expected an array, got a list: make one with backend\.asarray"):
        xn.SGD(0.1).init([1.0, 2.0])
