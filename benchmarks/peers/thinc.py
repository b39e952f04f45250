"""Thinc: chained layers, begin_update and finish_update, shuffled minibatches from its own ops."""

import numpy as np
from thinc.api import Adam, CategoricalCrossentropy, Linear, Optimizer, Relu, chain, fix_random_seed

from benchmarks.settings import Settings


class Momentum(Optimizer):
    """SGD with momentum, which Thinc's own optimizer has not: v = μ v + g, θ = θ − η v."""

    def __init__(self, rate: float, momentum: float) -> None:
        super().__init__(rate, L2=0.0, grad_clip=0.0)
        self.mu, self.velocity = momentum, {}

    def __call__(self, key, weights, gradient, *, lr_scale: float = 1.0):
        velocity = self.velocity.setdefault(key, np.zeros_like(weights))
        velocity *= self.mu
        velocity += gradient
        gradient[...] = 0
        weights -= float(self.learn_rate(self.step)) * velocity
        return weights, gradient


def prepare(settings: Settings):
    """Return `epoch` and `predict`."""
    fix_random_seed(settings.seed)
    images, labels = settings.train()
    x, y = images.astype(np.float32) / 255, np.eye(settings.sizes[-1], dtype=np.float32)[labels]
    *hidden, classes = settings.sizes[1:]
    net = chain(*[Relu(size) for size in hidden], Linear(classes))  # Softmax would hide the scores
    net.initialize(X=x[:8], Y=y[:8])
    if settings.optimizer == "adam":
        rule = Adam(settings.rate, L2=0.0, grad_clip=0.0, beta1=settings.beta1, beta2=settings.beta2)
    else:
        rule = Momentum(settings.rate, settings.momentum)
    loss_of = CategoricalCrossentropy(normalize=True)

    def epoch() -> float:
        total = 0.0
        for batch, target in net.ops.multibatch(settings.batch, x, y, shuffle=True):
            scores, backward = net.begin_update(batch)
            probabilities = net.ops.softmax(scores, inplace=True)
            gradient = loss_of.get_grad(probabilities, target)
            total -= float(np.sum(np.log(np.sum(probabilities * target, axis=1) + 1e-30)))
            backward(gradient)
            net.finish_update(rule)
        return total / settings.samples

    return epoch, lambda images: net.predict(images.astype(np.float32) / 255).argmax(axis=1)
