"""What a person sees while training runs, and how they stop it."""

import signal
import sys
import threading
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any


def shown(progress: bool | None) -> bool:
    """Whether to show a bar: as asked, or, left open, on a terminal or in a notebook."""
    if progress is not None:
        return progress
    return (sys.stderr is not None and sys.stderr.isatty()) or in_notebook()


def in_notebook() -> bool:
    """Whether this is a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


class Bar:
    """One epoch's bar, with the loss and metrics, the time left and the samples per second; or nothing at all."""

    def __init__(self, samples: int, epoch: str, show: bool) -> None:
        self._bar: Any = None
        if show:
            from tqdm import tqdm

            self._bar = tqdm(total=samples, desc=epoch, unit=" samples", unit_scale=True, file=sys.stderr)

    def advance(self, samples: int, means: Mapping[str, float]) -> None:
        """Count samples, and show the numbers as they are."""
        if self._bar is not None:
            text = ", ".join(f"{name}={mean:.4f}" for name, mean in means.items() if name != "gradient_norm")
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(samples)

    def conclude(self, text: Callable[[], str]) -> None:
        """Show the epoch's numbers in place of the running ones."""
        if self._bar is not None:
            self._bar.set_postfix_str(text())

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave the line on the screen."""
        if self._bar is not None:
            self._bar.close()


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
