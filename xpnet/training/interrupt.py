"""Ctrl-C while training runs, and checks."""

import signal
import sys
import threading
import traceback
from types import FrameType


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
        if self._ours and signal.getsignal(signal.SIGINT) == self._ask:  # else somebody has set another meanwhile
            signal.signal(signal.SIGINT, self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


def let_go(pressed: BaseException) -> None:
    """Drop the variables of what Ctrl-C has ended; what was half made when it came does not complain of its own end."""
    heard, sys.unraisablehook = sys.unraisablehook, lambda _: None
    error: BaseException | None = pressed
    try:
        while error is not None:
            traceback.clear_frames(error.__traceback__)
            error = error.__context__ or error.__cause__
    finally:
        sys.unraisablehook = heard
