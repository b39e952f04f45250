"""CUDA C++ for what is not elementwise: sums in a fixed order, so that two runs give the same bits.

No floating-point atomics. Blocks write partial sums; a ticket (an integer counter that wraps to 0 by itself) tells the
last block that it is the last, and it adds them up in order. `T` is float or double.
"""

TYPES = {"float32": "float", "float64": "double", "bool": "bool", "uint8": "unsigned char", "int32": "int"}
TYPES |= {"int64": "long long"}
"""C++ for the dtypes that kernels take."""

LAST = """
// Whether a block is the last of `count` that ask for a ticket, after all its threads wrote its partial sums
__device__ bool is_last(unsigned int* ticket, unsigned int count) {
  __shared__ bool last;
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicInc(ticket, count - 1) == count - 1;
    __threadfence();
  }
  __syncthreads();
  return last;
}
"""

REDUCE = """
__device__ T sum_of_block(T value) {                     // the sum over the threads of a block, in thread 0
  __shared__ T of_warp[32];
  for (int step = 16; step > 0; step >>= 1) value += __shfl_down_sync(0xffffffffu, value, step);
  if ((threadIdx.x & 31) == 0) of_warp[threadIdx.x >> 5] = value;
  __syncthreads();
  value = threadIdx.x < (blockDim.x >> 5) ? of_warp[threadIdx.x] : T(0);
  if (threadIdx.x < 32)
    for (int step = 16; step > 0; step >>= 1) value += __shfl_down_sync(0xffffffffu, value, step);
  __syncthreads();
  return value;
}

__device__ T total_of(const T* partial) {                // by the last block, in thread 0
  T sum = 0;
  for (unsigned int k = threadIdx.x; k < gridDim.x; k += blockDim.x) sum += __ldcg(partial + k);
  return sum_of_block(sum);
}
"""

MEASURE = """
// norm = sqrt(sum of g squared);  alive = before, and norm and loss (if there is one) are finite
extern "C" __global__ void measure(const T* g, long long n, const bool* before, const T* loss, T* partial,
                                   unsigned int* ticket, T* norm, bool* alive) {
  T sum = 0;
  for (long long k = blockIdx.x * (long long)blockDim.x + threadIdx.x; k < n; k += (long long)gridDim.x * blockDim.x)
    sum += g[k] * g[k];
  sum = sum_of_block(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
  if (!is_last(ticket, gridDim.x)) return;
  sum = total_of(partial);
  if (threadIdx.x == 0) {
    norm[0] = sqrt(sum);
    alive[0] = before[0] && isfinite(norm[0]) && (!loss || isfinite(loss[0]));
  }
}
"""

CROSS_ENTROPY = """
__device__ T larger(T a, T b) { return (a >= b || a != a) ? a : b; }      // NaN wins

// A warp for each row of scores (n, c): gradient = (softmax - onehot) scale, value = -scale sum log softmax[label]
extern "C" __global__ void cross_entropy(const T* scores, const L* labels, long long n, int c, double scale,
                                         T* gradient, T* partial, unsigned int* ticket, T* value) {
  const int lane = threadIdx.x & 31, warps = blockDim.x >> 5;
  T loss = 0;
  const long long first = blockIdx.x * (long long)warps + (threadIdx.x >> 5), stride = (long long)gridDim.x * warps;
  for (long long row = first; row < n; row += stride) {
    const T* s = scores + row * c;
    T* d = gradient + row * c;
    const long long label = labels[row];
    T top = -T(__int_as_float(0x7f800000)), total = 0;
    for (int k = lane; k < c; k += 32) top = larger(top, s[k]);
    for (int step = 16; step > 0; step >>= 1) top = larger(top, __shfl_xor_sync(0xffffffffu, top, step));
    for (int k = lane; k < c; k += 32) {
      const T e = exp(s[k] == top ? T(0) : s[k] - top);          // an infinite maximum takes all: the limit
      d[k] = e;
      total += e;
    }
    for (int step = 16; step > 0; step >>= 1) total += __shfl_xor_sync(0xffffffffu, total, step);
    for (int k = lane; k < c; k += 32) d[k] = (d[k] / total - (k == label ? T(1) : T(0))) * T(scale);
    if (lane == 0) {
      if (label < 0 || label >= c) loss = T(__int_as_float(0x7fffffff));   // no such class: the loss is NaN
      else loss += (s[label] == top ? T(0) : s[label] - top) - log(total);
    }
  }
  loss = sum_of_block(loss);
  if (threadIdx.x == 0) partial[blockIdx.x] = loss;
  if (!is_last(ticket, gridDim.x)) return;
  loss = total_of(partial);
  if (threadIdx.x == 0) value[0] = loss * T(-scale);
}
"""

GATHER = """
// x[r] = T(inputs[index[r]]),  y[r] = targets[index[r]]:  one batch of rows, `width` and `depth` numbers each.
// The data lie where the arguments say, or, if they are lent to a graph, where it is written at that place.
// A block has one row, or a part of it: 4 numbers a thread.
extern "C" __global__ void gather(const void* data_x, const void* data_y, int lent, const int* index, long long width,
                                  long long depth, T* x, Y* y) {
  const long long row = blockIdx.x, from = index[row];
  const X* inputs = (lent ? *(const X* const*)data_x : (const X*)data_x) + from * width;
  const Y* targets = (lent ? *(const Y* const*)data_y : (const Y*)data_y) + from * depth;
#pragma unroll
  for (int q = 0; q < 4; q++) {
    const long long k = (blockIdx.y * 4LL + q) * blockDim.x + threadIdx.x;
    if (k < width) x[row * width + k] = T(inputs[k]);
    if (k < depth) y[row * depth + k] = targets[k];
  }
}
"""

MASK_OPERATION = """
unsigned int word = (unsigned int)(i + first) ^ (unsigned int)(key[0] ^ stream);   // lowbias32, as in xpnet.random
word ^= word >> 16;  word *= 0x7feb352du;
word ^= word >> 15;  word *= 0x846ca68bu;
word ^= word >> 16;
dropped = (int)word < threshold;
"""
"""An elementwise operation: is element number i dropped?"""


def reductions(dtype: str, labels: str = "int32") -> str:
    """Return the source of `measure` and `cross_entropy` in one precision, the labels of one type."""
    return f"typedef {TYPES[dtype]} T;\ntypedef {TYPES[labels]} L;\n{LAST}{REDUCE}{MEASURE}{CROSS_ENTROPY}"


def gather(dtype: str, inputs: str, targets: str) -> str:
    """Return the source of `gather` for data of these dtypes, the inputs to be made `dtype`."""
    return f"typedef {TYPES[dtype]} T;\ntypedef {TYPES[inputs]} X;\ntypedef {TYPES[targets]} Y;\n{GATHER}"
