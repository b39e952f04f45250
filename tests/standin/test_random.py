"""A thousand small networks of random form, trained by the real CuPy on the stand-in and by NumPy."""

import numpy as np
import pytest

import xpnet as xn
from standin import scenarios

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("first", range(0, 1000, 50))
def test_random_networks(first):
    for seed in range(first, first + 50):
        found, expected = (scenarios.random_network(xn.backend(name), seed) for name in ("cupy", "numpy"))
        error = float(np.max(np.abs(found - expected)) / np.max(np.abs(expected)))
        assert error <= 1e-12, f"network {seed}: θ is off by {error:.1e}"
