// A host's own runner, given as a table of C functions.
#pragma once

#include <array>

#include "c_api/table_step.h"
#include "mmcore/c_api.h"
#include "mmcore/model_runner.h"

namespace mmcore::c_api {

class TableRunner : public ModelRunner {
 public:
  /// `functions` was checked.
  TableRunner(const mmcore_runner_functions& functions, void* context)
      : functions_(functions), context_(context) {}
  ~TableRunner() override;
  /// From here on `context` is this runner's to destroy; its own `destroy` may be null.
  void own_context(void (*destroy)(void* context)) { destroy_ = destroy; }
  TableRunner(const TableRunner&) = delete;
  TableRunner& operator=(const TableRunner&) = delete;

  Status accept(RequestId request, const Request& content) override;
  Status execute(const StepPlan& plan, StepResult& result) override;
  bool overlaps() const override;
  Status begin(StepPlan& plan, StepResult& result) override;
  Status end() override;
  void release(RequestId request) override;
  int32_t num_host_blocks() const override { return functions_.num_host_blocks; }

 private:
  static Status not_taken(TableStep& shown, const StepPlan& plan, mmcore_status code,
                          StepResult& result);

  const mmcore_runner_functions functions_;
  void* const context_;
  void (*destroy_)(void* context) = nullptr;
  std::array<TableStep, 2> steps_;
  struct Begun {
    TableStep* shown = nullptr;
    const StepPlan* plan = nullptr;
    StepResult* result = nullptr;
  };
  std::array<Begun, 2> begun_;  // and not ended, from oldest_ on
  size_t oldest_ = 0;
  size_t num_begun_ = 0;
};

}  // namespace mmcore::c_api
