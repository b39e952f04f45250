"""What a notebook shows of a model and of a history: HTML that is well formed, says what is true, and is only text."""

import sys
import xml.etree.ElementTree as ET
from math import nan
from types import SimpleNamespace

import numpy as np
import pytest

import xpnet as xn
from xpnet.training import html, notebook
from xpnet.training.history import History

X = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
Y = np.arange(12) % 2
SVG = "{http://www.w3.org/2000/svg}"


def cells(model):
    rows = ET.fromstring(model._repr_html_()).iter("tr")
    return [["".join(cell.itertext()) for cell in row] for row in rows]


def test_a_model_is_a_table_of_its_layers():
    net = xn.Sequential(xn.Linear(3, 4), xn.ReLU(), xn.Residual(xn.Linear(4, 4, bias=False)), xn.Linear(4, 2))
    model = xn.Model(net, xn.cross_entropy, xn.SGD(0.1), backend="numpy")
    assert cells(model) == [
        ["path", "layer", "output", "parameters", "numbers"],
        ["0", "Linear(3→4)", "(N, 4)", "weight (3, 4), bias (4,)", "16"],
        ["1", "ReLU()", "(N, 4)", "", "0"],
        ["2.0", "Linear(4→4)", "(N, 4)", "weight (4, 4)", "16"],
        ["3", "Linear(4→2)", "(N, 2)", "weight (4, 2), bias (2,)", "10"],
        ["all", "42"],
    ]
    assert "cross_entropy" in model._repr_html_()
    assert "on numpy cpu, 0 epochs done" in model._repr_html_()


def test_shapes_of_images_are_known_once_there_were_some():
    net = xn.Sequential(xn.Conv2d(1, 2, 3), xn.Flatten(), xn.Linear(8, 2))
    model = xn.Model(net, xn.cross_entropy, xn.SGD(0.1), backend="numpy")
    assert [row[2] for row in cells(model)[1:-1]] == ["", "", ""]
    model.fit(np.zeros((4, 4, 4, 1), "float32"), np.arange(4) % 2, progress=False)
    assert [row[2] for row in cells(model)[1:-1]] == ["(N, 2, 2, 2)", "(N, 8)", "(N, 2)"]


def test_a_network_of_one_layer_and_one_of_ones_own_have_a_table():
    class Odd(xn.ReLU):
        def __str__(self):
            return "<script>alert(1)</script>"

    model = xn.Model(xn.Sequential(Odd(), xn.Linear(3, 2)), xn.cross_entropy, xn.SGD(0.1), backend="numpy")
    assert [row[1] for row in cells(model)[1:-1]] == ["<script>alert(1)</script>", "Linear(3→2)"]
    assert "<script" not in model._repr_html_()
    assert len(cells(xn.Model(xn.Linear(3, 2), xn.cross_entropy, xn.SGD(0.1), backend="numpy"))) == 3


def history(epochs, **values):
    made = History()
    made.update(epoch=list(range(1, epochs + 1)), **values)
    return made


def drawn(made):
    """Return the panels of a history: their text and their lines, each a list of points."""
    panels = ET.fromstring(made._repr_html_()).findall(f"{SVG}g")
    return [
        (
            "".join(panel.find(f"{SVG}text").itertext()),
            [
                [tuple(map(float, point.split(","))) for point in line.get("points").split()]
                for line in panel.findall(f"{SVG}polyline")
            ],
        )
        for panel in panels
    ]


def test_a_history_is_curves():
    (loss, lines), (accuracy, others) = drawn(
        history(3, loss=[3.0, 2.0, 1.0], accuracy=[0.1, 0.2, 0.3], seconds=[1.0] * 3, val_loss=[3.0, 2.0, 2.0])
    )
    assert loss == "loss training validation (dashed)"
    assert accuracy == "accuracy training"
    assert len(others) == 1
    (training, validation) = lines
    assert [x for x, _ in training] == [x for x, _ in validation] == [52.0, 171.0, 290.0]
    assert [y for _, y in training] == [24.0, 92.0, 160.0], "smaller is further down"
    assert [y for _, y in validation] == [24.0, 92.0, 92.0]


def test_curves_are_bounded():
    many = history(10_000, **{f"m{k}": [1.0] * 10_000 for k in range(30)})
    assert len(many._repr_html_()) < 60_000
    panels = drawn(many)
    assert len(panels) == html.MOST_PANELS
    assert all(len(lines[0]) <= html.MOST_POINTS for _, lines in panels)
    assert panels[0][1][0][-1][0] == 290.0, "the last epoch is there"


@pytest.mark.parametrize(
    "values", [[nan, nan], [float("inf"), 1.0], [1.0, 1.0], [1e308, -1e308], [0.0, 5e-324]], ids=str
)
def test_numbers_of_any_size_can_be_drawn(values):
    for _, lines in drawn(history(2, loss=values)):
        assert all(np.isfinite(point).all() and min(point) >= 0 for line in lines for point in line)


def test_an_empty_history_and_one_epoch():
    assert History()._repr_html_() == "<p>No epoch was finished.</p>"
    assert drawn(history(1, loss=[2.0]))[0][1] == [[(171.0, 92.0)]]


def test_names_of_metrics_are_text():
    made = history(1, loss=[1.0])
    made["<img src=x onerror=alert(1)>"] = [1.0]
    assert "<img" not in made._repr_html_()
    assert drawn(made)[1][0] == "<img src=x onerror=alert(1)> training"


# In a notebook's kernel


class Kernel:
    """What IPython looks like from within a notebook."""

    def __init__(self, monkeypatch):
        self.shown, self.execution_count, self.kernel = [], 7, object()
        display = SimpleNamespace(HTML=lambda html: html, display=self.display)
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: self))
        monkeypatch.setitem(sys.modules, "IPython.display", display)

    def display(self, html, display_id):
        self.shown.append([html])
        return SimpleNamespace(update=self.shown[-1].append)


def test_in_a_notebook_there_is_a_bar_and_a_curve_that_grows(monkeypatch, capsys):
    kernel = Kernel(monkeypatch)
    monkeypatch.setattr(notebook, "REDRAWN", 0.0)
    net = xn.Sequential(xn.Linear(3, 2))
    model = xn.Model(net, xn.cross_entropy, xn.SGD(0.1), backend="numpy")
    made = model.fit(X, Y, epochs=3)
    (pictures,) = kernel.shown
    assert [ET.fromstring(one).find(f"{SVG}title").text for one in pictures] == [
        "loss up to epoch 1",
        "loss up to epoch 2",
        "loss up to epoch 3",
    ]
    assert "epoch 3/3" in capsys.readouterr().err
    assert made._repr_html_() == "", "it stands below this cell already"
    kernel.execution_count += 1
    assert made._repr_html_() == pictures[-1]
    model.fit(X, Y, epochs=3, progress="lines")
    model.fit(X, Y, epochs=3, progress=False)
    assert len(kernel.shown) == 1


def test_the_curve_is_drawn_twice_a_second_and_at_the_end(monkeypatch):
    kernel = Kernel(monkeypatch)
    net = xn.Sequential(xn.Linear(3, 2))
    xn.Model(net, xn.cross_entropy, xn.SGD(0.1), backend="numpy").fit(X, Y, epochs=30)
    assert len(kernel.shown[0]) <= 6
    assert "up to epoch 30" in kernel.shown[0][-1]
