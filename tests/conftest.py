import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# The backend fixture is one object for all examples of a test, on purpose.
settings.register_profile(
    "xpnet",
    deadline=None,
    max_examples=25,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.register_profile("long", settings.get_profile("xpnet"), max_examples=800)
settings.load_profile("xpnet")


def pytest_collection_modifyitems(items):
    """Run the tests that fork this process first: libraries that are imported later start threads."""
    items.sort(key=lambda item: item.get_closest_marker("forks") is None)


@pytest.fixture
def rng():
    return np.random.default_rng(1234)
