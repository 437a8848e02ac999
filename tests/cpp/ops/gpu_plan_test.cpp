// Layer: unit. The division of paged attention over a GPU: what its kernels would do with a plan.
#include "ops/attention/gpu_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "ops/host_tensor.h"

namespace mmcore::ops::testing {
namespace {

constexpr int32_t kUnwritten = 0x5a5a5a5a;

struct Batch {
  AttentionPlanShape shape;
  std::vector<int32_t> query_start = {0};
  std::vector<int32_t> seq_lens;

  void add(int32_t queries, int32_t keys) {
    query_start.push_back(query_start.back() + queries);
    seq_lens.push_back(keys);
  }
  int32_t queries(size_t n) const { return query_start[n + 1] - query_start[n]; }
  int32_t group() const { return shape.heads / shape.kv_heads; }
};

TensorView view(const std::vector<int32_t>& values) {
  return {const_cast<int32_t*>(values.data()),  // NOLINT: a view of something read
          DType::kInt32,
          {static_cast<int64_t>(values.size())}};
}

/// A plan, read as kernels read it.
class Plan {
 public:
  explicit Plan(const Batch& batch, bool settled = false)
      : batch_(batch), layout_(gpu_plan_layout(batch.shape)) {
    EXPECT_EQ(attention_plan_words(batch.shape), layout_.words);
    words_.assign(static_cast<size_t>(layout_.words + 32), kUnwritten);
    const Status status = plan_paged_attention(view(batch.query_start), view(batch.seq_lens),
                                               batch.shape, view(words_), settled);
    EXPECT_TRUE(status.ok()) << status.message();
    EXPECT_TRUE(std::all_of(words_.end() - 32, words_.end(), [](int32_t w) {
      return w == kUnwritten;
    })) << "wrote behind the plan";
  }

  DecodeWorker worker(int32_t w) const {
    DecodeWorker worker;
    std::memcpy(&worker, words_.data() + layout_.workers_at + w * 16, sizeof(worker));
    return worker;
  }
  DecodeSequence sequence(int32_t i) const {
    DecodeSequence s;
    std::memcpy(&s, words_.data() + layout_.sequences_at + i * 8, sizeof(s));
    return s;
  }
  int32_t tiles() const { return words_[kTileCountAt]; }
  std::pair<int32_t, int32_t> tile(int32_t i) const {
    const auto at = static_cast<size_t>(layout_.tiles_at + 2 * i);
    return {words_[at], words_[at + 1]};
  }
  const GpuPlanLayout& layout() const { return layout_; }

  struct Part {
    int32_t worker;
    DecodePart part;
  };
  using Units = std::map<std::pair<int32_t, int32_t>, std::vector<Part>>;  // by sequence and unit

  /// What each worker finds on its stretch.
  Units units() const {
    const int32_t units_a_sequence = units_of(batch_.shape.kv_heads, batch_.group());
    Units units;
    for (int32_t w = 0; w < layout_.workers; ++w) {
      const DecodeWorker own = worker(w);
      if (own.begin >= own.end) continue;
      for (int32_t i = 0;; ++i) {
        const int32_t skipped = (own.unit + i) / units_a_sequence;
        if (own.index + skipped >= own.sequences) break;
        const DecodeSequence s = skipped == 0 ? own.first : sequence(own.index + skipped);
        const int32_t unit = (own.unit + i) % units_a_sequence;
        const DecodePart part = decode_part(own, s, unit);
        if (part.cell_begin >= part.cell_end) break;
        units[{s.sequence, unit}].push_back({w, part});
      }
    }
    return units;
  }

  void expect_complete() const;

 private:
  void expect_tiles() const;

  const Batch& batch_;
  GpuPlanLayout layout_;
  std::vector<int32_t> words_;
};

/// Every key that a query sees is in one part of each unit of its sequence; parts know each other.
void Plan::expect_complete() const {
  const AttentionPlanShape& shape = batch_.shape;
  const Units found = units();
  size_t expected = 0;
  std::set<int32_t> slots;
  std::set<int32_t> counters;
  for (size_t n = 0; n < batch_.seq_lens.size(); ++n) {
    const int32_t queries = batch_.queries(n), keys = batch_.seq_lens[n];
    if (queries == 0 || !is_decode(queries, batch_.group())) continue;
    const int32_t first = shape.window > 0 ? std::max(0, keys - queries - shape.window + 1) : 0;
    const int32_t units = shape.kv_heads * packs_of(batch_.group());
    expected += static_cast<size_t>(units);
    for (int32_t unit = 0; unit < units; ++unit) {
      const auto at = found.find({static_cast<int32_t>(n), unit});
      ASSERT_NE(at, found.end()) << "sequence " << n << " unit " << unit << " is nobody's";
      const std::vector<Part>& parts = at->second;
      int32_t next = first / kCellKeys;
      for (size_t i = 0; i < parts.size(); ++i) {
        const auto& [worker, part] = parts[i];
        ASSERT_EQ(part.cell_begin, next) << "sequence " << n << " unit " << unit << " part " << i;
        next = part.cell_end;
        ASSERT_EQ(part.parts, static_cast<int32_t>(parts.size()));
        ASSERT_EQ(part.first_worker + static_cast<int32_t>(i), worker);
        if (parts.size() == 1) continue;
        const int32_t slot = partial_slot(worker, part.first_worker);
        ASSERT_TRUE(slots.insert(slot).second) << "two parts share slot " << slot;
        ASSERT_LT(slot, 2 * layout_.workers);
      }
      ASSERT_EQ(next, (keys + kCellKeys - 1) / kCellKeys) << "sequence " << n << " unit " << unit;
      if (parts.size() > 1) {
        ASSERT_TRUE(counters.insert(parts[0].part.first_worker).second) << "a shared counter";
      }
    }
  }
  EXPECT_EQ(found.size(), expected);
  expect_tiles();
}

void Plan::expect_tiles() const {
  ASSERT_LE(tiles(), layout_.max_tiles);
  std::set<std::pair<int32_t, int32_t>> expected;
  for (size_t n = 0; n < batch_.seq_lens.size(); ++n) {
    const int32_t queries = batch_.queries(n);
    if (queries == 0 || is_decode(queries, batch_.group())) continue;
    for (int32_t row = 0; row < queries; row += kPrefillTileRows) {
      expected.insert({static_cast<int32_t>(n), row});
    }
  }
  std::set<std::pair<int32_t, int32_t>> got;
  for (int32_t i = 0; i < tiles(); ++i) {
    const auto [n, row] = tile(i);
    EXPECT_TRUE(got.insert({n, row}).second) << "tile " << i << " twice";
  }
  EXPECT_EQ(got, expected);
}

Batch random_batch(Rng& rng) {
  Batch batch;
  AttentionPlanShape& s = batch.shape;
  const auto pick = [&](std::initializer_list<int32_t> of) {
    return of.begin()[rng() % of.size()];
  };
  s.kv_heads = pick({1, 2, 3, 8, 32});
  s.heads = s.kv_heads * pick({1, 2, 3, 4, 7, 8, 16, 17, 48});
  s.head_dim = pick({64, 128, 256});
  s.window = pick({0, 0, 1, 16, 100});
  s.causal = rng() % 4 != 0;
  s.multiprocessors = pick({1, 7, 108, 132});
  const int32_t sequences = pick({0, 1, 2, 5, 33, 200});
  const bool decodes = rng() % 2 == 0;
  for (int32_t n = 0; n < sequences; ++n) {
    const int32_t queries =
        decodes ? pick({0, 1, 1, 1}) : pick({0, 1, 1, 2, 4, 5, 16, 17, 127, 128, 129, 300});
    batch.add(queries,
              queries + pick({0, 0, 1, 15, 16, 17, 500, static_cast<int32_t>(rng() % 9000)}));
  }
  s.max_query_len = decodes ? 1 : 0;
  s.sequences = sequences + pick({0, 0, 3});
  s.tokens = batch.query_start.back() + pick({0, 0, 64});
  return batch;
}

TEST(GpuPlan, CoversEveryKeyOnceInAnyBatch) {
  for (uint64_t seed = 0; seed < 400; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Rng rng(seed);
    const Batch batch = random_batch(rng);
    Plan(batch).expect_complete();
    if (::testing::Test::HasFailure()) return;
  }
}

/// The batches that break plans which divide each sequence alike: one long among short ones.
TEST(GpuPlan, GivesAllMultiprocessorsAboutTheSame) {
  const std::vector<std::tuple<int32_t, int32_t, int32_t, int32_t>> cases = {
      {1, 16384, 31, 512}, {1, 8192, 7, 256}, {1, 100000, 255, 17}, {0, 0, 1, 16384}};
  for (const auto& [longs, long_keys, shorts, short_keys] : cases) {
    for (const int32_t kv_heads : {1, 3, 8, 32}) {
      Batch batch;
      for (int32_t n = 0; n < longs; ++n) batch.add(1, long_keys);
      for (int32_t n = 0; n < shorts; ++n) batch.add(1, short_keys);
      batch.shape = {.sequences = longs + shorts,
                     .tokens = longs + shorts,
                     .max_query_len = 1,
                     .heads = kv_heads,
                     .kv_heads = kv_heads,
                     .head_dim = 128,
                     .multiprocessors = 132};
      const Plan plan(batch);
      plan.expect_complete();
      std::map<int32_t, int64_t> cells;
      int64_t total = 0;
      for (const auto& [unit, parts] : plan.units()) {
        for (const auto& [worker, part] : parts) {
          cells[worker] += part.cell_end - part.cell_begin + kUnitOverhead;
          total += part.cell_end - part.cell_begin + kUnitOverhead;
        }
      }
      for (const auto& [worker, work] : cells) {
        // Teams may take a quarter more, which their merge makes up for, and few units half as
        // much again of what the last cluster leaves them.
        const int64_t units = int64_t{kv_heads} * (longs + shorts), workers = plan.layout().workers;
        const bool teams = plan.worker(0).team > 1;
        int64_t share = total / workers + 1;
        if (!teams && may_have_teams(units, static_cast<int32_t>(workers))) {
          share = total / (workers - kDecodeCluster) + 1;
        }
        const int64_t most = teams ? 5 * share / 4 + 1 : units <= workers ? 3 * share / 2 : share;
        EXPECT_LE(work, std::max<int64_t>(teams ? kTeamChunk : kMinChunk, most) + kUnitOverhead)
            << long_keys << " " << short_keys << " kv heads " << kv_heads << " worker " << worker;
      }
    }
  }
}

/// What a CUDA graph relies on: the same bits whatever the bucket, and from run to run.
TEST(GpuPlan, DoesNotDependOnTheBucket) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    Rng rng(seed);
    const Batch batch = random_batch(rng);
    Batch larger = batch;
    larger.shape.sequences += 17;
    larger.shape.tokens += 1000;
    larger.shape.max_query_len = 0;
    const Plan plan(batch), again(batch), in_larger(larger);
    for (const Plan* other : {&again, &in_larger}) {
      ASSERT_EQ(plan.layout().workers, other->layout().workers);
      for (int32_t w = 0; w < plan.layout().workers; ++w) {
        const DecodeWorker a = plan.worker(w), b = other->worker(w);
        ASSERT_EQ(std::memcmp(&a, &b, sizeof(a)), 0) << "seed " << seed << " worker " << w;
      }
      ASSERT_EQ(plan.tiles(), other->tiles());
      for (int32_t i = 0; i < plan.tiles(); ++i) EXPECT_EQ(plan.tile(i), other->tile(i));
    }
  }
}

/// Each unit of a few short sequences has workers of one cluster to itself.
TEST(GpuPlan, FewUnitsHaveTeams) {
  for (const auto& [sequences, kv_heads, team] :
       std::vector<std::tuple<int32_t, int32_t, int32_t>>{{1, 8, 8},
                                                          {1, 1, 8},
                                                          {2, 8, 8},
                                                          {1, 17, 4},
                                                          {1, 32, 4},
                                                          {8, 4, 4},
                                                          {8, 8, 2},
                                                          {9, 8, 1}}) {
    Batch batch;
    for (int32_t n = 0; n < sequences; ++n) batch.add(1, 1000 - 20 * n);
    batch.shape = {.sequences = sequences,
                   .tokens = sequences,
                   .max_query_len = 1,
                   .heads = 2 * kv_heads,
                   .kv_heads = kv_heads,
                   .head_dim = 128,
                   .multiprocessors = 132};
    const Plan plan(batch);
    plan.expect_complete();
    EXPECT_EQ(plan.layout().workers, 128);
    for (int32_t w = 0; w < plan.layout().workers; ++w) EXPECT_EQ(plan.worker(w).team, team);
    for (const auto& [unit, parts] : plan.units()) {
      const int32_t first = parts.front().worker, last = parts.back().worker;
      if (team == 1) continue;
      EXPECT_EQ(first % team, 0);
      EXPECT_EQ(first / team, last / team);
    }
  }
}

/// A worker has one part of a unit or some whole ones, wherever units are few, and where blocks are
/// in clusters the last of those has nothing to do.
TEST(GpuPlan, FewUnitsBeginWhereWorkersDo) {
  struct Case {
    std::vector<int32_t> keys;
    int32_t kv_heads;
    int32_t workers;
    size_t cut;  // units of several workers
  };
  std::vector<int32_t> eighth(8, 256), thirty_second(32, 512), skewed(32, 512);
  eighth[3] = 8192;
  skewed[31] = 16384;
  for (const Case& c : {Case{{16384}, 8, 120, 8},
                        {{16384}, 4, 120, 4},
                        {{16384}, 3, 120, 3},
                        {std::vector<int32_t>(8, 16384), 3, 120, 24},
                        {eighth, 3, 117, 3},
                        {eighth, 8, 116, 8},
                        {thirty_second, 3, 96, 0},
                        {skewed, 3, 95, 3}}) {
    Batch batch;
    for (const int32_t keys : c.keys) batch.add(1, keys);
    const auto sequences = static_cast<int32_t>(c.keys.size());
    batch.shape = {.sequences = sequences,
                   .tokens = sequences,
                   .max_query_len = 1,
                   .heads = 3 * c.kv_heads,
                   .kv_heads = c.kv_heads,
                   .head_dim = 64,
                   .multiprocessors = 132};
    SCOPED_TRACE(std::to_string(sequences) + " sequences, " + std::to_string(c.kv_heads));
    const Plan plan(batch);
    plan.expect_complete();
    std::map<int32_t, size_t> whole, parts;
    size_t cut = 0;
    for (const auto& [unit, found] : plan.units()) {
      if (found.size() > 1) ++cut;
      for (const auto& [worker, part] : found) ++(found.size() > 1 ? parts : whole)[worker];
    }
    EXPECT_EQ(cut, c.cut);
    EXPECT_EQ(whole.size() + parts.size(), static_cast<size_t>(c.workers));
    for (const auto& [worker, count] : parts) {
      EXPECT_EQ(count, 1u) << "worker " << worker;
      EXPECT_EQ(whole.count(worker), 0u) << "worker " << worker;
    }
    for (const auto& [worker, count] : whole) EXPECT_LE(count, size_t{kMostTogether});
  }
}

/// Nothing but what it is for: the same parts of the same keys.
TEST(GpuPlan, SaysWhetherOlderKeysAreSettled) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Rng rng(seed);
    const Batch batch = random_batch(rng);
    const Plan plan(batch), settled(batch, true);
    for (int32_t w = 0; w < plan.layout().workers; ++w) {
      DecodeWorker a = plan.worker(w), b = settled.worker(w);
      EXPECT_EQ(a.settled, 0);
      EXPECT_EQ(b.settled, b.begin < b.end ? 1 : 0);
      b.settled = 0;
      ASSERT_EQ(std::memcmp(&a, &b, sizeof(a)), 0) << "seed " << seed << " worker " << w;
    }
  }
}

TEST(GpuPlan, SizesFollowTheShapeAlone) {
  AttentionPlanShape shape{.sequences = 8,
                           .tokens = 8,
                           .max_query_len = 1,
                           .heads = 32,
                           .kv_heads = 8,
                           .head_dim = 128,
                           .multiprocessors = 132};
  const int64_t decode_words = attention_plan_words(shape);
  EXPECT_EQ(gpu_plan_layout(shape).max_tiles, 0);
  EXPECT_EQ(paged_attention_workspace_bytes(shape), 2 * 132 * 8 * 130 * 4);
  shape.max_query_len = 2;  // 8 rows
  EXPECT_EQ(paged_attention_workspace_bytes(shape), 2 * 132 * 8 * 130 * 4);
  shape.max_query_len = 4;  // 16 rows: still decode
  EXPECT_EQ(gpu_plan_layout(shape).max_tiles, 0);
  EXPECT_EQ(paged_attention_workspace_bytes(shape), 2 * 132 * 16 * 130 * 4);
  shape.max_query_len = 0;  // one prefill of 5 tokens fits 8
  EXPECT_EQ(gpu_plan_layout(shape).max_tiles, 1);
  EXPECT_GT(attention_plan_words(shape), decode_words);
  shape.head_dim = 100;
  EXPECT_EQ(attention_plan_words(shape), -1);
  EXPECT_EQ(paged_attention_workspace_bytes(shape), -1);
}

TEST(GpuPlan, NamesLengthsThatDoNotFit) {
  Batch batch;
  batch.add(1, 20);
  batch.add(3, 40);
  batch.shape = {.sequences = 2,
                 .tokens = 4,
                 .max_query_len = 3,
                 .heads = 4,
                 .kv_heads = 2,
                 .head_dim = 64,
                 .multiprocessors = 132};
  std::vector<int32_t> words(static_cast<size_t>(attention_plan_words(batch.shape)));
  const auto refusal = [&](const Batch& b) {
    const Status status =
        plan_paged_attention(view(b.query_start), view(b.seq_lens), b.shape, view(words));
    EXPECT_EQ(status.code(), status.ok() ? StatusCode::kOk : StatusCode::kInvalidArgument);
    return status.message();
  };
  const auto contains = [&](const std::string& message, const std::string& part) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  EXPECT_EQ(refusal(batch), "");
  Batch bad = batch;
  bad.shape.sequences = 1;
  contains(refusal(bad), "more than the shape's 1 sequences");
  bad = batch;
  bad.shape.tokens = 3;
  contains(refusal(bad), "query_start ends at 4");
  bad = batch;
  bad.shape.max_query_len = 2;
  contains(refusal(bad), "sequence 1 has 3 queries");
  bad = batch;
  bad.seq_lens[1] = 2;
  contains(refusal(bad), "seq_lens[1] is 2");
  bad = batch;
  bad.shape.heads = 3;
  contains(refusal(bad), "3 heads");
  words.resize(100);
  contains(refusal(batch), "attention_plan_words");
}

}  // namespace
}  // namespace mmcore::ops::testing
