"""What a step is without training: the network's output, its loss and its metrics, each compiled once."""

from collections.abc import Callable, Mapping
from functools import cached_property

from xpnet import metrics
from xpnet.arrays import Array, Vector
from xpnet.backends import Backend
from xpnet.layers import Layer
from xpnet.losses import Loss
from xpnet.metrics import Metric


class Judging:
    """A network with its loss and metrics on a backend; a `Step` is one."""

    net: Layer
    loss: Loss
    metrics: Mapping[str, Metric]
    backend: Backend
    measures: Mapping[str, Metric] | None

    @cached_property
    def infer(self) -> Callable[[Vector, Array, dict[str, Array]], Array]:
        """The network's output, compiled: f(θ, x, buffers)."""
        return self.backend.jit(lambda theta, x, buffers: self.net(theta, x, buffers=buffers, backend=self.backend)[0])

    @cached_property
    def measured(self) -> Mapping[str, Metric]:
        """The metrics as they are computed."""
        return self.metrics if self.measures is None else self.measures

    @property
    def means(self) -> dict[str, Metric]:
        """The metrics that are means over samples, so that those of batches can be averaged: most of xpnet's own."""
        return {name: metric for name, metric in self.measured.items() if metrics.is_mean(metric)}

    @property
    def wholes(self) -> dict[str, Metric]:
        """The others, which are given all predictions at once."""
        return {name: metric for name, metric in self.measured.items() if name not in self.means}

    @cached_property
    def judge(self) -> Callable[..., list[Array]]:
        """Loss and means of a batch's prediction, compiled: f(prediction, target) or f(prediction, target, weights)."""
        functions = self.means.values()

        def judge(prediction: Array, target: Array, *weights: Array) -> list[Array]:
            how = {"weights": weights[0]} if weights else {}
            return [
                self.loss(prediction, target, **how)[0],
                *(metric(prediction, target, **how) for metric in functions),
            ]

        return self.backend.jit(judge)

    @cached_property
    def largest(self) -> Callable[[Vector], list[Array]]:
        """The largest |w| of matrices that lie side by side, compiled."""
        xp, matrices = self.backend.xp, self.net.decayed(self.backend.flat)
        return self.backend.jit(lambda theta: [xp.max(xp.abs(part)) for part in matrices.of(theta)])
