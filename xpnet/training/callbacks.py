"""Callbacks: what happens between epochs, and between calls of K steps."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.errors import DataError
from xpnet.training.history import History
from xpnet.training.state import Run

if TYPE_CHECKING:
    from xpnet.model import Model


class Callback:
    """Called by `fit` around the epochs; override what you need.

    Of several processes that train together each calls its own; with `on_every_rank = False`, for what shows or writes,
    the first alone does.
    """

    on_every_rank = True
    stepwise = True
    """Whether `on_step_end` is called, if it is overridden."""

    def on_train_begin(self, model: "Model") -> None:
        """Before the first epoch, and before a resumed run goes on."""

    def on_step_end(self, model: "Model", numbers: Mapping[str, float]) -> None:
        """After each call of K steps, K as many as the backend does at once: 1 for a large network, up to 256 for a
        small one, and what is left of an epoch.

        `numbers` holds the loss, the gradient norm and the metrics, means over those steps' batches, and the learning
        rate at the last one; `model.state.t` steps are done. Nothing is computed for it unless a callback overrides it.
        """

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
        self._all = [one for one in self._all if one.on_every_rank or model.world.rank == 0]
        own = [one for one in self._all if type(one).on_step_end is not Callback.on_step_end]
        self.stepwise = [one for one in own if one.stepwise]

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

    def step(self, numbers: Mapping[str, float]) -> None:
        """Call those that want to know after K steps."""
        for callback in self.stepwise:
            callback.on_step_end(self._model, numbers)

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
