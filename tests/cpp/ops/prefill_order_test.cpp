#include "ops/attention/prefill_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <random>
#include <vector>

namespace mmcore::ops {
namespace {

constexpr int64_t kTileRows = 128;
constexpr int64_t kKeyBytes = int64_t{2} * 2 * 32 * 128;  // 32 heads of 128: LLaVA-1.5-7B

std::vector<PrefillTile> causal(const std::vector<int64_t>& lengths) {
  std::vector<PrefillTile> tiles;
  for (size_t n = 0; n < lengths.size(); ++n) {
    for (int64_t row = 0; row < lengths[n]; row += kTileRows) {
      tiles.push_back({.keys = std::min(row + kTileRows, lengths[n]),
                       .sequence = static_cast<int32_t>(n),
                       .row = static_cast<int32_t>(row)});
    }
  }
  return tiles;
}

/// The largest step between neighbours of the list, whose end counts as no keys.
int64_t largest_step(const std::vector<PrefillTile>& tiles) {
  int64_t largest = tiles.back().keys;
  for (size_t i = 1; i < tiles.size(); ++i) {
    largest = std::max<int64_t>(largest, std::abs(tiles[i].keys - tiles[i - 1].keys));
  }
  return largest;
}

/// How often the list turns from one sequence to another.
int64_t turns(const std::vector<PrefillTile>& tiles) {
  int64_t count = 0;
  for (size_t i = 1; i < tiles.size(); ++i) count += tiles[i].sequence != tiles[i - 1].sequence;
  return count;
}

TEST(PrefillOrder, WhatFitsIntoTheCacheFalls) {
  std::vector<PrefillTile> tiles = causal({300, 641, 128});
  order_prefill_tiles(tiles, kKeyBytes);
  EXPECT_TRUE(std::is_sorted(tiles.begin(), tiles.end(),
                             [](const auto& a, const auto& b) { return a.keys > b.keys; }));
}

TEST(PrefillOrder, LongPromptsComeOneByOneWithoutJumps) {
  for (const std::vector<int64_t>& lengths : std::vector<std::vector<int64_t>>{
           {2048, 2048}, {2048, 2048, 2048}, {2048, 2048, 2048, 2048}, {4096, 4000, 3900, 3800}}) {
    std::vector<PrefillTile> tiles = causal(lengths);
    order_prefill_tiles(tiles, kKeyBytes);
    EXPECT_EQ(turns(tiles), static_cast<int64_t>(lengths.size()) - 1) << lengths.size();
    EXPECT_LE(largest_step(tiles), 2 * kTileRows) << lengths.size();
  }
}

TEST(PrefillOrder, ShortPromptsBehindALongOneShareGroups) {
  std::vector<int64_t> lengths(31, 512);
  lengths.insert(lengths.begin() + 7, 16384);
  std::vector<PrefillTile> tiles = causal(lengths);
  order_prefill_tiles(tiles, kKeyBytes);
  EXPECT_EQ(tiles.front().sequence, 7);
  EXPECT_EQ(tiles.front().keys, 16384);
  EXPECT_LE(largest_step(tiles), 512);
}

TEST(PrefillOrder, KeepsEveryTile) {
  const uint32_t seed = 5;
  std::mt19937 rng(seed);
  for (int round = 0; round < 200; ++round) {
    std::vector<int64_t> lengths(rng() % 6);
    for (int64_t& length : lengths) length = static_cast<int64_t>(rng() % 5000);
    std::vector<PrefillTile> tiles = causal(lengths);
    const std::vector<PrefillTile> before = tiles;
    order_prefill_tiles(tiles, kKeyBytes);
    EXPECT_TRUE(std::is_permutation(tiles.begin(), tiles.end(), before.begin(), before.end()))
        << "seed " << seed << ", round " << round;
  }
}

}  // namespace
}  // namespace mmcore::ops
