// The engine behind the public handle: requests, steps as transactions, outputs, metrics.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/deadlines.h"
#include "engine/output_queue.h"
#include "engine/recovery.h"
#include "mmcore/engine.h"
#include "sched/scheduler.h"
#include "sched/step_builder.h"

namespace mmcore {

class Engine::Impl {
 public:
  /// `config` is resolved.
  Impl(const EngineConfig& config, ModelRunner* runner);

  Result<RequestId> submit(Request&& request) { return submit(std::move(request), last_id_ + 1); }
  Result<RequestId> submit(Request&& request, RequestId id);
  Status abort(RequestId id);
  Status finish(RequestId id, int32_t index);
  Result<StepOutcome> step();
  Status reset_caches();

  OutputQueue& outputs() { return outputs_; }
  bool has_unfinished() const { return !sequences_.empty(); }
  void drain() { draining_ = true; }
  EngineMetrics metrics() const;
  EngineSnapshot snapshot() const;
  const EngineConfig& config() const { return config_; }
  std::vector<std::string> violations() const;

 private:
  Status check_open() const;
  Status check_id(RequestId id, int32_t num_sequences) const;
  Status check_queue(const Request& request) const;
  Status ask_runner(RequestId id, const Request& request);
  int64_t now_us() const;
  void end_overdue();
  StepOutcome run_step();
  void select();
  Status execute();
  Status call_runner();
  Status check_result();
  void commit();
  void commit_outputs(const ScheduledEntry& entry, int32_t sample_row, size_t& prompt_row);
  void roll_back(const Status& status);
  bool fail_named();
  void break_down(const Status& status);
  RequestOutput& push_output(const Sequence& sequence);
  void push_end(const Sequence& sequence, FinishReason reason, const Status& error);
  void push_end_of_unborn(RequestId request, size_t index, FinishReason reason,
                          const Status& error);
  bool end_request(RequestId request, FinishReason reason, const Status& error);
  void fork(Sequence& first);
  bool drop(Sequence* sequence);
  void release(RequestId request);
  bool lives(RequestId request) const;
  bool has_begun(RequestId request) const;
  Sequence* find(RequestId id) const;  // by a sequence's own id
  static Status not_from_runner(const char* call);

  EngineConfig config_;
  ModelRunner* runner_;
  int64_t length_limit_;
  Scheduler scheduler_;
  StepBuilder builder_;
  Recovery recovery_;
  OutputQueue outputs_;
  Deadlines deadlines_;
  std::unordered_map<RequestId, std::unique_ptr<Sequence>> sequences_;
  std::unordered_map<RequestId, std::unique_ptr<SequenceGroup>> groups_;  // requests for several
  RequestId last_id_ = 0;
  StepPlan plan_;
  StepResult result_;
  std::vector<Sequence*> ended_;  // in the step being committed
  EngineMetrics counters_;        // gauges are filled in by metrics()
  Status broken_;                 // set once a step threw: nothing runs any more
  bool in_step_ = false;
  bool draining_ = false;
};

}  // namespace mmcore
