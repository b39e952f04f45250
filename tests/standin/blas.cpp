// A stand-in of cuBLAS that multiplies on the CPU: what CuPy's products of float32 and float64 call. All of it is one
// operation, C = alpha op(A) op(B) + beta C: a vector is a matrix whose one row has its elements `inc` apart, and a dot
// product is a matrix of one element. The other functions that CuPy's module is linked with are made by build.py, and
// answer CUBLAS_STATUS_NOT_SUPPORTED. "Manual" is NVIDIA's "cuBLAS", chapter 2, "Using the cuBLAS API".
#include "product.h"
#include "refusal.h"
#include "standin.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include <cublas_v2.h>

// From the driver: functions that answer on the host wait for it.
extern "C" cudaError_t cudaStreamSynchronize(cudaStream_t stream);

namespace {

using Status = cublasStatus_t;

// --------------------------------------------------------------------------------------------------------- handles

struct Context {
  int device;
  cudaStream_t stream = nullptr;
  cublasPointerMode_t pointers = CUBLAS_POINTER_MODE_HOST;
  cublasMath_t math = CUBLAS_DEFAULT_MATH;
};

struct Contexts {
  std::mutex lock;
  std::map<uintptr_t, Context> living;
  uintptr_t made = 0;  // Never used twice: a destroyed handle is known for ever.
};

Contexts& contexts() {
  static Contexts* const all = new Contexts;
  return *all;
}

// Manual, cublasStatus_t: NOT_INITIALIZED "is usually caused by the lack of a prior cublasCreate() call".
template <class Use>
void with(cublasHandle_t handle, Use use) {
  std::lock_guard<std::mutex> guard(contexts().lock);
  const auto found = contexts().living.find(reinterpret_cast<uintptr_t>(handle));
  require(found != contexts().living.end(), CUBLAS_STATUS_NOT_INITIALIZED,
          "a handle that cublasCreate did not make, or is destroyed");
  use(found->second);
}

// Manual, 2.1.2: "the device associated with a particular cuBLAS context is assumed to remain unchanged between the
// corresponding cublasCreate() and cublasDestroy() calls".
Context usable(cublasHandle_t handle) {
  Context found{};
  with(handle, [&](const Context& context) { found = context; });
  const int current = standin_current_device(), of_stream = standin_device_of(found.stream);
  require(found.device == current, FAILED, "the handle is of device %d, the current device is %d", found.device,
          current);
  require(of_stream == current, FAILED, "the stream is of device %d (-1: there is none), the current device is %d",
          of_stream, current);
  return found;
}

// -------------------------------------------------------------------------------------------- what is to be computed

// A number that lies on the host, read at the call, or in the device's memory, read when the stream comes to it.
struct Scalar {
  double value;
  const void* on_device;
};

// A matrix by columns, or one of a batch: `stride` elements apart, or each where an array of pointers says.
struct Matrix {
  const void* address;
  size_t rows, columns, ld;
  long long stride;
};

struct Job {
  bool doubles, transpose_a, transpose_b;
  bool by_pointers;  // The matrices of the batch lie where arrays of pointers say.
  bool c_on_host;    // C is one element, and the caller waits for it.
  int mantissa;
  size_t m, n, k, batch;
  Scalar alpha, beta;
  Matrix a, b, c;

  size_t item() const { return doubles ? sizeof(double) : sizeof(float); }
};

size_t bytes(const Job& job, const Matrix& matrix) {
  const bool empty = !matrix.rows || !matrix.columns;
  return empty ? 0 : ((matrix.columns - 1) * matrix.ld + matrix.rows) * job.item();
}

// From the first matrix's first byte to the last one's last, or the array of pointers.
size_t bytes_of_all(const Job& job, const Matrix& matrix) {
  if (job.by_pointers) return job.batch * sizeof(void*);
  return bytes(job, matrix) ? bytes(job, matrix) + (job.batch - 1) * matrix.stride * job.item() : 0;
}

// Manual, cublas<t>gemm: INVALID_VALUE if lda < max(1, m), or < max(1, k) where A is transposed; so for B and C.
void check_shape(const Matrix& matrix, const char* name) {
  require(matrix.ld >= std::max<size_t>(matrix.rows, 1), CONFLICT, "%s has leading dimension %zu, and %zu rows", name,
          matrix.ld, matrix.rows);
}

void check_memory(const void* address, size_t size, size_t item, const char* name) {
  const auto number = reinterpret_cast<uintptr_t>(address);
  require(size == 0 || standin_owns(address, size), FAILED,
          "%s, %zu bytes at 0x%zx, does not lie in the device's memory", name, size, size_t(number));
  require(number % item == 0, FAILED, "%s lies at 0x%zx, which is no multiple of its elements' size", name,
          size_t(number));
}

void check_memory(const Job& job) {
  const size_t item = job.by_pointers ? sizeof(void*) : job.item();
  check_memory(job.a.address, bytes_of_all(job, job.a), item, "A");
  check_memory(job.b.address, bytes_of_all(job, job.b), item, "B");
  if (!job.c_on_host) check_memory(job.c.address, bytes_of_all(job, job.c), item, "C");
  if (job.alpha.on_device) check_memory(job.alpha.on_device, job.item(), job.item(), "alpha");
  if (job.beta.on_device) check_memory(job.beta.on_device, job.item(), job.item(), "beta");
}

bool overlap(const void* one, size_t one_size, const void* other, size_t other_size) {
  const auto begin = reinterpret_cast<uintptr_t>(one), other_begin = reinterpret_cast<uintptr_t>(other);
  return one_size && other_size && begin < other_begin + other_size && other_begin < begin + one_size;
}

// Manual, cublas<t>gemmStridedBatched: the matrices of C must not overlap. Nor may C be what is read.
void check_overlaps(const Job& job) {
  const size_t size = bytes_of_all(job, job.c);
  require(job.batch == 1 || job.by_pointers || size_t(job.c.stride) * job.item() >= bytes(job, job.c), CONFLICT,
          "the matrices of C overlap");
  if (job.by_pointers) return;
  require(!overlap(job.c.address, size, job.a.address, bytes_of_all(job, job.a)), CONFLICT, "C overlaps A");
  require(!overlap(job.c.address, size, job.b.address, bytes_of_all(job, job.b)), CONFLICT, "C overlaps B");
}

// ------------------------------------------------------------------------------------- when the stream comes to it

template <class T>
T value(const Scalar& scalar) {
  return scalar.on_device ? *static_cast<const T*>(scalar.on_device) : T(scalar.value);
}

// Matrix `number` of the batch. Pointers are known now only, so that they are looked at now.
Matrix one_of(const Job& job, const Matrix& all, size_t number, const char* name) {
  Matrix one = all;
  if (!job.by_pointers) {
    one.address = static_cast<const char*>(all.address) + number * all.stride * job.item();
  } else {
    one.address = static_cast<const void* const*>(all.address)[number];
    check_memory(one.address, bytes(job, one), job.item(), name);
  }
  return one;
}

// Manual, cublas<t>gemm: "If beta == 0, C does not have to be a valid input"; where alpha is 0, A and B are not read.
template <class T>
void multiply(const Job& job, size_t number) {
  const T alpha = value<T>(job.alpha), beta = value<T>(job.beta);
  std::vector<T> products(job.m * job.n);
  if (alpha != 0 && job.k) {
    const Matrix a = one_of(job, job.a, number, "a matrix of A"), b = one_of(job, job.b, number, "a matrix of B");
    product::multiply(job.m, job.n, job.k, product::strided<T>(a.address, a.ld, job.transpose_a),
                      product::strided<T>(b.address, b.ld, job.transpose_b), products.data(), job.m, job.mantissa);
  }
  auto* c = static_cast<T*>(const_cast<void*>(one_of(job, job.c, number, "a matrix of C").address));
  for (size_t column = 0; column < job.n; ++column, c += job.c.ld)
    for (size_t row = 0; row < job.m; ++row) {
      const T scaled = alpha * products[column * job.m + row];
      c[row] = beta == 0 ? scaled : scaled + beta * c[row];
    }
}

// Memory that was let go after the call is a misuse, and is not touched.
void run(const void* data) {
  const Job& job = *static_cast<const Job*>(data);
  answer("cuBLAS, when a product ran", [&] {
    check_memory(job);
    for (size_t number = 0; number < job.batch; ++number)
      job.doubles ? multiply<double>(job, number) : multiply<float>(job, number);
  });
}

// -------------------------------------------------------------------------------------------------- when it is called

void enqueue(const Context& context, const char* function, const Job& job) {
  check_shape(job.a, "A");
  check_shape(job.b, "B");
  check_shape(job.c, "C");
  if (job.m == 0 || job.n == 0 || job.batch == 0) return;
  check_memory(job);
  check_overlaps(job);
  require(standin_enqueue(context.stream, function, run, &job, sizeof job) == 0, FAILED, "the stream took no work");
}

Scalar scalar(const Context& context, const void* address, bool doubles) {
  require(address != nullptr, CONFLICT, "alpha or beta is NULL");
  if (context.pointers == CUBLAS_POINTER_MODE_DEVICE) return {0, address};
  return {doubles ? *static_cast<const double*>(address) : *static_cast<const float*>(address), nullptr};
}

size_t count(long long number, const char* name) {
  require(number >= 0, CONFLICT, "%s is %lld", name, number);
  return size_t(number);
}

bool transposed(cublasOperation_t operation) {
  require(operation == CUBLAS_OP_N || operation == CUBLAS_OP_T || operation == CUBLAS_OP_C, CONFLICT,
          "%d is no operation", int(operation));
  return operation != CUBLAS_OP_N;
}

// Bits behind the point that float32 matrices are rounded to. Manual, cublasMath_t: the handle may allow TF32 in
// products of single precision; a compute type other than CUBLAS_COMPUTE_32F speaks for itself.
int mantissa(const Context& context, cublasComputeType_t compute) {
  constexpr int FLOAT = 23, TF32 = 10, BFLOAT16 = 7;
  if (compute == CUBLAS_COMPUTE_32F && (context.math & 15) == CUBLAS_TF32_TENSOR_OP_MATH) return TF32;
  if (compute == CUBLAS_COMPUTE_32F_FAST_TF32) return TF32;
  return compute == CUBLAS_COMPUTE_32F_FAST_16BF ? BFLOAT16 : FLOAT;
}

bool doubles(cublasComputeType_t compute) {
  return compute == CUBLAS_COMPUTE_64F || compute == CUBLAS_COMPUTE_64F_PEDANTIC;
}

void check_types(cublasComputeType_t compute, cudaDataType a, cudaDataType b, cudaDataType c) {
  const bool floats = compute == CUBLAS_COMPUTE_32F || compute == CUBLAS_COMPUTE_32F_PEDANTIC ||
                      compute == CUBLAS_COMPUTE_32F_FAST_TF32 || compute == CUBLAS_COMPUTE_32F_FAST_16BF;
  require_supported(floats || doubles(compute));
  const cudaDataType type = floats ? CUDA_R_32F : CUDA_R_64F;
  require_supported(a == type && b == type && c == type);
}

// An operand as the caller gives it: where, the leading dimension, and the distance to the next one of a batch.
struct Operand {
  const void* address;
  int ld;
  long long stride = 0;
};

struct Sizes {
  cublasOperation_t transpose_a, transpose_b;
  int m, n, k;
  int batch = 1;
};

Matrix matrix(const Operand& operand, size_t rows, size_t columns, bool transposed, const char* name) {
  require(operand.stride >= 0, CONFLICT, "the stride of %s is %lld", name, operand.stride);
  return {operand.address, transposed ? columns : rows, transposed ? rows : columns, count(operand.ld, name),
          operand.stride};
}

Job job_of(const Context& context, cublasComputeType_t compute, const Sizes& sizes, const Operand& a, const Operand& b,
           const Operand& c) {
  Job job{};
  job.doubles = doubles(compute);
  job.mantissa = mantissa(context, compute);
  job.transpose_a = transposed(sizes.transpose_a);
  job.transpose_b = transposed(sizes.transpose_b);
  job.m = count(sizes.m, "m"), job.n = count(sizes.n, "n"), job.k = count(sizes.k, "k");
  job.batch = count(sizes.batch, "the batch");
  job.a = matrix(a, job.m, job.k, job.transpose_a, "A");
  job.b = matrix(b, job.k, job.n, job.transpose_b, "B");
  job.c = matrix(c, job.m, job.n, false, "C");
  return job;
}

// Some matrices, or where `by_pointers` arrays of pointers to them.
Status gemm(const char* function, cublasHandle_t handle, cublasComputeType_t compute, const Sizes& sizes,
            const void* alpha, const Operand& a, const Operand& b, const void* beta, const Operand& c,
            bool by_pointers = false) {
  return answer(function, [&] {
    const Context context = usable(handle);
    Job job = job_of(context, compute, sizes, a, b, c);
    job.by_pointers = by_pointers;
    job.alpha = scalar(context, alpha, job.doubles);
    job.beta = scalar(context, beta, job.doubles);
    enqueue(context, function, job);
  });
}

// y = alpha op(A) x + beta y, with y as a row: transposed(y) = transposed(x) transposed(op(A)). Vectors go forwards
// here, as CuPy's always do.
Status gemv(const char* function, cublasHandle_t handle, cublasComputeType_t compute, cublasOperation_t operation,
            int m, int n, const void* alpha, const void* a, int lda, const void* x, int incx, const void* beta, void* y,
            int incy) {
  return answer(function, [&] {
    const Context context = usable(handle);
    require_supported(incx > 0 && incy > 0);
    const bool across = transposed(operation);
    const Sizes sizes{CUBLAS_OP_N, across ? CUBLAS_OP_N : CUBLAS_OP_T, 1, across ? n : m, across ? m : n};
    Job job = job_of(context, compute, sizes, {x, incx}, {a, lda}, {y, incy});
    job.alpha = scalar(context, alpha, job.doubles);
    job.beta = scalar(context, beta, job.doubles);
    enqueue(context, function, job);
  });
}

// Manual, 2.1.5: functions that return a scalar wait for it if it goes to the host, not if it goes to the device.
Status dot(const char* function, cublasHandle_t handle, cublasComputeType_t compute, int n, const void* x, int incx,
           const void* y, int incy, void* result) {
  return answer(function, [&] {
    const Context context = usable(handle);
    require(result != nullptr, CONFLICT, "the result's pointer is NULL");
    require_supported(incx > 0 && incy > 0);
    const Sizes sizes{CUBLAS_OP_N, CUBLAS_OP_T, 1, 1, n};
    Job job = job_of(context, compute, sizes, {x, incx}, {y, incy}, {result, 1});
    job.alpha.value = 1;
    job.c_on_host = context.pointers == CUBLAS_POINTER_MODE_HOST;
    enqueue(context, function, job);
    if (job.c_on_host) require(cudaStreamSynchronize(context.stream) == 0, FAILED, "the stream failed");
  });
}

// Manual, cublas<t>gemv and dot: no tensor cores, so that a handle's TF32 does not reach them.
constexpr cublasComputeType_t F32 = CUBLAS_COMPUTE_32F, F64 = CUBLAS_COMPUTE_64F,
                              EXACT32 = CUBLAS_COMPUTE_32F_PEDANTIC;

}  // namespace

// ----------------------------------------------------------------------------------------------------------- handles

EXPORTED Status cublasCreate_v2(cublasHandle_t* handle) {
  return answer("cublasCreate", [&] {
    require(handle != nullptr, CONFLICT, "handle is NULL");
    std::lock_guard<std::mutex> guard(contexts().lock);
    const uintptr_t made = ++contexts().made * 16;
    contexts().living[made] = Context{standin_current_device()};
    *handle = reinterpret_cast<cublasHandle_t>(made);
  });
}

EXPORTED Status cublasDestroy_v2(cublasHandle_t handle) {
  return answer("cublasDestroy", [&] {
    with(handle, [&](const Context&) { contexts().living.erase(reinterpret_cast<uintptr_t>(handle)); });
  });
}

EXPORTED Status cublasGetVersion_v2(cublasHandle_t handle, int* version) {
  return answer("cublasGetVersion", [&] { with(handle, [&](const Context&) { *version = CUBLAS_VERSION; }); });
}

EXPORTED Status cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
  return answer("cublasSetStream", [&] { with(handle, [&](Context& context) { context.stream = stream; }); });
}

EXPORTED Status cublasGetStream_v2(cublasHandle_t handle, cudaStream_t* stream) {
  return answer("cublasGetStream", [&] { with(handle, [&](const Context& context) { *stream = context.stream; }); });
}

EXPORTED Status cublasSetPointerMode_v2(cublasHandle_t handle, cublasPointerMode_t mode) {
  return answer("cublasSetPointerMode", [&] { with(handle, [&](Context& context) { context.pointers = mode; }); });
}

EXPORTED Status cublasGetPointerMode_v2(cublasHandle_t handle, cublasPointerMode_t* mode) {
  return answer("cublasGetPointerMode",
                [&] { with(handle, [&](const Context& context) { *mode = context.pointers; }); });
}

EXPORTED Status cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
  return answer("cublasSetMathMode", [&] { with(handle, [&](Context& context) { context.math = mode; }); });
}

EXPORTED Status cublasGetMathMode(cublasHandle_t handle, cublasMath_t* mode) {
  return answer("cublasGetMathMode", [&] { with(handle, [&](const Context& context) { *mode = context.math; }); });
}

// ---------------------------------------------------------------------------------------------------- one or two types

EXPORTED Status cublasGemmEx(cublasHandle_t handle, cublasOperation_t transpose_a, cublasOperation_t transpose_b, int m,
                             int n, int k, const void* alpha, const void* a, cudaDataType type_a, int lda,
                             const void* b, cudaDataType type_b, int ldb, const void* beta, void* c,
                             cudaDataType type_c, int ldc, cublasComputeType_t compute, cublasGemmAlgo_t) {
  const Status status = answer("cublasGemmEx", [&] { check_types(compute, type_a, type_b, type_c); });
  if (status) return status;
  return gemm("cublasGemmEx", handle, compute, {transpose_a, transpose_b, m, n, k}, alpha, {a, lda}, {b, ldb}, beta,
              {c, ldc});
}

EXPORTED Status cublasSgemmEx(cublasHandle_t handle, cublasOperation_t transpose_a, cublasOperation_t transpose_b,
                              int m, int n, int k, const float* alpha, const void* a, cudaDataType type_a, int lda,
                              const void* b, cudaDataType type_b, int ldb, const float* beta, void* c,
                              cudaDataType type_c, int ldc) {
  const Status status = answer("cublasSgemmEx", [&] { check_types(F32, type_a, type_b, type_c); });
  if (status) return status;
  return gemm("cublasSgemmEx", handle, F32, {transpose_a, transpose_b, m, n, k}, alpha, {a, lda}, {b, ldb}, beta,
              {c, ldc});
}

EXPORTED Status cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t transpose_a,
                                           cublasOperation_t transpose_b, int m, int n, int k, const void* alpha,
                                           const void* a, cudaDataType type_a, int lda, long long stride_a,
                                           const void* b, cudaDataType type_b, int ldb, long long stride_b,
                                           const void* beta, void* c, cudaDataType type_c, int ldc, long long stride_c,
                                           int batch, cublasComputeType_t compute, cublasGemmAlgo_t) {
  const char* const name = "cublasGemmStridedBatchedEx";
  const Status status = answer(name, [&] { check_types(compute, type_a, type_b, type_c); });
  if (status) return status;
  return gemm(name, handle, compute, {transpose_a, transpose_b, m, n, k, batch}, alpha, {a, lda, stride_a},
              {b, ldb, stride_b}, beta, {c, ldc, stride_c});
}

// For each type its functions: S and float, D and double.
#define FUNCTIONS(letter, T, compute, exact)                                                                           \
  EXPORTED Status cublas##letter##gemm_v2(cublasHandle_t handle, cublasOperation_t transpose_a,                        \
                                          cublasOperation_t transpose_b, int m, int n, int k, const T* alpha,          \
                                          const T* a, int lda, const T* b, int ldb, const T* beta, T* c, int ldc) {    \
    return gemm("cublas" #letter "gemm", handle, compute, {transpose_a, transpose_b, m, n, k}, alpha, {a, lda},        \
                {b, ldb}, beta, {c, ldc});                                                                             \
  }                                                                                                                    \
  EXPORTED Status cublas##letter##gemmStridedBatched(                                                                  \
      cublasHandle_t handle, cublasOperation_t transpose_a, cublasOperation_t transpose_b, int m, int n, int k,        \
      const T* alpha, const T* a, int lda, long long stride_a, const T* b, int ldb, long long stride_b, const T* beta, \
      T* c, int ldc, long long stride_c, int batch) {                                                                  \
    return gemm("cublas" #letter "gemmStridedBatched", handle, compute, {transpose_a, transpose_b, m, n, k, batch},    \
                alpha, {a, lda, stride_a}, {b, ldb, stride_b}, beta, {c, ldc, stride_c});                              \
  }                                                                                                                    \
  EXPORTED Status cublas##letter##gemmBatched(                                                                         \
      cublasHandle_t handle, cublasOperation_t transpose_a, cublasOperation_t transpose_b, int m, int n, int k,        \
      const T* alpha, const T* const a[], int lda, const T* const b[], int ldb, const T* beta, T* const c[], int ldc,  \
      int batch) {                                                                                                     \
    return gemm("cublas" #letter "gemmBatched", handle, compute, {transpose_a, transpose_b, m, n, k, batch}, alpha,    \
                {a, lda}, {b, ldb}, beta, {c, ldc}, true);                                                             \
  }                                                                                                                    \
  EXPORTED Status cublas##letter##gemv_v2(cublasHandle_t handle, cublasOperation_t operation, int m, int n,            \
                                          const T* alpha, const T* a, int lda, const T* x, int incx, const T* beta,    \
                                          T* y, int incy) {                                                            \
    return gemv("cublas" #letter "gemv", handle, exact, operation, m, n, alpha, a, lda, x, incx, beta, y, incy);       \
  }                                                                                                                    \
  EXPORTED Status cublas##letter##dot_v2(cublasHandle_t handle, int n, const T* x, int incx, const T* y, int incy,     \
                                         T* result) {                                                                  \
    return dot("cublas" #letter "dot", handle, exact, n, x, incx, y, incy, result);                                    \
  }

FUNCTIONS(S, float, F32, EXACT32)
FUNCTIONS(D, double, F64, F64)
