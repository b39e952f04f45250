"""Ctrl-C while training runs."""

import signal
import threading
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
