"""What a person sees while training runs: a bar on a screen, lines in a file, or nothing."""

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import cache
from typing import Any, Literal, TypeAlias

from xpnet.backends import Backend
from xpnet.checks import shown
from xpnet.training.history import History
from xpnet.training.notebook import Curve, in_notebook

Progress: TypeAlias = Literal["bar", "lines"] | bool | None

FIRST = 20
"""Epochs of a call of fit each of which leaves its line."""
SECONDS = 2.0
"""Between two lines after those, at least."""


class Screen:
    """What a person sees of a run: nothing at all."""

    def begin(self, epoch: int, of: int, samples: int | None) -> None:
        """Show that an epoch begins, of so many samples, if that is known."""

    def advance(self, samples: int, means: Callable[[], Mapping[str, float]]) -> None:
        """Count samples, and show the numbers as they are."""

    def conclude(self, history: History, step: int, samples: int) -> None:
        """Show how the epoch went, after which so many steps are done."""

    def __enter__(self) -> "Screen":
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave the last finished epoch's line, whatever ended the run."""


def screen(progress: Progress, backend: Backend, rank: int = 0) -> Screen:
    """Return what is shown, and say once a process why this backend was chosen; ValueError for another wish.

    "bar", "lines", or, for True or None, a bar where a person watches, on a terminal or in a notebook, and lines
    elsewhere. Nothing for False, without a stderr, and on all processes but the first.
    """
    if not (progress is None or isinstance(progress, bool) or progress in ("bar", "lines")):
        raise ValueError(f'fit: progress must be "bar", "lines", True or False, got {shown(progress)}')
    if progress is False or rank or sys.stderr is None or getattr(sys.stderr, "closed", False):
        return Screen()
    announce(f"training on {backend.name} {backend.device}, {backend.reason}")
    if progress == "lines" or (progress != "bar" and not (_is_terminal() or in_notebook())):
        return Lines()
    return Bars()


@cache
def announce(line: str) -> None:
    """Write a line, the first time in this process."""
    say(line)


def say(line: str) -> None:
    """Write a line to stderr, if that can be done."""
    with suppress(Exception):
        print(line, file=sys.stderr, flush=True)


def _is_terminal() -> bool:
    """Whether stderr is one; a closed one is not, and what stands in its place need not know the question."""
    try:
        return bool(sys.stderr.isatty())
    except (AttributeError, OSError, ValueError):
        return False


class Lines(Screen):
    """A line for each epoch, for a file: where it stands, the numbers, the speed, and the time left.

    The first 20 epochs leave a line, and the last; of those between, one in two seconds at most.
    """

    def __init__(self) -> None:
        self._start, self._last, self._left, self._done = time.monotonic(), 0.0, 0, 0
        self._held: Callable[[], str] | None = None

    def begin(self, epoch: int, of: int, samples: int | None) -> None:
        """Note which epoch it is."""
        self._epoch, self._of = epoch, of

    def conclude(self, history: History, step: int, samples: int) -> None:
        """Write the epoch's line, or keep it in case that it is the last one."""
        self._done += 1
        epoch, took = f"epoch {self._epoch}/{self._of}", time.monotonic() - self._start
        wait = took / self._done * (self._of - self._epoch)
        speed = samples / max(history["seconds"][-1], 1e-9)
        span = f"{_span(wait)} left" if self._epoch < self._of else f"{_span(took)} in all"

        def line() -> str:
            rate = history["learning_rate"][-1]
            return f"{epoch}, step {step}: {history.last()}, rate={rate:.4g}, {speed:,.0f} samples/s, {span}"

        self._held = line
        if self._due():
            self._leave()
            self._last, self._left, self._held = time.monotonic(), self._left + 1, None
        else:
            self._pass()

    def _due(self) -> bool:
        return self._left < FIRST or self._epoch == self._of or time.monotonic() - self._last >= SECONDS

    def _leave(self) -> None:
        """Leave the epoch's line."""
        if self._held is not None:
            say(self._held())

    def _pass(self) -> None:
        """Leave nothing of the epoch."""

    def __exit__(self, *exception: object) -> None:
        """Write the last line, if it was held back."""
        if self._held is not None:
            say(self._held())


class Bars(Lines):
    """A bar for each epoch, on a screen, and in a notebook the curves so far; its line is left as a line is.

    A bar that cannot be drawn, since stderr is closed or broken, is nothing from then on: it never ends training.
    """

    def __init__(self) -> None:
        super().__init__()
        self._bar: Any = None
        self._broken, self._drawn = False, 0.0
        self._curve = Curve() if in_notebook() else None

    def begin(self, epoch: int, of: int, samples: int | None) -> None:
        """Draw an empty bar, unless one was drawn a moment ago."""
        super().begin(epoch, of, samples)
        if self._broken:
            return
        from xpnet.training.bar import Line

        how: dict[str, Any] = {"unit": " samples", "unit_scale": True, "dynamic_ncols": True}
        later = 1e-9  # seconds: with a delay, making a bar draws nothing yet
        self._bar = Line(total=samples, desc=f"epoch {epoch}/{of}", file=sys.stderr, delay=later, **how)
        if time.monotonic() - self._drawn > self._bar.mininterval:
            self._draw(self._bar.refresh)

    def advance(self, samples: int, means: Callable[[], Mapping[str, float]]) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.numbers = [f"{name}={mean:.4f}" for name, mean in means().items() if name != "gradient_norm"]
            self._draw(lambda: self._bar.update(samples))

    def conclude(self, history: History, step: int, samples: int) -> None:
        """Leave the epoch's numbers in place of the running ones, or clear the line."""
        if self._bar is not None:
            self._bar.numbers, self._bar.over = history.numbers(), True
        super().conclude(history, step, samples)
        if self._curve is not None:
            self._curve.draw(history)

    def _leave(self) -> None:
        if self._bar is not None:
            self._draw(self._bar.refresh)
        self._close()

    def _pass(self) -> None:
        if self._bar is not None:
            self._bar.leave = False
        self._close()

    def __exit__(self, *exception: object) -> None:
        """Leave the line of an epoch that was cut off too."""
        self._close()
        if not self._broken:
            super().__exit__(*exception)
        if self._curve is not None:
            self._curve.close()

    def _close(self) -> None:
        if self._bar is not None:
            self._draw(self._bar.close)
            self._bar = None

    def _draw(self, stroke: Callable[[], object]) -> None:
        self._drawn = time.monotonic()
        try:
            stroke()
        except Exception:  # whatever the stream raises: a picture of training is no reason to end it
            self._bar.disable = True  # or it would try again when it is collected
            self._bar, self._broken = None, True


def _span(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
