"""array-api-strict: the standard and nothing else, for tests. Its second device shares no memory with the host."""

from functools import lru_cache

try:
    import array_api_strict as xp
except ImportError as error:
    xp, WHY = None, error

import numpy as np

from xpnet.arrays import Array
from xpnet.backends.base import Backend, absent
from xpnet.errors import BackendError


class StrictBackend(Backend):
    """The plain forms, on an array library that refuses whatever the standard does not promise."""

    def __init__(self, device: object, reason: str = "asked for by name") -> None:
        super().__init__("strict", xp, device, reason)

    @property
    def spec(self) -> str:
        """The name that opens this backend again."""
        return f"strict:{self.describe()}"

    def describe(self) -> str:
        """Return the device's name."""
        return next(name for name in devices() if xp.Device(name) == self.device)

    def asnumpy(self, array: Array) -> np.ndarray:
        """Bring an array home, by way of the library's CPU device."""
        return np.asarray(array.to_device(xp.Device("CPU_DEVICE")))

    def owns(self, array: Array) -> bool:
        """Whether this is an array of the library, on this device."""
        return isinstance(array, xp._array_object.Array) and array.device == self.device


def connect(device: str) -> StrictBackend:
    """Return the backend for a device of array-api-strict, its `CPU_DEVICE` if none is named."""
    names = devices()
    if device and device not in names:
        raise BackendError(f'array-api-strict has no device "{device}" here: choose one of {names}')
    return StrictBackend(xp.Device(device or names[0]))


def of(array: Array) -> StrictBackend:
    """Return the backend of an array."""
    return _on(array.device)


@lru_cache
def _on(device: object) -> StrictBackend:
    """Return one backend for a device, always the same, since it keeps its mapped rules."""
    return StrictBackend(device, "the array's own library")


def devices() -> list[str]:
    """Return the devices that can be used."""
    if xp is None:
        raise absent(WHY, "array_api_strict", "array-api-strict is not installed: pip install 'xpnet[test]'")
    return ["CPU_DEVICE", "device1", "device2"]
