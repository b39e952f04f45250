"""Points in the plane, made on the spot: three tasks of the playground, beside the spirals of `xpnet.datasets`.

Each takes n, the number of classes, `noise`, a standard deviation, and a seed, and returns float32 (n, 2), mostly
within −1..1, with the class of each, (n,): 0, 1, …, 0, 1, … in turn. Another seed gives other points of the same task.
"""

import numpy as np

from xpnet.random import generator


def gaussians(n: int, classes: int = 2, noise: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """x = 0.6 (cos φ, sin φ) + (noise + 0.1) ε        φ = 2π label / classes + π/4, ε normal: a cloud a class."""
    rng, labels = generator(seed, "gaussians"), np.arange(n) % classes
    angle = 2 * np.pi * labels / classes + np.pi / 4
    return _blurred(0.6 * np.stack([np.cos(angle), np.sin(angle)], axis=1), noise + 0.1, rng), labels


def circles(n: int, classes: int = 2, noise: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """x = r (cos φ, sin φ) + noise · ε        r = (label + ½) / classes, φ uniform, ε normal: rings."""
    rng, labels = generator(seed, "circles"), np.arange(n) % classes
    r, angle = (labels + 0.5) / classes, rng.uniform(0.0, 2 * np.pi, n)
    return _blurred(np.stack([r * np.cos(angle), r * np.sin(angle)], axis=1), noise, rng), labels


def xor(n: int, noise: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """x = s (u, v) + noise · ε        u, v uniform on 0.1..0.9, s signs, equal for class 0, unequal for 1."""
    rng, labels = generator(seed, "xor"), np.arange(n) % 2
    left = rng.integers(0, 2, n) * 2 - 1
    signs = np.stack([left, left * (1 - 2 * labels)], axis=1)
    return _blurred(signs * rng.uniform(0.1, 0.9, (n, 2)), noise, rng), labels


def _blurred(points: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Return points as float32, each moved at random along both axes."""
    return (points + noise * rng.normal(size=points.shape)).astype(np.float32)
