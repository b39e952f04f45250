"""Build the stand-in: a CUDA driver, cuBLAS, cuBLASLt and NCCL on the CPU, and CuPy's one module that must see it.

CuPy links CUDA's runtime statically into `cupy_backends.cuda.api.runtime`, so that module alone is built again, from
CuPy's own sources, against the stand-in; driver and cuBLAS it finds by name. What is built lies under `build/stand-in`,
in a folder that is named after all that it was built from.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOP = HERE.parents[1] / "build" / "stand-in"
CUPY, CYTHON = "14.2.0", "3.2.4"
INSTALL = "python -m pip install -e '.[standin]'"
LIBRARIES = {
    "libcuda.so.1": ("memory.cpp", "streams.cpp", "runtime.cpp", "driver.cpp"),
    "libcublasLt.so.13": ("lt.cpp",),
    "libcublas.so.13": ("blas.cpp",),
    "libnccl.so.2": ("nccl.cpp",),
}
REFUSED = {"cublas": 15, "cuda": 801, "nccl": 3}
"""What a library's functions answer that the stand-in has not: not supported, or an internal error."""
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-fvisibility=hidden", "-ffp-contract=off")
MODULE = "cupy_backends.cuda.api.runtime"
CYTHONIZE = """
import Cython.Build
from setuptools import Extension
name = "cupy_backends.cuda.api.runtime"
made = Extension(name, [name.replace(".", "/") + ".pyx"], language="c++")
directives = dict(c_api_binop_methods=True, binding=False, freethreading_compatible=True, language_level=3)
choices = dict(CUPY_USE_CUDA_PYTHON=False, CUPY_CUFFT_STATIC=False, CUPY_CUDA_VERSION=13000, CUPY_HIP_VERSION=0)
choices["CUPY_CYTHON_VERSION"] = Cython.__version__
Cython.Build.cythonize([made], compiler_directives=directives, compile_time_env=choices, quiet=True)
"""


class MissingError(Exception):
    """Something that the stand-in needs is not here; the text says what, and how to get it."""


def check() -> None:
    """Raise MissingError unless all that the stand-in is made of is here."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise MissingError(f"the stand-in needs x86-64 Linux, and this is {sys.platform} on {platform.machine()}")
    if shutil.which("g++") is None:
        raise MissingError("the stand-in needs a C++ compiler: install g++")
    for name, wanted in (("cupy-cuda13x", CUPY), ("cython", CYTHON)):
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise MissingError(f"the stand-in needs {name} {wanted}, which is not installed: {INSTALL}") from None
        if found != wanted:
            raise MissingError(f"the stand-in is made for {name} {wanted}, and {found} is installed: {INSTALL}")
    for part in ("include/cuda_runtime_api.h", "include/crt/host_defines.h", "include/cuda_profiler_api.h"):
        if not (cuda() / part).exists():
            raise MissingError(f"CUDA's {Path(part).name} is missing: {INSTALL}")
    for name in ("nvrtc", "cublasLt"):
        if not list((cuda() / "lib").glob(f"lib{name}.so.*")):
            raise MissingError(f"NVIDIA's lib{name} is missing: {INSTALL}")


def cuda() -> Path:
    """Return where CUDA's wheels lie."""
    found = importlib.util.find_spec("nvidia")
    places = list(found.submodule_search_locations or []) if found else []
    return next((Path(place) / "cu13" for place in places if (Path(place) / "cu13").is_dir()), Path("cu13"))


@cache
def folder() -> Path:
    """Return where this stand-in lies, built or not."""
    digest = hashlib.sha256(f"{CUPY} {sys.implementation.cache_tag} {FLAGS}".encode())
    for path in sorted((*HERE.glob("*.cpp"), *HERE.glob("*.h"), HERE / "build.py", HERE / "kernels.py")):
        digest.update(path.read_bytes())
    return TOP / digest.hexdigest()[:16]


def build() -> Path:
    """Build what is not built; return the folder."""
    check()
    place = folder()
    if not (place / "runtime.so").exists():
        place.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor() as pool:  # while CuPy's sources are fetched
            parts = [pool.submit(compile_text, name, place) for names in LIBRARIES.values() for name in names]
            compile_runtime(sources(), place / "runtime.o")
        for part in parts:
            part.result()
        wanted = {"libcuda.so.1": undefined(place / "runtime.o", "cuda")}
        wanted |= {f"lib{name}.so.{number}": wanted_of(name) for name, number in (("cublas", 13), ("nccl", 2))}
        for library in LIBRARIES:
            link(library, place, wanted.get(library, set()))
        words = ("-shared", str(place / "runtime.o"), str(place / "libcuda.so.1"), f"-Wl,-rpath,{place}")
        gxx(*words, "-o", str(place / "runtime.new"))
        (place / "runtime.new").rename(place / "runtime.so")
    return place


def compile_text(name: str, place: Path) -> None:
    """Compile one of the stand-in's own texts, not yet linked."""
    gxx(*FLAGS, "-c", "-o", str(place / f"{name}.o"), str(HERE / name))


def link(library: str, place: Path, wanted: Iterable[str]) -> None:
    """Link one of the stand-in's libraries; of the functions wanted, those that it has not are there and refuse."""
    absent, exports = place / "absent.cpp", place / "exports.map"
    absent.write_text("\n".join(['#include "standin.h"', *map(refusing, sorted(wanted)), ""]))
    exports.write_text(f"{library} {{ global: *; }};\n")  # cuBLAS's names have a version, the driver's have none
    named = [f"-Wl,-soname,{library}", *[f"-Wl,--version-script={exports}"] * library.startswith("libcublas.")]
    below = [str(place / name) for name in LIBRARIES][: list(LIBRARIES).index(library)]
    objects = [str(place / f"{name}.o") for name in LIBRARIES[library]]
    gxx(*FLAGS, *named, "-o", str(place / library), *objects, str(absent), *below, "-ldl", "-lpthread", "-lrt")


def refusing(name: str) -> str:
    """Return a function in C++ that gives way to a real one of its name."""
    status = next(number for prefix, number in REFUSED.items() if name.startswith(prefix))
    body = f'standin_misuse("{name} is not part of the stand-in"); return {status};'
    return f"EXPORTED __attribute__((weak)) int {name}() {{ {body} }}"


def wanted_of(library: str) -> set[str]:
    """Return the functions of a library that CuPy's module of its name is linked with."""
    spec = importlib.util.find_spec("cupy_backends")
    places = list(spec.submodule_search_locations or []) if spec else []
    return undefined(next(Path(places[0]).glob(f"cuda/libs/{library}.*.so")), library)


def undefined(binary: Path, prefix: str) -> set[str]:
    """Return the names with a prefix that a library or an object file needs from others."""
    table = ["-D"] if ".so" in binary.name else []
    listed = run("nm", *table, "--undefined-only", str(binary)).stdout
    words = (line.split()[-1].partition("@")[0] for line in listed.splitlines() if line.strip())
    return {word for word in words if word.startswith(prefix)}


def sources() -> Path:
    """Return CuPy's sources, which pip fetches if they are not there."""
    place = TOP / f"cupy-{CUPY}"
    if not place.exists():
        words = ["download", "-q", "--no-deps", "--no-build-isolation", "--no-binary", ":all:", "-d", str(TOP)]
        environment = os.environ | {"CUPY_INSTALL_USE_STUB": "1"}
        done = run(sys.executable, "-m", "pip", *words, f"cupy=={CUPY}", environment=environment)
        archive = TOP / f"cupy-{CUPY}.tar.gz"
        if not archive.exists():
            raise MissingError(f"CuPy's sources could not be fetched: {done.stderr.strip().splitlines()[-1]}")
        with tarfile.open(archive) as packed:
            packed.extractall(TOP, filter="data")
    return place


def compile_runtime(cupy: Path, made: Path) -> None:
    """Compile CuPy's module of the CUDA runtime, not yet linked to one."""
    done = run(sys.executable, "-c", CYTHONIZE, cwd=cupy)
    if done.returncode:
        raise MissingError(f"CuPy's module could not be translated: {done.stderr.strip().splitlines()[-1]}")
    folders = (cupy, cupy / "cupy_backends", cupy / "cupy_backends" / "cuda", sysconfig.get_path("include"))
    text = str((cupy / MODULE.replace(".", "/")).with_suffix(".cpp"))
    words = ("-std=c++17", "-O0", "-fPIC", "-c", "-w", "-DCUPY_CUDA_VERSION=13000", "-o", str(made), text)
    gxx(*words, *(f"-I{one}" for one in folders))


def gxx(*words: str) -> None:
    """Run the compiler; MissingError shows what it said if it failed."""
    done = run("g++", *words, f"-I{HERE}", f"-I{cuda() / 'include'}", f"-I{cuda() / 'include' / 'cccl'}")
    if done.returncode:
        raise MissingError(f"g++ could not build the stand-in:\n{done.stderr[-2000:]}")


def run(
    *words: str, cwd: Path | None = None, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program and return what it said."""
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True)


if __name__ == "__main__":
    try:
        print(build())
    except MissingError as problem:
        sys.exit(str(problem))
