#include "engine/engine_impl.h"

#include <algorithm>
#include <exception>
#include <map>
#include <set>
#include <utility>

#include "base/check.h"
#include "engine/stop_condition.h"
#include "sched/admission.h"
#include "sched/prefetch.h"

namespace mmcore {
Engine::Impl::Impl(const EngineConfig& config, ModelRunner* runner)
    : config_(config),
      runner_(runner),
      length_limit_(length_limit(config)),
      scheduler_(config),
      builder_(config.block_size) {}

Status Engine::Impl::not_from_runner(const char* call) {
  return Status::invalid_argument(std::string(call) +
                                  " was called from inside ModelRunner; call it between steps.");
}

Sequence* Engine::Impl::find(RequestId id) const {
  const auto it = sequences_.find(id);
  return it == sequences_.end() ? nullptr : it->second.get();
}

// ---- Steps -------------------------------------------------------------------------------------

Result<StepOutcome> Engine::Impl::step() {
  if (in_step_) return not_from_runner("step");
  if (!broken_.ok()) return broken_;
  try {
    return run_step();
  } catch (const std::exception& e) {
    break_down(Status::internal(std::string("The engine is broken: ") + e.what()));
    return broken_;
  }
}

StepOutcome Engine::Impl::run_step() {
  end_overdue();
  select();
  std::vector<ScheduledEntry>& entries = scheduler_.entries();
  if (entries.empty()) return {};
  builder_.build(counters_.steps + counters_.steps_failed + 1, entries, scheduler_.resources(),
                 plan_);
  StepOutcome outcome{.num_sequences = static_cast<int32_t>(entries.size()),
                      .num_tokens = static_cast<int32_t>(plan_.token_ids.size())};
  const Status status = execute();
  if (status.ok() && result_.failed.empty()) {
    commit();
    outcome.committed = true;
  } else {
    roll_back(status);
  }
  return outcome;
}

void Engine::Impl::select() {
  while (recovery_.probing()) {
    if (Sequence* sequence = find(recovery_.suspect()); sequence != nullptr) {
      scheduler_.select({.only = sequence});
      if (!scheduler_.entries().empty()) return;
    }
    recovery_.dismiss();
  }
  scheduler_.select({.admit = recovery_.normal()});
}

Status Engine::Impl::execute() {
  result_.tokens.clear();
  result_.prompt_logprobs.clear();
  result_.failed.clear();
  if (config_.step_watchdog_us == 0) return call_runner();
  const int64_t begin = now_us();
  const Status status = call_runner();
  const int64_t took = now_us() - begin;
  counters_.steps_slow += took > config_.step_watchdog_us;
  counters_.slowest_step_us = std::max(counters_.slowest_step_us, static_cast<uint64_t>(took));
  return status;
}

Status Engine::Impl::call_runner() {
  Status status;
  in_step_ = true;
  try {
    status = runner_->execute(plan_, result_);
  } catch (const InternalError&) {
    in_step_ = false;
    throw;
  } catch (const std::exception& e) {
    status = Status::internal(e.what());
  } catch (...) {
    status = Status::internal("The runner threw something that is not a std::exception.");
  }
  in_step_ = false;
  if (status.ok() && result_.failed.empty()) status = check_result();
  return status;
}

// The runner is code of others: what it gives is checked before anything is kept.
Status Engine::Impl::check_result() {
  if (result_.tokens.size() != plan_.sampling.size())
    return Status::internal("The runner gave " + std::to_string(result_.tokens.size()) +
                            " tokens for " + std::to_string(plan_.sampling.size()) +
                            " sampled rows.");
  if (result_.prompt_logprobs.size() != plan_.prompt_logprob_rows.size())
    return Status::internal("The runner gave " + std::to_string(result_.prompt_logprobs.size()) +
                            " prompt logprobs for " +
                            std::to_string(plan_.prompt_logprob_rows.size()) + " rows.");
  for (const ScheduledSequence& scheduled : plan_.sequences) {
    if (scheduled.sample_row < 0) continue;
    const TokenId token = result_.tokens[static_cast<size_t>(scheduled.sample_row)].token;
    if (token >= 0 && token < config_.vocab_size) continue;
    result_.failed.emplace_back(
        scheduled.request, Status::internal("The runner sampled token id " + std::to_string(token) +
                                            ", which is out of the vocabulary [0, " +
                                            std::to_string(config_.vocab_size) + ")."));
  }
  return {};
}

void Engine::Impl::commit() {
  scheduler_.begin_commit();
  size_t prompt_row = 0;
  const std::vector<ScheduledEntry>& entries = scheduler_.entries();
  for (size_t i = 0; i < entries.size(); ++i) {
    prefetch_ahead(entries, i, [](const ScheduledEntry& next) { return next.sequence; });
    scheduler_.commit(entries[i]);
    const int32_t sample_row = plan_.sequences[i].sample_row;
    if (sample_row >= 0 || entries[i].num_prompt_rows > 0)
      commit_outputs(entries[i], sample_row, prompt_row);
  }
  const SelectionCounters& selection = scheduler_.counters();
  ++counters_.steps;
  counters_.tokens_planned += plan_.token_ids.size();
  counters_.tokens_generated += plan_.sampling.size();
  counters_.prefix_tokens_queried += static_cast<uint64_t>(selection.prefix_tokens_queried);
  counters_.prefix_tokens_hit += static_cast<uint64_t>(selection.prefix_tokens_hit);
  counters_.prefix_tokens_copied += static_cast<uint64_t>(selection.prefix_tokens_copied);
  counters_.tokens_forked += static_cast<uint64_t>(selection.tokens_forked);
  counters_.prefix_tokens_shared += static_cast<uint64_t>(selection.prefix_tokens_shared);
  counters_.items_encoded += static_cast<uint64_t>(selection.items_encoded);
  counters_.items_skipped += static_cast<uint64_t>(selection.items_skipped);
  counters_.block_copies += plan_.block_copies.size();
  scheduler_.end_commit();
  for (Sequence* sequence : ended_) counters_.requests_finished += drop(sequence);
  ended_.clear();
  if (recovery_.probing())
    recovery_.dismiss();
  else
    recovery_.healthy_step();
}

void Engine::Impl::commit_outputs(const ScheduledEntry& entry, int32_t sample_row,
                                  size_t& prompt_row) {
  Sequence& sequence = *entry.sequence;
  RequestOutput& output = push_output(sequence);
  for (int32_t i = 0; i < entry.num_prompt_rows; ++i)
    output.new_prompt_logprobs.push_back(std::move(result_.prompt_logprobs[prompt_row++]));
  sequence.prompt_logprobs_done += entry.num_prompt_rows;
  if (sample_row < 0) return;
  if (sequence.is_one_of_several && !sequence.group->forked) fork(sequence);
  SampledToken& sampled = result_.tokens[static_cast<size_t>(sample_row)];
  sequence.tokens.push_back(sampled.token);
  output.new_tokens.push_back(std::move(sampled));
  const StopDecision stop = check_stop(sequence, config_.eos_token_ids, length_limit_);
  if (stop.reason == FinishReason::kNone) return;
  output.finish_reason = stop.reason;
  output.stop_token = stop.stop_token;
  scheduler_.finish(&sequence);
  ended_.push_back(&sequence);
}

void Engine::Impl::roll_back(const Status& status) {
  ++counters_.steps_failed;
  std::vector<RequestId> ids;
  for (const ScheduledEntry& entry : scheduler_.entries()) ids.push_back(entry.sequence->order.id);
  scheduler_.rollback();
  if (status.ok() && fail_named()) return;
  const Status reason =
      status.ok() ? Status::internal("The runner failed requests that do not exist.") : status;
  if (!recovery_.probing()) {
    recovery_.begin(ids);
    return;
  }
  // It ran alone: the failure is its own.
  recovery_.dismiss();
  end_request(find(ids.front())->request(), FinishReason::kError, reason);
}

// Ends the requests that the runner named; false if none of them lives.
bool Engine::Impl::fail_named() {
  bool any = false;
  for (const auto& [id, status] : result_.failed) {
    const Status reason = status.ok() ? Status::internal("The runner gave no reason.") : status;
    any |= end_request(id, FinishReason::kError, reason);
  }
  return any;
}

// A broken invariant: the scheduler's state is not to be trusted, but every request gets its end.
void Engine::Impl::break_down(const Status& status) {
  broken_ = status;
  in_step_ = false;
  std::map<RequestId, Sequence*> by_id;  // outputs come in the order of ids
  std::set<RequestId> requests;
  for (const auto& [id, sequence] : sequences_) by_id.emplace(id, sequence.get());
  for (const auto& [id, sequence] : by_id) {
    requests.insert(sequence->request());
    push_end(*sequence, FinishReason::kError, status);
    if (sequence->group == nullptr || sequence->group->forked) continue;
    for (size_t i = 1; i < sequence->group->members.size(); ++i)
      push_end_of_unborn(id, i, FinishReason::kError, status);
  }
  sequences_.clear();
  groups_.clear();
  counters_.requests_failed += requests.size();
  for (const RequestId request : requests) release(request);
}

EngineMetrics Engine::Impl::metrics() const {
  EngineMetrics metrics = counters_;
  const KvCache& kv = scheduler_.resources().kv();
  const EncoderCache& encoder = scheduler_.resources().encoder();
  metrics.preemptions = scheduler_.preemptions();
  metrics.blocks_evicted = kv.evictions();
  metrics.blocks_total = kv.pool().num_usable();
  if (!broken_.ok()) return metrics;
  metrics.num_waiting = scheduler_.waiting().size();
  metrics.waiting_tokens = scheduler_.waiting().tokens();
  metrics.num_running = static_cast<int64_t>(scheduler_.running().size());
  metrics.blocks_used = kv.pool().num_used();
  metrics.blocks_cached = kv.pool().num_free_hashed();
  metrics.encoder_entries = encoder.size();
  metrics.encoder_entries_pinned = encoder.num_pinned();
  metrics.encoder_rows = encoder.rows();
  return metrics;
}

}  // namespace mmcore
