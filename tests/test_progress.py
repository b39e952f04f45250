"""What a person sees while training runs: it says what is true, fits the screen, and never ends training."""

import gc
import io
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import xpnet as xn
from xpnet.training import bar, progress
from xpnet.training.history import History
from xpnet.training.progress import Bars, Lines, Screen, say, screen

X = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
Y = np.arange(12) % 2


class Plain:
    """A stream that can be written, and knows nothing else."""

    written = ""

    def write(self, text):
        self.written += text


class Broken(Plain):
    """A stream that fails after some writes, as stderr does once its reader has left."""

    def __init__(self, error, after):
        self.error, self.left = error, after

    def write(self, text):
        self.left -= 1
        if self.left < 0:
            raise type(self.error)(*self.error.args)
        super().write(text)


class Watched(Plain):
    def isatty(self):
        return True


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


ERRORS = (BrokenPipeError(32, "Broken pipe"), OSError(28, "No space left"), ValueError("closed"), RuntimeError("gone"))
STREAMS = {"none": lambda: None, "closed": closed, "plain": Plain, "screen": Watched}
BROKEN = {
    f"{type(error).__name__} after {n}": lambda error=error, n=n: Broken(error, n) for error in ERRORS for n in (2, 8)
}


@pytest.fixture(autouse=True)
def _nothing_was_said_yet():
    progress.announce.cache_clear()


@pytest.fixture
def stderr(capsys):
    """What is written to stderr, which is no terminal."""

    class Seen:
        _so_far = ""

        @property
        def written(self):
            self._so_far += capsys.readouterr().err
            return self._so_far

    return Seen()


def classifier(metrics=()):
    net = xn.Sequential(xn.Linear(3, 2))
    return xn.Model(net, xn.cross_entropy, xn.SGD(0.1), backend="numpy", metrics=metrics)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *((name, how) for name in STREAMS for how in (None, True, False, "bar", "lines")),
        *((name, how) for name in BROKEN for how in ("bar", "lines")),
    ],
)
def test_a_missing_or_broken_stderr_never_ends_training(monkeypatch, name, how):
    stream = (STREAMS | BROKEN)[name]()
    monkeypatch.setattr(sys, "stderr", stream)
    history = classifier().fit(X, Y, 2, 4, progress=how)
    gc.collect()  # a bar that could not be drawn does not try again
    assert history["epoch"] == [1, 2]
    if name in ("plain", "screen"):
        assert ("epoch 2/2" in stream.written) == (how is not False)


@pytest.mark.parametrize("after", range(6))
def test_a_bar_is_nothing_from_the_first_failure_on(monkeypatch, after):
    stream = Broken(BrokenPipeError(32, "Broken pipe"), after)
    monkeypatch.setattr(sys, "stderr", stream)
    say("a line")
    with Bars() as bars:
        for epoch in (1, 2):
            bars.begin(epoch, 2, 10)
            for _ in range(10):
                bars.advance(1, lambda: {"loss": 0.5})
            bars.conclude(recorded(epoch), 10 * epoch, 10)
    gc.collect()
    if bars._broken:
        assert stream.left == -1 - (after < 2)  # tried once more after it failed for the line, else never again


def recorded(epoch, **numbers):
    history = History()
    numbers = {"loss": 0.25, **numbers}
    history.add(epoch=epoch, **numbers, learning_rate=0.1, seconds=0.5)
    return history


def test_what_the_numbers_say_is_not_hidden(monkeypatch):
    """A mistake in what is shown, not in showing it, is still a mistake."""
    monkeypatch.setattr(sys, "stderr", Watched())
    with Bars() as bars:
        bars.begin(1, 1, 10)
        with pytest.raises(ZeroDivisionError):
            bars.advance(1, lambda: {"loss": 1 / 0})


def test_ctrl_c_while_drawing_is_ctrl_c(monkeypatch):
    class Pressed(Plain):
        pressed = False

        def write(self, text):
            if not self.pressed:
                self.pressed = True
                raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stderr", Pressed())
    with pytest.raises(KeyboardInterrupt):
        Bars().begin(1, 1, 1)


@pytest.mark.parametrize(
    ("name", "asked", "kind"),
    [
        ("none", "bar", Screen),
        ("closed", None, Screen),
        ("closed", "lines", Screen),
        ("plain", None, Lines),
        ("plain", True, Lines),
        ("plain", "lines", Lines),
        ("plain", "bar", Bars),
        ("plain", False, Screen),
        ("screen", None, Bars),
        ("screen", True, Bars),
        ("screen", "lines", Lines),
        ("screen", False, Screen),
    ],
)
def test_a_bar_where_a_person_watches_and_lines_elsewhere(monkeypatch, name, asked, kind):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    monkeypatch.setattr(sys, "stderr", STREAMS[name]())
    assert type(screen(asked, xn.backend("numpy"))) is kind
    assert type(screen(asked, xn.backend("numpy"), rank=1)) is Screen


def test_another_wish_is_refused_before_training():
    model = classifier()
    with pytest.raises(ValueError, match=r'^fit: progress must be "bar", "lines", True or False, got \'dots\'$'):
        model.fit(X, Y, progress="dots")
    assert model.epoch == 0


def test_why_a_backend_was_chosen_is_said_once_a_process(stderr):
    for how in ("lines", "bar", "lines"):
        classifier().fit(X, Y, progress=how)
    assert stderr.written.startswith("training on numpy cpu, asked for by name\n")
    assert stderr.written.count("training on") == 1


# Lines


def test_a_line_an_epoch_says_how_it_went(stderr):
    model = classifier(["accuracy"])
    history = model.fit(X, Y, epochs=3, batch_size=4, validation=4)
    lines = stderr.written.splitlines()[1:]
    assert len(lines) == 3
    for k, line in enumerate(lines):
        names = ("loss", "accuracy", "val_loss", "val_accuracy")
        numbers = ", ".join(f"{name}={history[name][k]:.4g}" for name in names)
        start = f"epoch {k + 1}/3, step {2 * (k + 1)}: {numbers}, rate=0.1, "
        assert line.startswith(start)
        speed, span = re.fullmatch(r"([\d,]+) samples/s, 0:00:0\d (left|in all)", line.removeprefix(start)).groups()
        assert int(speed.replace(",", "")) == pytest.approx(8 / history["seconds"][k], abs=1)
        assert span == ("in all" if k == 2 else "left")


class Clock:
    """Time that goes by as it is told."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: self.now))


def written(monkeypatch, stderr, kind, seconds, of=100, until=100):
    """Return the numbers of the epochs that leave a line, if each takes so many seconds."""
    clock = Clock(monkeypatch)
    with kind() as shown:
        for epoch in range(1, until + 1):
            shown.begin(epoch, of, 10)
            clock.now += seconds
            shown.conclude(recorded(epoch), epoch, 10)
    return [int(number) for number in re.findall(r"epoch (\d+)/\d+[ ,][^\r\n]*(?=\n)", stderr.written)]


@pytest.mark.parametrize("kind", [Lines, Bars])
@pytest.mark.parametrize(
    ("seconds", "of", "until", "left"),
    [
        (0.01, 10, 10, [*range(1, 11)]),
        (0.05, 2000, 2000, [*range(1, 21), *range(60, 2000, 40), 2000]),
        (0.01, 100, 50, [*range(1, 21), 50]),
        (3.0, 50, 50, [*range(1, 51)]),
        (1.0, 30, 30, [*range(1, 21), 22, 24, 26, 28, 30]),
    ],
    ids=["few epochs", "many short ones", "stopped early", "long ones", "one a second"],
)
def test_twenty_lines_then_one_in_two_seconds_and_the_last(monkeypatch, stderr, kind, seconds, of, until, left):
    found = written(monkeypatch, stderr, kind, seconds, of, until)
    assert len(found) == len(set(found))
    assert (found[:20], found[-1]) == (left[:20], left[-1])
    assert len(found) == pytest.approx(len(left), abs=1)


def test_the_time_left_is_that_of_the_epochs_to_come(monkeypatch, stderr):
    written(monkeypatch, stderr, Lines, 60.0, of=100, until=2)
    assert stderr.written.splitlines()[1].endswith("20 samples/s, 1:38:00 left")


def test_many_epochs_of_a_tiny_net_are_bearable(stderr):
    classifier().fit(X[:2], Y[:2], 300)
    assert 22 <= len(stderr.written.splitlines()) <= 30


# The bar


def drawn(columns, total=60_000, over=False, **numbers):
    """Return what a line shows on a screen of that width, 45 % of an epoch being done in 10 s."""
    stream = Plain()
    line = bar.Line(total=total, desc="epoch 3/12", unit=" samples", unit_scale=True, file=stream, ncols=columns)
    line.numbers, line.over, line.n = [f"{name}={value}" for name, value in numbers.items()], over, 27_000
    line._time, line.start_t = lambda: 10.0, 0.0
    text = str(line)
    line.disable = True
    return text


NUMBERS = {"loss": "0.1234", "accuracy": "0.9612", "f1": "0.9512"}


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (
            140,
            r"epoch 3/12  45%\|[#\d]+ *\| loss=0.1234, accuracy=0.9612, f1=0.9512, 00:12 left, 2.70k samples/s, "
            r"27.0k/60.0k",
        ),
        (106, r"epoch 3/12  45%\|[#\d]+ *\| loss=0.1234, accuracy=0.9612, f1=0.9512, 00:12 left, 2.70k samples/s"),
        (80, r"epoch 3/12  45%\|[#\d]+ *\| loss=0.1234, accuracy=0.9612, f1=0.9512, 00:12 left"),
        (78, r"epoch 3/12 loss=0.1234, accuracy=0.9612, f1=0.9512, 00:12 left"),
        (60, r"epoch 3/12 loss=0.1234, accuracy=0.9612, 00:12 left"),
        (40, r"epoch 3/12 loss=0.1234, 00:12 left"),
        (30, r"epoch 3/12 loss=0.1234"),
        (12, r"epoch 3/12 ?"),
    ],
)
def test_what_does_not_fit_is_left_out_the_least_important_first(columns, shown):
    line = drawn(columns, **NUMBERS)
    assert re.fullmatch(shown, line)
    assert len(line) <= columns


def test_eighty_columns_hold_a_bar_and_two_numbers():
    line = drawn(80, loss="0.1234", accuracy="0.9612")
    assert re.fullmatch(r"epoch 3/12  45%\|[#\d]+ *\| loss=0.1234, accuracy=0.9612, 00:12 left", line)
    assert len(line) == 80
    for unknown in (None, 0, -1):
        assert drawn(unknown, **NUMBERS) == drawn(80, **NUMBERS), "a screen that does not say how wide it is"


def test_a_finished_epoch_has_its_numbers_in_place_of_the_bar():
    numbers = NUMBERS | {"val_loss": "0.1300"}
    assert drawn(80, over=True, **numbers) == (
        "epoch 3/12 loss=0.1234, accuracy=0.9612, f1=0.9512, val_loss=0.1300, 00:10"
    )


def test_an_epoch_of_unknown_length_says_how_far_it_is():
    assert drawn(80, total=None, loss="0.1") == "epoch 3/12 loss=0.1, 00:10, 2.70k samples/s, 27.0k"


def test_names_are_text():
    assert drawn(80, over=True, **{"{n}": "1", "a{": "2"}) == "epoch 3/12 {n}=1, a{=2, 00:10, 2.70k samples/s, 27.0k"


def test_the_bar_ends_with_the_numbers_of_the_history(stderr):
    history = classifier(["accuracy"]).fit(X, Y, epochs=2, batch_size=5, validation=4, progress="bar")
    lines = [line.rpartition("\r")[2] for line in stderr.written.split("\n")[1:]]
    for k in range(2):
        numbers = ", ".join(f"{n}={history[n][k]:.4g}" for n in ("loss", "accuracy", "val_loss", "val_accuracy"))
        assert lines[k].startswith(f"epoch {k + 1}/2 {numbers}")
        assert len(lines[k]) <= 80
    assert stderr.written.endswith("\n")
