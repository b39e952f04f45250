"""Keras 3 on JAX or PyTorch: compile and fit."""

import keras
import numpy as np

from benchmarks.settings import Settings


def prepare(settings: Settings):
    """Return `epoch` and `predict`; KERAS_BACKEND has chosen the library under it."""
    keras.utils.set_random_seed(settings.seed)
    *hidden, classes = settings.sizes[1:]
    layers = [keras.layers.Dense(size, "relu", kernel_initializer="he_normal") for size in hidden]
    net = keras.Sequential([keras.Input((settings.sizes[0],)), *layers, keras.layers.Dense(classes)])
    rules = {
        "adam": keras.optimizers.Adam(settings.rate, epsilon=settings.epsilon),
        "momentum": keras.optimizers.SGD(settings.rate, settings.momentum),
    }
    steps = 32 if keras.backend.backend() == "jax" else 1  # PyTorch knows one step an execution alone
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(rules[settings.optimizer], loss, steps_per_execution=steps)
    images, labels = settings.train()
    x, y = images.astype(np.float32) / 255, labels.astype(np.int32)

    def epoch() -> float:
        return net.fit(x, y, batch_size=settings.batch, epochs=1, verbose=0).history["loss"][-1]

    def predict(images: np.ndarray) -> np.ndarray:
        return net.predict(images.astype(np.float32) / 255, batch_size=1024, verbose=0).argmax(axis=1)

    return epoch, predict
