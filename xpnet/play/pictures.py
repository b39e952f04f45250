"""What a page draws: the plane as the network sees it, every unit's own picture, weights, gradients, and figures.

All is computed by the model's own backend, by one forward pass over a grid and one forward and backward pass over the
data; arrays travel as base64, of bytes for pictures and of float32 for numbers.
"""

from base64 import b64encode
from math import isfinite
from typing import Any

import numpy as np

import xpnet as xn
from xpnet.arrays import Array
from xpnet.play import recipe
from xpnet.play.recipe import Data
from xpnet.play.settings import EXTENT, Settings

SIDE, STRIDE = 72, 2
"""Pixels along a side of the plane, and every how manieth of them a unit's own picture has."""

PROBE = 1000
"""Samples of which losses, gradients and accuracies are those, at most."""

DIGITS = 40
"""Images of the test set that are shown."""


class Studio:
    """Draws a model; made anew with each, since what does not change is put on the device once."""

    def __init__(self, model: xn.Model, settings: Settings, data: Data) -> None:
        self.model, self.settings, self.images = model, settings, settings.kind == "mnist"
        self.sets = {"train": (data.x[:PROBE], data.labels[:PROBE])} if len(data.x) else {}
        if data.test is not None:
            self.sets["test"] = data.test
        self._on_device = {
            name: (self._put(x), self._put(recipe.targets(settings, labels))) for name, (x, labels) in self.sets.items()
        }
        if not self.images:
            side = np.linspace(-EXTENT, EXTENT, SIDE, dtype=np.float32)
            across, up = np.meshgrid(side, side[::-1])
            self._grid = self._put(np.stack([across.ravel(), up.ravel()], axis=1))
        leaves = model.net.layers  # type: ignore[attr-defined]
        self._linear = [k for k, leaf in enumerate(leaves) if isinstance(leaf, xn.Linear)]
        self._hidden = [k + 1 for k in self._linear[:-1]]

    def _put(self, host: np.ndarray) -> Array:
        """Return host data on the device: numbers in the precision of θ, labels and images as they are."""
        return self.model.backend.asarray(np.ascontiguousarray(host))

    @np.errstate(all="ignore")
    def draw(self) -> dict[str, Any]:
        """Return the picture of the model as it is."""
        theta = self.model.theta
        weights = self._windows(theta)
        picture = self._figures(theta) | {
            "weights": self._matrices(weights),
            "biases": [numbers(weights[f"{k}.bias"]) for k in self._linear],
        }
        return picture | (self._digits(theta, weights) if self.images else self._plane(theta))

    def _windows(self, theta: Array) -> dict[str, np.ndarray]:
        return {path: self.model.backend.asnumpy(window) for path, window in self.model.net.windows(theta).items()}

    def _figures(self, theta: Array) -> dict[str, Any]:
        """Return loss and accuracy on each set, and the gradient of the loss on what is trained on."""
        net, backend = self.model.net, self.model.backend
        losses, accuracies = {}, {}
        gradient = {path: np.zeros(1) for path in net.windows(theta)}
        for name, (x, targets) in self._on_device.items():
            scores, backward = net(theta, x, backend=backend)
            loss, dscores = self.model.loss(scores, targets)
            losses[name] = finite(float(backend.asnumpy(loss)))
            right = backend.asnumpy(scores).argmax(axis=1) == self.sets[name][1]
            accuracies[name] = finite(float(right.mean()))
            if name == "train":
                gradient = self._windows(backward(dscores))
        return {"loss": losses, "accuracy": accuracies, "gradients": self._matrices(gradient)}

    def _matrices(self, windows: dict[str, np.ndarray]) -> list[str]:
        """Return the matrix of each layer; of images not the first layer's, which nobody can draw as lines."""
        return ["" if self.images and k == self._linear[0] else numbers(windows[f"{k}.weight"]) for k in self._linear]

    def _plane(self, theta: Array) -> dict[str, Any]:
        """Return which class each place of the plane is seen as, how surely, and what every unit gives there."""
        outputs: dict[str, Array] = {}
        self.model.net(theta, self._grid, watch=outputs.__setitem__, backend=self.model.backend)
        seen = {int(path): self.model.backend.asnumpy(output) for path, output in outputs.items()}
        scores = seen[self._linear[-1]]
        labels = self.settings.loss in ("cross-entropy", "focal")
        sure = xn.softmax(scores) if labels else np.clip(scores, -1.0, 1.0)
        second, first = np.partition(sure, -2, axis=1)[:, -2:].T
        units = [shades(seen[k].reshape(SIDE, SIDE, -1)[::STRIDE, ::STRIDE]) for k in (*self._hidden, self._linear[-1])]
        return {
            "regions": {"seen": encoded(scores.argmax(axis=1)), "sure": encoded(255 * np.clip(first - second, 0, 1))},
            "units": units,
        }

    def _digits(self, theta: Array, weights: dict[str, np.ndarray]) -> dict[str, Any]:
        """Return what the first test images are taken for, and what every unit looks for in an image.

        That is for the first layer its weights, for later ones the product of all weight matrices up to it, as if there
        were no activations between.
        """
        scores, _ = self.model.net(theta, self._on_device["test"][0][:DIGITS, ...], backend=self.model.backend)
        units: list[list[str]] = []
        through = np.eye(1, dtype=np.float32)
        for k in self._linear:
            through = weights[f"{k}.weight"] if not units else through @ weights[f"{k}.weight"]
            units.append(shades(through.reshape(28, 28, -1), each=True))
        return {"units": units, "taken": self.model.backend.asnumpy(scores).argmax(axis=1).tolist()}


def shades(maps: np.ndarray, each: bool = False) -> list[str]:
    """Return maps (H, W, U) as bytes, a string a unit: 128 is 0, 1 and 255 the largest magnitude of all, or of each."""
    axes = (0, 1) if each else None
    largest = np.max(np.abs(maps), axis=axes, keepdims=True)
    scaled = 128 + 127 * maps / np.where(largest == 0, 1, largest)
    return [encoded(scaled[:, :, unit]) for unit in range(maps.shape[2])]


def encoded(bytes_: np.ndarray) -> str:
    """Return numbers in 0..255 as bytes; where a network has gone wild and there is no number, 0."""
    return b64encode(np.rint(np.nan_to_num(bytes_)).astype(np.uint8).tobytes()).decode()


def numbers(array: np.ndarray) -> str:
    """Return numbers as little-endian float32."""
    return b64encode(array.astype("<f4").tobytes()).decode()


def finite(value: float) -> float | None:
    """Return the number, None where JSON has none for it."""
    return value if isfinite(value) else None


def shown(settings: Settings, data: Data) -> dict[str, Any]:
    """Return the data as a page draws them: points and their classes, or test images."""
    if settings.kind == "mnist":
        assert data.test is not None
        images, labels = data.test
        return {"digits": [encoded(image) for image in images[:DIGITS]], "labels": labels[:DIGITS].tolist()}
    sets = {"train": (data.x, data.labels)} | ({} if data.test is None else {"test": data.test})
    return {name: {"x": numbers(x), "labels": labels.tolist()} for name, (x, labels) in sets.items()}
