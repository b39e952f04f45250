"""What a logger is: something that is given lines of numbers, each with how many steps were done."""

from abc import abstractmethod
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from xpnet.training import parts
from xpnet.training.callbacks import Callback
from xpnet.training.history import History

if TYPE_CHECKING:
    from xpnet.model import Model


class Logger(Callback):
    """Writes a line after each epoch: all that the history recorded of it, and the number of steps done.

    With `steps` there is a line after each call of K steps too, its names beginning with `step/`: see
    `Callback.on_step_end`. The first of several processes writes. For another destination override `open`, `write` and
    `close`.
    """

    def __init__(self, steps: bool = False) -> None:
        self.stepwise = steps
        self._opened = False

    @abstractmethod
    def open(self, model: "Model") -> None:
        """Get ready, before the first line."""

    @abstractmethod
    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write a line."""

    def close(self, model: "Model", history: History) -> None:
        """Finish, after training, however it ended; `model.underway` is None if it came to its end."""

    def on_train_begin(self, model: "Model") -> None:
        """Nothing is written yet: where a resumed run goes on is known only later."""
        self._opened = False

    def on_step_end(self, model: "Model", numbers: Mapping[str, float]) -> None:
        """Write what K steps gave."""
        self._line(model, {f"step/{name}": value for name, value in numbers.items()})

    def on_epoch_end(self, model: "Model", history: History) -> None:
        """Write what the epoch gave; a number that a callback records in some epochs alone stands in those."""
        whole = len(history["epoch"])
        self._line(model, {name: values[-1] for name, values in history.items() if len(values) == whole})

    def on_train_end(self, model: "Model", history: History) -> None:
        """Close, if there was anything to write."""
        if self._opened:
            self._opened = False
            self.close(model, history)

    def _line(self, model: "Model", numbers: Mapping[str, float]) -> None:
        if model.world.rank:
            return
        if not self._opened:
            self.open(model)
            self._opened = True
        self.write(model.state.t, numbers)


class RunLogger(Logger):
    """A logger whose lines belong to a run that its library keeps, known to checkpoints, so that `resume` goes on."""

    run = ""
    """The run's id."""

    def on_train_begin(self, model: "Model") -> None:
        """Forget earlier runs."""
        super().on_train_begin(model)
        self.run = ""

    def state(self) -> dict[str, Any]:
        """The run."""
        return {"run": self.run} if self.run else {}

    def restore(self, model: "Model", state: dict[str, Any]) -> None:
        """Go on with it."""
        self.run = state["run"]


def client(who: str, library: str) -> Any:
    """Import a logger's library, or say in one line what to install."""
    try:
        return import_module(library)
    except ImportError:
        raise ImportError(f"{who} needs {library}: pip install 'xpnet[loggers]'") from None


def settings(model: "Model") -> dict[str, Any]:
    """Return what a model is made of, as text and numbers: what a run is to be found by."""
    return {
        "net": str(model.net),
        "parameters": model.net.size,
        "loss": parts.name(model.loss),
        "optimizer": repr(model.optimizer),
        "metrics": ", ".join(model.metrics),
        "seed": model.seed,
        "dtype": model.dtype,
        "backend": model.backend.spec,
    }
