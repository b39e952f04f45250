"""The parts of a model, checked when they are given: network, loss, optimizer, metrics by name, what is frozen."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from xpnet import metrics as metrics_room
from xpnet.layers import Layer
from xpnet.losses import Loss
from xpnet.metrics import Metric
from xpnet.optimizers import Optimizer

Metrics: TypeAlias = Sequence[Metric | str] | Mapping[str, Metric]
RECORDED = ("epoch", "loss", "gradient_norm", "learning_rate", "max_weight", "seconds")
"""What the history records by itself: a metric cannot be called so."""
NAMES = (
    *("accuracy", "binary_accuracy", "balanced_accuracy", "zero_one", "top_k", "precision", "recall", "f1"),
    *("roc_auc", "average_precision", "log_loss", "perplexity"),
    *("mean_absolute_error", "mean_squared_error", "root_mean_squared_error", "r2"),
)
"""The metrics that can be asked for by name."""


def check(net: Layer, loss: Loss, optimizer: Optimizer) -> None:
    """Raise TypeError unless these are a network, a loss and an optimizer."""
    expected: dict[str, tuple[Any, type, str]] = {
        "net": (net, Layer, "a layer"),
        "optimizer": (optimizer, Optimizer, "an optimizer, such as xn.Adam()"),
    }
    for name, (value, kind, what) in expected.items():
        if not isinstance(value, kind):
            raise TypeError(f"{name} must be {what}, got {value!r}")
    if not callable(loss):
        raise TypeError(f"loss must be a function, such as xn.cross_entropy, got {loss!r}")


def patterns(frozen: Sequence[str]) -> tuple[str, ...]:
    """Return patterns of parameters as a tuple; TypeError if they are not a list of texts."""
    if isinstance(frozen, str) or not all(isinstance(pattern, str) for pattern in frozen):
        raise TypeError(f'frozen must be a list of patterns, such as ["0.*"], got {frozen!r}')
    return tuple(frozen)


def layout(net: Layer) -> dict[str, tuple[int, ...]]:
    """Return the shape of each parameter by name."""
    return {window.name: window.shape for window in net.layout}


def carried(net: Layer) -> dict[str, tuple[int, ...]]:
    """Return the shape of each buffer by name."""
    return {p.name: p.shape for p in net.buffers()}


def name(function: Any) -> str:
    """Return what a function is called, a partial as what it is a part of."""
    function = getattr(function, "func", function)
    return str(getattr(function, "__name__", type(function).__name__))


def named(metrics: Metrics) -> dict[str, Metric]:
    """Return metrics by name; ValueError or TypeError for one that is unknown, or called as something else is."""
    if isinstance(metrics, str) or callable(metrics):
        raise TypeError(f'metrics must be a list, such as ["accuracy"], got {metrics!r}')
    pairs = metrics.items() if isinstance(metrics, Mapping) else ((None, metric) for metric in metrics)
    found: dict[str, Metric] = {}
    for given, metric in pairs:
        if metric is metrics_room.confusion_matrix or not (callable(metric) or metric in NAMES):
            raise ValueError(f"unknown metric {metric!r}: choose one of {', '.join(NAMES)}, or pass a function")
        called = given or (name(metric) if callable(metric) else metric)
        if called in RECORDED or called.startswith("val_"):
            raise ValueError(f'a metric cannot be called "{called}", the history records that itself: pass a dict')
        if called in found:
            raise ValueError(f'two metrics are called "{called}": pass a dict, metrics={{"name": function, …}}')
        found[called] = metric if callable(metric) else getattr(metrics_room, metric)
    return found
