"""Callbacks that watch a number of the history: stop or learn more slowly when it stands still, keep what was best."""

from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xpnet.arrays import Array
from xpnet.checks import integer, number
from xpnet.schedules import times
from xpnet.training.callbacks import Callback
from xpnet.training.history import History

if TYPE_CHECKING:
    from xpnet.model import Model

SMALLER = (
    *("loss", "log_loss", "perplexity", "zero_one", "gradient_norm", "max_weight", "seconds"),
    *("mean_absolute_error", "mean_squared_error", "root_mean_squared_error"),
)
LARGER = (
    *("accuracy", "binary_accuracy", "balanced_accuracy", "top_k", "precision", "recall", "f1"),
    *("roc_auc", "average_precision", "r2"),
)
"""What is recorded by itself, and whether it is better small or large."""


class Monitor(Callback):
    """Watches a number: `best` and `best_epoch` tell when it last improved by more than `min_delta`.

    `mode` is "min" or "max"; it may be left out for the loss and xpnet's own metrics, of which the better direction is
    known.
    """

    def __init__(self, monitor: str, patience: int, min_delta: float, mode: str | None) -> None:
        who = type(self).__name__
        if mode not in (None, "min", "max"):
            raise ValueError(f'{who}: mode must be "min" or "max", got {mode!r}')
        name = monitor.removeprefix("val_")
        if mode is None and name not in SMALLER + LARGER:
            raise ValueError(f'{who}: is "{monitor}" better small or large? Pass mode="min" or mode="max"')
        self.monitor, self.patience = monitor, integer(who, "patience", patience)
        self.min_delta = number(who, "min_delta", min_delta, least=0.0)
        self.sign = 1.0 if mode == "max" or (mode is None and name in LARGER) else -1.0

    def on_train_begin(self, model: "Model") -> None:
        """Forget earlier runs."""
        self.best, self.best_epoch, self._waited = -self.sign * float("inf"), 0, 0

    def improved(self, history: History) -> bool:
        """Compare with the best so far, and count the epochs since."""
        if self.monitor not in history:
            recorded = ", ".join(history)
            raise ValueError(
                f'{type(self).__name__} watches "{self.monitor}", recorded are {recorded}: pass validation='
            )
        value = history[self.monitor][-1]
        better = self.sign * (value - self.best) > self.min_delta
        if better:
            self.best, self.best_epoch = value, int(history["epoch"][-1])
        self._waited = 0 if better else self._waited + 1
        return better

    def state(self) -> dict[str, Any]:
        """The best so far, and how long ago it was."""
        return {"best": self.best, "best_epoch": self.best_epoch, "waited": self._waited}

    def restore(self, model: "Model", state: dict[str, Any]) -> None:
        """Go on comparing with it."""
        self.best, self.best_epoch, self._waited = state["best"], state["best_epoch"], state["waited"]


class EarlyStopping(Monitor):
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
        super().__init__(monitor, patience, min_delta, mode)
        self.restore_best = restore_best

    def on_train_begin(self, model: "Model") -> None:
        """Forget earlier runs."""
        super().on_train_begin(model)
        self.theta: Array | None = None

    def on_epoch_end(self, model: "Model", history: History) -> bool:
        """Compare with the best so far."""
        if self.improved(history):
            self.theta = model.theta
        if self._waited >= self.patience:
            history.stopped = f"{self.monitor} has not improved since epoch {self.best_epoch}"
        return self._waited >= self.patience

    def state(self) -> dict[str, Any]:
        """The best so far, with its θ."""
        return super().state() | ({} if self.theta is None else {"theta": self.theta})

    def restore(self, model: "Model", state: dict[str, Any]) -> None:
        """Go on comparing with it."""
        super().restore(model, state)
        self.theta = state.get("theta")

    def on_train_end(self, model: "Model", history: History) -> None:
        """Put the best θ back, if the run is over."""
        if self.restore_best and self.theta is not None and model.underway is None:
            model.theta = self.theta


class ReduceOnPlateau(Monitor):
    """Multiply the learning rate by `factor` when `monitor` has not improved for `patience` epochs; then wait again.

    `ReduceLROnPlateau` of Keras and PyTorch, whose patience is one less. `monitor`, `min_delta` and `mode` are those of
    `EarlyStopping`. After each time `cooldown` epochs are not counted. `min_lr` is where it ends. A schedule is
    multiplied as a whole. The optimizer keeps its rate when the run is over.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        min_delta: float = 0.0,
        mode: str | None = None,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, patience, min_delta, mode)
        self.factor = number("ReduceOnPlateau", "factor", factor, above=0.0, below=1.0)
        self.cooldown = integer("ReduceOnPlateau", "cooldown", cooldown, least=0)
        self.min_lr = number("ReduceOnPlateau", "min_lr", min_lr, least=0.0)

    def on_train_begin(self, model: "Model") -> None:
        """Forget earlier runs."""
        super().on_train_begin(model)
        self._resting = 0

    def on_epoch_end(self, model: "Model", history: History) -> None:
        """Compare with the best so far."""
        self.improved(history)
        if self._resting:
            self._resting, self._waited = self._resting - 1, 0
        if self._waited >= self.patience:
            self._waited, self._resting = 0, self.cooldown
            lr, now = model.optimizer.lr, model.optimizer.rate(max(model.state.t - 1, 0))
            if now > self.min_lr:
                model.adjust(lr=times(lr, max(self.factor, self.min_lr / now)))

    def state(self) -> dict[str, Any]:
        """The best so far, how long ago it was, and the rest of the cooldown."""
        return super().state() | {"resting": self._resting}

    def restore(self, model: "Model", state: dict[str, Any]) -> None:
        """Go on comparing with it; the rate itself is the optimizer's."""
        super().restore(model, state)
        self._resting = state["resting"]


class ModelCheckpoint(Monitor):
    """Save the model to `path` after each epoch in which the number `best` is better than in all before.

        model.fit(x, y, epochs=50, validation=0.1, callbacks=[xn.ModelCheckpoint("best.safetensors")])
        model = xn.load("best.safetensors")

    `mode` and `min_delta` are those of `EarlyStopping`. `{epoch}` in the path becomes the epoch's number, for a file
    each. A file holds the model, with its optimizer's state, and no run to go on with: that is what `checkpoint=` of
    `fit` is for. `saved` is the file that was written last. Of several processes the first writes.
    """

    def __init__(
        self, path: str | PathLike[str], best: str = "val_loss", mode: str | None = None, min_delta: float = 0.0
    ) -> None:
        super().__init__(best, 1, min_delta, mode)
        self.path = fspath(path)

    def on_train_begin(self, model: "Model") -> None:
        """Forget earlier runs; FileNotFoundError if there is no folder for the file."""
        super().on_train_begin(model)
        self.saved: str | None = None
        if not (folder := Path(self.path).parent).is_dir():
            raise FileNotFoundError(f"ModelCheckpoint cannot write {self.path}: there is no folder {folder}")

    def on_epoch_end(self, model: "Model", history: History) -> None:
        """Compare with the best so far, and save what is better."""
        if self.improved(history):
            self.saved = self.path.replace("{epoch}", str(model.epoch))
            if model.world.rank == 0:
                type(model).of(model.step, model.state).save(self.saved)

    def state(self) -> dict[str, Any]:
        """The best so far, and where it is."""
        return super().state() | {"saved": self.saved}

    def restore(self, model: "Model", state: dict[str, Any]) -> None:
        """Go on comparing with it."""
        super().restore(model, state)
        self.saved = state["saved"]
