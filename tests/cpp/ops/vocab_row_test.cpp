// Layer: unit. Selections without a sort against a sort.
#include "ops/vocab_row.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "ops/isa_test.h"
#include "ops/rounding.h"

namespace mmcore::ops::testing {
namespace {

TEST(Nucleus, IsTheShortestPrefixThatReachesTheMass) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    Rng rng(seed);
    std::vector<Candidate> c(static_cast<size_t>(random_size(rng, 1, 400)));
    // Eighths are exact in any order of summation, and make ties.
    for (size_t i = 0; i < c.size(); ++i)
      c[i] = {static_cast<float>(rng() % 9) / 8.0f, static_cast<TokenId>(i)};
    std::shuffle(c.begin(), c.end(), rng);
    std::vector<Candidate> sorted = c;
    std::sort(sorted.begin(), sorted.end());
    double total = 0.0;
    for (const Candidate& x : c) total += x.weight;
    const double mass = total * static_cast<double>(rng() % 101) / 100.0;
    std::set<TokenId> expected = {sorted[0].token};
    double sum = 0.0;
    for (size_t i = 0; i < sorted.size() && sum < mass; ++i) {
      expected.insert(sorted[i].token);
      sum += sorted[i].weight;
    }
    std::set<TokenId> kept;
    for (const Candidate& x : nucleus(c, mass)) kept.insert(x.token);
    ASSERT_EQ(kept, expected) << "seed " << seed << ", " << c.size() << " candidates, mass "
                              << mass;
  }
}

TEST(Nucleus, OfMoreMassThanThereIsKeepsAll) {
  std::vector<Candidate> c = {{0.5f, 3}, {0.25f, 1}, {0.25f, 2}};
  EXPECT_EQ(nucleus(c, 2.0).size(), 3u);
  EXPECT_EQ(nucleus(c, 0.0).size(), 1u);
}

class VocabRowPerIsa : public IsaTest {};
INSTANTIATE_TEST_SUITE_P(, VocabRowPerIsa, kEveryIsa, isa_name);

TEST_P(VocabRowPerIsa, SelectsTheLargestAndCountsRanks) {
  for (uint64_t seed = 1; seed <= 80; ++seed) {
    Rng rng(seed);
    const int64_t vocab = random_size(rng, 1, 1500);
    std::vector<float> logits(static_cast<size_t>(vocab));
    for (float& x : logits) x = static_cast<float>(random_size(rng, -40, 40));
    std::vector<Candidate> sorted;
    for (int64_t i = 0; i < vocab; ++i)
      sorted.push_back({logits[static_cast<size_t>(i)], static_cast<TokenId>(i)});
    std::sort(sorted.begin(), sorted.end());
    VocabRow row;
    ASSERT_TRUE(row.load(logits.data(), vocab));
    EXPECT_EQ(row.argmax(), sorted[0].token);
    const int64_t k = rng() % 2 == 0 ? random_size(rng, 1, vocab) : std::min<int64_t>(vocab, 5);
    std::set<TokenId> expected, selected;
    for (int64_t i = 0; i < k; ++i) expected.insert(sorted[static_cast<size_t>(i)].token);
    for (const Candidate& c : row.largest(k)) selected.insert(c.token);
    ASSERT_EQ(selected, expected) << "seed " << seed << ", " << k << " of " << vocab;
    for (int64_t i = 0; i < vocab; i += 1 + vocab / 20)
      ASSERT_EQ(row.rank(sorted[static_cast<size_t>(i)].token), i + 1) << "seed " << seed;
  }
}

}  // namespace
}  // namespace mmcore::ops::testing
