"""Callbacks: what happens between epochs."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.arrays import Array
from xpnet.checks import integer, number
from xpnet.errors import DataError
from xpnet.training.history import History
from xpnet.training.state import Run

if TYPE_CHECKING:
    from xpnet.model import Model

SMALLER = ("loss", "zero_one", "mean_absolute_error", "gradient_norm", "max_weight", "seconds")
LARGER = ("accuracy", "binary_accuracy", "r2")
"""What is recorded by itself, and whether it is better small or large."""


class Callback:
    """Called by `fit` around the epochs; override what you need."""

    def on_train_begin(self, model: "Model") -> None:
        """Before the first epoch, and before a resumed run goes on."""

    def on_epoch_end(self, model: "Model", history: History) -> bool | None:
        """After each epoch, its numbers in the history; return True to stop training."""

    def on_train_end(self, model: "Model", history: History) -> None:
        """After training, however it ended: after its last epoch, on Ctrl-C (`history.stopped`), or by an error.

        `model.underway` is None if the run is over, and tells where it stands if it can be resumed. What changes the
        model for good belongs to a run that is over, or a resumed run is another than an uninterrupted one.
        """

    def state(self) -> dict[str, Any]:
        """Return what the callback needs to go on after an interruption: numbers, text, and vectors like θ."""
        return {}

    def restore(self, model: "Model", state: dict[str, Any]) -> None:
        """Go on from that; called after `on_train_begin` when training is resumed."""


class Callbacks:
    """The callbacks of a run, with the model that they are handed."""

    def __init__(self, callbacks: Iterable[Callback], model: "Model") -> None:
        if isinstance(callbacks, Callback) or not isinstance(callbacks, Iterable):
            raise TypeError(f"callbacks must be a list, got {callbacks!r}: pass callbacks=[…]")
        self._all, self._model = list(callbacks), model
        self._begun: list[Callback] = []
        for callback in self._all:
            if not isinstance(callback, Callback):
                hint = ", an instance: add ()" if isinstance(callback, type) else ", a subclass of xn.Callback"
                raise TypeError(f"callbacks must hold callbacks{hint}, got {callback!r}")

    def begin(self, run: Run) -> None:
        """Call all before the first epoch, and let them go on from where an interrupted run left them.

        They are found again by their class, in whatever order. DataError if one that has something to go on with is
        missing.
        """
        saved = self._saved(run)
        for callback, state in zip(self._all, saved, strict=True):
            callback.on_train_begin(self._model)
            self._begun.append(callback)
            if state is not None:
                callback.restore(self._model, state)

    def _saved(self, run: Run) -> list[dict[str, Any] | None]:
        """Return what each of the callbacks left behind, None for one that left nothing."""
        ours = [type(callback).__name__ for callback in self._all]
        left = [(kind, state) for kind, state in zip(run.kinds or ours, run.callbacks, strict=False) if state]
        found: list[dict[str, Any] | None] = []
        for name in ours:
            place = next((k for k, (kind, _) in enumerate(left) if kind == name), None)
            found.append(None if place is None else left.pop(place)[1])
        if left:
            missing = ", ".join(kind for kind, _ in left)
            raise DataError(
                f"the run's {missing} must go on, got the callbacks {', '.join(ours) or 'none'}: pass the same ones"
            )
        return found

    def note(self, run: Run) -> None:
        """Write down what each needs to go on."""
        run.kinds = [type(callback).__name__ for callback in self._all]
        run.callbacks = [
            {name: _kept(name, value, callback) for name, value in callback.state().items()} for callback in self._all
        ]

    def epoch(self, history: History) -> list[str]:
        """Call all after an epoch; return the names of those that ask to stop."""
        return [type(one).__name__ for one in self._all if one.on_epoch_end(self._model, history)]

    def end(self, history: History) -> None:
        """Call after training all that were called before, each even if another one fails; raise the first error."""
        errors = []
        for callback in self._begun:
            try:
                callback.on_train_end(self._model, history)
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]


def _kept(name: str, value: Any, callback: Callback) -> Any:
    """Return what a callback wants kept, a NumPy number as Python's; TypeError for what no file can hold."""
    if isinstance(value, np.generic) or (getattr(value, "shape", None) == () and isinstance(value, np.ndarray)):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)) or getattr(value, "ndim", 0) == 1:
        return value
    if isinstance(value, (list, tuple)):
        return [_kept(name, item, callback) for item in value]
    raise TypeError(
        f'{type(callback).__name__}: state "{name}" must be a number, text, a list of them or a vector like theta, '
        f"got {type(value).__name__}"
    )


class EarlyStopping(Callback):
    """Stop when `monitor` has not improved by more than `min_delta` for `patience` epochs (Prechelt, 1998).

    `mode` is "min" or "max"; it may be left out for the loss and xpnet's own metrics, of which the better direction is
    known. When the run is over the best θ is put back, unless `restore_best` is False; until then, and after an error
    or Ctrl-C, it is in `theta`. `best` and `best_epoch` tell when it was.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 5,
        min_delta: float = 0.0,
        mode: str | None = None,
        restore_best: bool = True,
    ) -> None:
        if mode not in (None, "min", "max"):
            raise ValueError(f'EarlyStopping: mode must be "min" or "max", got {mode!r}')
        name = monitor.removeprefix("val_")
        if mode is None and name not in SMALLER + LARGER:
            raise ValueError(f'EarlyStopping: is "{monitor}" better small or large? Pass mode="min" or mode="max"')
        self.monitor, self.patience = monitor, integer("EarlyStopping", "patience", patience)
        self.min_delta = number("EarlyStopping", "min_delta", min_delta, least=0.0)
        self.restore_best = restore_best
        self.sign = 1.0 if mode == "max" or (mode is None and name in LARGER) else -1.0

    def on_train_begin(self, model: "Model") -> None:
        """Forget earlier runs."""
        self.best, self.best_epoch, self._waited = -self.sign * float("inf"), 0, 0
        self.theta: Array | None = None

    def on_epoch_end(self, model: "Model", history: History) -> bool:
        """Compare with the best so far."""
        if self.monitor not in history:
            raise ValueError(
                f'EarlyStopping watches "{self.monitor}", recorded are {", ".join(history)}: pass validation='
            )
        value = history[self.monitor][-1]
        if self.sign * (value - self.best) > self.min_delta:
            self.best, self.best_epoch, self._waited = value, int(history["epoch"][-1]), 0
            self.theta = model.theta
        else:
            self._waited += 1
        if self._waited >= self.patience:
            history.stopped = f"{self.monitor} has not improved since epoch {self.best_epoch}"
        return self._waited >= self.patience

    def state(self) -> dict[str, Any]:
        """The best so far, with its θ."""
        state = {"best": self.best, "best_epoch": self.best_epoch, "waited": self._waited, "theta": self.theta}
        return {name: value for name, value in state.items() if value is not None}

    def restore(self, model: "Model", state: dict[str, Any]) -> None:
        """Go on comparing with it."""
        self.best, self.best_epoch, self._waited = state["best"], state["best_epoch"], state["waited"]
        self.theta = state.get("theta")

    def on_train_end(self, model: "Model", history: History) -> None:
        """Put the best θ back, if the run is over."""
        if self.restore_best and self.theta is not None and model.underway is None:
            model.theta = self.theta
