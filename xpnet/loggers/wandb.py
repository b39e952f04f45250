"""A log in Weights & Biases."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from xpnet.loggers.base import RunLogger, client, settings
from xpnet.training.history import History

if TYPE_CHECKING:
    from xpnet.model import Model


class WandB(RunLogger):
    """Writes numbers over the steps to the W&B run that is active, or else to one of its own.

        model.fit(x, y, epochs=20, callbacks=[xn.loggers.WandB(project="digits")])

    `settings` are those of `wandb.init`. Its own run is offline, and nothing is sent, reports of errors included,
    unless `mode="online"` or WANDB_MODE says so: `wandb sync` sends it later. It has what the model is made of as its
    config, and is gone on with under the same id when training is resumed; the id is in `run`.
    """

    def __init__(self, steps: bool = False, **settings: Any) -> None:
        super().__init__(steps)
        mode = os.environ.get("WANDB_MODE", "offline")
        self.settings = {"mode": mode, **settings}
        if self.settings["mode"] != "online":
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it is read when wandb is imported
        self._library, self._own = client("WandB", "wandb"), False
        self._active: Any = None

    def open(self, model: "Model") -> None:
        """Take the active run, or begin one."""
        self._own, self._active = self._library.run is None, self._library.run
        if self._own:
            again = {"id": self.run, "resume": "allow"} if self.run else {}
            self._active = self._library.init(**self.settings, **again)
            self._active.config.update(settings(model), allow_val_change=True)
        self.run = self._active.id

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        self._active.log(dict(numbers), step=step)

    def close(self, model: "Model", history: History) -> None:
        """End its own run, as failed if an error has ended the training."""
        if self._own:
            self._active.finish(exit_code=0 if model.underway is None or history.stopped else 1)
        self._active = None
