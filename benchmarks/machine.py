"""What a measurement ran on: never a name of a host, never a path."""

import ctypes
import os
import platform
from typing import Any

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "PJRT_NPROC")


def processor() -> str:
    """Return the model of the CPU."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads(number: int | None) -> dict[str, str]:
    """Return the environment that gives every library so many threads; none: each library's own default."""
    return {} if number is None else dict.fromkeys(THREADS, str(number))


def describe(number: int | None = None) -> dict[str, Any]:
    """Return machine, system, Python and thread settings."""
    inherited = {key: os.environ[key] for key in THREADS if key in os.environ}
    facts = {
        "processor": processor(),
        "cores": cores(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "threads": inherited | threads(number) or "each library's own default",
    }
    if hasattr(os, "getloadavg"):
        facts["load before"] = round(os.getloadavg()[0], 2)
    return facts


def gpus() -> list[str]:
    """Return the names of the CUDA devices that the driver shows."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    count, name, found = ctypes.c_int(0), ctypes.create_string_buffer(100), []
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return []
    for index in range(count.value):
        device = ctypes.c_int()
        cuda.cuDeviceGet(ctypes.byref(device), index)
        cuda.cuDeviceGetName(name, len(name), device)
        found.append(name.value.decode())
    return found
