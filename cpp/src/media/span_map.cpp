#include "media/span_map.h"

#include <algorithm>
#include <utility>

namespace mmcore {

SpanMap::SpanMap(std::vector<MediaItem> items) : items_(std::move(items)) {
  row_counts_.resize(items_.size());
  for (size_t i = 0; i < items_.size(); ++i) {
    const MediaItem& item = items_[i];
    if (item.num_embeddings() == item.length) continue;
    std::vector<int32_t>& counts = row_counts_[i];
    counts.reserve(item.embed_mask.size() + 1);
    counts.push_back(0);
    for (const uint8_t bit : item.embed_mask) counts.push_back(counts.back() + (bit != 0));
  }
}

ItemRange SpanMap::overlapping(int64_t begin, int64_t end) const {
  if (begin >= end) return {};
  const auto first = std::partition_point(items_.begin(), items_.end(), [&](const MediaItem& item) {
    return int64_t{item.offset} + item.length <= begin;
  });
  const auto last = std::partition_point(first, items_.end(),
                                         [&](const MediaItem& item) { return item.offset < end; });
  return {static_cast<int32_t>(first - items_.begin()),
          static_cast<int32_t>(last - items_.begin())};
}

bool SpanMap::splits_span(int64_t position) const {
  const ItemRange hit = overlapping(position, position + 1);
  return !hit.empty() && begin_of(hit.first) < position;
}

int64_t SpanMap::rows_before(int32_t i, int64_t position) const {
  const int64_t inside = std::clamp<int64_t>(position - begin_of(i), 0, item(i).length);
  const std::vector<int32_t>& counts = row_counts_[static_cast<size_t>(i)];
  return counts.empty() ? inside : counts[static_cast<size_t>(inside)];
}

}  // namespace mmcore
