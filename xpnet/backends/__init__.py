"""The switch: which array library, on which device.

    xn.use("cupy")                     from here on
    with xn.use("torch:cuda:0"): ...   for a while
    XPNET_BACKEND=jax python train.py  from outside
    net.init(backend="strict")         here alone

This package is the only place that names an array library, and imports one only when it is asked for.
"""

import os
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any, NamedTuple

from xpnet.arrays import Array, describe
from xpnet.backends.base import Backend, library_version
from xpnet.errors import BackendError

__all__ = ["Backend", "available_backends", "backend", "backend_of", "use"]

LIBRARIES = ("numpy", "cupy", "torch", "jax", "strict")
ALIASES = {"cuda": "cupy", "gpu": "cupy"}

_current: str | Backend | None = None


class use:
    """Choose the backend for all that follows, or, as a context manager, for the block."""

    def __init__(self, name: str | Backend) -> None:
        global _current
        backend(name)
        self._before, _current = _current, name

    def __enter__(self) -> Backend:
        return backend()

    def __exit__(self, *exception: object) -> None:
        global _current
        _current = self._before


def backend(name: str | Backend | None = None) -> Backend:
    """Return a backend: the one named, else the one in `use`, else XPNET_BACKEND's, else `auto`.

    A name is a library and perhaps a device: `"numpy"`, `"cupy:1"`, `"torch:cuda:0"`, `"strict:device1"`; `"cuda"` and
    `"gpu"` mean CuPy. `"auto"` takes CuPy if a GPU really answers, else NumPy, and `.reason` says why.
    BackendError if the name is unknown, or names a backend that cannot be used here: it never falls back.
    """
    chosen = name or _current or os.environ.get("XPNET_BACKEND") or "auto"
    if isinstance(chosen, Backend):
        return chosen
    return _auto() if chosen == "auto" else _open(chosen)


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
    reports = []
    for library in LIBRARIES:
        try:
            _open(library)
            module = _library(library)
            devices, problem, details = list(module.devices()), None, list(getattr(module, "details", list)())
        except BackendError as error:
            devices, problem, details = [], str(error), []
        reports.append(Report(library, library_version(library), devices, problem, details))
    return reports


@lru_cache(maxsize=64)
def _open(name: str) -> Backend:
    library, _, device = name.partition(":")
    library = ALIASES.get(library, library)
    if library not in LIBRARIES:
        raise BackendError(f'unknown backend "{name}": choose one of auto, {", ".join(LIBRARIES)}')
    return _library(library).connect(device)  # type: ignore[no-any-return]


def _library(library: str) -> Any:
    return import_module(f"xpnet.backends.{library}")


@lru_cache(maxsize=1)
def _auto() -> Backend:
    try:
        chosen: Backend = _library("cupy").connect("")
        reason = "chosen by auto, because a CUDA device answered"
    except BackendError as error:
        chosen = _library("numpy").connect("")
        reason = f"chosen by auto, because {error}"
    chosen.reason = reason
    return chosen
