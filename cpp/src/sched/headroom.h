// What a sequence that enters must leave free (docs: sched.headroom): a block for each sequence
// that runs, and what they are expected to need at most until it ends.
//
// Each running sequence is expected to end at a length that those like it had. The lengths are
// spread over what the life table holds, not all at its mean, so that their sum over time is the
// table's. A sequence with its whole life set aside grows no further.
#pragma once

#include <cstdint>

#include "mmcore/config.h"
#include "sched/life_table.h"
#include "sched/memory_forecast.h"
#include "sched/sequence.h"

namespace mmcore {

class Headroom {
 public:
  /// `config` is resolved.
  explicit Headroom(const EngineConfig& config);

  /// Learns from a sequence that has ended, `stopped` by itself or cut off.
  void ended(const Sequence& sequence, bool stopped);

  /// Blocks of the sequence's prompt and the most outputs that it may have.
  int64_t life_blocks(const Sequence& sequence) const;

  /// Drops the forecast; it is made again where one is needed.
  void drop() { made_ = false; }
  bool made() const { return made_; }
  /// Makes the forecast of what runs; then enter() adds to it. O(running).
  template <class Sequences>
  void make(const Sequences& running) {
    begin();
    for (const Sequence* sequence : running) learn(*sequence);
    for (LifeTable& table : tables_) table.end_estimate();
    for (const Sequence* sequence : running) enter(*sequence);
  }
  void enter(const Sequence& sequence);

  /// Blocks that must be free for the sequence to enter beside those that run, when `borrowed` of
  /// its blocks are others'; with its `whole_life` set aside, or with its tokens. O(1).
  int64_t blocks_to_enter(const Sequence& sequence, int64_t borrowed, bool whole_life) const;

 private:
  // Sequences that only their length should end, as their requests say, and those that may stop.
  enum Kind : size_t { kWhole, kMayStop, kKinds };
  static Kind kind(const Sequence& sequence);
  void begin();
  void learn(const Sequence& sequence);
  int64_t steps_left(const Sequence& sequence) const;
  int64_t blocks_for(int64_t tokens) const { return (tokens + block_size_ - 1) / block_size_; }

  const int64_t block_size_;
  const int64_t length_limit_;
  const int64_t percent_;  // of the expected growth
  LifeTable tables_[kKinds];
  MemoryForecast forecast_;
  bool made_ = false;
  int64_t num_running_ = 0;
  int64_t spare_blocks_ = 0;  // for tokens that running prefills have, and one for each that grows
};

}  // namespace mmcore
