"""CUDA C++ on the CPU: the kernels' own text, compiled by g++ with a few lines that stand for a GPU.

A thread of a block is a fibre that runs to its next barrier, and a warp exchanges numbers at one, so the order of every
sum is the GPU's. Slow, and only for tests: blocks run one after the other.
"""

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

SHIM = r"""
#include <cmath>
#include <cstddef>
#include <cstring>
#include <functional>
#include <ucontext.h>
#include <vector>
using std::exp; using std::expm1; using std::fabs; using std::isfinite;
using std::log; using std::log1p; using std::sqrt; using std::tanh;
#define __global__
#define __device__ static
#define __shared__ static
struct Index { unsigned int x; };
static Index threadIdx, blockIdx, blockDim, gridDim;

struct Barrier { unsigned int size, arrived = 0, generation = 0; };
static ucontext_t scheduler;
static std::vector<ucontext_t> fibers;
static std::vector<bool> finished;
static std::vector<Barrier> warps;
static Barrier block;
static std::function<void()> body;
static double lanes[32][32];

static void pause_fiber() { const unsigned int t = threadIdx.x; swapcontext(&fibers[t], &scheduler); threadIdx.x = t; }
static void wait(Barrier& barrier) {
  const unsigned int mine = barrier.generation;
  if (++barrier.arrived == barrier.size) { barrier.arrived = 0; ++barrier.generation; }
  while (barrier.generation == mine) pause_fiber();
}
static void run_fiber() { body(); finished[threadIdx.x] = true; }
static void launch(unsigned int blocks, unsigned int threads, std::function<void()> kernel) {
  static std::vector<std::vector<char>> stacks;
  body = kernel; gridDim.x = blocks; blockDim.x = threads;
  while (stacks.size() < threads) stacks.emplace_back(65536);
  for (unsigned int b = 0; b < blocks; ++b) {
    blockIdx.x = b;
    block = Barrier{threads};
    warps.assign(threads / 32, Barrier{32});
    fibers.assign(threads, ucontext_t{});
    finished.assign(threads, false);
    for (unsigned int t = 0; t < threads; ++t) {
      getcontext(&fibers[t]);
      fibers[t].uc_stack.ss_sp = stacks[t].data();
      fibers[t].uc_stack.ss_size = stacks[t].size();
      fibers[t].uc_link = &scheduler;
      makecontext(&fibers[t], run_fiber, 0);
    }
    for (bool busy = true; busy;) {
      busy = false;
      for (unsigned int t = 0; t < threads; ++t)
        if (!finished[t]) { busy = true; threadIdx.x = t; swapcontext(&scheduler, &fibers[t]); }
    }
  }
}

static void __syncthreads() { wait(block); }
static void __threadfence() {}
static unsigned int atomicInc(unsigned int* at, unsigned int most) {
  const unsigned int old = *at;
  *at = old >= most ? 0 : old + 1;
  return old;
}
template <typename V> static V __ldcg(const V* at) { return *at; }
static float __int_as_float(unsigned int bits) { float f; std::memcpy(&f, &bits, 4); return f; }
template <typename V> static V exchange(V value, unsigned int from) {
  const unsigned int warp = threadIdx.x >> 5;
  lanes[warp][threadIdx.x & 31] = value;
  wait(warps[warp]);
  const V other = from < 32 ? V(lanes[warp][from]) : value;
  wait(warps[warp]);
  return other;
}
template <typename V> static V __shfl_down_sync(unsigned int, V v, unsigned int d) {
  return exchange(v, (threadIdx.x & 31) + d);
}
template <typename V> static V __shfl_xor_sync(unsigned int, V v, unsigned int d) {
  return exchange(v, (threadIdx.x & 31) ^ d);
}
"""


@cache
def folder():
    return Path(tempfile.mkdtemp(prefix="xpnet-kernels-"))


@cache
def load(source):
    """Compile C++ and return the library."""
    path = folder() / hashlib.sha256(source.encode()).hexdigest()[:16]
    path.with_suffix(".cpp").write_text(source)
    library, text = path.with_suffix(".so"), path.with_suffix(".cpp")
    command = [GXX, "-std=c++17", "-O1", "-shared", "-fPIC", "-ffp-contract=off", "-w"]
    done = subprocess.run([*command, "-o", str(library), str(text)], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return ctypes.CDLL(str(library))


def kernel(source, name):
    """Return a `__global__` function as `run(blocks, threads, *ctypes)`: `void name(parameters)` in `source`."""
    start = source.index(f"__global__ void {name}(") + len(f"__global__ void {name}(")
    parameters = source[start : source.index(")", start)]
    names = [p.split()[-1].lstrip("*") for p in parameters.split(",")]
    wrapped = f'extern "C" void run_{name}(unsigned int blocks, unsigned int threads, {parameters}) {{'
    wrapped += f" launch(blocks, threads, [=] {{ {name}({', '.join(names)}); }}); }}"
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
