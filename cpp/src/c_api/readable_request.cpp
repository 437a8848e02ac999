#include "c_api/readable_request.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "c_api/sized_struct.h"
#include "engine/engine_loop_impl.h"
#include "engine/joined_output.h"
#include "mmcore/c_api_cpp.h"

namespace mmcore::c_api {
namespace {

void append(const std::vector<TokenLogprob>& from, std::vector<mmcore_logprob>& values,
            std::vector<int32_t>& counts) {
  for (const TokenLogprob& l : from) values.push_back({l.token, l.logprob, l.rank});
  counts.push_back(static_cast<int32_t>(from.size()));
}

/// Whether `count` values fit where the caller wants them, if it wants them.
template <class T>
bool fits(const T* buffer, int64_t capacity, int64_t count) {
  return buffer == nullptr || count <= capacity;
}

template <class T>
void fill(T* buffer, const T* from, int64_t count) {
  if (buffer != nullptr && count > 0) std::copy_n(from, count, buffer);
}

/// The caller's buffers in `in`, filled from `from`; false, with the numbers needed, if one is too
/// small.
bool fill_buffers(const mmcore_output& from, const mmcore_output& in, mmcore_output& out) {
  out = from;
  out.tokens = in.tokens;
  out.tokens_capacity = in.tokens_capacity;
  out.logprobs = in.logprobs;
  out.logprobs_capacity = in.logprobs_capacity;
  out.logprob_counts = in.logprob_counts;
  out.logprob_counts_capacity = in.logprob_counts_capacity;
  out.prompt_logprobs = in.prompt_logprobs;
  out.prompt_logprobs_capacity = in.prompt_logprobs_capacity;
  out.prompt_logprob_counts = in.prompt_logprob_counts;
  out.prompt_logprob_counts_capacity = in.prompt_logprob_counts_capacity;
  out.message = in.message;
  out.message_capacity = in.message_capacity;
  if (!fits(in.tokens, in.tokens_capacity, from.num_tokens) ||
      !fits(in.logprobs, in.logprobs_capacity, from.num_logprobs) ||
      !fits(in.logprob_counts, in.logprob_counts_capacity, from.num_tokens) ||
      !fits(in.prompt_logprobs, in.prompt_logprobs_capacity, from.num_prompt_logprobs) ||
      !fits(in.prompt_logprob_counts, in.prompt_logprob_counts_capacity, from.num_prompt_positions))
    return false;
  fill(in.tokens, from.tokens, from.num_tokens);
  fill(in.logprobs, from.logprobs, from.num_logprobs);
  fill(in.logprob_counts, from.logprob_counts, from.num_tokens);
  fill(in.prompt_logprobs, from.prompt_logprobs, from.num_prompt_logprobs);
  fill(in.prompt_logprob_counts, from.prompt_logprob_counts, from.num_prompt_positions);
  if (in.message != nullptr && in.message_capacity > 0) {
    const int64_t length = std::min(from.message_length, in.message_capacity - 1);
    fill(in.message, from.message, length);
    in.message[length] = '\0';
  }
  return true;
}

}  // namespace

mmcore_output view_output(const RequestOutput& from, OutputScratch& scratch) {
  for (const SampledToken& token : from.new_tokens) {
    scratch.tokens.push_back(token.token);
    append(token.logprobs, scratch.logprobs, scratch.logprob_counts);
  }
  for (const auto& position : from.new_prompt_logprobs)
    append(position, scratch.prompt_logprobs, scratch.prompt_logprob_counts);
  const auto count = [](const auto& values) { return static_cast<int64_t>(values.size()); };
  mmcore_output out{};
  out.struct_size = sizeof(out);
  out.sequence = from.sequence;
  out.request_id = from.id;
  out.finish_reason = static_cast<int32_t>(from.finish_reason);
  out.stop_token = from.stop_token;
  out.error = static_cast<mmcore_status>(from.error.code());
  out.num_cached_tokens = from.num_cached_tokens;
  out.num_preemptions = from.num_preemptions;
  out.tokens = scratch.tokens.data();
  out.num_tokens = out.tokens_capacity = out.logprob_counts_capacity = count(scratch.tokens);
  out.logprobs = scratch.logprobs.data();
  out.num_logprobs = out.logprobs_capacity = count(scratch.logprobs);
  out.logprob_counts = scratch.logprob_counts.data();
  out.prompt_logprobs = scratch.prompt_logprobs.data();
  out.num_prompt_logprobs = out.prompt_logprobs_capacity = count(scratch.prompt_logprobs);
  out.prompt_logprob_counts = scratch.prompt_logprob_counts.data();
  out.num_prompt_positions = out.prompt_logprob_counts_capacity =
      count(scratch.prompt_logprob_counts);
  out.message = const_cast<char*>(from.error.message().c_str());  // readers get it as const
  out.message_length = count(from.error.message());
  out.message_capacity = out.message_length + 1;
  return out;
}

EngineLoop::OutputCallback ReadableRequest::make_callback() {
  // The guard goes when the loop forgets the callback: after the last output, or in a breakdown.
  const std::shared_ptr<void> guard(nullptr, [self = shared_from_this()](void*) { self->end(); });
  return [self = shared_from_this(), guard](const RequestOutput& output) { self->push(output); };
}

void ReadableRequest::push(const RequestOutput& output) {
  const std::scoped_lock lock(mutex_);
  if (!closed_) outputs_.push_back(output);
  num_unfinished_ -= output.finished();
  news_.notify_one();
  if (num_unfinished_ == 0) news_.notify_all();
}

void ReadableRequest::end() {
  const std::scoped_lock lock(mutex_);
  cut_ = true;
  news_.notify_all();
}

void ReadableRequest::submitted(std::weak_ptr<EngineLoop> loop, RequestId id) {
  const std::scoped_lock lock(mutex_);
  loop_ = std::move(loop);
  id_ = id;
}

RequestId ReadableRequest::id() const {
  const std::scoped_lock lock(mutex_);
  return id_;
}

std::shared_ptr<EngineLoop> ReadableRequest::loop() const {
  const std::scoped_lock lock(mutex_);
  return loop_.lock();
}

mmcore_status ReadableRequest::read(int64_t timeout_us, mmcore_output* output) {
  mmcore_output in{};
  if (const Status status = read_struct("mmcore_output", output, in); !status.ok())
    return report(status);
  bool may_wait = true;
  if (const std::shared_ptr<EngineLoop> owner = loop(); owner != nullptr)
    may_wait = !owner->on_loop_thread();
  const auto forever = std::chrono::microseconds::max();
  const auto timeout = timeout_us < 0 ? forever : std::chrono::microseconds(timeout_us);
  const auto deadline = deadline_after(may_wait ? timeout : std::chrono::microseconds(0));

  std::unique_lock lock(mutex_);
  const auto ready = [&] { return over() || !outputs_.empty(); };
  if (!news_.wait_until(lock, deadline, ready))
    return report(MMCORE_TIMEOUT, "The request gave nothing in the time to wait.");
  if (const mmcore_status nothing = nothing_left(); nothing != MMCORE_OK) return nothing;
  const mmcore_status given = give(outputs_.front(), in, output);
  if (given == MMCORE_OK) outputs_.pop_front();
  return given;
}

mmcore_status ReadableRequest::collect(int64_t timeout_us, mmcore_output* output) {
  mmcore_output in{};
  if (const Status status = read_struct("mmcore_output", output, in); !status.ok())
    return report(status);
  const std::shared_ptr<EngineLoop> owner = loop();
  const bool on_loop_thread = owner != nullptr && owner->on_loop_thread();
  const auto deadline = deadline_after(timeout_us < 0 ? std::chrono::microseconds::max()
                                                      : std::chrono::microseconds(timeout_us));
  std::unique_lock lock(mutex_);
  if (on_loop_thread && !over())
    return report(MMCORE_WRONG_THREAD,
                  "mmcore_request_collect was called on the engine's own thread, which would wait "
                  "for itself. Read there, or collect on another one.");
  if (!news_.wait_until(lock, deadline, [&] { return over(); }))
    return report(MMCORE_TIMEOUT, "The request has not ended in the time to wait.");
  if (const mmcore_status nothing = nothing_left(); nothing != MMCORE_OK) return nothing;
  const int32_t sequence =
      std::ranges::min_element(outputs_, {}, &RequestOutput::sequence)->sequence;
  RequestOutput all;
  for (const RequestOutput& next : outputs_)
    if (next.sequence == sequence) join_output(all, RequestOutput(next));
  const mmcore_status given = give(all, in, output);
  if (given != MMCORE_OK) return given;
  std::erase_if(outputs_, [&](const RequestOutput& o) { return o.sequence == sequence; });
  return report(all.error);
}

// With the lock, as what follows.
bool ReadableRequest::over() const { return closed_ || cut_ || num_unfinished_ == 0; }

// Why there is nothing to give; MMCORE_OK if there is something.
mmcore_status ReadableRequest::nothing_left() const {
  if (closed_) return report(MMCORE_INVALID_HANDLE, "The request was destroyed by another thread.");
  if (!outputs_.empty()) return MMCORE_OK;
  if (num_unfinished_ == 0) return report(MMCORE_END, "The request has given everything.");
  return report(MMCORE_SHUTDOWN, "The engine broke down before the request's end.");
}

// Copies `from` into the caller's struct and buffers.
mmcore_status ReadableRequest::give(const RequestOutput& from, const mmcore_output& in,
                                    mmcore_output* output) {
  OutputScratch scratch;
  mmcore_output out{};
  const bool filled = fill_buffers(view_output(from, scratch), in, out);
  const Status written = write_struct("mmcore_output", out, output, output->struct_size);
  if (!written.ok()) return report(written);
  if (filled) return MMCORE_OK;
  return report(MMCORE_BUFFER_TOO_SMALL,
                "An array of the output is too small; the output says how much is needed.");
}

Status ReadableRequest::abort() {
  const std::shared_ptr<EngineLoop> owner = loop();
  if (owner == nullptr) return {};
  const Status status = owner->abort(id());
  return status.code() == StatusCode::kNotFound ? Status() : status;  // it has ended
}

void ReadableRequest::close() {
  static_cast<void>(abort());
  std::deque<RequestOutput> dropped;  // freed without the lock
  const std::scoped_lock lock(mutex_);
  closed_ = true;
  dropped.swap(outputs_);
  news_.notify_all();
}

}  // namespace mmcore::c_api
