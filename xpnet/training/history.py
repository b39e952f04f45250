"""What a training run leaves behind."""

import time

from xpnet.training import notebook


class History(dict[str, list[float]]):
    """A list a key, one number an epoch: what `fit` returns.

    `epoch` (counted from 1, over all calls of fit), `loss` and each metric (means over the epoch's batches, measured
    while training, each weighing as its size), `val_loss`, `val_…` (over the whole validation set, after the epoch),
    `learning_rate` (at the last step), `gradient_norm` (‖∂L/∂θ‖₂ before clipping, a mean like the loss), `max_weight`
    (the largest |w| of all matrices, after the epoch), `seconds` (of training, validation not counted).
    """

    stopped: str | None = None
    """Why training ended before its last epoch, if it did."""
    cell: int | None = None
    """The notebook's cell under which it was drawn while training."""

    def add(self, **values: float) -> None:
        """Append one epoch's numbers."""
        for key, value in values.items():
            self.setdefault(key, []).append(value)

    def last(self) -> str:
        """Say how the last epoch went, in one line."""
        return ", ".join(self.numbers())

    def numbers(self) -> list[str]:
        """Return the last epoch's loss and metrics, each as text."""
        return [f"{key}={values[-1]:.4g}" for key, values in self.items() if key not in notebook.OWN and values]

    def _repr_html_(self) -> str:
        """Return the curves, for a notebook; nothing below the cell that has drawn them while it trained."""
        return "" if self.cell is not None and self.cell == notebook.cell() else self.html()

    def html(self) -> str:
        """Return the loss and the metrics as curves, an SVG picture for a page."""
        from xpnet.training.html import curves  # which training itself has no use for

        return curves(self)


class Stopwatch:
    """Seconds of wall-clock time, without the pauses: `with watch: …` adds."""

    seconds = 0.0

    def __enter__(self) -> "Stopwatch":
        self._start = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        self.seconds += time.perf_counter() - self._start
