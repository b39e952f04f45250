"""The pytest plugin: the fixtures `backend`, `xp` and `device` run a test on every array library that can be used here.

    def test_softplus(xp, device):
        x = xp.asarray([-1.0, 2.0], device=device)

`pytest --backends numpy,strict,torch:cuda:0` chooses some; a library that is missing is skipped with the reason. pytest
imports this file in every project where xpnet is installed, so it lies beside the package, and imports it when a test
asks.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from xpnet.backends import Backend

IDS = ("numpy", "numpy-readonly", "strict:device1", "torch", "jax", "cupy")
LIBRARIES = ("numpy", "strict", "torch", "jax", "cupy")
MARKERS = (
    "gpu: needs a CUDA device",
    'skip_backend(*names, reason): skip the test on these backends, by library ("torch") or id ("numpy-readonly")',
    "xfail_backend(*names, reason, raises, strict, run): expect the test to fail on these backends",
    "needs(*capabilities, reason): skip the test where the backend lacks one of these, such as float64 or mutable",
)
OPTIONS = {"skip_backend": {"reason"}, "needs": {"reason"}, "xfail_backend": {"reason", "raises", "strict", "run"}}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--backends`."""
    text = f"backends to run tests on, with commas between, by library, id or library:device: {', '.join(IDS)} (all)"
    parser.getgroup("xpnet").addoption("--backends", default="", metavar="LIST", help=text)


def pytest_configure(config: pytest.Config) -> None:
    """Describe the markers, and check the names that were chosen."""
    for line in MARKERS:
        config.addinivalue_line("markers", line)
    for word in _words(config):
        if not _is_backend(word):
            raise pytest.UsageError(f'--backends: unknown backend "{word}", {_choices()}')


@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test for each backend of every test that asks for one, by whichever fixture."""
    if "xpnet_backend" in metafunc.fixturenames:
        words = _words(metafunc.config) or list(IDS)
        extra = [word for word in words if ":" in word and word not in IDS]
        ids = [name for name in (*IDS, *dict.fromkeys(extra)) if any(_means(word, name) for word in words)]
        metafunc.parametrize("xpnet_backend", [pytest.param(n, marks=_gpu(n)) for n in ids], indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Apply the markers that need no library; check all of them."""
    for item in items:
        name = _backend_id(item)
        if name is None:
            continue
        for mark in item.iter_markers():
            if mark.name in OPTIONS:
                reason = _checked(item, mark)
                if mark.name == "needs" or not any(_means(word, name) for word in mark.args):
                    continue
                effect = pytest.mark.skip if mark.name == "skip_backend" else pytest.mark.xfail
                item.add_marker(effect(**dict(mark.kwargs) | {"reason": f"{name}: {reason}"}))


@pytest.fixture
def xpnet_backend(request: pytest.FixtureRequest) -> Iterator["Backend"]:
    """The same as `backend`, under a name that no other project has."""
    from xpnet.errors import BackendError
    from xpnet.testing.backends import open_backend
    from xpnet.testing.capabilities import has

    name: str = request.param
    needs = {what: mark.kwargs["reason"] for mark in request.node.iter_markers("needs") for what in mark.args}
    with ExitStack() as stack:
        try:
            chosen = stack.enter_context(open_backend(name, needs))
        except BackendError as error:
            if name.startswith("strict"):
                raise
            pytest.skip(f"{name}: {error}")
        for what, reason in needs.items():
            if not has(chosen, what):
                pytest.skip(f"{name} lacks {what}: {reason}")
        yield chosen


@pytest.fixture
def backend(xpnet_backend: "Backend") -> "Backend":
    """Each backend in turn, float64 available on all: NumPy, NumPy with read-only inputs, array-api-strict, …"""
    return xpnet_backend


@pytest.fixture
def xp(xpnet_backend: "Backend") -> Any:
    """The array namespace of each backend in turn; on `numpy-readonly` what `xp.asarray` gives cannot be written."""
    return xpnet_backend.xp


@pytest.fixture
def device(xpnet_backend: "Backend") -> Any:
    """The device of each backend in turn, for `device=`."""
    return xpnet_backend.device


def _words(config: pytest.Config) -> list[str]:
    return [word.strip() for word in str(config.getoption("--backends")).split(",") if word.strip()]


def _backend_id(item: pytest.Item) -> str | None:
    """Return the id of the backend a test runs on, None if it asks for none."""
    return item.callspec.params.get("xpnet_backend") if hasattr(item, "callspec") else None


def _is_backend(word: object) -> bool:
    """Whether this is an id, a library, or a library with a device."""
    return word in IDS or (isinstance(word, str) and word.partition(":")[0] in LIBRARIES and not word.endswith(":"))


def _means(word: str, name: str) -> bool:
    """Whether a word means a backend: its id, or its library."""
    return word in (name, name.replace(":", "-").partition("-")[0])


def _choices() -> str:
    return f"choose from {', '.join(IDS)}, or a library with a device, such as torch:cuda:0"


def _gpu(name: str) -> Any:
    """Return the mark of a backend that needs a CUDA device."""
    return pytest.mark.gpu if any(word in name for word in ("cupy", "cuda", "gpu")) else ()


def _checked(item: pytest.Item, mark: pytest.Mark) -> str:
    """Return the reason a marker gives; UsageError, in one line, if there is none or a name is unknown."""
    who = f"{item.nodeid}: {mark.name}"
    kind, choices = "backend", _choices()
    known: Any = _is_backend
    if mark.name == "needs":
        from xpnet.testing.capabilities import PROBES

        kind, choices, known = "capability", f"choose from {', '.join(PROBES)}", PROBES.__contains__
    for word in mark.args or ("",):
        if not known(word):
            raise pytest.UsageError(f'{who}: unknown {kind} "{word}", {choices}')
    if wrong := set(mark.kwargs) - OPTIONS[mark.name]:
        raise pytest.UsageError(f"{who}: unknown option {', '.join(sorted(wrong))}")
    reason = mark.kwargs.get("reason")
    if not isinstance(reason, str) or not reason.strip():
        raise pytest.UsageError(f'{who} has no reason: add reason="…", which the report shows')
    return reason
