// The queue policies that an EngineConfig can name.
#pragma once

#include <memory>

#include "mmcore/config.h"
#include "mmcore/queue_policy.h"

namespace mmcore {

/// Nobody passes anybody.
class FcfsPolicy : public QueuePolicy {};

/// By Request::priority, then by arrival.
class PriorityPolicy : public QueuePolicy {
 public:
  int64_t rank(const Request& request) const override { return request.priority; }
};

/// Among the first waiting requests, the one with the most tokens in the prefix cache: what is
/// cached is used before it is evicted.
class LongestPrefixPolicy : public QueuePolicy {
 public:
  int32_t window() const override { return 16; }
  size_t choose(std::span<const QueueCandidate> candidates) override;
};

/// The host's own if there is one, else the one that `config` names.
std::shared_ptr<QueuePolicy> policy_of(const EngineConfig& config);

}  // namespace mmcore
