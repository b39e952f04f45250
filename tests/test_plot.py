"""xpnet.look.plot: every picture in a light and a dark style, and what is on it."""

import subprocess
import sys

import numpy as np
import pytest
from pictures import Axes, Figure, blobs, closed, matplotlib, plt, style, trained  # noqa: F401

import xpnet as xn
from xpnet.look import plot
from xpnet.look.microscope import Microscope
from xpnet.look.plot.canvas import ON_DARK, ON_LIGHT


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
    "roc": lambda m, h, x, y, s, **k: plot.roc(m.predict(x), y, **k),
    "precision_recall": lambda m, h, x, y, s, **k: plot.precision_recall(m.predict(x), y, **k),
    "calibration": lambda m, h, x, y, s, **k: plot.calibration(m.predict_proba(x), y, **k),
    "schedule": lambda m, h, x, y, s, **k: plot.schedule(m.optimizer, 9, **k),
    "confusion_matrix": lambda m, h, x, y, s, **k: plot.confusion_matrix(m.predict(x), y, **k),
}
FIGURES = {
    "history": lambda m, h, x, y, s, **k: plot.history(h, **k),
    "microscope": lambda m, h, x, y, s, **k: plot.microscope(s, **k),
    "loss_functions": lambda m, h, x, y, s, **k: plot.loss_functions(**k),
    "training": lambda m, h, x, y, s, **k: plot.training(h, m, x, y, **k),
    "training, no samples": lambda m, h, x, y, s, **k: plot.training(h, m, **k),
    "weights": lambda m, h, x, y, s, **k: plot.weights(np.eye(49), **k),
    "residuals": lambda m, h, x, y, s, **k: plot.residuals(x, x[::-1], **k),
    "predictions": lambda m, h, x, y, s, **k: plot.predictions(np.zeros((90, 2, 2)), m.predict_proba(x), y, **k),
    "images": lambda m, h, x, y, s, **k: plot.images(digits()[0], **k),
    "mistakes": lambda m, h, x, y, s, **k: plot.mistakes(*digits(), **k),
}


def backgrounds(figure):
    return {figure.get_facecolor(), *(ax.get_facecolor() for ax in figure.axes)}


@pytest.mark.usefixtures("style")
@pytest.mark.parametrize("name", PANELS)
def test_panel_draws_on_the_axes_given_or_on_new_ones(name, run):
    ax = PANELS[name](*run)
    assert isinstance(ax, Axes)
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    given = plt.figure().subplots()
    assert PANELS[name](*run, ax=given) is given
    given.figure.canvas.draw()


@pytest.mark.usefixtures("style")
@pytest.mark.parametrize("name", FIGURES)
def test_figure_draws_on_the_figure_given_or_on_a_new_one(name, run):
    figure = FIGURES[name](*run)
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    given = plt.figure(layout="constrained")
    assert FIGURES[name](*run, figure=given) is given
    for ax in figure.axes:
        if ax.axison:
            assert ax.get_xlabel() or ax.get_ylabel()


@pytest.mark.usefixtures("style")
@pytest.mark.parametrize("name", PANELS)
def test_text_can_be_read_on_its_background(name, run):
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


def test_importing_costs_nothing():
    """Neither xpnet nor xpnet.look.plot imports matplotlib before something is drawn."""
    modules = "xpnet, xpnet.look.plot, xpnet.look.live, xpnet.look.microscope"
    code = f"import sys, {modules}; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
