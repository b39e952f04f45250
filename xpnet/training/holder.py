"""What a model and its training have in common, and whose turn it is to look at it or to change it."""

import threading

from xpnet.training.state import Run, State
from xpnet.training.step import Step


class Holder:
    """Step, state and run as they are now. `with holder:` one thread at a time reads or changes them.

    Whoever waits comes next, however soon the training thread asks again; the thread that is in may enter once more.
    """

    def __init__(self, step: Step, state: State, run: Run | None = None) -> None:
        self.step, self.state, self.run = step, state, run
        self.training = False
        self._next, self._inside = threading.Lock(), threading.RLock()
        self._owner: int | None = None
        self._depth = 0

    def __enter__(self) -> "Holder":
        me = threading.get_ident()
        if self._owner == me:
            self._depth += 1
            return self
        with self._next:
            self._inside.acquire()
        self._owner, self._depth = me, 1
        return self

    def __exit__(self, *exception: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._owner = None
            self._inside.release()
