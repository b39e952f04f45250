"""Backends that catch what others let pass: NumPy with read-only inputs, a strict device that cannot be read."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from typing import Any

import numpy as np

from xpnet.arrays import Array
from xpnet.backends import Backend, backend
from xpnet.backends.numpy import NumpyBackend

NAMES = ("numpy", "numpy-readonly", "strict:device1", "torch", "jax", "cupy")
READS = tuple(f"__{name}__" for name in ("bool", "int", "float", "complex", "index", "array", "buffer", "dlpack"))


class SyncError(AssertionError):
    """A step read a value from the device, which makes the host wait for it."""


class ReadOnlyNumpy(NumpyBackend):
    """NumPy whose arrays cannot be written, except those asked for as the caller's own (`copy=True`)."""

    def _place(self, host: np.ndarray, copy: bool | None) -> Array:
        array = super()._place(host, copy)
        if not copy:
            array = array.view()
            array.flags.writeable = False
        return array


@contextmanager
def open_backend(name: str) -> Iterator[Backend]:
    """Give the backend of a test by its name, with what the library needs switched on until the test is over."""
    if name == "numpy-readonly":
        yield ReadOnlyNumpy()
    elif name.startswith("strict"):
        chosen = backend(name)
        with _strict_flags(), _no_reads(chosen.device):
            yield chosen
    elif name.startswith("jax"):
        chosen = backend(name)
        with _jax_float64():
            yield chosen
    else:
        yield backend(name)


@contextmanager
def _jax_float64() -> Iterator[None]:
    """Switch 64-bit types on."""
    config = import_module("jax").config
    before = config.jax_enable_x64
    config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        config.update("jax_enable_x64", before)


@contextmanager
def _strict_flags() -> Iterator[None]:
    """Switch off what the standard makes optional."""
    xp = import_module("array_api_strict")
    before = xp.get_array_api_strict_flags()
    xp.set_array_api_strict_flags(
        api_version="2024.12", boolean_indexing=False, data_dependent_shapes=False, enabled_extensions=()
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
                raise SyncError(f"{name} of an array on {device}: a step must not read values from the device")
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
