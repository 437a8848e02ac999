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
      overlapping_(config.async_schedule && runner->overlaps()) {
  const size_t num_flights = overlapping_ ? 2 : 1;
  flights_.reserve(num_flights);
  while (flights_.size() < num_flights) flights_.emplace_back(config.block_size, overlapping_);
}

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
  if (overlapping_) return run_overlapping();
  select();
  if (scheduler_.entries().empty()) return {};
  Flight& flight = flights_[0];
  build(flight);
  StepOutcome outcome = outcome_of(flight);
  Status status = call_runner(flight, [&] { return runner_->execute(flight.plan, flight.result); });
  if (status.ok() && flight.result.failed.empty()) status = check_result(flight);
  if (status.ok() && flight.result.failed.empty()) {
    commit(flight);
    outcome.committed = true;
  } else {
    roll_back(flight, status);
  }
  return outcome;
}

StepOutcome Engine::Impl::outcome_of(const Flight& flight) {
  return {.num_sequences = static_cast<int32_t>(flight.plan.sequences.size()),
          .num_tokens = static_cast<int32_t>(flight.plan.token_ids.size())};
}

void Engine::Impl::build(Flight& flight) {
  flight.builder.build(++last_step_, scheduler_.entries(), scheduler_.resources(), flight.plan);
  flight.result.tokens.clear();
  flight.result.prompt_logprobs.clear();
  flight.result.failed.clear();
  flight.runner_us = 0;
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

// The runner is code of others: what it gives is checked before anything is kept.
Status Engine::Impl::check_result(Flight& flight) {
  const StepPlan& plan = flight.plan;
  if (flight.result.tokens.size() != plan.sampling.size())
    return Status::internal("The runner gave " + std::to_string(flight.result.tokens.size()) +
                            " tokens for " + std::to_string(plan.sampling.size()) +
                            " sampled rows.");
  if (flight.result.prompt_logprobs.size() != plan.prompt_logprob_rows.size())
    return Status::internal(
        "The runner gave " + std::to_string(flight.result.prompt_logprobs.size()) +
        " prompt logprobs for " + std::to_string(plan.prompt_logprob_rows.size()) + " rows.");
  for (const ScheduledSequence& scheduled : plan.sequences) {
    if (scheduled.sample_row < 0) continue;
    const TokenId token = flight.result.tokens[static_cast<size_t>(scheduled.sample_row)].token;
    if (token >= 0 && token < config_.vocab_size) continue;
    flight.result.failed.emplace_back(
        scheduled.request, Status::internal("The runner sampled token id " + std::to_string(token) +
                                            ", which is out of the vocabulary [0, " +
                                            std::to_string(config_.vocab_size) + ")."));
  }
  return {};
}

void Engine::Impl::commit(Flight& flight) {
  const StepPlan& plan = flight.plan;
  note_slow(flight);
  scheduler_.begin_commit();
  size_t prompt_row = 0;
  uint64_t surplus = 0;
  uint64_t dropped = 0;
  const std::vector<ScheduledEntry>& entries = scheduler_.entries();
  for (size_t i = 0; i < entries.size(); ++i) {
    prefetch_ahead(entries, i, [](const ScheduledEntry& next) { return next.sequence; });
    const ScheduledEntry& entry = entries[i];
    const bool departed = entry.sequence->state == SequenceState::kFinished;
    scheduler_.commit(entry);
    const int32_t sample_row = plan.sequences[i].sample_row;
    if (departed) {
      landed_departed_.push_back(entry.sequence);
      prompt_row += static_cast<size_t>(entry.num_prompt_rows);
      surplus += static_cast<uint64_t>(entry.num_tokens);
      dropped += sample_row >= 0;
    } else if (sample_row >= 0 || entry.num_prompt_rows > 0) {
      commit_outputs(flight, entry, sample_row, prompt_row);
    }
  }
  const SelectionCounters& selection = scheduler_.counters();
  ++counters_.steps;
  counters_.tokens_planned += plan.token_ids.size();
  counters_.tokens_generated += plan.sampling.size() - dropped;
  counters_.rows_surplus += surplus;
  counters_.prefix_tokens_queried += static_cast<uint64_t>(selection.prefix_tokens_queried);
  counters_.prefix_tokens_hit += static_cast<uint64_t>(selection.prefix_tokens_hit);
  counters_.prefix_tokens_copied += static_cast<uint64_t>(selection.prefix_tokens_copied);
  counters_.tokens_forked += static_cast<uint64_t>(selection.tokens_forked);
  counters_.prefix_tokens_shared += static_cast<uint64_t>(selection.prefix_tokens_shared);
  counters_.items_encoded += static_cast<uint64_t>(selection.items_encoded);
  counters_.items_skipped += static_cast<uint64_t>(selection.items_skipped);
  counters_.prefix_tokens_loaded += static_cast<uint64_t>(selection.prefix_tokens_loaded);
  counters_.block_copies += plan.block_copies.size();
  counters_.blocks_offloaded += plan.host_saves.size();
  counters_.blocks_loaded += plan.host_loads.size();
  scheduler_.end_commit();
  for (Sequence* sequence : ended_) counters_.requests_finished += drop(sequence);
  ended_.clear();
  bury_departed();
  if (recovery_.probing())
    recovery_.dismiss();
  else
    recovery_.healthy_step();
}

void Engine::Impl::note_slow(const Flight& flight) {
  if (config_.step_watchdog_us == 0) return;
  counters_.steps_slow += flight.runner_us > config_.step_watchdog_us;
  counters_.slowest_step_us =
      std::max(counters_.slowest_step_us, static_cast<uint64_t>(flight.runner_us));
}

void Engine::Impl::commit_outputs(Flight& flight, const ScheduledEntry& entry, int32_t sample_row,
                                  size_t& prompt_row) {
  Sequence& sequence = *entry.sequence;
  RequestOutput& output = push_output(sequence);
  for (int32_t i = 0; i < entry.num_prompt_rows; ++i)
    output.new_prompt_logprobs.push_back(std::move(flight.result.prompt_logprobs[prompt_row++]));
  sequence.prompt_logprobs_done += entry.num_prompt_rows;
  if (sample_row < 0) return;
  if (sequence.is_one_of_several && !sequence.group->forked) fork(sequence);
  SampledToken& sampled = flight.result.tokens[static_cast<size_t>(sample_row)];
  if (entry.samples)  // launched: its place is kept
    sequence.tokens[static_cast<size_t>(entry.end())] = sampled.token;
  else
    sequence.tokens.push_back(sampled.token);
  output.new_tokens.push_back(std::move(sampled));
  const StopDecision stop =
      check_stop(sequence, entry.end() + 1, config_.eos_token_ids, length_limit_);
  if (stop.reason == FinishReason::kNone) return;
  output.finish_reason = stop.reason;
  output.stop_token = stop.stop_token;
  scheduler_.finish(&sequence, stop.reason == FinishReason::kStop);
  ended_.push_back(&sequence);
}

void Engine::Impl::roll_back(Flight& flight, const Status& status) {
  note_slow(flight);
  ++counters_.steps_failed;
  std::vector<RequestId> ids;
  note_departed();
  for (const ScheduledEntry& entry : scheduler_.entries())
    if (entry.sequence->state != SequenceState::kFinished) ids.push_back(entry.sequence->order.id);
  const bool names_departed = std::ranges::any_of(landed_departed_, [&](const Sequence* sequence) {
    return std::ranges::find(flight.result.failed, sequence->request(),
                             &std::pair<RequestId, Status>::first) != flight.result.failed.end();
  });
  scheduler_.rollback();
  bury_departed();
  if (status.ok() && (fail_named(flight.result) || names_departed)) return;
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
bool Engine::Impl::fail_named(const StepResult& result) {
  bool any = false;
  for (const auto& [id, status] : result.failed) {
    const Status reason = status.ok() ? Status::internal("The runner gave no reason.") : status;
    any |= end_request(id, FinishReason::kError, reason);
  }
  return any;
}

// A broken invariant: the scheduler's state is not to be trusted, but every request gets its end.
void Engine::Impl::break_down(const Status& status) {
  broken_ = status;
  in_step_ = false;
  take_back();
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
  counters_.requests_failed += requests.size();
  for (const auto& [request, count] : departed_of_) requests.insert(request);
  sequences_.clear();
  groups_.clear();
  departed_.clear();
  departed_of_.clear();
  for (const RequestId request : requests) release(request);
}

EngineMetrics Engine::Impl::metrics() const {
  EngineMetrics metrics = counters_;
  const KvCache& kv = scheduler_.resources().kv();
  const EncoderCache& encoder = scheduler_.resources().encoder();
  metrics.preemptions = scheduler_.preemptions();
  metrics.blocks_evicted = kv.evictions();
  metrics.host_blocks_evicted = kv.host().evictions();
  metrics.blocks_total = kv.pool().num_usable();
  metrics.host_blocks_total = kv.host().pool().num_usable();
  if (!broken_.ok()) return metrics;
  metrics.num_waiting = scheduler_.waiting().size();
  metrics.waiting_tokens = scheduler_.waiting().tokens();
  metrics.num_running = static_cast<int64_t>(scheduler_.running().size());
  metrics.blocks_used = kv.pool().num_used();
  metrics.blocks_cached = kv.pool().num_free_hashed();
  metrics.host_blocks_used = kv.host().index().size();
  metrics.encoder_entries = encoder.size();
  metrics.encoder_entries_pinned = encoder.num_pinned();
  metrics.encoder_rows = encoder.rows();
  return metrics;
}

}  // namespace mmcore
