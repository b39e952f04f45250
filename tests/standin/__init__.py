"""The real CuPy on a machine without a GPU: `install()` before CuPy is imported, and CUDA is a stand-in on the CPU.

- memory, streams, runtime, driver: the driver and the runtime, in C++
- product, refusal, lt, blas: cuBLASLt and cuBLAS
- nccl: NCCL, which is not installed unless STANDIN_NCCL=1
- block.h, cupy_device.h: CUDA C++ for the host's compiler
- build, kernels: how they, and CuPy's kernels, are built
- `PYTHONPATH=tests python -m standin -m xpnet doctor`: a program on the stand-in
"""

import ctypes
import importlib.machinery
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from standin import build, kernels

ORDERS = ("lazy", "eager", "random", "others")


class MisuseError(AssertionError):
    """Something that the real driver or library would not have survived."""


class _Runtime:
    """Finds CuPy's module that was built against the stand-in before the one that is installed."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != build.MODULE:
            return None
        loader = importlib.machinery.ExtensionFileLoader(name, str(build.folder() / "runtime.so"))
        return importlib.util.spec_from_file_location(name, loader=loader)


def install() -> None:
    """Make CUDA the stand-in, in this process; build.MissingError says what is missing."""
    if any(isinstance(finder, _Runtime) for finder in sys.meta_path):
        return
    if "cupy" in sys.modules:
        raise RuntimeError("the stand-in must be installed before CuPy is imported")
    place = build.build()
    os.environ["STANDIN_CUBLASLT"] = str(next((build.cuda() / "lib").glob("libcublasLt.so.*")))
    os.environ["CUPY_CACHE_IN_MEMORY"] = "1"  # on the disk kernels.py keeps them, with NVRTC's verdicts
    os.environ["CUPY_ACCELERATORS"] = ""  # CUB's kernels are templates
    _choose(os.environ.get("STANDIN_ORDER", "lazy"), 0)
    for name in ("libcublasLt.so.13", "libcublas.so.13"):
        ctypes.CDLL(str(place / name))
    if os.environ.get("STANDIN_NCCL"):
        ctypes.CDLL(str(place / "libnccl.so.2"))
    else:  # nor the real one, if it is installed
        sys.modules["cupy_backends.cuda.libs.nccl"] = None  # type: ignore[assignment]
    sys.meta_path.insert(0, _Runtime())
    compiler = importlib.import_module("cupy.cuda.compiler")
    compiler._compile_using_nvrtc_no_warning = _compile
    compiler._preprocess = lambda source, options, arch, backend: "the stand-in"
    cupy = sys.modules["cupy"]
    cupy.RawModule = _checked(cupy.RawModule)


@cache
def driver() -> ctypes.CDLL:
    """Return the stand-in's driver."""
    library = ctypes.CDLL(str(build.folder() / "libcuda.so.1"), mode=ctypes.RTLD_GLOBAL)
    library.standin_order.restype = library.standin_next_misuse.restype = ctypes.c_bool
    return library


@contextmanager
def order(name: str, seed: int = 0) -> Iterator[None]:
    """Choose in which order streams do their work: one of ORDERS."""
    _choose(name, seed)
    try:
        yield
    finally:
        _choose(os.environ.get("STANDIN_ORDER", "lazy"), 0)


def _choose(name: str, seed: int) -> None:
    if not driver().standin_order(name.encode(), seed):
        raise ValueError(f'the stand-in has no order "{name}": choose one of {", ".join(ORDERS)}')


def misuses() -> list[str]:
    """Return what was done since the last call that a real device would not have survived."""
    text, found = ctypes.create_string_buffer(400), []
    while driver().standin_next_misuse(text, len(text)):
        found.append(text.value.decode())
    return found


def _compile(source: str, options: Sequence[str] = (), *arguments: Any, **keywords: Any) -> tuple[bytes, None]:
    if keywords.get("name_expressions") or any(isinstance(a, (tuple, list)) and a for a in arguments):
        raise kernels.CompileError("the stand-in has no templates")
    return kernels.image(source, tuple(options)), None


# Arguments of raw kernels, which CuPy hands on as they are

SCALARS = {"int": "int32", "unsigned int": "uint32", "long long": "int64", "float": "float32", "double": "float64"}


def _checked(base: Any) -> Any:
    """Return RawModule whose functions compare what they are given with the kernel's own parameters."""

    class RawModule:
        def __init__(self, code: str, **options: Any) -> None:
            self.code, self.module = code, base(code=code, **options)

        def get_function(self, name: str) -> Any:
            function, wanted = self.module.get_function(name), parameters(self.code, name)

            def launch(grid: Any, block: Any, arguments: Sequence[Any], **keywords: Any) -> None:
                compare(name, wanted, arguments)
                function(grid, block, tuple(arguments), **keywords)

            return launch

    return RawModule


def parameters(code: str, name: str) -> list[tuple[str, str]]:
    """Return type and name of a kernel's parameters, typedefs resolved; a pointer's type ends in *."""
    types = {alias: kind for kind, alias in re.findall(r"typedef ([\w ]+) (\w+);", code)}
    text = re.search(rf"__global__ void {name}\(([^)]*)\)", code)
    assert text is not None, f"no kernel {name}"
    found = []
    for one in text[1].split(","):
        kind, label = one.replace("const ", "").strip().rsplit(maxsplit=1)
        star = "*" if "*" in one else ""
        kind = kind.replace("*", "").strip()
        found.append((types.get(kind, kind) + star, label.lstrip("*")))
    return found


def compare(name: str, wanted: Sequence[tuple[str, str]], given: Sequence[Any]) -> None:
    """Raise MisuseError where an argument has not the type and size of its parameter."""
    if len(wanted) != len(given):
        raise MisuseError(f"kernel {name} takes {len(wanted)} arguments, got {len(given)}")
    arrays = {"bool": "bool", "unsigned char": "uint8"} | SCALARS
    for (kind, label), value in zip(wanted, given, strict=True):
        dtype = getattr(value, "dtype", None)
        if kind.endswith("*"):
            null = isinstance(value, np.int64) and value == 0
            array = hasattr(value, "data") and not isinstance(value, np.generic)
            fits = null or (array and (kind == "void*" or dtype == arrays[kind[:-1]]))
        else:
            fits = isinstance(value, np.generic) and dtype == SCALARS[kind]
        if not fits:
            raise MisuseError(f"kernel {name}: {label} is {kind}, got {type(value).__name__} of {dtype}")
