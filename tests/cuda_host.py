"""CUDA C++ on the CPU: the kernels' own text, compiled by g++ with a few lines that stand for a GPU.

A thread of a block is a thread of the operating system, and a warp exchanges numbers at a barrier, so the order of
every sum is the GPU's. Slow, and only for tests: blocks run one after the other.
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
#include <atomic>
#include <barrier>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>
using std::exp; using std::expm1; using std::fabs; using std::isfinite; using std::log; using std::log1p; using std::sqrt;
using std::tanh;
#define __global__
#define __device__ static
#define __shared__ static
struct Index { unsigned int x; };
static thread_local Index threadIdx, blockIdx;
static Index blockDim, gridDim;
static std::unique_ptr<std::barrier<>> block_barrier;
static std::vector<std::unique_ptr<std::barrier<>>> warp_barriers;
static double lanes[32][32];
static std::mutex counting;
static void __syncthreads() { block_barrier->arrive_and_wait(); }
static void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
static unsigned int atomicInc(unsigned int* at, unsigned int most) {
  std::lock_guard<std::mutex> hold(counting);
  const unsigned int old = *at;
  *at = old >= most ? 0 : old + 1;
  return old;
}
template <typename V> static V __ldcg(const V* at) { return *at; }
static float __int_as_float(unsigned int bits) { float f; std::memcpy(&f, &bits, 4); return f; }
template <typename V> static V exchange(V value, unsigned int from) {
  const unsigned int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  lanes[warp][lane] = value;
  warp_barriers[warp]->arrive_and_wait();
  const V other = from < 32 ? V(lanes[warp][from]) : value;
  warp_barriers[warp]->arrive_and_wait();
  return other;
}
template <typename V> static V __shfl_down_sync(unsigned int, V v, unsigned int d) {
  return exchange(v, (threadIdx.x & 31) + d);
}
template <typename V> static V __shfl_xor_sync(unsigned int, V v, unsigned int d) {
  return exchange(v, (threadIdx.x & 31) ^ d);
}
template <typename F> static void launch(unsigned int blocks, unsigned int threads, F kernel) {
  gridDim.x = blocks; blockDim.x = threads;
  for (unsigned int block = 0; block < blocks; ++block) {
    block_barrier = std::make_unique<std::barrier<>>(threads);
    warp_barriers.clear();
    for (unsigned int w = 0; w < threads / 32; ++w) warp_barriers.push_back(std::make_unique<std::barrier<>>(32));
    std::vector<std::thread> all;
    for (unsigned int t = 0; t < threads; ++t)
      all.emplace_back([=] { threadIdx.x = t; blockIdx.x = block; kernel(); });
    for (auto& one : all) one.join();
  }
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
    command = [GXX, "-std=c++20", "-O1", "-shared", "-fPIC", "-pthread", "-ffp-contract=off", "-w"]
    done = subprocess.run([*command, "-o", str(library), str(text)], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return ctypes.CDLL(str(library))


def kernel(source, name):
    """Return a `__global__` function as `run(blocks, threads, *ctypes)`: `void name(parameters)` in `source`."""
    start = source.index(f"__global__ void {name}(") + len(f"__global__ void {name}(")
    parameters = source[start : source.index(")", start)]
    names = [p.split()[-1].lstrip("*") for p in parameters.split(",")]
    wrapped = f"extern \"C\" void run_{name}(unsigned int blocks, unsigned int threads, {parameters}) {{"
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
