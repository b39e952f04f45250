"""Training as a moving picture: windows are closed, movies are whole or not there, and training is the same."""

import sys

import numpy as np
import pytest
from pictures import Figure, blobs, closed, plt, style, trained  # noqa: F401

from xpnet.errors import DataError
from xpnet.look.live import Live, Movie
from xpnet.training.history import History


@pytest.mark.usefixtures("style")
def test_movie_has_a_picture_for_every_epoch(tmp_path):
    image = pytest.importorskip("PIL.Image")
    x, labels = blobs()
    path = tmp_path / "training.gif"
    trained(epochs=5, callbacks=[Movie(path, x, labels, every=2, fps=3, dpi=40)])
    with image.open(path) as movie:
        frames, seconds = movie.n_frames, 0.0
        for k in range(frames):
            movie.seek(k)
            seconds += movie.info["duration"] / 1000
    assert frames == 3
    assert seconds == pytest.approx(3 / 3 + 5 / 3, abs=0.05)
    assert not plt.get_fignums()


def ended(callback, epochs):
    """Call a callback as fit does when training is over after some epochs."""
    model, history, *_ = trained(epochs=max(epochs, 1))
    callback.on_train_begin(model)
    so_far = History()
    for k in range(epochs):
        so_far = History({name: values[: k + 1] for name, values in history.items()})
        callback.on_epoch_end(model, so_far)
    callback.on_train_end(model, so_far)


@pytest.mark.parametrize("epochs", [0, 1, 3])
def test_a_movie_is_whole_or_not_there_however_training_ended(tmp_path, epochs):
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "a.gif"
    path.write_text("an older film")
    ended(Movie(path, every=2, fps=2, dpi=20), epochs)
    if not epochs:
        assert path.read_text() == "an older film"
    else:
        with image.open(path) as movie:
            durations = []
            for k in range(movie.n_frames):
                movie.seek(k)
                durations.append(movie.info["duration"] / 1000)
        assert sum(durations) == pytest.approx(((epochs + 1) // 2 + 3) / 2, abs=0.05)
    assert [file.name for file in tmp_path.iterdir()] == ["a.gif"]


def test_a_movie_that_cannot_be_drawn_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a.gif"
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    movie = Movie(path, metric="r2", dpi=20)
    model, history, *_ = trained(epochs=1)
    movie.on_train_begin(model)
    with pytest.raises(DataError, match='"r2" was not recorded'):
        movie.on_epoch_end(model, history)
    movie.on_train_end(model, history)  # does not raise the same again
    assert not list(tmp_path.iterdir())


def test_a_movie_whose_writer_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    def full(self, **_):
        raise OSError(28, "No space left on device")

    path = tmp_path / "a.gif"
    path.write_text("an older film")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    movie = Movie(path, dpi=20)
    model, history, *_ = trained(epochs=2)
    movie.on_train_begin(model)
    movie.on_epoch_end(model, history)
    assert len(list(tmp_path.iterdir())) == 2
    monkeypatch.setattr("matplotlib.animation.PillowWriter.grab_frame", full)
    with pytest.raises(OSError, match="No space left"):
        movie.on_train_end(model, history)
    assert path.read_text() == "an older film"
    assert [file.name for file in tmp_path.iterdir()] == ["a.gif"]
    movie.on_train_end(model, history)  # nothing is open any more
    never = Movie(path)
    never.on_train_end(model, history)  # nothing ever was


def test_a_movie_in_no_folder_is_refused_before_training(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"there is no folder {tmp_path / 'films'}$"):
        Movie(tmp_path / "films" / "a.gif").on_train_begin(None)


@pytest.mark.parametrize("epochs", [0, 1, 2])
def test_live_closes_its_window_and_keeps_the_picture(monkeypatch, epochs):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    own, live = plt.figure(), Live()
    ended(live, epochs)
    assert plt.get_fignums() == [own.number]
    assert len(live.figure.axes) == (2 if epochs else 0)
    live.figure.canvas.draw()


def test_live_closes_its_window_when_the_last_picture_cannot_be_drawn(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    live = Live(metric="r2", every=2)
    model, history, *_ = trained(epochs=1)
    live.on_train_begin(model)
    with pytest.raises(DataError, match='"r2" was not recorded'):
        live.on_train_end(model, history)
    assert not plt.get_fignums()


def test_movie_of_another_kind():
    with pytest.raises(ValueError, match=r"Movie writes \.gif and \.mp4, got 'a\.avi'"):
        Movie("a.avi")
    with pytest.raises(ValueError, match="every must be at least 1"):
        Movie("a.gif", every=0)


def test_mp4_without_ffmpeg(monkeypatch, tmp_path):
    monkeypatch.setattr("matplotlib.animation.FFMpegWriter.isAvailable", lambda: False)
    with pytest.raises(RuntimeError, match=r"needs ffmpeg.*ending in \.gif"):
        trained(callbacks=[Movie(tmp_path / "a.mp4")])


def test_live_draws_the_last_epoch_without_a_display(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    x, labels = blobs()
    live = Live(x, labels, every=2)
    history = trained(epochs=4, callbacks=[live])[1]
    above, below = live.figure.axes
    assert list(above.lines[0].get_ydata()) == history["accuracy"]
    assert below.collections


def test_live_shows_pictures_in_a_notebook(monkeypatch):
    shown = []

    class Handle:
        def update(self, picture):
            shown.append(picture.data[:4])

    class Shell:
        kernel = "there is one"

    class IPython:
        get_ipython = Shell

    class Display:
        display = staticmethod(lambda display_id: Handle())

        class Image:
            def __init__(self, data):
                self.data = data

    monkeypatch.setitem(sys.modules, "IPython", IPython)
    monkeypatch.setitem(sys.modules, "IPython.display", Display)
    trained(epochs=3, callbacks=[Live()])
    assert shown == [b"\x89PNG"] * 3


@pytest.mark.parametrize("callback", [lambda x, y: Live(x, y), lambda x, y: Movie("a.gif", x, y, dpi=30)])
def test_pictures_do_not_change_training(callback, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    x, labels = blobs()
    plain, watched = trained()[0], trained(callbacks=[callback(x, labels)])[0]
    assert np.array_equal(plain.theta, watched.theta)


def test_live_opens_a_window_where_there_is_one(monkeypatch):
    """A canvas of a graphical toolkit is shown once, and redrawn after every epoch without blocking."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    calls = []
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    monkeypatch.setattr(FigureCanvasAgg, "required_interactive_framework", "some toolkit", raising=False)
    monkeypatch.setattr(Figure, "show", lambda self: calls.append("show"))
    monkeypatch.setattr(FigureCanvasAgg, "flush_events", lambda self: calls.append("flush"))
    trained(epochs=3, callbacks=[Live()])
    assert calls == ["show", "flush", "flush", "flush"]
