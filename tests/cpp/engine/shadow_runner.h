// A runner without a model, in which nothing that goes wrong with the KV cache can hide.
//
// Every KV slot holds a 64-bit value that depends on all tokens, media rows, salt and adapter
// before it. Computing a position reads every earlier slot of its sequence through the block table,
// so a stale, shared, misplaced or foreign block changes the values after it, and with them the
// sampled tokens. reference_tokens() computes the same from the request alone.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "mmcore/config.h"
#include "mmcore/model_runner.h"
#include "mmcore/request.h"

namespace mmcore::testing {

/// Tokens that `request` gives when nothing else exists: at most `count`, ending after a stop token
/// of the model or of the request.
std::vector<TokenId> reference_tokens(const Request& request, RequestId id, int32_t vocab_size,
                                      const std::vector<TokenId>& eos, int64_t count);

/// Logprobs of prompt positions 1.. as the runner reports them.
std::vector<float> reference_prompt_logprobs(const Request& request, RequestId id);

class ShadowRunner : public ModelRunner {
 public:
  explicit ShadowRunner(const EngineConfig& config);

  /// Tells the runner what a request carries, as a real one would be given its pixels.
  void expect(RequestId id, Request request) { requests_[id] = std::move(request); }
  const std::map<RequestId, Request>& requests() const { return requests_; }

  Status execute(const StepPlan& plan, StepResult& result) override;
  /// Steps run some at begin() and some not before end(): what the engine does in between must not
  /// matter.
  bool overlaps() const override { return overlapping; }
  Status begin(StepPlan& plan, StepResult& result) override;
  Status end() override;
  void release(RequestId request) override;
  int32_t num_host_blocks() const override { return config_.num_host_blocks; }

  // Faults. A step that fails has first written garbage to what it was to write.
  std::set<RequestId> refused_media;  // encoding an item of these is refused by name
  std::set<RequestId> poisoned;       // a step with one of these fails without naming it
  bool fail_next = false;             // the next step fails, once
  bool fail_next_begin = false;       // begin() does, once
  bool throw_faults = false;          // faults are exceptions instead of Status
  bool lacks_memory = false;          // every second of these says that memory is gone
  std::function<void()> at_run;       // for what happens while a step runs, such as time

  /// What was wrong with the plans so far; tests expect none.
  const std::vector<std::string>& complaints() const { return complaints_; }
  int64_t steps = 0;
  int64_t steps_dropped = 0;  // ended behind a step that failed
  int64_t items_encoded = 0;
  int64_t prefill_tokens = 0;
  int64_t encoder_rows_held() const;
  size_t num_begun() const { return begun_.size(); }
  StepPlan last_plan;  // of the step that ended last
  bool overlapping;    // takes a step while another one runs; as the schedule asks

 private:
  struct Begun {
    StepPlan* plan = nullptr;
    StepResult* result = nullptr;
    StepPlan as_begun{};
    bool ran = false;
    bool dropped = false;  // built on a step that failed
    Status status{};
    StepResult done{};  // what `result` will be
  };

  Status fault(const std::string& what) const;
  Status run(const StepPlan& plan, StepResult& result);
  void run_begun(Begun& step);
  void refuse_media(const StepPlan& plan, StepResult& result) const;
  void check_sources(const StepPlan& plan);
  void check_unchanged(const Begun& step);
  void check_plan(const StepPlan& plan);
  void check_transfers(const StepPlan& plan);
  void run_transfers(const StepPlan& plan);
  void check_sampling(const StepPlan& plan);
  void run_encoder(const StepPlan& plan);
  void run_sequence(const StepPlan& plan, size_t index, const std::vector<uint64_t>& inputs,
                    StepResult& result);
  void scribble(const StepPlan& plan);
  void complain(std::string what) { complaints_.push_back(std::move(what)); }

  EngineConfig config_;
  std::vector<uint64_t> kv_;
  std::vector<uint64_t> host_;
  std::map<EncoderSlot, std::vector<uint64_t>> encoder_outputs_;
  std::map<RequestId, Request> requests_;
  std::set<EncoderSlot> used_slots_;
  std::set<EncoderSlot> evicted_slots_;  // by steps that succeeded
  std::vector<std::string> complaints_;
  std::deque<Begun> begun_;
  std::vector<ScheduledSequence> newest_;  // of the step begun last
  StepResult previous_;                    // of the step that ran last
};

}  // namespace mmcore::testing
