"""Reading ahead: one thread reads what comes next while the device works on what came."""

import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from xpnet.data import scan

PATIENCE = 30.0
"""Seconds after which one is told that nothing comes."""
GLANCE = 0.1
"""Seconds between looks at whether anyone still waits."""

S = TypeVar("S")
T = TypeVar("T")


class Reader:
    """A thread that does one thing after another, and ends when it is told to; it never keeps a program from ending.

    Where no thread can start, each is done when it is asked for.
    """

    def __init__(self) -> None:
        self._asked: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="xpnet reads ahead", daemon=True)
        self.ask: Callable[[Callable[[], Any]], None] = self._asked.put
        """Let something be done."""
        try:
            self._thread.start()
        except RuntimeError:
            self.ask = self._do

    def _work(self) -> None:
        for task in iter(self._asked.get, None):
            self._do(task)

    def _do(self, task: Callable[[], Any]) -> None:
        try:
            self._done.put((task(), None))
        except BaseException as error:
            self._done.put((None, error))

    def answer(self, what: str, given_up: Callable[[], bool]) -> Any:
        """Return what came of the task that was asked for first, None if its asker gives up; or raise its error."""
        waited = 0.0
        while not given_up():
            try:
                made, error = self._done.get(timeout=GLANCE)
            except Empty:
                before, waited = waited, waited + GLANCE
                if before < PATIENCE <= waited:
                    scan.warn(f"{what} has not come for {PATIENCE:g} s: it is waited for; Ctrl-C stops")
                continue
            if error is not None:
                raise error
            return made
        return None

    def end(self) -> None:
        """Let the thread end: at once, or when what it is at has come to an end."""
        self._asked.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout=1.0)


def ahead(
    items: Iterable[S], read: Callable[[S], T | None], name: Callable[[S], str], given_up: Callable[[], bool]
) -> Iterator[T]:
    """Yield read(item) of each item, the next being read meanwhile; end early if `given_up()`, before what still reads.

    The thread ends with the last item, with an error, which is raised in its place, and when nobody asks any more.
    """
    reader, waiting = Reader(), []
    try:
        for item in items:
            reader.ask(partial(read, item))
            waiting.append(item)
            if len(waiting) > 1:
                made = reader.answer(name(waiting.pop(0)), given_up)
                if made is None:
                    return
                yield made
        if waiting and (made := reader.answer(name(waiting.pop()), given_up)) is not None:
            yield made
    finally:
        reader.end()
