#include "ops/attention/plan.h"

#include <algorithm>

namespace mmcore::ops {
namespace {

constexpr int64_t kMaxPartialFloats = int64_t{4} << 20;

// A single query: this many keys make an item worth while, and this many items keep threads busy.
constexpr int64_t kMinDirectKeys = 256;
constexpr int64_t kMaxDirectSplits = 16;
constexpr int64_t kWantedDirectItems = 8;

// Several: keys are split only if there are few items otherwise.
constexpr int64_t kMinTileKeys = 1024;
constexpr int64_t kMaxTileItems = 32;

// Rows of a tile item, unless that leaves fewer items than are good for many threads.
constexpr int64_t kMinTileRows = 128;
constexpr int64_t kWantedTileItems = 32;

// About 3 us of one core.
constexpr int64_t kMinTaskCost = 100'000;

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

int32_t to_int32(int64_t n) { return static_cast<int32_t>(n); }

}  // namespace

int64_t attention_scratch_bytes(int32_t head_dim) {
  const int64_t dim = divide_up(head_dim, 64) * 64;
  const int64_t rows = max_rows(head_dim) + kRowPadding;
  const int64_t floats =
      2 * rows * dim + kMaxGroupRows * kTileKeys + 2 * kTileKeys * dim + rows * 16 + 2 * rows + 64;
  return floats * static_cast<int64_t>(sizeof(float)) +
         4 * kTileKeys * static_cast<int64_t>(sizeof(void*));
}

int32_t AttentionPlan::fill(const AttentionProblem& problem, int32_t first) {
  items_.clear();
  cost_.clear();
  merges_.clear();
  partial_floats_ = 0;
  int32_t n = first;
  for (; n < problem.sequences && partial_floats_ < kMaxPartialFloats; ++n) {
    const int32_t queries = query_len(problem, n);
    if (queries == 1 && problem.heads / problem.kv_heads <= kMaxDirectHeads) {
      add_direct(problem, n);
    } else if (queries > 0) {
      add_tiles(problem, n);
    }
  }
  return n;
}

/// Ranges of keys, each for many heads: their rows lie side by side, on the same pages.
void AttentionPlan::add_direct(const AttentionProblem& p, int32_t n) {
  const KeyRange seen = visible_keys(p, n, 0);
  const int64_t keys = seen.end - seen.begin;
  const int64_t wanted = std::clamp<int64_t>(keys / kMinDirectKeys, 1, kMaxDirectSplits);
  const int64_t range =
      std::max<int64_t>(1, divide_up(divide_up(keys, wanted), kTileKeys)) * kTileKeys;
  const int64_t splits = std::max<int64_t>(1, divide_up(keys, range));
  const int64_t group = p.heads / p.kv_heads;
  const int64_t parts = std::min<int64_t>(p.kv_heads, divide_up(kWantedDirectItems, splits));
  const int64_t kv_heads = std::min(divide_up(p.kv_heads, parts), max_rows(p.head_dim) / group);
  const int64_t partial_of_head = partial_size(group, p.head_dim);
  for (int64_t split = 0; split < splits; ++split) {
    for (int64_t kv_head = 0; kv_head < p.kv_heads; kv_head += kv_heads) {
      const int64_t count = std::min(kv_heads, p.kv_heads - kv_head);
      if (split == 0 && splits > 1) {
        merges_.push_back({.item = items_.size(), .count = to_int32(splits)});
      }
      const int64_t partial =
          partial_floats_ + (kv_head * splits + split * count) * partial_of_head;
      add(p, {.sequence = n,
              .query = 0,
              .queries = 1,
              .head = to_int32(kv_head * group),
              .heads = to_int32(count * group),
              .key_begin = to_int32(seen.begin + split * range),
              .key_end = to_int32(std::min<int64_t>(seen.end, seen.begin + (split + 1) * range)),
              .direct = true,
              .partial = splits > 1 ? partial : -1});
    }
  }
  if (splits > 1) partial_floats_ += p.kv_heads * splits * partial_of_head;
}

/// Some tokens of the heads that share a key/value head, or of some of them.
void AttentionPlan::add_tiles(const AttentionProblem& p, int32_t n) {
  const int32_t queries = query_len(p, n);
  const int64_t rows = std::clamp<int64_t>(int64_t{queries} * p.heads / kWantedTileItems,
                                           kMinTileRows, max_rows(p.head_dim));
  const int64_t group = p.heads / p.kv_heads;
  const int64_t parts = divide_up(group, rows);
  const int64_t heads = divide_up(group, parts);
  const int64_t tiles = divide_up(queries, std::max<int64_t>(1, rows / heads));
  const int64_t tokens = divide_up(queries, tiles);
  for (int64_t kv_head = 0; kv_head < p.kv_heads; ++kv_head) {
    for (int64_t head = 0; head < group; head += heads) {
      for (int64_t query = 0; query < queries; query += tokens) {
        AttentionItem item{.sequence = n,
                           .query = to_int32(query),
                           .queries = to_int32(std::min(tokens, queries - query)),
                           .head = to_int32(kv_head * group + head),
                           .heads = to_int32(std::min(heads, group - head)),
                           .key_begin = visible_keys(p, n, to_int32(query)).begin,
                           .key_end = 0,
                           .direct = false,
                           .partial = -1};
        item.key_end =
            std::max(item.key_begin, visible_keys(p, n, item.query + item.queries - 1).end);
        add_split(p, item, tiles * parts * p.kv_heads);
      }
    }
  }
}

void AttentionPlan::add_split(const AttentionProblem& p, AttentionItem item, int64_t whole_items) {
  const int64_t keys = item.key_end - item.key_begin;
  const int64_t splits = std::min(keys / kMinTileKeys, kMaxTileItems / whole_items);
  if (splits <= 1) return add(p, item);
  const int32_t part = to_int32(divide_up(divide_up(keys, splits), kTileKeys) * kTileKeys);
  merges_.push_back({.item = items_.size(), .count = 0});
  const int32_t end = item.key_end;
  for (int32_t begin = item.key_begin; begin < end; begin += part) {
    item.key_begin = begin;
    item.key_end = std::min(end, begin + part);
    item.partial = partial_floats_;
    partial_floats_ += partial_size(int64_t{item.queries} * item.heads, p.head_dim);
    ++merges_.back().count;
    add(p, item);
  }
}

void AttentionPlan::add(const AttentionProblem& p, const AttentionItem& item) {
  const int64_t rows = int64_t{item.queries} * item.heads;
  // Loading, and packing where there are tiles, costs about as much as some more rows.
  const int64_t loaded = item.direct ? 4 * item.heads / (p.heads / p.kv_heads) : 12;
  const int64_t cost = 1000 + 2 * (rows + loaded) * (item.key_end - item.key_begin) * p.head_dim;
  cost_.push_back((cost_.empty() ? 0 : cost_.back()) + cost);
  items_.push_back(item);
}

void AttentionPlan::make_tasks(int64_t parts) {
  task_starts_.assign(1, 0);
  if (items_.empty()) return;
  const int64_t target = std::max(kMinTaskCost, divide_up(cost_.back(), parts));
  int64_t done = 0;
  for (size_t i = 0; i < items_.size(); ++i) {
    if (cost_[i] - done < target && i + 1 < items_.size()) continue;
    task_starts_.push_back(i + 1);
    done = cost_[i];
  }
}

}  // namespace mmcore::ops
