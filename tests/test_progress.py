"""What is shown while training runs never ends it: a stderr that is missing, closed, broken, or knows little."""

import gc
import io
import sys

import numpy as np
import pytest

import xpnet as xn
from xpnet.training.progress import Bar, say, shown

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


class Screen(Plain):
    def isatty(self):
        return True


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


ERRORS = (BrokenPipeError(32, "Broken pipe"), OSError(28, "No space left"), ValueError("closed"), RuntimeError("gone"))
STREAMS = {"none": lambda: None, "closed": closed, "plain": Plain, "screen": Screen}
BROKEN = {
    f"{type(error).__name__} after {n}": lambda error=error, n=n: Broken(error, n)
    for error in ERRORS
    for n in (2, 4, 8)
}


@pytest.mark.parametrize("progress", [None, True, False])
@pytest.mark.parametrize("name", [*STREAMS, *BROKEN])
def test_a_missing_or_broken_stderr_never_ends_training(monkeypatch, name, progress):
    stream = (STREAMS | BROKEN)[name]()
    monkeypatch.setattr(sys, "stderr", stream)
    net = xn.Sequential(xn.Linear(3, 2))
    history = xn.Model(net, xn.cross_entropy, xn.SGD(0.1), backend="numpy").fit(X, Y, 2, 4, progress=progress)
    gc.collect()  # a bar that could not be drawn does not try again
    assert history["epoch"] == [1, 2]
    if name in ("plain", "screen"):
        assert ("epoch 2/2" in stream.written) == (progress is True or (progress is None and name == "screen"))


@pytest.mark.parametrize("after", range(6))
def test_a_bar_is_nothing_from_the_first_failure_on(monkeypatch, after):
    stream = Broken(BrokenPipeError(32, "Broken pipe"), after)
    monkeypatch.setattr(sys, "stderr", stream)
    say("a line")
    with Bar(10, "epoch 1/1", True) as bar:
        for _ in range(10):
            bar.advance(1, {"loss": 0.5})
        bar.conclude(lambda: "the end")
        drawn = bar._bar is not None
    del bar
    gc.collect()
    if not drawn:
        assert stream.left == -1 - (after < 2)  # tried once more after it failed for the line, else never again
    assert "the end" not in stream.written or drawn


def test_what_the_numbers_say_is_not_hidden(monkeypatch):
    """A mistake in what is shown, not in showing it, is still a mistake."""
    monkeypatch.setattr(sys, "stderr", Screen())
    with Bar(1, "epoch", True) as bar, pytest.raises(ZeroDivisionError):
        bar.conclude(lambda: str(1 / 0))


def test_ctrl_c_while_drawing_is_ctrl_c(monkeypatch):
    class Pressed(Plain):
        pressed = False

        def write(self, text):
            if not self.pressed:
                self.pressed = True
                raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stderr", Pressed())
    with pytest.raises(KeyboardInterrupt):
        Bar(1, "epoch", True)


@pytest.mark.parametrize(
    ("name", "asked", "answer"),
    [
        ("none", True, False),
        ("none", None, False),
        ("closed", True, False),
        ("closed", None, False),
        ("plain", None, False),
        ("plain", True, True),
        ("screen", None, True),
        ("screen", False, False),
    ],
)
def test_a_bar_is_shown_where_it_can_be_seen(monkeypatch, name, asked, answer):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    monkeypatch.setattr(sys, "stderr", STREAMS[name]())
    assert shown(asked) is answer
