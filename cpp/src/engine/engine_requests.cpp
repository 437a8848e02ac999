// Engine::Impl: requests from submission to their last output.
#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>

#include "engine/engine_impl.h"
#include "sched/admission.h"

namespace mmcore {
namespace {

Status not_found(RequestId id, int32_t index) {
  const std::string sequence = index == 0 ? "" : " and a sequence " + std::to_string(index);
  return {StatusCode::kNotFound,
          "No unfinished request has id " + std::to_string(id) + sequence + "."};
}

}  // namespace

Result<RequestId> Engine::Impl::submit(Request&& request, RequestId id) {
  if (in_step_) return not_from_runner("submit");
  Status status = check_open();
  if (status.ok()) status = check_request(request, config_);
  if (status.ok()) status = check_id(id, request.num_sequences);
  if (status.ok()) status = check_queue(request);
  if (status.ok()) status = ask_runner(id, request);
  if (!status.ok()) {
    ++counters_.requests_rejected;
    return status;
  }
  for (MediaItem& item : request.media) item.payload.reset();  // the runner's now
  const int32_t num_sequences = request.num_sequences;
  last_id_ = id + static_cast<RequestId>(num_sequences) - 1;  // `id` is its first sequence's
  const int64_t rank = scheduler_.policy().rank(request);
  if (request.timeout_us > 0 || request.queue_timeout_us > 0)
    deadlines_.add(id, now_us(), request.timeout_us, request.queue_timeout_us);
  auto sequence = std::make_unique<Sequence>(id, std::move(request), config_.block_size,
                                             config_.logits_size, config_.eos_token_ids);
  sequence->order.rank = rank;
  if (num_sequences > 1) {
    auto group = std::make_unique<SequenceGroup>();
    group->members.resize(static_cast<size_t>(num_sequences));
    group->members[0] = sequence.get();
    group->live = num_sequences;
    sequence->group = group.get();
    sequence->is_one_of_several = true;
    groups_.emplace(id, std::move(group));
  }
  scheduler_.add(sequence.get());
  sequences_.emplace(id, std::move(sequence));
  ++counters_.requests_submitted;
  return id;
}

Status Engine::Impl::check_open() const {
  if (!broken_.ok()) return {StatusCode::kShutdown, broken_.message()};
  if (draining_) return {StatusCode::kShutdown, "The engine drains: it accepts no more requests."};
  return {};
}

Status Engine::Impl::check_id(RequestId id, int32_t num_sequences) const {
  const auto others = static_cast<RequestId>(num_sequences) - 1;
  if (id > last_id_ && id <= std::numeric_limits<RequestId>::max() - others) return {};
  return Status::invalid_argument("Request id " + std::to_string(id) + " is not above " +
                                  std::to_string(last_id_) + ", the last one given, or leaves no " +
                                  "room for its " + std::to_string(num_sequences) + " sequences.");
}

// The runner is code of others: whatever it throws refuses this request only.
Status Engine::Impl::ask_runner(RequestId id, const Request& request) {
  Status status;
  in_step_ = true;  // accept() may not call back
  try {
    status = runner_->accept(id, request);
  } catch (const std::exception& e) {
    status = Status::internal(std::string("The runner cannot take the request: ") + e.what());
  } catch (...) {
    status = Status::internal("The runner threw something that is not a std::exception.");
  }
  in_step_ = false;
  return status;
}

Status Engine::Impl::check_queue(const Request& request) const {
  const WaitingQueue& waiting = scheduler_.waiting();
  if (config_.max_queued_requests > 0 && waiting.size() >= config_.max_queued_requests)
    return {StatusCode::kOverloaded,
            "The queue is full: " + std::to_string(config_.max_queued_requests) +
                " requests wait (max_queued_requests). Try again later."};
  const int64_t tokens = waiting.tokens() + std::ssize(request.prompt_token_ids);
  if (config_.max_queued_tokens > 0 && !waiting.empty() && tokens > config_.max_queued_tokens)
    return {StatusCode::kOverloaded,
            "The queue is full: with this request " + std::to_string(tokens) +
                " tokens would wait, and max_queued_tokens is " +
                std::to_string(config_.max_queued_tokens) + ". Try again later."};
  return {};
}

int64_t Engine::Impl::now_us() const {
  if (config_.clock_us) return config_.clock_us();
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::microseconds>(now).count();
}

// Ends the requests whose time is over.
void Engine::Impl::end_overdue() {
  if (deadlines_.empty()) return;
  const int64_t now = now_us();
  while (const auto due = deadlines_.take_due(now)) {
    if (due->queued_only && has_begun(due->request)) continue;
    ++counters_.requests_timed_out;
    end_request(due->request, FinishReason::kError,
                Status(StatusCode::kTimeout,
                       "The request had not " + std::string(due->queued_only ? "begun" : "ended") +
                           " after " + std::to_string(due->timeout_us) + " microseconds (" +
                           (due->queued_only ? "queue_timeout_us" : "timeout_us") + ")."));
  }
}

bool Engine::Impl::lives(RequestId request) const {
  const Sequence* first = find(request);
  return groups_.contains(request) || (first != nullptr && first->index == 0);
}

bool Engine::Impl::has_begun(RequestId request) const {
  const auto it = groups_.find(request);
  if (it == groups_.end()) return find(request)->first_run_done;
  const auto has_run = [](const Sequence* s) { return s != nullptr && s->first_run_done; };
  return it->second->begun || std::ranges::any_of(it->second->members, has_run);
}

Status Engine::Impl::abort(RequestId id) {
  if (in_step_) return not_from_runner("abort");
  return end_request(id, FinishReason::kAborted, {}) ? Status() : not_found(id, 0);
}

Status Engine::Impl::finish(RequestId id, int32_t index) {
  if (in_step_) return not_from_runner("finish");
  if (!lives(id)) return not_found(id, index);
  Sequence* sequence = index == 0 ? find(id) : nullptr;
  if (const auto it = groups_.find(id); it != groups_.end()) {
    SequenceGroup& group = *it->second;
    if (!group.forked) fork(*group.members[0]);
    const bool exists = index >= 0 && static_cast<size_t>(index) < group.members.size();
    sequence = exists ? group.members[static_cast<size_t>(index)] : nullptr;
  }
  if (sequence == nullptr) return not_found(id, index);
  push_end(*sequence, FinishReason::kStop, {});
  scheduler_.remove(sequence, /*stopped=*/true);
  counters_.requests_finished += drop(sequence);
  return {};
}

// The others enter the queue. When the first has run the prompt they find its blocks.
void Engine::Impl::fork(Sequence& first) {
  SequenceGroup& group = *first.group;
  group.forked = true;
  group.begun = first.first_run_done;
  for (size_t i = 1; i < group.members.size(); ++i) {
    auto sibling = std::make_unique<Sequence>(first.sibling(static_cast<int32_t>(i)));
    group.members[i] = sibling.get();
    scheduler_.add(sibling.get());
    sequences_.emplace(sibling->order.id, std::move(sibling));
  }
}

RequestOutput& Engine::Impl::push_output(const Sequence& sequence) {
  RequestOutput& output = outputs_.push(sequence.request());
  output.sequence = sequence.index;
  output.num_cached_tokens = sequence.num_cached_tokens;
  output.num_preemptions = sequence.num_preemptions;
  return output;
}

void Engine::Impl::push_end(const Sequence& sequence, FinishReason reason, const Status& error) {
  RequestOutput& output = push_output(sequence);
  output.finish_reason = reason;
  output.error = error;
}

// The last output of a sequence that was never forked.
void Engine::Impl::push_end_of_unborn(RequestId request, size_t index, FinishReason reason,
                                      const Status& error) {
  RequestOutput& output = outputs_.push(request);
  output.sequence = static_cast<int32_t>(index);
  output.finish_reason = reason;
  output.error = error;
}

// Ends all sequences of a request that have not ended; false if there is no such request.
bool Engine::Impl::end_request(RequestId request, FinishReason reason, const Status& error) {
  if (!lives(request)) return false;
  if (const auto it = groups_.find(request); it != groups_.end()) {
    SequenceGroup& group = *it->second;
    for (size_t i = 0; i < group.members.size(); ++i) {
      if (group.ended(i)) continue;
      Sequence* member = group.members[i];
      if (member == nullptr) {
        push_end_of_unborn(request, i, reason, error);
        continue;
      }
      push_end(*member, reason, error);
      scheduler_.remove(member);
      depart(member);
      if (group.forked) group.members[i] = nullptr;
    }
    release(request);
  } else {
    Sequence* sequence = find(request);
    push_end(*sequence, reason, error);
    scheduler_.remove(sequence);
    drop(sequence);
  }
  ++(reason == FinishReason::kAborted ? counters_.requests_aborted : counters_.requests_failed);
  return true;
}

// Forgets a sequence that the scheduler does not know any more; true if it was the last one of its
// request.
bool Engine::Impl::drop(Sequence* sequence) {
  const RequestId request = sequence->request();
  SequenceGroup* group = sequence->group;
  if (group != nullptr) {
    group->begun |= sequence->first_run_done;
    group->members[static_cast<size_t>(sequence->index)] = nullptr;
  }
  depart(sequence);
  if (group != nullptr && --group->live > 0) return false;
  release(request);
  return true;
}

// Forgets a sequence now, or when the step in flight that has a row of it has landed.
void Engine::Impl::depart(Sequence* sequence) {
  auto node = sequences_.extract(sequence->order.id);
  if (sequence->in_flight == 0) return;
  sequence->group = nullptr;
  ++departed_of_[sequence->request()];
  departed_.insert(std::move(node));
}

// Forgets a request whose sequences have all ended.
void Engine::Impl::release(RequestId request) {
  const bool several = groups_.erase(request) > 0;
  deadlines_.forget(request);
  if (departed_of_.contains(request)) return;  // the last of them does the rest
  if (several) scheduler_.forget(request);
  release_runner(request);
}

void Engine::Impl::release_runner(RequestId request) {
  in_step_ = true;  // release() may not call back
  try {
    runner_->release(request);
  } catch (const std::exception&) {
    // The request is gone whether or not the runner could clean up after it.
  }
  in_step_ = false;
}

Status Engine::Impl::reset_caches() {
  if (in_step_) return not_from_runner("reset_caches");
  if (!broken_.ok()) return {StatusCode::kShutdown, broken_.message()};
  if (!scheduler_.running().empty())
    return Status::invalid_argument(
        std::to_string(scheduler_.running().size()) +
        " requests run; finish or abort them before resetting the caches.");
  try {
    while (num_in_flight_ > 0) land();  // rows of sequences that have ended
  } catch (const std::exception& e) {
    break_down(Status::internal(std::string("The engine is broken: ") + e.what()));
    return broken_;
  }
  scheduler_.clear_caches();
  return {};
}

}  // namespace mmcore
