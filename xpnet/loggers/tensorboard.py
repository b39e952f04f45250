"""A log for TensorBoard, through tensorboardX."""

from collections.abc import Mapping
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from xpnet.loggers.base import Logger, client, settings
from xpnet.training.history import History

if TYPE_CHECKING:
    from xpnet.model import Model


class TensorBoard(Logger):
    """Writes curves over the steps, and what the model is made of, to a folder that TensorBoard reads.

        model.fit(x, y, epochs=20, callbacks=[xn.loggers.TensorBoard("runs/first", steps=True)])
        tensorboard --logdir runs

    A model that goes on writes a file more; TensorBoard hides what an earlier one has beyond the step where it goes on.
    """

    def __init__(self, folder: str | PathLike[str], steps: bool = False) -> None:
        super().__init__(steps)
        self.folder, self._library = fspath(folder), client("TensorBoard", "tensorboardX")
        self._from = 0
        self._writer: Any = None

    def on_train_begin(self, model: "Model") -> None:
        """Note where the model stands."""
        super().on_train_begin(model)
        self._from = model.state.t

    def open(self, model: "Model") -> None:
        """Begin a file."""
        how = {"purge_step": self._from + 1 if self._from else None, "filename_suffix": f".{self._from}"}
        self._writer = self._library.SummaryWriter(self.folder, **how)  # a name holds seconds: two may be the same
        text = "\n".join(f"- {name}: `{value}`" for name, value in settings(model).items())
        self._writer.add_text("model", text, self._from)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self, model: "Model", history: History) -> None:
        """Close the file."""
        self._writer.close()
