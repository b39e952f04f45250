"""scikit-learn: MLPClassifier, one epoch a call of partial_fit, without the penalty that is on by default."""

import numpy as np
from sklearn.neural_network import MLPClassifier

from benchmarks.settings import Settings


def prepare(settings: Settings):
    """Return `epoch` and `predict`."""
    images, labels = settings.train()
    x, classes = images.astype(np.float32) / 255, np.arange(settings.sizes[-1])
    net = MLPClassifier(
        hidden_layer_sizes=settings.sizes[1:-1],
        solver="adam" if settings.optimizer == "adam" else "sgd",
        alpha=0.0,
        batch_size=settings.batch,
        learning_rate_init=settings.rate,
        momentum=settings.momentum,
        nesterovs_momentum=False,
        random_state=settings.seed,
    )

    def epoch() -> float:
        net.partial_fit(x, labels, classes=classes)
        return float(net.loss_)

    return epoch, lambda images: net.predict(images.astype(np.float32) / 255)
