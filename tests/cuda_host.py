"""CUDA C++ on the CPU: the kernels' own text, compiled by g++ with the header that stands for a GPU, `block.h`."""

import ctypes
import hashlib
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest

GXX = shutil.which("g++")
needs_compiler = pytest.mark.skipif(GXX is None, reason="g++ is not installed: kernels cannot be run on the CPU")

SHIM = '#define BARRIERS\n#include "block.h"\n'
SHIM += "using std::min;\nstruct float2 { float x, y; };\nstruct float4 { float x, y, z, w; };\n"
SHIM += "#define __align__(n) __attribute__((aligned(n)))\n"
HEADERS = Path(__file__).resolve().parent / "standin"


@cache
def folder():
    return Path(tempfile.mkdtemp(prefix="xpnet-kernels-"))


@cache
def load(source):
    """Compile C++ and return the library."""
    path = folder() / hashlib.sha256(source.encode()).hexdigest()[:16]
    path.with_suffix(".cpp").write_text(source)
    library, text = path.with_suffix(".so"), path.with_suffix(".cpp")
    command = [GXX, "-std=c++17", "-O1", "-shared", "-fPIC", "-ffp-contract=off", "-w", f"-I{HEADERS}"]
    done = subprocess.run([*command, "-o", str(library), str(text)], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return ctypes.CDLL(str(library))


def kernel(source, name):
    """Return a `__global__` function as `run(columns, rows, threads, *ctypes)`, so many columns and rows of blocks."""
    start = source.index(f"__global__ void {name}(") + len(f"__global__ void {name}(")
    parameters = source[start : source.index(")", start)]
    names = [p.split()[-1].lstrip("*") for p in parameters.split(",")]
    wrapped = f'extern "C" void run_{name}(unsigned int of_x, unsigned int of_y, unsigned int threads, {parameters}) {{'
    wrapped += f" gpu::launch({{of_x, of_y, 1}}, {{threads, 1, 1}}, [=] {{ {name}({', '.join(names)}); }}); }}"
    return getattr(load(SHIM + source + wrapped), f"run_{name}")


CTYPES = {"bool": "bool", "int32": "int", "int64": "long long", "float32": "float", "float64": "double"}


def elementwise(parameters, operation, number):
    """Return an elementwise kernel as `run(n, *ctypes)`; parameters are (dtype or "T", name, kind), `number` is T."""
    heads, lines = [], []
    for dtype, name, kind in parameters:
        c = "T" if dtype == "T" else CTYPES[dtype]
        heads.append(f"{c} {name}" if kind == "scalar" else f"{c}* {name if kind == 'raw' else '_' + name}")
        if kind in ("in", "out"):
            lines.append(f"{'const ' if kind == 'in' else ''}{c} &{name} = _{name}[i];")
    source = f"{SHIM}typedef {CTYPES[number]} T;\n" + 'extern "C" void run(long long n, ' + ", ".join(heads) + ") {\n"
    source += f"for (ptrdiff_t i = 0; i < n; ++i) {{ {' '.join(lines)}\n{operation};\n }} }}"
    return load(source).run
