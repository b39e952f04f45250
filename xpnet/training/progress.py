"""What a person sees while training runs, and how they stop it."""

import signal
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import FrameType
from typing import Any


def shown(progress: bool | None) -> bool:
    """Whether to show a bar: as asked, or, left open, on a terminal or in a notebook; never without a stderr."""
    if sys.stderr is None or getattr(sys.stderr, "closed", False):
        return False
    return bool(progress) if progress is not None else _is_terminal() or in_notebook()


def _is_terminal() -> bool:
    """Whether stderr is one; a closed one is not, and what stands in its place need not know the question."""
    try:
        return bool(sys.stderr.isatty())
    except (AttributeError, OSError, ValueError):
        return False


def say(line: str) -> None:
    """Write a line to stderr, if that can be done."""
    with suppress(Exception):
        print(line, file=sys.stderr, flush=True)


def in_notebook() -> bool:
    """Whether this is a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


class Bar:
    """One epoch's bar, with the loss and metrics, the time left and the samples per second; or nothing at all.

    A bar that cannot be drawn, since stderr is closed or broken, is nothing from then on: it never ends training.
    """

    def __init__(self, samples: int | None, epoch: str, show: bool) -> None:
        self._bar: Any = None
        if show:
            from tqdm import tqdm

            later = 1e-9  # seconds: with a delay, making a bar draws nothing yet
            self._bar = tqdm(total=samples, desc=epoch, unit=" samples", unit_scale=True, file=sys.stderr, delay=later)
            self._draw(self._bar.refresh)

    def advance(self, samples: int, means: Mapping[str, float]) -> None:
        """Count samples, and show the numbers as they are."""
        if self._bar is not None:
            text = ", ".join(f"{name}={mean:.4f}" for name, mean in means.items() if name != "gradient_norm")
            self._bar.set_postfix_str(text, refresh=False)
            self._draw(lambda: self._bar.update(samples))

    def conclude(self, text: Callable[[], str]) -> None:
        """Show the epoch's numbers in place of the running ones."""
        if self._bar is not None:
            line = text()
            self._draw(lambda: self._bar.set_postfix_str(line))

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave the line on the screen."""
        if self._bar is not None:
            self._draw(self._bar.close)

    def _draw(self, stroke: Callable[[], object]) -> None:
        try:
            stroke()
        except Exception:  # whatever the stream raises: a picture of training is no reason to end it
            self._bar.disable = True  # or it would try again when it is collected
            self._bar = None


class Interrupt:
    """While active, the first Ctrl-C only asks (`if interrupt.asked: …`), the second raises KeyboardInterrupt.

    Python delivers signals to the main thread; in another one Ctrl-C is left as it was.
    """

    asked = False

    def __enter__(self) -> "Interrupt":
        self._ours = threading.current_thread() is threading.main_thread()
        if self._ours:
            self._before = signal.signal(signal.SIGINT, self._ask) or signal.SIG_DFL
        return self

    def __exit__(self, *exception: object) -> None:
        if self._ours:
            signal.signal(signal.SIGINT, self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
