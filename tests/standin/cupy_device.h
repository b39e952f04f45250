// What CuPy's own kernels need beyond block.h: more of CUDA's built-in functions, and a way to call a kernel.
#pragma once
#include <cuda_runtime_api.h>
#include <device_launch_parameters.h>

#include <limits>
#include <type_traits>

// NVIDIA's own declarations of these are for its own compiler.
#undef __global__
#undef __device__
#undef __host__
#undef __constant__
#undef __shared__
#undef __forceinline__
#undef __noinline__
#undef __launch_bounds__
#define threadIdx standin_threadIdx
#define blockIdx standin_blockIdx
#define blockDim standin_blockDim
#define gridDim standin_gridDim
#define warpSize 32

#include "block.h"

#undef __device__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)

using std::abs; using std::acos; using std::acosh; using std::asin; using std::asinh; using std::atan;
using std::atan2; using std::atanh; using std::cbrt; using std::ceil; using std::copysign; using std::cos;
using std::cosh; using std::exp2; using std::floor; using std::fmax; using std::fmin; using std::fmod;
using std::frexp; using std::hypot; using std::isinf; using std::isnan; using std::ldexp; using std::log10;
using std::log2; using std::modf; using std::nextafter; using std::pow; using std::rint; using std::signbit;
using std::sin; using std::sinh; using std::tan; using std::trunc;

template <typename A, typename B>
static inline auto max(A a, B b) { return a > b ? a : b; }
template <typename A, typename B>
static inline auto min(A a, B b) { return a < b ? a : b; }

template <typename To, typename From>
static inline To same_bits(From value) {
  static_assert(sizeof(To) == sizeof(From), "the same bits need the same size");
  To bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
static inline int __float_as_int(float value) { return same_bits<int>(value); }
static inline unsigned int __float_as_uint(float value) { return same_bits<unsigned int>(value); }
static inline float __uint_as_float(unsigned int bits) { return same_bits<float>(bits); }
static inline double __longlong_as_double(long long bits) { return same_bits<double>(bits); }
static inline long long __double_as_longlong(double value) { return same_bits<long long>(value); }

static inline unsigned int __umulhi(unsigned int a, unsigned int b) { return (unsigned long long)a * b >> 32; }
static inline int __clz(int value) { return value ? __builtin_clz(value) : 32; }
static inline int __clzll(long long value) { return value ? __builtin_clzll(value) : 64; }
static inline int __popc(unsigned int value) { return __builtin_popcount(value); }
static inline int __popcll(unsigned long long value) { return __builtin_popcountll(value); }
static inline int __ffs(int value) { return __builtin_ffs(value); }
static inline float rsqrt(float value) { return 1 / std::sqrt(value); }
static inline double rsqrt(double value) { return 1 / std::sqrt(value); }

// IEEE 754 half precision, to the nearest, ties to even
static inline unsigned short __float2half_rn(float value) {
  const unsigned int bits = same_bits<unsigned int>(value), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
  if (size > 0x7f800000) return sign | 0x7e00;                        // NaN
  if (size >= 0x477ff000) return sign | 0x7c00;                       // 65520 and more: infinity
  if (size < 0x38800000) return sign | (unsigned int)std::rint(std::fabs(value) * 0x1p24f);  // below the normal ones
  return sign | (size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13;
}
static inline float __half2float(unsigned short bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  const float infinite = mantissa ? NAN : INFINITY;
  const float size = exponent == 31 ? infinite
                                    : std::ldexp(float(exponent ? mantissa + 1024 : mantissa), (exponent ? exponent : 1) - 25);
  return bits & 0x8000 ? -size : size;
}
template <typename Half>
static inline unsigned short __half_as_ushort(const Half& value) { return same_bits<unsigned short>(value); }
struct half;
half __ushort_as_half(unsigned short bits);

template <typename A, typename Change>
static inline A change_at(A* at, Change change) {  // one thread at a time: every change is atomic
  const A old = *at;
  *at = change(old);
  return old;
}
template <typename A, typename B>
static inline A atomicAdd(A* at, B by) { return change_at(at, [=](A old) { return A(old + A(by)); }); }
template <typename A, typename B>
static inline A atomicSub(A* at, B by) { return change_at(at, [=](A old) { return A(old - A(by)); }); }
template <typename A, typename B>
static inline A atomicMax(A* at, B with) { return change_at(at, [=](A old) { return old > A(with) ? old : A(with); }); }
template <typename A, typename B>
static inline A atomicMin(A* at, B with) { return change_at(at, [=](A old) { return old < A(with) ? old : A(with); }); }
template <typename A, typename B>
static inline A atomicExch(A* at, B value) { return change_at(at, [=](A) { return A(value); }); }
template <typename A, typename B>
static inline A atomicOr(A* at, B with) { return change_at(at, [=](A old) { return A(old | A(with)); }); }
template <typename A, typename B>
static inline A atomicAnd(A* at, B with) { return change_at(at, [=](A old) { return A(old & A(with)); }); }
template <typename A, typename B>
static inline A atomicXor(A* at, B with) { return change_at(at, [=](A old) { return A(old ^ A(with)); }); }
template <typename A, typename B, typename C>
static inline A atomicCAS(A* at, B expected, C value) {
  return change_at(at, [=](A old) { return old == A(expected) ? A(value) : old; });
}

namespace gpu {
template <typename... A, size_t... I>
static void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>, Index3 grid, Index3 block) {
  launch(grid, block, [=] { kernel(*static_cast<std::remove_const_t<A>*>(arguments[I])...); });
}
template <typename... A>
static void run(void (*kernel)(A...), void** arguments, const unsigned* grid, const unsigned* block) {
  const Index3 of_blocks{grid[0], grid[1], grid[2]}, of_threads{block[0], block[1], block[2]};
  call(kernel, arguments, std::index_sequence_for<A...>{}, of_blocks, of_threads);
}
template <typename... A>
struct Sizes {
  static constexpr int table[] = {int(sizeof...(A)), int(sizeof(A))...};
};
template <typename... A>
static const int* sizes(void (*)(A...)) {
  return Sizes<A...>::table;
}
}  // namespace gpu

// Make a kernel findable for the driver.
#define STANDIN_KERNEL(name)                                                                             \
  extern "C" void standin_run_##name(void** a, const unsigned* g, const unsigned* b, unsigned) {         \
    gpu::run(name, a, g, b);                                                                             \
  }                                                                                                      \
  extern "C" {                                                                                           \
  extern const int* standin_sizes_##name;                                                                \
  const int* standin_sizes_##name = gpu::sizes(name);                                                    \
  }
