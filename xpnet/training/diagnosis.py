"""Where a NaN or an infinity began: one bad step again, looked at layer by layer."""

from typing import Any

import numpy as np

from xpnet.arrays import Array, Vector, inputs
from xpnet.backends import Backend
from xpnet.layers import Layer
from xpnet.losses import Loss

CLEAN = "clean the data"
TARGETS = "scale the targets, or mend the loss"
NORM = "the norm of the gradient, too large a number for its precision"
RULE = "the optimizer's rule"
SLOWER = "lower the learning rate, scale the input, or set clip_norm"


@np.errstate(all="ignore")
def diagnose(
    net: Layer,
    loss: Loss,
    theta: Vector,
    buffers: dict[str, Array],
    batch: tuple[Any, ...],
    key: int,
    backend: Backend,
    row: int = 0,
) -> tuple[str, str]:
    """Run one training step's forward and backward pass; return the first place that is not finite, and a remedy.

    `row` is where the batch begins, if it is part of one.
    """
    xp, (x, y, *weights) = backend.xp, batch

    def bad(array: Array) -> bool:
        return not np.isfinite(backend.asnumpy(xp.sum(array * 0.0)))

    outputs: list[tuple[str, Array]] = []
    prediction, backward = net(
        theta,
        x,
        True,
        key=key,
        buffers=dict(buffers),
        watch=lambda path, output: outputs.append((path, output)),
        backend=backend,
        row=row,
    )
    if any(xp.isdtype(part.dtype, "real floating") and bad(part) for part in inputs(x)):
        return "the input", CLEAN
    for path, output in outputs:
        if bad(output):
            return f"the output of layer {path}", SLOWER
    if bad(prediction):
        return "the output of the network", SLOWER
    value, dprediction = loss(prediction, y, **({"weights": weights[0]} if weights else {}))
    if bad(value):
        return "the loss", TARGETS
    if bad(dprediction):
        return "the gradient of the loss", TARGETS
    gradients = net.windows(backward(dprediction))
    for name in reversed(gradients):
        if bad(gradients[name]):
            return f'the gradient of "{name}"', SLOWER
    square = sum(xp.sum(gradient * gradient) for gradient in gradients.values())
    return NORM if bad(xp.asarray(square)) else RULE, SLOWER


def told(loss: float, norm: float, step: str, place: str, remedy: str) -> str:
    """Say what a step came to, in which place it began, and what to do."""
    what = f"the gradient's norm became {word(norm)}" if np.isfinite(loss) else f"loss became {word(loss)}"
    what = "the update became NaN or infinite" if place == RULE else what
    return f"{what} at {step}: first non-finite value in {place}; theta is as it was before: {remedy}"


def word(value: float) -> str:
    """Write a number that may be none."""
    return "NaN" if np.isnan(value) else str(value)
