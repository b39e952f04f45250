// The memory of the stand-in's devices: a stretch of the host's address space for each, handed out piece by piece.
#pragma once
#include <cstddef>
#include <mutex>

extern std::recursive_mutex everything;  // one lock for all: the stand-in is a machine with one hand
#define LOCKED std::lock_guard<std::recursive_mutex> locked(everything)

namespace memory {
int devices();                                    // how many there are: STANDIN_DEVICES, 1 if it is not set
void* allocate(int device, size_t size);          // NaN all over; null if the device is full
bool release(void* address);                      // false if nothing was allocated there
bool owns(const void* address, size_t size);      // inside one living piece?
int device_of(const void* address);               // -1: it is not a device's
size_t capacity();                                // bytes of one device: STANDIN_MEMORY, 4 GiB if it is not set
size_t available(int device);
void* pin(size_t size);                           // page-locked memory of the host
bool unpin(void* address);
bool is_pinned(const void* address);
}  // namespace memory
