"""The loss functions themselves, drawn by calling them."""

import numpy as np

from xpnet import losses, metrics
from xpnet.look.plot.canvas import DASHES, Axes, Sheet, axes, colour, legend, sheet, tidy


def loss(
    function: losses.Loss,
    target: float = 0.0,
    over: tuple[float, float] = (-2.0, 2.0),
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """Draw a loss against the prediction, for one sample with this target: `plot.loss(xn.hinge, target=1)`."""
    if not callable(function):
        raise TypeError(f"plot.loss draws a function, such as xn.hinge, got {type(function).__name__}")
    low, high = over
    predictions = np.linspace(low, high, 201)
    values = [float(function(np.asarray([p]), np.asarray([target]))[0]) for p in predictions]
    name = label or getattr(function, "__name__", "loss").replace("_", " ")
    ax = axes(ax)
    _curve(ax, predictions, values, name)
    return tidy(ax, "prediction (score)", "loss")


def loss_functions(figure: Sheet | None = None) -> Sheet:
    """Draw the lesson's loss functions: of an error, of a probability, and cross-entropy for both classes."""
    figure = sheet(figure, (11.4, 3.5))
    errors, right, classes = figure.subplots(1, 3)
    loss(losses.mean_absolute_error, ax=errors, label="absolute |e|")
    loss(losses.mean_squared_error, ax=errors, label="squared e²")
    loss(losses.huber, ax=errors, label="Huber, δ = 1")
    tidy(errors, "error e = f(x) − y", "loss (units of y, or their square)").set_title("regression")

    p = np.linspace(0.0, 1.0, 401)[1:-1]
    _curve(right, p, [_zero_one(q) for q in p], "0-1")
    _curve(right, p, [_log_loss(q, 1) for q in p], "logistic, −ln p")
    tidy(right, "probability p of the right class", "loss").set_title("classification")

    _curve(classes, p, [_log_loss(q, 1) for q in p], "y = 1: −ln p")
    _curve(classes, p, [_log_loss(q, 0) for q in p], "y = 0: −ln(1 − p)")
    tidy(classes, "predicted probability p of class 1", "loss (nats)").set_title("cross-entropy")
    for ax in (errors, right, classes):
        legend(ax)
    return figure


def _log_loss(p: float, label: int) -> float:
    return float(losses.negative_log_likelihood(np.asarray([[1.0 - p, p]]), np.asarray([label]))[0])


def _zero_one(p: float) -> float:
    return float(metrics.zero_one(np.asarray([[1.0 - p, p]]), np.asarray([1])))


def _curve(ax: Axes, x: np.ndarray, y: list[float], label: str) -> None:
    k = len(ax.lines)
    ax.plot(x, y, DASHES[k % 4], color=colour(k), label=label, linewidth=2)
