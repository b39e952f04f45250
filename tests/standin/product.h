// The product of two matrices that lie column by column, or row by row: what both of the stand-in's libraries compute.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace product {

// So many columns and rows of D at a time: their sums are kept in the registers of plain x86-64.
constexpr size_t COLUMNS = 4;
template <class T>
constexpr size_t ROWS = 32 / sizeof(T);

// So many terms are added up, then the sums of these pieces.
constexpr size_t PIECE = 256;

// A matrix, element (i, j) at [i * down + j * right].
template <class T>
struct Strided {
  const T* first;
  size_t down, right;
  T operator()(size_t i, size_t j) const { return first[i * down + j * right]; }
};

template <class T>
Strided<T> strided(const void* first, size_t ld, bool transposed) {
  return {static_cast<const T*>(first), transposed ? ld : 1, transposed ? 1 : ld};
}

// Round to the nearest number of so many bits behind the point, to the even one between two: TF32 has 10, bfloat16 7.
inline float rounded(float value, int mantissa) {
  const int dropped = 23 - mantissa;
  if (dropped <= 0 || !std::isfinite(value)) return value;
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  bits += (1u << (dropped - 1)) - 1 + (bits >> dropped & 1);
  bits &= ~0u << dropped;
  std::memcpy(&value, &bits, sizeof bits);
  return value;
}

inline double rounded(double value, int) { return value; }

// Copy `width` rows of a matrix from row `first` on, column after column; zeros for rows that it does not have.
template <class T>
void pack(const Strided<T>& from, size_t first, size_t rows, size_t columns, size_t width, int mantissa, T* to) {
  for (size_t j = 0; j < columns; ++j)
    for (size_t i = 0; i < width; ++i)
      to[j * width + i] = first + i < rows ? rounded(from(first + i, j), mantissa) : T(0);
}

// sums[column][row] += a[.][row] * b[.][column] over `depth` terms, in their order.
template <class T>
void add_products(const T* a, const T* b, size_t depth, T (&sums)[COLUMNS][ROWS<T>]) {
  typedef T Lanes __attribute__((vector_size(16)));
  Lanes piece[COLUMNS][2] = {};
  for (size_t l = 0; l < depth; ++l, a += ROWS<T>, b += COLUMNS) {
    Lanes low, high;
    std::memcpy(&low, a, sizeof low);
    std::memcpy(&high, a + ROWS<T> / 2, sizeof high);
#pragma GCC unroll 4
    for (size_t c = 0; c < COLUMNS; ++c) {
      piece[c][0] += low * b[c];
      piece[c][1] += high * b[c];
    }
  }
  for (size_t c = 0; c < COLUMNS; ++c) {
    T found[ROWS<T>];
    std::memcpy(found, piece[c], sizeof found);
    for (size_t i = 0; i < ROWS<T>; ++i) sums[c][i] += found[i];
  }
}

// D (m, n) = A (m, k) B (k, n), every element summed in one order that depends on k alone.
template <class T>
void multiply(size_t m, size_t n, size_t k, Strided<T> a, Strided<T> b, T* d, size_t ldd, int mantissa) {
  const Strided<T> b_transposed{b.first, b.right, b.down};
  const size_t tiles = (m + ROWS<T> - 1) / ROWS<T>, tile = ROWS<T> * k;
  std::vector<T> packed_a(tiles * tile), packed_b(COLUMNS * k);
  for (size_t t = 0; t < tiles; ++t) pack(a, t * ROWS<T>, m, k, ROWS<T>, mantissa, &packed_a[t * tile]);
  for (size_t column = 0; column < n; column += COLUMNS) {
    pack(b_transposed, column, n, k, COLUMNS, mantissa, packed_b.data());
    for (size_t t = 0; t < tiles; ++t) {
      T sums[COLUMNS][ROWS<T>] = {};
      for (size_t l = 0; l < k; l += PIECE)
        add_products(&packed_a[t * tile + l * ROWS<T>], &packed_b[l * COLUMNS], std::min(PIECE, k - l), sums);
      const size_t row = t * ROWS<T>, rows = std::min(ROWS<T>, m - row);
      for (size_t c = 0; c < std::min(COLUMNS, n - column); ++c)
        std::copy_n(sums[c], rows, d + (column + c) * ldd + row);
    }
  }
}

}  // namespace product
