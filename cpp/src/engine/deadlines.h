// When requests must have ended, or have begun. Holds only requests that have a deadline.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <set>
#include <tuple>
#include <unordered_map>

#include "mmcore/types.h"

namespace mmcore {

class Deadlines {
 public:
  struct Due {
    RequestId request = 0;
    bool queued_only = false;  // matters only if the request has not begun
    int64_t timeout_us = 0;    // what it had asked for
  };

  bool empty() const { return by_time_.empty(); }

  /// Timeouts count from `now`; 0 is none.
  void add(RequestId request, int64_t now, int64_t timeout_us, int64_t queue_timeout_us) {
    if (timeout_us > 0) insert(request, now, timeout_us, false);
    if (queue_timeout_us > 0) insert(request, now, queue_timeout_us, true);
  }

  void forget(RequestId request) {
    const auto [first, last] = by_request_.equal_range(request);
    for (auto it = first; it != last; ++it) by_time_.erase(it->second);
    by_request_.erase(first, last);
  }

  /// Takes out one deadline that is over, earliest first; later ones of its request stay.
  std::optional<Due> take_due(int64_t now) {
    if (by_time_.empty() || std::get<0>(*by_time_.begin()) > now) return std::nullopt;
    const Entry entry = *by_time_.begin();
    by_time_.erase(by_time_.begin());
    const auto [first, last] = by_request_.equal_range(std::get<1>(entry));
    for (auto it = first; it != last; ++it) {
      if (it->second != entry) continue;
      by_request_.erase(it);
      break;
    }
    return Due{std::get<1>(entry), std::get<2>(entry), std::get<3>(entry)};
  }

 private:
  using Entry = std::tuple<int64_t, RequestId, bool, int64_t>;  // when, who, queued_only, timeout

  void insert(RequestId request, int64_t now, int64_t timeout_us, bool queued_only) {
    const int64_t end_of_time = std::numeric_limits<int64_t>::max();
    const int64_t at = timeout_us > end_of_time - now ? end_of_time : now + timeout_us;
    const Entry entry{at, request, queued_only, timeout_us};
    by_time_.insert(entry);
    by_request_.emplace(request, entry);
  }

  std::set<Entry> by_time_;
  std::unordered_multimap<RequestId, Entry> by_request_;  // at most two a request
};

}  // namespace mmcore
