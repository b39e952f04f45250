"""Callbacks that write the numbers of training where other programs show them: `from xpnet import loggers`.

    model.fit(x, y, epochs=20, callbacks=[xn.loggers.CSVLog("run.csv"), xn.loggers.TensorBoard("runs/first")])

What is written is the same everywhere: a line of numbers by name, and how many steps are done.
"""

from xpnet.loggers.base import Logger
from xpnet.loggers.csvlog import CSVLog
from xpnet.loggers.mlflow import MLflow
from xpnet.loggers.tensorboard import TensorBoard
from xpnet.loggers.wandb import WandB

__all__ = ["CSVLog", "Logger", "MLflow", "TensorBoard", "WandB"]
