"""The playground's network: it learns what was chosen, its code and pictures are its own, its thread ends."""

import json
import math
import queue
import socket
from base64 import b64decode
from dataclasses import asdict, replace

import numpy as np
import pytest

import xpnet as xn
from xpnet import cli, play
from xpnet.errors import DataError
from xpnet.play import pictures, points, recipe, session
from xpnet.play.settings import ACTIVATIONS, CHOICES, DEFAULTS, LOSSES, OPTIMIZERS, Settings, read

SECONDS = 60
SMALL = Settings(samples=100, hidden=(4, 3), batch=50, noise=0.05)
DRAWN = ((-0.5, 0.5, 0), (0.25, -0.125, 1), (0.5, 0.5, 2))


def sent(settings):
    """Return settings as a page sends them."""
    return json.loads(json.dumps(asdict(settings)))


class Page:
    """Sits where a page does: gives orders to a session and reads its messages."""

    def __init__(self, settings=SMALL, backends=("numpy",)):
        self.messages = queue.Queue()
        self.session = session.Session(self.messages.put, backends)
        self.session.start()
        self.next("frame")
        self.shown = self.set(settings)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.session.close()
        assert not self.session.alive(SECONDS)

    def next(self, kind):
        """Return the next message of a kind."""
        while True:
            message = self.messages.get(timeout=SECONDS)
            json.dumps(message, allow_nan=False)
            if message["kind"] == kind:
                return message

    def do(self, what, kind="frame"):
        self.session.order({"do": what})
        return self.next(kind)

    def set(self, settings, kind="frame"):
        self.session.order({"do": "set", "settings": sent(settings)})
        return self.next(kind)


def numbers(text):
    return np.frombuffer(b64decode(text), "<f4")


def shades(text):
    return np.frombuffer(b64decode(text), np.uint8)


# What can be chosen


@pytest.mark.parametrize("settings", list(DEFAULTS.values()), ids=list(DEFAULTS))
def test_where_the_page_begins_can_be_read(settings):
    assert read(sent(settings), ("numpy",)) == settings


WRONG = {
    "no object": ([], "settings must be an object with data, classes, "),
    "one missing": ({"data": None}, "settings must be an object with data, classes, "),
    "one too many": ({"extra": 1}, "settings must be an object with data, classes, "),
    "another backend": ({"backend": "torch"}, "backend must be one of numpy, got 'torch'"),
    "code for a name": ({"activation": "__import__('os')"}, "activation must be one of tanh, relu, "),
    "a list for a name": ({"loss": ["hinge"]}, "loss must be one of cross-entropy, "),
    "True for a number": ({"batch": True}, "batch must be one of 1, 5, "),
    "a rate between": ({"rate": 0.02}, "rate must be one of 0.0001, "),
    "a rate that is infinite": ({"rate": math.inf}, "rate must be one of 0.0001, "),
    "too many layers": ({"hidden": [2] * 5}, "hidden must be a list of at most 4, got"),
    "too many units": ({"hidden": [33]}, "units of a layer must be an integer in 1..32, got 33"),
    "no units": ({"hidden": [0]}, "units of a layer must be an integer in 1..32, got 0"),
    "half a unit": ({"hidden": [1.5]}, "units of a layer must be an integer in 1..32, got 1.5"),
    "a seed below 0": ({"seed": -1}, "seed must be an integer in 0..9999, got -1"),
    "too many points": ({"points": [[0, 0, 0]] * 601}, "points must be a list of at most 600, got"),
    "half a point": ({"points": [[0, 0]]}, "a point must be [x, y, class], within -1.25..1.25, "),
    "a point outside": ({"points": [[0, 1.3, 0]]}, "a point must be [x, y, class], within -1.25..1.25, "),
    "a point far outside": ({"points": [[0, 10**400, 0]]}, "a point must be [x, y, class], within -1.25..1.25, "),
    "a point nowhere": ({"points": [[0, math.nan, 0]]}, "a point must be [x, y, class], within -1.25..1.25, "),
    "a class of no point": ({"points": [[0, 0, 4]]}, "a point must be [x, y, class], within -1.25..1.25, "),
    "a class too many": ({"data": "own", "points": [[0, 0, 2]]}, "classes must be more than 2: "),
    "too many samples": ({"samples": 5000}, "spirals takes 100 to 1000 samples and batches of at least 1, got 5000"),
    "small batches of MNIST": (
        {"data": "mnist", "samples": 1000, "batch": 1},
        "mnist takes 1000 to 10000 samples and ",
    ),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_what_is_not_on_the_lists_is_refused_in_a_line(name):
    changed, expected = WRONG[name]
    given = sent(SMALL) | changed if isinstance(changed, dict) else changed
    given = {k: v for k, v in given.items() if v is not None} if isinstance(given, dict) else given
    with pytest.raises(DataError) as caught:
        read(given, ("numpy",))
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("order", [None, 3, "run", [], {}, {"do": "exec"}, {"do": ["run"]}, {"do": None}], ids=str)
def test_what_is_no_order_is_refused(order):
    one = session.Session(print)
    with pytest.raises(DataError, match=r'^an order must be an object whose "do" is one of set, run, pause, step, '):
        one.order(order)


def test_of_orders_that_wait_there_are_not_too_many():
    one = session.Session(print)
    for _ in range(50):
        one.order({"do": "step"})
    with pytest.raises(DataError, match=r"^50 orders are waiting: send fewer$"):
        one.order({"do": "step"})


# Data


@pytest.mark.parametrize("make", [points.gaussians, points.circles, points.xor], ids=lambda make: make.__name__)
def test_points_are_the_same_for_a_seed_and_lie_in_the_plane(make):
    x, labels = make(300, seed=3)
    assert x.shape == (300, 2)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(labels, np.arange(300) % 2)
    np.testing.assert_array_equal(x, make(300, seed=3)[0])
    assert not np.array_equal(x, make(300, seed=4)[0])
    assert np.abs(x).max() < 1.5


def test_points_without_noise_are_where_they_should_be():
    x, labels = points.circles(90, classes=3, noise=0.0)
    np.testing.assert_allclose(np.hypot(*x.T), (labels + 0.5) / 3, rtol=1e-5)
    x, labels = points.xor(100, noise=0.0)
    np.testing.assert_array_equal(x[:, 0] * x[:, 1] < 0, labels == 1)
    x, labels = points.gaussians(4000, classes=4, noise=0.0)
    centres = np.stack([x[labels == k].mean(axis=0) for k in range(4)])
    np.testing.assert_allclose(np.hypot(*centres.T), 0.6, atol=0.02)


# The code


def variations():
    """Every loss, optimizer, activation and kind of data, once at least."""
    longest = max(len(LOSSES), len(OPTIMIZERS), len(ACTIVATIONS))
    for k in range(longest):
        loss, optimizer = list(LOSSES)[k % len(LOSSES)], list(OPTIMIZERS)[k % len(OPTIMIZERS)]
        data, activation = [*CHOICES["data"][:5]][k % 5], list(ACTIVATIONS)[k % len(ACTIVATIONS)]
        yield replace(SMALL, loss=loss, optimizer=optimizer, activation=activation, data=data, points=DRAWN, classes=3)
    yield replace(DEFAULTS["mnist"], samples=1000, hidden=(5,), dropout=0.2, batch=100, seed=3)


def test_the_variations_leave_nothing_out():
    for name, all_of_them in (("loss", LOSSES), ("optimizer", OPTIMIZERS), ("activation", ACTIVATIONS)):
        assert {getattr(one, name) for one in variations()} == set(all_of_them)
    assert {one.data for one in variations()} == set(CHOICES["data"])


def of(settings):
    return f"{settings.data}-{settings.activation}-{settings.loss}-{settings.optimizer}"


@pytest.mark.parametrize("settings", list(variations()), ids=of)
def test_the_code_makes_the_same_network_to_the_last_bit(settings, capsys):
    with Page(settings) as page:
        page.do("step")
        page.set(replace(settings, rate=0.001, decay=0.01))
        page.do("step")
        shown = page.do("step")
        model = page.session.model
        assert model.epoch == 3
        space = {}
        exec(shown["code"], space)
    np.testing.assert_array_equal(space["model"].theta, model.theta)
    accuracy = shown["accuracy"].get("test", shown["accuracy"]["train"])
    assert capsys.readouterr().out == f"{accuracy:.1%}\n"


def test_the_code_says_where_it_is_not_exact():
    drawn = replace(SMALL, data="own", points=DRAWN, classes=3)
    with Page(drawn) as page:
        assert "not quite what was seen" not in page.do("step")["code"]
        assert "not quite what was seen" in page.set(replace(drawn, points=DRAWN[:2]))["code"]
        assert "not quite what was seen" not in page.do("restart")["code"]


def test_settings_that_change_very_often_make_no_long_code():
    with Page() as page:
        for k in range(30):
            page.set(replace(SMALL, rate=(0.01, 0.03)[k % 2]))
            shown = page.do("step")
    assert shown["code"].count("model.fit") == session.MOST_STAGES
    assert "not quite what was seen" in shown["code"]


# The session


def test_it_learns_the_spirals():
    with Page(Settings(speed=0)) as page:
        shown = page.do("run")
        while shown["epoch"] < 300 and not shown["accuracy"]["test"] >= 0.95:
            shown = page.next("frame")
        assert shown["accuracy"]["test"] >= 0.95
        assert shown["running"]
        shown = page.do("pause")
        while shown["running"]:
            shown = page.next("frame")


def test_a_step_is_an_epoch_and_a_restart_the_same_again():
    with Page() as page:
        first, second = page.do("step"), page.do("step")
        assert [page.shown["epoch"], first["epoch"], second["epoch"]] == [0, 1, 2]
        again = page.do("restart")
        assert again == page.shown
        assert page.do("step")["weights"] == first["weights"] != second["weights"]


def test_rate_and_batch_go_on_with_what_was_learned_and_other_layers_begin_anew():
    with Page() as page:
        learned = page.do("step")
        for change in ({"rate": 0.1}, {"decay": 0.1}, {"batch": 20}, {"speed": 5}):
            shown = page.set(replace(page.session.settings, **change))
            assert (shown["epoch"], shown["weights"]) == (1, learned["weights"])
        assert page.session.model.optimizer.lr == 0.1
        assert page.session.model.optimizer.weight_decay == 0.1
        for change in ({"hidden": (4,)}, {"activation": "relu"}, {"loss": "hinge"}, {"noise": 0.2}, {"seed": 1}):
            page.do("step")
            assert page.set(replace(page.session.settings, **change))["epoch"] == 0


def test_a_network_that_diverges_is_told_in_a_line_and_stays_as_it_was():
    with Page(replace(SMALL, optimizer="SGD", loss="squared error", activation="relu", rate=10.0)) as page:
        page.session.order({"do": "run"})
        told = page.next("error")
        assert "theta is as it was before" in told["text"]
        assert "\n" not in told["text"]
        assert not page.session.running
        assert np.all(np.isfinite(numbers(page.do("pause")["weights"][0])))


def test_without_points_there_is_nothing_to_learn():
    with Page(replace(SMALL, data="own")) as page:
        assert page.shown["accuracy"] == {}
        assert page.do("step", "error")["text"] == "there is nothing to learn yet: draw at least 2 points"
        assert page.set(replace(SMALL, data="own", points=DRAWN[:2]), "data")["train"]["labels"] == [0, 1]
        assert page.next("frame")["epoch"] == 0
        assert page.do("step")["epoch"] == 1


def test_speed_is_epochs_a_second(monkeypatch):
    with Page(replace(SMALL, speed=20)) as page:
        epochs = []
        monkeypatch.setattr(page.session, "_train", lambda n: epochs.append(n))
        now = [100.0]
        monkeypatch.setattr(session.time, "perf_counter", lambda: now[0])
        page.session._advance()
        assert (epochs, page.session._due) == ([2], 100.1)


def test_the_backends_that_can_be_used_are_found_when_asked_for(monkeypatch):
    monkeypatch.setattr(session, "available_backends", lambda: {"numpy": ["cpu"], "strict": ["device1", "device2"]})
    session.usable.cache_clear()
    with Page() as page:
        with pytest.raises(DataError, match="backend must be one of numpy, got 'strict:device2'"):
            page.set(replace(SMALL, backend="strict:device2"))
        found = page.do("look", "backends")["backends"]
        assert found == ("numpy", "strict:device1", "strict:device2")
        before = page.do("step")
        page.set(replace(SMALL, backend="strict:device2"))
        assert "device2" in str(page.session.model.backend)
        after = page.do("step")
        assert after["loss"]["train"] == pytest.approx(before["loss"]["train"], rel=1e-5)
    session.usable.cache_clear()


def test_a_session_ends_while_it_runs():
    page = Page(replace(SMALL, speed=0))
    page.do("run")
    assert page.session.alive()
    page.session.close()
    assert not page.session.alive(SECONDS)


# Pictures


def test_pictures_are_what_the_network_gives(backend):
    settings = replace(SMALL, backend=str(backend.name), classes=3)
    data, model = recipe.data(settings), recipe.model(replace(settings, backend=backend))
    shown = pictures.Studio(model, settings, data).draw()
    theta = backend.asnumpy(model.theta)
    weight = numbers(shown["weights"][0]).reshape(2, 4)
    np.testing.assert_array_equal(weight, theta[:8].reshape(2, 4))
    np.testing.assert_array_equal(numbers(shown["biases"][0]), theta[8:12])
    loss, gradient = model.objective(data.x, data.labels)(theta)
    assert shown["loss"]["train"] == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(numbers(shown["gradients"][0]), gradient[:8], rtol=1e-3, atol=1e-6)
    side = np.linspace(-1.25, 1.25, pictures.SIDE, dtype=np.float32)
    corner = np.array([[side[0], side[-1]], [side[-1], side[-1]], [side[0], side[0]]], np.float32)
    scores = model.predict(corner)
    seen = shades(shown["regions"]["seen"]).reshape(pictures.SIDE, pictures.SIDE)
    assert [seen[0, 0], seen[0, -1], seen[-1, 0]] == scores.argmax(axis=1).tolist()
    unit = shades(shown["units"][0][2]).reshape(36, 36).astype(int) - 128
    given = np.tanh(corner[:1] @ weight)[0, 2]
    assert np.sign(unit[0, 0]) == np.sign(given)
    assert [len(units) for units in shown["units"]] == [4, 3, 3]


def test_pictures_of_images_are_the_weights_multiplied_through():
    settings = replace(DEFAULTS["mnist"], samples=1000, hidden=(5, 4))
    data, model = recipe.data(settings), recipe.model(settings)
    shown = pictures.Studio(model, settings, data).draw()
    windows = model.net.windows(model.theta)
    through = windows["2.weight"] @ windows["4.weight"] @ windows["6.weight"]
    expected = through[:, 7] / np.abs(through[:, 7]).max()
    np.testing.assert_allclose((shades(shown["units"][2][7]) - 128.0) / 127, expected, atol=0.005)
    assert shown["taken"] == model.predict(data.test[0][:40]).argmax(axis=1).tolist()
    assert [len(units) for units in shown["units"]] == [5, 4, 10]
    assert shown["weights"][0] == ""
    first = np.frombuffer(b64decode(pictures.shown(settings, data)["digits"][0]), np.uint8)
    np.testing.assert_array_equal(first.reshape(28, 28), data.test[0][0])


# The command


def test_without_the_extra_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(play, "find_spec", lambda name: None if name == "uvicorn" else True)
    assert cli.main(["play"]) == 2
    assert capsys.readouterr() == ("", "the playground needs uvicorn: pip install 'xpnet[play]'\n")


def refused(capsys, monkeypatch, *words):
    monkeypatch.setattr(play, "find_spec", lambda name: True)
    assert cli.main(["play", "--no-browser", *words]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err


def test_a_port_that_is_taken_is_told_in_a_line(monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert refused(capsys, monkeypatch, "--port", port).startswith(f"cannot listen on port {port} of 127.0.0.1 (")
    assert refused(capsys, monkeypatch, "--port", "65536") == "--port must be in 0..65535, got 65536\n"


def test_a_backend_that_nobody_knows_is_told_in_a_line(monkeypatch, capsys):
    assert refused(capsys, monkeypatch, "--backend", "abacus").startswith('unknown backend "abacus": choose one of ')


def test_the_browser_is_opened_at_the_address_that_is_printed(monkeypatch, capsys):
    served, opened = [], queue.Queue()
    server = type("server", (), {"serve": staticmethod(lambda *given: served.append(given))})
    monkeypatch.setitem(__import__("sys").modules, "xpnet.play.server", server)
    monkeypatch.setattr(play, "find_spec", lambda name: True)
    monkeypatch.setattr(play.webbrowser, "open", opened.put)
    monkeypatch.setenv("XPNET_BACKEND", "numpy")
    assert cli.main(["play"]) == 0
    address = capsys.readouterr().out.splitlines()[0]
    assert opened.get(timeout=SECONDS) == address
    ((_, token, backend),) = served
    assert address.endswith(f"/{token}/")
    assert address.startswith("http://127.0.0.1:")
    assert (len(token), backend) == (32, "numpy")
    assert xn.backend(backend).name == "numpy"
