"""xpnet.look.plot: what shows how good predictions are, against scikit-learn's numbers; the network as a graph."""

import numpy as np
import pytest
from pictures import blobs, closed, matplotlib, plt, style, trained  # noqa: F401

import xpnet as xn
from xpnet.errors import DataError, ShapeError
from xpnet.look import plot
from xpnet.look.plot.blocks import HIGHEST

reference = pytest.importorskip("sklearn.metrics")
reliability = pytest.importorskip("sklearn.calibration")


def judged(classes, n=300, ties=False):
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, classes, n)
    scores = rng.normal(size=(n, classes))
    scores[np.arange(n), labels] += 1.0
    scores = np.round(scores, 0 if ties else 9)
    exp = np.exp(scores)
    return scores, exp / exp.sum(axis=1, keepdims=True), labels


def curves(ax):
    return [line for line in ax.lines if line.get_label() != "guessing"]


@pytest.mark.parametrize("ties", [False, True], ids=["all different", "many equal"])
def test_roc_is_scikit_learns(ties):
    _, p, labels = judged(2, ties=ties)
    line = curves(plot.roc(p, labels))[0]
    x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    false, true, _ = reference.roc_curve(labels, p[:, 1], drop_intermediate=False)
    assert set(zip(x, y, strict=True)) <= set(zip(false, true, strict=True))
    np.testing.assert_allclose(reference.auc(x, y), reference.roc_auc_score(labels, p[:, 1]))
    assert line.get_label() == f"AUC {reference.roc_auc_score(labels, p[:, 1]):.3f}"


@pytest.mark.parametrize("ties", [False, True], ids=["all different", "many equal"])
def test_precision_and_recall_are_scikit_learns(ties):
    _, p, labels = judged(2, ties=ties)
    ax = plot.precision_recall(p, labels)
    line = curves(ax)[0]
    precision, recall, _ = reference.precision_recall_curve(labels, p[:, 1])
    x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    best = [precision[recall == r].max() for r in x[1:]]  # a threshold that finds nothing new has no step of its own
    np.testing.assert_allclose(y[1:], best)
    assert set(x) == {0.0, *recall}
    area = reference.average_precision_score(labels, p[:, 1])
    np.testing.assert_allclose(np.sum(np.diff(x) * y[1:]), area)
    assert line.get_label() == f"AP {area:.3f}"
    assert line.get_drawstyle() == "steps-pre"
    assert ax.lines[0].get_ydata()[0] == np.mean(labels == 1)


@pytest.mark.parametrize("given", ["probabilities", "scores"])
def test_each_class_is_ranked_against_the_rest(given):
    scores, p, labels = judged(4)
    lines = curves(plot.roc(p if given == "probabilities" else scores, labels, names=["a", "b", "c", "d"]))
    for k, line in enumerate(lines):
        area = reference.roc_auc_score(labels == k, p[:, k])
        assert line.get_label() == f"{'abcd'[k]}, AUC {area:.3f}"


def test_of_many_classes_the_worst_are_drawn_and_no_more():
    scores, p, labels = judged(1000, n=1500)
    for draw, area in ((plot.roc, reference.roc_auc_score), (plot.precision_recall, reference.average_precision_score)):
        ax = draw(scores, labels)
        assert len(curves(ax)) == 6
        assert ax.get_title() == "the 6 worst of 1,000 classes"
        assert max(ax.figure.get_size_inches()) < 6
        there = np.unique(labels)
        worst = sorted(area(labels == k, p[:, k]) for k in there[::50])[0]
        drawn = [float(line.get_label().rpartition(" ")[2]) for line in curves(ax)]
        assert max(drawn) <= worst + 0.001


def test_a_curve_has_no_more_points_than_can_be_told_apart():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60_000)
    for draw in (plot.roc, plot.precision_recall):
        line = curves(draw(rng.normal(size=60_000) + labels, labels))[0]
        assert len(line.get_xdata()) <= 1001
        assert line.get_xdata()[-1] == 1.0


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("bins", [1, 7, 10])
def test_calibration_is_scikit_learns(classes, bins):
    _, p, labels = judged(classes)
    line = plot.calibration(p, labels, bins=bins).lines[1]
    chosen = p[:, 1] if classes == 2 else p.max(axis=1)
    right = labels if classes == 2 else labels == p.argmax(axis=1)
    share, mean = reliability.calibration_curve(right, chosen, n_bins=bins)
    np.testing.assert_allclose(line.get_xdata(), mean)
    np.testing.assert_allclose(line.get_ydata(), share)


def test_the_expected_calibration_error_is_the_papers():
    p, labels = [0.9, 0.8, 0.3, 0.2], [1, 0, 0, 1]
    ax = plot.calibration(p, labels, bins=2, label="mine")
    assert ax.lines[1].get_label() == f"mine, ECE {0.5 * abs(0.25 - 0.5) + 0.5 * abs(0.85 - 0.5):.3f}"
    for bar, (low, high) in zip(ax.collections[0].get_segments(), [(0.0945, 0.9055)] * 2, strict=True):  # 1 of 2
        np.testing.assert_allclose(bar[:, 1], (low, high), atol=1e-4)
    bar = plot.calibration([0.8], [1]).collections[0].get_segments()[0]
    np.testing.assert_allclose(bar[:, 1], (0.2065, 1.0), atol=1e-4)  # 1 of 1


def test_a_second_model_is_drawn_beside_the_first():
    scores, p, labels = judged(2)
    for draw, given in ((plot.roc, scores), (plot.precision_recall, scores), (plot.calibration, p)):
        ax = draw(given, labels, label="first")
        assert draw(given, labels, ax=ax, label="second") is ax
        shades = [line.get_color() for line in ax.lines[1:]]
        assert [line.get_label().partition(",")[0] for line in ax.lines[1:]] == ["first", "second"]
        assert len(set(shades)) == len(shades) == 2
    ax = plot.schedule(0.1, 10, label="flat")
    plot.schedule(xn.schedules.cosine(0.1, steps=10), 10, ax=ax, label="wave")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["flat", "wave"]


def test_constant_predictions_and_one_sample_are_drawn():
    half = np.arange(20) % 2
    assert curves(plot.roc(np.zeros(20), half))[0].get_label() == "AUC 0.500"
    assert curves(plot.precision_recall(np.zeros(20), half))[0].get_label() == "AP 0.500"
    assert plot.calibration([0.8], [1]).lines[1].get_label() == "ECE 0.200"
    figure = plot.residuals([1.0], [1.5])
    assert figure.axes[1].get_title() == "root mean squared error 0.5"
    figure.canvas.draw()


def test_residuals_are_target_minus_prediction_beside_their_size():
    rng = np.random.default_rng(0)
    target = rng.normal(size=(200, 2))
    prediction = target + rng.normal(size=(200, 2)) * 0.3
    figure = plot.residuals(prediction, target)
    dots = figure.axes[3].lines[-1]
    np.testing.assert_allclose(dots.get_ydata(), (target - prediction)[:, 1])
    np.testing.assert_allclose(dots.get_xdata(), prediction[:, 1])
    assert figure.axes[2].get_title() == f"R² {reference.r2_score(target[:, 1], prediction[:, 1]):.3f}"
    error = reference.root_mean_squared_error(target[:, 0], prediction[:, 0])
    assert figure.axes[1].get_title() == f"root mean squared error {error:.4g}"
    assert len(plot.residuals(np.zeros((5, 9)), np.ones((5, 9))).axes) == 2 * 4


def test_residuals_of_many_samples_are_counted():
    x = np.random.default_rng(0).normal(size=3001)
    figure = plot.residuals(x, 2 * x)
    counts = np.asarray(figure.axes[1].collections[0].get_array())
    assert len(counts) < 2000
    assert counts.sum() == 3001


def test_predictions_show_the_likeliest_classes():
    pictures = np.zeros((2, 4, 4))
    p = np.array([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]])
    figure = plot.predictions(pictures, p, [1, 2], names=["a", "b", "c"], top=2)
    texts = [[text.get_text() for text in ax.texts] for ax in figure.axes if ax.texts]
    assert texts == [["b", "70 %", "c", "20 %"], ["a", "50 %", "c", "30 %"]]
    assert [ax.get_title() for ax in figure.axes if ax.images] == ["b", "c"]
    bars = [[bar.get_facecolor() for bar in ax.patches[2:]] for ax in figure.axes if ax.texts]
    blue, orange = ((*(1 - 0.6 * (1 - c) for c in matplotlib.colors.to_rgb(plot.colour(k))), 1.0) for k in (0, 1))
    np.testing.assert_allclose(bars, [[blue, orange], [orange, blue]])


def test_the_learning_rate_is_the_schedules():
    wave = xn.schedules.cosine(0.1, epochs=2)
    line = plot.schedule(xn.Adam(wave), 20, steps_per_epoch=10).lines[0]
    np.testing.assert_allclose(line.get_ydata(), [xn.schedules.cosine(0.1, steps=20)(t) for t in range(20)])
    np.testing.assert_allclose(line.get_xdata(), np.arange(20) / 10)
    assert len(plot.schedule(lambda t: 1.0 / (1 + t), 10**6).lines[0].get_xdata()) == 1000


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_the_network_is_a_graph_with_shapes():
    tower = xn.Sequential(xn.Linear(5, 8), xn.ReLU())
    net = xn.Sequential(
        xn.Parallel(xn.Shared("tower", tower), xn.Shared("tower", tower), join="concat"),
        xn.Residual(xn.Linear(16, 16), xn.Tanh()),
        xn.Linear(16, 3),
    )
    found = texts(plot.network(net, ((None, 5), (None, 5))))
    for text in ("x (N, 5), (N, 5)", "Linear(5→8)", "(N, 8)", "concat", "(N, 16)", "+", "2 · 51 parameters", "(N, 3)"):
        assert text in found
    assert f"{net.size:,} parameters" in found
    model = trained(epochs=1)[0]
    assert "Linear(2→8)" in texts(plot.network(model, (None, 2)))


def test_what_has_no_room_is_folded():
    block = xn.Residual(xn.Linear(4, 4), xn.ReLU())
    for net, expected in [
        (xn.Sequential(*[block] * 25), "Residual(Linear(4→4), ReLU())"),
        (xn.Sequential(*[xn.Linear(4, 4), xn.ReLU()] * 100), "… 176 more …"),
        (xn.Sequential(xn.Parallel(*[xn.Linear(4, 4)] * 60), xn.ReLU()), "Parallel of 60 layers"),
        (xn.Parallel(*[xn.Linear(4, 4)] * 60), "Parallel of 60 layers"),
    ]:
        ax = plot.network(net, (None, 4))
        assert any(expected in text for text in texts(ax)), texts(ax)
        assert max(ax.figure.get_size_inches()) < 0.34 * (HIGHEST + 2)
        assert f"{net.size:,} parameters" in texts(ax)


def test_a_container_that_does_something_else_is_one_box():
    class Doubled(xn.Sequential):
        def forward(self, params, x, ctx):
            return super().forward(params, 2 * x, ctx)

    net = xn.Sequential(Doubled(xn.Linear(4, 4)), xn.Residual(), xn.Linear(4, 2))
    found = texts(plot.network(net, (None, 4)))
    assert "Doubled(Linear(4→4))" in found
    assert "Linear(4→4)" not in found


def of(library):
    def like(array):
        frames = pytest.importorskip(library)
        return frames.DataFrame(array) if array.ndim == 2 else frames.Series(array)

    return like


LIKES = {
    "list": np.ndarray.tolist,
    "pandas": of("pandas"),
    "polars": of("polars"),
    "torch": lambda array: pytest.importorskip("torch").asarray(array).requires_grad_(array.dtype.kind == "f"),
    "strict": lambda array: xn.backend("strict:device1").asarray(array),
}


@pytest.mark.parametrize("kind", LIKES)
def test_what_is_like_an_array_is_drawn_alike(kind):
    like, (scores, p, labels) = LIKES[kind], judged(3, n=40)
    for draw in (
        lambda f: plot.roc(f(scores), f(labels)),
        lambda f: plot.precision_recall(f(scores), f(labels)),
        lambda f: plot.calibration(f(p), f(labels)),
        lambda f: plot.residuals(f(p), f(scores)).axes[1],
        lambda f: plot.predictions(p.reshape(40, 3, 1), f(p), f(labels), count=2).axes[1],
    ):
        ax, expected = draw(like), draw(np.asarray)
        assert texts(ax) == texts(expected)
        for line, other in zip(ax.lines, expected.lines, strict=True):
            assert line.get_label() == other.get_label() or line.get_label().startswith("_")
            np.testing.assert_array_equal(line.get_ydata(), other.get_ydata())


ODD = np.array([[0.2, 0.8], [np.nan, 0.5]])
WRONG = {
    "NaN": (lambda: plot.roc(ODD, [0, 1]), DataError, "roc: the prediction holds NaN, first at row 1: leave those"),
    "NaN probabilities": (lambda: plot.calibration(ODD, [0, 1]), DataError, r"of the sum 1, got nan, 0\.5 at row 1"),
    "scores": (
        lambda: plot.calibration([[2.0, -1.0]], [0]),
        DataError,
        r"got 2, -1 at row 0: pass model\.predict_p",
    ),
    "scores, one a sample": (lambda: plot.calibration([1.5], [0]), DataError, r"got -0\.5, 1\.5 at row 0"),
    "a sum": (
        lambda: plot.predictions(np.zeros((1, 2, 2)), [[0.5] * 6]),
        DataError,
        r"0\.5, 0\.5, … at row 0",
    ),
    "one class": (
        lambda: plot.roc([0.1, 0.9], [1, 1]),
        DataError,
        "with the others, but all 2 labels are 1",
    ),
    "no class": (lambda: plot.precision_recall([[1.0, 0.0]], [2]), DataError, r"integers in 0\.\.1, got 2 at row 0"),
    "no samples": (lambda: plot.calibration(np.zeros((0, 2)), []), ShapeError, r"at least one sample, got \(0, 2\)"),
    "no bins": (lambda: plot.calibration([0.5], [1], bins=0), ValueError, "calibration: bins must be an integer"),
    "names": (lambda: plot.roc([0.1, 0.9], [0, 1], names=["a"]), DataError, "1 names for 2 classes"),
    "fewer pictures": (
        lambda: plot.predictions(np.zeros((1, 2, 2)), [0.5, 0.5]),
        ShapeError,
        "1 pictures, .* for 2",
    ),
    "NaN target": (
        lambda: plot.residuals([1.0], [np.nan]),
        DataError,
        "the target holds NaN, first at row 0",
    ),
    "other shapes": (lambda: plot.residuals([1.0, 2.0], [1.0]), ShapeError, r"of one shape, .* got \(2, 1\), \(1, 1\)"),
    "nothing": (lambda: plot.residuals([], []), ShapeError, "at least one sample"),
    "a rate": (lambda: plot.schedule(lambda t: np.nan, 5), DataError, "the learning rate at step 0 is nan"),
    "no rate": (lambda: plot.schedule("fast", 5), ValueError, "schedule: lr must be a number"),
    "no steps": (lambda: plot.schedule(0.1, 0), ValueError, "steps must be an integer of at least 1"),
    "epochs": (lambda: plot.schedule(xn.schedules.cosine(1, epochs=3), 5), ValueError, "only fit knows how many steps"),
    "another input": (lambda: plot.network(xn.Linear(3, 2), (None, 4)), ShapeError, r"expects input \(N, 3\)"),
    "no network": (lambda: plot.network("net", (None, 4)), TypeError, "draws a layer, a network or a Model, got str"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_use_is_told_in_one_line_and_draws_nothing(name):
    call, error, text = WRONG[name]
    with pytest.raises(error, match=text) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert not plt.get_fignums()


@pytest.mark.usefixtures("style")
def test_nothing_stays_open_without_windows():
    scores, p, labels = judged(3)
    plot.roc(scores, labels).figure.canvas.draw()
    plot.residuals(p, scores).canvas.draw()
    plot.network(xn.Linear(2, 2), (None, 2)).figure.canvas.draw()
    plot.scatter(*blobs())
    assert plt.get_fignums() == []


def test_a_notebook_draws_a_figure_once():
    """The last line of a cell, and one that is not; one that is shown again in a later cell."""
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    cells = [
        "from xpnet import plot\nfigure = plot.residuals([1.0, 2.0], [1.5, 2.0])\nfigure",
        "plot.residuals([1.0, 2.0], [1.5, 2.0])",
        "plot.schedule(0.1, 5)",
        "figure",
        "import matplotlib.pyplot as plt\nplt.get_fignums()",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client.NotebookClient(notebook, timeout=120).execute()
    shown = [sum("image/png" in output.get("data", {}) for output in cell.outputs) for cell in notebook.cells]
    assert shown == [1, 1, 1, 1, 0]
    assert notebook.cells[-1].outputs[0]["data"]["text/plain"] == "[]"
