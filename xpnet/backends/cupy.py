"""CuPy, on a CUDA GPU: believed only after it has computed something."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

try:
    import array_api_compat.cupy as xp
    import cupy
except ImportError:
    cupy = None

import numpy as np

from xpnet.arrays import Array
from xpnet.backends.base import InPlaceBackend
from xpnet.errors import BackendError


class CupyBackend(InPlaceBackend):
    """CuPy on one GPU."""

    def __init__(self, device: Any, reason: str = "asked for by name") -> None:
        super().__init__("cupy", xp, device, reason)

    def _place(self, host: np.ndarray, copy: bool | None) -> Array:
        with self.device:
            return cupy.asarray(host)

    def asnumpy(self, array: Array) -> np.ndarray:
        """Copy an array to the host, waiting for it."""
        home: np.ndarray = cupy.asnumpy(array)
        return home

    def owns(self, array: Array) -> bool:
        """Whether this is a CuPy array on this GPU."""
        return isinstance(array, cupy.ndarray) and array.device == self.device

    def synchronize(self) -> None:
        """Wait until the GPU has done all it was asked."""
        self.device.synchronize()

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """Return a @ b, in `out` if one is given."""
        return cupy.matmul(a, b, out=out)


def connect(device: str) -> CupyBackend:
    """Return the backend for a GPU by its number, the first if none is named, after a trial."""
    names = devices()
    if device and device not in names:
        raise BackendError(f'CuPy has no device "{device}" here: choose one of {names}')
    chosen = cupy.cuda.Device(int(device or 0))
    try:
        with chosen:
            product = cupy.ones((8, 8), dtype="float32") @ (cupy.ones((8, 8), dtype="float32") + 1)
            trial = float(product.sum())
    except Exception as error:
        raise BackendError(f"the GPU failed a trial computation ({_first_line(error)}): run `xpnet doctor`") from None
    if trial != 1024.0:
        raise BackendError(f"the GPU computed {trial} where 1024.0 is right: check its health with nvidia-smi")
    return CupyBackend(chosen)


def of(array: Array) -> CupyBackend:
    """Return the backend of a CuPy array."""
    return _on(array.device)


@lru_cache
def _on(device: Any) -> CupyBackend:
    """Return one backend for a device, always the same, since it keeps its mapped rules."""
    return CupyBackend(device, "the array's own library")


def devices() -> Sequence[str]:
    """Return the numbers of the GPUs that the driver shows; BackendError says what is missing and how to get it."""
    if cupy is None:
        raise BackendError("CuPy is not installed: pip install 'xpnet[cuda13]' (or cuda12)")
    try:
        if cupy.cuda.runtime.driverGetVersion() == 0:
            raise BackendError('no CUDA driver was found: install NVIDIA\'s driver, or use backend="auto"')
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise BackendError(
            f"no CUDA device answered ({_first_line(error)}): check the driver with nvidia-smi"
        ) from None
    if not count:
        raise BackendError("the CUDA driver shows no device: check nvidia-smi and CUDA_VISIBLE_DEVICES")
    return [str(k) for k in range(count)]


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
