"""Points in the plane, made on the spot: two tasks that no straight line solves."""

import numpy as np

from xpnet.checks import integer, number
from xpnet.random import generator


def spirals(n: int, classes: int = 2, noise: float = 0.01, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return n points on spirals that are wound into each other, float32 (n, 2), and which spiral each is on, (n,).

    x = r (cos φ, sin φ) + noise · ε        φ = 3π r + 2π label / classes        r² uniform on 0.02..1, ε normal

    Each spiral turns one and a half times; labels are integers 0, 1, …, 0, 1, … in turn. Another seed gives other
    points of the same spirals, to test on. ValueError for settings out of range. (Lang & Witbrock, "Learning to tell
    two spirals apart", 1988)
    """
    n, classes = integer("spirals", "n", n), integer("spirals", "classes", classes, least=2)
    rng, labels = generator(seed, "spirals"), np.arange(n) % classes
    r = np.sqrt(rng.uniform(0.02, 1.0, n))
    angle = 3 * np.pi * r + 2 * np.pi * labels / classes
    return _blurred(np.stack([r * np.cos(angle), r * np.sin(angle)], axis=1), "spirals", noise, rng), labels


def moons(n: int, noise: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return n points on two half circles that reach into each other, float32 (n, 2), and which it is, 0 or 1: (n,).

    x = (cos t, sin t) + noise · ε, or x = (1 − cos t, ½ − sin t) + noise · ε        t uniform on 0..π, ε normal

    The first form is class 0, the second class 1; labels are 0, 1, 0, 1, … in turn. Another seed gives other points of
    the same moons, to test on. ValueError for settings out of range.
    """
    n = integer("moons", "n", n)
    rng, labels = generator(seed, "moons"), np.arange(n) % 2
    t = rng.uniform(0.0, np.pi, n)
    upper, lower = np.stack([np.cos(t), np.sin(t)], axis=1), np.stack([1 - np.cos(t), 0.5 - np.sin(t)], axis=1)
    return _blurred(np.where(labels[:, None] == 0, upper, lower), "moons", noise, rng), labels


def _blurred(points: np.ndarray, who: str, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Return points as float32, each moved at random by `noise`, a standard deviation, along both axes."""
    return (points + number(who, "noise", noise, least=0) * rng.normal(size=points.shape)).astype(np.float32)
