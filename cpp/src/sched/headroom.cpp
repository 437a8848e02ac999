#include "sched/headroom.h"

#include <algorithm>
#include <cmath>

#include "sched/admission.h"

namespace mmcore {
namespace {

// Of answers that may stop, until some have: half of them before they are twice as long.
constexpr double kPriorStops = 0.5;
// Multiples of it, modulo one, are spread evenly wherever one begins and ends.
constexpr double kGoldenRatio = 0.6180339887498949;

// The last token, if there is one, that is not known yet.
int32_t known_outputs(const Sequence& sequence) {
  return sequence.num_outputs() - static_cast<int32_t>(sequence.pending_sample >= 0);
}

}  // namespace

Headroom::Headroom(const EngineConfig& config)
    : block_size_(config.block_size),
      length_limit_(length_limit(config)),
      percent_(config.headroom),
      tables_{LifeTable(0), LifeTable(kPriorStops)} {}

Headroom::Kind Headroom::kind(const Sequence& sequence) {
  return sequence.ignore_eos && !sequence.has_stop_tokens ? kWhole : kMayStop;
}

void Headroom::ended(const Sequence& sequence, bool stopped) {
  const int32_t outputs = known_outputs(sequence);
  if (outputs == 0) return;
  LifeTable& table = tables_[kind(sequence)];
  stopped ? table.stopped(outputs) : table.cut(outputs);
}

int64_t Headroom::life_blocks(const Sequence& sequence) const {
  const int64_t tokens = int64_t{sequence.prompt_len} + sequence.max_tokens;
  return blocks_for(std::min(tokens, length_limit_));
}

void Headroom::begin() {
  made_ = true;
  num_running_ = 0;
  spare_blocks_ = 0;
  forecast_.clear();
  for (LifeTable& table : tables_) table.begin_estimate();
}

void Headroom::learn(const Sequence& sequence) {
  if (const int32_t outputs = known_outputs(sequence); outputs > 0)
    tables_[kind(sequence)].runs(outputs);
}

int64_t Headroom::steps_left(const Sequence& sequence) const {
  const int64_t most = length_limit_ - sequence.prompt_len;
  const auto limit = static_cast<int32_t>(std::min<int64_t>(sequence.max_tokens, most));
  const int32_t outputs = known_outputs(sequence);
  const double place = 0.5 + kGoldenRatio * static_cast<double>(num_running_);
  const int32_t end = tables_[kind(sequence)].end(std::max(outputs, sequence.min_tokens),
                                                  place - std::floor(place), limit);
  return std::max(std::min(end, limit) - outputs, 0);
}

void Headroom::enter(const Sequence& sequence) {
  const int64_t blocks = sequence.table.size();
  MemoryForecast::Life life{.steps = steps_left(sequence)};
  if (sequence.reserved) {
    life.given_back = (life_blocks(sequence) - sequence.borrowed) * block_size_;
  } else {
    if (!sequence.decoding()) spare_blocks_ += blocks_for(sequence.size()) - blocks;
    ++spare_blocks_;
    // Half of a sequence's last block is empty, on average.
    life.at_once = sequence.size() + block_size_ / 2 - blocks * block_size_;
    life.grows = true;
    life.given_back = (blocks - sequence.borrowed) * block_size_;
  }
  forecast_.add(life);
  ++num_running_;
}

int64_t Headroom::blocks_to_enter(const Sequence& sequence, int64_t borrowed,
                                  bool whole_life) const {
  const int64_t blocks = whole_life ? life_blocks(sequence) : blocks_for(sequence.size() + 1);
  if (num_running_ == 0) return blocks - borrowed;
  const int64_t tokens =
      whole_life ? blocks * block_size_ : int64_t{sequence.size()} + block_size_ / 2;
  const int64_t peak = forecast_.peak({.steps = steps_left(sequence),
                                       .at_once = tokens - borrowed * block_size_,
                                       .grows = !whole_life});
  const int64_t least = blocks - borrowed + spare_blocks_;
  return least + std::max<int64_t>(0, blocks_for(peak) - least) * percent_ / 100;
}

}  // namespace mmcore
