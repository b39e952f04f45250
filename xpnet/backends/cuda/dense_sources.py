"""CUDA C++ for linear layers: products too small for a library, and ReLU's derivative with the bias gradient.

Sums have one order: of a product's depth, then of its halves, then of its parts; of a column, down its rows.
"""

from xpnet.backends.cuda.sources import LAST, TYPES

SMALL_PRODUCT = """
// D = factor A B;  + bias;  max(D, 0);  0 where y is not greater;  sums[j] = sum_k B[k][j], as if A had a row of ones.
// A (m, k) and B (k, n) may lie any way; the rest lie row by row. A block makes a tile, or a share of its sum over k.
struct Job {
  const T* a; int a_row, a_column;
  const T* b; int b_row, b_column;
  int m, n, k, share;
  T factor; T* d; const T* bias; bool relu; const T* y; T* sums;
};

const int TILE = 32, DEPTH = 128, PAD = 4;

__device__ int tiles(const Job& job) {
  return (job.m + (job.sums != 0) + TILE - 1) / TILE * ((job.n + TILE - 1) / TILE);
}
__device__ int parts(const Job& job) { return (job.k + job.share - 1) / job.share; }

// The line (row of A, column of B) and the depth of the number that a thread copies as its q-th: neighbours in memory
// by neighbouring threads.
__device__ int line_of(int q, bool deep) { return deep ? (threadIdx.x >> 3 & 3) + 4 * (q >> 1) : threadIdx.x & 31; }
__device__ int depth_of(int q, bool deep) {
  return deep ? (threadIdx.x & 7) + 8 * (threadIdx.x >> 5) + 64 * (q & 1) : (threadIdx.x >> 5) + 8 * q;
}
__device__ void fetch(const T* from, int across, int down, int lines, int depth, int ones, T* held) {
#pragma unroll
  for (int q = 0; q < TILE * DEPTH / 256; q++) {
    const int l = line_of(q, down == 1), d = depth_of(q, down == 1);
    held[q] = d >= depth ? T(0) : l < lines ? from[l * across + d * down] : l == ones ? T(1) : T(0);
  }
}
__device__ void put(const T* held, bool deep, T* tile) {
#pragma unroll
  for (int q = 0; q < TILE * DEPTH / 256; q++) tile[depth_of(q, deep) * (TILE + PAD) + line_of(q, deep)] = held[q];
}

// By 256 threads: each half of them sums half of the depth, a thread 4 by 2 numbers.
__device__ void product(const Job& job, int block, T* partial, unsigned int* tickets) {
  __shared__ __align__(16) T A[DEPTH * (TILE + PAD)];
  __shared__ __align__(16) T B[DEPTH * (TILE + PAD)];
  const int half = threadIdx.x >> 7, place = threadIdx.x & 127, count = parts(job), tile = block % tiles(job);
  const int part = block / tiles(job), across = (job.n + TILE - 1) / TILE;
  const int row = tile / across * TILE, column = tile % across * TILE, end = min((part + 1) * job.share, job.k);
  const int to = row + 4 * (place >> 4), at = column + 2 * (place & 15), ones = job.sums ? job.m - row : -1;
  T of_a[TILE * DEPTH / 256], of_b[TILE * DEPTH / 256], bias[2], on[8], sum[8];
#pragma unroll
  for (int q = 0; q < 8; q++) {                          // number q of a thread is in row q / 2, column q % 2
    const bool inside = to + q / 2 < job.m && at + q % 2 < job.n;
    sum[q] = 0;
    on[q] = job.y && inside ? job.y[(to + q / 2) * job.n + at + q % 2] : T(1);
    if (q < 2) bias[q] = job.bias && at + q < job.n ? job.bias[at + q] : T(0);
  }
  for (int from = part * job.share; from < end; from += DEPTH) {
    const int depth = min(end - from, DEPTH), middle = (depth + 1) / 2, last = half ? depth : middle;
    const T *a = job.a + row * job.a_row + from * job.a_column, *b = job.b + from * job.b_row + column * job.b_column;
    fetch(a, job.a_row, job.a_column, job.m - row, depth, ones, of_a);
    fetch(b, job.b_column, job.b_row, job.n - column, depth, -1, of_b);
    __syncthreads();                                     // nobody reads the tiles before any more
    put(of_a, job.a_column == 1, A);
    put(of_b, job.b_row == 1, B);
    __syncthreads();
#pragma unroll 8
    for (int k = half * middle; k < last; k++) {
      const float4 x = *(const float4*)(A + k * (TILE + PAD) + to - row);
      const float2 w = *(const float2*)(B + k * (TILE + PAD) + at - column);
      sum[0] += x.x * w.x; sum[2] += x.y * w.x; sum[4] += x.z * w.x; sum[6] += x.w * w.x;
      sum[1] += x.x * w.y; sum[3] += x.y * w.y; sum[5] += x.z * w.y; sum[7] += x.w * w.y;
    }
  }
  __syncthreads();
  for (int q = 0; half && q < 8; q++) A[q * 128 + place] = sum[q];
  __syncthreads();
  for (int q = 0; !half && q < 8; q++) sum[q] += A[q * 128 + place];
  if (count > 1) {                                       // the last block of a tile adds up its parts
    T* own = partial + tile * count * TILE * TILE + place;
    for (int q = 0; !half && q < 8; q++) own[part * TILE * TILE + q * 128] = sum[q];
    __syncthreads();
    if (!is_last(tickets + tile, count)) return;
    for (int q = 0; q < 8; q++) sum[q] = 0;
#pragma unroll 4
    for (int k = 0; k < (half ? 0 : count); k++)
#pragma unroll
      for (int q = 0; q < 8; q++) sum[q] += __ldcg(own + k * TILE * TILE + q * 128);
  }
#pragma unroll
  for (int q = 0; q < 8; q++) {
    const int i = to + q / 2, j = at + q % 2;
    if (half || j >= job.n) continue;
    if (i == job.m && job.sums) job.sums[j] = sum[q];
    if (i >= job.m) continue;
    const T s = job.factor * sum[q] + bias[q % 2];
    job.d[i * job.n + j] = (job.relu && s < 0 ? T(0) : s) * (on[q] > 0 ? T(1) : T(0));
  }
}

extern "C" __global__ void small_product(const T* a, int a_row, int a_column, const T* b, int b_row, int b_column,
                                         int m, int n, int k, int share, T factor, T* d, const T* bias, int relu,
                                         T* sums, T* partial, unsigned int* tickets) {
  const Job job = {a, a_row, a_column, b, b_row, b_column, m, n, k, share, factor, d, bias, relu != 0, 0, sums};
  product(job, blockIdx.x, partial, tickets);
}

// A layer's gradients from ds (n, o), where x (n, i) came in:  dw = x' ds,  db = sum of ds,  dx = ds w' where y > 0
extern "C" __global__ void small_back(const T* x, const T* ds, const T* w, const T* y, int n, int i, int o, int share,
                                      T* dw, T* db, T* dx, T* partial, unsigned int* tickets) {
  const int blocks = (i + TILE) / TILE * ((o + TILE - 1) / TILE) * ((n + share - 1) / share), block = blockIdx.x;
  const bool of_w = block < blocks;
  const Job job = {of_w ? x : ds, of_w ? 1 : o, of_w ? i : 1, of_w ? ds : w, of_w ? o : 1, of_w ? 1 : o, of_w ? i : n,
                   of_w ? o : i, of_w ? n : o, of_w ? share : o, 1, of_w ? dw : dx, 0, false, of_w ? 0 : y,
                   of_w ? db : 0};
  product(job, of_w ? block : block - blocks, partial, tickets);
}
"""

RELU_BACK = """
// d = d where y > 0, else 0;  sums[j] = sum_i d[i][j].  A block has 32 columns and a share of the rows.
extern "C" __global__ void relu_back(const T* y, T* d, long long rows, int columns, long long share, T* sums,
                                     T* partial, unsigned int* tickets) {
  __shared__ T of_warp[8][32];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, j = blockIdx.x * 32 + lane;
  const long long first = blockIdx.y * share, end = min(first + share, rows);
  T sum = 0;
#pragma unroll 8
  for (long long i = first + warp; i < (j < columns ? end : 0); i += 8) {
    const long long at = i * columns + j;
    const T v = d[at] * (y[at] > 0 ? T(1) : T(0));
    d[at] = v;
    sum += v;
  }
  of_warp[warp][lane] = sum;
  __syncthreads();
  if (warp == 0 && j < columns) {
    for (int k = 1; k < 8; k++) sum += of_warp[k][lane];
    partial[blockIdx.y * (long long)columns + j] = sum;
  }
  __syncthreads();
  if (!is_last(tickets + blockIdx.x, gridDim.y) || warp || j >= columns) return;
  sum = 0;
#pragma unroll 8
  for (int k = 0; k < gridDim.y; k++) sum += __ldcg(partial + k * (long long)columns + j);
  sums[j] = sum;
}
"""


def small_products() -> str:
    """Return the source of `small_product` and `small_back`, in float32."""
    return f"typedef float T;\n{LAST}{SMALL_PRODUCT}"


def relu_back(dtype: str) -> str:
    """Return the source of `relu_back` in one precision."""
    return f"typedef {TYPES[dtype]} T;\n{LAST}{RELU_BACK}"
