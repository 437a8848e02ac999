// What to run after a step that failed without naming the request at fault.
//
//   normal --failed step--> probation: its sequences run one by one, each until it has succeeded
//                           alone or failed (and is ended)
//   probation --all done--> cautious: what runs goes on together, nothing new is admitted
//   cautious --2 steps--> normal            cautious --failed step--> probation
#pragma once

#include <algorithm>
#include <deque>
#include <span>

#include "mmcore/types.h"

namespace mmcore {

class Recovery {
 public:
  bool probing() const { return !suspects_.empty(); }
  /// Whether the queue may enter.
  bool normal() const { return suspects_.empty() && cautious_steps_ == 0; }

  /// Puts the sequences of a failed step on probation, in this order.
  void begin(std::span<const RequestId> suspects) {
    suspects_.assign(suspects.begin(), suspects.end());
    cautious_steps_ = kCautiousSteps;
  }
  RequestId suspect() const { return suspects_.front(); }
  /// Ends the probation of suspect(): it succeeded, is gone, or cannot run now.
  void dismiss() { suspects_.pop_front(); }
  /// A step with everything allowed has succeeded.
  void healthy_step() { cautious_steps_ = std::max(0, cautious_steps_ - 1); }

 private:
  static constexpr int kCautiousSteps = 2;
  std::deque<RequestId> suspects_;
  int cautious_steps_ = 0;
};

}  // namespace mmcore
