// A stand-in of cuBLASLt that multiplies on the CPU. Descriptors are NVIDIA's own: those calls go on to the real
// library, which needs no driver for them, and whose path STANDIN_CUBLASLT gives. Heuristic and product are ours.
//
// STANDIN_LT_LACKS="4,256"  epilogues that no algorithm has
// STANDIN_LT_NAN=drop       ReLU makes 0 of NaN instead of keeping it (it is not documented what a device does)
// STANDIN_LT_SPLIT=1        a product is two jobs on its stream, as an algorithm is that sums in parts: what another
//                           stream wrote to the same workspace in between is then seen
// All are read anew at each call. "Manual" is NVIDIA's "cuBLAS", chapter 3, "Using the cuBLASLt API".
#include "product.h"
#include "refusal.h"
#include "standin.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <cublasLt.h>
#include <dlfcn.h>

namespace {

// In cublasLt.h's words: no handle.
constexpr cublasStatus_t NO_HANDLE = CUBLAS_STATUS_NOT_INITIALIZED;

// -------------------------------------------------------------------------------------------- NVIDIA's descriptors

void* real_library() {
  static void* const library = [] {
    const char* path = std::getenv("STANDIN_CUBLASLT");
    // DEEPBIND: its calls of its own functions must not come back to those of the same name here
    void* found = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND) : nullptr;
    if (!found) {
      std::fprintf(stderr, "STANDIN_CUBLASLT must be the path of NVIDIA's libcublasLt.so.13: %s\n",
                   path ? dlerror() : "it is not set");
      std::abort();
    }
    return found;
  }();
  return library;
}

template <class Function>
Function* real(const char* name) {
  return reinterpret_cast<Function*>(dlsym(real_library(), name));
}

}  // namespace

#define FORWARD(result, name, parameters, arguments)          \
  EXPORTED result name parameters {                           \
    static auto* const function = real<result parameters>(#name); \
    return function arguments;                                \
  }

using Status = cublasStatus_t;
using Operation = cublasLtMatmulDesc_t;
using OperationAttribute = cublasLtMatmulDescAttributes_t;
using Layout = cublasLtMatrixLayout_t;
using LayoutAttribute = cublasLtMatrixLayoutAttribute_t;
using Preference = cublasLtMatmulPreference_t;
using PreferenceAttribute = cublasLtMatmulPreferenceAttributes_t;

FORWARD(size_t, cublasLtGetVersion, (), ())
FORWARD(const char*, cublasLtGetStatusName, (Status status), (status))
FORWARD(const char*, cublasLtGetStatusString, (Status status), (status))
FORWARD(Status, cublasLtMatmulDescCreate, (Operation * made, cublasComputeType_t compute, cudaDataType_t scale),
        (made, compute, scale))
FORWARD(Status, cublasLtMatmulDescDestroy, (Operation it), (it))
FORWARD(Status, cublasLtMatmulDescSetAttribute, (Operation it, OperationAttribute what, const void* from, size_t size),
        (it, what, from, size))
FORWARD(Status, cublasLtMatmulDescGetAttribute,
        (Operation it, OperationAttribute what, void* to, size_t size, size_t* written), (it, what, to, size, written))
FORWARD(Status, cublasLtMatrixLayoutCreate,
        (Layout * made, cudaDataType type, uint64_t rows, uint64_t columns, int64_t ld),
        (made, type, rows, columns, ld))
FORWARD(Status, cublasLtMatrixLayoutDestroy, (Layout it), (it))
FORWARD(Status, cublasLtMatrixLayoutSetAttribute, (Layout it, LayoutAttribute what, const void* from, size_t size),
        (it, what, from, size))
FORWARD(Status, cublasLtMatrixLayoutGetAttribute,
        (Layout it, LayoutAttribute what, void* to, size_t size, size_t* written), (it, what, to, size, written))
FORWARD(Status, cublasLtMatmulPreferenceCreate, (Preference * made), (made))
FORWARD(Status, cublasLtMatmulPreferenceDestroy, (Preference it), (it))
FORWARD(Status, cublasLtMatmulPreferenceSetAttribute,
        (Preference it, PreferenceAttribute what, const void* from, size_t size), (it, what, from, size))
FORWARD(Status, cublasLtMatmulPreferenceGetAttribute,
        (Preference it, PreferenceAttribute what, void* to, size_t size, size_t* written),
        (it, what, to, size, written))

namespace {

Status get(Operation it, OperationAttribute what, void* to, size_t size, size_t* written) {
  return cublasLtMatmulDescGetAttribute(it, what, to, size, written);
}

Status get(Layout it, LayoutAttribute what, void* to, size_t size, size_t* written) {
  return cublasLtMatrixLayoutGetAttribute(it, what, to, size, written);
}

Status get(Preference it, PreferenceAttribute what, void* to, size_t size, size_t* written) {
  return cublasLtMatmulPreferenceGetAttribute(it, what, to, size, written);
}

template <class T, class Descriptor, class Attribute>
T attribute(Descriptor it, Attribute what) {
  T value{};
  size_t written = 0;
  require(it != nullptr, CONFLICT, "a descriptor is NULL");
  const Status status = get(it, what, &value, sizeof value, &written);
  require(status == CUBLAS_STATUS_SUCCESS, status, "a descriptor does not give its attribute %d", int(what));
  return value;
}

// --------------------------------------------------------------------------------------------- handles and streams

struct Handles {
  std::mutex lock;
  std::map<uintptr_t, int> devices;  // of the living
  uintptr_t made = 0;                // Never used twice: a destroyed handle is known for ever.
};

Handles& handles() {
  static Handles* const all = new Handles;
  return *all;
}

int device_of(cublasLtHandle_t handle) {
  std::lock_guard<std::mutex> guard(handles().lock);
  const auto found = handles().devices.find(reinterpret_cast<uintptr_t>(handle));
  require(found != handles().devices.end(), NO_HANDLE, "a handle that cublasLtCreate did not make, or is destroyed");
  return found->second;
}

// Manual, cublasLtCreate: the context belongs to the device that is current then, and is for use on that device.
void check_handle(cublasLtHandle_t handle) {
  const int own = device_of(handle), current = standin_current_device();
  require(own == current, FAILED, "the handle is of device %d, the current device is %d", own, current);
}

void check_stream(void* stream) {
  const int own = standin_device_of(stream), current = standin_current_device();
  require(own >= 0, FAILED, "there is no stream %p", stream);
  require(own == current, FAILED, "the stream is of device %d, the handle and the current device are %d", own, current);
}

// ------------------------------------------------------------------------------------------- what is to be computed

// How cublasLtEpilogue_t is put together.
constexpr uint32_t RELU = 2, ADDS_BIAS = 4;

bool known(uint32_t epilogue) {
  switch (epilogue) {
    case CUBLASLT_EPILOGUE_DEFAULT:
    case CUBLASLT_EPILOGUE_BIAS:
    case CUBLASLT_EPILOGUE_RELU_BIAS:
    case CUBLASLT_EPILOGUE_BGRADA:
      return true;
    default:
      return false;
  }
}

bool writes_vector(uint32_t epilogue) { return epilogue == CUBLASLT_EPILOGUE_BGRADA; }

bool has_vector(uint32_t epilogue) { return (epilogue & ADDS_BIAS) || writes_vector(epilogue); }

// What an algorithm is chosen for, and may be used for.
struct Problem {
  int64_t step_a, step_b, step_c, step_d;  // from one matrix of a batch to the next
  uint32_t m, n, k, lda, ldb, ldc, ldd, count, epilogue;
  uint16_t compute;
  bool transpose_a, transpose_b;

  bool doubles() const { return compute == CUBLAS_COMPUTE_64F; }
  size_t item() const { return doubles() ? sizeof(double) : sizeof(float); }
  bool operator==(const Problem& other) const { return std::memcmp(this, &other, sizeof other) == 0; }
};
static_assert(std::has_unique_object_representations_v<Problem>, "memcmp must not compare what lies between members");

struct Matrix {
  uint64_t rows, columns;
  int64_t ld, step;
  uint32_t type, count;
};

// A layout by columns, of one matrix or a batch of them, one step apart. cublasLt.h, ORDER_COL: "Leading dimension is
// the stride (in elements) to the beginning of next column in memory", so that it cannot be less than the rows.
Matrix matrix(Layout layout, const char* name) {
  const Matrix found{attribute<uint64_t>(layout, CUBLASLT_MATRIX_LAYOUT_ROWS),
                     attribute<uint64_t>(layout, CUBLASLT_MATRIX_LAYOUT_COLS),
                     attribute<int64_t>(layout, CUBLASLT_MATRIX_LAYOUT_LD),
                     attribute<int64_t>(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET),
                     attribute<uint32_t>(layout, CUBLASLT_MATRIX_LAYOUT_TYPE),
                     attribute<uint32_t>(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT)};
  require_supported(attribute<int32_t>(layout, CUBLASLT_MATRIX_LAYOUT_ORDER) == CUBLASLT_ORDER_COL);
  require_supported(attribute<uint32_t>(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_MODE) == CUBLASLT_BATCH_MODE_STRIDED);
  require_supported(found.step >= 0);
  require(found.count >= 1 && found.count <= INT32_MAX, CONFLICT, "%s is a batch of %d", name, int(found.count));
  require(found.rows && found.columns, CONFLICT, "%s is empty", name);
  require(found.ld >= int64_t(found.rows), CONFLICT, "%s has leading dimension %lld, and %llu rows", name,
          static_cast<long long>(found.ld), static_cast<unsigned long long>(found.rows));
  require_supported(std::max(uint64_t(found.ld), found.columns) < UINT32_MAX);
  return found;
}

bool transposed(Operation operation, OperationAttribute which) {
  return attribute<int32_t>(operation, which) != CUBLAS_OP_N;
}

// float32 in three compute types and float64 in one; whatever else cuBLASLt can do has no algorithm here.
void check_types(Operation operation, const Problem& problem, const Matrix& a, const Matrix& b, const Matrix& c,
                 const Matrix& d) {
  const bool floats = problem.compute == CUBLAS_COMPUTE_32F || problem.compute == CUBLAS_COMPUTE_32F_FAST_TF32 ||
                      problem.compute == CUBLAS_COMPUTE_32F_FAST_16BF;
  require_supported(floats || problem.doubles());
  const uint32_t type = floats ? CUDA_R_32F : CUDA_R_64F;
  require_supported(a.type == type && b.type == type && c.type == type && d.type == type);
  require_supported(attribute<uint32_t>(operation, CUBLASLT_MATMUL_DESC_SCALE_TYPE) == type);
  require_supported(attribute<int32_t>(operation, CUBLASLT_MATMUL_DESC_POINTER_MODE) == CUBLASLT_POINTER_MODE_HOST);
  require_supported(!transposed(operation, CUBLASLT_MATMUL_DESC_TRANSC));
}

Problem problem_of(Operation operation, Layout layout_a, Layout layout_b, Layout layout_c, Layout layout_d) {
  const Matrix a = matrix(layout_a, "A"), b = matrix(layout_b, "B"), c = matrix(layout_c, "C"),
               d = matrix(layout_d, "D");
  Problem it{};
  it.compute = uint16_t(attribute<int32_t>(operation, CUBLASLT_MATMUL_DESC_COMPUTE_TYPE));
  it.epilogue = attribute<uint32_t>(operation, CUBLASLT_MATMUL_DESC_EPILOGUE);
  it.transpose_a = transposed(operation, CUBLASLT_MATMUL_DESC_TRANSA);
  it.transpose_b = transposed(operation, CUBLASLT_MATMUL_DESC_TRANSB);
  it.lda = a.ld, it.ldb = b.ld, it.ldc = c.ld, it.ldd = d.ld;
  it.step_a = a.step, it.step_b = b.step, it.step_c = c.step, it.step_d = d.step, it.count = d.count;
  it.m = it.transpose_a ? a.columns : a.rows;
  it.k = it.transpose_a ? a.rows : a.columns;
  it.n = it.transpose_b ? b.rows : b.columns;
  check_types(operation, it, a, b, c, d);
  require((it.transpose_b ? b.columns : b.rows) == it.k, CONFLICT, "op(A) has %u columns, op(B) other rows", it.k);
  require(d.rows == it.m && d.columns == it.n, CONFLICT, "D is not (%u, %u)", it.m, it.n);
  require(c.rows == it.m && c.columns == it.n, CONFLICT, "C is not (%u, %u)", it.m, it.n);
  require(a.count == it.count && b.count == it.count && c.count == it.count, CONFLICT,
          "A, B, C and D are batches of %u, %u, %u and %u", a.count, b.count, c.count, d.count);
  require_supported(known(it.epilogue));
  require_supported(it.count == 1 || it.epilogue == CUBLASLT_EPILOGUE_DEFAULT);
  return it;
}

// ------------------------------------------------------------------------------------------------------- algorithms

constexpr uint32_t MARK = 0x1a5e11ed;
constexpr uint64_t MOST_WORKSPACE = 1 << 18;
constexpr uint32_t ALIGNED = 256;  // more is never promised

// Whatever an algorithm was asked for. An algorithm has no room for it, and names it by its place.
struct Asked {
  std::mutex lock;
  std::vector<Problem> problems;

  uint32_t note(const Problem& problem) {
    std::lock_guard<std::mutex> guard(lock);
    problems.push_back(problem);
    return problems.size() - 1;
  }
  Problem at(uint32_t place) {
    std::lock_guard<std::mutex> guard(lock);
    return problems.at(place);
  }
};

Asked& asked() {
  static Asked* const all = new Asked;
  return *all;
}

// What lies in cublasLtMatmulAlgo_t: for which problem it is, how pointers were said to be aligned, what it needs.
struct Choice {
  uint32_t mark, problem;
  uint16_t a, b, c, d, vector;
  uint32_t workspace;
};
static_assert(sizeof(Choice) <= sizeof(cublasLtMatmulAlgo_t), "an algorithm must fit into NVIDIA's 64 bytes");

uint32_t alignment(uint64_t address) { return address ? std::min<uint64_t>(address & -address, ALIGNED) : ALIGNED; }

uint64_t vector_address(Operation operation) {
  return attribute<uint64_t>(operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER);
}

uint32_t promised(Preference preference, PreferenceAttribute which) {
  return alignment(attribute<uint32_t>(preference, which));
}

bool lacks(uint32_t epilogue) {
  const char* text = std::getenv("STANDIN_LT_LACKS");
  const std::string list = "," + std::string(text ? text : "") + ",";
  return list.find("," + std::to_string(epilogue) + ",") != std::string::npos;
}

// cublasLt.h, BIAS_POINTER: cublasLtMatmulAlgoGetHeuristic depends "on its value to determine expected pointer
// alignment".
Choice choose(const Problem& problem, Operation operation, Preference preference) {
  require_supported(!lacks(problem.epilogue));
  require_supported(!problem.doubles() || problem.epilogue == CUBLASLT_EPILOGUE_DEFAULT);
  Choice it{};
  it.mark = MARK;
  it.problem = asked().note(problem);
  it.a = promised(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES);
  it.b = promised(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES);
  it.c = promised(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES);
  it.d = promised(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES);
  it.vector = alignment(vector_address(operation));
  const auto allowed = attribute<uint64_t>(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
  it.workspace = std::min(allowed, MOST_WORKSPACE) / 256 * 256;
  return it;
}

Choice choice_of(const cublasLtMatmulAlgo_t* algorithm, const Problem& problem) {
  Choice it{};
  require(algorithm != nullptr, CONFLICT, "no algorithm");
  std::memcpy(&it, algorithm, sizeof it);
  require(it.mark == MARK, CONFLICT, "an algorithm that cublasLtMatmulAlgoGetHeuristic did not give");
  const Problem first = asked().at(it.problem);
  require(first == problem, CONFLICT,
          "the algorithm was chosen for another problem: m n k %u %u %u, ld %u %u %u %u, op %d %d, epilogue %u, "
          "compute %u, batch of %u; it is used for %u %u %u, %u %u %u %u, %d %d, %u, %u, %u",
          first.m, first.n, first.k, first.lda, first.ldb, first.ldc, first.ldd, first.transpose_a, first.transpose_b,
          first.epilogue, first.compute, first.count, problem.m, problem.n, problem.k, problem.lda, problem.ldb,
          problem.ldc, problem.ldd, problem.transpose_a, problem.transpose_b, problem.epilogue, problem.compute,
          problem.count);
  return it;
}

// ----------------------------------------------------------------------------------------------- memory that is used

// Lines of so many bytes, `step` bytes from one to the next: the columns of a matrix, or one line. None: not used.
// A batch is so many of these, `hop` bytes from one to the next.
struct Region {
  uintptr_t address;
  size_t line, step, lines, count = 1, hop = 0;

  size_t size() const { return lines ? (count - 1) * hop + (lines - 1) * step + line : 0; }
  Region matrix(size_t number) const { return {address + number * hop, line, step, lines}; }
  uintptr_t end() const { return address + size(); }
  template <class T>
  T* as(size_t number = 0) const {
    return reinterpret_cast<T*>(address + number * step);
  }
};

// Whether a line of the region shares a byte with [begin, end): there is none of it before the line in which `begin`
// falls, and if `end` lies behind the next one's start, it shares that.
bool touches(const Region& region, uintptr_t begin, uintptr_t end) {
  if (begin >= region.end() || end <= region.address) return false;
  if (begin < region.address) return true;
  const size_t number = (begin - region.address) / region.step;
  return begin < region.address + number * region.step + region.line ||
         (number + 1 < region.lines && end > region.address + (number + 1) * region.step);
}

// Two windows on one array may lie between each other's columns, so all lines are looked at.
bool overlap(const Region& one, const Region& other) {
  if (!one.lines || !other.lines || one.address >= other.end() || other.address >= one.end()) return false;
  if (one.count > 1 || other.count > 1) {
    for (size_t i = 0; i < one.count; ++i)
      for (size_t j = 0; j < other.count; ++j)
        if (overlap(one.matrix(i), other.matrix(j))) return true;
    return false;
  }
  for (size_t number = 0; number < one.lines; ++number) {
    const uintptr_t begin = one.address + number * one.step;
    if (touches(other, begin, begin + one.line)) return true;
  }
  return false;
}

enum Part { A, B, D, VECTOR, WORKSPACE, PARTS };
const char* const NAMES[PARTS] = {"A", "B", "D", "the vector", "the workspace"};

struct Job {
  Problem problem;
  Region parts[PARTS];
  double alpha;
  uint64_t ticket;  // lies in the workspace while this job uses it
  bool drops_nan;
};

bool writes(const Problem& problem, int part) {
  switch (part) {
    case D:
    case WORKSPACE:
      return true;
    case VECTOR:
      return writes_vector(problem.epilogue);
    default:
      return false;
  }
}

// Whether the matrices of a batch share a byte.
bool overlaps_itself(const Region& region) {
  if (region.hop >= region.matrix(0).size()) return false;
  for (size_t i = 1; i < region.count; ++i)
    for (size_t j = 0; j < i; ++j)
      if (overlap(region.matrix(i), region.matrix(j))) return true;
  return false;
}

Region columns(const void* address, size_t rows, size_t number, size_t ld, size_t item, size_t count, size_t step) {
  return {reinterpret_cast<uintptr_t>(address), rows * item, ld * item, number, count, step * item};
}

void set_parts(Job& job, Operation operation, const void* a, const void* b, const void* d, const void* workspace,
               size_t workspace_size) {
  const Problem& it = job.problem;
  const size_t item = it.item();
  const auto [a_rows, a_columns] = it.transpose_a ? std::pair(it.k, it.m) : std::pair(it.m, it.k);
  const auto [b_rows, b_columns] = it.transpose_b ? std::pair(it.n, it.k) : std::pair(it.k, it.n);
  job.parts[A] = columns(a, a_rows, a_columns, it.lda, item, it.count, it.step_a);
  job.parts[B] = columns(b, b_rows, b_columns, it.ldb, item, it.count, it.step_b);
  job.parts[D] = columns(d, it.m, it.n, it.ldd, item, it.count, it.step_d);
  if (has_vector(it.epilogue)) job.parts[VECTOR] = {vector_address(operation), it.m * item, it.m * item, 1};
  if (workspace_size)
    job.parts[WORKSPACE] = {reinterpret_cast<uintptr_t>(workspace), workspace_size, workspace_size, 1};
}

void check_aligned(const Job& job, Part part, size_t bytes) {
  const Region& region = job.parts[part];
  require(!region.lines || (region.address % bytes == 0 && region.hop % bytes == 0), CONFLICT,
          "%s lies at 0x%llx, one every %zu bytes: less aligned than the %zu bytes that were promised or are needed",
          NAMES[part], static_cast<unsigned long long>(region.address), region.hop, bytes);
}

// Alignments are those of the preference (cublasLt.h, PREF_MIN_ALIGNMENT_*), for the vector that which
// its pointer had when the algorithm was chosen. Manual, cublasLtMatmul: the workspace must be aligned to 256 bytes.
void check_alignment(const Job& job, const Choice& choice) {
  const size_t item = job.problem.item();
  check_aligned(job, A, std::max<size_t>(choice.a, item));
  check_aligned(job, B, std::max<size_t>(choice.b, item));
  check_aligned(job, D, std::max<size_t>(std::max(choice.c, choice.d), item));
  check_aligned(job, VECTOR, std::max<size_t>(choice.vector, item));
  check_aligned(job, WORKSPACE, 256);
}

bool owned(const Region& region) {
  return !region.lines || standin_owns(reinterpret_cast<const void*>(region.address), region.size());
}

void check_memory(const Job& job) {
  for (int part = 0; part < PARTS; ++part)
    require(owned(job.parts[part]), FAILED, "%s, %zu bytes at 0x%llx, does not lie in the device's memory", NAMES[part],
            job.parts[part].size(), static_cast<unsigned long long>(job.parts[part].address));
}

// What is written must not be anything else that the product uses: a kernel reads and writes in any order.
void check_overlaps(const Job& job) {
  for (int part = 0; part < PARTS; ++part)
    for (int other = 0; other < PARTS; ++other)
      require(part == other || !writes(job.problem, part) || !overlap(job.parts[part], job.parts[other]), CONFLICT,
              "%s, which is written, overlaps %s", NAMES[part], NAMES[other]);
  require(!overlaps_itself(job.parts[D]), CONFLICT, "the matrices of D overlap each other");
}

// ----------------------------------------------------------------------------------------------------- the epilogues

template <class T>
void relu(T* column, size_t rows, bool drops_nan) {
  for (size_t i = 0; i < rows; ++i)
    if (!(column[i] > 0) && (drops_nan || !std::isnan(column[i]))) column[i] = 0;
}

template <class T>
void finish_columns(const Job& job) {
  const Problem& it = job.problem;
  for (size_t number = 0; number < it.n; ++number) {
    T* column = job.parts[D].as<T>(number);
    for (size_t i = 0; job.alpha != 1 && i < it.m; ++i) column[i] *= T(job.alpha);
    if (it.epilogue & ADDS_BIAS)
      for (size_t i = 0; i < it.m; ++i) column[i] += job.parts[VECTOR].as<T>()[i];
    if (it.epilogue & RELU) relu(column, it.m, job.drops_nan);
  }
}

// cublasLt.h, BGRADA: "The bias size corresponds to the number of rows of the matrix D. The reduction happens over the
// GEMM's "k" dimension."
template <class T>
void sum_a(const Job& job) {
  const Problem& it = job.problem;
  const auto a = product::strided<T>(job.parts[A].as<void>(), it.lda, it.transpose_a);
  std::vector<double> sums(it.m);
  for (size_t l = 0; l < it.k; ++l)
    for (size_t i = 0; i < it.m; ++i) sums[i] += a(i, l);
  std::copy(sums.begin(), sums.end(), job.parts[VECTOR].as<T>());
}

// ------------------------------------------------------------------------------------- when the stream comes to it

int mantissa(uint16_t compute) {
  return compute == CUBLAS_COMPUTE_32F_FAST_TF32 ? 10 : compute == CUBLAS_COMPUTE_32F_FAST_16BF ? 7 : 23;
}

template <class T>
void compute(const Job& job) {
  const Problem& it = job.problem;
  for (size_t number = 0; number < it.count; ++number) {
    const auto a = product::strided<T>(job.parts[A].matrix(number).as<void>(), it.lda, it.transpose_a);
    const auto b = product::strided<T>(job.parts[B].matrix(number).as<void>(), it.ldb, it.transpose_b);
    T* const d = job.parts[D].matrix(number).as<T>();
    product::multiply(it.m, it.n, it.k, a, b, d, it.ldd, mantissa(it.compute));
  }
  if (it.epilogue == CUBLASLT_EPILOGUE_BGRADA) sum_a<T>(job);
  finish_columns<T>(job);
}

// The workspace, as far as the algorithm said that it needs it, is filled with garbage behind the job's ticket. Memory
// that was let go after the call is a misuse, and is not touched.
void begin(const Job& job) {
  check_memory(job);
  const Region& it = job.parts[WORKSPACE];
  if (!it.lines) return;
  std::memset(it.as<void>(), 0xab, it.size());
  std::memcpy(it.as<void>(), &job.ticket, sizeof job.ticket);
}

// Whether the workspace still holds what `begin` wrote: the ticket, and one byte again and again.
bool untouched(const Job& job) {
  const Region& it = job.parts[WORKSPACE];
  if (!it.lines) return true;
  const auto* garbage = it.as<const uint8_t>() + sizeof job.ticket;
  return std::memcmp(it.as<void>(), &job.ticket, sizeof job.ticket) == 0 && garbage[0] == 0xab &&
         std::memcmp(garbage, garbage + 1, it.size() - sizeof job.ticket - 1) == 0;
}

void finish(const Job& job) {
  check_memory(job);
  require(untouched(job), FAILED, "others wrote to the workspace while it was in use: every stream needs its own");
  job.problem.doubles() ? compute<double>(job) : compute<float>(job);
}

const char* const WHEN_RUN = "cublasLtMatmul, when it ran";

void run_begin(const void* job) {
  answer(WHEN_RUN, [&] { begin(*static_cast<const Job*>(job)); });
}

void run_finish(const void* job) {
  answer(WHEN_RUN, [&] { finish(*static_cast<const Job*>(job)); });
}

void run_whole(const void* job) {
  answer(WHEN_RUN, [&] {
    begin(*static_cast<const Job*>(job));
    finish(*static_cast<const Job*>(job));
  });
}

// -------------------------------------------------------------------------------------------------- when it is called

bool is_set(const char* variable, const char* value) {
  const char* text = std::getenv(variable);
  return text && std::strcmp(text, value) == 0;
}

double scalar(const void* address, bool doubles) {
  require(address != nullptr, CONFLICT, "alpha or beta is NULL");
  return doubles ? *static_cast<const double*>(address) : *static_cast<const float*>(address);
}

void put(void* stream, void (*run)(const void*), const Job& job) {
  require(standin_enqueue(stream, "cublasLtMatmul", run, &job, sizeof job) == 0, FAILED, "the stream took no work");
}

void enqueue(void* stream, const Job& job) {
  if (is_set("STANDIN_LT_SPLIT", "1")) {
    put(stream, run_begin, job);
    put(stream, run_finish, job);
  } else {
    put(stream, run_whole, job);
  }
}

// The caller's whole workspace was looked at; the product uses what its algorithm needs.
void use_workspace(Job& job, size_t needed) {
  job.parts[WORKSPACE].line = needed;
  if (needed == 0) job.parts[WORKSPACE].lines = 0;
}

uint64_t next_ticket() {
  static std::atomic<uint64_t> last{0};
  return ++last;
}

}  // namespace

EXPORTED Status cublasLtCreate(cublasLtHandle_t* handle) {
  return answer("cublasLtCreate", [&] {
    require(handle != nullptr, CONFLICT, "handle is NULL");
    std::lock_guard<std::mutex> guard(handles().lock);
    const uintptr_t made = ++handles().made * 16;
    handles().devices[made] = standin_current_device();
    *handle = reinterpret_cast<cublasLtHandle_t>(made);
  });
}

EXPORTED Status cublasLtDestroy(cublasLtHandle_t handle) {
  return answer("cublasLtDestroy", [&] {
    device_of(handle);
    std::lock_guard<std::mutex> guard(handles().lock);
    handles().devices.erase(reinterpret_cast<uintptr_t>(handle));
  });
}

// One proposal or none. That the descriptors are in conflict is noted: the real library says no more than a status,
// which looks as if there were no algorithm.
EXPORTED Status cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, Operation operation, Layout a, Layout b,
                                               Layout c, Layout d, Preference preference, int requested,
                                               cublasLtMatmulHeuristicResult_t* results, int* count) {
  return answer("cublasLtMatmulAlgoGetHeuristic", [&] {
    require(results && count && requested > 0, CONFLICT, "no room for results");
    *count = 0;
    check_handle(handle);
    const Choice choice = choose(problem_of(operation, a, b, c, d), operation, preference);
    *results = {};
    std::memcpy(&results->algo, &choice, sizeof choice);
    results->workspaceSize = choice.workspace;
    results->state = CUBLAS_STATUS_SUCCESS;
    results->wavesCount = 1;
    *count = 1;
  });
}

// Manual, cublasLtMatmul: in place, where C is D and has its layout, or not; here only the first, and of
// D = alpha op(A) op(B) + beta C only D = alpha op(A) op(B). cublasLt.h: INVALID_VALUE "when workspaceSizeInBytes is less
// than workspace required by configured algo".
EXPORTED Status cublasLtMatmul(cublasLtHandle_t handle, Operation operation, const void* alpha, const void* a,
                               Layout layout_a, const void* b, Layout layout_b, const void* beta, const void* c,
                               Layout layout_c, void* d, Layout layout_d, const cublasLtMatmulAlgo_t* algorithm,
                               void* workspace, size_t workspace_size, cudaStream_t stream) {
  return answer("cublasLtMatmul", [&] {
    check_handle(handle);
    check_stream(stream);
    Job job{};
    job.problem = problem_of(operation, layout_a, layout_b, layout_c, layout_d);
    const Choice choice = choice_of(algorithm, job.problem);
    job.alpha = scalar(alpha, job.problem.doubles());
    require_supported(scalar(beta, job.problem.doubles()) == 0 && (job.alpha == 1 || job.problem.count == 1));
    const Problem& it = job.problem;
    require(c == d && it.ldc == it.ldd && it.step_c == it.step_d, CONFLICT, "C is not D");
    require(workspace_size >= choice.workspace, CONFLICT, "a workspace of %zu bytes, the algorithm needs %u",
            workspace_size, choice.workspace);
    set_parts(job, operation, a, b, d, workspace, workspace_size);
    check_alignment(job, choice);
    check_memory(job);
    check_overlaps(job);
    use_workspace(job, choice.workspace);
    job.ticket = next_ticket();
    job.drops_nan = is_set("STANDIN_LT_NAN", "drop");
    enqueue(stream, job);
  });
}
