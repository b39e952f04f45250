"""The code of the current model, to copy: run by itself it makes the same θ, to the last bit."""

from typing import NamedTuple

from xpnet.play import recipe
from xpnet.play.recipe import Call
from xpnet.play.settings import LOSSES, Settings


class Stage(NamedTuple):
    """Epochs that were trained with the same settings."""

    settings: Settings
    epochs: int


def text(settings: Settings, stages: list[Stage], exact: bool = True) -> str:
    """Return a Python program that trains, on the data of these settings, what was trained in stages.

    `exact` is False if that cannot be told.
    """
    lines = ["import xpnet as xn", "", *data(settings), "", *network(recipe.network(settings))]
    before = stages[0].settings
    how = f"seed={settings.seed}, backend={settings.backend!r}"
    lines.append(f"model = xn.Model(net, {recipe.loss(settings)}, {recipe.optimizer(before)}, {how})")
    if not exact:
        lines.append("# data or settings changed too often while it learned: this is not quite what was seen")
    for stage in stages:
        lines += [*adjustment(before, stage.settings), *training(stage)]
        before = stage.settings
    test = "x, labels" if settings.data == "own" else "x_test, labels_test"
    x, labels = test.split(", ")
    lines += ["", f"predicted = model.predict({x}).argmax(axis=1)", f'print(f"{{(predicted == {labels}).mean():.1%}}")']
    if any("np." in line for line in lines):
        lines.insert(0, "import numpy as np")
    if any("= points." in line for line in lines):
        lines.insert(lines.index("import xpnet as xn") + 1, "from xpnet.play import points")
    return "\n".join(lines) + "\n"


def data(settings: Settings) -> list[str]:
    """Return the lines that make the data."""
    if settings.data == "own":
        drawn = "".join(f"\n    ({x}, {y}, {label})," for x, y, label in settings.points)
        lines = [f"drawn = np.array([{drawn}\n]).reshape(-1, 3)"]
        lines += ['x, labels = drawn[:, :2].astype("float32"), drawn[:, 2].astype(int)']
    elif settings.data == "mnist":
        n, tests = settings.samples, recipe.TESTS
        lines = ["(x, labels), (x_test, labels_test) = xn.datasets.mnist()"]
        lines += [f"x, labels, x_test, labels_test = x[:{n}], labels[:{n}], x_test[:{tests}], labels_test[:{tests}]"]
    else:
        lines = [f"x, labels = {recipe.planar(settings, seed=0)}"]
        lines += [f"x_test, labels_test = {recipe.planar(settings, seed=1)}"]
    hot = f'np.eye({settings.outputs}, dtype="float32")[labels]'
    rows = {"labels": "labels", "0 and 1": hot, "−1 and 1": f"2 * {hot} - 1"}
    return [*lines, f"y = {rows[LOSSES[settings.loss][1]]}"]


def network(call: Call) -> list[str]:
    """Return the lines that make the network, one a layer."""
    return [f"net = {call.name}(", *(f"    {layer}," for layer in call.arguments), ")"]


def adjustment(before: Settings, after: Settings) -> list[str]:
    """Return the line that changes the optimizer's settings, if one did."""
    changed = {"lr": (before.rate, after.rate), "weight_decay": (before.decay, after.decay)}
    words = [f"{name}={new}" for name, (old, new) in changed.items() if new != old]
    return [f"model.adjust({', '.join(words)})"] if words else []


def training(stage: Stage) -> list[str]:
    """Return the line that trains, if there was an epoch."""
    return [f"model.fit(x, y, epochs={stage.epochs}, batch_size={stage.settings.batch})"] if stage.epochs else []
