"""CUDA C++ for sequences: attention's weights row by row, and the sums of an embedding's rows.

No atomics: every sum has one order, so two runs give the same bits. `T` is float or double, `K` the tokens' integers.
"""

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
#define EACH_KEY(k) for (int k = threadIdx.x & 31; k < keys; k += 32)
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
    EACH_KEY(k) if (k < end && (!open || open[k])) top = larger(top, p[k]);
    top = largest_of_warp(top);
    EACH_KEY(k) {
      p[k] = k < end && (!open || open[k]) ? exp((p[k] - top) * T(scale)) : T(0);
      total += p[k];
    }
    total = sum_of_warp(total);
    EACH_KEY(k) {
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
    EACH_KEY(k) {
      if (drop) d[k] *= drop[k];
      total += d[k] * weights[k];
    }
    total = sum_of_warp(total);
    EACH_KEY(k) d[k] = (d[k] - total) * weights[k] * T(scale);
  }
}
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


def scatter(dtype: str, index: str) -> str:
    """Return the source of the sums of rows."""
    numbers = {"TILE": tile(4 if dtype == "float32" else 8), "LANES": LANES, "AHEAD": AHEAD}
    head = "".join(f"#define {name} {number}\n" for name, number in numbers.items())
    return f"typedef {TYPES[dtype]} T;\ntypedef {TYPES[index]} K;\n{head}{SCATTER}"
