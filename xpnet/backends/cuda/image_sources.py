"""CUDA C++ for images (N, H, W, C): patches and their adjoint, pools, convolutions of few channels, sums of columns.

What goes back is gathered: a thread a pixel, which adds up what has read it, tap by tap, as the plain form does. There
are no atomics, so two runs give the same bits. `T` is float or double, `I` counts elements: int, or long long where
there are many (a division by 64 bits takes longer than the memory).
"""

from xpnet.backends.cuda.sources import TYPES

GRID = "int h, int w, int c, int ho, int wo, int kh, int kw, int s, int t, int p, int q, int d, int e"
"""Sizes of the images and of what is read from them, the kernel, stride, padding before, dilation."""

GEOMETRY = """
struct Grid { int h, w, c, ho, wo, kh, kw, s, t, p, q, d, e; };

// Where tap (i, j) of output m reads the first channel; -1 in the padding
__device__ I place(const Grid& g, I m, int i, int j) {
  const int y = m / g.wo % g.ho * g.s + i * g.d - g.p, x = m % g.wo * g.t + j * g.e - g.q;
  return y < 0 || y >= g.h || x < 0 || x >= g.w ? -1 : ((m / g.wo / g.ho * g.h + y) * g.w + x) * g.c;
}
"""

TURNS = """
#define EACH(k) for (I k = blockIdx.x * (I)blockDim.x + threadIdx.x; k < all; k += (I)gridDim.x * blockDim.x)

// The sum of value(m, tap) over the outputs m and taps that read a pixel, a row of the kernel after the other
template <class Value> __device__ T gathered(const Grid& g, I pixel, Value value) {
  const int x = pixel % g.w, y = pixel / g.w % g.h;
  const I image = pixel / g.w / g.h;
  T total = 0;
  for (int i = 0; i < g.kh; ++i) {
    const int down = y + g.p - i * g.d;
    if (down < 0 || down % g.s || down / g.s >= g.ho) continue;
    T line = 0;
    for (int j = 0; j < g.kw; ++j) {
      const int along = x + g.q - j * g.e;
      if (along < 0 || along % g.t || along / g.t >= g.wo) continue;
      line += value((image * g.ho + down / g.s) * g.wo + along / g.t, i * g.kw + j);
    }
    total += line;
  }
  return total;
}
"""

PATCHES = """
// out (groups, M, K L C / groups): what each of the M outputs reads
extern "C" __global__ void patches(const T* x, I all, int groups, GRID, T* out) {
  const Grid g = {HERE};
  const int own = c / groups, taps = kh * kw;
  const I rows = all / taps / c;
  EACH(k) {
    const int tap = k / own % taps;
    const I row = k / own / taps, at = place(g, row % rows, tap / kw, tap % kw);
    out[k] = at < 0 ? T(0) : x[at + row / rows * own + k % own];
  }
}

// The adjoint: to each pixel what its readers have in their place of it, rows (groups, M, K L C / groups)
extern "C" __global__ void spread(const T* rows, I all, int groups, GRID, T* dx) {
  const Grid g = {HERE};
  const int own = c / groups, taps = kh * kw;
  const I outputs = all / c / w / h * ho * wo;
  EACH(k) {
    const int channel = k % c;
    const T* from = rows + channel / own * outputs * taps * own + channel % own;
    dx[k] = gathered(g, k / c, [=](I m, int tap) { return from[(m * taps + tap) * own]; });
  }
}
"""

DIRECT = """
// y (M, outputs), where each output sees few channels: no patches are written
extern "C" __global__ void direct(const T* x, const T* weight, I all, int groups, int outputs, GRID, T* y) {
  const Grid g = {HERE};
  const int own = c / groups, each = outputs / groups;
  EACH(k) {
    const int o = k % outputs;
    T total = 0;
    for (int tap = 0; tap < kh * kw; ++tap) {
      const I at = place(g, k / outputs, tap / kw, tap % kw);
      if (at < 0) continue;
      const T* from = x + at + o / each * own;
      for (int of = 0; of < own; ++of) total += from[of] * weight[(tap * own + of) * outputs + o];
    }
    y[k] = total;
  }
}

extern "C" __global__ void direct_input(const T* dy, const T* weight, I all, int groups, int outputs, GRID, T* dx) {
  const Grid g = {HERE};
  const int own = c / groups, each = outputs / groups;
  EACH(k) {
    const int channel = k % c, first = channel / own * each;
    dx[k] = gathered(g, k / c, [=](I m, int tap) {
      T total = 0;
      for (int o = first; o < first + each; ++o)
        total += dy[m * outputs + o] * weight[(tap * own + channel % own) * outputs + o];
      return total;
    });
  }
}
"""

POOLS = """
// The largest of each patch, and which tap it was, the first of equals; NaN is the largest, and no tap's
extern "C" __global__ void max_pool(const T* x, I all, GRID, T* y, int* winner) {
  const Grid g = {HERE};
  EACH(k) {
    T best = -T(__int_as_float(0x7f800000));
    int which = 0;
    for (int tap = 0; tap < kh * kw; ++tap) {
      const I at = place(g, k / c, tap / kw, tap % kw);
      if (at < 0) continue;
      const T value = x[at + k % c];
      if (value > best || value != value) {
        best = value;
        which = value != value ? -1 : tap;
      }
    }
    y[k] = best;
    winner[k] = which;
  }
}

extern "C" __global__ void max_pool_back(const T* dy, const int* winner, I all, GRID, T* dx) {
  const Grid g = {HERE};
  EACH(k) {
    const int of = k % c;
    dx[k] = gathered(g, k / c, [=](I m, int tap) { return winner[m * c + of] == tap ? dy[m * c + of] : T(0); });
  }
}

extern "C" __global__ void average_pool(const T* x, double share, I all, GRID, T* y) {
  const Grid g = {HERE};
  EACH(k) {
    T total = 0;
    for (int tap = 0; tap < kh * kw; ++tap) {
      const I at = place(g, k / c, tap / kw, tap % kw);
      if (at >= 0) total += x[at + k % c];
    }
    y[k] = total * T(share);
  }
}

extern "C" __global__ void average_pool_back(const T* dy, double share, I all, GRID, T* dx) {
  const Grid g = {HERE};
  EACH(k) {
    const int of = k % c;
    dx[k] = gathered(g, k / c, [=](I m, int) { return dy[m * c + of] * T(share); });
  }
}
"""

NORMALIZE = """
// y = gamma (x - mean) / sqrt(variance + eps) + beta;  deviations (2, c): the means of x - mean and of its square
extern "C" __global__ void normalize(const T* x, const T* mean, const T* deviations, const T* gamma, const T* beta,
                                     double eps, I all, int c, T* y, T* variance) {
  EACH(k) {
    const int of = k % c;
    const T rest = deviations[of], spread = deviations[c + of] - rest * rest;
    y[k] = (x[k] - mean[of]) * (gamma[of] * (T(1) / sqrt(spread + T(eps)))) + beta[of];
    if (k < c) variance[k] = spread;
  }
}

// sums (2, c): those of dy and of dy (x - mean);  share = 1 / rows;  without dx, `all` is c
extern "C" __global__ void normalize_back(const T* x, const T* mean, const T* variance, const T* gamma, const T* dy,
                                          const T* sums, double eps, double share, I all, int c, T* dx, T* dgamma) {
  EACH(k) {
    const int of = k % c;
    const T scale = T(1) / sqrt(variance[of] + T(eps)), along = sums[c + of] * scale;
    if (k < c) dgamma[k] = along;
    if (dx) {
      const T turned = (x[k] - mean[of]) * (along * scale * T(-share)) + dy[k] - sums[of] * T(share);
      dx[k] = turned * (gamma[of] * scale);
    }
  }
}
"""

SUMS = """
// Blocks beside each other have `lanes` columns each (a power of two), blocks below each other a part of the rows
#define LANE (threadIdx.x % lanes)
#define ROWS(m) \\
  for (I m = begin(rows, blockIdx.y) + threadIdx.x / lanes; m < begin(rows, blockIdx.y + 1); m += blockDim.x / lanes)

__device__ I begin(I rows, I part) {
  const I at = (rows + gridDim.y - 1) / gridDim.y * part;
  return at < rows ? at : rows;
}

__device__ T sum_of_lane(T value, int lanes) {           // in the first threads, one a lane
  __shared__ T of[256];
  __syncthreads();
  of[threadIdx.x] = value;
  for (int half = blockDim.x / 2; half >= lanes; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) of[threadIdx.x] += of[threadIdx.x + half];
  }
  return of[threadIdx.x];
}

// out (parts, c), or with b (parts, 2 c): scale times the sums of u and of u v, v = b - shift, and u = a - shift if a
// is what b is, else a itself
extern "C" __global__ void columns(const T* a, const T* b, const T* shift, I rows, int c, int lanes, double scale,
                                   T* out) {
  const int column = blockIdx.x * lanes + LANE, width = b ? 2 * c : c;
  const bool inside = column < c;
  const T moved = shift && inside ? shift[column] : T(0), own = a == b ? moved : T(0);
  T first = 0, second = 0;
  if (inside) ROWS(m) {
    const T u = a[m * c + column] - own;
    first += u;
    if (b) second += u * (b[m * c + column] - moved);
  }
  first = sum_of_lane(first, lanes);
  if (inside && threadIdx.x < lanes) out[(I)blockIdx.y * width + column] = first * T(scale);
  if (!b) return;
  second = sum_of_lane(second, lanes);
  if (inside && threadIdx.x < lanes) out[(I)blockIdx.y * width + c + column] = second * T(scale);
}

// out (parts, K L C/groups outputs): dW of a convolution whose outputs see few channels
extern "C" __global__ void direct_weight(const T* x, const T* dy, I rows, int groups, int outputs, int lanes, GRID,
                                         T* out) {
  const Grid g = {HERE};
  const int own = c / groups, all = kh * kw * own * outputs, column = blockIdx.x * lanes + LANE;
  const int o = column % outputs, tap = column / outputs / own;
  const int channel = o / (outputs / groups) * own + column / outputs % own;
  T total = 0;
  if (column < all) ROWS(m) {
    const I at = place(g, m, tap / kw, tap % kw);
    if (at >= 0) total += x[at + channel] * dy[m * outputs + o];
  }
  total = sum_of_lane(total, lanes);
  if (column < all && threadIdx.x < lanes) out[(I)blockIdx.y * all + column] = total;
}
"""


def images(dtype: str, counts: str) -> str:
    """Return the source of what is a turn of a loop for each element."""
    return _head(dtype, counts) + _filled(TURNS + PATCHES + DIRECT + POOLS + NORMALIZE)


def sums(dtype: str, counts: str) -> str:
    """Return the source of the sums over rows."""
    return _head(dtype, counts) + _filled(SUMS)


def _head(dtype: str, counts: str) -> str:
    return f"typedef {TYPES[dtype]} T;\ntypedef {TYPES[counts]} I;\n{GEOMETRY}"


def _filled(text: str) -> str:
    """Return a source with the names of the grid's numbers put in: a macro would hide them from who reads a kernel."""
    names = ", ".join(word.split()[-1] for word in GRID.split(","))
    return text.replace("GRID", GRID).replace("{HERE}", f"{{{names}}}")
