"""Callbacks: what happens between epochs."""

from typing import TYPE_CHECKING, Any

from xpnet.arrays import Array
from xpnet.training.history import History

if TYPE_CHECKING:
    from xpnet.model import Model


class Callback:
    """Called by `fit` around the epochs; override what you need."""

    def on_train_begin(self, model: "Model") -> None:
        """Before the first epoch."""

    def on_epoch_end(self, model: "Model", history: History) -> bool | None:
        """After each epoch, its numbers in the history; return True to stop training."""

    def on_train_end(self, model: "Model", history: History) -> None:
        """After the last epoch, also when training was stopped."""

    def state(self) -> dict[str, Any]:
        """Return what the callback needs to go on after an interruption: numbers, text, and vectors like θ."""
        return {}

    def restore(self, model: "Model", state: dict[str, Any]) -> None:
        """Go on from that; called after `on_train_begin` when training is resumed."""


class EarlyStopping(Callback):
    """Stop when `monitor` has not improved by more than `min_delta` for `patience` epochs (Prechelt, 1998).

    `mode` is "min" or "max"; left out, "max" for accuracy and R², else "min". The best θ is put back at the end,
    unless `restore_best` is False. `best` and `best_epoch` tell when it was.
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
        if patience < 1:
            raise ValueError(f"EarlyStopping: patience must be at least 1, got {patience}")
        self.monitor, self.patience, self.min_delta = monitor, patience, min_delta
        self.restore_best = restore_best
        self.sign = 1.0 if mode == "max" or (mode is None and monitor.endswith(("accuracy", "r2"))) else -1.0

    def on_train_begin(self, model: "Model") -> None:
        """Forget earlier runs."""
        self.best, self.best_epoch, self._theta, self._waited = -self.sign * float("inf"), 0, None, 0

    def on_epoch_end(self, model: "Model", history: History) -> bool:
        """Compare with the best so far."""
        if self.monitor not in history:
            raise ValueError(
                f'EarlyStopping watches "{self.monitor}", recorded are {", ".join(history)}: pass validation='
            )
        value = history[self.monitor][-1]
        if self.sign * (value - self.best) > self.min_delta:
            self.best, self.best_epoch, self._waited = value, int(history["epoch"][-1]), 0
            self._theta = _copy(model)
        else:
            self._waited += 1
        if self._waited >= self.patience:
            history.stopped = f"{self.monitor} has not improved since epoch {self.best_epoch}"
        return self._waited >= self.patience

    def state(self) -> dict[str, Any]:
        """The best so far, with its θ."""
        state = {"best": self.best, "best_epoch": self.best_epoch, "waited": self._waited, "theta": self._theta}
        return {name: value for name, value in state.items() if value is not None}

    def restore(self, model: "Model", state: dict[str, Any]) -> None:
        """Go on comparing with it."""
        self.best, self.best_epoch, self._waited = state["best"], state["best_epoch"], state["waited"]
        self._theta = state.get("theta")

    def on_train_end(self, model: "Model", history: History) -> None:
        """Put the best θ back."""
        if self.restore_best and self._theta is not None:
            model.theta = self._theta


def _copy(model: "Model") -> Array:
    return model.backend.xp.asarray(model.theta, copy=True)
