// What the stand-in's libraries share: the driver (driver.cpp) keeps memory and streams, cuBLAS (blas.cpp) and cuBLASLt
// (lt.cpp) put their work on its streams. Nothing here computes when it is called, only when its stream comes to it.
#pragma once
#include <cstddef>

#define EXPORTED extern "C" __attribute__((visibility("default")))

// Put work on a stream: run(job) with a copy of the `size` bytes of job. Returns 0, or a cudaError if the stream refuses.
EXPORTED int standin_enqueue(void* stream, const char* name, void (*run)(const void* job), const void* job, size_t size);

// Whether [address, address + size) lies in one living piece of the device's memory.
EXPORTED bool standin_owns(const void* address, size_t size);

// The current device of this thread, and the device of a stream (-1: there is no such stream).
EXPORTED int standin_current_device();
EXPORTED int standin_device_of(void* stream);

// Note something that the real library would not have survived, or would not have said: tests ask for it afterwards.
// Format as in printf. Returns nothing: what the caller answers is its own affair.
EXPORTED void standin_misuse(const char* format, ...);
