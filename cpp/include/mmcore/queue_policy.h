// Who enters next: the part of scheduling that a host may replace.
//
// Two decisions. rank() gives a request its place among all others, once; the order (rank, arrival)
// decides who runs first and who gives way. choose() may let one of the first waiting requests of
// the smallest rank enter before the queue's head. The scheduler bounds that: a request that was
// passed by kMaxPassed others is passed by no more. Called from the thread that calls the engine,
// and must not call it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "mmcore/export.h"
#include "mmcore/request.h"

namespace mmcore {

struct QueueCandidate {
  RequestId request = 0;
  int32_t num_tokens = 0;         // prompt and, after a preemption, outputs
  int32_t num_cached_tokens = 0;  // of them, found by the prefix cache now
  int32_t times_passed = 0;       // by requests that arrived later
};

class MMCORE_API QueuePolicy {
 public:
  /// No request is passed more often.
  static constexpr int32_t kMaxPassed = 16;

  virtual ~QueuePolicy();

  /// Smaller goes first; equal ones go by arrival. Asked once a request, when it is submitted.
  virtual int64_t rank(const Request& request) const;

  /// How many waiting requests choose() wants to see; 1 means that nobody passes the head. Asked
  /// once, when the engine is made. A step looks up the prefix of each for each that enters.
  virtual int32_t window() const;

  /// Index of the one to enter, out of at least two in their order; any other number means the
  /// head.
  virtual size_t choose(std::span<const QueueCandidate> candidates);
};

}  // namespace mmcore
