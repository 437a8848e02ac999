// Layer: ops. How tiles of prefills are cut between a GPU's blocks.
#include "ops/attention/prefill_cut.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace mmcore::ops {
namespace {

/// Walks the line as a kernel's blocks do.
struct Walk {
  std::map<int32_t, std::vector<std::pair<int32_t, PrefillPart>>> items;  // worker and its part
  std::vector<int32_t> steps;                                             // of each worker

  Walk(const PrefillCut& cut, const std::vector<int32_t>& lengths, int32_t heads) {
    for (int32_t w = 0; w < static_cast<int32_t>(cut.workers.size()); ++w) {
      steps.push_back(0);
      if (w * cut.chunk >= cut.steps) continue;
      const int32_t end = std::min((w + 1) * cut.chunk, cut.steps);
      auto [item, line] = cut.workers[static_cast<size_t>(w)];
      while (line < end) {
        const int32_t length = lengths.at(static_cast<size_t>(item / heads));
        const PrefillPart part = prefill_part(w, cut.chunk, line, length);
        items[item].emplace_back(w, part);
        steps.back() += part.end - part.begin;
        line += length;
        ++item;
      }
    }
  }
};

void expect_complete(const PrefillCut& cut, const std::vector<int32_t>& lengths, int32_t heads) {
  const Walk walk(cut, lengths, heads);
  ASSERT_EQ(walk.items.size(), lengths.size() * static_cast<size_t>(heads));
  std::map<int32_t, int32_t> slots;  // and the item that has it
  for (const auto& [item, parts] : walk.items) {
    int32_t at = 0;
    for (size_t i = 0; i < parts.size(); ++i) {
      const auto& [worker, part] = parts[i];
      EXPECT_EQ(part.begin, at);
      EXPECT_LT(part.begin, part.end);
      EXPECT_EQ(part.parts, static_cast<int32_t>(parts.size()));
      EXPECT_EQ(worker, part.first_worker + static_cast<int32_t>(i));
      at = part.end;
      if (parts.size() > 1) {
        EXPECT_TRUE(slots.emplace(prefill_slot(worker, part.first_worker), item).second);
      }
    }
    EXPECT_EQ(at, lengths[static_cast<size_t>(item / heads)]);
  }
  for (const int32_t steps : walk.steps) EXPECT_LE(steps, cut.chunk);
  // Counters go by first worker: no two cut items have the same.
  std::map<int32_t, int32_t> firsts;
  for (const auto& [item, parts] : walk.items) {
    if (parts.size() > 1) {
      EXPECT_TRUE(firsts.emplace(parts[0].second.first_worker, item).second);
    }
  }
}

TEST(PrefillCut, EveryStepIsOneWorkers) {
  for (uint32_t seed = 0; seed < 300; ++seed) {
    std::mt19937 rng(seed);
    const auto pick = [&](int low, int high) {
      return std::uniform_int_distribution<int>(low, high)(rng);
    };
    const int32_t workers = pick(1, 140), heads = pick(1, 12);
    std::vector<int32_t> lengths(static_cast<size_t>(pick(1, 20)));
    for (int32_t& length : lengths) length = pick(1, pick(1, 70));
    const PrefillCut cut = cut_prefill(lengths, heads, workers);
    if (cut.chunk == 0) continue;
    SCOPED_TRACE("seed " + std::to_string(seed));
    ASSERT_EQ(cut.workers.size(), static_cast<size_t>(workers));
    expect_complete(cut, lengths, heads);
  }
}

TEST(PrefillCut, OnlyWhereItBalances) {
  // 4 chunks of 512 behind 3,584 keys, 9 heads: 144 items of 29 to 32 steps for 132 blocks.
  std::vector<int32_t> lengths;
  for (int i = 0; i < 16; ++i) lengths.push_back(29 + i % 4);
  EXPECT_EQ(cut_prefill(lengths, 9, 132).chunk, 34);
  EXPECT_EQ(cut_prefill({29, 30, 31, 32}, 9, 132).chunk, 9);
  EXPECT_EQ(cut_prefill({6, 5, 4, 3, 2, 1}, 9, 132).chunk, 2);
  // 2,048 tokens: stretches of 10 steps would have up to ten items, where one has 16 steps at most.
  std::vector<int32_t> prompt;
  for (int i = 16; i > 0; --i) prompt.push_back(i);
  EXPECT_EQ(cut_prefill(prompt, 9, 132).chunk, 0);
  EXPECT_EQ(cut_prefill({29, 30, 31, 32}, 32, 132).chunk, 0);              // one each
  EXPECT_EQ(cut_prefill({1, 1, 1}, 32, 132).chunk, 0);                     // too short
  EXPECT_EQ(cut_prefill(std::vector<int32_t>(100, 8), 32, 132).chunk, 0);  // many
  EXPECT_EQ(cut_prefill({}, 32, 132).chunk, 0);
}

}  // namespace
}  // namespace mmcore::ops
