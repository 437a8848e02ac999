// The engine: queue, scheduler, block pool, prefix index and encoder cache around a ModelRunner.
//
// Threads: an Engine belongs to one thread at a time; no call blocks except step(), which runs the
// model. A step is a transaction: plan -> reserve -> run -> commit, or roll back. Same calls, same
// plans.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "mmcore/config.h"
#include "mmcore/export.h"
#include "mmcore/local.h"
#include "mmcore/model_runner.h"
#include "mmcore/request.h"
#include "mmcore/status.h"

namespace mmcore {

/// Counters since the engine was made, and gauges of now. All are exact.
struct EngineMetrics {
  // gauges
  int64_t num_waiting = 0;
  int64_t waiting_tokens = 0;
  int64_t num_running = 0;
  int64_t blocks_total = 0;   // usable blocks (without the null block)
  int64_t blocks_used = 0;    // held by a sequence
  int64_t blocks_cached = 0;  // free, but still found by the prefix index
  int64_t host_blocks_total = 0;
  int64_t host_blocks_used = 0;  // hold something
  int64_t encoder_entries = 0;
  int64_t encoder_entries_pinned = 0;
  int64_t encoder_rows = 0;
  // counters
  uint64_t steps = 0;
  uint64_t steps_failed = 0;
  uint64_t requests_submitted = 0;
  uint64_t requests_rejected = 0;
  uint64_t requests_finished = 0;  // stop or length
  uint64_t requests_aborted = 0;
  uint64_t requests_failed = 0;
  uint64_t requests_timed_out = 0;  // of those that failed
  uint64_t tokens_planned = 0;      // rows run
  uint64_t tokens_generated = 0;
  uint64_t prefix_tokens_queried = 0;
  uint64_t prefix_tokens_hit = 0;
  uint64_t prefix_tokens_copied = 0;  // of those hit, in the copied beginning of a block
  uint64_t tokens_forked = 0;         // taken over from another sequence of the request
  uint64_t prefix_tokens_shared = 0;  // of those hit, in blocks filled by the same step
  uint64_t prefix_tokens_loaded = 0;  // of those hit, in blocks that came back from the host
  uint64_t blocks_evicted = 0;        // cached blocks taken for new use
  uint64_t blocks_offloaded = 0;      // of those, saved to the host
  uint64_t blocks_loaded = 0;         // from the host
  uint64_t host_blocks_evicted = 0;   // blocks in the host tier that went to make room there
  uint64_t block_copies = 0;
  uint64_t items_encoded = 0;
  uint64_t items_skipped = 0;  // spans whose KV or encoder output was cached
  uint64_t preemptions = 0;
  uint64_t steps_ahead = 0;      // handed over while the step before them ran
  uint64_t rows_surplus = 0;     // run for a sequence that had ended; of tokens_planned
  uint64_t steps_slow = 0;       // the runner took longer than step_watchdog_us
  uint64_t slowest_step_us = 0;  // with a watchdog: the longest run so far
};

struct StepOutcome {
  int32_t num_sequences = 0;  // 0: nothing could or needed to run
  int32_t num_tokens = 0;
  bool committed = false;  // false: nothing to do, or rolled back
};

enum class SequenceStage : int32_t { kWaiting = 0, kRunning = 1 };

/// One unfinished sequence of a request.
struct SequenceSnapshot {
  RequestId request = 0;
  int32_t sequence = 0;
  SequenceStage stage = SequenceStage::kWaiting;
  int32_t num_prompt_tokens = 0;
  int32_t num_output_tokens = 0;
  int32_t num_computed_tokens = 0;  // whose keys and values are in the cache, or will be when the
                                    // step that the runner holds has ended
  int32_t num_blocks = 0;
  int32_t num_preemptions = 0;
  int32_t num_items = 0;  // media
};

/// A copy of what an engine does now.
struct EngineSnapshot {
  EngineMetrics metrics;
  bool accepting = true;
  std::vector<SequenceSnapshot> sequences;  // running in their order, then waiting in theirs
};

class MMCORE_API Engine {
 public:
  /// Checks `config` and makes an engine. `runner` must outlive it.
  static Result<std::unique_ptr<Engine>> create(const EngineConfig& config, ModelRunner* runner);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  /// Validates (this is the one authority) and queues a request. Refuses at once what can never
  /// fit.
  Result<RequestId> submit(Request request);

  /// Likewise, under an id of the caller's choice, above every id that a request or a sequence of
  /// one has had (a request for n sequences takes n ids).
  Result<RequestId> submit(Request request, RequestId id);

  /// Frees all that the request holds and emits a final output with kAborted for each of its
  /// sequences that has not ended. kNotFound if it is unknown or finished.
  Status abort(RequestId id);

  /// Ends one sequence of a request from outside with kStop (a stop string was seen in its text).
  /// The others go on. After this as after abort, blocks that were filled stay in the prefix cache.
  Status finish(RequestId id, int32_t sequence = 0);

  /// Plans and runs one step. An error Status means that the engine itself is broken (InternalError
  /// inside): every request has ended with kError, and nothing is accepted any more. Failures of
  /// requests are in their outputs. Where steps overlap (EngineConfig::async_schedule), the call
  /// ends one step, whose outcome it gives, and leaves the next one with the runner.
  Result<StepOutcome> step();

  /// Moves out everything that happened since the last call.
  std::vector<RequestOutput> take_outputs();

  /// Likewise, into `batch`, whose old content is discarded and its memory used again: a host that
  /// hands the same vector in every time makes a steady decode free of allocations.
  void take_outputs(std::vector<RequestOutput>& batch);

  /// Whether there is anything to step for: a request, or a step that the runner still holds.
  bool has_unfinished() const;

  /// Accepts nothing more, for good: submit gives kShutdown. What was accepted runs on by step().
  void drain();

  /// Copies the state of all unfinished sequences. O(sequences).
  EngineSnapshot snapshot() const;

  /// Forgets all cached prefixes and unpinned encoder outputs. Fails with kInvalidArgument while
  /// requests run. Waits for a step that the runner still holds.
  Status reset_caches();

  EngineMetrics metrics() const;
  const EngineConfig& config() const;

  /// Longest prompt + output that the pool can hold for one sequence.
  int64_t max_servable_tokens() const;

  /// Checks every invariant of ARCHITECTURE.md over a snapshot; one line each for what is violated.
  /// For tests and debugging: O(all state).
  std::vector<std::string> check_invariants() const;

 private:
  class MMCORE_LOCAL Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mmcore
