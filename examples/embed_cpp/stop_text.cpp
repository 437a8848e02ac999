#include "stop_text.h"

#include <algorithm>
#include <utility>

namespace service {
namespace {

// Length of the longest end of `text` with which `stop` begins, `stop` itself excluded.
size_t overlap(std::string_view text, std::string_view stop) {
  for (size_t n = std::min(text.size(), stop.size() - 1); n > 0; --n)
    if (text.ends_with(stop.substr(0, n))) return n;
  return 0;
}

}  // namespace

std::string StopText::push(std::string_view text) {
  if (stopped_) return {};
  held_ += text;
  size_t end = std::string::npos;
  size_t keep = 0;
  for (const std::string& stop : stops_) {
    end = std::min(end, held_.find(stop));
    keep = std::max(keep, overlap(held_, stop));
  }
  stopped_ = end != std::string::npos;
  const size_t shown = stopped_ ? end : held_.size() - keep;
  std::string out = held_.substr(0, shown);
  held_.erase(0, stopped_ ? held_.size() : shown);
  return out;
}

std::string StopText::finish() { return std::exchange(held_, {}); }

}  // namespace service
