"""A callback that averages θ over the epochs."""

from typing import TYPE_CHECKING, Any

from xpnet.arrays import Array
from xpnet.checks import number
from xpnet.training.callbacks import Callback
from xpnet.training.history import History

if TYPE_CHECKING:
    from xpnet.model import Model


class ExponentialMovingAverage(Callback):
    """a ← a + (1 − decay) (θ − a) after each epoch, a = θ after the first        (Polyak & Juditsky, 1992)

    The average is in `theta`. When the run is over it becomes the model's θ, unless `assign` is False; what the network
    carries besides θ (`model.buffers`) stays as the last step left it.

        average = xn.ExponentialMovingAverage(0.9, assign=False)
        model.fit(x, y, epochs=20, callbacks=[average])
        last, model.theta = model.theta, average.theta
    """

    def __init__(self, decay: float = 0.9, assign: bool = True) -> None:
        self.decay = number("ExponentialMovingAverage", "decay", decay, least=0.0, below=1.0)
        self.assign = assign

    def on_train_begin(self, model: "Model") -> None:
        """Forget earlier runs."""
        self.theta: Array | None = None

    def on_epoch_end(self, model: "Model", history: History) -> None:
        """Take θ into the average."""
        theta = model.theta
        with model.backend.working():
            self.theta = theta if self.theta is None else self.theta + (1.0 - self.decay) * (theta - self.theta)

    def state(self) -> dict[str, Any]:
        """The average so far."""
        return {} if self.theta is None else {"theta": self.theta}

    def restore(self, model: "Model", state: dict[str, Any]) -> None:
        """Go on with it."""
        self.theta = state["theta"]

    def on_train_end(self, model: "Model", history: History) -> None:
        """Make it the model's θ, if the run is over."""
        if self.assign and self.theta is not None and model.underway is None:
            model.theta = self.theta
