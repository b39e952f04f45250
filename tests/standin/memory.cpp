#include "memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <vector>

std::recursive_mutex everything;

namespace memory {
namespace {
using Pieces = std::map<char*, size_t>;  // where each begins, and its size
const size_t RANGE = size_t(64) << 30;   // addresses of one device: never handed out twice before they are used up
const size_t GRAIN = 512;                // CUDA's own alignment, and the gap between pieces

struct Device {
  char* start = nullptr;
  size_t next = GRAIN, used = 0;
  Pieces living, dead;
};

size_t setting(const char* name, size_t otherwise) {
  const char* text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

std::vector<Device>& all() {
  static std::vector<Device> found = [] {
    std::vector<Device> made(setting("STANDIN_DEVICES", 1));
    for (Device& device : made)
      device.start = static_cast<char*>(
          mmap(nullptr, RANGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    return made;
  }();
  return found;
}

Pieces& pinned() {
  static Pieces found;
  return found;
}

bool inside(const Pieces& pieces, const void* address, size_t size) {
  auto after = pieces.upper_bound(const_cast<char*>(static_cast<const char*>(address)));
  if (after == pieces.begin()) return false;
  --after;
  return static_cast<const char*>(address) + size <= after->first + after->second;
}

void fill_with_nan(char* address, size_t size) { std::memset(address, 0xff, size); }
}  // namespace

int devices() { return static_cast<int>(all().size()); }
size_t capacity() { return setting("STANDIN_MEMORY", size_t(4) << 30); }
size_t available(int device) { return capacity() - std::min(capacity(), all()[device].used); }

void* allocate(int device, size_t size) {
  Device& one = all()[device];
  const size_t rounded = std::max((size + GRAIN - 1) / GRAIN, size_t(1)) * GRAIN;
  if (rounded > available(device)) return nullptr;
  auto same = std::find_if(one.dead.begin(), one.dead.end(), [&](const auto& piece) { return piece.second == rounded; });
  char* address = one.start + one.next;
  if (same != one.dead.end()) {  // the real one, too, soon gives the same address again
    address = same->first;
    one.dead.erase(same);
  } else {
    if (one.next + rounded + GRAIN > RANGE) return nullptr;
    one.next += rounded + GRAIN;
  }
  one.living[address] = rounded;
  one.used += rounded;
  fill_with_nan(address, rounded);
  return address;
}

bool release(void* address) {
  const int device = device_of(address);
  if (device < 0) return false;
  Device& one = all()[device];
  auto piece = one.living.find(static_cast<char*>(address));
  if (piece == one.living.end()) return false;
  fill_with_nan(piece->first, piece->second);
  one.used -= piece->second;
  one.dead.insert(*piece);
  one.living.erase(piece);
  return true;
}

int device_of(const void* address) {
  const char* at = static_cast<const char*>(address);
  for (int k = 0; k < devices(); ++k)
    if (at >= all()[k].start && at < all()[k].start + RANGE) return k;
  return -1;
}

bool owns(const void* address, size_t size) {
  const int device = device_of(address);
  return device >= 0 && inside(all()[device].living, address, size);
}

void* pin(size_t size) {
  char* address = static_cast<char*>(std::aligned_alloc(4096, (size / 4096 + 1) * 4096));
  pinned()[address] = size;
  return address;
}

bool unpin(void* address) {
  if (!pinned().erase(static_cast<char*>(address))) return false;
  std::free(address);
  return true;
}

bool is_pinned(const void* address) { return inside(pinned(), address, 1); }
}  // namespace memory
