"""The microscope: its numbers against their definitions, its words, and that it changes nothing."""

import math
import re

import numpy as np
import pytest

import xpnet as xn
from xpnet.errors import DataError, ShapeError
from xpnet.look.microscope import QUANTITIES, Microscope

RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 6)).astype(np.float32)
Y = (X[:, 0] * X[:, 1] > 0).astype(np.int64)


def network(activation=xn.ReLU, **options):
    hidden = xn.Linear(6, 10, **options)
    return xn.Sequential(hidden, activation(), xn.Dropout(0.2), xn.Linear(10, 8), xn.Tanh(), xn.Linear(8, 2))


def train(backend, net=None, optimizer=None, callbacks=(), epochs=3, **options):
    model = xn.Model(net or network(), xn.cross_entropy, optimizer or xn.Adam(0.01), backend=backend)
    history = model.fit(X, Y, epochs, 16, callbacks=callbacks, progress=False, **options)
    return model, history


def seen(**options):
    scope = Microscope(X, Y, say=None)
    train("numpy", callbacks=[scope], **options)
    return scope


@pytest.mark.parametrize(
    "optimizer",
    [xn.SGD(0.1), xn.SGD(0.1, momentum=0.9, clip_norm=0.1), xn.Adam(0.01), xn.AdamW(0.01, weight_decay=0.1)],
)
def test_training_is_the_same_bits_with_and_without(backend, optimizer):
    plain = train(backend, optimizer=optimizer)
    watched = train(backend, optimizer=optimizer, callbacks=[Microscope(X, Y, say=None)])
    for a, b in ((plain[0].theta, watched[0].theta), *zip(plain[0].state.slots, watched[0].state.slots, strict=True)):
        for one, other in zip(*((v if isinstance(v, tuple) else (v,)) for v in (a, b)), strict=True):
            assert np.array_equal(backend.asnumpy(one), backend.asnumpy(other))
    assert plain[1]["loss"] == watched[1]["loss"]


def test_one_record_for_every_epoch_and_layer():
    scope = seen()
    assert scope.epochs == [0, 1, 2, 3]
    assert list(scope.of("max_weight")) == ["0.weight", "3.weight", "5.weight"]
    assert list(scope.of("dead")) == ["1"]
    assert list(scope.of("saturated")) == ["4"]
    assert all(len(values) == 4 for name in QUANTITIES for values in scope.of(name).values())


def test_numbers_are_what_their_names_say(backend):
    wide = xn.Linear(5, 4, initializer=lambda rng, shape: rng.normal(0.0, 3.0, shape))
    net = xn.Sequential(xn.Linear(6, 5), xn.ReLU(), wide, xn.Sigmoid(), xn.Linear(4, 2))
    optimizer = xn.SGD(xn.cosine(0.3, steps=6))
    scope = Microscope(X, Y, say=None)
    model = train(backend, net, optimizer, [scope], epochs=2)[0]
    theta, x = model.theta, backend.asarray(X)
    outputs = {}
    scores, backward = net(theta, x, watch=outputs.__setitem__)
    gradients = net.windows(backward(xn.cross_entropy(scores, backend.asarray(Y))[1]))
    home = {path: backend.asnumpy(output) for path, output in outputs.items()}
    for path in ("0.weight", "2.weight", "4.weight"):
        w, g = backend.asnumpy(net.windows(theta)[path]), backend.asnumpy(gradients[path])
        assert scope.of("max_weight")[path][-1] == pytest.approx(np.abs(w).max())
        assert scope.of("gradient_norm")[path][-1] == pytest.approx(np.linalg.norm(g), rel=1e-5)
        ratio = optimizer.rate(5) * np.linalg.norm(g) / np.linalg.norm(w)
        assert scope.of("update_ratio")[path][-1] == pytest.approx(ratio, rel=1e-3)
    assert scope.of("dead")["1"][-1] == pytest.approx((home["1"].max(axis=0) == 0).mean())
    flat = home["3"] * (1 - home["3"]) < 0.25 * (1 - 0.975**2)
    assert scope.of("saturated")["3"][-1] == pytest.approx(flat.mean())
    assert min(flat[home["3"] < 0.5].mean(), flat[home["3"] > 0.5].mean()) > 0


def test_a_second_fit_continues_and_another_model_starts_afresh():
    scope = Microscope(X, Y, say=None)
    model = train("numpy", callbacks=[scope], epochs=2)[0]
    model.fit(X, Y, 1, callbacks=[scope], progress=False)
    assert scope.epochs == [0, 1, 2, 3]
    model.fit(X, Y, 1, progress=False)
    model.fit(X, Y, 1, callbacks=[scope], progress=False)
    assert scope.epochs == [0, 1, 2, 3, 4, 5]
    train("numpy", callbacks=[scope], epochs=1)
    assert scope.epochs == [0, 1]


def test_an_untrained_look_is_not_kept_for_another_model():
    scope = Microscope(X, Y, say=None)
    for seed in (0, 1):
        model = xn.Model(network(), xn.cross_entropy, xn.SGD(0.1), seed, "numpy")
        scope.on_train_begin(model)
        assert scope.epochs == [0]
        assert scope.of("max_weight")["0.weight"] == [np.abs(model.net.windows(model.theta)["0.weight"]).max()]


def dying(rng, shape):
    """All weights −1: with positive inputs every ReLU is dead."""
    return -np.ones(shape)


def test_dead_relus_are_told():
    scope = Microscope(np.abs(X), Y, say=None)
    model = xn.Model(network(initializer=dying), xn.cross_entropy, xn.SGD(0.01), backend="numpy")
    model.fit(np.abs(X), Y, 2, callbacks=[scope], progress=False)
    text = "layer 1: 100 % of the ReLUs are dead from the start; lower the learning rate or use He initialisation"
    assert text in scope.findings()


def test_dead_since_an_epoch():
    scope = seen()
    scope.records["dead"]["1"] = [0.0, 0.5, 0.02, 0.38]
    assert scope.findings()[0].startswith("layer 1: 38 % of the ReLUs are dead since epoch 3; ")
    scope.records["dead"]["1"] = [0.0, 0.3, 0.31, 0.38]
    assert "since epoch 1;" in scope.findings()[0]


def test_saturated_units_are_told():
    def huge(rng, shape):
        return rng.normal(0.0, 50.0, shape)

    for activation, word in ((xn.Tanh, "tanh"), (xn.Sigmoid, "sigmoid")):
        words = str(seen(net=network(activation, initializer=huge)))
        assert re.search(rf"layer 1: \d+ % of the {word} outputs are saturated from the start; scale the input", words)


def test_fading_gradients_are_told():
    layers = [part for _ in range(8) for part in (xn.Linear(6, 6), xn.Sigmoid())]
    words = seen(net=xn.Sequential(*layers, xn.Linear(6, 2)), optimizer=xn.SGD(0.01)).findings()
    assert re.match(r"layer 0: its gradient is [\d.e-]+ % of the last layer's, so it hardly learns; use ReLU", words[0])


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        (30.0, "lower the learning rate"),
        (1e-7, r"no step changes the weights by more than .*e-.* %, about 0.1 % is healthy; raise the learning rate"),
    ],
)
def test_learning_rates_far_off_are_told(rate, words):
    assert re.search(words, str(seen(optimizer=xn.SGD(rate))))


def test_growth_of_the_weights_and_of_the_gradient_is_told():
    scope = seen()
    scope.records["max_weight"]["3.weight"] = [0.1, 0.5, 1.0, 3.2]
    scope.records["gradient_norm"]["5.weight"] = [0.1, 0.5, 1.0, 320.0]
    assert "layer 3: max |W| grew from 0.1 to 3.2; use weight_decay or lower the learning rate" in scope.findings()
    text = "layer 5: its gradient norm grew from 0.1 to 3.2e+02; lower the learning rate or set clip_norm"
    assert text in scope.findings()


def test_a_healthy_run_is_called_so():
    scope = seen(optimizer=xn.SGD(0.01))
    assert str(scope) == "nothing unusual: gradients reach every layer and the units are alive"


def test_weights_that_start_at_zero():
    scope = seen(net=xn.Linear(6, 2, initializer="zeros"), optimizer=xn.SGD(0.01))
    assert scope.of("update_ratio")["weight"][0] == math.inf
    assert scope.of("max_weight")["weight"][0] == 0.0
    assert "grew" not in str(scope)


def test_it_speaks_at_the_end_of_training():
    said = []
    train("numpy", callbacks=[Microscope(X, Y, say=said.append)])
    assert len(said) == 1
    assert said[0]


def test_wrong_use_is_told_in_one_line():
    with pytest.raises(DataError, match="has seen nothing yet: pass callbacks="):
        Microscope(X, Y).of("dead")
    with pytest.raises(DataError, match='does not record "death": choose one of max_weight, gradient_norm'):
        Microscope(X, Y).of("death")
    with pytest.raises(ShapeError, match=r"expects input \(N, 6\), got \(48, 5\)"):
        train("numpy", callbacks=[Microscope(X[:, :5], Y)])
