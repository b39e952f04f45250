import threading

import numpy as np
import pytest

import xpnet as xn
from xpnet import random
from xpnet.data import batches
from xpnet.errors import DataWarning
from xpnet.testing import assert_close

NET = xn.Sequential(xn.Linear(2, 8), xn.Tanh(), xn.Linear(8, 3))


def blobs(n=60, dtype="float32"):
    """Three heaps of points in the plane, which a small network tells apart."""
    rng = np.random.default_rng(5)
    labels = np.arange(n) % 3
    centre = np.asarray([[0.0, 1.5], [1.3, -0.7], [-1.3, -0.7]])
    return (centre[labels] + rng.normal(0, 0.2, (n, 2))).astype(dtype), labels


def home(model):
    return np.array(model.backend.asnumpy(model.theta))


def classifier(backend, optimizer=None, net=NET, **settings):
    return xn.Model(net, xn.cross_entropy, optimizer or xn.SGD(0.3, momentum=0.9), backend=backend, **settings)


# Learning


def test_fit_learns_blobs_and_says_so(backend):
    x, labels = blobs()
    model = classifier(backend, xn.Adam(0.05), metrics=["accuracy", xn.metrics.zero_one])
    before = model.evaluate(x, labels)
    history = model.fit(x, labels, epochs=8, batch_size=16, validation=0.25)
    after = model.evaluate(x, labels)
    assert before["loss"] > 0.8
    assert after["loss"] < 0.1
    assert (after["accuracy"], after["zero_one"]) == (1.0, 0.0)
    keys = ["epoch", "loss", "gradient_norm", "accuracy", "zero_one", "learning_rate", "max_weight", "seconds"]
    assert list(history) == [*keys, "val_loss", "val_accuracy", "val_zero_one"]
    assert {len(values) for values in history.values()} == {8}
    assert all(type(value) in (int, float) for values in history.values() for value in values)
    assert history["loss"][-1] < history["loss"][0] / 4
    assert history["val_accuracy"][-1] == 1.0
    assert history["epoch"] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert min(history["seconds"]) > 0
    assert history.stopped is None


def test_fit_learns_xor(backend):
    x = [[0, 0], [0, 1], [1, 0], [1, 1]]
    net = xn.Sequential(xn.Linear(2, 8), xn.Tanh(), xn.Linear(8, 1))
    model = xn.Model(net, xn.binary_cross_entropy, xn.Adam(0.1), backend=backend, metrics=["accuracy"])
    model.fit(x, [0, 1, 1, 0], epochs=60, batch_size=4)
    assert model.evaluate(x, [0, 1, 1, 0])["accuracy"] == 1.0
    assert np.sign(model.predict(x)).reshape(-1).tolist() == [-1, 1, 1, -1]


def test_fit_goes_on_where_it_stopped(backend):
    x, labels = blobs(12)
    model = classifier(backend, xn.SGD(xn.step_decay(0.5, every=3)))
    first = model.fit(x, labels, epochs=2, batch_size=6)
    second = model.fit(x, labels, epochs=1, batch_size=6)
    assert (first["epoch"], second["epoch"], model.epoch, model.state.t) == ([1, 2], [3], 3, 6)
    assert first["learning_rate"] + second["learning_rate"] == pytest.approx([0.5, 0.05, 0.05], rel=1e-12)
    whole = classifier(backend, xn.SGD(xn.step_decay(0.5, every=3)))
    whole.fit(x, labels, epochs=3, batch_size=6)
    assert np.array_equal(home(model), home(whole))


# Batches and their order


@pytest.mark.parametrize("size", [5, 23, 100])
def test_each_sample_is_visited_once_an_epoch_in_its_batch(backend, size):
    # Sample i has the one feature i, so after an epoch from zero weights w_i = η · 2 t_i / (size of i's batch).
    n = 23
    target = np.arange(1.0, n + 1)
    net = xn.Linear(n, 1, bias=False, initializer="zeros")
    model = xn.Model(net, xn.mean_squared_error, xn.SGD(0.5), backend=backend, dtype="float64")
    model.fit(np.eye(n), target, epochs=1, batch_size=size)
    order = random.permutation(0, 0, n)
    expected = np.zeros(n)
    for start in range(0, n, size):
        batch = order[start : start + size]
        expected[batch] = target[batch] / len(batch)
    assert_close(backend, model.theta, expected)
    assert model.state.t == -(-n // size)


def test_the_order_is_new_each_epoch_and_the_same_bits_everywhere(backend, monkeypatch):
    orders = []
    whole = batches.batches
    monkeypatch.setattr(batches, "batches", lambda order, *rest: whole(orders.append(order.tolist()) or order, *rest))
    x, labels = blobs(6)
    classifier(backend, seed=3).fit(x, labels, epochs=3, batch_size=6)
    assert orders == [[1, 0, 4, 2, 5, 3], [3, 1, 2, 5, 0, 4], [0, 2, 3, 5, 1, 4]]


def test_one_seed_gives_the_same_bits_twice_and_another_gives_others(backend):
    x, labels = blobs(20)
    thetas = []
    for seed in (7, 7, 8):
        model = classifier(backend, seed=seed)
        model.fit(x, labels, epochs=2, batch_size=8)
        thetas.append(home(model))
    assert np.array_equal(thetas[0], thetas[1])
    assert not np.array_equal(thetas[0], thetas[2])


@pytest.mark.parametrize("full", [1, 2, 60, 64, 67, 128, 469])
@pytest.mark.parametrize("rest", [0, 3])
@pytest.mark.parametrize(("size", "most"), [(10, 256), (10**7, 83), (10**8, 64)])
def test_batches_are_blocks_of_steps_and_small_steps_come_in_larger_ones(full, rest, size, most):
    order = np.random.default_rng(0).permutation(full * 4 + rest)
    blocks = list(batches.batches(order, 4, size))
    assert np.array_equal(np.concatenate([block.reshape(-1) for block in blocks]), order)
    assert all(block.shape[1] == 4 and block.shape[0] <= most for block in blocks[: len(blocks) - bool(rest)])
    assert not rest or blocks[-1].shape == (1, rest)
    assert len(blocks) <= -(-full // most) * 4 + bool(rest)


def test_k_steps_in_one_call_are_k_single_steps(backend, monkeypatch):
    x, labels = blobs(40)
    net = xn.Sequential(xn.Linear(2, 8), xn.Tanh(), xn.Dropout(0.3), xn.Linear(8, 3))
    thetas, losses = [], []
    for steps in (64, 1):
        monkeypatch.setattr(batches, "steps_per_call", lambda full, most, steps=steps: steps)
        model = classifier(backend, xn.AdamW(xn.cosine(0.05, 10), clip_norm=0.5), net, dtype="float64")
        losses.append(model.fit(x, labels, epochs=1, batch_size=4)["loss"][0])
        thetas.append(home(model))
    assert np.max(np.abs(thetas[0] - thetas[1])) <= (1e-14 if backend.name == "jax" else 0.0)
    assert losses[0] == pytest.approx(losses[1], rel=1e-13)


# Validation


def test_held_out_samples_are_never_trained_on(backend):
    n = 20
    unit = np.eye(n)
    for validation, count in ((0.25, 5), (7, 7), (np.int64(3), 3), (np.float32(0.1), 2)):
        net = xn.Linear(n, 1, bias=False, initializer="zeros")
        model = xn.Model(net, xn.mean_squared_error, xn.SGD(0.1), seed=2, backend=backend)
        history = model.fit(unit, np.ones(n), epochs=2, batch_size=100, validation=validation)
        untouched = np.flatnonzero(home(model) == 0)
        assert len(untouched) == count
        assert history["val_loss"] == [1.0, 1.0]  # they are predicted as 0, and nothing was learned of them
        order = random.generator(2, "validation").permutation(n)
        assert set(untouched) == set(order[:count])


def test_a_validation_pair_is_scored_after_each_epoch(backend):
    x, labels = blobs(30)
    model = classifier(backend, metrics=["accuracy"])
    scores = []

    class Score(xn.Callback):
        def on_epoch_end(self, model, history):
            scores.append(model.evaluate(x[20:], labels[20:]))

    history = model.fit(x[:20], labels[:20], 2, 10, validation=(x[20:], labels[20:]), callbacks=[Score()])
    assert history["val_loss"] == [score["loss"] for score in scores]
    assert history["val_accuracy"] == [score["accuracy"] for score in scores]
    untold = classifier(backend)
    untold.fit(x[:20], labels[:20], 2, 10)
    assert np.array_equal(home(model), home(untold))


# What the history says


def test_gradient_norm_and_max_weight_are_what_a_slow_computation_gives(backend):
    x, labels = blobs(12, "float64")
    model = classifier(backend, xn.SGD(0.5, clip_norm=0.01), dtype="float64")
    start = home(model)
    start[NET.layout[1].start] = 100.0  # a bias, which is no weight
    model.theta = backend.asarray(start, dtype="float64", copy=True)
    norms, largest = [], []
    xd, yd = backend.asarray(x), backend.asarray(labels)

    def look(model):
        scores, backward = NET(model.theta, xd)
        norms.append(float(np.linalg.norm(backend.asnumpy(backward(xn.cross_entropy(scores, yd)[1])))))
        windows = {name: backend.asnumpy(w) for name, w in NET.windows(model.theta).items()}
        largest.append(float(max(np.max(np.abs(windows["0.weight"])), np.max(np.abs(windows["2.weight"])))))

    class Look(xn.Callback):
        def on_epoch_end(self, model, history):
            look(model)

    look(model)
    history = model.fit(x, labels, epochs=2, batch_size=12, callbacks=[Look()])
    assert history["gradient_norm"] == pytest.approx(norms[:2], rel=1e-12)  # before clipping
    assert history["max_weight"] == largest[1:]


def test_means_over_an_epoch_weigh_a_batch_as_its_size(backend):
    n = 7
    model = xn.Model(
        xn.Linear(1, 1, initializer="zeros"),
        xn.mean_squared_error,
        xn.SGD(0.0),
        backend=backend,
        metrics=["mean_absolute_error"],
        dtype="float64",
    )
    target = np.arange(1.0, n + 1)
    history = model.fit(np.ones((n, 1)), target, epochs=1, batch_size=3)
    assert history["loss"] == pytest.approx([np.mean(target**2)], rel=1e-14)
    assert history["mean_absolute_error"] == pytest.approx([np.mean(target)], rel=1e-14)


def test_metrics_are_known_by_name():
    with pytest.raises(
        ValueError,
        match=r"unknown metric 'acuracy': choose one of accuracy, .*, r2, or pass a funct",
    ):
        classifier("numpy", metrics=["acuracy"])


# Optimizer settings reach the step


@pytest.mark.parametrize("optimizer", [xn.SGD(0.1, weight_decay=0.5), xn.AdamW(0.1, weight_decay=0.5)])
def test_weight_decay_shrinks_matrices_and_spares_biases(backend, optimizer):
    def flat(prediction, target):
        return xn.mean_squared_error(prediction, target)[0] * 0.0, prediction * 0.0

    model = xn.Model(NET, flat, optimizer, backend=backend, dtype="float64")
    start = np.linspace(1.0, 2.0, NET.size)
    model.theta = backend.asarray(start, dtype="float64", copy=True)
    model.fit(np.ones((4, 2)), np.ones((4, 3)), epochs=1, batch_size=4)
    decayed = np.concatenate([np.full(w.stop - w.start, w.name.endswith("weight")) for w in NET.layout])
    assert_close(backend, model.theta, np.where(decayed, start * 0.95, start))
    assert np.array_equal(home(model)[~decayed], start[~decayed])


def test_clip_norm_bounds_the_step(backend):
    x, labels = blobs(12, "float64")
    model = classifier(backend, xn.SGD(0.5, clip_norm=0.01), dtype="float64")
    before = home(model)
    norm = model.fit(x * 10, labels, epochs=1, batch_size=12)["gradient_norm"][0]
    assert norm > 0.1
    assert np.linalg.norm(home(model) - before) == pytest.approx(0.5 * 0.01, rel=1e-12)


def test_dropout_drops_in_training_alone_with_the_same_masks_everywhere(backend):
    x, labels = blobs(12, "float64")
    net = xn.Sequential(xn.Linear(2, 8), xn.Tanh(), xn.Dropout(0.5), xn.Linear(8, 3))

    def trained(backend):
        model = classifier(backend, xn.SGD(0.1), net, dtype="float64", seed=4)
        model.fit(x, labels, epochs=3, batch_size=5)
        return model

    model = trained(backend)
    assert_close(backend, model.theta, home(trained("numpy")), multiple=64)
    y, _ = net(model.theta, backend.asarray(x))
    assert_close(backend, backend.asarray(model.predict(x)), y)
    assert np.array_equal(model.predict(x), model.predict(x))
    still = classifier(backend, xn.SGD(0.0), net, dtype="float64")
    x, labels = np.ones((12, 2)), np.zeros(12, int)  # all alike, so that their order does not matter
    losses = still.fit(x, labels, epochs=3, batch_size=12)["loss"]
    assert len({*losses, still.evaluate(x, labels)["loss"]}) == 4  # another mask at each step, none in evaluate


def test_fit_works_outside_the_main_thread():
    x, labels = blobs(12)
    model, histories = classifier("numpy"), []
    thread = threading.Thread(target=lambda: histories.append(model.fit(x, labels, epochs=2, batch_size=6)))
    thread.start()
    thread.join()
    alone = classifier("numpy")
    assert histories[0]["loss"] == alone.fit(x, labels, epochs=2, batch_size=6)["loss"]


def test_softmax_before_cross_entropy_is_warned_of():
    net = xn.Sequential(xn.Linear(2, 3), xn.Sequential(xn.Softmax()))
    message = "cross_entropy takes scores, but the network ends in Softmax: drop it, or use negative_log_likelihood"
    with pytest.warns(DataWarning) as record:
        classifier("numpy", net=net)
    assert [str(w.message) for w in record] == [message]
    xn.Model(net, xn.negative_log_likelihood, xn.SGD(0.1), backend="numpy")  # this is what Softmax goes with


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"net": [xn.Linear(2, 2)]}, r"net must be a layer, got \[Linear"),
        ({"optimizer": xn.Adam}, r"optimizer must be an optimizer, such as xn.Adam\(\), got <class"),
        ({"loss": "cross_entropy"}, "loss must be a function, such as xn.cross_entropy, got 'cross_entropy'"),
    ],
)
def test_what_is_no_network_loss_or_optimizer_is_named(change, text):
    parts = {"net": xn.Linear(2, 2), "loss": xn.cross_entropy, "optimizer": xn.Adam()} | change
    with pytest.raises(TypeError, match=text):
        xn.Model(**parts, backend="numpy")


def test_a_matrix_is_no_metric():
    with pytest.raises(ValueError, match="unknown metric"):
        classifier("numpy", metrics=[xn.metrics.confusion_matrix])


# Each step's own numbers


def test_each_step_has_its_own_rate(backend):
    # Samples of the one feature 1: w moves by 2 η(t) (target − w).
    net = xn.Linear(1, 1, bias=False, initializer="zeros")
    schedule = xn.schedules.step_decay(0.25, every=1, factor=0.5)
    model = xn.Model(net, xn.mean_squared_error, xn.SGD(schedule), backend=backend, dtype="float64")
    model.fit([[1.0]] * 5, [[8.0]] * 5, epochs=1, batch_size=1)
    w = 0.0
    for t in range(5):
        w += 2 * 0.25 * 0.5**t * (8.0 - w)
    assert_close(backend, model.theta, np.asarray([w]))


def test_theta_that_is_assigned_stays_the_callers(backend):
    x, labels = blobs()
    model = classifier(backend)
    theta = backend.asarray(home(model), copy=True)
    model.theta = theta
    before = np.array(backend.asnumpy(theta))
    model.fit(x, labels, epochs=1, batch_size=16)
    assert np.array_equal(backend.asnumpy(theta), before)
    assert not np.array_equal(home(model), before)
