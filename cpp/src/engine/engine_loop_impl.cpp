// EngineLoop::Impl: what the loop's thread does.
#include "engine/engine_loop_impl.h"

#include <exception>
#include <string>
#include <utility>

namespace mmcore {
namespace {

/// Sets a flag while the engine, and with it perhaps the runner, is being called.
class Inside {
 public:
  explicit Inside(bool& flag) : flag_(flag) { flag_ = true; }
  ~Inside() { flag_ = false; }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

 private:
  bool& flag_;
};

}  // namespace

void EngineLoop::Impl::run() {
  thread_id_ = std::this_thread::get_id();
  try {
    try {
      run_until_closed();
    } catch (const std::exception& e) {
      break_down(Status::internal(std::string("The engine's loop broke down: ") + e.what()));
    }
  } catch (...) {
    // Not even the breakdown could be told (no memory). end_thread() still wakes everybody.
  }
  end_thread();
}

void EngineLoop::Impl::run_until_closed() {
  while (next_batch()) {
    for (Message& message : messages_) std::visit([&](auto& m) { handle(m); }, message);
    messages_.clear();
    if (abort_all_) abort_all();
    publish();
    if (engine_->has_unfinished()) step();
    dispatch();
  }
}

// Waits for something to do and takes the inbox. False: all is over.
bool EngineLoop::Impl::next_batch() {
  // A step that the runner still holds may be of sequences that have ended, and gives no output.
  const bool idle = !engine_->has_unfinished();
  if (idle) publish();
  std::unique_lock lock(mutex_);
  busy_ = !idle;
  if (idle && live_.empty() && inbox_.empty()) quiet_.notify_all();
  if (idle) wake_.wait(lock, [&] { return !inbox_.empty() || closing_; });
  if (idle && inbox_.empty()) return false;
  busy_ = true;
  messages_.swap(inbox_);
  abort_all_ = now_;
  return true;
}

void EngineLoop::Impl::handle(Submission& submission) {
  const RequestId id = submission.id;
  const auto num_sequences = static_cast<size_t>(submission.request.num_sequences);
  const std::shared_ptr<OutputSink> sink = std::exchange(submission.sink, nullptr);
  ++num_handled_;
  Listener& listener = listeners_[id];
  listener.sink = sink;
  listener.ended.resize(num_sequences);
  listener.num_unfinished = submission.request.num_sequences;
  Status status;
  {
    const Inside inside(in_engine_);
    status = engine_->submit(std::move(submission.request), id).status();
  }
  if (status.ok()) return;
  listeners_.erase(id);
  over_ = {id};
  publish();
  refuse(id, num_sequences, *sink, broken_.ok() ? status : broken_);
}

// An end that comes too late finds nothing, and that is well.
void EngineLoop::Impl::handle(const Ending& ending) {
  const Inside inside(in_engine_);
  static_cast<void>(ending.sequence ? engine_->finish(ending.id, *ending.sequence)
                                    : engine_->abort(ending.id));
}

void EngineLoop::Impl::handle(const std::shared_ptr<Visit>& visit) {
  Status status;
  try {
    (*visit->visitor)(*engine_);
  } catch (const std::exception& e) {
    status = Status::internal(e.what());
  }
  const std::scoped_lock lock(mutex_);
  visit->status = std::move(status);
  visit->visitor = nullptr;
  visited_.notify_all();
}

// Shows the other threads what has changed: metrics, and the requests of `over_`, which give their
// places back.
void EngineLoop::Impl::publish() {
  const EngineMetrics metrics = engine_->metrics();
  const std::scoped_lock lock(mutex_);
  metrics_ = metrics;
  num_on_their_way_ -= std::exchange(num_handled_, 0);
  for (const RequestId id : over_) live_.erase(id);
  if (!over_.empty()) place_.notify_all();
  over_.clear();
}

void EngineLoop::Impl::step() {
  Status status;
  {
    const Inside inside(in_engine_);
    status = engine_->step().status();
  }
  // Its outputs hold the end of every request; what is in the inbox is refused one by one.
  if (!status.ok()) close_for(status);
}

// Hands out what the engine has given. Places of requests that end are free before their last
// output is told, so that a callback may submit the next one.
void EngineLoop::Impl::dispatch() {
  while (true) {
    engine_->take_outputs(outputs_);
    if (outputs_.empty()) return;
    std::vector<RequestId> ended;
    for (const RequestOutput& output : outputs_) {
      if (!output.finished()) continue;
      Listener& listener = listeners_.at(output.id);
      listener.ended[static_cast<size_t>(output.sequence)] = true;
      if (--listener.num_unfinished == 0) ended.push_back(output.id);
    }
    over_ = ended;
    publish();
    for (RequestOutput& output : outputs_) deliver(output.id, listeners_.at(output.id), output);
    for (const RequestId id : ended) listeners_.erase(id);
  }
}

void EngineLoop::Impl::deliver(RequestId id, Listener& listener, RequestOutput& output) {
  if (listener.sink == nullptr) return;
  try {
    listener.sink->deliver(output);
    return;
  } catch (...) {
    // The host's fault ends its request, and nothing else.
  }
  listener.sink->close();
  listener.sink.reset();
  const Inside inside(in_engine_);
  static_cast<void>(engine_->abort(id));
}

void EngineLoop::Impl::refuse(RequestId id, size_t num_sequences, OutputSink& sink,
                              const Status& reason) {
  for (size_t i = 0; i < num_sequences; ++i) {
    RequestOutput output;
    output.id = id;
    output.sequence = static_cast<int32_t>(i);
    output.finish_reason = FinishReason::kError;
    output.error = reason;
    try {
      sink.deliver(output);
    } catch (...) {
      return;  // as in deliver(); there is no request to end
    }
  }
}

void EngineLoop::Impl::abort_all() {
  const Inside inside(in_engine_);
  for (const auto& [id, listener] : listeners_) static_cast<void>(engine_->abort(id));
}

void EngineLoop::Impl::close_for(const Status& reason) {
  const std::scoped_lock lock(mutex_);
  broken_ = reason;
  draining_ = closing_ = true;
  place_.notify_all();
}

// Something threw outside the engine and the callbacks, such as bad_alloc: nothing more can run,
// and every request gets its end.
void EngineLoop::Impl::break_down(const Status& reason) {
  close_for(reason);
  {
    const std::scoped_lock lock(mutex_);
    rest_.swap(inbox_);
    live_.clear();
  }
  for (auto& [id, listener] : listeners_) {
    for (size_t i = 0; i < listener.ended.size(); ++i) {
      if (listener.ended[i] || listener.sink == nullptr) continue;
      RequestOutput output;
      output.id = id;
      output.sequence = static_cast<int32_t>(i);
      output.finish_reason = FinishReason::kError;
      output.error = reason;
      deliver(id, listener, output);
    }
  }
  for (std::deque<Message>* messages : {&messages_, &rest_})
    for (Message& message : *messages)
      if (auto* s = std::get_if<Submission>(&message); s != nullptr && s->sink != nullptr)
        refuse(s->id, static_cast<size_t>(s->request.num_sequences), *s->sink, reason);
}

void EngineLoop::Impl::end_thread() {
  for (auto& [id, listener] : listeners_)
    if (listener.sink != nullptr) listener.sink->close();
  listeners_.clear();              // and with them what callbacks keep
  thread_id_ = std::thread::id();  // a thread that is started later may get it
  const std::scoped_lock lock(mutex_);
  exited_ = true;
  busy_ = false;
  live_.clear();
  for (const std::deque<Message>* messages : {&messages_, &rest_, &inbox_}) {
    for (const Message& message : *messages) {
      const auto* visit = std::get_if<std::shared_ptr<Visit>>(&message);
      if (visit == nullptr || (*visit)->visitor == nullptr) continue;
      (*visit)->visitor = nullptr;
      (*visit)->status = closed();
    }
  }
  quiet_.notify_all();
  place_.notify_all();
  visited_.notify_all();
}

}  // namespace mmcore
