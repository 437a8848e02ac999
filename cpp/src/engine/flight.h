// One step from its plan to its end.
#pragma once

#include <cstdint>
#include <optional>

#include "mmcore/model_runner.h"
#include "sched/scheduler.h"
#include "sched/step_builder.h"

namespace mmcore {

struct Flight {
  Flight(int32_t block_size, bool overlapping) : builder(block_size, overlapping) {}

  StepBuilder builder;  // of `plan` only
  StepPlan plan;
  StepResult result;
  int64_t runner_us = 0;  // spent in the runner, with a watchdog

  // Of steps that overlap:
  LaunchedStep launched;
  Status begun;              // what begin() gave
  bool with_runner = false;  // begun and not ended
};

}  // namespace mmcore
