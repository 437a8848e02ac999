// One step, as a Python runner sees it.
#pragma once

#include "mmcore/model_runner.h"

namespace mmcore::python {

/// The plan that a runner executes and the result that it fills. Python holds such objects for the
/// life of an engine; the engine opens one for each step and closes it afterwards.
///
/// Lifetime: arrays are views of the plan's own memory, without a copy. They are valid until
/// execute() or the step's end() returns; a view kept longer shows whatever a later step writes, so
/// copy what you keep. A closed step refuses every access.
class Step {
 public:
  void open(const StepPlan& plan, StepResult& result) {
    plan_ = &plan;
    result_ = &result;
  }
  void close() {
    plan_ = nullptr;
    result_ = nullptr;
  }
  /// Both raise InternalError when the step is closed.
  const StepPlan& plan() const;
  StepResult& result() const;

 private:
  const StepPlan* plan_ = nullptr;
  StepResult* result_ = nullptr;
};

/// Tells numpy the layout of the plan's structures. Imports numpy, so only engines do it, not the
/// import of the module.
void register_step_dtypes();

}  // namespace mmcore::python
