"""The pytest plugin: a `backend` fixture that runs a test on every array library that can be used here.

    def test_relu(backend):
        x = backend.asarray([-1.0, 2.0])

`pytest --backends numpy,strict` chooses some, by library or by id. A missing library is skipped with the reason.
"""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from xpnet.backends import Backend
from xpnet.errors import BackendError
from xpnet.testing.backends import NAMES, open_backend


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--backends`."""
    text = f"backends to run tests on, by library or id, with commas between: {', '.join(NAMES)} (all)"
    parser.getgroup("xpnet").addoption("--backends", default="", metavar="LIST", help=text)


def pytest_configure(config: pytest.Config) -> None:
    """Check the chosen names, and describe the mark that the CUDA backend carries."""
    config.addinivalue_line("markers", "gpu: needs a CUDA device")
    for word in _chosen(config):
        if not any(_answers(name, word) for name in NAMES):
            raise pytest.UsageError(f'--backends: unknown backend "{word}", choose from {", ".join(NAMES)}')


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the backends that were not chosen."""
    words = _chosen(config)
    if not words:
        return
    out = [i for i in items if (n := _name(i)) in NAMES and not any(_answers(str(n), word) for word in words)]
    config.hook.pytest_deselected(items=out)
    items[:] = [item for item in items if item not in set(out)]


@pytest.fixture(params=[pytest.param(n, marks=pytest.mark.gpu if n == "cupy" else ()) for n in NAMES])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Each backend in turn, float64 available on all: NumPy, NumPy with read-only inputs, array-api-strict, …"""
    with ExitStack() as stack:
        try:
            chosen = stack.enter_context(open_backend(request.param))
        except BackendError as error:
            if request.param.startswith("strict"):
                raise
            pytest.skip(f"{request.param}: {error}")
        yield chosen


def _chosen(config: pytest.Config) -> list[str]:
    return [word for word in str(config.getoption("--backends")).split(",") if word]


def _name(item: pytest.Item) -> object:
    """Return the id of the backend a test runs on, if it has one."""
    return getattr(item, "callspec").params.get("backend") if hasattr(item, "callspec") else None  # noqa: B009


def _answers(name: str, word: str) -> bool:
    """Whether an id is meant: by itself, or by its library."""
    return word in (name, name.replace(":", "-").partition("-")[0])
