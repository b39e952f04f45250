"""Loggers, each on the real library, offline: what is written can be read back, and goes on where a run goes on."""

import csv
import json
import os
import socket
import struct
import sys
import time
from contextlib import suppress

import numpy as np
import pytest

import xpnet as xn

X = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
Y = np.arange(12) % 2


def classifier(lr=0.1):
    net = xn.Sequential(xn.Linear(3, 2))
    return xn.Model(net, xn.cross_entropy, xn.SGD(lr), backend="numpy", metrics=["accuracy"])


class Cut(xn.Callback):
    """The power is out after an epoch, before its checkpoint is written."""

    def on_epoch_end(self, model, history):
        if model.epoch == 3:
            raise RuntimeError("the power is out")


def interrupted(logger, folder):
    """Train 3 of 5 epochs, lose the third, and go on; return the whole history."""
    with pytest.raises(RuntimeError, match="the power is out"):
        classifier().fit(X, Y, 5, 5, callbacks=[logger(), Cut()], checkpoint=folder / "run", progress=False)
    found = xn.load(folder / "run", "numpy")
    assert found.epoch == 2
    return found.resume(X, Y, callbacks=[logger()], progress=False)


# What a line holds


class Lines(xn.loggers.Logger):
    def __init__(self, steps=False):
        super().__init__(steps)
        self.lines, self.log = [], []

    def open(self, model):
        self.log.append("open")

    def write(self, step, numbers):
        self.lines.append((step, dict(numbers)))

    def close(self, model, history):
        self.log.append("close")


def test_a_line_holds_what_the_history_does_of_an_epoch():
    class Sometimes(xn.Callback):
        def on_epoch_end(self, model, history):
            if model.epoch == 1:
                history.add(extra=1.0)

    lines = Lines()
    history = classifier().fit(X, Y, 2, 5, validation=4, callbacks=[Sometimes(), lines], progress=False)
    assert [step for step, _ in lines.lines] == [2, 4]
    for k, (_, numbers) in enumerate(lines.lines):
        expected = {name: values[k] for name, values in history.items() if name != "extra" or k == 0}
        assert numbers == expected
    assert lines.log == ["open", "close"]


def test_with_steps_there_is_a_line_after_each_call_of_k_steps():
    lines = Lines(steps=True)
    classifier().fit(X, Y, 1, 5, callbacks=[lines], progress=False)
    names = ["step/loss", "step/gradient_norm", "step/accuracy", "step/learning_rate"]
    assert [(step, list(numbers)) for step, numbers in lines.lines[:-1]] == [(2, names), (3, names)]
    assert lines.lines[-1][1]["epoch"] == 1


def test_without_an_epoch_nothing_is_opened():
    lines = Lines()
    with pytest.raises(xn.NonFiniteError):
        classifier(lr=lambda step: float("nan")).fit(X, Y, callbacks=[lines], progress=False)
    assert lines.log == []


@pytest.mark.parametrize(
    ("logger", "library"), [("TensorBoard", "tensorboardX"), ("MLflow", "mlflow"), ("WandB", "wandb")]
)
def test_a_missing_library_is_named_at_once(monkeypatch, logger, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"^{logger} needs {library}: pip install 'xpnet\[loggers\]'$"):
        getattr(xn.loggers, logger)("name") if logger == "TensorBoard" else getattr(xn.loggers, logger)()


# CSV


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_csv_file_holds_the_history_to_the_last_bit(tmp_path):
    path = tmp_path / "log.csv"
    history = classifier().fit(X, Y, 3, 5, validation=4, callbacks=[xn.loggers.CSVLog(path)], progress=False)
    assert list(rows(path)[0])[:3] == ["epoch", "step", "loss"]
    assert [float(row["step"]) for row in rows(path)] == [2, 4, 6]
    for name, values in history.items():
        assert [float(row[name]) for row in rows(path)] == values


def test_a_csv_file_goes_on_where_the_run_does(tmp_path):
    path = tmp_path / "log.csv"
    history = interrupted(lambda: xn.loggers.CSVLog(path), tmp_path)
    assert [float(row["epoch"]) for row in rows(path)] == [1, 2, 3, 4, 5]
    assert [float(row["loss"]) for row in rows(path)] == history["loss"]


def test_a_model_that_is_trained_on_appends_and_a_new_one_begins_anew(tmp_path):
    log, model = xn.loggers.CSVLog(tmp_path / "log.csv"), classifier()
    model.fit(X, Y, 2, callbacks=[log], progress=False)
    model.fit(X, Y, 1, validation=4, callbacks=[log], progress=False)  # a column more
    assert [row["epoch"] for row in rows(log.path)] == ["1", "2", "3"]
    assert [bool(row["val_loss"]) for row in rows(log.path)] == [False, False, True]
    classifier().fit(X, Y, 1, callbacks=[log], progress=False)
    assert [row["epoch"] for row in rows(log.path)] == ["1"]
    assert "val_loss" not in rows(log.path)[0]


def test_a_row_that_was_cut_off_is_written_again(tmp_path):
    log, model = xn.loggers.CSVLog(tmp_path / "log.csv"), classifier()
    model.fit(X, Y, 2, callbacks=[log], progress=False)
    whole = log.path.read_text()
    log.path.write_text(whole[:-4])
    model.fit(X, Y, 1, callbacks=[log], progress=False)
    assert [row["epoch"] for row in rows(log.path)] == ["1", "3"]


@pytest.mark.parametrize("content", [b"name,age\nx,3\n", b"\xff\xfe\x00\x01", b"epoch of the dinosaurs"])
def test_a_file_of_something_else_is_left_as_it_is(tmp_path, content):
    path = tmp_path / "people.csv"
    path.write_bytes(content)
    with pytest.raises(
        xn.DataError, match=r"people.csv is no log of CSVLog, it does not begin with epoch,step: choose"
    ):
        classifier().fit(X, Y, callbacks=[xn.loggers.CSVLog(path)], progress=False)
    assert path.read_bytes() == content


# TensorBoard


def events(folder):
    """Yield the events of a folder's files in their order; each is a length, a checksum, the event, a checksum."""
    proto = pytest.importorskip("tensorboardX.proto.event_pb2")
    for path in sorted(folder.glob("events.*"), key=lambda path: path.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            yield proto.Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def points(folder, name):
    found = {}
    for event in events(folder):
        if event.session_log.status == 1:  # START: later steps are hidden
            found = {step: value for step, value in found.items() if step < event.step}
        for value in event.summary.value:
            if value.tag == name:
                assert event.step not in found
                found[event.step] = value.simple_value
    return found


def test_tensorboard_reads_the_curves(tmp_path):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    log = xn.loggers.TensorBoard(tmp_path / "runs", steps=True)
    history = classifier().fit(X, Y, 3, 5, validation=4, callbacks=[log], progress=False)
    for name in ("loss", "val_accuracy", "learning_rate", "epoch"):
        expected = dict(zip([2, 4, 6], map(np.float32, history[name]), strict=True))
        assert points(tmp_path / "runs", name) == expected
    assert list(points(tmp_path / "runs", "step/loss")) == [1, 2, 3, 4, 5, 6]
    texts = [
        v.tensor.string_val for e in events(tmp_path / "runs") for v in e.summary.value if v.tag.startswith("model")
    ]
    assert b"Linear(3" in texts[0][0]


def test_tensorboard_hides_what_was_lost(tmp_path):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    history = interrupted(lambda: xn.loggers.TensorBoard(tmp_path / "runs"), tmp_path)
    found = points(tmp_path / "runs", "loss")
    assert found == dict(zip([3, 6, 9, 12, 15], map(np.float32, history["loss"]), strict=True))


# MLflow


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("DO_NOT_TRACK", "true")
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    mlflow.set_experiment("tests")
    yield mlflow
    while mlflow.active_run():
        mlflow.end_run()


pytestmark = pytest.mark.filterwarnings("ignore:::mlflow", "ignore:::wandb", "ignore:::google", "ignore:::pydantic")


def metric(mlflow, run, name):
    found = mlflow.MlflowClient().get_metric_history(run, name)
    return [(one.step, one.value) for one in found]


def test_mlflow_reads_the_curves_and_what_the_model_is_made_of(mlflow):
    log = xn.loggers.MLflow("first", steps=True)
    history = classifier().fit(X, Y, 2, 5, validation=4, callbacks=[log], progress=False)
    assert mlflow.active_run() is None
    for name in ("loss", "val_accuracy"):
        assert metric(mlflow, log.run, name) == list(zip([2, 4], history[name], strict=True))
    assert [step for step, _ in metric(mlflow, log.run, "step/loss")] == [1, 2, 3, 4]
    run = mlflow.get_run(log.run)
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")
    assert run.data.params["loss"] == "cross_entropy"
    assert run.data.params["parameters"] == "8"


def test_mlflow_writes_to_the_run_that_is_active_and_leaves_it_open(mlflow):
    log = xn.loggers.MLflow()
    with mlflow.start_run() as active:
        classifier().fit(X, Y, callbacks=[log], progress=False)
        classifier().fit(X, Y, callbacks=[log], progress=False)
        assert mlflow.active_run().info.run_id == active.info.run_id == log.run
    assert len(metric(mlflow, log.run, "loss")) == 2


def test_mlflow_goes_on_with_its_run(mlflow, tmp_path):
    made = []

    def logger():
        made.append(xn.loggers.MLflow("cut"))
        return made[-1]

    history = interrupted(logger, tmp_path)
    assert made[0].run == made[1].run
    assert [value for step, value in metric(mlflow, made[1].run, "loss") if step != 9][:2] == history["loss"][:2]
    assert mlflow.get_run(made[1].run).info.status == "FINISHED"


def test_mlflow_does_not_report_to_its_makers(mlflow, monkeypatch):
    monkeypatch.delenv("DO_NOT_TRACK")
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    xn.loggers.MLflow()
    assert mlflow.environment_variables.MLFLOW_DISABLE_TELEMETRY.get() is True


def test_mlflow_is_told_of_a_failure(mlflow):
    log = xn.loggers.MLflow()
    with pytest.raises(RuntimeError):
        classifier().fit(X, Y, 5, 5, callbacks=[log, Cut()], progress=False)
    assert mlflow.get_run(log.run).info.status == "FAILED"


# Weights & Biases


@pytest.fixture
def wandb(monkeypatch):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    return pytest.importorskip("wandb", reason="wandb is not installed")


def records(path):
    """Yield the records of an offline run's file: LevelDB's log, in blocks of 32 KiB, after a head of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def ended(path):
    """Return the records of an offline run's file; wandb's service may write the last a moment after `finish`."""
    from google.protobuf.message import DecodeError

    patience = time.monotonic() + 20
    while time.monotonic() < patience:
        with suppress(DecodeError):  # half written
            found = list(records(path))
            if found and found[-1].WhichOneof("record_type") == "exit":
                return found
        time.sleep(0.02)
    raise AssertionError(f"{path} has no end")


def offline(folder):
    """Return the numbers by step, and the config, of the offline run in a folder."""
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    lines, config = {}, {}
    for record in ended(path):
        numbers = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
        if numbers:
            lines[record.history.step.num] = {name: json.loads(text) for name, text in numbers.items()}
        for item in (*record.run.config.update, *record.config.update):
            config[item.key or item.nested_key[0]] = json.loads(item.value_json)
    return lines, config


def test_wandb_reads_an_offline_run(wandb, tmp_path, monkeypatch):
    called, connect = [], socket.socket.connect

    def watched(self, address):
        if self.family != getattr(socket, "AF_UNIX", None) and address[0] not in ("127.0.0.1", "localhost", "::1"):
            called.append(address)
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", watched)
    log = xn.loggers.WandB(project="tests", dir=tmp_path, steps=True)
    history = classifier().fit(X, Y, 2, 5, validation=4, callbacks=[log], progress=False)
    assert wandb.run is None
    assert called == []
    lines, config = offline(tmp_path)
    for k, step in enumerate((2, 4)):
        assert {name: lines[step][name] for name in history} == {name: values[k] for name, values in history.items()}
    assert [step for step, numbers in lines.items() if "step/loss" in numbers] == [1, 2, 3, 4]
    assert config["loss"] == "cross_entropy"


def test_wandb_writes_to_the_run_that_is_active_and_leaves_it_open(wandb, tmp_path):
    log = xn.loggers.WandB()
    with wandb.init(mode="offline", project="tests", dir=tmp_path) as active:
        classifier().fit(X, Y, callbacks=[log], progress=False)
        assert wandb.run is active
        assert log.run == active.id
    assert "loss" in offline(tmp_path)[0][1]


def test_wandb_goes_on_with_its_run(wandb, tmp_path):
    made = []

    def logger():
        made.append(xn.loggers.WandB(project="tests", dir=tmp_path / f"part{len(made)}"))
        (tmp_path / f"part{len(made)}").mkdir()
        return made[-1]

    (tmp_path / "part0").mkdir()
    history = interrupted(logger, tmp_path)
    assert made[0].run == made[1].run
    assert {step: numbers["loss"] for step, numbers in offline(tmp_path / "part1")[0].items()} == dict(
        zip([9, 12, 15], history["loss"][2:], strict=True)
    )


def test_wandb_is_offline_unless_the_users_settings_say_otherwise(wandb, monkeypatch):
    assert xn.loggers.WandB().settings["mode"] == "offline"
    assert xn.loggers.WandB(mode="disabled").settings["mode"] == "disabled"
    monkeypatch.setenv("WANDB_MODE", "online")
    assert xn.loggers.WandB().settings["mode"] == "online"
    assert xn.loggers.WandB(mode="offline").settings["mode"] == "offline"
