// A GPU's threads for the host's compiler: CUDA C++ that is compiled after this header runs on the CPU.
//
// Blocks run one after the other. Where a kernel has barriers (BARRIERS is defined), each thread of a block is a fibre
// that runs to its next barrier, and a warp exchanges numbers at one, so the order of every sum is the GPU's; where it
// has none, a thread is one turn of a loop. A GPU promises no order of blocks: STANDIN_BLOCKS=backwards turns it round,
// and with a number it is drawn by lot, the number being the seed.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>
#ifndef __x86_64__
#include <ucontext.h>
#endif

#define __global__
#define __device__ static
#define __shared__ static

struct Index3 {
  unsigned int x, y, z;
};
static Index3 threadIdx, blockIdx, blockDim, gridDim;

namespace gpu {
static unsigned int now;  // the thread that runs, counted through the block

static unsigned int threads() { return blockDim.x * blockDim.y * blockDim.z; }

static void be(unsigned int thread) {
  now = thread;
  threadIdx = {thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / blockDim.x / blockDim.y};
}

static std::function<void()> body;

#ifdef BARRIERS
const size_t STACK = 64 << 10;
const unsigned int WARP = 32;

struct Barrier {
  unsigned int size, arrived = 0, generation = 0;
};

static void fibre_main();

#ifdef __x86_64__
using Place = void*;  // where a fibre stopped: its stack pointer, under it the registers that a call must keep

__attribute__((naked, noinline)) static void go(Place* from, Place to) {
  asm volatile(
      "pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
      "movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
      "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret");
}

static void begin(Place& place, std::vector<char>& stack) {
  auto top = reinterpret_cast<uintptr_t>(stack.data() + stack.size()) / 16 * 16;
  auto* words = reinterpret_cast<void**>(top);
  *--words = nullptr;
  *--words = reinterpret_cast<void*>(fibre_main);
  for (int k = 0; k < 6; ++k) *--words = nullptr;
  place = words;
}
#else
using Place = ucontext_t;

static void go(Place* from, Place& to) { swapcontext(from, &to); }

static void begin(Place& place, std::vector<char>& stack) {
  getcontext(&place);
  place.uc_stack.ss_sp = stack.data();
  place.uc_stack.ss_size = stack.size();
  makecontext(&place, fibre_main, 0);
}
#endif

static Place scheduler;
static std::vector<Place> fibres;
static std::vector<bool> finished;
static std::vector<Barrier> warps;
static Barrier block;
static double lanes[1024];

static void fibre_main() {
  body();
  finished[now] = true;
  const unsigned int mine = now;
  go(&fibres[mine], scheduler);
}

static void pause() {
  const unsigned int mine = now;
  go(&fibres[mine], scheduler);
  be(mine);
}

static void wait(Barrier& barrier) {
  const unsigned int mine = barrier.generation;
  if (++barrier.arrived == barrier.size) {
    barrier.arrived = 0;
    ++barrier.generation;
  }
  while (barrier.generation == mine) pause();
}

template <typename V>
static V exchange(V value, unsigned int from) {  // what the thread `from` of this warp has
  static_assert(sizeof(V) <= sizeof(double), "a warp exchanges eight bytes at most");
  const unsigned int warp = now / WARP;
  std::memcpy(&lanes[now], &value, sizeof value);
  wait(warps[warp]);
  if (from < warps[warp].size) std::memcpy(&value, &lanes[warp * WARP + from], sizeof value);
  wait(warps[warp]);
  return value;
}

static void run_block() {
  static std::vector<std::vector<char>> stacks;
  const unsigned int count = threads();
  while (stacks.size() < count) stacks.emplace_back(STACK);
  fibres.resize(count);
  finished.assign(count, false);
  block = {count};
  warps.clear();
  for (unsigned int first = 0; first < count; first += WARP)
    warps.push_back({count - first < WARP ? count - first : WARP});
  for (unsigned int thread = 0; thread < count; ++thread) begin(fibres[thread], stacks[thread]);
  for (bool busy = true; busy;) {
    busy = false;
    for (unsigned int thread = 0; thread < count; ++thread)
      if (!finished[thread]) {
        busy = true;
        be(thread);
        go(&scheduler, fibres[thread]);
      }
  }
}
#else
static void run_block() {
  for (unsigned int thread = 0; thread < threads(); ++thread) {
    be(thread);
    body();
  }
}
#endif

static std::vector<size_t> order_of(size_t count) {
  std::vector<size_t> order(count);
  for (size_t k = 0; k < count; ++k) order[k] = k;
  const char* how = std::getenv("STANDIN_BLOCKS");
  if (how && !std::strcmp(how, "backwards"))
    std::reverse(order.begin(), order.end());
  else if (how) {
    uint64_t lot = std::strtoull(how, nullptr, 10);
    for (size_t k = count; k > 1; --k) {
      lot = lot * 6364136223846793005 + 1442695040888963407;
      std::swap(order[k - 1], order[(lot >> 33) % k]);
    }
  }
  return order;
}

static void launch(Index3 grid, Index3 block_size, std::function<void()> kernel) {
  gridDim = grid;
  blockDim = block_size;
  body = std::move(kernel);
  for (const size_t k : order_of(size_t(grid.x) * grid.y * grid.z)) {
    blockIdx = {unsigned(k % grid.x), unsigned(k / grid.x % grid.y), unsigned(k / grid.x / grid.y)};
    run_block();
  }
}
}  // namespace gpu

#ifdef BARRIERS
static inline void __syncthreads() { gpu::wait(gpu::block); }
static inline void __syncwarp(unsigned int = ~0u) { gpu::wait(gpu::warps[gpu::now / gpu::WARP]); }
template <typename V>
static V __shfl_sync(unsigned int, V value, unsigned int from, int = 32) {
  return gpu::exchange(value, from);
}
template <typename V>
static V __shfl_down_sync(unsigned int, V value, unsigned int by, int = 32) {
  return gpu::exchange(value, gpu::now % gpu::WARP + by);
}
template <typename V>
static V __shfl_xor_sync(unsigned int, V value, unsigned int with, int = 32) {
  return gpu::exchange(value, (gpu::now % gpu::WARP) ^ with);
}
#endif

static inline float __fmul_rn(float a, float b) { return a * b; }    // nothing is fused here
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline void __threadfence() {}
template <typename V>
static V __ldcg(const V* at) {
  return *at;
}
static inline unsigned int atomicInc(unsigned int* at, unsigned int most) {
  const unsigned int old = *at;
  *at = old >= most ? 0 : old + 1;
  return old;
}
static inline float __int_as_float(unsigned int bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

using std::exp;
using std::expm1;
using std::fabs;
using std::isfinite;
using std::log;
using std::log1p;
using std::sqrt;
using std::tanh;
