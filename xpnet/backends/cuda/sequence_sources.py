"""CUDA C++ for sequences: attention's weights and norms row by row, GELU, and the sums of an embedding's rows.

No atomics: every sum has one order, so two runs give the same bits. `T` is float or double, `K` the tokens' integers.
"""

from math import pi

from xpnet.backends.cuda.sources import TYPES

LANES, ROOM, AHEAD = 128, 32 * 2**10, 8
"""The threads of a block that adds up rows, the bytes that its sums take, the rows that are read at once."""

WARPS = """
__device__ T larger(T a, T b) { return (a >= b || a != a) ? a : b; }      // NaN wins

__device__ T largest_of_warp(T value) {
  for (int step = 16; step > 0; step >>= 1) value = larger(value, __shfl_xor_sync(0xffffffffu, value, step));
  return value;
}

__device__ T sum_of_warp(T value) {
  for (int step = 16; step > 0; step >>= 1) value += __shfl_xor_sync(0xffffffffu, value, step);
  return value;
}

// A warp for each row, its threads beside each other
#define EACH_ROW(row) \\
  for (long long row = blockIdx.x * (long long)(blockDim.x >> 5) + (threadIdx.x >> 5); row < rows; \\
       row += (long long)gridDim.x * (blockDim.x >> 5))
#define EACH(k, count) for (int k = threadIdx.x & 31; k < count; k += 32)
"""

ATTENTION = """
// p = softmax(scale s) over the keys that a row may read, 0 over the others, in the place of s (rows, keys), and
// kept = p keep, if there is one. A row of the mask serves `each` rows of s; of `queries` rows the first reads key 0
extern "C" __global__ void attend(T* s, const T* keep, const int* mask, long long rows, int keys, int queries,
                                  long long each, int causal, double scale, T* kept) {
  EACH_ROW(row) {
    T* p = s + row * keys;
    const int* open = mask ? mask + row / each * keys : mask;
    const int end = causal ? (int)(row % queries) + 1 : keys;
    T top = -T(__int_as_float(0x7f800000)), total = 0;
    EACH(k, keys) if (k < end && (!open || open[k])) top = larger(top, p[k]);
    top = largest_of_warp(top);
    EACH(k, keys) {
      p[k] = k < end && (!open || open[k]) ? exp((p[k] - top) * T(scale)) : T(0);
      total += p[k];
    }
    total = sum_of_warp(total);
    EACH(k, keys) {
      p[k] = total == T(0) ? T(0) : p[k] / total;                  // 0: there is nothing to read
      if (keep) kept[row * keys + k] = p[k] * keep[row * keys + k];
    }
  }
}

// ds = scale p (dp keep - sum of dp keep p), in the place of dp
extern "C" __global__ void attend_back(T* dp, const T* p, const T* keep, long long rows, int keys, double scale) {
  EACH_ROW(row) {
    T* d = dp + row * keys;
    const T *weights = p + row * keys, *drop = keep ? keep + row * keys : keep;
    T total = 0;
    EACH(k, keys) {
      if (drop) d[k] *= drop[k];
      total += d[k] * weights[k];
    }
    total = sum_of_warp(total);
    EACH(k, keys) d[k] = (d[k] - total) * weights[k] * T(scale);
  }
}
"""

FEATURES = """
// hat = (x - mean) / sqrt(variance + eps) of each row of x (rows, n), y = gamma hat + beta, scale = 1 / sqrt(...)
extern "C" __global__ void features(const T* x, const T* gamma, const T* beta, double eps, long long rows, int n,
                                    T* y, T* hat, T* scale) {
  EACH_ROW(row) {
    const T* from = x + row * n;
    T *to = y + row * n, *d = hat + row * n, mean = 0, rest = 0, squares = 0;
    EACH(k, n) mean += from[k];
    mean = sum_of_warp(mean) / T(n);
    EACH(k, n) {
      d[k] = from[k] - mean;
      rest += d[k];
      squares += d[k] * d[k];
    }
    rest = sum_of_warp(rest) / T(n);
    const T by = T(1) / sqrt(sum_of_warp(squares) / T(n) - rest * rest + T(eps));
    EACH(k, n) {
      d[k] = (d[k] - rest) * by;
      to[k] = d[k] * gamma[k] + beta[k];
    }
    if ((threadIdx.x & 31) == 0) scale[row] = by;
  }
}

// A product that is rounded before anything is added to it. Of a single feature it cancels to 0, as in the plain form;
// fused with the sum it would leave its rounding error, |g| eps / 2, times a scale of 1 / sqrt(epsilon)
__device__ float times(float a, float b) { return __fmul_rn(a, b); }
__device__ double times(double a, double b) { return __dmul_rn(a, b); }

// dx = scale (g - mean of g - hat mean of g hat),  g = dy gamma
extern "C" __global__ void features_back(const T* dy, const T* hat, const T* gamma, const T* scale, long long rows,
                                         int n, T* dx) {
  EACH_ROW(row) {
    const T *g = dy + row * n, *h = hat + row * n;
    T total = 0, along = 0;
    EACH(k, n) {
      total += times(g[k], gamma[k]);
      along += times(g[k], gamma[k]) * h[k];
    }
    total = sum_of_warp(total) / T(n);
    along = sum_of_warp(along) / T(n);
    EACH(k, n) dx[row * n + k] = scale[row] * (times(g[k], gamma[k]) - total - h[k] * along);
  }
}
"""

GELU = {
    False: "const T t = tanh(T({c}) * (near * (T(1) + T({k}) * square))), "
    "d = (T(1) - t * t) * (T({c}) * (T(1) + T(3 * {k}) * square));",
    True: "const T t = erf(near * T({root})), d = T({c}) * exp(T(-0.5) * square);",
}
"""t, which is ±1 far out, and its derivative d, in the tanh form and exactly."""
GELU_OPERATION = """
const T low = x < T(-100) ? T(-100) : x, near = low > T(100) ? T(100) : low, square = near * near;
{t}
y = T(0.5) * low * (T(1) + t);
slope = T(0.5) * (T(1) + t + near * d);
"""

SCATTER = """
// out (parts, count, d): of each part of the rows (m, d) the sums of those whose index is v, in their order. A block
// has TILE sums of a thread's feature; a row is read once for all of its features, and only where it is wanted
extern "C" __global__ void scatter(const T* rows, const K* index, int m, int count, int d, T* out) {
  __shared__ T sums[TILE * LANES];
  __shared__ int hit[LANES];
  const int lanes = blockDim.x, first = blockIdx.x * TILE, feature = blockIdx.y * lanes + threadIdx.x;
  const int part = (m + gridDim.z - 1) / gridDim.z, begin = blockIdx.z * part;
  const int end = begin + part < m ? begin + part : m;
  T* own = sums + threadIdx.x;
  for (int v = 0; v < TILE; ++v) own[v * lanes] = 0;
  for (int start = begin; start < end; start += lanes) {
    const int at = start + threadIdx.x;
    const long long token = at < end ? (long long)index[at] - first : -1;
    __syncthreads();
    hit[threadIdx.x] = token < 0 || token >= TILE ? -1 : (int)token;
    __syncthreads();
    if (feature >= d) continue;
    for (int j = 0; j < lanes; j += AHEAD) {
      T ahead[AHEAD];
      for (int u = 0; u < AHEAD; ++u) {
        if (hit[j + u] >= 0) ahead[u] = rows[(long long)(start + j + u) * d + feature];
      }
      for (int u = 0; u < AHEAD; ++u) {
        if (hit[j + u] >= 0) own[hit[j + u] * lanes] += ahead[u];
      }
    }
  }
  if (feature >= d) return;
  for (int v = 0; v < TILE && first + v < count; ++v)
    out[((long long)blockIdx.z * count + first + v) * d + feature] = own[v * lanes];
}
"""


def tile(itemsize: int) -> int:
    """Return the tokens of a block: as many as its room holds sums of every thread."""
    return ROOM // (LANES * itemsize)


def attention(dtype: str) -> str:
    """Return the source of attention's weights and their gradients."""
    return f"typedef {TYPES[dtype]} T;\n{WARPS}{ATTENTION}"


def features(dtype: str) -> str:
    """Return the source of the norm over features and its pullback."""
    return f"typedef {TYPES[dtype]} T;\n{WARPS}{FEATURES}"


def gelu(exact: bool) -> str:
    """Return GELU and its derivative as an elementwise operation."""
    c, k, root = (2.0 / pi) ** 0.5, 0.044715, 0.5**0.5
    return GELU_OPERATION.format(t=GELU[exact].format(c=c, k=k, root=root))


def scatter(dtype: str, index: str) -> str:
    """Return the source of the sums of rows."""
    numbers = {"TILE": tile(4 if dtype == "float32" else 8), "LANES": LANES, "AHEAD": AHEAD}
    head = "".join(f"#define {name} {number}\n" for name, number in numbers.items())
    return f"typedef {TYPES[dtype]} T;\ntypedef {TYPES[index]} K;\n{head}{SCATTER}"
