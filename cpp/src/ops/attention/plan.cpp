#include "ops/attention/plan.h"

#include <algorithm>

namespace mmcore::ops {
namespace {

constexpr int64_t kMaxPartialFloats = int64_t{4} << 20;

// Below this many keys a part of a row's keys is not worth an item, and above so many items a
// sequence has parallelism enough without splitting its keys.
constexpr int64_t kMinDirectKeys = 256;
constexpr int64_t kMaxDirectSplits = 16;
constexpr int64_t kMaxDirectItems = 256;
constexpr int64_t kMinTileKeys = 1024;
constexpr int64_t kMaxTileItems = 32;

// About 3 us of one core.
constexpr int64_t kMinTaskCost = 100'000;

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool is_direct(const AttentionItem& item) {
  return item.queries == 1 && item.heads <= kMaxDirectRows;
}

}  // namespace

int64_t attention_scratch_bytes(int32_t head_dim) {
  constexpr int64_t kRows = kMaxRows + 8;
  const int64_t dim = divide_up(head_dim, 16) * 16;
  const int64_t floats =
      2 * kRows * dim + kRows * kTileKeys + 2 * kTileKeys * dim + kRows * 16 + 2 * kRows + 64;
  return floats * static_cast<int64_t>(sizeof(float)) +
         4 * kTileKeys * static_cast<int64_t>(sizeof(void*));
}

int32_t AttentionPlan::fill(const AttentionProblem& problem, int32_t first) {
  items_.clear();
  cost_.clear();
  merges_.clear();
  partial_floats_ = 0;
  int32_t n = first;
  while (n < problem.sequences && partial_floats_ < kMaxPartialFloats) add_sequence(problem, n++);
  return n;
}

void AttentionPlan::add_sequence(const AttentionProblem& p, int32_t n) {
  const int32_t queries = query_len(p, n);
  if (queries == 0) return;
  // Rows of one item: some tokens of the heads that share a key/value head, or some such heads.
  const int32_t group = p.heads / p.kv_heads;
  const int32_t head_parts = static_cast<int32_t>(divide_up(group, kMaxRows));
  const int32_t heads = static_cast<int32_t>(divide_up(group, head_parts));
  const int32_t tiles = static_cast<int32_t>(divide_up(queries, std::max(1, kMaxRows / heads)));
  const int32_t tokens = static_cast<int32_t>(divide_up(queries, tiles));
  const int64_t whole_items = int64_t{tiles} * head_parts * p.kv_heads;
  for (int32_t kv_head = 0; kv_head < p.kv_heads; ++kv_head) {
    for (int32_t head = 0; head < group; head += heads) {
      for (int32_t query = 0; query < queries; query += tokens) {
        AttentionItem item{.sequence = n,
                           .query = query,
                           .queries = std::min(tokens, queries - query),
                           .head = kv_head * group + head,
                           .heads = std::min(heads, group - head),
                           .key_begin = 0,
                           .key_end = 0,
                           .partial = -1};
        item.key_begin = visible_keys(p, n, query).begin;
        item.key_end = std::max(item.key_begin, visible_keys(p, n, query + item.queries - 1).end);
        add_split(p, item, whole_items);
      }
    }
  }
}

void AttentionPlan::add_split(const AttentionProblem& p, AttentionItem item, int64_t whole_items) {
  const int64_t keys = item.key_end - item.key_begin;
  const int64_t splits =
      is_direct(item)
          ? std::min({keys / kMinDirectKeys, kMaxDirectSplits, kMaxDirectItems / whole_items})
          : std::min(keys / kMinTileKeys, kMaxTileItems / whole_items);
  if (splits <= 1) return add(p, item);
  const int32_t part =
      static_cast<int32_t>(divide_up(divide_up(keys, splits), kTileKeys)) * kTileKeys;
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
  const int64_t loaded = is_direct(item) ? 4 : 12;
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
