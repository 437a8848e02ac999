// Where the media items of one request lie in its tokens.
//
//   tokens   t t [ p p p ] t [ p p ] t t
//   item          0           1
//   position 0 1  2 3 4   5   6 7    8 9
//
// Positions are absolute in the sequence; beyond the prompt there are no items.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "mmcore/media.h"

namespace mmcore {

/// Half-open range of item indices.
struct ItemRange {
  int32_t first = 0;
  int32_t last = 0;
  bool empty() const { return first == last; }
};

class SpanMap {
 public:
  SpanMap() = default;
  /// `items` are valid: in order, without overlap, masks of the right size (sched/admission.h).
  explicit SpanMap(std::vector<MediaItem> items);

  int32_t size() const { return static_cast<int32_t>(items_.size()); }
  bool empty() const { return items_.empty(); }
  const MediaItem& item(int32_t i) const { return items_[static_cast<size_t>(i)]; }
  int64_t begin_of(int32_t i) const { return item(i).offset; }
  int64_t end_of(int32_t i) const { return int64_t{item(i).offset} + item(i).length; }
  /// Rows that the encoder gives for item i.
  int64_t rows(int32_t i) const { return rows_before(i, end_of(i)); }

  /// Items that overlap [begin, end). O(log items).
  ItemRange overlapping(int64_t begin, int64_t end) const;
  /// Whether a cut at `position` would split a span.
  bool splits_span(int64_t position) const;
  /// Embedding rows of item i at positions before `position`, which is clamped to the span.
  int64_t rows_before(int32_t i, int64_t position) const;
  /// Whether the token at `position`, inside item i, is overwritten by an embedding row.
  bool is_embedding(int32_t i, int64_t position) const {
    return rows_before(i, position + 1) != rows_before(i, position);
  }
  /// Whether item i has an embed mask that is not all ones.
  bool masked(int32_t i) const { return !row_counts_[static_cast<size_t>(i)].empty(); }

 private:
  std::vector<MediaItem> items_;
  // Per item: rows before each position of the span, length + 1 entries; empty when unmasked.
  std::vector<std::vector<int32_t>> row_counts_;
};

}  // namespace mmcore
