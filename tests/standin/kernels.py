"""CuPy's kernels for the host: each source is compiled by g++, to run, and by the real NVRTC, which must take it.

NVRTC works in a process of its own, which has no stand-in, beside the tests; `verdicts` waits for it.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

from standin import build

HEADER = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(')
DYNAMIC = re.compile(r"extern\s+__shared__\s+([^;]*?)(\w+)\s*\[\s*\]\s*;")
ROOM = r"static char \2_bytes[49152] __attribute__((aligned(64))); static auto* \2 = (\1*)\2_bytes;"
"""For shared memory whose size is given at the launch."""
FLAGS = ("-std=c++17", "-O1", "-fPIC", "-w", "-fpermissive", "-ffp-contract=off", "-fno-gnu-unique")
SHARED = ("-shared", "-nodefaultlibs")
"""What a kernel calls of C's and C++'s libraries is in the process: to look for it takes a third of the time."""
PRELUDE = """#include "cupy_device.h"
#include <cupy/complex.cuh>
#include <cupy/carray.cuh>
#include <cupy/atomics.cuh>
#include <cupy/math_constants.h>
"""
"""What almost every kernel of CuPy's begins with: read once, it takes a third of the time."""
ARCHITECTURE = "90"
NVRTC = """
import json, sys
from pathlib import Path
from cupy_backends.cuda.libs import nvrtc
for line in sys.stdin:
    source, options, verdict = json.loads(line)
    program = nvrtc.createProgram(source, "kernel.cu", (), ())
    try:
        nvrtc.compileProgram(program, options)
        log = ""
    except nvrtc.NVRTCError:
        log = nvrtc.getProgramLog(program)
    nvrtc.destroyProgram(program)
    Path(verdict).write_text(log)
"""


class CompileError(Exception):
    """A kernel that a compiler refused."""


def image(source: str, options: tuple[str, ...]) -> bytes:
    """Return what the stand-in's driver loads as a module: the path of a library that holds the kernels."""
    names = HEADER.findall(source)
    if not names:
        raise CompileError(f"no kernel was found in a source that begins {source[:80]!r}")
    text = DYNAMIC.sub(ROOM, source)
    first = prelude(re.search(r"__syncthreads|__shfl|__syncwarp", source) is not None)
    whole = "\n".join([f'#include "{first}"', text, *(f"STANDIN_KERNEL({name})" for name in names), ""])
    path = places() / hashlib.sha256(f"{options}{whole}".encode()).hexdigest()[:20]
    library = path.with_suffix(".so")
    submit(names[-1], source, options, path.with_suffix(".nvrtc"))
    if not library.exists():
        write(path.with_suffix(".cpp"), whole)
        definitions = (option for option in options if option.startswith("-D"))
        gxx(names[-1], library, *SHARED, *definitions, str(path.with_suffix(".cpp")))
    return b"stand-in " + str(library).encode() + b"\0"


@cache
def prelude(barriers: bool) -> str:
    """Return the name of the header that a kernel begins with, compiled beforehand."""
    path = places() / ("barriers.h" if barriers else "plain.h")
    compiled = path.with_suffix(".h.gch")
    if not compiled.exists():
        write(path, "#define BARRIERS\n" * barriers + PRELUDE)
        gxx("prelude", compiled, "-x", "c++-header", str(path))
    return path.name


def write(path: Path, text: str) -> None:
    """Write a file that other processes see whole, or not at all."""
    own = path.with_name(f"{os.getpid()}-{path.name}")
    own.write_text(text)
    own.replace(path)


def gxx(name: str, made: Path, *words: str) -> None:
    """Run the host's compiler; CompileError if it refuses."""
    cupy = Path(sys.modules["cupy"].__file__ or "").parent / "_core" / "include"
    cccl = (cupy / "cupy" / "_cccl" / part for part in ("libcudacxx", "cub", "thrust"))
    folders = (places(), build.HERE, build.cuda() / "include", cupy, *cccl)
    own = made.with_name(f"{os.getpid()}-{made.name}")
    command = ["g++", *FLAGS, *words, *(f"-I{one}" for one in folders), "-o", str(own)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise CompileError(f"g++ refused kernel {name}:\n{done.stderr[:3000]}")
    own.replace(made)


@cache
def places() -> Path:
    """Return where compiled kernels lie."""
    found = build.folder() / "kernels"
    found.mkdir(exist_ok=True)
    return found


_asked: dict[Path, str] = {}


@cache
def nvrtc() -> "subprocess.Popen[str]":
    """Start the process in which the real NVRTC compiles."""
    return subprocess.Popen([sys.executable, "-c", NVRTC], stdin=subprocess.PIPE, text=True)


def submit(name: str, source: str, options: tuple[str, ...], verdict: Path) -> None:
    """Hand a source to the real NVRTC, unless it has judged it before; its verdict is a file, empty if all is well."""
    _asked[verdict] = name
    if not verdict.exists():
        words = [option for option in options if option != "-DCUPY_USE_JITIFY"]
        words += [f"-arch=sm_{ARCHITECTURE}", "--device-as-default-execution-space"]
        pipe = nvrtc().stdin
        assert pipe is not None
        pipe.write(json.dumps([source, words, str(verdict)]) + "\n")
        pipe.flush()


def verdicts() -> list[str]:
    """Wait for NVRTC; return the kernels of this process that it refused, each with its reason."""
    if nvrtc.cache_info().currsize:
        nvrtc().communicate()
        nvrtc.cache_clear()
    asked = dict(_asked)
    _asked.clear()
    found = {name: path.read_text() if path.exists() else "no answer" for path, name in asked.items()}
    return [f"NVRTC refused kernel {name}: {log}" for name, log in found.items() if log]
