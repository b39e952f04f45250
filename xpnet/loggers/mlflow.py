"""A log in MLflow."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from xpnet.loggers.base import RunLogger, client, settings
from xpnet.training.history import History

if TYPE_CHECKING:
    from xpnet.model import Model


class MLflow(RunLogger):
    """Writes metrics over the steps to the MLflow run that is active, or else to one of its own, called `name`.

        mlflow.set_tracking_uri(...); mlflow.set_experiment(...)
        model.fit(x, y, epochs=20, callbacks=[xn.loggers.MLflow("first")])

    Where that is, MLflow's own settings say. Its own run has what the model is made of as parameters, ends as FINISHED,
    KILLED (by Ctrl-C) or FAILED, and is gone on with when training is resumed; its id is in `run`. MLflow's reports of
    usage to its makers are off, unless MLFLOW_DISABLE_TELEMETRY is set to "false".
    """

    def __init__(self, name: str | None = None, steps: bool = False) -> None:
        super().__init__(steps)
        self.name = name
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it is read when mlflow is imported
        self._library, self._own = client("MLflow", "mlflow"), False

    def open(self, model: "Model") -> None:
        """Take the active run, or begin one."""
        active = self._library.active_run()
        self._own = active is None
        if self._own:
            goes_on = bool(self.run)
            active = self._library.start_run(run_id=self.run or None, run_name=None if goes_on else self.name)
            if not goes_on:
                self._library.log_params(settings(model))
        self.run = active.info.run_id

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add a point to each metric."""
        self._library.log_metrics(dict(numbers), step=step, run_id=self.run)

    def close(self, model: "Model", history: History) -> None:
        """End its own run."""
        if self._own:
            killed = "KILLED" if history.stopped == "Ctrl-C" else "FAILED"
            self._library.end_run("FINISHED" if model.underway is None else killed)
