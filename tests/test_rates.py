"""Parameters that learn or decay at other rates than the rest, by pattern."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

import xpnet as xn
from xpnet.optimizers import Groups, Optimizer
from xpnet.parameters import Parts, split
from xpnet.testing import assert_close

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(24, 4)), np.arange(24) % 2
NET = xn.Sequential(xn.Linear(4, 5), xn.Tanh(), xn.Linear(5, 3), xn.Tanh(), xn.Linear(3, 2))
FACTORS = {"rates": {"0.*": 0.1, "4.*": 3, "4.bias": 0}, "decays": {"2.*": 0.5, "*.bias": 1, "0.bias": 2}}
RATES = {"0.weight": 0.1, "0.bias": 0.1, "2.weight": 1, "2.bias": 1, "4.weight": 3, "4.bias": 0}
DECAYS = {"0.weight": 1, "0.bias": 2, "2.weight": 0.5, "2.bias": 1, "4.weight": 1, "4.bias": 1}
OPTIMIZERS = [
    xn.SGD(0.02, momentum=0.5, weight_decay=0.1, **FACTORS),
    xn.Adam(xn.cosine(0.01, steps=50), weight_decay=0.1, clip_norm=0.5, **FACTORS),
    xn.AdamW(0.01, weight_decay=0.3, **FACTORS),
]
EACH = pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: type(optimizer).__name__)


def classifier(backend, optimizer, **settings):
    return xn.Model(NET, xn.cross_entropy, optimizer, backend=backend, dtype="float64", **settings)


def home(model):
    return np.array(model.backend.asnumpy(model.theta))


def windows(backend, theta):
    return {name: np.array(backend.asnumpy(window)) for name, window in NET.windows(theta).items()}


def torch_groups(torch, o, theta):
    """Return PyTorch's parameters and optimizer, a group for each window."""
    parts = [torch.nn.Parameter(torch.tensor(theta[w.start : w.stop].reshape(w.shape))) for w in NET.layout]
    groups = [
        {"params": [part], "factor": RATES[w.name], "lr": 0.1, "weight_decay": o.weight_decay * DECAYS[w.name]}
        for part, w in zip(parts, NET.layout, strict=True)
    ]
    kinds = {
        "SGD": lambda: torch.optim.SGD(groups, momentum=o.momentum),
        "Adam": lambda: torch.optim.Adam(groups, betas=(o.beta1, o.beta2), eps=o.eps),
        "AdamW": lambda: torch.optim.AdamW(groups, betas=(o.beta1, o.beta2), eps=o.eps),
    }
    return parts, kinds[type(o).__name__]()


@EACH
def test_training_is_that_of_pytorch_with_a_group_for_each_parameter(backend, optimizer):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    model = classifier(backend, optimizer)
    parts, peer = torch_groups(torch, optimizer, home(model))
    model.fit(X, Y, epochs=30, batch_size=24)  # one step an epoch: the order of the samples does not matter
    for t in range(30):
        w1, b1, w2, b2, w3, b3 = parts
        scores = torch.tanh(torch.tanh(torch.tensor(X) @ w1 + b1) @ w2 + b2) @ w3 + b3
        peer.zero_grad()
        torch.nn.functional.cross_entropy(scores, torch.tensor(Y)).backward()
        if optimizer.clip_norm is not None:
            norm = float(torch.sqrt(sum(torch.sum(part.grad**2) for part in parts)))
            torch.nn.utils.clip_grad_norm_(parts, optimizer.clip_norm * (norm + 1e-6) / norm)
        for group in peer.param_groups:
            group["lr"] = optimizer.rate(t) * group["factor"]
        peer.step()
    expected = np.concatenate([part.detach().numpy().reshape(-1) for part in parts])
    assert np.max(np.abs(home(model) - expected)) <= 1e-12


@EACH
def test_flat_and_in_windows_it_is_the_same(backend, optimizer):
    def cut(vector):
        return split(backend.xp, vector, NET.layout)

    start = RNG.normal(size=NET.size)
    flat = backend.asarray(start, copy=True)
    pieces = cut(backend.asarray(start, copy=True))
    memory = optimizer.init(flat, optimizer.treated(NET.layout))
    memories = optimizer.init(pieces, optimizer.treated(NET.layout, flat=False))
    for k in range(3):
        g = np.random.default_rng(k).normal(size=NET.size)
        flat, memory = optimizer.step(flat, backend.asarray(g), memory)
        pieces, memories = optimizer.step(pieces, cut(backend.asarray(g)), memories)
    for one, other in zip(pieces, cut(flat), strict=True):
        assert_close(backend, one, other, scale=4.0)
    after = windows(backend, flat)
    assert np.array_equal(after["4.bias"], start[-2:]), "a factor of 0"


def test_a_factor_for_all_is_another_rate():
    """η and λ are both multiplied, so the bits are those of the products; and a plain optimizer has no groups."""
    all_of_it = xn.AdamW(0.02, weight_decay=0.5, rates={"*": 0.5}, decays={"*": 0.25})
    halves, plain = classifier("numpy", all_of_it), classifier("numpy", xn.AdamW(0.01, weight_decay=0.125))
    plain.optimizer = replace(plain.optimizer, decays={"*": 1})
    for model in (halves, plain):
        model.fit(X, Y, epochs=3, batch_size=8)
    assert np.array_equal(home(halves), home(plain))
    assert isinstance(halves.step.decayed, Groups)
    assert isinstance(classifier("numpy", xn.AdamW()).step.decayed, Parts)


def test_the_last_pattern_that_matches_counts():
    optimizer = xn.SGD(1.0, rates={"*": 0.5, "0.*": 0.25, "*.bias": 2}, decays={"*": 3}, weight_decay=1.0)
    kinds = {window.name: optimizer.kind(window) for window in NET.layout}
    assert kinds["0.weight"] == (0.25, 3.0)
    assert kinds["0.bias"] == kinds["4.bias"] == (2.0, 3.0)
    assert kinds["2.weight"] == (0.5, 3.0)


def test_without_weight_decay_parameters_are_told_apart_by_their_rate_alone():
    optimizer = xn.SGD(1.0, rates={"0.*": 0.5}, decays={"*.bias": 2})
    groups = optimizer.treated(NET.layout)
    assert [parts.places for parts, _ in groups.members] == [(slice(0, 25),), (slice(25, 51),)]
    assert [own.lr for _, own in groups.members] == [0.5, 1.0]


@EACH
def test_what_is_frozen_stays_and_the_rest_has_its_factors(backend, optimizer):
    model, expected = classifier(backend, optimizer, frozen=["2.*", "0.weight"]), classifier("numpy", optimizer)
    before = windows(backend, model.theta)
    model.fit(X, Y, epochs=2, batch_size=8)
    after = windows(backend, model.theta)
    still = {name for name in before if np.array_equal(before[name], after[name])}
    assert still == {"2.weight", "2.bias", "0.weight", "4.bias"}  # the last has a factor of 0
    expected.frozen = ["2.*", "0.weight"]
    expected.fit(X, Y, epochs=2, batch_size=8)
    assert np.max(np.abs(home(model) - home(expected))) <= 1e-12


@EACH
def test_a_gradient_that_is_not_finite_changes_no_bit(backend, optimizer):
    theta = backend.asarray(RNG.normal(size=NET.size), copy=True)
    memory = optimizer.init(theta, optimizer.treated(NET.layout))
    theta, memory = optimizer.step(theta, backend.asarray(np.ones(NET.size)), memory)
    before = [np.array(backend.asnumpy(vector)) for vector in (theta, *memory.slots)]
    bad = np.ones(NET.size)
    bad[30] = np.nan
    with np.errstate(invalid="ignore"):
        theta, memory = optimizer.step(theta, backend.asarray(bad), memory)
    for one, other in zip((theta, *memory.slots), before, strict=True):
        assert np.array_equal(backend.asnumpy(one), other)


def cubic_rule(xp, theta, g, rate):
    theta -= rate * (g * g * g)
    return (theta,)


@dataclass(frozen=True)
class Cubic(Optimizer):
    """θ ← θ − η g³, of which nobody has said how far it goes."""

    @property
    def rule(self):
        return cubic_rule


def test_a_rule_of_ones_own_has_factors_too(backend):
    optimizer = Cubic(0.5, rates={"0.*": 2})
    theta = backend.asarray(np.zeros(NET.size), copy=True)
    memory = optimizer.init(theta, optimizer.treated(NET.layout))
    theta, memory = optimizer.step(theta, backend.asarray(np.ones(NET.size)), memory)
    assert_close(backend, theta, np.where(np.arange(NET.size) < 25, -1.0, -0.5))
    with np.errstate(over="ignore", invalid="ignore"):
        theta, memory = optimizer.step(theta, backend.asarray(np.full(NET.size, 1e150)), memory)
    assert_close(backend, theta, np.where(np.arange(NET.size) < 25, -1.0, -0.5))


def test_factors_can_be_adjusted_and_hold_from_the_next_step_on(backend):
    model = classifier(backend, xn.AdamW(0.01))
    model.fit(X, Y, batch_size=8)
    before = windows(backend, model.theta)
    model.adjust(rates={"0.*": 0, "2.*": 0})
    model.fit(X, Y, batch_size=8)
    after = windows(backend, model.theta)
    assert {name for name in before if np.array_equal(before[name], after[name])} == set(before) - {
        "4.weight",
        "4.bias",
    }
    model.adjust(rates={})
    model.fit(X, Y, batch_size=8)
    assert not any(np.array_equal(after[name], window) for name, window in windows(backend, model.theta).items())


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: xn.Adam(rates={"0.*": -1}), r'^Adam: rates\["0\.\*"\] must be a number of at least 0\.0, got -1$'),
        (lambda: xn.Adam(decays={"*": np.nan}), r'^Adam: decays\["\*"\] must be a number of at least 0\.0, got nan$'),
        (
            lambda: xn.SGD(0.1, rates=0.1),
            r'^SGD: rates must be a dict of factors, such as \{"0\.\*": 0\.1\}, got 0\.1',
        ),
        (lambda: xn.SGD(0.1, rates={0: 0.1}), r"^SGD: rates must be a dict of factors, .*, got \{0: 0\.1\}$"),
        (lambda: xn.SGD(0.1, rates=["0.*"]), r"^SGD: rates must be a dict of factors, .*, got \['0\.\*'\]$"),
        (
            lambda: classifier("numpy", xn.Adam(rates={"0.*": 1, "7.*": 0.1})),
            r'^rates: "7\.\*" matches no parameter: there are 0\.weight, .*, 4\.bias$',
        ),
        (
            lambda: classifier("numpy", xn.Adam(decays={"bias": 0.1})),
            r'^decays: "bias" matches no parameter: there are 0\.weight, .*, 4\.bias$',
        ),
        (
            lambda: xn.Adam(rates={"0.*": 1}).init(np.zeros(3), NET.decayed()),
            r"^Adam: rates and decays name parameters of a network: call init\(theta, optimizer\.treated\(net\.lay",
        ),
        (
            lambda: classifier("numpy", xn.AdamW(2.0, weight_decay=0.1, rates={"0.*": 10})),
            r"^AdamW: lr=2\.0 is too large for theta, at most 1: take a smaller one$",
        ),
        (
            lambda: classifier("numpy", xn.AdamW(2.0, weight_decay=0.1, decays={"0.*": 10})),
            r"^AdamW: lr=2\.0 is too large for theta, at most 1: take a smaller one$",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_pairs_do_as_well_as_a_dict_and_are_what_is_kept():
    assert xn.SGD(0.1, rates=[("0.*", 2)]) == xn.SGD(0.1, rates={"0.*": 2.0})
    assert xn.SGD(0.1, rates={"0.*": np.float32(0.5)}).rates == (("0.*", 0.5),)
