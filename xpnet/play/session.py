"""A network that learns before one's eyes: a thread of its own that trains, draws, and does what a page asks for."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cache, partial
from queue import Empty, Full, Queue
from threading import Thread
from typing import Any

from xpnet.backends import available_backends
from xpnet.errors import BackendError, DataError, NonFiniteError
from xpnet.play import code, pictures, recipe
from xpnet.play.code import Stage
from xpnet.play.settings import Settings, read

FRAME = 1 / 12
"""Seconds between two pictures, or more, if training or drawing takes longer."""

WAITING, MOST_STAGES, FEWEST_POINTS = 50, 20, 2
ORDERS = ("set", "run", "pause", "step", "restart", "look")
CLOSE = "close"

Message = dict[str, Any]


class Session:
    """Trains a model by `fit`, some epochs at a time, and tells a page of it in messages.

    `tell` is called from the session's thread. What a page orders is done in turn, between two calls of `fit`:

        {"do": "set", "settings": {…}}      go on with other settings, or begin anew where they make another network
        {"do": "run"}  {"do": "pause"}  {"do": "step"}      train on and on; stop; train one epoch
        {"do": "restart"}                   begin anew: with the same seed the same again
        {"do": "look"}                      find what backends and devices there are, which imports their libraries
    """

    def __init__(self, tell: Callable[[Message], None], backends: tuple[str, ...] = ("numpy",)) -> None:
        self.tell, self.backends = tell, backends
        self.settings, self.running = Settings(backend=backends[0]), False
        self._orders: Queue[Any] = Queue(WAITING)
        self._pace, self._due, self._rate, self._exact = 1, 0.0, 0.0, True
        self._thread = Thread(target=self._live, name="xpnet-play", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def order(self, message: Any) -> None:
        """Take an order; DataError, in a line, if it is none, or if too many are waiting."""
        if not isinstance(message, dict) or message.get("do") not in ORDERS:
            raise DataError(f'an order must be an object whose "do" is one of {", ".join(ORDERS)}')
        settings = read(message.get("settings"), self.backends) if message["do"] == "set" else None
        try:
            self._orders.put_nowait((message["do"], settings))
        except Full:
            raise DataError(f"{WAITING} orders are waiting: send fewer") from None

    def close(self) -> None:
        """Let the thread end, after the epoch under way."""
        with suppress(Empty):
            while True:
                self._orders.get_nowait()
        self._orders.put((CLOSE, None))

    def alive(self, timeout: float = 0.0) -> bool:
        """Whether the thread has not ended, nor does within some seconds."""
        self._thread.join(timeout)
        return self._thread.is_alive()

    def _live(self) -> None:
        """Do orders as they come, and train in between."""
        self._try(self._open)
        while True:
            try:
                wait = max(self._due - time.perf_counter(), 0.0) if self.running else None
                order, settings = self._orders.get(timeout=wait) if wait != 0 else self._orders.get_nowait()
            except Empty:
                self._try(self._advance)
                continue
            if order == CLOSE:
                return
            self._try(partial(self._obey, order, settings))

    def _open(self) -> None:
        self._begin(self.settings)
        self._show()

    def _try(self, what: Callable[[], None]) -> None:
        """Do something; what goes wrong is told in a line, and training pauses."""
        try:
            what()
        except Exception as error:
            self.running = False
            expected = isinstance(error, (BackendError, DataError, NonFiniteError, ValueError))
            line = str(error) if expected else f"{type(error).__name__}: {error}"
            self.tell({"kind": "error", "text": " ".join(line.split()), "settings": asdict(self.settings)})

    def _obey(self, order: str, settings: Settings | None) -> None:
        match order:
            case "set":
                assert settings is not None
                self._set(settings)
            case "restart":
                self._begin(self.settings)
            case "look":
                self.backends = tuple(dict.fromkeys((*self.backends, *usable())))
                self.tell({"kind": "backends", "backends": self.backends})
                return
            case "step":
                self.running = False
                self._train(1)
            case _:
                self.running, self._due, self._pace = order == "run", 0.0, 1
        self._show()

    def _set(self, settings: Settings) -> None:
        """Go on with other settings where the network and its data stay, else begin anew."""
        before = self.settings
        if not settings.continues(before):
            self._begin(settings)
            return
        both = {"lr": (before.rate, settings.rate), "weight_decay": (before.decay, settings.decay)}
        if changed := {name: new for name, (old, new) in both.items() if new != old}:
            self.model.adjust(**changed)
        if settings.points != before.points and settings.data == "own":
            self._exact = self._exact and not self.model.epoch
            self._look_at(settings, recipe.data(settings))
        self._note(settings, 0)
        self.settings, self._due, self._pace = settings, 0.0, 1

    def _begin(self, settings: Settings) -> None:
        """Make a new model, and all that goes with it; if that fails the old one stays."""
        data, model = recipe.data(settings), recipe.model(settings)
        self.model, self.settings = model, settings
        self._stages: list[Stage] = [Stage(settings, 0)]
        self._exact, self._due, self._pace = True, 0.0, 1
        self._look_at(settings, data)

    def _look_at(self, settings: Settings, data: recipe.Data) -> None:
        """Take data for training and for pictures, and show them."""
        self.data, self.studio = data, pictures.Studio(self.model, settings, data)
        self.tell({"kind": "data", "settings": asdict(settings)} | pictures.shown(settings, data))

    def _advance(self) -> None:
        """Train as long as it is until the next picture, and draw it."""
        speed, begun = self.settings.speed, time.perf_counter()
        if speed:
            self._pace = max(1, round(speed * FRAME))
            self._due = begun + self._pace / speed
        self._train(self._pace)
        seconds = time.perf_counter() - begun
        if not speed:
            self._pace = min(max(round(self._pace * FRAME / seconds / 2), 1), 2 * self._pace)
        self._show()

    def _train(self, epochs: int) -> None:
        """Train some epochs, and note it for the code."""
        settings, x = self.settings, self.data.x
        if len(x) < FEWEST_POINTS:
            raise DataError(f"there is nothing to learn yet: draw at least {FEWEST_POINTS} points")
        first, begun = self.model.epoch, time.perf_counter()
        try:
            y = recipe.targets(settings, self.data.labels)
            self.model.fit(x, y, epochs=epochs, batch_size=settings.batch, progress=False)
        finally:
            self._note(settings, self.model.epoch - first)
            self._rate = (self.model.epoch - first) / (time.perf_counter() - begun)

    def _note(self, settings: Settings, epochs: int) -> None:
        """Add epochs to the last stage, or begin another where settings have changed."""
        last = self._stages[-1]
        settings = replace(settings, speed=last.settings.speed, points=last.settings.points)
        if last.epochs and settings != last.settings and len(self._stages) < MOST_STAGES:
            self._stages.append(Stage(settings, epochs))
        else:
            self._exact = self._exact and (settings == last.settings or not last.epochs)
            self._stages[-1] = Stage(settings, last.epochs + epochs)

    def _show(self) -> None:
        """Tell how things stand, in a picture."""
        text = code.text(self.settings, self._stages, self._exact)
        how = {"epoch": self.model.epoch, "running": self.running, "rate": self._rate if self.running else None}
        self.tell({"kind": "frame", **how, "code": text} | self.studio.draw())


@cache
def usable() -> tuple[str, ...]:
    """Return the names of the backends that can be used here, with the device where a library has several."""
    found = available_backends().items()
    return tuple(name if len(on) == 1 else f"{name}:{device}" for name, on in found for device in on)
