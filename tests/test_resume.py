"""Training that was cut off goes on to the same bits: checkpoints within an epoch, between epochs, while saving."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import nullcontext

import numpy as np
import pytest

import xpnet as xn
from xpnet.data import batches

N, FEATURES, CLASSES = 203, 6, 3


def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(N, FEATURES)).astype("float32"), rng.integers(0, CLASSES, N)


def model(backend):
    net = xn.Sequential(xn.Linear(FEATURES, 16), xn.ReLU(), xn.Dropout(0.2), xn.Linear(16, CLASSES))
    optimizer = xn.AdamW(xn.one_cycle(0.01, steps=100), clip_norm=1.0)
    return xn.Model(net, xn.cross_entropy, optimizer, seed=3, backend=backend, metrics=["accuracy"])


class CutError(Exception):
    pass


def cut_after(monkeypatch, saves):
    """Make the training fail right after so many checkpoints."""
    save, count = xn.model.checkpoint.save, [0]

    def counted(*args):
        save(*args)
        count[0] += 1
        if count[0] == saves:
            raise CutError

    monkeypatch.setattr(xn.model.checkpoint, "save", counted)


def same(backend, one, other):
    assert np.array_equal(backend.asnumpy(one.theta), backend.asnumpy(other.theta))
    for a, b in zip(one.state.slots, other.state.slots, strict=True):
        for x, y in zip(one.net.windows(a).values(), other.net.windows(b).values(), strict=True):
            assert np.array_equal(backend.asnumpy(x), backend.asnumpy(y))
    assert (one.state.t, one.epoch) == (other.state.t, other.epoch)


def numbers(history):
    return {key: values for key, values in history.items() if key != "seconds"}


@pytest.mark.parametrize("saves", [1, 2, 5, 8])
@pytest.mark.parametrize("every", [None, 3])
def test_resumed_training_has_the_same_bits_and_history(backend, tmp_path, monkeypatch, saves, every):
    x, y = data()
    whole = model(backend)
    expected = whole.fit(x, y, epochs=8, batch_size=16, validation=50)
    path = tmp_path / "run.safetensors"
    with monkeypatch.context() as patch:
        cut_after(patch, saves)
        with pytest.raises(CutError):
            model(backend).fit(x, y, epochs=8, batch_size=16, validation=50, checkpoint=path, every=every)
    resumed = xn.load(path, backend)
    assert resumed.underway is not None
    history = resumed.resume(x, y, validation=50, checkpoint=path, every=every)
    same(backend, resumed, whole)
    assert numbers(history) == numbers(expected)
    assert resumed.underway is None
    same(backend, xn.load(path, backend), whole)


def test_checkpoints_within_an_epoch_hold_a_position(tmp_path, monkeypatch):
    x, y = data()
    monkeypatch.setattr(batches, "steps_per_call", lambda full, most: 2)
    cut_after(monkeypatch, 1)
    path = tmp_path / "run.safetensors"
    with pytest.raises(CutError):
        model("numpy").fit(x, y, epochs=2, batch_size=16, checkpoint=path, every=3)
    run = xn.load(path).underway
    assert (run.position, run.first, run.until, run.batch_size) == (64, 0, 2, 16)


@pytest.mark.parametrize("saves", [2, 4, 7])
def test_early_stopping_goes_on_with_its_best(tmp_path, monkeypatch, saves):
    x, y = data()

    def stopping():
        return xn.EarlyStopping(patience=5)

    whole = model("numpy")
    expected = whole.fit(x, y, epochs=40, batch_size=16, validation=50, callbacks=[stopping()])
    assert 7 < len(expected["epoch"]) < 40
    path = tmp_path / "run.safetensors"
    with monkeypatch.context() as patch:
        cut_after(patch, saves)
        with pytest.raises(CutError):
            model("numpy").fit(x, y, 40, 16, validation=50, callbacks=[stopping()], checkpoint=path)
    resumed = xn.load(path)
    with pytest.raises(xn.DataError, match="the run's EarlyStopping must go on, got the callbacks none: pass the"):
        resumed.resume(x, y, validation=50)
    history = resumed.resume(x, y, validation=50, callbacks=[stopping()], checkpoint=path)
    assert numbers(history) == numbers(expected)
    assert history.stopped == expected.stopped
    same(xn.backend("numpy"), resumed, whole)


def test_after_ctrl_c_the_run_can_go_on_in_memory():
    x, y = data()

    class Press(xn.Callback):
        def on_epoch_end(self, model, history):
            if model.epoch == 2:
                signal.raise_signal(signal.SIGINT)

    whole = model("numpy")
    whole.fit(x, y, epochs=4, batch_size=16, callbacks=[xn.Callback()])
    stopped = model("numpy")
    history = stopped.fit(x, y, epochs=4, batch_size=16, callbacks=[Press()])
    assert history.stopped == "Ctrl-C"
    assert stopped.epoch == 2
    assert stopped.resume(x, y).stopped is None
    same(xn.backend("numpy"), stopped, whole)


def test_what_cannot_be_resumed_says_so(tmp_path, monkeypatch):
    x, y = data()
    path = tmp_path / "run.safetensors"
    finished = model("numpy")
    finished.fit(x, y, epochs=1, checkpoint=path)
    with pytest.raises(xn.DataError, match="nothing to resume, the training was finished: call fit"):
        xn.load(path).resume(x, y)
    with monkeypatch.context() as patch:
        cut_after(patch, 1)
        with pytest.raises(CutError):
            model("numpy").fit(x, y, epochs=3, batch_size=16, checkpoint=path)
    with pytest.raises(xn.DataError, match="the data are not those that this run was trained on"):
        xn.load(path).resume(x + 1, y)
    with pytest.raises(ValueError, match="fit: every must be an integer of at least 1, got 0"):
        model("numpy").fit(x, y, checkpoint=path, every=0)


def test_other_rules_are_warned_of(tmp_path, monkeypatch):
    x, y = data()
    path = tmp_path / "run.safetensors"
    with monkeypatch.context() as patch:
        cut_after(patch, 1)
        with pytest.raises(CutError):
            model("numpy").fit(x, y, epochs=3, batch_size=16, checkpoint=path)
    bits = xn.backend("numpy").bits() | {"rules": "others"}
    monkeypatch.setattr(type(xn.backend("numpy")), "bits", lambda self: bits)
    with pytest.warns(xn.DataWarning, match="will differ in its last bits: rules .*, others here"):
        xn.load(path)


CHILD = """
    import sys, numpy as np, xpnet as xn
    sys.path.insert(0, {tests!r})
    from test_resume import data, model
    x, y = data()
    path = {path!r}
    try:
        one = xn.load(path)
        resume = one.underway is not None
    except xn.CheckpointError:
        one, resume = model("numpy"), None
    print("ready", flush=True)
    if resume:
        one.resume(x, y, checkpoint=path, every=1)
    elif resume is None:
        one.fit(x, y, epochs=100, batch_size=4, checkpoint=path, every=1)
    np.save({out!r}, one.theta)
"""


@pytest.mark.posix
@pytest.mark.slow
def test_a_killed_process_loses_nothing(tmp_path):
    """SIGKILL at random moments, most of them while saving, since a checkpoint is written after every few steps."""
    path, out = tmp_path / "run.safetensors", tmp_path / "theta.npy"
    x, y = data()
    whole = model("numpy")
    whole.fit(x, y, epochs=100, batch_size=4)
    script = textwrap.dedent(CHILD).format(tests=os.path.dirname(__file__), path=str(path), out=str(out))
    rng = np.random.default_rng(0)
    kills = 0
    for _ in range(60):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as child:
            child.stdout.readline()
            if kills < 6:
                time.sleep(rng.uniform(0.02, 0.2))
                child.kill()
        kills += child.returncode == -signal.SIGKILL
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL
        if path.exists():
            xn.load(path)
    assert kills == 6
    assert np.array_equal(np.load(out), whole.theta)


class Counter(xn.Callback):
    """Counts its epochs, and remembers NumPy's numbers."""

    def on_train_begin(self, model):
        self.epochs, self.seen = 0, []

    def on_epoch_end(self, model, history):
        self.epochs += 1
        self.seen.append(history["loss"][-1])

    def state(self):
        return {"epochs": np.int64(self.epochs), "seen": self.seen, "last": np.asarray(len(self.seen)), "who": "me"}

    def restore(self, model, state):
        self.epochs, self.seen = state["epochs"], list(state["seen"])


class Other(Counter):
    pass


def test_callbacks_are_found_again_in_any_order(backend, tmp_path, monkeypatch):
    """Numbers of NumPy, lists and vectors are kept; what a callback counted goes on."""
    x, y = data()
    path = tmp_path / "run"
    stopping = {"patience": 3, "mode": "min"}
    whole, history = model(backend), [Counter(), xn.EarlyStopping("loss", **stopping), Other()]
    whole.fit(x, y, epochs=5, batch_size=32, callbacks=history)
    cut_after(monkeypatch, 3)
    with pytest.raises(CutError):
        model(backend).fit(
            x, y, epochs=5, batch_size=32, checkpoint=path, callbacks=[Other(), Counter(), xn.EarlyStopping("loss")]
        )
    monkeypatch.undo()
    again = [xn.EarlyStopping("loss", **stopping), Counter(), xn.Callback(), Other()]
    resumed = xn.load(path, backend)
    resumed.resume(x, y, callbacks=again)
    same(backend, resumed, whole)
    assert (again[1].epochs, again[3].epochs) == (5, 5)
    assert again[1].seen == again[3].seen == history[0].seen
    assert again[0].best == history[1].best


def test_a_state_that_no_file_can_hold_is_named(tmp_path):
    class Odd(xn.Callback):
        def state(self):
            return {"thing": object()}

    x, y = data()
    with pytest.raises(TypeError, match=r'^Odd: state "thing" must be a number, text, a list of them or a vector like'):
        model("numpy").fit(x, y, callbacks=[Odd()], checkpoint=tmp_path / "run")


@pytest.mark.parametrize("to", ["numpy", "jax", "torch", "strict"])
@pytest.mark.parametrize("kind", ["int64", "list", "float64"])
def test_the_same_numbers_are_the_same_data_on_every_backend(to, kind, tmp_path, monkeypatch):
    pytest.importorskip({"strict": "array_api_strict"}.get(to, to), reason=f"{to} is not installed")
    x, y = data()
    x = {"int64": (x * 10).astype("int64"), "list": (x * 10).astype(int).tolist(), "float64": x.astype("float64")}[kind]
    path = tmp_path / "run"
    cut_after(monkeypatch, 1)
    with pytest.raises(CutError):
        model("numpy").fit(x, y, epochs=2, batch_size=32, checkpoint=path)
    monkeypatch.undo()
    with pytest.warns(xn.DataWarning, match="last bits") if to != "numpy" else nullcontext():
        resumed = xn.load(path, to)
    assert resumed.resume(x, y)["epoch"] == [1, 2]


def test_what_cannot_be_saved_is_refused_before_training(tmp_path):
    x, y = data()
    one = model("numpy")
    one.metrics = {"first": lambda prediction, target: prediction[0, 0]}
    with pytest.raises(xn.CheckpointError, match="lambda"):
        one.fit(x, y, checkpoint=tmp_path / "run")
    assert one.state.t == 0
    one = model("numpy")
    with pytest.raises(xn.CheckpointError, match="cannot write"):
        one.fit(x, y, checkpoint=tmp_path / "no" / "folder" / "run")
    assert one.state.t == 0
    assert model("numpy").fit(x, y, checkpoint=tmp_path / "run", every=np.int64(4))["epoch"] == [1]


def test_the_end_is_told_however_training_ends():
    ends = []

    class Watch(xn.Callback):
        def on_train_end(self, model, history):
            ends.append((model.underway is None, history.stopped))

    class Fails(xn.Callback):
        def on_epoch_end(self, model, history):
            raise ValueError("no more")

    x, y = data()
    model("numpy").fit(x, y, callbacks=[Watch()])
    with pytest.raises(ValueError, match="no more"):
        model("numpy").fit(x, y, epochs=2, callbacks=[Watch(), Fails()])
    bad = model("numpy")
    bad.optimizer = xn.SGD(lambda step: float("nan"))
    with pytest.raises(xn.NonFiniteError):
        bad.fit(x, y, callbacks=[Watch()])
    assert ends == [(True, None), (False, None), (False, None)]
