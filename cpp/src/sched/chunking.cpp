#include "sched/chunking.h"

#include <algorithm>

namespace mmcore {

int64_t chunk_end(const SpanMap& spans, int64_t begin, int64_t size, const ChunkLimits& limits) {
  if (!limits.chunked) return size - begin <= limits.budget ? size : begin;
  const int64_t longest =
      limits.max_chunk > 0 ? std::min(limits.max_chunk, limits.budget) : limits.budget;
  const int64_t end = std::min(size, begin + longest);
  if (limits.split_items || !spans.splits_span(end)) return end;
  const int32_t item = spans.overlapping(end, end + 1).first;
  if (spans.begin_of(item) > begin) return spans.begin_of(item);
  return spans.end_of(item) - begin <= limits.budget ? spans.end_of(item) : begin;
}

int64_t usable_hit(const SpanMap& spans, int64_t matched, int64_t size, bool split_items) {
  const int64_t hit = std::min(matched, size - 1);
  if (split_items || hit <= 0 || !spans.splits_span(hit)) return hit;
  return spans.begin_of(spans.overlapping(hit, hit + 1).first);
}

}  // namespace mmcore
