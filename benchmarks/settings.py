"""What every contender is given: a net, a batch, an optimizer, data, device, precision. Imports next to nothing."""

import json
import math
import os
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any

RATES = {"adam": 1e-3, "momentum": 0.02}
"""The constant learning rate of each optimizer."""
PRECISIONS = ("float32", "tf32", "bfloat16")
"""To which operands of a product are rounded; parameters, sums and the optimizer are float32."""
NETS = ("dense", "cnn", "transformer")
"""`dense`: linear layers with ReLU; `cnn`: the network of examples/images.py; `transformer`: characters, as a GPT."""
WIDTH = 16
"""Channels of the first convolution."""
TOKENS, LENGTH, FEATURES, HEADS, BLOCKS = 96, 128, 128, 4, 4
"""Of the transformer."""


@dataclass(frozen=True)
class Settings:
    """One task, the same for all contenders, and the `options` that tell one contender from another of its library."""

    sizes: tuple[int, ...] = (784, 128, 10)
    batch: int = 128
    optimizer: str = "adam"
    samples: int = 60000
    seed: int = 0
    device: str = "cpu"
    precision: str = "float32"
    kind: str = "dense"
    """Which of the nets; `sizes` are those of a dense one."""
    data: str = ""
    """The folder with MNIST as four files of bytes."""
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """The learning rate."""
        return RATES[self.optimizer]

    momentum = 0.9
    beta1, beta2, epsilon = 0.9, 0.999, 1e-8

    @property
    def net(self) -> str:
        """The net's name: 784-128-10, cnn, transformer."""
        return "-".join(map(str, self.sizes)) if self.kind == "dense" else self.kind

    @property
    def steps(self) -> int:
        """Optimizer steps in one epoch, the last short batch included."""
        return math.ceil(self.samples / self.batch)

    @property
    def parameters(self) -> int:
        """The length of θ."""
        return sum((nin + 1) * nout for nin, nout in pairwise(self.sizes))

    @property
    def activations(self) -> int:
        """Numbers of one batch that backpropagation must keep: the input, and each layer's output."""
        return min(self.batch, self.samples) * sum(self.sizes)

    @property
    def expected_bytes(self) -> int | None:
        """The data as bytes with one byte a label, θ, its gradient and Adam's two means, and the activations.

        None of a net that is not dense, and where all that is not in a process's own memory.
        """
        if self.kind != "dense" or self.device != "cpu":
            return None
        return self.samples * (784 + 1) + 4 * (4 * self.parameters + self.activations)

    def train(self) -> tuple[Any, Any]:
        """Return the training images, uint8 (N, 784), and the labels, uint8 (N,)."""
        return self._read("train", self.samples)

    def test(self) -> tuple[Any, Any]:
        """Return the test images and labels."""
        return self._read("test", 10000)

    def text(self) -> tuple[Any, Any]:
        """Return tokens, int32 (N, T), and those that come next: of a random text in which each has four successors."""
        import numpy as np

        rng = np.random.default_rng(0)
        text = rng.integers(0, TOKENS, (self.samples, LENGTH + 1), np.int32)
        for t in range(LENGTH):
            text[:, t + 1] = (5 * text[:, t] + text[:, t + 1] % 4) % TOKENS
        return np.ascontiguousarray(text[:, :-1]), np.ascontiguousarray(text[:, 1:])

    def _read(self, part: str, samples: int) -> tuple[Any, Any]:
        import numpy as np

        images = np.fromfile(os.path.join(self.data, f"{part}_images"), np.uint8, 784 * samples)
        return images.reshape(samples, 784), np.fromfile(os.path.join(self.data, f"{part}_labels"), np.uint8, samples)

    def to_json(self) -> str:
        """Write it for a worker's command line."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "Settings":
        """Read what `to_json` wrote."""
        values = json.loads(text)
        return replace(Settings(**values), sizes=tuple(values["sizes"]))


def write_mnist(folder: str) -> None:
    """Write MNIST into a folder as plain bytes, so that every contender reads the same thing equally fast."""
    import xpnet as xn

    for part, (images, labels) in zip(("train", "test"), xn.datasets.mnist(), strict=True):
        images.tofile(os.path.join(folder, f"{part}_images"))
        labels.tofile(os.path.join(folder, f"{part}_labels"))
