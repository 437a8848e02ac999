// The engine behind the public handle: requests, steps as transactions, outputs, metrics.
#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/check.h"
#include "engine/deadlines.h"
#include "engine/flight.h"
#include "engine/output_queue.h"
#include "engine/recovery.h"
#include "mmcore/engine.h"
#include "sched/scheduler.h"

namespace mmcore {

class Engine::Impl {
 public:
  /// `config` is resolved.
  Impl(const EngineConfig& config, ModelRunner* runner);
  ~Impl();
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  Result<RequestId> submit(Request&& request) { return submit(std::move(request), last_id_ + 1); }
  Result<RequestId> submit(Request&& request, RequestId id);
  Status abort(RequestId id);
  Status finish(RequestId id, int32_t index);
  Result<StepOutcome> step();
  Status reset_caches();

  OutputQueue& outputs() { return outputs_; }
  bool has_unfinished() const { return !sequences_.empty() || num_in_flight_ > 0; }
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
  void build(Flight& flight);
  static StepOutcome outcome_of(const Flight& flight);
  template <class Call>
  Status call_runner(Flight& flight, const Call& call);
  Status check_result(Flight& flight);
  void commit(Flight& flight);
  void commit_outputs(Flight& flight, const ScheduledEntry& entry, int32_t sample_row,
                      size_t& prompt_row);
  void note_slow(const Flight& flight);
  void roll_back(Flight& flight, const Status& status);
  bool fail_named(const StepResult& result);
  void break_down(const Status& status);

  // Steps that overlap (engine_overlap.cpp).
  StepOutcome run_overlapping();
  bool launch(bool ahead);
  StepOutcome land();
  Status end(Flight& flight);
  void take_back();
  void note_departed();
  void bury_departed();
  Flight& oldest() { return flights_[oldest_]; }
  Flight& newest() { return flights_[(oldest_ + num_in_flight_ - 1) % flights_.size()]; }

  RequestOutput& push_output(const Sequence& sequence);
  void push_end(const Sequence& sequence, FinishReason reason, const Status& error);
  void push_end_of_unborn(RequestId request, size_t index, FinishReason reason,
                          const Status& error);
  bool end_request(RequestId request, FinishReason reason, const Status& error);
  void fork(Sequence& first);
  bool drop(Sequence* sequence);
  void depart(Sequence* sequence);
  void release(RequestId request);
  void release_runner(RequestId request);
  bool lives(RequestId request) const;
  bool has_begun(RequestId request) const;
  Sequence* find(RequestId id) const;  // by a sequence's own id
  static Status not_from_runner(const char* call);

  EngineConfig config_;
  ModelRunner* runner_;
  int64_t length_limit_;
  Scheduler scheduler_;
  Recovery recovery_;
  OutputQueue outputs_;
  Deadlines deadlines_;
  std::unordered_map<RequestId, std::unique_ptr<Sequence>> sequences_;
  std::unordered_map<RequestId, std::unique_ptr<SequenceGroup>> groups_;  // requests for several
  RequestId last_id_ = 0;
  // Sequences that have ended, but have a row in a step in flight: by id, and counted by request.
  std::unordered_map<RequestId, std::unique_ptr<Sequence>> departed_;
  std::unordered_map<RequestId, int32_t> departed_of_;
  bool overlapping_;             // the runner takes steps while others run
  std::vector<Flight> flights_;  // two where steps overlap, else one
  size_t oldest_ = 0;            // of those in flight
  size_t num_in_flight_ = 0;
  uint64_t last_step_ = 0;
  std::vector<Sequence*> ended_;            // in the step being committed
  std::vector<Sequence*> landed_departed_;  // had ended when the step landed
  EngineMetrics counters_;                  // gauges are filled in by metrics()
  Status broken_;                           // set once a step threw: nothing runs any more
  bool in_step_ = false;
  bool draining_ = false;
};

// Calls the runner, whose exceptions but InternalError are errors of the step.
template <class Call>
Status Engine::Impl::call_runner(Flight& flight, const Call& call) {
  const int64_t begin = config_.step_watchdog_us == 0 ? 0 : now_us();
  Status status;
  in_step_ = true;
  try {
    status = call();
  } catch (const InternalError&) {
    in_step_ = false;
    throw;
  } catch (const std::exception& e) {
    status = Status::internal(e.what());
  } catch (...) {
    status = Status::internal("The runner threw something that is not a std::exception.");
  }
  in_step_ = false;
  if (config_.step_watchdog_us > 0) flight.runner_us += now_us() - begin;
  return status;
}

}  // namespace mmcore
