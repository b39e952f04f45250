// How both libraries refuse a call: with a status, and, where the caller should have known better, a misuse.
#pragma once
#include <cstdarg>
#include <cstdio>
#include <string>

#include <cublas_api.h>

#include "standin.h"

namespace {

// Why a call is refused. Without a reason it could be asked, and is not part of this stand-in: not a misuse.
struct Refusal {
  cublasStatus_t status;
  std::string why;
};

// In cublasLt.h's words: "parameters in conflict or in an impossible configuration"; an error of the device.
constexpr cublasStatus_t CONFLICT = CUBLAS_STATUS_INVALID_VALUE, FAILED = CUBLAS_STATUS_EXECUTION_FAILED;

__attribute__((format(printf, 3, 4))) void require(bool fine, cublasStatus_t status, const char* format, ...) {
  if (fine) return;
  char why[300];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(why, sizeof why, format, arguments);
  va_end(arguments);
  throw Refusal{status, why};
}

void require_supported(bool supported) {
  if (!supported) throw Refusal{CUBLAS_STATUS_NOT_SUPPORTED, ""};
}

template <class Call>
cublasStatus_t answer(const char* function, Call call) {
  try {
    call();
    return CUBLAS_STATUS_SUCCESS;
  } catch (const Refusal& refusal) {
    if (!refusal.why.empty()) standin_misuse("%s: %s", function, refusal.why.c_str());
    return refusal.status;
  }
}

}  // namespace
