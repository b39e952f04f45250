// The CUDA driver, as much of it as CuPy needs: contexts in name only, modules and kernel launches.
//
// A module's image is the path of a shared library, into which the host's compiler made the kernels (kernels.py). A
// launch copies its arguments, as the real one does, and runs when the stream comes to it.
#include <cuda.h>
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>

#include "memory.h"
#include "standin.h"
#include "streams.h"

#undef cuDevicePrimaryCtxRelease
#undef cuModuleGetGlobal

namespace {
using Run = void (*)(void** arguments, const unsigned* grid, const unsigned* block, unsigned shared);

struct Module {
  void* library;
  int device;
};

struct Kernel {
  std::string name;
  Run run;
  const int* sizes;  // how many parameters, then the bytes of each
  int device;
};

const char IMAGE[] = "stand-in ";
const int MOST_THREADS = 1024, SHARED_MEMORY = 48 << 10;

using Arguments = std::vector<std::vector<char>>;

Arguments copied(const Kernel& kernel, void** given) {
  Arguments all;
  for (int k = 0; k < kernel.sizes[0]; ++k) {
    const char* bytes = static_cast<const char*>(given[k]);
    all.emplace_back(bytes, bytes + kernel.sizes[k + 1]);
  }
  return all;
}

// An address with which an argument begins must lie in living memory of the kernel's own device, when it runs. What
// comes behind is not looked at: CuPy's CIndexer ends in words that nobody has written, such as an address of long ago.
void check_addresses(const Kernel& kernel, const Arguments& arguments) {
  for (const auto& bytes : arguments) {
    if (bytes.size() < sizeof(void*)) continue;
    void* address;
    std::memcpy(&address, bytes.data(), sizeof address);
    const int device = memory::device_of(address);
    if (device < 0) continue;
    if (device != kernel.device) standin_misuse("kernel %s reads another device's memory", kernel.name.c_str());
    if (!memory::owns(address, 0)) standin_misuse("kernel %s uses memory that was freed", kernel.name.c_str());
  }
}

bool is_possible(const unsigned* grid, const unsigned* block, unsigned shared) {
  for (int k = 0; k < 3; ++k)
    if (!grid[k] || !block[k]) return false;
  return uint64_t(block[0]) * block[1] * block[2] <= MOST_THREADS && block[2] <= 64 && grid[0] <= INT32_MAX &&
         grid[1] <= UINT16_MAX && grid[2] <= UINT16_MAX && shared <= SHARED_MEMORY;
}
}  // namespace

EXPORTED CUresult cuGetErrorName(CUresult error, const char** name) {
  thread_local char text[40];
  std::snprintf(text, sizeof text, "CUDA_ERROR_%d", static_cast<int>(error));
  *name = text;
  return CUDA_SUCCESS;
}

EXPORTED CUresult cuGetErrorString(CUresult error, const char** text) { return cuGetErrorName(error, text); }

EXPORTED CUresult cuCtxGetCurrent(CUcontext* context) {
  *context = reinterpret_cast<CUcontext>(uintptr_t(standin_current_device() + 1));
  return CUDA_SUCCESS;
}

EXPORTED CUresult cuCtxSetCurrent(CUcontext context) {
  const bool known = streams::use_device(static_cast<int>(reinterpret_cast<uintptr_t>(context)) - 1);
  return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

EXPORTED CUresult cuCtxGetDevice(CUdevice* device) {
  *device = standin_current_device();
  return CUDA_SUCCESS;
}

EXPORTED CUresult cuDevicePrimaryCtxRelease_v2(CUdevice) { return CUDA_SUCCESS; }

EXPORTED CUresult cuStreamGetCtx(CUstream stream, CUcontext* context) {
  *context = reinterpret_cast<CUcontext>(uintptr_t(standin_device_of(stream) + 1));
  return CUDA_SUCCESS;
}

EXPORTED CUresult cuModuleLoadData(CUmodule* module, const void* image) {
  LOCKED;
  if (int error = streams::may_be_captured("cuModuleLoadData")) return static_cast<CUresult>(error);
  const char* text = static_cast<const char*>(image);
  const size_t mark = sizeof IMAGE - 1;
  void* library = std::strncmp(text, IMAGE, mark) ? nullptr : dlopen(text + mark, RTLD_NOW | RTLD_LOCAL);
  if (!library) return CUDA_ERROR_INVALID_IMAGE;
  *module = reinterpret_cast<CUmodule>(new Module{library, standin_current_device()});
  return CUDA_SUCCESS;
}

EXPORTED CUresult cuModuleUnload(CUmodule module) {  // the library stays: work that waits may need it
  delete reinterpret_cast<Module*>(module);
  return CUDA_SUCCESS;
}

EXPORTED CUresult cuModuleGetFunction(CUfunction* function, CUmodule handle, const char* name) {
  LOCKED;
  auto* module = reinterpret_cast<Module*>(handle);
  void* run = dlsym(module->library, (std::string("standin_run_") + name).c_str());
  void* sizes = dlsym(module->library, (std::string("standin_sizes_") + name).c_str());
  if (!run || !sizes) return CUDA_ERROR_NOT_FOUND;
  const int* table = *static_cast<const int**>(sizes);
  auto* kernel = new Kernel{name, reinterpret_cast<Run>(run), table, module->device};
  *function = reinterpret_cast<CUfunction>(kernel);
  return CUDA_SUCCESS;
}

EXPORTED CUresult cuLaunchKernel(CUfunction function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                                 unsigned bz, unsigned shared, CUstream stream, void** given, void**) {
  LOCKED;
  const auto* kernel = reinterpret_cast<Kernel*>(function);
  const unsigned grid[] = {gx, gy, gz}, block[] = {bx, by, bz};
  if (!is_possible(grid, block, shared)) return CUDA_ERROR_INVALID_VALUE;
  const int device = standin_device_of(stream);
  if (device != kernel->device || device != standin_current_device()) {
    standin_misuse("kernel %s of device %d on a stream of device %d, while %d is the current device",
                   kernel->name.c_str(), kernel->device, device, standin_current_device());
    return CUDA_ERROR_INVALID_HANDLE;
  }
  auto arguments = std::make_shared<Arguments>(copied(*kernel, given));
  return static_cast<CUresult>(streams::put(stream, kernel->name, [=] {
    check_addresses(*kernel, *arguments);
    std::vector<void*> pointers;
    for (auto& bytes : *arguments) pointers.push_back(bytes.data());
    const unsigned blocks[] = {gx, gy, gz}, threads[] = {bx, by, bz};
    kernel->run(pointers.data(), blocks, threads, shared);
  }));
}

EXPORTED CUresult cuFuncGetAttribute(int* value, CUfunction_attribute what, CUfunction) {
  *value = what == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? MOST_THREADS : 0;
  return CUDA_SUCCESS;
}

EXPORTED CUresult cuFuncSetAttribute(CUfunction, CUfunction_attribute, int) { return CUDA_SUCCESS; }

EXPORTED CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction, int, size_t) {
  *blocks = 2;
  return CUDA_SUCCESS;
}

EXPORTED CUresult cuOccupancyMaxPotentialBlockSize(int* grid, int* block, CUfunction, CUoccupancyB2DSize, size_t, int) {
  *grid = 264;
  *block = 256;
  return CUDA_SUCCESS;
}

EXPORTED CUresult cuGraphGetNodes(CUgraph graph, CUgraphNode*, size_t* count) {
  LOCKED;
  *count = reinterpret_cast<CUgraph_st*>(graph)->nodes.size();
  return CUDA_SUCCESS;
}
