"""One truth about a model: its parts can be exchanged between fits, on every backend alike; copies are independent."""

import copy
import pickle
import threading
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import xpnet as xn
from xpnet.errors import NonFiniteError, ShapeError
from xpnet.training.holder import Holder

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4)).astype("float32")
Y = (X[:, 0] > 0).astype(int)
NET = xn.Sequential(xn.Linear(4, 8), xn.Tanh(), xn.Linear(8, 2))
OPTIMIZERS = [
    xn.SGD(0.1),
    xn.SGD(0.1, momentum=0.9, weight_decay=0.1),
    xn.SGD(0.1, momentum=0.9, nesterov=True),
    xn.RMSProp(0.01, weight_decay=0.1),
    xn.Adam(0.01, clip_norm=0.5),
    xn.AdamW(0.01, weight_decay=0.5),
    xn.Adam(0.01, amsgrad=True),
    xn.NAdam(0.01, weight_decay=0.1),
    xn.Adagrad(0.1),
    xn.Lion(xn.cosine(0.003, steps=40), weight_decay=0.5),
    xn.Adam(0.01, rates={"0.*": 0.5, "0.bias": 2}, weight_decay=0.1, decays={"2.*": 1}),
    xn.SGD(0.1, momentum=0.9, rates={"*.weight": 0.5}, weight_decay=0.1),
]


def classifier(backend, optimizer=None, **settings):
    return xn.Model(NET, xn.cross_entropy, optimizer or xn.Adam(0.01), backend=backend, **settings)


def home(model):
    return np.array(model.backend.asnumpy(model.theta))


def windows(model):
    return {k: np.array(model.backend.asnumpy(w)) for k, w in model.net.windows(model.theta).items()}


def fit(model, epochs=1):
    return model.fit(X, Y, epochs=epochs, batch_size=16)


# Parts


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (xn.Adam(0.01), xn.RMSProp(0.01, weight_decay=0.1)),  # fewer vectors
        (xn.Adam(0.01), xn.SGD(0.1, momentum=0.9)),  # one of them of another meaning
        (xn.Adam(0.01), xn.SGD(0.1)),
        (xn.SGD(0.1), xn.Adam(0.01, clip_norm=0.5)),  # more vectors
        (xn.Adam(0.01), xn.AdamW(0.01, weight_decay=0.5)),  # as many
        (xn.Adam(0.01), xn.Adam(0.01)),  # the same
    ],
    ids=str,
)
def test_a_new_optimizer_starts_as_on_a_new_model(backend, old, new):
    changed, fresh = classifier(backend, old), classifier(backend, new)
    fit(changed)
    changed.optimizer = new
    assert (changed.state.t, changed.epoch) == (0, 1)
    fresh.theta = changed.theta
    fresh.holder.state = fresh.state._replace(epoch=1)  # for the same order of samples
    fit(changed, 2)
    fit(fresh, 2)
    assert np.array_equal(home(changed), home(fresh))


@pytest.mark.parametrize(
    "settings", [{"lr": 0.5}, {"clip_norm": 0.01}, {"weight_decay": 0.5}, {"lr": xn.cosine(0.1, steps=20)}], ids=str
)
def test_an_adjusted_setting_holds_from_the_next_step_on_and_the_memory_stays(backend, settings):
    adjusted, other = classifier(backend), classifier(backend)
    fit(adjusted)
    fit(other)
    adjusted.adjust(**settings)
    assert adjusted.state.t == 4
    other.step = replace(other.step, optimizer=replace(other.optimizer, **settings), compiled=None)
    fit(adjusted)
    fit(other)
    assert np.array_equal(home(adjusted), home(other))
    plain = classifier(backend)
    fit(plain, 2)
    assert not np.array_equal(home(adjusted), home(plain))


def test_what_cannot_be_adjusted_says_so():
    model = classifier("numpy", xn.SGD(0.1))
    with pytest.raises(ValueError, match=r"^SGD has the settings lr, .*momentum, nesterov, got speed$"):
        model.adjust(speed=3)
    with pytest.raises(ValueError, match=r"^SGD: momentum changes the rule: assign model\.optimizer$"):
        model.adjust(momentum=0.9)
    with pytest.raises(ValueError, match=r"^SGD: lr must be a number of at least 0"):
        model.adjust(lr=-1.0)
    assert model.optimizer == xn.SGD(0.1)


def test_a_new_loss_is_trained_on_and_evaluated(backend):
    model = classifier(backend)
    fit(model)
    twice = lambda scores, labels: tuple(2.0 * part for part in xn.cross_entropy(scores, labels))  # noqa: E731
    before = model.evaluate(X, Y)["loss"]
    model.loss = twice
    assert model.evaluate(X, Y)["loss"] == pytest.approx(2.0 * before)
    assert fit(model)["loss"][0] > 1.5 * before
    with pytest.raises(TypeError, match=r"^loss must be a function"):
        model.loss = "mse"


def test_a_new_network_keeps_theta_and_must_have_its_parameters(backend):
    model = classifier(backend)
    before = home(model)
    model.net = xn.Sequential(xn.Linear(4, 8), xn.ReLU(), xn.Linear(8, 2))
    assert np.array_equal(home(model), before)
    x = backend.asarray(X)
    scores, _ = model.net(backend.asarray(before), x)
    assert np.allclose(model.predict(X), backend.asnumpy(scores))
    with pytest.raises(ShapeError, match=r"the new network has the parameters .*: make a new Model"):
        model.net = xn.Linear(4, 2)


def test_new_metrics_are_recorded_from_then_on(backend):
    model = classifier(backend)
    assert "accuracy" not in fit(model)
    model.metrics = ["accuracy"]
    assert 0.0 <= fit(model)["accuracy"][0] <= 1.0
    assert set(model.evaluate(X, Y)) == {"loss", "accuracy"}


def test_theta_is_a_snapshot(backend):
    model = classifier(backend)
    before, values = model.theta, home(model)
    fit(model)
    assert np.array_equal(backend.asnumpy(before), values)
    assert not np.array_equal(home(model), values)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_theta_cannot_be_made_bad(backend, bad):
    model = classifier(backend)
    before = home(model)
    wrong = before.copy()
    wrong[3] = bad
    with pytest.raises(xn.DataError, match=r"^theta must be finite, got NaN or infinity$"):
        model.theta = backend.asarray(wrong)
    assert np.array_equal(home(model), before)


# Metrics' names


@pytest.mark.parametrize("name", ["loss", "epoch", "seconds", "learning_rate", "gradient_norm", "max_weight", "val_x"])
def test_a_metric_cannot_be_called_like_what_is_recorded(name):
    with pytest.raises(ValueError, match=f'^a metric cannot be called "{name}", the history records that itself'):
        classifier("numpy", metrics={name: xn.metrics.accuracy})


def test_two_metrics_of_one_name_are_refused_and_can_be_named():
    two = [lambda p, t: p[0, 0], lambda p, t: p[0, 1]]
    with pytest.raises(ValueError, match=r'^two metrics are called "<lambda>": pass a dict, metrics='):
        classifier("numpy", metrics=two)
    model = classifier("numpy", metrics={"first": two[0], "second": two[1]})
    assert set(model.evaluate(X, Y)) == {"loss", "first", "second"}


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"metrics": "accuracy"}, r'^metrics must be a list, such as \["accuracy"\], got \'accuracy\'$'),
        ({"metrics": xn.metrics.accuracy}, r"^metrics must be a list"),
        ({"seed": ["accuracy"]}, r"^seed must be an integer, got \['accuracy'\]: metrics are passed by name"),
        ({"frozen": "0.*"}, r"^frozen must be a list of patterns"),
        (
            {"frozen": ["7.*"]},
            r'^frozen: "7\.\*" matches no parameter: there are 0\.weight, .*, 2\.bias$',
        ),
        ({"dtype": "float16"}, r'^Model: dtype must be "float32" or "float64", got'),
        ({"dtype": None}, r'^Model: dtype must be "float32" or "float64", got'),
        ({"dtype": "complex64"}, r'^Model: dtype must be "float32" or "float64", got'),
    ],
    ids=str,
)
def test_wrong_settings_are_one_line(settings, text):
    with pytest.raises((TypeError, ValueError), match=text) as caught:
        classifier("numpy", **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("callbacks", "text"),
    [
        (xn.EarlyStopping(), r"^callbacks must be a list, got .*: pass callbacks=\[…\]$"),
        ([xn.EarlyStopping], r"^callbacks must hold callbacks, an instance: add \(\), got"),
        ([print], r"^callbacks must hold callbacks, a subclass of xn\.Callback, got"),
    ],
)
def test_wrong_callbacks_are_one_line(callbacks, text):
    with pytest.raises(TypeError, match=text):
        classifier("numpy").fit(X, Y, callbacks=callbacks)


# Frozen parameters


@pytest.mark.parametrize(
    ("optimizer", "frozen", "names"),
    [
        (optimizer, *case)
        for optimizer, case in zip(
            OPTIMIZERS,
            [
                (["0.*"], {"0.weight", "0.bias"}),
                (["*.bias"], {"0.bias", "2.bias"}),
                (["0.weight", "2.b*"], {"0.weight", "2.bias"}),
            ]
            * 4,
            strict=True,
        )
    ],
    ids=str,
)
def test_frozen_parameters_keep_their_bits(backend, optimizer, frozen, names):
    model = classifier(backend, optimizer)
    fit(model)  # what the optimizer remembers would move them on
    model.frozen = frozen
    before = windows(model)
    fit(model, 2)
    after = windows(model)
    still = {name for name in before if np.array_equal(before[name], after[name])}
    assert still == names
    model.frozen = ()
    fit(model)
    assert not any(np.array_equal(after[name], window) for name, window in windows(model).items())


@pytest.mark.parametrize("optimizer", OPTIMIZERS[3:7], ids=str)
def test_what_is_not_frozen_trains_as_a_network_of_its_own(backend, optimizer):
    """With the first layer frozen, the rest sees fixed features: the same as training it alone on those."""
    model = classifier(backend, optimizer, frozen=["0.*"])
    before = windows(model)
    features = np.tanh(X @ before["0.weight"] + before["0.bias"])
    head = xn.Model(xn.Linear(8, 2), xn.cross_entropy, optimizer, backend=backend)
    head.theta = backend.asarray(np.concatenate([before["2.weight"].reshape(-1), before["2.bias"]]))
    one, other = fit(model, 3), head.fit(features, Y, epochs=3, batch_size=16)
    assert np.allclose(home(head), home(model)[-18:], atol=2e-5)
    assert np.allclose(one["gradient_norm"], other["gradient_norm"], rtol=1e-4)


def test_frozen_parameters_come_back_from_a_file(backend, tmp_path):
    model = classifier(backend, frozen=["0.*"])
    fit(model)
    model.save(tmp_path / "model")
    found = xn.load(tmp_path / "model", backend)
    assert found.frozen == ("0.*",)
    fit(found)
    fit(model)
    assert np.array_equal(home(found), home(model))


# Copies


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_is_the_same_and_goes_its_own_way(backend, how):
    model = classifier(backend, xn.AdamW(0.01), metrics=["accuracy"], frozen=["0.bias"])
    fit(model)
    before = home(model)
    other = how(model)
    assert (other.epoch, other.state.t, other.seed, other.frozen) == (1, 4, 0, ("0.bias",))
    assert np.array_equal(home(other), before)
    fit(model)
    assert np.array_equal(home(other), before)
    fit(other)
    assert np.array_equal(home(other), home(model))
    assert other.evaluate(X, Y) == model.evaluate(X, Y)


def test_a_pickle_whose_arrays_cannot_be_written_is_trained_on(backend):
    """Other processes are handed arrays in read-only memory, by joblib and by pickle's own protocol 5."""
    model, buffers = classifier(backend, xn.AdamW(0.01)), []
    fit(model)
    data = pickle.dumps(model, protocol=5, buffer_callback=buffers.append)
    held = [bytes(buffer.raw()) for buffer in buffers]
    other = pickle.loads(data, buffers=held)
    fit(other)
    fit(model)
    assert np.array_equal(home(other), home(model))
    assert held == [bytes(buffer.raw()) for buffer in buffers]


def test_a_pickle_of_a_run_under_way_goes_on_to_the_same_bits(backend):
    whole, cut = classifier(backend), classifier(backend, lr_that_ends(5))
    fit(whole, 3)
    with pytest.raises(NonFiniteError):
        fit(cut, 3)
    cut.adjust(lr=0.01)
    other = pickle.loads(pickle.dumps(cut))
    other.resume(X, Y)
    assert np.array_equal(home(other), home(whole))
    assert cut.underway is not None


def lr_that_ends(step):
    return xn.Adam(partial(rate_until, step))


def rate_until(last, step):
    return 0.01 if step < last else float("nan")


def test_a_model_says_what_it_is():
    model = classifier("numpy")
    fit(model)
    text = repr(model)
    for part in ("Linear(4→8), Tanh(), Linear(8→2)", "58 parameters in float32", "cross_entropy", "Adam(lr=0.01"):
        assert part in text
    assert text.endswith("on numpy cpu, 1 epochs done)")


# Threads


def test_the_thread_that_is_in_may_enter_once_more_and_leaves_for_good():
    holder, entered = Holder(None, None), threading.Event()
    with holder, holder:
        pass

    def other():
        with holder:
            entered.set()

    threading.Thread(target=other, daemon=True).start()
    assert entered.wait(5.0)


def test_whoever_waits_for_the_holder_comes_next():
    holder, order = Holder(None, None), []
    inside, asked = threading.Event(), threading.Event()

    def other():
        inside.wait()
        asked.set()
        with holder:
            order.append("other")

    thread = threading.Thread(target=other, daemon=True)
    thread.start()
    with holder, holder:  # the same thread may enter once more
        inside.set()
        asked.wait()
        deadline = time.monotonic() + 5.0
        while not holder._next.locked() and time.monotonic() < deadline:
            time.sleep(0.001)
        assert holder._next.locked(), "nobody waits for the next turn"
    with holder:
        order.append("again")
    thread.join(5.0)
    assert order == ["other", "again"]


def test_a_model_saved_by_another_thread_is_consistent(tmp_path):
    """Each file stands between two calls of steps: resumed, it ends with the bits of the whole run."""
    whole, model = classifier("numpy", xn.Adam(1e-3)), classifier("numpy", xn.Adam(1e-3))
    x, y = np.tile(X, (40, 1)), np.tile(Y, 40)
    whole.fit(x, y, epochs=6, batch_size=4)
    over, saved = threading.Event(), []

    def saver():
        while not over.is_set() and len(saved) < 40:
            path = tmp_path / f"{len(saved)}"
            model.save(path)
            saved.append(path)

    thread = threading.Thread(target=saver)
    thread.start()
    model.fit(x, y, epochs=6, batch_size=4)
    over.set()
    thread.join()
    assert len(saved) >= 2
    positions = set()
    for path in saved:
        found = xn.load(path, "numpy")
        if found.underway is not None:
            positions.add((found.epoch, found.underway.position))
            found.resume(x, y)
            assert np.array_equal(home(found), home(whole))
    assert positions


def test_one_fit_at_a_time():
    class Again(xn.Callback):
        def on_epoch_end(self, model, history):
            model.fit(X, Y)

    model = classifier("numpy")
    with pytest.raises(RuntimeError, match=r"^this model is being trained already: wait until that fit is over"):
        model.fit(X, Y, callbacks=[Again()])
    fit(model)
