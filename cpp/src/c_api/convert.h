// Structs of c_api.h to and from those of the engine. The engine checks values; here only what has
// to hold before memory can be read.
#pragma once

#include "mmcore/c_api.h"
#include "mmcore/config.h"
#include "mmcore/engine.h"
#include "mmcore/engine_loop.h"
#include "mmcore/request.h"

namespace mmcore::c_api {

mmcore_config default_config();
mmcore_sampling default_sampling();
mmcore_submission default_submission();

Status to_config(const mmcore_config* given, EngineConfig& config, EngineLoopOptions& options);
Status to_request(const mmcore_submission* given, Request& request, SubmitOptions& options);
mmcore_metrics from_metrics(const EngineMetrics& metrics);

/// What an item of a host's own runner carries.
struct UserPayload : MediaPayload {
  explicit UserPayload(void* value) : user_data(value) {}
  void* user_data;
};

}  // namespace mmcore::c_api
