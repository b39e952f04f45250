"""Callbacks, early stopping, history, the bar, Ctrl-C."""

import re
import signal
import time

import numpy as np
import pytest

import xpnet as xn
from xpnet.errors import NonFiniteError
from xpnet.training.history import History, Stopwatch

X = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
Y = np.arange(12) % 2
NET = xn.Sequential(xn.Linear(3, 4), xn.Tanh(), xn.Linear(4, 2))


def classifier(backend="numpy", lr=0.1):
    return xn.Model(NET, xn.cross_entropy, xn.SGD(lr), backend=backend)


class Recorder(xn.Callback):
    """Note every call, and what θ was; say True when told to."""

    def __init__(self, name="", log=None, stop_after=None):
        self.name, self.log, self.stop_after, self.thetas = name, [] if log is None else log, stop_after, []

    def on_train_begin(self, model):
        self.log.append(f"{self.name}begin")

    def on_epoch_end(self, model, history):
        self.thetas.append(np.array(model.backend.asnumpy(model.theta)))
        self.log.append(f"{self.name}epoch {history['epoch'][-1]}")
        return self.stop_after == len(self.thetas)

    def on_train_end(self, model, history):
        self.log.append(f"{self.name}end")


class Script(xn.Callback):
    """Write given numbers into the history."""

    def __init__(self, name, values):
        self.name, self.values = name, iter(values)

    def on_epoch_end(self, model, history):
        history.add(**{self.name: next(self.values)})


def test_callbacks_are_called_in_order():
    log = []
    classifier().fit(X, Y, epochs=2, callbacks=[Recorder("a ", log), Recorder("b ", log)])
    assert log == ["a begin", "b begin", "a epoch 1", "b epoch 1", "a epoch 2", "b epoch 2", "a end", "b end"]


def test_a_callback_that_returns_true_stops_training_after_all_have_been_called():
    log = []
    history = classifier().fit(X, Y, epochs=5, callbacks=[Recorder("a ", log, stop_after=2), Recorder("b ", log)])
    assert log[-4:] == ["a epoch 2", "b epoch 2", "a end", "b end"]
    assert history["epoch"] == [1, 2]
    assert history.stopped == "Recorder asked for it"


# Early stopping


@pytest.mark.parametrize(
    ("settings", "values", "epochs", "best"),
    [
        ({"monitor": "val_loss", "patience": 2}, [3.0, 2.0, 2.5, 2.0, 0.0], 4, 2),
        ({"monitor": "val_loss", "patience": 1}, [3.0, 2.0, 1.0, 1.0, 0.0], 4, 3),
        ({"monitor": "val_accuracy", "patience": 2}, [0.5, 0.9, 0.8, 0.7, 1.0], 4, 2),
        ({"monitor": "val_r2", "patience": 1}, [-1.0, 0.5, 0.4, 1.0, 1.0], 3, 2),
        ({"monitor": "gain", "patience": 1, "mode": "max"}, [1.0, 2.0, 1.5, 9.0, 9.0], 3, 2),
        ({"monitor": "accuracy_loss", "patience": 1, "mode": "min"}, [1.0, 2.0, 1.5, 9.0, 9.0], 2, 1),
        ({"monitor": "val_loss", "patience": 2, "min_delta": 0.5}, [3.0, 2.7, 2.6, 0.0, 0.0], 3, 1),
        ({"monitor": "val_loss", "patience": 2}, [3.0, np.nan, np.nan, 0.0, 0.0], 3, 1),
    ],
)
def test_early_stopping_waits_and_puts_the_best_theta_back(settings, values, epochs, best):
    watch = settings["monitor"]
    recorder, early = Recorder(), xn.EarlyStopping(**settings)
    model = classifier()
    history = model.fit(X, Y, epochs=5, callbacks=[Script(watch, values), recorder, early])
    assert len(history["epoch"]) == epochs
    assert (early.best_epoch, early.best) == (best, values[best - 1])
    assert history.stopped == f"{watch} has not improved since epoch {best}"
    assert np.array_equal(model.theta, recorder.thetas[best - 1])
    assert not np.array_equal(model.theta, recorder.thetas[-1])


def test_early_stopping_on_every_backend(backend):
    recorder, early = Recorder(), xn.EarlyStopping("score", patience=2, mode="min")
    model = classifier(backend)
    model.fit(X, Y, epochs=9, callbacks=[Script("score", [2.0, 1.0, 3.0, 3.0]), recorder, early])
    assert np.array_equal(backend.asnumpy(model.theta), recorder.thetas[1])
    model.fit(X, Y, epochs=1, callbacks=[recorder])
    assert not np.array_equal(backend.asnumpy(model.theta), recorder.thetas[1])


def test_early_stopping_may_leave_the_last_theta():
    recorder, early = Recorder(), xn.EarlyStopping("score", patience=1, mode="min", restore_best=False)
    model = classifier()
    model.fit(X, Y, epochs=9, callbacks=[Script("score", [1.0, 2.0]), recorder, early])
    assert np.array_equal(model.theta, recorder.thetas[1])


def test_the_best_theta_is_put_back_also_if_patience_never_ran_out():
    recorder, early = Recorder(), xn.EarlyStopping("score", patience=9, mode="min")
    model = classifier()
    history = model.fit(X, Y, epochs=3, callbacks=[Script("score", [2.0, 1.0, 3.0]), recorder, early])
    assert np.array_equal(model.theta, recorder.thetas[1])
    assert history.stopped is None


def test_early_stopping_forgets_an_earlier_run():
    early = xn.EarlyStopping("score", patience=1, mode="min")
    classifier().fit(X, Y, epochs=2, callbacks=[Script("score", [0.0, 1.0]), early])
    history = classifier().fit(X, Y, epochs=2, callbacks=[Script("score", [9.0, 8.0]), early])
    assert history.stopped is None
    assert (early.best, early.best_epoch) == (8.0, 2)


def test_early_stopping_with_a_monitor_that_nobody_records():
    with pytest.raises(
        ValueError, match=r'^EarlyStopping watches "val_loss", recorded are epoch, loss, .*: pass validation=$'
    ):
        classifier().fit(X, Y, callbacks=[xn.EarlyStopping()])
    with pytest.raises(ValueError, match=r'^EarlyStopping: mode must be "min" or "max", got .least.$'):
        xn.EarlyStopping(mode="least")
    with pytest.raises(ValueError, match=r"^EarlyStopping: patience must be an integer of at least 1, got 0$"):
        xn.EarlyStopping(patience=0)


# A lower rate


def reduced(values, epochs=8, lr=0.1, **settings):
    """Return the rates of the epochs whose scores are these."""
    model, callback = classifier(lr=lr), xn.ReduceOnPlateau("score", mode="min", **settings)
    history = model.fit(X, Y, epochs=epochs, callbacks=[Script("score", values), callback])
    return [*history["learning_rate"], model.optimizer.rate(model.state.t)][1:]


@pytest.mark.parametrize(
    "settings",
    [
        {"factor": 0.5, "patience": 1},
        {"factor": 0.5, "patience": 2},
        {"factor": 0.1, "patience": 2, "cooldown": 2},
        {"factor": 0.1, "patience": 1, "min_lr": 2e-3},
        {"factor": 0.5, "patience": 2, "min_delta": 0.4},
    ],
    ids=str,
)
def test_a_rate_is_reduced_as_pytorch_does(settings):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    values = [3.0, 2.0, 2.0, 1.7, 1.5, 1.5, 1.6, np.nan, 1.4, 1.4, 1.4, 1.4, 1.4, 0.1, 0.1, 0.1]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    terms = {
        "patience": "patience",
        "min_delta": "threshold",
        "factor": "factor",
        "cooldown": "cooldown",
        "min_lr": "min_lr",
    }
    given = {terms[name]: value - (name == "patience") for name, value in settings.items()}
    peer = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, **{"threshold": 0.0, "threshold_mode": "abs", "eps": 0.0} | given
    )
    expected = []
    for value in values:
        peer.step(value)
        expected.append(optimizer.param_groups[0]["lr"])
    assert len(set(expected)) > 2
    assert reduced(values, len(values), **settings) == pytest.approx(expected, rel=1e-12)


def test_a_schedule_is_reduced_as_a_whole(backend):
    plateau = xn.ReduceOnPlateau("score", factor=0.5, patience=1, mode="max")
    model = classifier(backend, xn.step_decay(0.4, every=2))
    history = model.fit(X, Y, epochs=5, callbacks=[Script("score", [1.0, 1.0, 1.0, 1.0, 2.0]), plateau])
    assert history["learning_rate"] == pytest.approx([0.4, 0.4, 0.02, 0.01, 0.0005])
    assert model.optimizer.lr == xn.schedules.scaled(xn.step_decay(0.4, every=2), 0.125)
    assert (plateau.best, plateau.best_epoch) == (2.0, 5)


def test_the_metrics_stay_those_of_the_data_when_the_rate_changes():
    """A new rate keeps the compiled steps; R² of batches would then be their mean."""
    x, y = np.random.default_rng(1).normal(size=(50, 3)).astype("float32"), np.arange(50.0)[:, None].astype("float32")
    histories = []
    for callbacks in ([], [xn.ReduceOnPlateau("loss", factor=0.999999, patience=1, min_delta=1e9)]):
        model = xn.Model(xn.Linear(3, 1), xn.mean_squared_error, xn.SGD(1e-4), backend="numpy", metrics=["r2"])
        histories.append(model.fit(x, y, epochs=4, batch_size=10, callbacks=callbacks)["r2"])
    assert histories[0] == pytest.approx(histories[1], rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"factor": 1.0}, "factor must be a number above 0.0 and below 1.0, got 1.0"),
        ({"factor": 0.0}, "factor must be a number above 0.0 and below 1.0, got 0.0"),
        ({"patience": 0}, "patience must be an integer of at least 1, got 0"),
        ({"cooldown": -1}, "cooldown must be an integer of at least 0, got -1"),
        ({"min_lr": "0"}, "min_lr must be a number of at least 0.0, got '0'"),
        ({"monitor": "gain"}, 'is "gain" better small or large? Pass mode="min" or mode="max"'),
        ({"mode": "less"}, 'mode must be "min" or "max", got \'less\''),
    ],
)
def test_settings_of_a_plateau_are_looked_at(settings, text):
    with pytest.raises(ValueError, match=f"^{re.escape(f'ReduceOnPlateau: {text}')}$"):
        xn.ReduceOnPlateau(**settings)


# The average of θ


def test_the_average_of_theta_is_taken_after_each_epoch(backend):
    recorder, average = Recorder(), xn.ExponentialMovingAverage(0.75)
    model = classifier(backend)
    model.fit(X, Y, epochs=4, callbacks=[recorder, average])
    expected = recorder.thetas[0].astype("float64")
    for theta in recorder.thetas[1:]:
        expected = 0.75 * expected + 0.25 * theta
    assert backend.owns(average.theta)
    np.testing.assert_allclose(backend.asnumpy(average.theta), expected, rtol=1e-5, atol=1e-7)
    assert np.array_equal(backend.asnumpy(model.theta), backend.asnumpy(average.theta))
    assert not np.array_equal(backend.asnumpy(model.theta), recorder.thetas[-1])


def test_the_average_may_be_left_to_the_caller():
    recorder, average = Recorder(), xn.ExponentialMovingAverage(0.5, assign=False)
    model = classifier()
    model.fit(X, Y, epochs=3, callbacks=[recorder, average])
    assert np.array_equal(model.theta, recorder.thetas[-1])
    before = model.evaluate(X, Y)
    model.theta = average.theta
    assert model.evaluate(X, Y) != before


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.1, "0.9"])
def test_the_decay_of_an_average_is_looked_at(decay):
    if decay == 0.0:
        assert xn.ExponentialMovingAverage(decay)
        return
    text = "^ExponentialMovingAverage: decay must be a number of at least 0.0 and below 1.0, got"
    with pytest.raises(ValueError, match=text):
        xn.ExponentialMovingAverage(decay)


@pytest.mark.parametrize("at", [2, 3, 5])
def test_lower_rates_and_averages_go_on_to_the_same_bits(backend, tmp_path, at):
    def callbacks():
        script = Script("score", [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5][resumed:])
        plateau = xn.ReduceOnPlateau("score", factor=0.5, patience=1, cooldown=1, mode="min")
        return [script, plateau, xn.ExponentialMovingAverage(0.5)]

    class Cut(xn.Callback):
        def on_epoch_end(self, model, history):
            if model.epoch == at:
                raise RuntimeError("the power is out")

    resumed = 0
    whole, cut = classifier(backend), classifier(backend)
    expected = whole.fit(X, Y, epochs=7, callbacks=callbacks())
    given = callbacks()
    with pytest.raises(RuntimeError):
        cut.fit(X, Y, epochs=7, callbacks=[Cut(), *given], checkpoint=tmp_path / "run")
    assert not np.array_equal(backend.asnumpy(cut.theta), backend.asnumpy(given[-1].theta)), "it can go on"
    found = xn.load(tmp_path / "run", backend)
    resumed = found.epoch
    history = found.resume(X, Y, callbacks=callbacks())
    assert history["learning_rate"] == expected["learning_rate"]
    assert len(set(history["learning_rate"])) > 2
    assert np.array_equal(backend.asnumpy(found.theta), backend.asnumpy(whole.theta))


# History


@pytest.mark.parametrize("name", ["score", "gain", "my_accuracy", "val_score"])
def test_a_direction_is_never_guessed(name):
    with pytest.raises(ValueError, match=rf'^EarlyStopping: is "{name}" better small or large\? Pass mode="min" or'):
        xn.EarlyStopping(name)


def test_every_end_is_called_though_one_fails():
    class Failing(Recorder):
        def on_train_end(self, model, history):
            super().on_train_end(model, history)
            raise RuntimeError(f"end of {self.name}")

    log = []
    callbacks = [Recorder("a ", log), Failing("b ", log), Failing("c ", log), Recorder("d ", log)]
    with pytest.raises(RuntimeError, match=r"^end of b $"):
        classifier().fit(X, Y, epochs=1, callbacks=callbacks)
    assert log[-4:] == ["a end", "b end", "c end", "d end"]


def test_history_is_a_dict_of_lists_and_says_how_the_last_epoch_went():
    history = History()
    history.add(epoch=1, loss=1.0)
    history.add(epoch=2, loss=0.123456, accuracy=0.5)
    assert history == {"epoch": [1, 2], "loss": [1.0, 0.123456], "accuracy": [0.5]}
    assert history.last() == "loss=0.1235, accuracy=0.5"
    assert History().last() == ""


def test_seconds_are_of_training_alone():
    class Slow(xn.Callback):
        def on_epoch_end(self, model, history):
            time.sleep(0.2)

    assert max(classifier().fit(X, Y, epochs=2, callbacks=[Slow()])["seconds"]) < 0.2


def test_a_stopwatch_adds_up():
    watch = Stopwatch()
    for _ in range(2):
        with watch:
            time.sleep(0.02)
        time.sleep(0.02)
    assert 0.04 <= watch.seconds < 0.06 + 0.5


# The bar


def test_the_bar_is_closed_when_training_fails(capsys):
    from tqdm import tqdm

    with pytest.raises(NonFiniteError) as caught:  # the error's traceback keeps the bar from being collected
        classifier(lr=lambda step: -float(step)).fit(X, Y, epochs=2, batch_size=2, progress="bar")
    assert capsys.readouterr().err.endswith("\n")
    assert caught.value
    assert not [bar for bar in getattr(tqdm, "_instances", ()) if not bar.disable]


# Between calls of K steps


def test_each_call_of_k_steps_is_told_with_the_means_of_its_batches(backend):
    """Five batches of 2 in one call, and the last one, of 1, in another: the epoch's means are theirs."""

    class Stepping(xn.Callback):
        def __init__(self):
            self.calls = []

        def on_step_end(self, model, numbers):
            self.calls.append((model.state.t, dict(numbers)))

    x, y, stepping = X[:11], Y[:11], Stepping()
    model = xn.Model(NET, xn.cross_entropy, xn.SGD(lambda t: 0.1 / (t + 1)), backend=backend, metrics=["accuracy"])
    history = model.fit(x, y, epochs=2, batch_size=2, callbacks=[stepping])
    assert [t for t, _ in stepping.calls] == [5, 6, 11, 12]
    assert list(stepping.calls[0][1]) == ["loss", "gradient_norm", "accuracy", "learning_rate"]
    for epoch in range(2):
        (_, five), (t, one) = stepping.calls[2 * epoch : 2 * epoch + 2]
        for name in ("loss", "gradient_norm", "accuracy"):
            assert (10 * five[name] + one[name]) / 11 == pytest.approx(history[name][epoch], rel=1e-12)
        assert one["learning_rate"] == 0.1 / t


def test_nothing_is_computed_for_callbacks_that_do_not_ask(monkeypatch):
    monkeypatch.setattr("xpnet.training.loop.Loop._numbers", lambda *_: pytest.fail("nobody asked"))

    class Quiet(xn.Callback):
        stepwise = False

        def on_step_end(self, model, numbers):
            pytest.fail("it is not stepwise")

    classifier().fit(X, Y, callbacks=[Quiet(), Recorder()])


# The best model in a file


def test_the_best_model_is_in_the_file(tmp_path):
    recorder, keep = Recorder(), xn.ModelCheckpoint(tmp_path / "best", best="score", mode="max")
    model = classifier()
    model.fit(X, Y, epochs=5, callbacks=[Script("score", [1.0, 3.0, 2.0, 3.0, 2.5]), keep, recorder])
    found = xn.load(tmp_path / "best", "numpy")
    assert np.array_equal(found.theta, recorder.thetas[1])
    assert (found.epoch, keep.best, keep.best_epoch, keep.saved) == (2, 3.0, 2, str(tmp_path / "best"))
    assert found.underway is None, "it is a model, not a run"
    found.fit(X, Y)


def test_the_best_model_of_a_run_that_was_cut_off_is_not_forgotten(tmp_path):
    class Cut(xn.Callback):
        def on_epoch_end(self, model, history):
            if model.epoch == 3:
                raise RuntimeError("the power is out")

    keep = xn.ModelCheckpoint(tmp_path / "best-{epoch}", best="score", mode="min")
    script = Script("score", [2.0, 1.0, 3.0])
    with pytest.raises(RuntimeError):
        classifier().fit(X, Y, epochs=5, callbacks=[script, keep, Cut()], checkpoint=tmp_path / "run")
    again = xn.ModelCheckpoint(tmp_path / "best-{epoch}", best="score", mode="min")
    script = Script("score", [1.5, 1.5, 0.5])
    xn.load(tmp_path / "run", "numpy").resume(X, Y, callbacks=[script, again])
    assert sorted(path.name for path in tmp_path.glob("best*")) == ["best-1", "best-2", "best-5"]
    assert again.saved == str(tmp_path / "best-5")


def test_a_place_where_the_best_cannot_be_is_noticed_at_once(tmp_path):
    with pytest.raises(ValueError, match=r'^ModelCheckpoint: is "gain" better small or large\? Pass mode="min" or'):
        xn.ModelCheckpoint(tmp_path / "best", best="gain")
    model, place = classifier(), tmp_path / "no" / "best"
    text = f"^ModelCheckpoint cannot write {re.escape(str(place))}: there is no folder {re.escape(str(place.parent))}$"
    with pytest.raises(FileNotFoundError, match=text):
        model.fit(X, Y, callbacks=[xn.ModelCheckpoint(place, best="loss")])
    assert model.epoch == 0


# Ctrl-C


def interrupting(*steps):
    """A learning rate that presses Ctrl-C before these steps."""

    left = set(steps)

    def schedule(step):
        if step in left:
            left.remove(step)
            signal.raise_signal(signal.SIGINT)
        return 0.1

    return schedule


@pytest.fixture(autouse=True)
def _the_handler_is_put_back():
    before = signal.getsignal(signal.SIGINT)
    yield
    after = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)
    assert after is before


def test_ctrl_c_within_an_epoch_stops_after_the_steps_under_way(backend):
    model, recorder = classifier(backend, interrupting(150)), Recorder()
    x, y = np.tile(X, (200, 1)), np.tile(Y, 200)  # 1200 steps an epoch, 240 a call
    history = model.fit(x, y, epochs=3, batch_size=2, callbacks=[recorder])
    assert history.stopped == "Ctrl-C"
    assert dict(history) == {}
    assert recorder.log == ["begin", "end"]
    assert (model.state.t, model.epoch) == (240, 0)
    assert np.all(np.isfinite(model.predict(X)))
    again = model.fit(X, Y, epochs=1)  # and the model goes on
    assert (again["epoch"], again.stopped) == ([1], None)


def test_ctrl_c_in_the_last_steps_of_an_epoch_keeps_the_epoch():
    model, recorder = classifier(lr=interrupting(5)), Recorder()
    history = model.fit(X, Y, epochs=3, batch_size=2, validation=(X, Y), callbacks=[recorder])
    assert (history["epoch"], len(history["val_loss"]), history.stopped) == ([1], 1, "Ctrl-C")
    assert recorder.log == ["begin", "epoch 1", "end"]
    assert model.state.t == 6


def test_ctrl_c_between_epochs_does_no_further_step():
    class Press(xn.Callback):
        def on_epoch_end(self, model, history):
            signal.raise_signal(signal.SIGINT)

    model = classifier()
    history = model.fit(X, Y, epochs=3, batch_size=2, callbacks=[Press()])
    assert (history["epoch"], history.stopped, model.state.t) == ([1], "Ctrl-C", 6)


def test_after_ctrl_c_the_best_theta_is_at_hand_but_put_back_only_when_the_run_is_over():
    recorder, early = Recorder(), xn.EarlyStopping("score", mode="min")
    model = classifier(lr=interrupting(3))
    script = Script("score", [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    model.fit(X, Y, epochs=6, callbacks=[script, recorder, early])
    assert len(recorder.thetas) == 4
    assert np.array_equal(model.theta, recorder.thetas[3])
    assert np.array_equal(early.theta, recorder.thetas[0])
    model.resume(X, Y, callbacks=[script, recorder, early])
    assert len(recorder.thetas) == 6
    assert np.array_equal(model.theta, recorder.thetas[0])


def test_a_second_ctrl_c_raises():
    with pytest.raises(KeyboardInterrupt):
        classifier(lr=interrupting(2, 4)).fit(X, Y, batch_size=2)


def test_the_handler_is_put_back_after_an_error():
    def fails(step):
        raise RuntimeError("no rate today")

    with pytest.raises(RuntimeError, match="no rate today"):
        classifier(lr=fails).fit(X, Y)
