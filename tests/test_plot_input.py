"""xpnet.look.plot: what is like an array is drawn, many classes have room, and each wrong use is told in one line."""

import sys

import numpy as np
import pytest
from pictures import Figure, blobs, closed, matplotlib, plt, trained  # noqa: F401

import xpnet as xn
from xpnet.errors import DataError, ShapeError
from xpnet.look import plot
from xpnet.look.microscope import Microscope
from xpnet.training.history import History


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


def test_confusion_matrix_is_blue_where_it_is_right_and_orange_where_it_is_wrong():
    shades = plot.confusion_matrix(np.eye(2)[[0, 1, 0]], [0, 1, 1]).images[0].get_array()
    blue, orange = (np.asarray(matplotlib.colors.to_rgb(plot.colour(k))) for k in (0, 1))
    np.testing.assert_allclose(shades[0, 0], 0.15 + 0.85 * blue)
    np.testing.assert_allclose(shades[1, 0], 0.15 + 0.85 * orange)
    np.testing.assert_allclose(shades[0, 1], 1.0)


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
