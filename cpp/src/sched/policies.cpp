#include "sched/policies.h"

#include <algorithm>

namespace mmcore {

QueuePolicy::~QueuePolicy() = default;
int64_t QueuePolicy::rank(const Request& /*request*/) const { return 0; }
int32_t QueuePolicy::window() const { return 1; }
size_t QueuePolicy::choose(std::span<const QueueCandidate> /*candidates*/) { return 0; }

size_t LongestPrefixPolicy::choose(std::span<const QueueCandidate> candidates) {
  // The first of the longest ones.
  const auto best = std::ranges::max_element(candidates, {}, &QueueCandidate::num_cached_tokens);
  return static_cast<size_t>(best - candidates.begin());
}

std::shared_ptr<QueuePolicy> policy_of(const EngineConfig& config) {
  if (config.custom_policy != nullptr) return config.custom_policy;
  switch (config.policy) {
    case SchedulingPolicy::kPriority:
      return std::make_shared<PriorityPolicy>();
    case SchedulingPolicy::kLongestPrefix:
      return std::make_shared<LongestPrefixPolicy>();
    case SchedulingPolicy::kFcfs:
      break;
  }
  return std::make_shared<FcfsPolicy>();
}

}  // namespace mmcore
