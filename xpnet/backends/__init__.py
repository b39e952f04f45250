"""The switch: which array library, on which device.

    xn.use("cupy")                     from here on, in every thread that has not chosen for itself
    with xn.use("torch:cuda:0"): ...   for a while, in this thread or asyncio task alone
    XPNET_BACKEND=jax python train.py  from outside
    net.init(backend="strict")         here alone

This package is the only place that names an array library, and imports one only when it is asked for.
"""

import os
import sys
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import lru_cache, wraps
from importlib import import_module
from importlib.util import find_spec
from threading import Lock, get_ident, local
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

from xpnet.arrays import Array, describe
from xpnet.backends.base import Backend, library_version
from xpnet.checks import shown
from xpnet.errors import BackendError

__all__ = ["Backend", "available_backends", "backend", "backend_of", "natively", "use"]

LIBRARIES = ("numpy", "cupy", "torch", "jax", "strict")
ALIASES = {"cuda": "cupy", "gpu": "cupy"}

IMPORTED = {"strict": "array_api_strict"}
NATIVE = ("cupy",)
"""Libraries whose own forms also serve functions called on their arrays: there each operation is a kernel to launch."""
F = TypeVar("F", bound=Callable[..., Any])
PENDING = 64
"""How many statements are remembered: only those that a `with` has still to take back need be, one a thread."""

Level: TypeAlias = "tuple[use | None, ...]"
"""Who opened it, then who spoke in it; the last counts."""

_process: Level = (None,)
_blocks: ContextVar[tuple[Level, ...]] = ContextVar("xpnet_blocks", default=())
_lock = Lock()
_thread = local()


def _entered() -> "list[tuple[use, Callable[[], Any]]]":
    """Return the blocks that this thread is in, of all its tasks, in order, and what makes the GPU before current."""
    return vars(_thread).setdefault("entered", [])  # type: ignore[no-any-return]


class use:
    """Choose the backend for all that follows, or, as a context manager, for the block.

    A statement holds for every thread that is in no block; inside a block it holds until the block ends. A block holds
    for its own thread or asyncio task; threads that are started in it begin outside (`contextvars.copy_context().run`
    carries it over). CuPy has one GPU a thread on which operations are done: it becomes the chosen one, in this thread.
    """

    def __init__(self, name: str | Backend) -> None:
        global _process
        self.backend = backend(name)
        self._said: tuple[int, Callable[[], Any]] | None = (get_ident(), self.backend.select())
        blocks = _blocks.get()
        if blocks:
            _blocks.set((*blocks[:-1], _spoken(blocks[-1], self)))
            return
        with _lock:
            _process = _spoken(_process, self)

    def __enter__(self) -> Backend:
        global _process
        with _lock:  # it was no statement
            _process = _unspoken(_process, self)
            said, self._said = self._said, None
        if said is not None and said[0] == get_ident():
            said[1]()
        _entered().append((self, self.backend.select()))
        _blocks.set((*(_unspoken(level, self) for level in _blocks.get()), (self,)))
        return self.backend

    def __exit__(self, *exception: object) -> None:
        blocks, entered = _blocks.get(), _entered()
        for k in [k for k, (block, _) in enumerate(entered) if block is self][-1:]:
            _, back = entered.pop(k)
            if k == len(entered):
                back()
            else:  # a task or a generator is still in a block that was entered later: it goes back to before both
                entered[k] = (entered[k][0], back)
        own = [k for k, level in enumerate(blocks) if level[0] is self][-1:]
        _blocks.set(tuple(level for k, level in enumerate(blocks) if k not in own))


def _spoken(level: Level, speaker: use) -> Level:
    return (level[0], *level[1:][1 - PENDING :], speaker)


def _unspoken(level: Level, speaker: use) -> Level:
    return (level[0], *(other for other in level[1:] if other is not speaker))


def backend(name: str | Backend | None = None) -> Backend:
    """Return a backend: the one named, else the one in `use`, else XPNET_BACKEND's, else `auto`.

    A name is a library and perhaps a device: `"numpy"`, `"cupy:1"`, `"torch:cuda:0"`, `"strict:device1"`; `"cuda"` and
    `"gpu"` mean CuPy. `"auto"` takes CuPy if a GPU really answers, else NumPy, and `.reason` says why.
    BackendError if the name is unknown, or names a backend that cannot be used here: it never falls back.
    """
    if isinstance(name, Backend):
        return name
    if name is None:
        speaker = (_process, *_blocks.get())[-1][-1]
        if speaker is not None:
            return speaker.backend
        if outside := os.environ.get("XPNET_BACKEND"):
            return _outside(outside)
        name = "auto"
    if not isinstance(name, str):
        raise TypeError(f'expected a backend or its name, such as "numpy" or "torch:cuda:0", got {shown(name)}')
    return _auto() if name == "auto" else _open(name)


@lru_cache(maxsize=64)
def _outside(name: str) -> Backend:
    """Return the backend that XPNET_BACKEND names, its GPU made the current one as by `use`: once, when first asked."""
    chosen = backend(name)
    if name != "auto":
        chosen.select()
    return chosen


def available_backends() -> dict[str, list[str]]:
    """Return the usable backends and their devices: `{"numpy": ["cpu"], "torch": ["cpu", "cuda:0"]}`."""
    return {report.library: report.devices for report in examine() if report.problem is None}


def backend_of(array: Array) -> Backend:
    """Return the backend an array belongs to; any library that follows the standard has one, if only the plain one."""
    if not (hasattr(array, "shape") and hasattr(array, "dtype")):
        raise TypeError(f"expected an array, got {describe(array)}: make one with backend.asarray(...)")
    library = library_of(array)
    if library in LIBRARIES:
        return _library(library).of(array)  # type: ignore[no-any-return]
    return Backend(library, array.__array_namespace__(), array.device, "the array's own library")


def natively(function: F) -> F:
    """Let a function of two arrays, called by itself, be its arrays' library's own form, if that is one of NATIVE.

    Called with settings, or on arrays that are not both the library's and on one device, it is the plain form, `plain`.
    Elsewhere it is that always: the formula as it is written, and its bits. A backend's `native` gives each its own.
    """

    @wraps(function)
    def call(*arrays: Any, **settings: Any) -> Any:
        if len(arrays) == 2 and not settings and library_of(arrays[0]) in NATIVE:
            own = backend_of(arrays[0])
            if own.owns(arrays[1]):
                return own.native(found)(*arrays)
        return function(*arrays, **settings)

    found = cast(F, call)
    found.plain = function  # type: ignore[attr-defined]
    return found


def library_of(array: object) -> str:
    """Return the name of the library an object comes from: `torch` for a tensor."""
    root = type(array).__module__.partition(".")[0]
    return {"jaxlib": "jax", "array_api_strict": "strict"}.get(root, root)


class Report(NamedTuple):
    """What is known of a library here."""

    library: str
    version: str | None
    devices: list[str]
    problem: str | None
    details: Sequence[str] = ()


def examine() -> list[Report]:
    """Try every library: its version if it is installed, its devices, or why it cannot be used and what to do."""
    return [_report(library) for library in LIBRARIES]


def _report(library: str) -> Report:
    version, devices, problem, details = None, [], None, []
    try:
        version = library_version(library)
        _open(library)
        module = _library(library)
        devices, details = list(module.devices()), list(getattr(module, "details", list)())
    except (Exception, SystemExit) as error:
        problem = str(error) if isinstance(error, BackendError) else _broken(library, error)
    return Report(library, version, devices, problem, details)


@lru_cache(maxsize=64)
def _open(name: str) -> Backend:
    library, _, device = name.partition(":")
    library = ALIASES.get(library, library)
    if library not in LIBRARIES:
        raise BackendError(f'unknown backend "{name}": choose one of auto, {", ".join(LIBRARIES)}')
    return _connect(library, device)


def _connect(library: str, device: str) -> Backend:
    """Return the backend; BackendError also where the library is installed, but raises when it is imported or tried."""
    try:
        module = IMPORTED.get(library, library)
        if module not in sys.modules and find_spec(module):
            import_module(module)
        return _library(library).connect(device)  # type: ignore[no-any-return]
    except BackendError:
        raise
    except (Exception, SystemExit) as error:  # some libraries end the program when they are not content
        raise BackendError(_broken(library, error)) from error


def _broken(library: str, error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if any(map(str.isalpha, line))]
    first = ": ".join([type(error).__name__, *lines[:1]])
    return f"{library} is installed, but does not work here ({first}): reinstall it, or use another backend"


def _library(library: str) -> Any:
    return import_module(f"xpnet.backends.{library}")


@lru_cache(maxsize=1)
def _auto() -> Backend:
    try:
        chosen: Backend = _connect("cupy", "")
        reason = "chosen by auto, because a CUDA device answered"
    except BackendError as error:
        chosen = _connect("numpy", "")
        reason = f"chosen by auto, because {error}"
    chosen.reason = reason
    return chosen
