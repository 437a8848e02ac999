// The routes: POST /v1/completions, GET /v1/models, /health and /metrics.
#pragma once

#include <httplib.h>

#include "engine_service.h"
#include "metrics_text.h"

namespace service {

/// Adds the routes to `server`; both others must outlive it. Handlers run on connection threads.
void add_routes(httplib::Server& server, EngineService& engine, HttpCounters& counters);

}  // namespace service
