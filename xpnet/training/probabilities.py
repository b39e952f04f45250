"""What a network's output says in probabilities, which its last layer and its loss decide."""

from xpnet import losses
from xpnet.arrays import Array, namespace, sigmoid, softmax
from xpnet.errors import DataError
from xpnet.layers import Layer, LogSoftmax, Sigmoid, Softmax
from xpnet.losses import Loss
from xpnet.training import parts
from xpnet.training.trial import last

OF_CLASSES = (losses.cross_entropy, losses.focal, losses.kl_divergence)
"""Losses that take the softmax of the scores."""
NONE = {
    losses.mean_squared_error: "fits numbers",
    losses.mean_absolute_error: "fits numbers",
    losses.huber: "fits numbers",
    losses.poisson: "fits the logarithm of a count",
    losses.hinge: "fits a margin, whose size is no probability",
    losses.perceptron: "fits a margin, whose size is no probability",
}
"""Losses whose predictions are no probabilities, and what they are."""


def probabilities(net: Layer, loss: Loss, scores: Array) -> Array:
    """Return the network's output as probabilities: of each class (…, C), or of each of several labels (N, L).

    Softmax or Sigmoid at the network's end: as it is. Else softmax for `cross_entropy`, `focal` and `kl_divergence`,
    sigmoid for `binary_cross_entropy`, and as it is for `negative_log_likelihood`. One column p, the probability of
    class 1, becomes two, 1 − p and p, so that column c is class c, as in scikit-learn.

    DataError for a loss that says nothing of probabilities: of numbers, counts, margins, or one of your own.
    """
    layer, known = last(net), getattr(loss, "func", loss)
    xp = namespace(scores=scores)
    if isinstance(layer, Softmax) or known is losses.negative_log_likelihood:
        return scores
    if isinstance(layer, LogSoftmax) or any(known is one for one in OF_CLASSES):
        return softmax(scores)
    given = isinstance(layer, Sigmoid)
    if not given and known is not losses.binary_cross_entropy:
        name = parts.name(known)
        why = next((why for one, why in NONE.items() if one is known), "is not one of xpnet's")
        remedy = "train with cross_entropy or binary_cross_entropy, or end the network in Softmax() or Sigmoid()"
        raise DataError(f"predict_proba finds no probabilities, the loss {name} {why}: {remedy}")
    p = scores if given else sigmoid(xp, scores)
    if scores.ndim > 1 and scores.shape[-1] > 1:
        return p
    other = 1.0 - scores if given else sigmoid(xp, -scores)  # as exact where p rounds to 1
    return xp.stack([other, p], axis=-1) if scores.ndim == 1 else xp.concat([other, p], axis=-1)
