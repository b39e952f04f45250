"""xpnet.look.plot: every picture in a light and a dark style, what is on it, and one clear line for each wrong use."""

import subprocess
import sys

import numpy as np
import pytest

import xpnet as xn
from xpnet.errors import DataError, ShapeError
from xpnet.training.history import History

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from xpnet.look import plot  # noqa: E402
from xpnet.look.live import Live, Movie  # noqa: E402
from xpnet.look.microscope import Microscope  # noqa: E402
from xpnet.look.plot.canvas import ON_DARK, ON_LIGHT  # noqa: E402

STYLES = ("default", "dark_background")


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture(params=STYLES)
def style(request):
    with plt.style.context(request.param):
        yield request.param


def blobs(classes=3, features=2, n=90):
    rng = np.random.default_rng(0)
    labels = np.arange(n) % classes
    x = rng.normal(size=(n, features)) * 0.4
    x[:, 0] += 2.0 * np.cos(2 * np.pi * labels / classes)
    x[:, 1] += 2.0 * np.sin(2 * np.pi * labels / classes)
    return x.astype(np.float32), labels


def trained(classes=3, features=2, epochs=3, callbacks=(), **options):
    x, labels = blobs(classes, features)
    net = xn.Sequential(xn.Linear(features, 8), xn.ReLU(), xn.Linear(8, 8), xn.Tanh(), xn.Linear(8, classes))
    model = xn.Model(net, xn.cross_entropy, xn.Adam(0.02), metrics=["accuracy"], backend="numpy")
    history = model.fit(x, labels, epochs, 16, validation=0.2, callbacks=callbacks, progress=False, **options)
    return model, history, x, labels


@pytest.fixture(scope="module")
def run():
    x, labels = blobs()
    scope = Microscope(x, labels, say=None)
    return (*trained(callbacks=[scope]), scope)


def digits(n=30):
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (n, 7, 7)).astype(np.uint8), rng.normal(size=(n, 10)), rng.integers(0, 10, n)


PANELS = {
    "curves": lambda m, h, x, y, s, **k: plot.curves(h, "accuracy", **k),
    "max_weight": lambda m, h, x, y, s, **k: plot.max_weight(h, **k),
    "max_weight per layer": lambda m, h, x, y, s, **k: plot.max_weight(s, **k),
    "layers": lambda m, h, x, y, s, **k: plot.layers(s, "gradient_norm", **k),
    "trouble": lambda m, h, x, y, s, **k: plot.trouble(s, **k),
    "loss": lambda m, h, x, y, s, **k: plot.loss(xn.hinge, 1, **k),
    "scatter": lambda m, h, x, y, s, **k: plot.scatter(x, y, **k),
    "decision_regions": lambda m, h, x, y, s, **k: plot.decision_regions(m, x, y, resolution=40, **k),
    "confusion_matrix": lambda m, h, x, y, s, **k: plot.confusion_matrix(m.predict(x), y, **k),
}
FIGURES = {
    "history": lambda m, h, x, y, s, **k: plot.history(h, **k),
    "microscope": lambda m, h, x, y, s, **k: plot.microscope(s, **k),
    "loss_functions": lambda m, h, x, y, s, **k: plot.loss_functions(**k),
    "training": lambda m, h, x, y, s, **k: plot.training(h, m, x, y, **k),
    "training, no samples": lambda m, h, x, y, s, **k: plot.training(h, m, **k),
    "weights": lambda m, h, x, y, s, **k: plot.weights(np.eye(49), **k),
    "images": lambda m, h, x, y, s, **k: plot.images(digits()[0], **k),
    "mistakes": lambda m, h, x, y, s, **k: plot.mistakes(*digits(), **k),
}


def backgrounds(figure):
    return {figure.get_facecolor(), *(ax.get_facecolor() for ax in figure.axes)}


@pytest.mark.parametrize("name", PANELS)
def test_panel_draws_on_the_axes_given_or_on_new_ones(name, run, style):
    ax = PANELS[name](*run)
    assert isinstance(ax, Axes)
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    given = plt.figure().subplots()
    assert PANELS[name](*run, ax=given) is given
    given.figure.canvas.draw()


@pytest.mark.parametrize("name", FIGURES)
def test_figure_draws_on_the_figure_given_or_on_a_new_one(name, run, style):
    figure = FIGURES[name](*run)
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    given = plt.figure(layout="constrained")
    assert FIGURES[name](*run, figure=given) is given
    for ax in figure.axes:
        if ax.axison:
            assert ax.get_xlabel() or ax.get_ylabel()


@pytest.mark.parametrize("name", PANELS)
def test_text_can_be_read_on_its_background(name, run, style):
    """Every text differs from what is behind it by a WCAG contrast of at least 4.5."""
    ax = PANELS[name](*run)
    behind = luminance(ax.get_facecolor())
    for text in (ax.xaxis.label, ax.yaxis.label, *ax.get_xticklabels(), *ax.get_yticklabels()):
        assert contrast(luminance(text.get_color()), behind) >= 4.5
    for line in ax.lines:
        assert contrast(luminance(line.get_color()), behind) >= 2.0


@pytest.mark.parametrize(("palette", "background"), [(ON_LIGHT, 1.0), (ON_DARK, 0.0)])
def test_first_colours_stand_out(palette, background):
    assert all(contrast(luminance(shade), background) >= 3.0 for shade in palette[:3])


def luminance(colour):
    c = np.asarray(matplotlib.colors.to_rgb(colour))
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def contrast(a, b):
    return (max(a, b) + 0.05) / (min(a, b) + 0.05)


def test_curves_show_what_was_recorded(run):
    history = run[1]
    training, validation = plot.curves(history, "accuracy").lines
    assert list(training.get_ydata()) == history["accuracy"]
    assert list(validation.get_ydata()) == history["val_accuracy"]
    assert list(training.get_xdata()) == history["epoch"] == [1, 2, 3]


def test_accuracy_is_in_percent(run):
    ax = plot.curves(run[1], "accuracy")
    assert "%" in ax.get_ylabel()
    assert ax.yaxis.get_major_formatter()(0.85, None) == "85"


def test_one_epoch_can_be_seen():
    line = plot.curves(trained(epochs=1)[1]).lines[0]
    assert line.get_marker() == "o"


@pytest.mark.parametrize("classes", [2, 3, 8])
def test_decision_regions_of_any_number_of_classes(classes):
    """The fill at every sample has the hue of the predicted class."""
    x, labels = blobs(classes)
    centres = np.stack([x[labels == k].mean(axis=0) for k in range(classes)])
    ax = plot.decision_regions(lambda g: -10 * np.linalg.norm(g[:, None] - centres, axis=2), x)
    fills = [c for c in ax.collections if c.get_array() is not None and len(c.get_array()) == 4]
    assert len(fills) == classes
    for k, fill in enumerate(fills):
        inside = [any(path.contains_point(c) for path in fill.get_paths()) for c in centres]
        assert inside == [j == k for j in range(classes)]


def test_decision_regions_hold_other_features_at_their_mean():
    x, labels = blobs(features=4)
    seen = []
    plot.decision_regions(lambda g: seen.append(g) or g[:, :3], x, labels, features=(1, 3), resolution=20)
    grid = seen[0]
    assert grid.shape == (400, 4)
    np.testing.assert_allclose(grid[:, [0, 2]], np.broadcast_to(x[:, [0, 2]].mean(axis=0), (400, 2)), rtol=1e-5)
    assert grid[:, 1].min() < x[:, 1].min() < x[:, 1].max() < grid[:, 1].max()


@pytest.mark.parametrize("labels", [np.array([-1.0, 1.0] * 45), np.array([[0], [1]] * 45)])
def test_decision_regions_of_one_score(labels):
    x = blobs(2)[0]
    ax = plot.decision_regions(lambda g: g[:, :1], x, labels, resolution=20)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["class 0", "class 1"]


def test_probabilities_are_not_squashed_twice():
    """A network that is sure, by probabilities, is drawn in the strongest shade."""
    x = blobs(2)[0]
    sure = plot.decision_regions(lambda g: np.stack([g[:, 0] > 0, g[:, 0] <= 0], axis=1).astype(float), x)
    strongest = next(c for c in sure.collections if c.get_array() is not None and len(c.get_array()) == 4).get_paths()[
        3
    ]
    assert strongest.contains_point((1.0, 0.0))


def test_loss_functions_are_the_losses_themselves():
    figure = plot.loss_functions()
    absolute, squared, huber = figure.axes[0].lines
    e = absolute.get_xdata()
    np.testing.assert_allclose(absolute.get_ydata(), np.abs(e), atol=1e-12)
    np.testing.assert_allclose(squared.get_ydata(), e**2, atol=1e-12)
    np.testing.assert_allclose(huber.get_ydata(), np.where(np.abs(e) < 1, e**2 / 2, np.abs(e) - 0.5), atol=1e-12)
    one, zero = figure.axes[2].lines
    np.testing.assert_allclose(one.get_ydata(), -np.log(one.get_xdata()), atol=1e-9)
    np.testing.assert_allclose(zero.get_ydata(), -np.log1p(-zero.get_xdata()), atol=1e-9)
    step = figure.axes[1].lines[0].get_ydata()
    assert set(np.asarray(step)) == {0.0, 1.0}


def test_confusion_matrix_shows_the_counts():
    prediction, labels = np.eye(3)[[0, 1, 1, 2]], np.array([0, 1, 2, 2])
    ax = plot.confusion_matrix(prediction, labels, names=["a", "b", "c"])
    counts = {(t.get_position()[1], t.get_position()[0]): t.get_text() for t in ax.texts}
    assert counts == {(0, 0): "1", (1, 1): "1", (2, 1): "1", (2, 2): "1"}
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a", "b", "c"]


def test_confusion_matrix_of_many_classes_stays_small_and_is_left_to_the_shades():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 1000, 3000)
    scores = np.zeros((3000, 1000), np.float32)
    scores[np.arange(3000), np.where(rng.random(3000) < 0.8, labels, rng.integers(0, 1000, 3000))] = 1.0
    ax = plot.confusion_matrix(scores, labels, names=[f"no {k}" for k in range(1000)])
    assert max(ax.figure.get_size_inches()) < 17
    assert not ax.texts
    assert ax.images[0].get_array().shape == (1000, 1000, 3)
    ax.figure.canvas.draw()
    shown = [tick.get_text() for tick in ax.get_xticklabels() if tick.get_text()]
    assert 4 <= len(shown) <= 13
    assert shown[1] == f"no {int(ax.get_xticks()[ax.get_xticks() >= 0][1])}"
    assert ax.get_title() == "3,000 samples, the stronger the more"
    few = plot.confusion_matrix(np.eye(30), np.arange(30))
    assert len(few.texts) == 30


@pytest.mark.parametrize("names", [np.asarray(["a", "b"]), ("a", "b"), [np.str_("a"), "b"]])
def test_confusion_matrix_takes_names_of_any_sequence_and_one_score_a_sample(names):
    for scores, labels in [([1.5, -1.0, 2.0], [1, 0, 0]), ([[1.5], [-1.0], [2.0]], [[1], [-1], [-1]])]:
        ax = plot.confusion_matrix(scores, labels, names=names)
        counts = {(t.get_position()[1], t.get_position()[0]): t.get_text() for t in ax.texts}
        assert counts == {(0, 0): "1", (0, 1): "1", (1, 1): "1"}
        assert [t.get_text() for t in ax.get_xticklabels()] == ["a", "b"]


def as_frame(array):
    return pytest.importorskip("pandas").DataFrame(array)


LIKES = {
    "list": lambda array: array.tolist(),
    "tuple": lambda array: tuple(map(tuple, array.tolist())) if array.ndim == 2 else tuple(array.tolist()),
    "DataFrame": as_frame,
    "Series": lambda array: as_frame(array)[0] if array.ndim == 1 else as_frame(array),
    "torch": lambda array: pytest.importorskip("torch").asarray(array),
}


@pytest.mark.parametrize("kind", LIKES)
def test_what_is_like_an_array_is_drawn_alike(kind):
    like = LIKES[kind]
    x, labels = blobs()
    scores = x @ np.ones((2, 3), np.float32)
    for draw in (
        lambda f: plot.scatter(f(x), f(labels)),
        lambda f: plot.decision_regions(lambda g: f(g @ np.eye(2, 3)), f(x), f(labels), resolution=8),
        lambda f: plot.confusion_matrix(f(scores), f(labels)),
    ):
        ax, expected = draw(like), draw(np.asarray)
        assert len(ax.collections) == len(expected.collections)
        assert [t.get_text() for t in ax.texts] == [t.get_text() for t in expected.texts]
    shown = plot.weights(like(np.eye(4)), shape=[2, 2], titles=np.asarray(["a", "b"])).axes
    assert [ax.get_title() for ax in shown[:3]] == ["a", "b", "unit 2"]


def test_decision_regions_of_a_thousand_classes_are_drawn_where_one_wins():
    sides = np.zeros((2, 1000))
    sides[0, [7, 900]] = -20.0, 20.0
    ax = plot.decision_regions(lambda g: g @ sides, blobs()[0], resolution=40)
    assert len([c for c in ax.collections if c.get_array() is not None and len(c.get_array()) == 4]) == 2


def test_decision_regions_of_one_class_everywhere():
    ax = plot.decision_regions(lambda g: np.tile([9.0, 0.0, 0.0], (len(g), 1)), blobs()[0], resolution=8)
    assert len(ax.collections) == 1


def test_worst_mistakes_come_first():
    pictures = np.zeros((3, 2, 2))
    prediction = np.array([[0.4, 0.6], [0.1, 0.9], [0.9, 0.1]])
    figure = plot.mistakes(pictures, prediction, np.array([0, 0, 0]))
    assert [ax.get_title() for ax in figure.axes] == ["0 taken for 1"] * 2
    figure = plot.mistakes(np.arange(12).reshape(3, 2, 2), prediction, np.array([0, 0, 0]), count=1)
    assert figure.axes[0].images[0].get_array().max() == 7


def test_weights_of_a_model_and_of_any_backend(run, backend):
    x, labels = blobs(features=4)
    net = xn.Sequential(xn.Linear(4, 3))
    model = xn.Model(net, xn.cross_entropy, xn.SGD(0.1), backend=backend)
    figure = plot.weights(model)
    shown = figure.axes[0].images[0].get_array()
    expected = backend.asnumpy(net.windows(model.theta)["0.weight"])[:, 0].reshape(2, 2)
    np.testing.assert_array_equal(shown, expected)
    plot.decision_regions(model, x, labels, resolution=10)


WRONG = {
    "empty history": (lambda: plot.history(History()), DataError, "history is empty: no epoch was finished"),
    "no such metric": (
        lambda: plot.curves(trained(epochs=1)[1], "r2"),
        DataError,
        r'"r2" was not recorded.*metrics=\["r2"\]',
    ),
    "no validation": (
        lambda: plot.curves(trained(epochs=1)[1], "val_r2"),
        DataError,
        '"val_r2" was not recorded.*pass validation=',
    ),
    "other inputs": (
        lambda: plot.decision_regions(trained(epochs=1)[0], blobs(features=5)[0]),
        ShapeError,
        r"Linear\(2→8\) at layer 0 expects input \(N, 2\), got \(90, 5\)",
    ),
    "one feature": (
        lambda: plot.decision_regions(abs, np.zeros((9, 1))),
        ShapeError,
        r"at least two features, got \(9, 1\)",
    ),
    "points in a line": (lambda: plot.scatter(np.zeros(9), np.zeros(9)), ShapeError, "scatter needs x"),
    "no square": (lambda: plot.weights(np.zeros((10, 2))), ShapeError, r"10 inputs are no image.*pass shape="),
    "no matrix": (lambda: plot.weights(np.zeros(10)), ShapeError, r"needs a matrix \(I, O\)"),
    "no pictures": (lambda: plot.images(np.zeros((0, 2, 2))), ShapeError, "at least one"),
    "no mistakes": (lambda: plot.mistakes(np.zeros((1, 2, 2)), np.eye(2)[:1], [0]), DataError, "there are none"),
    "no microscope": (lambda: plot.microscope(Microscope([], [])), DataError, "has seen nothing yet"),
    "no such quantity": (lambda: plot.layers(Microscope([], []), "dying"), DataError, "choose one of max_weight"),
}


SQUARES, TWO = np.zeros((3, 2, 2)), np.eye(2)[[0, 1, 0]]
WRONG |= {
    "a model for a history": (lambda: plot.history("run.json"), TypeError, "expected the History .* got str"),
    "no microscope at all": (lambda: plot.trouble(History()), TypeError, "expected a Microscope .* got History"),
    "a figure for an axes": (
        lambda: plot.scatter(*blobs(), ax=Figure()),
        TypeError,
        r"ax= takes one matplotlib Axes, got Figure: pass one of figure\.subplots\(\)",
    ),
    "many axes": (lambda: plot.loss(xn.hinge, ax=Figure().subplots(1, 2)), TypeError, "ax= takes one .* got ndarray"),
    "axes for a figure": (
        lambda: plot.images(SQUARES, figure=Figure().subplots()),
        TypeError,
        "figure= takes a matplotlib Figure, got Axes",
    ),
    "words": (
        lambda: plot.scatter([["a", "b"]], [0]),
        DataError,
        "scatter: x must be numbers in rows of one length, got",
    ),
    "ragged": (
        lambda: plot.weights([[1.0], [1.0, 2.0]]),
        DataError,
        "weights: the matrix must be numbers in rows of one",
    ),
    "nothing": (lambda: plot.images(None), DataError, "images: pictures must be numbers .* got NoneType"),
    "fewer labels": (lambda: plot.scatter(blobs()[0], [0, 1]), DataError, "a label for each of the 90 samples, got 2"),
    "one-hot labels": (lambda: plot.confusion_matrix(TWO, TWO), DataError, "a label for each of the 3 samples, got 6"),
    "half a label": (lambda: plot.scatter(blobs(n=2)[0], [0, 0.5]), DataError, r"must be integers, got 0\.5 at row 1"),
    "no label": (lambda: plot.scatter(blobs(n=2)[0], [0, np.nan]), DataError, "must be integers, got nan at row 1"),
    "too high a label": (
        lambda: plot.confusion_matrix(TWO, [0, 1, 2]),
        DataError,
        r"labels must be integers in 0\.\.1, got 2 at row 2",
    ),
    "class numbers": (lambda: plot.confusion_matrix([0, 2], [0, 1]), DataError, "what look like class numbers"),
    "too few names": (lambda: plot.confusion_matrix(TWO, [0, 1, 0], names=["a"]), DataError, "1 names for 2 classes"),
    "no predictions": (
        lambda: plot.confusion_matrix(np.zeros((0, 3)), []),
        ShapeError,
        r"at least one sample, got \(0, 3\)",
    ),
    "images of predictions": (lambda: plot.mistakes(SQUARES, SQUARES, [0] * 3), ShapeError, r"prediction \(N, C\)"),
    "fewer pictures": (
        lambda: plot.mistakes(SQUARES[:2], TWO, [1, 0, 1]),
        ShapeError,
        "2 pictures, but predictions for 3",
    ),
    "no panels": (lambda: plot.images(SQUARES, count=0), ValueError, "count must be at least 1, got 0"),
    "no weights": (lambda: plot.weights(np.zeros((4, 0))), ShapeError, r"needs a matrix \(I, O\), got \(4, 0\)"),
    "one side": (lambda: plot.weights(np.eye(4), shape=(4,)), ValueError, "shape must be two integers"),
    "no such feature": (
        lambda: plot.scatter(*blobs(), features=(0, 2)),
        DataError,
        r"two different ones of 0\.\.1, got \(0, 2\)",
    ),
    "one feature twice": (
        lambda: plot.decision_regions(abs, blobs()[0], features=(1, 1)),
        DataError,
        "two different ones",
    ),
    "no samples": (lambda: plot.decision_regions(abs, np.zeros((0, 2))), DataError, "at least one sample"),
    "an infinite sample": (lambda: plot.decision_regions(abs, [[0.0, np.inf]]), DataError, "finite numbers"),
    "no resolution": (lambda: plot.decision_regions(abs, blobs()[0], resolution=1), ValueError, "at least 2, got 1"),
    "no function": (lambda: plot.decision_regions("net", blobs()[0]), TypeError, "a Model or a function of x, got str"),
    "other answers": (
        lambda: plot.decision_regions(lambda g: g[:5], blobs()[0], resolution=4),
        ShapeError,
        r"scores \(N, C\) for the 16 points it drew, got \(5, 2\)",
    ),
    "no loss": (lambda: plot.loss("hinge"), TypeError, "draws a function, such as xn.hinge, got str"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_use_is_told_in_one_line(name):
    call, error, text = WRONG[name]
    with pytest.raises(error, match=text) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert not plt.get_fignums()


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"^pictures need matplotlib: pip install 'xpnet\[plot\]'$"):
        plot.loss_functions()


def test_importing_costs_nothing():
    """Neither xpnet nor xpnet.look.plot imports matplotlib before something is drawn."""
    modules = "xpnet, xpnet.look.plot, xpnet.look.live, xpnet.look.microscope"
    code = f"import sys, {modules}; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_movie_has_a_picture_for_every_epoch(tmp_path, style):
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
