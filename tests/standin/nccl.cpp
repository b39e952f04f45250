// A stand-in of NCCL: sums over the processes of a machine, each with a device of its own, in memory that they share.
// Of the functions that CuPy's module is linked with the others are made by build.py, and refuse.
//
// A sum is work on a stream, and a node of a graph that captures the stream. When its stream comes to it, it waits for
// the same sum of all other ranks: for as many numbers of the same type, captured there too if it is here ("Using NCCL
// with CUDA Graphs", NCCL user guide: captured by all ranks or by none). The real one hangs where ranks disagree, or
// does not come back from one that stays away; this one notes a misuse, gives NaN, and answers no more.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <driver_types.h>

#include "standin.h"

extern "C" cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status);

namespace {
// nccl.h of NCCL 2.27
enum Result { SUCCESS, UNHANDLED_CUDA_ERROR, SYSTEM_ERROR, INTERNAL_ERROR, INVALID_ARGUMENT, INVALID_USAGE };
enum Type { FLOAT32 = 7, FLOAT64 = 8 };
const int SUM = 0, VERSION = 22707, RANKS = 8;
const size_t CHUNK = 1 << 20;

struct UniqueId {
  char internal[128];
};

struct Call {  // in what ranks must agree
  uint64_t count;
  int type, captured;
};

struct Slot {  // of a rank
  std::atomic<int> size, device;  // how many ranks there are, it says; its device, from 1
  std::atomic<uint64_t> posted, read;
  Call call;
  char data[CHUNK];
};

struct Shared {  // zeros, when it is new
  std::atomic<int> broken;
  Slot slots[RANKS];
};

struct Comm {
  Shared* shared;
  int size, rank, device;
  uint64_t round;
};

struct Job {
  Comm* comm;
  const char* from;
  char* to;
  Call call;
};

struct Living {  // the communicators that are not destroyed
  std::mutex lock;
  std::set<Comm*> comms;
};

Living& living() {
  static auto* found = new Living;
  return *found;
}

bool lives(Comm* comm) {
  std::lock_guard<std::mutex> guard(living().lock);
  return living().comms.count(comm);
}

double patience() {
  const char* seconds = std::getenv("STANDIN_NCCL_SECONDS");
  return seconds ? std::atof(seconds) : 60;
}

template <class Over>
bool wait(Shared& shared, Over over) {  // false: it takes too long, or another rank has given up
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::duration<double>(patience());
  while (!over()) {
    if (shared.broken || Clock::now() > end) return over();
    std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
  return true;
}

template <class Of>
bool all(const Comm& comm, Of of) {
  for (int rank = 0; rank < comm.size; ++rank)
    if (!of(comm.shared->slots[rank])) return false;
  return true;
}

size_t bytes_of(int type) { return type == FLOAT32 ? 4 : 8; }

template <class T>
void add(char* sum, const char* other, size_t bytes) {
  for (size_t k = 0; k < bytes; k += sizeof(T)) {
    T a, b;
    std::memcpy(&a, sum + k, sizeof a);
    std::memcpy(&b, other + k, sizeof b);
    a += b;
    std::memcpy(sum + k, &a, sizeof a);
  }
}

// Exchange some bytes of a sum, and add them up in the order of the ranks; what is wrong, if anything is.
std::string exchange(Comm& comm, const Call& call, const char* from, char* to, size_t bytes) {
  Shared& shared = *comm.shared;
  Slot& own = shared.slots[comm.rank];
  const uint64_t round = ++comm.round;
  own.call = call;
  std::memcpy(own.data, from, bytes);
  own.posted = round;
  if (!wait(shared, [&] { return all(comm, [&](Slot& slot) { return slot.posted >= round; }); }))
    return "not all ranks came to it";
  std::vector<char> sum(shared.slots[0].data, shared.slots[0].data + bytes);
  for (int rank = 0; rank < comm.size; ++rank) {
    const Call& other = shared.slots[rank].call;
    char text[200];
    std::snprintf(text, sizeof text, "%llu numbers of type %d, %scaptured, while rank %d has %llu of type %d, %scaptured",
                  (unsigned long long)call.count, call.type, call.captured ? "" : "not ", rank,
                  (unsigned long long)other.count, other.type, other.captured ? "" : "not ");
    if (other.count != call.count || other.type != call.type || other.captured != call.captured) return text;
    if (rank) (call.type == FLOAT32 ? add<float> : add<double>)(sum.data(), shared.slots[rank].data, bytes);
  }
  own.read = round;
  if (!wait(shared, [&] { return all(comm, [&](Slot& slot) { return slot.read >= round; }); }))
    return "not all ranks read it";
  std::memcpy(to, sum.data(), bytes);
  return "";
}

void run(const void* given) {
  const Job& job = *static_cast<const Job*>(given);
  const size_t bytes = job.call.count * bytes_of(job.call.type);
  if (!standin_owns(job.from, bytes) || !standin_owns(job.to, bytes)) {
    standin_misuse("ncclAllReduce: memory that was freed, or no device's");
    return;
  }
  std::string wrong = lives(job.comm) ? "" : "a communicator that is destroyed";
  for (size_t start = 0; wrong.empty() && start < std::max(bytes, size_t(1)); start += CHUNK)
    wrong = exchange(*job.comm, job.call, job.from + start, job.to + start, std::min(CHUNK, bytes - start));
  if (wrong.empty()) return;
  job.comm->shared->broken = 1;
  standin_misuse("ncclAllReduce of rank %d: %s", job.comm->rank, wrong.c_str());
  std::memset(job.to, 0xff, bytes);  // NaN
}

Result refuse(Result status, const char* format, int rank) {
  standin_misuse(format, rank);
  return status;
}
}  // namespace

EXPORTED const char* ncclGetErrorString(int status) {
  const char* texts[] = {"no error", "a CUDA error", "a system error", "an internal error", "an invalid argument",
                         "an invalid usage"};
  return status >= 0 && status <= INVALID_USAGE ? texts[status] : "unknown";
}

EXPORTED int ncclGetVersion(int* version) {
  *version = VERSION;
  return SUCCESS;
}

EXPORTED int ncclGetUniqueId(UniqueId* id) {
  const auto now = std::chrono::steady_clock::now().time_since_epoch().count();
  std::memset(id, 0, sizeof *id);
  std::snprintf(id->internal, sizeof id->internal, "/standin-nccl-%d-%llx", getpid(), (unsigned long long)now);
  return SUCCESS;
}

EXPORTED int ncclCommInitRankConfig(Comm** made, int size, UniqueId id, int rank, void*) {
  *made = nullptr;
  if (const char* text = std::getenv("STANDIN_NCCL_REFUSES"); text && std::atoi(text) == rank) return SYSTEM_ERROR;
  if (size < 1 || size > RANKS || rank < 0 || rank >= size || !std::memchr(id.internal, 0, sizeof id.internal))
    return INVALID_ARGUMENT;
  const int file = shm_open(id.internal, O_CREAT | O_RDWR, 0600);
  if (file < 0 || ftruncate(file, sizeof(Shared))) return SYSTEM_ERROR;
  void* place = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (place == MAP_FAILED) return SYSTEM_ERROR;
  auto* comm = new Comm{static_cast<Shared*>(place), size, rank, standin_current_device(), 0};  // stays: work may wait
  Slot* slots = comm->shared->slots;
  slots[rank].device = comm->device + 1;
  if (slots[rank].size.exchange(size)) return refuse(INVALID_USAGE, "ncclCommInitRank: two ranks are number %d", rank);
  const bool here = wait(*comm->shared, [&] { return all(*comm, [](Slot& slot) { return slot.size > 0; }); });
  shm_unlink(id.internal);
  if (!here) return refuse(SYSTEM_ERROR, "ncclCommInitRank of rank %d: not all ranks came to it", rank);
  for (int other = 0; other < size; ++other)
    if (slots[other].size != size || (other != rank && slots[other].device == slots[rank].device))
      return refuse(INVALID_USAGE, "ncclCommInitRank: rank %d has another's device, or counts otherwise", rank);
  std::lock_guard<std::mutex> guard(living().lock);
  living().comms.insert(*made = comm);
  return SUCCESS;
}

EXPORTED int ncclCommDestroy(Comm* comm) {
  std::lock_guard<std::mutex> guard(living().lock);
  living().comms.erase(comm);
  return SUCCESS;
}

EXPORTED int ncclCommAbort(Comm* comm) { return ncclCommDestroy(comm); }

EXPORTED int ncclAllReduce(const void* from, void* to, size_t count, int type, int op, Comm* comm, cudaStream_t stream) {
  if (!lives(comm)) return refuse(INVALID_ARGUMENT, "ncclAllReduce: no communicator (%d)", 0);
  if ((type != FLOAT32 && type != FLOAT64) || op != SUM) return INVALID_ARGUMENT;
  if (standin_device_of(stream) != comm->device || standin_current_device() != comm->device)
    return refuse(INVALID_ARGUMENT, "ncclAllReduce of rank %d: a stream of another device", comm->rank);
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  if (cudaStreamIsCapturing(stream, &status)) return UNHANDLED_CUDA_ERROR;
  const Call call{count, type, status == cudaStreamCaptureStatusActive};
  const Job job{comm, static_cast<const char*>(from), static_cast<char*>(to), call};
  return standin_enqueue(stream, "ncclAllReduce", run, &job, sizeof job) ? UNHANDLED_CUDA_ERROR : SUCCESS;
}
