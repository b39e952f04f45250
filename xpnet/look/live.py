"""Training as a moving picture: redrawn each epoch where you look, or written to a file."""

import io
from contextlib import suppress
from importlib import import_module
from os import PathLike, fspath
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from xpnet.arrays import Array
from xpnet.files import storage
from xpnet.look.plot.canvas import pyplot
from xpnet.look.plot.regions import training
from xpnet.training.callbacks import Callback
from xpnet.training.history import History
from xpnet.training.notebook import in_notebook

if TYPE_CHECKING:
    from xpnet.model import Model

INCHES = (5.4, 7.0)


class Live(Callback):
    """Redraws the training picture after every epoch, in a notebook's output or in a window.

        model.fit(x, labels, epochs=30, callbacks=[Live(x, labels)])

    Above, training and validation curves of `metric`; below, the decision regions around the samples, or, without
    samples, the loss. `every` is the number of epochs between two pictures. The last one stays in `figure`, and the
    window is closed when training is over. Without a notebook or a screen nothing is shown. In a notebook `fit` draws
    curves by itself, unless `progress` is "lines" or False.
    """

    on_every_rank = False
    figure: Any = None
    _drawn = 0.0

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
        """Draw the end, unless it was drawn already, and close the window."""
        try:
            if self.figure is not None and history.get("epoch") and history["epoch"][-1] != self._drawn:
                self._redraw(model, history)
        finally:
            self._close()

    def _redraw(self, model: "Model", history: History) -> None:
        self._drawn = history["epoch"][-1]  # also if drawing fails, which the end must not repeat
        self.figure.clear()
        training(history, model, self.x, self.labels, self.metric, self.figure)
        self._show()

    def _close(self) -> None:
        """Let go of the window; a figure that pyplot does not know is left as it is."""
        if self.figure is not None:
            pyplot().close(self.figure)

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

    Needs no display. `fps` is the number of pictures a second; the last one stays for two seconds. The file is there
    when training is over, whole: also when it was stopped or failed, with the epochs that were finished.
    """

    _folder: Any = None
    _writer: Any = None
    _frames = 0

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
        """Look whether the file can be written; it is when training is over."""
        folder = Path(self.path).parent
        if not folder.is_dir():
            raise FileNotFoundError(f"Movie cannot write {self.path}: there is no folder {folder}")
        self._drawn, self._frames, self._folder = 0.0, 0, None
        self._writer = _writer(self.path, self.fps)
        self.figure = blank()

    def on_train_end(self, model: "Model", history: History) -> None:
        """Draw the end, hold it, and write the file: however training ended, if there is a picture at all."""
        try:
            super().on_train_end(model, history)
        finally:
            self._finish()

    def _show(self) -> None:
        """Add a picture. The first opens the writer, on a file elsewhere: the movie comes to its place when whole."""
        if self._folder is None:
            self._folder = TemporaryDirectory(prefix="xpnet-movie-")
            self._writer.setup(self.figure, self._part(), self.dpi)
        self._writer.grab_frame(facecolor=self.figure.get_facecolor())
        self._frames += 1

    def _part(self) -> str:
        return str(Path(self._folder.name) / f"movie{Path(self.path).suffix}")

    def _finish(self) -> None:
        if self._folder is None:
            return
        try:
            if not self._frames:
                with suppress(Exception):  # nothing was drawn: this only lets go of a process
                    self._writer.finish()
                return
            for _ in range(2 * self.fps - 1):
                self._show()
            self._writer.finish()
            storage.write(Path(self.path), [(0, Path(self._part()).read_bytes())])
        finally:
            self._folder.cleanup()
            self._folder = self._writer = None


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
