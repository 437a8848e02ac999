// How far one sequence may go in one step: pure arithmetic over positions and spans.
//
//   begin = computed tokens; a chunk is [begin, end) with end <= size; an empty chunk means "not
//   now". Where a chunk may end:
//     split items   anywhere
//     whole items   never inside a span; a span that begins at `begin` may exceed the longest chunk
#pragma once

#include <cstdint>

#include "media/span_map.h"

namespace mmcore {

/// Limits of one sequence's chunk, in tokens.
struct ChunkLimits {
  int64_t budget = 0;     // tokens left in the step
  int64_t max_chunk = 0;  // longest chunk, 0 = the budget
  bool split_items = true;
  bool chunked = true;  // false: all or nothing
};

/// End of the longest chunk that begins at `begin` in a sequence of `size` tokens.
int64_t chunk_end(const SpanMap& spans, int64_t begin, int64_t size, const ChunkLimits& limits);

/// Tokens of a prefix hit that can be used: `matched` tokens are cached, at least one token of
/// `size` is always computed, and whole items are never entered.
int64_t usable_hit(const SpanMap& spans, int64_t matched, int64_t size, bool split_items);

}  // namespace mmcore
