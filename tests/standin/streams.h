// Streams, events, capture and graphs of the stand-in.
//
// Work on one stream is done in its order; work on different streams in any order that events, and the legacy default
// stream, allow. When, is chosen: `lazy` does nothing before someone waits for it, `eager` does all at once, `random`
// takes steps by lot, `others` does the default stream's work as late as it may and all other work at once.
#pragma once
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

struct CUstream_st;

using Work = std::function<void()>;

struct Mark {  // a point on a stream: done, once all before it is done
  bool done = false;
  CUstream_st* stream = nullptr;
};
using Point = std::shared_ptr<Mark>;

struct Task {
  std::string name;
  Work work;
  Point mark;
  std::vector<Point> after;  // what must be done before, on other streams
};

struct Node {
  std::string name;
  Work work;
};

struct CUgraph_st {
  std::vector<Node> nodes;
};

enum class Capture { none, active, invalid };

struct CUstream_st {
  explicit CUstream_st(int device, bool blocking = true) : device(device), blocking(blocking) {}
  int device;
  bool blocking;  // waits for the legacy default stream, and is waited for
  bool running = false;
  std::deque<Task> tasks;
  std::vector<Point> awaited;  // events that the next task must wait for
  Capture capture = Capture::none;
  int mode = 0;  // of the capture: global 0, thread-local 1, relaxed 2
  std::shared_ptr<CUgraph_st> graph;
};

struct CUevent_st {
  Point mark;
  CUstream_st* captured = nullptr;  // recorded while this stream was capturing
};

namespace streams {
int current_device();
bool use_device(int device);

CUstream_st* find(void* handle);  // null: there is none of that name; the handles 0, 1, 2 mean the default stream
CUstream_st* create(bool blocking);
int destroy(CUstream_st* stream);

int put(void* handle, const std::string& name, Work work, Point* mark = nullptr);
int wait_for(CUstream_st* stream);       // until it has done all its work
int wait_for_device();                   // until all streams of the current device have
void wait_for_point(const Point& point);
bool is_idle(CUstream_st* stream);       // asks, and gives the device a chance to go on
int await(CUstream_st* stream, CUevent_st* event);

int begin_capture(CUstream_st* stream, int mode);
int end_capture(CUstream_st* stream, CUgraph_st** graph);
int capture_status(CUstream_st* stream, int* status);
int may_be_captured(const char* call);   // 0, or the error of a call that a capture somewhere forbids; it is lost then
}  // namespace streams
