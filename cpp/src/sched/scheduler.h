// Decides what runs in a step, and owns the queues and resources behind that decision.
//
// A step is select() -> the runner -> commit() or rollback(). Between steps every running sequence
// holds exactly the blocks of its computed tokens; a waiting one holds nothing. No clock and no
// randomness: the same calls give the same selections.
//
// Order of a step (docs: sched.order): decodes of running sequences, prefill chunks of running
// sequences, then the waiting queue's head, each by (rank, arrival). Memory that a running
// sequence lacks is taken from the last running one that may be preempted; a sequence that is
// itself the last waits.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "mmcore/config.h"
#include "mmcore/queue_policy.h"
#include "sched/headroom.h"
#include "sched/resources.h"
#include "sched/sequence.h"
#include "sched/waiting_queue.h"

namespace mmcore {

/// One sequence's share of the selected step: tokens [first, end()).
struct ScheduledEntry {
  Sequence* sequence = nullptr;
  int32_t first = 0;  // computed tokens before the step
  int32_t num_tokens = 0;
  int32_t blocks_before = 0;     // table size before the step
  int32_t published_before = 0;  // of them, or of the adopted ones
  bool admitted = false;         // came from the waiting queue in this step
  bool prefill = false;          // more than the newest token was missing
  int32_t num_prompt_rows = 0;   // rows that give prompt logprobs (set by StepBuilder)
  bool samples = false;          // gives the sequence's next token (set by Scheduler::launch)

  int32_t end() const { return first + num_tokens; }
};

/// Which sequences may be selected.
struct SelectionScope {
  Sequence* only = nullptr;  // if set, nothing else runs
  bool admit = true;         // false: the queue waits, unless nothing runs
  // A step is in flight, as if it had succeeded. What needs its end is left to a later selection:
  // nobody is preempted; where that would be needed, or a token that is not known, nothing runs.
  bool ahead = false;
};

/// What a committed step adds to the metrics.
struct SelectionCounters {
  int64_t prefix_tokens_queried = 0;
  int64_t prefix_tokens_hit = 0;
  int64_t prefix_tokens_shared = 0;  // of those, in blocks that the step fills
  int64_t prefix_tokens_copied = 0;  // of those hit, in the copied beginning of a block
  int64_t prefix_tokens_loaded = 0;  // of those hit, from the host tier
  int64_t tokens_forked = 0;         // from other sequences of the same request
  int64_t items_encoded = 0;
  int64_t items_skipped = 0;  // the KV or the encoder output was there
};

/// A selected step that runs, apart from the next selection.
struct LaunchedStep {
  std::vector<ScheduledEntry> entries;
  SelectionCounters counters;
  Resources::Reservations reservations;
};

class Scheduler {
 public:
  /// `config` is resolved.
  explicit Scheduler(const EngineConfig& config);

  /// Queues a new sequence; the scheduler keeps the pointer until remove() or finish().
  void add(Sequence* sequence) { waiting_.insert(sequence); }
  /// Takes a sequence out, whatever its state, and frees what it holds; if a step in flight has a
  /// row of it, only when that has landed. `stopped`: its answer was complete.
  void remove(Sequence* sequence, bool stopped = false);

  /// Selects and reserves a step; entries() is empty if nothing can run.
  void select(const SelectionScope& scope);
  /// The selected step, decodes first.
  std::vector<ScheduledEntry>& entries() { return entries_; }
  const SelectionCounters& counters() const { return counters_; }

  /// Takes the selected step out while it runs: its sequences go on as if it had committed, with -1
  /// for the tokens that it samples. Then another one may be selected ahead.
  void launch(LaunchedStep& step);
  /// Puts a step that has landed back in place of the selection, to be committed or rolled back.
  /// The oldest one commits first, the newest one rolls back first.
  void recall(LaunchedStep& step);

  /// Keeps the step's work: begin_commit(), then commit() for each entry, each perhaps followed by
  /// finish() of a sequence that has ended, `stopped` by a token or cut off, then end_commit().
  void begin_commit();
  void commit(const ScheduledEntry& entry);
  void finish(Sequence* sequence, bool stopped);
  void end_commit();
  /// Undoes the selection: tables, pins and queues are as before, but for preempted sequences and
  /// evicted cache entries.
  void rollback();

  const WaitingQueue& waiting() const { return waiting_; }
  const std::vector<Sequence*>& running() const { return running_; }
  const Resources& resources() const { return resources_; }
  void clear_caches() { resources_.clear_caches(); }
  void forget(RequestId id) { resources_.forget(id); }
  uint64_t preemptions() const { return preemptions_; }
  QueuePolicy& policy() const { return *policy_; }
  /// Whether later arrivals may pass the queue's head.
  bool may_pass() const { return window_ > 1; }
  /// Blocks that the sequence may ever hold.
  int64_t life_blocks(const Sequence& sequence) const { return headroom_.life_blocks(sequence); }
  /// Free blocks that are set aside for running sequences with `reserved`.
  int64_t reserved_blocks() const { return reserved_blocks_; }

 private:
  struct Step {  // state of one selection
    bool ahead = false;
    bool given_up = false;  // ahead: it cannot be made before the step in flight has landed
    int64_t tokens_left = 0;
    int64_t encoder_rows_left = 0;
    // Someone earlier in the order waits for this, so nobody later may take it:
    bool tokens_closed = false;   // a span or prompt that must run whole
    bool encoder_closed = false;  // room in the encoder cache
    bool memory_closed = false;   // KV blocks
  };

  void begin_selection(bool ahead = false);
  void give_up();
  bool known_ahead(const Sequence& sequence);
  void land(Sequence& sequence);
  void free(Sequence& sequence);
  void select_running();
  void select_decode(Sequence* sequence);
  void select_prefill(Sequence* sequence);
  void select_waiting();
  void select_only(Sequence* sequence);
  bool admit(Sequence* sequence);
  int64_t reach(Sequence* sequence, int64_t begin, int64_t token_limit,
                Resources::MediaReach* media);
  bool make_room(int64_t blocks, Sequence* sequence);
  struct Prefix {
    int64_t tokens = 0;  // that need not be computed; -1: it does not fit into memory
    const Sequence* sibling = nullptr;  // whose blocks they are; null: the prefix cache's
  };
  Prefix find_prefix(Sequence* sequence);
  int64_t usable_prefix(const Sequence& sequence, int64_t matched, const Sequence* sibling) const;
  const Sequence* fork_source(const Sequence& sequence) const;
  bool admission_fits(const Sequence& sequence, int64_t hit);
  int64_t borrowed_blocks(int64_t hit) const;
  /// Whether it may not be preempted any more once it runs.
  bool must_reserve(const Sequence& sequence) const {
    return sequence.num_preemptions >= config_.max_preemptions;
  }
  Sequence* last_victim() const;
  void preempt(Sequence* victim);
  Sequence* next_to_enter();
  void note_passed(const Sequence& entered);
  int64_t available_blocks(const Sequence& sequence) const;
  void reserve_life(Sequence& sequence);
  void drop_reservation(Sequence& sequence);
  void grow(Sequence& sequence, int64_t tokens);
  int64_t shared_tokens(int64_t hit) const;
  void publish_ahead(const ScheduledEntry& entry);
  void push_entry(Sequence* sequence, int64_t num_tokens, int32_t blocks_before, bool admitted,
                  bool shares = false);

  const EngineConfig config_;
  const std::shared_ptr<QueuePolicy> policy_;
  const int32_t window_;
  const int64_t length_limit_;
  Resources resources_;
  Headroom headroom_;
  WaitingQueue waiting_;
  std::vector<Sequence*> running_;  // sorted by order
  Step step_;
  std::vector<ScheduledEntry> entries_;   // decodes while selecting, then all
  std::vector<ScheduledEntry> prefills_;  // while selecting
  std::vector<Sequence*> candidates_;     // running sequences that prefill
  SelectionCounters counters_;
  uint64_t selections_ = 0;
  uint64_t preemptions_ = 0;
  int64_t reserved_blocks_ = 0;
  std::vector<QueueCandidate> window_candidates_;
  int64_t num_finished_ = 0;  // in the step being committed
  bool recalled_ = false;     // the selection is a step that has landed

  struct Blocked {  // a head of line that lacked blocks, and when
    RequestId id = 0;
    uint64_t frees = 0;
  };
  Blocked blocked_;
};

}  // namespace mmcore
