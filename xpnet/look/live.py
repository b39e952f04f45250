"""Training as a moving picture: redrawn each epoch where you look, or written to a file."""

import io
from importlib import import_module
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from xpnet.arrays import Array
from xpnet.look.plot.canvas import pyplot
from xpnet.look.plot.regions import training
from xpnet.training.callbacks import Callback
from xpnet.training.history import History
from xpnet.training.progress import in_notebook

if TYPE_CHECKING:
    from xpnet.model import Model

INCHES = (5.4, 7.0)


class Live(Callback):
    """Redraws the training picture after every epoch, in a notebook's output or in a window.

        model.fit(x, labels, epochs=30, callbacks=[Live(x, labels)])

    Above, training and validation curves of `metric`; below, the decision regions around the samples, or, without
    samples, the loss. `every` is the number of epochs between two pictures. The last one stays in `figure`. Without a
    notebook or a screen nothing is shown.
    """

    def __init__(
        self,
        x: Array | None = None,
        labels: Array | None = None,
        metric: str = "accuracy",
        every: int = 1,
    ) -> None:
        if every < 1:
            raise ValueError(f"{type(self).__name__}: every must be at least 1, got {every}")
        self.x, self.labels, self.metric, self.every = x, labels, metric, every
        self.figure: Any = None

    def on_train_begin(self, model: "Model") -> None:
        """Open an empty picture."""
        self._drawn = 0.0
        if in_notebook():
            self._open_in_notebook()
        else:
            self._open_window()

    def on_epoch_end(self, model: "Model", history: History) -> None:
        """Draw and show, if it is time."""
        if (len(history["epoch"]) - 1) % self.every == 0:
            self._redraw(model, history)

    def on_train_end(self, model: "Model", history: History) -> None:
        """Draw the end, unless it was drawn already."""
        if history.get("epoch") and history["epoch"][-1] != self._drawn:
            self._redraw(model, history)

    def _redraw(self, model: "Model", history: History) -> None:
        self.figure.clear()
        training(history, model, self.x, self.labels, self.metric, self.figure)
        self._drawn = history["epoch"][-1]
        self._show()

    def _open_in_notebook(self) -> None:
        notebook = import_module("IPython.display")
        handle = notebook.display(display_id=True)
        self.figure = blank()

        def show() -> None:
            file = io.BytesIO()
            self.figure.savefig(file, format="png")
            handle.update(notebook.Image(data=file.getvalue()))

        self._show = show

    def _open_window(self) -> None:
        self.figure = pyplot().figure(figsize=INCHES, layout="constrained")
        canvas = self.figure.canvas
        if canvas.required_interactive_framework:
            self.figure.show()

        def show() -> None:
            canvas.draw_idle()
            canvas.flush_events()

        self._show = show


class Movie(Live):
    """Writes the training picture of every epoch to an animated GIF or, where ffmpeg is installed, an MP4.

        model.fit(x, labels, epochs=30, callbacks=[Movie("training.gif", x, labels)])

    Needs no display. `fps` is the number of pictures a second; the last one stays for two seconds.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        x: Array | None = None,
        labels: Array | None = None,
        metric: str = "accuracy",
        every: int = 1,
        fps: int = 6,
        dpi: int = 80,
    ) -> None:
        super().__init__(x, labels, metric, every)
        self.path, self.fps, self.dpi = fspath(path), fps, dpi
        if not self.path.endswith((".gif", ".mp4")):
            raise ValueError(f"Movie writes .gif and .mp4, got {self.path!r}: choose one of these endings")

    def on_train_begin(self, model: "Model") -> None:
        """Open the file."""
        self._drawn = 0.0
        self.figure = blank()
        self._writer = _writer(self.path, self.fps)
        self._writer.setup(self.figure, self.path, self.dpi)

    def on_train_end(self, model: "Model", history: History) -> None:
        """Draw the end, hold it, and close the file."""
        super().on_train_end(model, history)
        if self._drawn:
            for _ in range(2 * self.fps - 1):
                self._show()
            self._writer.finish()

    def _show(self) -> None:
        self._writer.grab_frame(facecolor=self.figure.get_facecolor())


def blank() -> Any:
    """Return an empty figure that pyplot knows nothing of, so that nobody has to close it."""
    pyplot()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _writer(path: str, fps: int) -> Any:
    from matplotlib.animation import FFMpegWriter, PillowWriter

    if path.endswith(".gif"):
        return PillowWriter(fps=fps)
    if not FFMpegWriter.isAvailable():
        raise RuntimeError("writing MP4 needs ffmpeg, which was not found: install it, or use a name ending in .gif")
    return FFMpegWriter(fps=fps)
