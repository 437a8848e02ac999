// Engine::Impl: steps that are handed over while the step before them runs.
//
//   step()    launch k + 1 | end k, commit k        step()    launch k + 2 | end k + 1, commit k +
//   1 runner    k ---------------| k + 1 -------------------------------| k + 2 -----------
//
// Between two calls of step() one step is in flight, within a call two are.
#include <exception>

#include "base/check.h"
#include "engine/engine_impl.h"

namespace mmcore {

Engine::Impl::~Impl() { take_back(); }

StepOutcome Engine::Impl::run_overlapping() {
  if (num_in_flight_ == 0 && !launch(/*ahead=*/false)) return {};
  // A step that fails, or might, is looked at before anything is built on it.
  if (recovery_.normal() && newest().with_runner) launch(/*ahead=*/true);
  const StepOutcome outcome = land();
  // Something needed the end of that step; the runner works on while the host reads the outputs.
  if (num_in_flight_ == 0 && recovery_.normal()) launch(/*ahead=*/false);
  return outcome;
}

// Selects a step and hands it over; false if nothing can run.
bool Engine::Impl::launch(bool ahead) {
  if (ahead)
    scheduler_.select({.ahead = true});
  else
    select();
  if (scheduler_.entries().empty()) return false;
  Flight& flight = flights_[(oldest_ + num_in_flight_) % flights_.size()];
  build(flight);
  scheduler_.launch(flight.launched);
  ++num_in_flight_;
  counters_.steps_ahead += ahead;
  flight.begun = call_runner(flight, [&] { return runner_->begin(flight.plan, flight.result); });
  flight.with_runner = flight.begun.ok() && flight.result.failed.empty();
  return true;
}

// Ends the oldest step in flight.
StepOutcome Engine::Impl::land() {
  Flight& flight = oldest();
  StepOutcome outcome = outcome_of(flight);
  Status status = flight.begun;
  if (flight.with_runner) status = end(flight);
  if (status.ok() && flight.result.failed.empty()) status = check_result(flight);
  if (status.ok() && flight.result.failed.empty()) {
    scheduler_.recall(flight.launched);
    oldest_ = (oldest_ + 1) % flights_.size();
    --num_in_flight_;
    commit(flight);
    outcome.committed = true;
    return outcome;
  }
  // What was built on it goes first, whatever came of it.
  while (num_in_flight_ > 1) {
    Flight& built_on_it = newest();
    if (built_on_it.with_runner) static_cast<void>(end(built_on_it));
    scheduler_.recall(built_on_it.launched);
    --num_in_flight_;
    note_departed();
    scheduler_.rollback();
    bury_departed();
  }
  scheduler_.recall(flight.launched);
  --num_in_flight_;
  roll_back(flight, status);
  return outcome;
}

Status Engine::Impl::end(Flight& flight) {
  flight.with_runner = false;
  return call_runner(flight, [&] { return runner_->end(); });
}

// Takes back from the runner what it still holds, which nobody is interested in any more.
void Engine::Impl::take_back() {
  for (; num_in_flight_ > 0; --num_in_flight_) {
    Flight& flight = oldest();
    oldest_ = (oldest_ + 1) % flights_.size();
    if (!flight.with_runner) continue;
    try {
      static_cast<void>(end(flight));
    } catch (const std::exception&) {
      // The engine goes, or is broken already.
    }
  }
}

// Remembers the sequences of the selected step that ended while it ran.
void Engine::Impl::note_departed() {
  landed_departed_.clear();
  for (const ScheduledEntry& entry : scheduler_.entries())
    if (entry.sequence->state == SequenceState::kFinished)
      landed_departed_.push_back(entry.sequence);
}

// Forgets those of them that no step in flight has a row of.
void Engine::Impl::bury_departed() {
  for (Sequence* sequence : landed_departed_) {
    if (sequence->in_flight > 0) continue;
    const RequestId request = sequence->request();
    const bool one_of_several = sequence->is_one_of_several;
    departed_.erase(sequence->order.id);
    const auto left = departed_of_.find(request);
    if (--left->second > 0) continue;
    departed_of_.erase(left);
    if (lives(request)) continue;
    if (one_of_several) scheduler_.forget(request);
    release_runner(request);
  }
  landed_departed_.clear();
}

}  // namespace mmcore
