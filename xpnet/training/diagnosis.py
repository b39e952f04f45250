"""Where a NaN or an infinity began: one bad step again, looked at layer by layer."""

import numpy as np

from xpnet.arrays import Array, Vector
from xpnet.backends import Backend
from xpnet.layers import Layer
from xpnet.losses import Loss


@np.errstate(all="ignore")
def diagnose(net: Layer, loss: Loss, theta: Vector, x: Array, y: Array, key: int, backend: Backend) -> str:
    """Run one training step's forward and backward pass and name the first place that is not finite."""
    xp = backend.xp

    def bad(array: Array) -> bool:
        return not backend.asnumpy(xp.all(xp.isfinite(array)))

    outputs: list[tuple[str, Array]] = []
    prediction, backward = net(
        theta, x, True, key=key, watch=lambda path, output: outputs.append((path, output)), backend=backend
    )
    if xp.isdtype(x.dtype, "real floating") and bad(x):
        return "the input"
    for path, output in outputs:
        if bad(output):
            return f"the output of layer {path}"
    if bad(prediction):
        return "the output of the network"
    value, dprediction = loss(prediction, y)
    if bad(value):
        return "the loss"
    if bad(dprediction):
        return "the gradient of the loss"
    gradients = net.windows(backward(dprediction))
    for name in reversed(gradients):
        if bad(gradients[name]):
            return f'the gradient of "{name}"'
    return "the norm of the gradient, too large a number for its precision"
