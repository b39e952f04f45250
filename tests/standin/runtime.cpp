// The CUDA runtime, as much of it as CuPy needs for arrays, streams, events and graphs.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstring>

#include "memory.h"
#include "standin.h"
#include "streams.h"

#undef cudaGetDeviceProperties

namespace {
thread_local cudaError_t last = cudaSuccess;

cudaError_t said(int error) {
  if (error) last = static_cast<cudaError_t>(error);
  return static_cast<cudaError_t>(error);
}

const int VERSION = 13000;

struct Named {
  cudaError_t error;
  const char *name, *text;
};
#define NAMED(name, text) {name, #name, text}
const Named ERRORS[] = {
    NAMED(cudaSuccess, "no error"),
    NAMED(cudaErrorInvalidValue, "invalid argument"),
    NAMED(cudaErrorMemoryAllocation, "out of memory"),
    NAMED(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    NAMED(cudaErrorInvalidDevice, "invalid device ordinal"),
    NAMED(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    NAMED(cudaErrorIllegalState, "the operation cannot be performed in the present state"),
    NAMED(cudaErrorNotReady, "device not ready"),
    NAMED(cudaErrorNotSupported, "operation not supported"),
    NAMED(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
    NAMED(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture"),
    NAMED(cudaErrorStreamCaptureIsolation, "dependency created on uncaptured work in another stream"),
    NAMED(cudaErrorStreamCaptureImplicit, "operation would make the legacy stream depend on a capturing blocking stream"),
};

const Named* find_error(cudaError_t error) {
  for (const Named& one : ERRORS)
    if (one.error == error) return &one;
  return nullptr;
}

int attribute(cudaDeviceAttr what) {
  switch (what) {
    case cudaDevAttrComputeCapabilityMajor: return 9;
    case cudaDevAttrComputeCapabilityMinor: return 0;
    case cudaDevAttrMultiProcessorCount: return 132;
    case cudaDevAttrMaxThreadsPerBlock: return 1024;
    case cudaDevAttrMaxThreadsPerMultiProcessor: return 2048;
    case cudaDevAttrMaxSharedMemoryPerBlock: return 48 << 10;
    case cudaDevAttrWarpSize: return 32;
    case cudaDevAttrMemoryPoolsSupported: return 0;
    default: return 1;
  }
}

// Copies

bool outside(const void* address, size_t size) {
  return memory::device_of(address) >= 0 && !memory::owns(address, size);
}

int put_copy(cudaStream_t handle, void* to, const void* from, size_t size) {
  return streams::put(handle, "memcpy", [=] { std::memcpy(to, from, size); });
}

// From pageable memory the source is read at the call, into pageable memory the call waits; from and into page-locked
// memory, and in a capture, everything happens when the stream comes to it.
int copy(void* to, const void* from, size_t size, cudaStream_t handle) {
  if (outside(to, size) || outside(from, size)) {
    standin_misuse("a copy of %zu bytes goes beyond a piece of device memory", size);
    return cudaErrorInvalidValue;
  }
  CUstream_st* stream = streams::find(handle);
  if (!stream) return cudaErrorInvalidResourceHandle;
  const bool down = memory::device_of(to) < 0, up = memory::device_of(from) < 0;
  if (stream->capture != Capture::none) return put_copy(handle, to, from, size);
  if (up && !memory::is_pinned(from)) {
    const char* bytes = static_cast<const char*>(from);
    auto read = std::make_shared<std::vector<char>>(bytes, bytes + size);
    const int error = streams::put(handle, "memcpy", [=] { std::memcpy(to, read->data(), size); });
    return error || !down ? error : streams::wait_for(stream);
  }
  const int error = put_copy(handle, to, from, size);
  return error || !down || memory::is_pinned(to) ? error : streams::wait_for(stream);
}
}  // namespace

// Errors, versions, devices

EXPORTED const char* cudaGetErrorName(cudaError_t error) {
  const Named* found = find_error(error);
  return found ? found->name : "cudaErrorUnknown";
}

EXPORTED const char* cudaGetErrorString(cudaError_t error) {
  const Named* found = find_error(error);
  return found ? found->text : "unknown error";
}

EXPORTED cudaError_t cudaGetLastError() {
  const cudaError_t error = last;
  last = cudaSuccess;
  return error;
}

EXPORTED cudaError_t cudaDriverGetVersion(int* version) {
  *version = VERSION;
  return cudaSuccess;
}

EXPORTED cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = VERSION;
  return cudaSuccess;
}

EXPORTED cudaError_t cudaDeviceGetPCIBusId(char* text, int size, int device) {
  std::snprintf(text, size, "0000:%02x:00.0", device);
  return cudaSuccess;
}

EXPORTED cudaError_t cudaGetDeviceCount(int* count) {
  *count = memory::devices();
  return said(*count ? 0 : cudaErrorNoDevice);
}

EXPORTED cudaError_t cudaGetDevice(int* device) {
  *device = streams::current_device();
  return cudaSuccess;
}

EXPORTED cudaError_t cudaSetDevice(int device) {
  return said(streams::use_device(device) ? 0 : cudaErrorInvalidDevice);
}

EXPORTED cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr what, int) {
  *value = attribute(what);
  return cudaSuccess;
}

EXPORTED cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  std::memset(properties, 0, sizeof *properties);
  std::snprintf(properties->name, sizeof properties->name, "stand-in, no GPU, number %d", device);
  properties->major = attribute(cudaDevAttrComputeCapabilityMajor);
  properties->multiProcessorCount = attribute(cudaDevAttrMultiProcessorCount);
  properties->warpSize = attribute(cudaDevAttrWarpSize);
  properties->maxThreadsPerBlock = attribute(cudaDevAttrMaxThreadsPerBlock);
  properties->sharedMemPerBlock = attribute(cudaDevAttrMaxSharedMemoryPerBlock);
  properties->totalGlobalMem = memory::capacity();
  properties->maxGridSize[0] = 2147483647;
  return cudaSuccess;
}

EXPORTED cudaError_t cudaDeviceSynchronize() {
  LOCKED;
  return said(streams::wait_for_device());
}

// Memory

EXPORTED cudaError_t cudaMemGetInfo(size_t* available, size_t* all) {
  LOCKED;
  *available = memory::available(streams::current_device());
  *all = memory::capacity();
  return cudaSuccess;
}

EXPORTED cudaError_t cudaMalloc(void** address, size_t size) {
  LOCKED;
  if (int error = streams::may_be_captured("cudaMalloc")) return said(error);
  *address = memory::allocate(streams::current_device(), size);
  return said(*address ? 0 : cudaErrorMemoryAllocation);
}

EXPORTED cudaError_t cudaFree(void* address) {  // waits for the device, as the real one does
  LOCKED;
  if (!address) return cudaSuccess;
  if (int error = streams::may_be_captured("cudaFree")) return said(error);
  const int now = streams::current_device(), owner = memory::device_of(address);
  if (owner >= 0) {
    streams::use_device(owner);
    streams::wait_for_device();
    streams::use_device(now);
  }
  if (memory::release(address)) return cudaSuccess;
  standin_misuse("cudaFree of what was not allocated, or was freed before");
  return said(cudaErrorInvalidValue);
}

EXPORTED cudaError_t cudaHostAlloc(void** address, size_t size, unsigned) {
  LOCKED;
  if (int error = streams::may_be_captured("cudaHostAlloc")) return said(error);
  *address = memory::pin(size);
  return cudaSuccess;
}

EXPORTED cudaError_t cudaFreeHost(void* address) {
  LOCKED;
  if (!address) return cudaSuccess;
  streams::wait_for_device();
  return said(memory::unpin(address) ? 0 : cudaErrorInvalidValue);
}

EXPORTED cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, cudaMemcpyKind, cudaStream_t stream) {
  LOCKED;
  return said(copy(to, from, size, stream));
}

EXPORTED cudaError_t cudaMemcpy(void* to, const void* from, size_t size, cudaMemcpyKind) {
  LOCKED;
  const int error = copy(to, from, size, nullptr);
  return said(error ? error : streams::wait_for(streams::find(nullptr)));
}

EXPORTED cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t size, cudaStream_t stream) {
  LOCKED;
  return said(copy(to, from, size, stream));
}

EXPORTED cudaError_t cudaMemcpyPeer(void* to, int, const void* from, int, size_t size) {
  return cudaMemcpy(to, from, size, cudaMemcpyDefault);
}

EXPORTED cudaError_t cudaMemsetAsync(void* address, int value, size_t size, cudaStream_t stream) {
  LOCKED;
  if (!memory::owns(address, size)) {
    standin_misuse("cudaMemset of %zu bytes goes beyond a piece of device memory", size);
    return said(cudaErrorInvalidValue);
  }
  return said(streams::put(stream, "memset", [=] { std::memset(address, value, size); }));
}

EXPORTED cudaError_t cudaMemset(void* address, int value, size_t size) {
  return cudaMemsetAsync(address, value, size, nullptr);
}

EXPORTED cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* found, const void* address) {
  LOCKED;
  std::memset(found, 0, sizeof *found);
  const int device = memory::device_of(address);
  const cudaMemoryType host = memory::is_pinned(address) ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
  found->type = device >= 0 ? cudaMemoryTypeDevice : host;
  found->device = device >= 0 ? device : 0;
  (device >= 0 ? found->devicePointer : found->hostPointer) = const_cast<void*>(address);
  return cudaSuccess;
}

// Streams and events

EXPORTED cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  LOCKED;
  *stream = streams::create(!(flags & cudaStreamNonBlocking));
  return cudaSuccess;
}

EXPORTED cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return cudaStreamCreateWithPriority(stream, flags, 0);
}

EXPORTED cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithPriority(stream, 0, 0); }

EXPORTED cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  LOCKED;
  return said(streams::destroy(stream));
}

#define STREAM(handle)                                  \
  CUstream_st* stream = streams::find(handle);          \
  if (!stream) return said(cudaErrorInvalidResourceHandle)

EXPORTED cudaError_t cudaStreamGetFlags(cudaStream_t handle, unsigned* flags) {
  LOCKED;
  STREAM(handle);
  *flags = stream->blocking ? cudaStreamDefault : cudaStreamNonBlocking;
  return cudaSuccess;
}

EXPORTED cudaError_t cudaStreamGetPriority(cudaStream_t, int* priority) {
  *priority = 0;
  return cudaSuccess;
}

EXPORTED cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  LOCKED;
  STREAM(handle);
  return said(streams::wait_for(stream));
}

EXPORTED cudaError_t cudaStreamQuery(cudaStream_t handle) {
  LOCKED;
  STREAM(handle);
  if (stream->capture != Capture::none) return said(streams::wait_for(stream));
  return streams::is_idle(stream) ? cudaSuccess : cudaErrorNotReady;
}

EXPORTED cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
  LOCKED;
  STREAM(handle);
  return said(streams::await(stream, event));
}

EXPORTED cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return cudaSuccess;
}

EXPORTED cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }

EXPORTED cudaError_t cudaEventDestroy(cudaEvent_t event) {
  LOCKED;
  delete event;
  return cudaSuccess;
}

EXPORTED cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
  LOCKED;
  STREAM(handle);
  event->captured = stream->capture == Capture::none ? nullptr : stream;
  return event->captured ? cudaSuccess : said(streams::put(handle, "event", [] {}, &event->mark));
}

EXPORTED cudaError_t cudaEventQuery(cudaEvent_t event) {
  LOCKED;
  if (event->captured) return said(cudaErrorStreamCaptureUnsupported);
  if (event->mark) streams::is_idle(event->mark->stream);
  return !event->mark || event->mark->done ? cudaSuccess : cudaErrorNotReady;
}

EXPORTED cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  LOCKED;
  if (event->captured) return said(cudaErrorStreamCaptureUnsupported);
  streams::wait_for_point(event->mark);
  return cudaSuccess;
}

EXPORTED cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
  *milliseconds = 1;  // time means nothing here
  return cudaSuccess;
}

// Graphs: what is instantiated is a copy of what was captured

EXPORTED cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  LOCKED;
  STREAM(handle);
  return said(streams::begin_capture(stream, mode));
}

EXPORTED cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  LOCKED;
  STREAM(handle);
  return said(streams::end_capture(stream, graph));
}

EXPORTED cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  LOCKED;
  STREAM(handle);
  int found = 0;
  const int error = streams::capture_status(stream, &found);
  *status = static_cast<cudaStreamCaptureStatus>(found);
  return said(error);
}

EXPORTED cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  LOCKED;
  *executable = reinterpret_cast<cudaGraphExec_t>(new CUgraph_st(*graph));
  return cudaSuccess;
}

EXPORTED cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  LOCKED;
  delete graph;
  return cudaSuccess;
}

EXPORTED cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  LOCKED;
  delete reinterpret_cast<CUgraph_st*>(executable);
  return cudaSuccess;
}

EXPORTED cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }

EXPORTED cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t handle) {
  LOCKED;
  auto nodes = reinterpret_cast<CUgraph_st*>(executable)->nodes;
  return said(streams::put(handle, "graph", [nodes] {
    for (const Node& node : nodes) node.work();
  }));
}
