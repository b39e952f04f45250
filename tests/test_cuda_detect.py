"""What is missing before CuPy can compute, each with its remedy; no CuPy and no GPU are needed here."""

from types import SimpleNamespace

import pytest

from xpnet.backends.cuda import detect
from xpnet.errors import BackendError


class CUDARuntimeError(RuntimeError):
    pass


def raises(text):
    def call(*arguments, **keywords):
        raise CUDARuntimeError(text)

    return call


class Device:
    compute_capability = "90"

    def __init__(self, number):
        self.number = number

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass


class Ones:
    def __init__(self, value):
        self.value = value

    def __add__(self, other):
        return self

    def __matmul__(self, other):
        return self

    def sum(self):
        return self.value


def library(driver=13000, built=13020, count=1, free=80 * 2**30, trial=1024.0, **changes):
    runtime = {
        "driverGetVersion": lambda: driver,
        "runtimeGetVersion": lambda: built,
        "getDeviceCount": (lambda: count) if isinstance(count, int) else raises(count),
        "memGetInfo": lambda: (free, 80 * 2**30),
        "getDeviceProperties": lambda number: {"name": b"Some GPU"},
        "CUDARuntimeError": CUDARuntimeError,
    }
    pool = SimpleNamespace(total_bytes=lambda: 3 * 2**20, used_bytes=lambda: 2**20)
    cuda = SimpleNamespace(runtime=SimpleNamespace(**runtime), Device=Device)
    ones = (lambda *a, **k: Ones(trial)) if isinstance(trial, float) else raises(trial)
    return SimpleNamespace(cuda=cuda, ones=ones, get_default_memory_pool=lambda: pool, **changes)


@pytest.mark.parametrize(
    ("cupy", "text"),
    [
        (library(driver=0), r"no CUDA driver was found: install NVIDIA's driver, or use backend=\"auto\""),
        (library(driver=12040), r"driver is too old: it knows CUDA 12.4, CuPy was built for 13.2: .*xpnet\[cuda12\]"),
        (library(count="cudaErrorNoDevice: none\nmore"), r"no CUDA device answered \(cudaErrorNoDevice: none\): check"),
        (library(count=0), r"the CUDA driver shows no device: check nvidia-smi and CUDA_VISIBLE_DEVICES"),
    ],
)
def test_what_is_missing_before_a_device_is_seen(cupy, text):
    with pytest.raises(BackendError, match=text):
        detect.count_devices(cupy)


def test_a_driver_newer_than_cupy_is_fine():
    assert detect.count_devices(library(driver=13000, built=12090, count=3)) == 3
    assert detect.count_devices(library(driver=13000, built=13020)) == 1  # minor versions go together


def test_no_cupy(monkeypatch):
    monkeypatch.setattr(detect, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"CuPy is not installed: pip install 'xpnet\[cuda13\]' \(or cuda12\)"):
        detect.count_devices(None)


def test_a_cupy_that_cannot_be_imported(monkeypatch):
    def broken(name):
        raise ImportError("=====\nFailed to import CuPy.\n\nOriginal error:\n  ImportError: libfoo.so\n=====")

    monkeypatch.setattr(detect, "find_spec", lambda name: object())
    monkeypatch.setattr(detect, "import_module", broken)
    with pytest.raises(BackendError, match=r"cannot be imported \(ImportError: libfoo.so\): reinstall"):
        detect.count_devices(None)


@pytest.mark.parametrize(("name", "what"), [("nvrtc", "NVRTC"), ("cublas", "cuBLAS")])
def test_a_missing_library(name, what):
    class Libs:
        def __getattr__(self, wanted):
            if wanted == name:
                raise ImportError('Failure finding "lib.so.13"')
            return SimpleNamespace(getVersion=lambda: (13, 0))

    remedy = r"is missing: pip install 'cuda-toolkit\[cublas,cudart,nvrtc\]==13.\*'"
    with pytest.raises(BackendError, match=f"the CUDA library {what}, .* {remedy}"):
        detect.check_libraries(library(), Libs())
    detect.check_libraries(library(), SimpleNamespace(nvrtc=SimpleNamespace(getVersion=lambda: (13, 0)), cublas=1))


def test_nvrtc_is_missing_only_when_it_is_called():
    nvrtc = SimpleNamespace(getVersion=raises("CuPy failed to load libnvrtc.so.13: cannot open shared object file"))
    with pytest.raises(BackendError, match=r"NVRTC, which compiles kernels, is missing: pip install 'cuda-toolkit"):
        detect.check_libraries(library(), SimpleNamespace(nvrtc=nvrtc, cublas=1))


@pytest.mark.parametrize(
    ("cupy", "text"),
    [
        (library(free=2**20), r"the memory of GPU 0 is full \(1 MiB of 81,920 MiB free\): end what nvidia-smi lists"),
        (library(trial="cudaErrorMemoryAllocation: out of memory"), r"the memory of GPU 0 is full: end what"),
        (
            library(trial="cudaErrorECCUncorrectable: bad\nx"),
            r"failed a trial computation \(cudaErrorECC.*: bad\): check",
        ),
        (library(trial=1000.0), r"GPU 0 computed 1000.0 where 1024.0 is right: check its health with nvidia-smi"),
    ],
)
def test_a_gpu_that_cannot_be_used(cupy, text):
    with pytest.raises(BackendError, match=text):
        detect.check_device(cupy, 0)


def test_a_good_gpu_in_one_line():
    detect.check_device(library(), 0)
    assert detect.describe_device(library(free=2**30), 0) == (
        "cupy:0 Some GPU, compute capability 9.0, driver CUDA 13.0, memory 1,024 MiB of 81,920 MiB free, "
        "pool 1 MiB of 3 MiB used"
    )
