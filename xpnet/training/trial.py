"""Whether the parts of a model fit: the network's last layer, loss and metrics; and functions of the user's own."""

from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from typing import Any

import numpy as np

from xpnet import losses, metrics
from xpnet.arrays import Array, device, with_batch
from xpnet.backends import Backend
from xpnet.data import scan
from xpnet.data.source import Parts
from xpnet.errors import DataError
from xpnet.layers import BatchNorm, Layer, Parallel, Residual, Sequential, Sigmoid, Softmax
from xpnet.losses import Loss
from xpnet.metrics import Metric
from xpnet.training import parts

SCORES = (
    losses.cross_entropy,
    losses.binary_cross_entropy,
    losses.focal,
    losses.kl_divergence,
    losses.hinge,
    losses.perceptron,
    losses.poisson,
)
"""Losses of scores, which make probabilities themselves or need none."""


def check_parts(net: Layer, loss: Loss) -> None:
    """Warn of a last layer that gives probabilities where the loss takes scores, or the other way round.

    Such a model trains, and worse than it could. A last layer of the user's own is not judged.
    """
    layer, loss = last(net), getattr(loss, "func", loss)
    ends = f"but the network ends in {type(layer).__name__}"
    if any(loss is one for one in SCORES) and isinstance(layer, (Softmax, Sigmoid)):
        better = ", or use negative_log_likelihood"
        other = better if loss is losses.cross_entropy and isinstance(layer, Softmax) else ""
        scan.warn(f"{loss.__name__} takes scores, {ends}: drop it{other}")
    own = type(layer).__module__.startswith("xpnet.")
    if loss is losses.negative_log_likelihood and own and not isinstance(layer, Softmax):
        remedy = "put Softmax() at its end, or use cross_entropy on scores"
        scan.warn(f"negative_log_likelihood takes probabilities that add up to 1, {ends}: {remedy}")


def fitting_metrics(net: Layer, chosen: Mapping[str, Metric]) -> dict[str, Metric]:
    """Return the metrics as they are to be computed in batches; see `metrics.averaged`.

    Where the network ends in Sigmoid, class 1 begins at 0.5, unless a threshold is given. Warn of a metric that takes
    scores where it gives probabilities.
    """
    fitted = {name: metrics.averaged(metric) for name, metric in chosen.items()}
    end, scores = last(net), (metrics.log_loss, metrics.log_perplexity)
    if isinstance(end, (Softmax, Sigmoid)):
        for name, metric in fitted.items():
            if any(getattr(metric, "func", metric) is one for one in scores):
                scan.warn(f"{name} takes scores, but the network ends in {type(end).__name__}: drop it")
    if not isinstance(end, Sigmoid):
        return fitted
    half: dict[str, Any] = {"threshold": 0.5}
    return {name: partial(metric, **half) if _takes_threshold(metric) else metric for name, metric in fitted.items()}


def _takes_threshold(metric: Metric) -> bool:
    """Whether a metric has a threshold and none was given."""
    function, given = getattr(metric, "func", metric), getattr(metric, "keywords", {})
    signs = (metrics.accuracy, metrics.zero_one, metrics.class_shares)
    return any(function is one for one in signs) and "threshold" not in given and not getattr(metric, "args", ())


def check_batches(net: Layer, x: Array, samples: int, batch_size: int, parts: int = 1) -> None:
    """Raise DataError if an epoch has a batch, or a part of one, that BatchNorm cannot train on: one number a channel
    has no variance.
    """
    for n in {min(batch_size, samples), samples % batch_size} - {0}:
        for path, layer, shape in net.walk(with_batch(x, max(1, n // parts))):
            joint = isinstance(layer, BatchNorm) and layer.synchronized and parts > 1
            if isinstance(layer, BatchNorm) and (n < parts if joint else prod(shape[:-1]) < 2):
                which = f"the last of {samples} in batches of {batch_size}" if n < batch_size else f"a batch of {n}"
                which += f" in {parts} parts" if parts > 1 else ""
                raise DataError(f"{layer} at layer {path} cannot train on one sample, {which}: change batch_size")


def last(net: Layer) -> Layer:
    """Return the layer that the output comes from."""
    while isinstance(net, Sequential) and not isinstance(net, (Residual, Parallel)) and net.layers:
        net = net.layers[-1]
    return net


def try_parts(
    net: Layer, loss: Loss, chosen: Mapping[str, Metric], samples: Parts, backend: Backend, dtype: str
) -> None:
    """Call a loss and metrics of the user's own once, on the first target some times over; DataError if they misbehave.

    The prediction is 0.5 everywhere, a score as well as a probability, so neither the network nor θ is needed; JAX
    calls them on shapes alone. There are 2 samples, or 3 where the network has 2 outputs, so that a target that has to
    be stretched to the prediction's shape shows. Functions of xpnet are not called, partials of them are.
    """
    x, y, *weights = samples
    mine = {name: function for name, function in chosen.items() if not _of_xpnet(function)}
    if _of_xpnet(loss) and not mine:
        return
    one, two, three = (net.output_shape(with_batch(x, n)) for n in (1, 2, 3))
    n, shape = (3, three) if 2 in one else (2, two)

    def attempt(y: Array) -> None:
        xp = backend.xp
        target = xp.concat([y[:1, ...]] * n)
        prediction = xp.full(shape, 0.5, dtype=getattr(xp, dtype), device=device(y))
        how = {"weights": xp.ones(n, dtype=getattr(xp, dtype), device=device(y))} if weights else {}
        if not _of_xpnet(loss):
            _check_loss(partial(loss, **how), prediction, target, backend, parts.name(loss))
        for name, metric in mine.items():
            _check_metric(name, partial(metric, **how), prediction, target, backend)

    with np.errstate(all="ignore"):
        backend.abstractly(attempt, y)


def _of_xpnet(function: Callable[..., Any]) -> bool:
    return (getattr(function, "__module__", None) or "").partition(".")[0] == "xpnet"


def _check_loss(loss: Loss, prediction: Array, target: Array, backend: Backend, name: str) -> None:
    """Raise DataError unless a loss returns its value, 0-d, and a gradient in the prediction's shape."""
    who = f"the loss {name}"
    must = f"{who} must return (value, gradient)"
    result: Any = _called(who, loss, prediction, target)
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        came = f"{len(result)} things" if isinstance(result, (tuple, list)) else _said(result)
        raise DataError(f"{must}, got {came}: return the gradient with respect to the prediction too, and nothing else")
    value, gradient = result
    if not backend.owns(value) or tuple(value.shape) != ():
        raise DataError(f"{must}, the value a 0-d array, got {_said(value)}: {_remedy(value, 'the mean')}")
    if not backend.owns(gradient) or gradient.shape != prediction.shape:
        shapes = f"the prediction has {tuple(prediction.shape)}, the target {tuple(target.shape)}"
        remedy = "it is the derivative of the value by each number of the prediction"
        if tuple(prediction.shape) == (*target.shape, 1):
            remedy = "give y the axis that it lacks, y.reshape(-1, 1)"
        raise DataError(f"{must}, the gradient like the prediction, got {_said(gradient)}; {shapes}: {remedy}")


def _check_metric(name: str, metric: Metric, prediction: Array, target: Array, backend: Backend) -> None:
    """Raise DataError unless a metric returns a 0-d array of the prediction's library."""
    value = _called(f"the metric {name}", metric, prediction, target)
    if not backend.owns(value) or tuple(value.shape) != ():
        must = f"the metric {name} must return a 0-d array of the prediction's library"
        raise DataError(f"{must}, got {_said(value)}: {_remedy(value, 'a mean over all axes')}")


def _remedy(value: Any, reduction: str) -> str:
    return f"return {reduction}" if hasattr(value, "shape") and value.shape != () else "drop float(...) and .item()"


def _called(who: str, function: Callable[..., Any], prediction: Array, target: Array) -> Any:
    try:
        return function(prediction, target)
    except Exception as error:
        shapes = f"a prediction {tuple(prediction.shape)} and a target {tuple(target.shape)}"
        text = str(error).partition("\n")[0]
        if "'weights'" in text and isinstance(error, TypeError):
            text += ": samples are weighed, give it the argument weights=None"
        raise DataError(f"{who}, tried on {shapes}, raised {type(error).__name__}: {text}") from error


def _said(value: Any) -> str:
    """Say what came back: `a float`, `an array of the shape (2, 2)`."""
    shape = getattr(value, "shape", None)
    return f"a {type(value).__name__}" if shape is None else f"an array of the shape {tuple(shape)}"
