"""Backends that catch what others let pass: NumPy with read-only inputs, a strict device that cannot be read."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache, wraps
from importlib import import_module
from types import ModuleType
from typing import Any

from xpnet.arrays import Array, Namespace
from xpnet.backends import Backend, backend
from xpnet.backends.host import Counted
from xpnet.backends.numpy import NumpyBackend

READS = tuple(f"__{name}__" for name in ("bool", "int", "float", "complex", "index", "array", "buffer", "dlpack"))


class SyncError(AssertionError):
    """A value was read from the device, which makes the host wait for it."""


class ReadOnlyNumpy(NumpyBackend):
    """NumPy whose arrays cannot be written, except those asked for as the caller's own (`copy=True`)."""

    def __init__(self) -> None:
        super().__init__()
        self.xp = _read_only(self.xp)


def _read_only(xp: Namespace) -> Namespace:
    """Return the namespace with another `asarray`; arrays that functions make are the caller's own, so stay as are."""

    def asarray(obj: Any, /, *, copy: bool | None = None, **options: Any) -> Array:
        array = xp.asarray(obj, copy=copy, **options)
        if not copy:
            array = array.view()
            array.flags.writeable = False
        return array

    twin = ModuleType(xp.__name__)
    vars(twin).update(vars(xp) | {"asarray": asarray})
    return twin


@contextmanager
def open_backend(name: str, needs: Collection[str] = ()) -> Iterator[Backend]:
    """Give the backend of a test by its name, and hold the test to what it needs of it."""
    with connect(name) as chosen, hold(chosen, needs):
        yield chosen


@contextmanager
def connect(name: str) -> Iterator[Backend]:
    """Give a backend by its name, float64 switched on as long as it is used."""
    if name == "numpy-readonly":
        yield ReadOnlyNumpy()
        return
    chosen = backend(name)
    with _jax_float64() if chosen.name == "jax" else chosen.working():
        yield chosen


@contextmanager
def hold(chosen: Backend, needs: Collection[str] = ()) -> Iterator[None]:
    """Hold what runs to the standard: array-api-strict has nothing that is optional there, but for what is needed."""
    if chosen.name != "strict":
        yield
        return
    free = "sync" in needs or chosen.device == chosen.xp.Device("CPU_DEVICE")
    with _strict_flags(needs), nullcontext() if free else _no_reads(chosen.device):
        yield


@contextmanager
def _jax_float64() -> Iterator[None]:
    """Switch 64-bit types on."""
    with _wide()():
        yield


@cache
def _wide() -> Counted:
    config = import_module("jax").config
    return Counted(lambda: config.jax_enable_x64, lambda on: config.update("jax_enable_x64", on), value=True)


@contextmanager
def _strict_flags(needs: Collection[str]) -> Iterator[None]:
    """Switch off what the standard makes optional, and is not needed."""
    xp = import_module("array_api_strict")
    before = xp.get_array_api_strict_flags()
    xp.set_array_api_strict_flags(
        api_version="2024.12",
        boolean_indexing="boolean_indexing" in needs,
        data_dependent_shapes="data_dependent_shapes" in needs,
        enabled_extensions=tuple(name for name in ("linalg", "fft") if name in needs),
    )
    try:
        yield
    finally:
        xp.set_array_api_strict_flags(**before)


@contextmanager
def _no_reads(device: object) -> Iterator[None]:
    """Make every way to read a value from this device raise SyncError; an array must be moved to the CPU's first."""
    cls = import_module("array_api_strict")._array_object.Array

    def trap(name: str, read: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(read)
        def trapped(self: Array, *args: Any, **kwargs: Any) -> Any:
            if self.device == device:
                raise SyncError(
                    f"{name} of an array on {device} reads its value, and the host must wait for it: keep it an array"
                )
            return read(self, *args, **kwargs)

        return trapped

    reads = {name: vars(cls)[name] for name in READS if name in vars(cls)}
    for name, read in reads.items():
        setattr(cls, name, trap(name, read))
    try:
        yield
    finally:
        for name, read in reads.items():
            setattr(cls, name, read)
