"""What a backend can do: found by trying, or told by the library itself, as the standard's inspection functions do."""

from collections.abc import Callable
from functools import partial

from xpnet.backends import Backend

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = ("bool", *INTEGERS, "float32", "float64", "complex64", "complex128")
HOST_MEMORY = (1, 3)
"""DLPack's device types of memory that the host reads: kDLCPU, kDLCUDAHost."""


def has(backend: Backend, what: str) -> bool:
    """Whether a backend has a capability, one of `PROBES`: a dtype, `mutable`, `boolean_indexing`, …"""
    return PROBES[what](backend)


def _has_dtype(name: str, backend: Backend) -> bool:
    """Whether the library lists a dtype, and makes arrays of it on this device."""
    xp, device = backend.xp, backend.device
    if name not in xp.__array_namespace_info__().dtypes(device=device):
        return False
    try:
        return bool(xp.zeros(1, dtype=getattr(xp, name), device=device).dtype == getattr(xp, name))
    except TypeError:
        return False


def _says(key: str, backend: Backend) -> bool:
    """What the library says of itself."""
    return bool(backend.xp.__array_namespace_info__().capabilities()[key])


def _has_extension(name: str, backend: Backend) -> bool:
    return hasattr(backend.xp, name)


def _is_mutable(backend: Backend) -> bool:
    """Whether an array that the library made can be written."""
    array = backend.xp.zeros(1, device=backend.device)
    try:
        array[0] = 1.0
    except TypeError:
        return False
    return True


def _compiles(backend: Backend) -> bool:
    """Whether `backend.jit(function)` is another function."""
    return backend.jit(_compiles) is not _compiles


def _on_gpu(backend: Backend) -> bool:
    """Whether arrays lie in memory that is not the host's."""
    return int(backend.xp.zeros(1, device=backend.device).__dlpack_device__()[0]) not in HOST_MEMORY


def _reads(backend: Backend) -> bool:
    """Whether a value can be read: `float(x)`, `if x`."""
    try:
        return float(backend.xp.ones((), device=backend.device)) == 1.0
    except AssertionError:
        return False


PROBES: dict[str, Callable[[Backend], bool]] = {
    **{name: partial(_has_dtype, name) for name in DTYPES},
    "boolean_indexing": partial(_says, "boolean indexing"),
    "data_dependent_shapes": partial(_says, "data-dependent shapes"),
    "linalg": partial(_has_extension, "linalg"),
    "fft": partial(_has_extension, "fft"),
    "mutable": _is_mutable,
    "jit": _compiles,
    "gpu": _on_gpu,
    "sync": _reads,
}
