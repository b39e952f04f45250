"""The pytest plugin: the fixtures `backend`, `xp` and `device` run a test on every array library that can be used here.

    def test_softplus(xp, device):
        x = xp.asarray([-1.0, 2.0], device=device)

`pytest --backends numpy,strict,torch:cuda:0` chooses some. A library that is missing is skipped with the reason, but
fails where it was asked for by name, or is required, `torch!`. pytest imports this file in every project where xpnet
is installed, so it lies beside the package, and imports it when a test asks.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal

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
SCOPES: tuple[Literal["function", "class", "module", "package", "session"], ...]
SCOPES = ("function", "class", "module", "package", "session")
OPTIONS = {"skip_backend": {"reason"}, "needs": {"reason"}, "xfail_backend": {"reason", "raises", "strict", "run"}}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--backends`, which may be repeated, and the standing choice that it replaces."""
    text = f"backends to run tests on, with commas between, by library, id or library:device: {', '.join(IDS)} (all)"
    parser.getgroup("xpnet").addoption("--backends", action="append", default=[], metavar="LIST", help=text)
    standing = "as --backends, which replaces it; what is missing is skipped, unless it is required: torch!"
    parser.addini("xpnet_backends", standing, "args", default=[])


def pytest_configure(config: pytest.Config) -> None:
    """Describe the markers, and check the names that were chosen."""
    for line in MARKERS:
        config.addinivalue_line("markers", line)
    for source, word in [("--backends", w) for w in _asked(config)] + [
        ("xpnet_backends", w) for w in _standing(config)
    ]:
        if not _is_backend(_plain(word)):
            raise pytest.UsageError(f'{source}: unknown backend "{word}", {_choices()}')


@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test for each backend of every test that asks for one, by whichever fixture."""
    if "xpnet_backend" in metafunc.fixturenames:
        words = [_plain(word) for word in _chosen(metafunc.config)] or list(IDS)
        extra = [word for word in words if ":" in word and word not in IDS]
        ids = [name for name in (*IDS, *dict.fromkeys(extra)) if any(_means(word, name) for word in words)]
        params = [pytest.param(n, marks=_gpu(n)) for n in ids]
        metafunc.parametrize("xpnet_backend", params, indirect=True, scope=_life(metafunc))


def _life(metafunc: pytest.Metafunc) -> Literal["function", "class", "module", "package", "session"]:
    """Return how long a test's backend lives: as long as the longest-lived fixture of the project that asks for it.

    pytest puts tests that share such a fixture one after the other; all others stay in the order of the file.
    """
    fixtures = {name: found[-1] for name, found in getattr(metafunc, "_arg2fixturedefs", {}).items()}
    asking, before = {"xpnet_backend"}, 0
    while len(asking) > before:
        before = len(asking)
        asking |= {name for name, fixture in fixtures.items() if asking & set(fixture.argnames)}
    scopes = [fixtures[name].scope for name in asking if fixtures[name].func.__module__ != __name__]
    return max(scopes, key=SCOPES.index, default="function")


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


@pytest.fixture(scope="session")
def xpnet_backend(request: pytest.FixtureRequest) -> Iterator["Backend"]:
    """The same as `backend`, under a name that no other project has."""
    from xpnet.errors import BackendError
    from xpnet.testing.backends import connect

    name: str = request.param
    with ExitStack() as stack:
        try:
            chosen = stack.enter_context(connect(name))
        except BackendError as error:
            missing = f"{name}: {error}"
        else:
            yield chosen
            return
    if _required(request.config, name):
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)


@pytest.fixture(autouse=True)
def _xpnet_rules(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hold a test and its own fixtures to what it says that it needs; those that serve many tests are free."""
    if _backend_id(request.node) is None:
        yield
        return
    from xpnet.testing.backends import hold
    from xpnet.testing.capabilities import has

    chosen = request.getfixturevalue("xpnet_backend")
    needs = {what: mark.kwargs["reason"] for mark in request.node.iter_markers("needs") for what in mark.args}
    with hold(chosen, needs):
        for what, reason in needs.items():
            if not has(chosen, what):
                pytest.skip(f"{_backend_id(request.node)} lacks {what}: {reason}")
        yield


@pytest.fixture(scope="session")
def backend(xpnet_backend: "Backend") -> "Backend":
    """Each backend in turn, float64 available on all: NumPy, NumPy with read-only inputs, array-api-strict, …"""
    return xpnet_backend


@pytest.fixture(scope="session")
def xp(xpnet_backend: "Backend") -> Any:
    """The array namespace of each backend in turn; on `numpy-readonly` what `xp.asarray` gives cannot be written."""
    return xpnet_backend.xp


@pytest.fixture(scope="session")
def device(xpnet_backend: "Backend") -> Any:
    """The device of each backend in turn, for `device=`."""
    return xpnet_backend.device


def _asked(config: pytest.Config) -> list[str]:
    """Return the words of `--backends`: what was asked for by name."""
    return _words(config.getoption("--backends"))


def _standing(config: pytest.Config) -> list[str]:
    """Return the words of the setting `xpnet_backends`."""
    return _words(config.getini("xpnet_backends"))


def _chosen(config: pytest.Config) -> list[str]:
    """Return the words that count: those asked for, else the standing ones, else none."""
    return _asked(config) or _standing(config)


def _required(config: pytest.Config, name: str) -> bool:
    """Whether it is a failure that this backend is missing: it was asked for, or is required by a word with a `!`."""
    required = any(word != _plain(word) and _means(_plain(word), name) for word in _standing(config))
    return bool(_asked(config)) or required or name.startswith("strict")


def _plain(word: str) -> str:
    """Return a word without the mark that says that it must be there."""
    return word.removesuffix("!")


def _words(lists: list[str]) -> list[str]:
    return [word.strip() for text in lists for word in text.split(",") if word.strip()]


def _backend_id(item: Any) -> str | None:
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
