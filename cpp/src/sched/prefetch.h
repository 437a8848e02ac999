// Loads the memory of the sequences that a loop comes to next. With thousands of them the loops
// over a step wait for little else: 82 -> 60 ns a sequence and step at 4,096 running (Xeon, 2 MiB
// L2 a core; benchmarks/cpp/scheduler_step.cpp).
#pragma once

#include <cstddef>
#include <vector>

#include "sched/sequence.h"

namespace mmcore {

inline void prefetch_head(const Sequence& sequence) {
  const auto* line = reinterpret_cast<const char*>(&sequence);
  __builtin_prefetch(line);
  __builtin_prefetch(line + 64);
}

/// The newest token and block; reads the head, which must be on its way for longer.
inline void prefetch_tails(const Sequence& sequence) {
  __builtin_prefetch(sequence.tokens.data() + sequence.computed);
  __builtin_prefetch(sequence.table.blocks().data() + sequence.table.size() - 1);
}

/// For a loop over `items` that is at index i; `sequence_of` gives an item's sequence.
template <class T, class SequenceOf>
void prefetch_ahead(const std::vector<T>& items, size_t i, SequenceOf sequence_of) {
  constexpr size_t kHead = 6;
  constexpr size_t kTails = 3;
  if (i + kHead >= items.size()) return;
  prefetch_head(*sequence_of(items[i + kHead]));
  prefetch_tails(*sequence_of(items[i + kTails]));
}

}  // namespace mmcore
