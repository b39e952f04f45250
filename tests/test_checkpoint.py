import errno
import json
import os
import re
import stat
from dataclasses import dataclass

import numpy as np
import pytest

import xpnet as xn
from xpnet.errors import CheckpointError
from xpnet.files import description, storage

X = np.random.default_rng(0).normal(size=(20, 3)).astype("float32")
Y = np.arange(20) % 2
NET = xn.Sequential(
    xn.Linear(3, 4, initializer="he"), xn.Residual(xn.Linear(4, 4), xn.Tanh()), xn.Dropout(0.2), xn.Linear(4, 2)
)


def trained(backend="numpy", optimizer=None, **settings):
    optimizer = optimizer or xn.AdamW(xn.warmup(xn.cosine(0.05, 40), 3), weight_decay=0.1, clip_norm=1.0)
    model = xn.Model(NET, xn.cross_entropy, optimizer, seed=3, backend=backend, metrics=["accuracy"], **settings)
    model.fit(X, Y, epochs=2, batch_size=8)
    return model


def home(model):
    return np.array(model.backend.asnumpy(model.theta))


def slots(model):
    windows = [model.net.windows(slot) for slot in model.state.slots]
    return [np.array(model.backend.asnumpy(w)) for slot in windows for w in slot.values()]


def same(a, b):
    return len(a) == len(b) and all(np.array_equal(p, q) and p.dtype == q.dtype for p, q in zip(a, b, strict=True))


# Round trips


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_everything_comes_back(backend, dtype, tmp_path):
    model = trained(backend, dtype=dtype)
    model.save(tmp_path / "model")
    for place in dict.fromkeys((backend, xn.backend("numpy"))):
        found = xn.load(tmp_path / "model", backend=place)
        assert (found.net, found.loss, found.optimizer, found.metrics) == (
            model.net, model.loss, model.optimizer, model.metrics,
        )  # fmt: skip
        assert (found.seed, found.dtype, found.epoch, found.state.t) == (3, dtype, 2, 6)
        assert found.backend is place
        assert same([home(found)], [home(model)])
        assert same(slots(found), slots(model))
    assert len(slots(model)) == 2 * 6  # both means


def test_from_one_backend_to_another(backend, tmp_path):
    model = trained("numpy")
    model.save(tmp_path / "model")
    found = xn.load(tmp_path / "model", backend=backend)
    assert same([home(found)], [home(model)])
    assert same(slots(found), slots(model))
    found.fit(X, Y, epochs=1, batch_size=8)
    model.fit(X, Y, epochs=1, batch_size=8)
    assert np.max(np.abs(home(found) - home(model))) < 1e-4


@pytest.mark.parametrize(
    "optimizer",
    [
        xn.SGD(0.1),
        xn.SGD(0.1, 0.9, nesterov=True, weight_decay=0.1),
        xn.RMSProp(),
        xn.Adam(0.01),
        xn.Adam(0.01, amsgrad=True),
        xn.NAdam(0.01),
        xn.Adagrad(0.1),
        xn.Lion(0.01, weight_decay=0.1),
        xn.AdamW(xn.cosine(0.01, steps=99), rates={"0.*": 0.5, "0.bias": 2}, decays={"*": 1}, clip_norm=1.0),
    ],
    ids=str,
)
def test_training_goes_on_as_if_it_had_not_stopped(optimizer, tmp_path):
    whole, half = trained(optimizer=optimizer), trained(optimizer=optimizer)
    half.save(tmp_path / "half")
    found = xn.load(tmp_path / "half", backend="numpy")
    expected = whole.fit(X, Y, epochs=2, batch_size=8)
    history = found.fit(X, Y, epochs=2, batch_size=8)
    assert same([home(found), *slots(found)], [home(whole), *slots(whole)])
    assert {k: v for k, v in history.items() if k != "seconds"} == {k: v for k, v in expected.items() if k != "seconds"}


def test_a_loaded_model_does_not_hang_on_the_file(tmp_path):
    trained().save(tmp_path / "model")
    found = xn.load(tmp_path / "model", backend="numpy")
    (tmp_path / "model").unlink()
    found.fit(X, Y)


def test_a_network_without_parameters(tmp_path):
    xn.Model(xn.Sequential(xn.Flatten()), xn.mean_squared_error, xn.Adam(), backend="numpy").save(tmp_path / "model")
    assert xn.load(tmp_path / "model", backend="numpy").predict(np.ones((2, 3))).shape == (2, 3)


def test_numpy_numbers_are_saved_as_numbers(tmp_path):
    optimizer = xn.SGD(np.float32(0.5), momentum=np.float64(0.25))
    model = xn.Model(NET, xn.cross_entropy, optimizer, seed=np.int64(7), backend="numpy")
    model.save(tmp_path / "model")
    found = xn.load(tmp_path / "model", backend="numpy")
    assert (found.seed, found.optimizer) == (7, xn.SGD(0.5, momentum=0.25))


def test_everything_that_xpnet_has_can_be_described():
    nets = [
        xn.Sequential(xn.Flatten(), xn.Scale(0.5, -1.0), xn.Sequential(), xn.Residual(xn.GELU(), xn.SiLU())),
        xn.LeakyReLU(0.2), xn.Sigmoid(), xn.Softmax(), xn.ReLU(), xn.Linear(2, 3, bias=False, initializer="glorot"),
        xn.Linear(2, 3, initializer=xn.parameters.he),
    ]  # fmt: skip
    rates = [
        xn.constant(0.1),
        xn.step_decay(0.1, 5),
        xn.cosine(0.1, 9),
        xn.warmup(xn.constant(0.1), 5),
        xn.one_cycle(0.1, 9),
        xn.polynomial(0.1, epochs=2.5),
        xn.warm_restarts(0.1, 9, growth=2),
        xn.schedules.scaled(xn.cosine(0.1, 9, epochs=3), 0.5),
    ]
    functions = [xn.huber, xn.metrics.r2, xn.metrics.mean_absolute_error, xn.mean_absolute_error]
    for thing in (*nets, *map(xn.SGD, rates), *functions):
        data = json.loads(json.dumps(description.to_data(thing)))
        assert description.from_data(data) == thing
    assert description.to_data(xn.metrics.mean_absolute_error) != description.to_data(xn.mean_absolute_error)


def test_the_file_is_sound_safetensors(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    model = trained()
    model.save(tmp_path / "model")
    arrays = safetensors.load_file(tmp_path / "model")
    windows = model.net.windows(model.theta)
    assert same([arrays[name] for name in windows], list(windows.values()))
    assert {name.partition("/")[0] for name in arrays if "/" in name} == {"optimizer.0", "optimizer.1"}


# What xpnet does not know


@dataclass(frozen=True)
class Double(xn.Layer):
    by: float = 2.0

    def forward(self, params, x, ctx):
        return x * self.by, lambda dy, need_dx=True, out=(): (dy * self.by, ())


def cubic(prediction, target):
    error = prediction - target
    return (error**2).mean(), error


def always_one(prediction, target):
    return prediction.sum() * 0 + 1


def test_custom_things_must_be_handed_in(tmp_path):
    net = xn.Sequential(Double(3.0), xn.Linear(3, 1))
    model = xn.Model(net, cubic, xn.SGD(0.01), backend="numpy", metrics=[always_one])
    model.save(tmp_path / "model")
    things = {"Double": Double, "cubic": cubic, "always_one": always_one}
    for name in things:
        rest = [thing for other, thing in things.items() if other != name]
        with pytest.raises(
            CheckpointError, match=rf'it needs "custom\.{name}", which is not one of xpnet\'s: hand it in, custom='
        ):
            xn.load(tmp_path / "model", backend="numpy", custom=rest)
    found = xn.load(tmp_path / "model", backend="numpy", custom=list(things.values()))
    assert found.net == net
    assert found.loss is cubic
    assert np.array_equal(found.predict(X), model.predict(X))


def test_what_is_no_dataclass_cannot_be_saved(tmp_path):
    class Plain(Double):
        pass

    class Closed(xn.Layer):
        forward = Double.forward

    path = tmp_path / "model"
    xn.Model(Plain(), cubic, xn.SGD(0.01), backend="numpy").save(path)
    path.unlink()
    with pytest.raises(
        CheckpointError, match=r"^Closed cannot be saved: make it a frozen dataclass, so that its settings are data$"
    ):
        xn.Model(Closed(), cubic, xn.SGD(0.01), backend="numpy").save(path)
    assert not list(tmp_path.iterdir())


# Writing


def refuse(number):
    raise OSError(number, os.strerror(number))


def refuse_new_files(patch, number):
    opened = os.open
    patch.setattr(
        os, "open", lambda path, flags, *a, **k: refuse(number) if flags & os.O_EXCL else opened(path, flags, *a, **k)
    )


@pytest.mark.parametrize("step", ["open", "write", "fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "model"
    model = trained()
    model.save(path)
    before = path.read_bytes()

    with monkeypatch.context() as patch:
        if step == "open":
            refuse_new_files(patch, errno.ENOSPC)
        elif step == "write":
            patch.setattr(storage, "encode", lambda *args: Unreadable([(0, b"some"), (4, b"thing")]))
        else:
            patch.setattr(os, step, lambda *args: refuse(errno.ENOSPC))
        model.fit(X, Y)
        with pytest.raises(CheckpointError) as caught:
            model.save(path)
    assert str(caught.value) == f"cannot write {path}: No space left on device; what was there is untouched"
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    model.save(path)  # and next time it works
    assert path.read_bytes() != before
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


class Unreadable(list):
    """Pieces of a file, of which the second cannot be written."""

    def __iter__(self):
        yield self[0]
        refuse(errno.ENOSPC)


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained().save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.posix
def test_folders_that_cannot_be_written(tmp_path):
    model = trained()
    with pytest.raises(CheckpointError, match=rf"^cannot write {tmp_path}/no/model: No such file or directory; "):
        model.save(tmp_path / "no" / "model")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CheckpointError, match=rf"^cannot write {tmp_path}/folder: Is a directory; "):
        model.save(tmp_path / "folder")
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=rf"^cannot write {tmp_path}/file/model: Not a directory; "):
        model.save(tmp_path / "file" / "model")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.posix
def test_a_read_only_folder(tmp_path, monkeypatch):
    """The super-user may write everywhere, so the system's refusal is played."""
    model = trained()
    tmp_path.chmod(0o555)
    try:
        if os.access(tmp_path, os.W_OK):
            refuse_new_files(monkeypatch, errno.EACCES)
        with pytest.raises(
            CheckpointError, match=r"^cannot write .*/model: Permission denied; what was there is untouched$"
        ):
            model.save(tmp_path / "model")
    finally:
        tmp_path.chmod(0o755)
    assert not list(tmp_path.iterdir())


@pytest.mark.posix
def test_others_may_read_the_file_if_the_user_lets_them(tmp_path):
    before = os.umask(0o027)
    try:
        trained().save(tmp_path / "model")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == 0o640


def test_paths_may_be_text_and_the_file_holds_no_code(tmp_path):
    path = str(tmp_path / "model")
    trained().save(path)
    content = (tmp_path / "model").read_bytes()
    assert not re.search(rb"pickle|cposix|__reduce__", content)
    assert isinstance(xn.load(path, backend="numpy"), xn.Model)
