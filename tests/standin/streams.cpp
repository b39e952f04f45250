#include "streams.h"

#include <driver_types.h>

#include <algorithm>
#include <cstdarg>
#include <cstdlib>
#include <cstring>
#include <random>
#include <set>

#include "memory.h"
#include "standin.h"

namespace {
enum class Order { lazy, eager, random, others };
Order order = Order::lazy;
std::mt19937 lot;
std::vector<std::string> misuses;
thread_local int device = 0;

std::set<CUstream_st*>& created() {
  static std::set<CUstream_st*> found;
  return found;
}

CUstream_st* legacy(int number) {  // the default stream of a device
  static std::vector<CUstream_st*> found = [] {
    std::vector<CUstream_st*> made;
    for (int k = 0; k < memory::devices(); ++k) made.push_back(new CUstream_st(k));
    return made;
  }();
  return found[number];
}

bool is_legacy(const CUstream_st* stream) { return stream == legacy(stream->device); }

std::vector<CUstream_st*> of_device(int number) {
  std::vector<CUstream_st*> found{legacy(number)};
  for (CUstream_st* stream : created())
    if (stream->device == number) found.push_back(stream);
  return found;
}

void do_next(CUstream_st* stream) {
  if (stream->tasks.empty() || stream->running) return;
  stream->running = true;
  for (const Point& point : stream->tasks.front().after) streams::wait_for_point(point);
  Task task = std::move(stream->tasks.front());
  stream->tasks.pop_front();
  task.work();
  task.mark->done = true;
  stream->running = false;
}

void do_all(CUstream_st* stream) {
  while (!stream->tasks.empty() && !stream->running) do_next(stream);
}

void do_some_by_lot() {
  for (int k = lot() % 4; k > 0; --k) {
    std::vector<CUstream_st*> busy;
    for (int number = 0; number < memory::devices(); ++number)
      for (CUstream_st* stream : of_device(number))
        if (!stream->tasks.empty()) busy.push_back(stream);
    if (busy.empty()) return;
    do_next(busy[lot() % busy.size()]);
  }
}

void go_on(CUstream_st* stream) {
  if (order == Order::eager || (order == Order::others && !is_legacy(stream))) do_all(stream);
  if (order == Order::random) do_some_by_lot();
}

int lose_capture(CUstream_st* stream, int error) {
  stream->capture = Capture::invalid;
  return error;
}

// The legacy default stream and blocking streams wait for each other's last work.
void order_with_legacy(CUstream_st* stream, Task& task) {
  for (CUstream_st* other : of_device(stream->device)) {
    const bool waits = is_legacy(stream) ? other->blocking : stream->blocking && is_legacy(other);
    if (other != stream && waits && !other->tasks.empty()) task.after.push_back(other->tasks.back().mark);
  }
}

int implicit_capture(CUstream_st* stream) {  // work on the default stream would join a blocking stream's capture
  if (!is_legacy(stream)) return 0;
  for (CUstream_st* other : of_device(stream->device))
    if (other->blocking && other->capture != Capture::none) return lose_capture(other, cudaErrorStreamCaptureImplicit);
  return 0;
}
}  // namespace

namespace streams {
int current_device() { return device; }

bool use_device(int number) {
  if (number < 0 || number >= memory::devices()) return false;
  device = number;
  return true;
}

CUstream_st* find(void* handle) {
  if (reinterpret_cast<size_t>(handle) <= 2) return legacy(device);
  auto* stream = static_cast<CUstream_st*>(handle);
  return created().count(stream) ? stream : nullptr;
}

CUstream_st* create(bool blocking) {
  auto* stream = new CUstream_st(device, blocking);
  created().insert(stream);
  return stream;
}

int destroy(CUstream_st* stream) {
  if (!created().count(stream)) return cudaErrorInvalidResourceHandle;
  do_all(stream);
  created().erase(stream);  // its memory stays: marks point to it
  return 0;
}

int put(void* handle, const std::string& name, Work work, Point* mark) {
  CUstream_st* stream = find(handle);
  if (!stream) return cudaErrorInvalidResourceHandle;
  if (stream->capture == Capture::invalid) return cudaErrorStreamCaptureInvalidated;
  if (stream->capture == Capture::active) {
    stream->graph->nodes.push_back({name, work});
    return 0;
  }
  if (int error = implicit_capture(stream)) return error;
  Task task{name, std::move(work), std::make_shared<Mark>(), std::move(stream->awaited)};
  stream->awaited.clear();
  task.mark->stream = stream;
  order_with_legacy(stream, task);
  if (mark) *mark = task.mark;
  stream->tasks.push_back(std::move(task));
  go_on(stream);
  return 0;
}

void wait_for_point(const Point& point) {
  while (point && !point->done) {
    if (point->stream->tasks.empty()) std::abort();  // a point that nothing leads to: the stand-in itself is wrong
    do_next(point->stream);
  }
}

int wait_for(CUstream_st* stream) {
  if (stream->capture != Capture::none) return lose_capture(stream, cudaErrorStreamCaptureUnsupported);
  if (int error = implicit_capture(stream)) return error;
  do_all(stream);
  for (const Point& point : stream->awaited) wait_for_point(point);
  if (is_legacy(stream))
    for (CUstream_st* other : of_device(stream->device))
      if (other->blocking) do_all(other);
  return 0;
}

int wait_for_device() {
  for (CUstream_st* stream : of_device(device))
    if (stream->capture != Capture::none) return lose_capture(stream, cudaErrorStreamCaptureUnsupported);
  for (CUstream_st* stream : of_device(device)) do_all(stream);
  return 0;
}

bool is_idle(CUstream_st* stream) {
  if (order == Order::random) do_some_by_lot();
  return stream->tasks.empty();
}

int await(CUstream_st* stream, CUevent_st* event) {
  if (stream->capture != Capture::none) {
    if (event->captured == stream) return 0;
    return lose_capture(stream, cudaErrorStreamCaptureIsolation);
  }
  if (event->captured) return cudaErrorStreamCaptureIsolation;
  if (event->mark && !event->mark->done) stream->awaited.push_back(event->mark);
  return 0;
}

int begin_capture(CUstream_st* stream, int mode) {
  if (is_legacy(stream)) return cudaErrorStreamCaptureUnsupported;
  if (stream->capture != Capture::none) return cudaErrorIllegalState;
  stream->capture = Capture::active;
  stream->mode = mode;
  stream->graph = std::make_shared<CUgraph_st>();
  return 0;
}

int end_capture(CUstream_st* stream, CUgraph_st** graph) {
  *graph = nullptr;
  if (stream->capture == Capture::none) return cudaErrorIllegalState;
  const bool lost = stream->capture == Capture::invalid;
  stream->capture = Capture::none;
  if (lost) return cudaErrorStreamCaptureInvalidated;
  *graph = new CUgraph_st(*stream->graph);
  return 0;
}

int capture_status(CUstream_st* stream, int* status) {
  if (int error = implicit_capture(stream)) return error;
  *status = static_cast<int>(stream->capture);
  return 0;
}

int may_be_captured(const char* call) {
  for (CUstream_st* stream : created())
    if (stream->capture != Capture::none && stream->mode != cudaStreamCaptureModeRelaxed) {
      standin_misuse("%s while a stream is capturing", call);
      return lose_capture(stream, cudaErrorStreamCaptureUnsupported);
    }
  return 0;
}
}  // namespace streams

// For cuBLAS, cuBLASLt and the tests

EXPORTED int standin_enqueue(void* stream, const char* name, void (*run)(const void*), const void* job, size_t size) {
  LOCKED;
  const auto* bytes = static_cast<const char*>(job);
  auto copy = std::make_shared<std::vector<char>>(bytes, bytes + size);
  return streams::put(stream, name, [run, copy] { run(copy->data()); });
}

EXPORTED bool standin_owns(const void* address, size_t size) {
  LOCKED;
  return memory::owns(address, size);
}

EXPORTED int standin_current_device() { return streams::current_device(); }

EXPORTED int standin_device_of(void* handle) {
  LOCKED;
  CUstream_st* stream = streams::find(handle);
  return stream ? stream->device : -1;
}

EXPORTED void standin_misuse(const char* format, ...) {
  LOCKED;
  char text[400];
  va_list values;
  va_start(values, format);
  std::vsnprintf(text, sizeof text, format, values);
  va_end(values);
  misuses.emplace_back(text);
}

// Copy the oldest misuse into `text` and forget it; false if there is none.
EXPORTED bool standin_next_misuse(char* text, size_t size) {
  LOCKED;
  if (misuses.empty()) return false;
  std::strncpy(text, misuses.front().c_str(), size);
  misuses.erase(misuses.begin());
  return true;
}

// Choose when work is done; false if there is no such order.
EXPORTED bool standin_order(const char* name, unsigned seed) {
  LOCKED;
  const char* names[] = {"lazy", "eager", "random", "others"};
  for (int k = 0; k < 4; ++k)
    if (!std::strcmp(name, names[k])) {
      order = static_cast<Order>(k);
      lot.seed(seed);
      return true;
    }
  return false;
}
