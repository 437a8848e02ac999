// What an engine accepts. Pure functions over a request and the resolved configuration: the one
// authority on input, whatever frontend it came through. Refuses at once what can never run.
#pragma once

#include <cstdint>

#include "mmcore/config.h"
#include "mmcore/request.h"
#include "mmcore/status.h"

namespace mmcore {

/// Checks ranges and combinations, and fills in the zeros that stand for derived defaults.
Result<EngineConfig> resolve_config(EngineConfig config);

/// Tokens that the whole pool holds, the null block excluded.
int64_t pool_tokens(const EngineConfig& config);

/// Longest prompt + output of one sequence; reaching it ends the request with kLength. The same
/// number bounds admission (invariant: sched.admission).
int64_t length_limit(const EngineConfig& config);

/// Ok if the request is well-formed and can be served by an otherwise idle engine. `config` is
/// resolved. O(prompt + masks).
Status check_request(const Request& request, const EngineConfig& config);

/// The part of check_request that concerns sampling (sampling_check.cpp).
Status check_sampling(const SamplingParams& params, const EngineConfig& config);

}  // namespace mmcore
