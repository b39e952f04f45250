"""What CuPy needs before it can compute, in the order in which it goes missing, each with its remedy.

`import cupy` succeeds without a driver, and the first array fails; so nothing is believed that was not tried.
"""

import os
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from xpnet.errors import BackendError

LEAST_MEMORY = 64 * 2**20
"""Bytes of free device memory below which nothing useful can be done."""
LIBRARIES = {"nvrtc": "NVRTC, which compiles kernels", "cublas": "cuBLAS, which multiplies matrices"}

LOCAL_RANKS = ("MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID")
"""Where mpiexec and srun tell a process its number among those of its machine."""


def local_rank() -> int:
    """Return this process's number among those that were started together on this machine, 0 if it is alone."""
    return next((int(os.environ[name]) for name in LOCAL_RANKS if os.environ.get(name)), 0)


def count_devices(cupy: Any) -> int:
    """Return how many GPUs there are; BackendError says which of library, driver or device is missing.

    `cupy` is the module, or None if it could not be imported.
    """
    if cupy is None:
        raise BackendError(_no_library())
    runtime = cupy.cuda.runtime
    driver, built = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    if driver == 0:
        raise BackendError('no CUDA driver was found: install NVIDIA\'s driver, or use backend="auto"')
    if driver // 1000 < built // 1000:
        raise BackendError(
            f"the driver is too old: it knows CUDA {version(driver)}, CuPy was built for {version(built)}: "
            f"update NVIDIA's driver, or install 'xpnet[cuda{driver // 1000}]' instead"
        )
    try:
        count = int(runtime.getDeviceCount())
    except runtime.CUDARuntimeError as error:
        raise BackendError(
            f"no CUDA device answered ({first_line(error)}): check nvidia-smi and CUDA_VISIBLE_DEVICES"
        ) from None
    if not count:
        raise BackendError("the CUDA driver shows no device: check nvidia-smi and CUDA_VISIBLE_DEVICES")
    return count


def check_libraries(cupy: Any, libs: Any) -> None:
    """Raise BackendError if a library that CuPy loads when it needs it is missing; `libs` is where CuPy keeps them."""
    major = cupy.cuda.runtime.runtimeGetVersion() // 1000
    for name, what in LIBRARIES.items():
        try:
            library = getattr(libs, name)
            if name == "nvrtc":
                library.getVersion()  # it is loaded only now
        except (ImportError, AttributeError, RuntimeError):
            raise BackendError(
                f"the CUDA library {what}, is missing: pip install 'cuda-toolkit[cublas,cudart,nvrtc]=={major}.*'"
            ) from None


def check_device(cupy: Any, number: int) -> None:
    """Raise BackendError unless this GPU has free memory and computes an elementwise operation and a product right."""
    try:
        with cupy.cuda.Device(number):
            free, total = cupy.cuda.runtime.memGetInfo()
            if free < LEAST_MEMORY:
                raise BackendError(_full(number, free, total))
            product = cupy.ones((8, 8), dtype="float32") @ (cupy.ones((8, 8), dtype="float32") + 1)
            trial = float(product.sum())
    except BackendError:
        raise
    except Exception as error:
        if "MemoryAllocation" in str(error) or isinstance(error, MemoryError):
            raise BackendError(_full(number)) from None
        raise BackendError(f"GPU {number} failed a trial computation ({first_line(error)}): check nvidia-smi") from None
    if trial != 1024.0:
        raise BackendError(f"GPU {number} computed {trial} where 1024.0 is right: check its health with nvidia-smi")


def describe_device(cupy: Any, number: int) -> str:
    """Return a GPU in one line: name, compute capability, memory free and in all, what CuPy's pool holds."""
    runtime = cupy.cuda.runtime
    with cupy.cuda.Device(number) as device:
        name = runtime.getDeviceProperties(number)["name"]
        free, total = runtime.memGetInfo()
        held, used = (getattr(cupy.get_default_memory_pool(), f"{kind}_bytes")() for kind in ("total", "used"))
        capability = ".".join((device.compute_capability[:-1], device.compute_capability[-1:]))
    return (
        f"cupy:{number} {name.decode() if isinstance(name, bytes) else name}, compute capability {capability}, "
        f"driver CUDA {version(runtime.driverGetVersion())}, memory {mib(free)} of {mib(total)} free, "
        f"pool {mib(used)} of {mib(held)} used"
    )


def version(number: int) -> str:
    """Return CUDA's version number as people write it: `13.2` for 13020."""
    return f"{number // 1000}.{number % 1000 // 10}"


def mib(size: int) -> str:
    """Return a number of bytes as `1,024 MiB`."""
    return f"{size / 2**20:,.0f} MiB"


class Memory:
    """The context in which an allocation that failed says how much was asked, how much is free, and what to lower."""

    def __init__(self, cupy: Any) -> None:
        self.cupy = cupy

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if not (isinstance(error, MemoryError) and hasattr(error, "_size")):  # else it is the host's memory
            return
        free, total = self.cupy.cuda.runtime.memGetInfo()
        raise BackendError(
            f"the GPU's memory is full: {mib(error._size)} asked for, {mib(free)} of {mib(total)} free: "
            "lower batch_size, use a smaller network, or end what nvidia-smi lists"
        ) from error


def first_line(error: object) -> str:
    """Return the first line of an error's text."""
    return str(error).strip().partition("\n")[0]


def _no_library() -> str:
    """Say whether CuPy is missing or broken."""
    if find_spec("cupy") is None:
        return "CuPy is not installed: pip install 'xpnet[cuda13]' (or cuda12)"
    try:
        import_module("cupy")
        reason = "array-api-compat does not know this version"
    except ImportError as error:
        reason = [line.strip() for line in str(error).splitlines() if line.strip(" =")][-1]
    return f"CuPy is installed but cannot be imported ({reason}): reinstall it for your CUDA version"


def _full(number: int, free: int = 0, total: int = 0) -> str:
    came = f" ({mib(free)} of {mib(total)} free)" if total else ""
    return f"the memory of GPU {number} is full{came}: end what nvidia-smi lists, or choose another GPU"
