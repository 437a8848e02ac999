set(MMCORE_CORE_SOURCES
  src/base/keyed_hash.cpp
  src/base/sha256.cpp
  src/base/sha256_blocks.cpp
  src/base/status.cpp
  src/media/content_id.cpp
  src/media/encoder_cache.cpp
  src/media/span_map.cpp
  src/kv/block_key.cpp
  src/kv/block_pool.cpp
  src/kv/host_tier.cpp
  src/kv/kv_cache.cpp
  src/kv/kv_violations.cpp
  src/kv/prefix_index.cpp
  src/sched/admission.cpp
  src/sched/chunking.cpp
  src/sched/config_check.cpp
  src/sched/policies.cpp
  src/sched/prefix.cpp
  src/sched/headroom.cpp
  src/sched/life_table.cpp
  src/sched/memory_forecast.cpp
  src/sched/reservation.cpp
  src/sched/resources.cpp
  src/sched/sampling_check.cpp
  src/sched/scheduler.cpp
  src/sched/sequence.cpp
  src/sched/step_builder.cpp
  src/engine/engine.cpp
  src/engine/engine_impl.cpp
  src/engine/engine_loop.cpp
  src/engine/engine_loop_calls.cpp
  src/engine/engine_loop_impl.cpp
  src/engine/engine_overlap.cpp
  src/engine/engine_requests.cpp
  src/engine/engine_snapshot.cpp
  src/engine/engine_violations.cpp
  src/engine/request_stream.cpp
  src/c_api/convert.cpp
  src/c_api/engine.cpp
  src/c_api/handles.cpp
  src/c_api/last_error.cpp
  src/c_api/readable_request.cpp
  src/c_api/request.cpp
  src/c_api/runner.cpp
  src/c_api/table_runner.cpp
  src/c_api/table_step.cpp
)

# Entered only after a run-time check; code that calls into it tests __x86_64__.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  list(APPEND MMCORE_CORE_SOURCES src/base/sha256_blocks_x86sha.cpp)
  set_source_files_properties(src/base/sha256_blocks_x86sha.cpp PROPERTIES COMPILE_OPTIONS "-msha;-msse4.1")
endif()
