// The KV layer and the encoder cache against models, over millions of random operations; and the
// proof of the proof: planted mistakes are found, named and shrunk to a few operations.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>

#include "proof/campaign.h"

namespace mmcore::proof {
namespace {

// More operations than the default: MMCORE_PROOF_OPS=1000000000.
int64_t num_operations() {
  const char* text = std::getenv("MMCORE_PROOF_OPS");
  return text == nullptr ? 5'200'000 : std::strtoll(text, nullptr, 10);
}

TEST(KvProof, random_operations_keep_every_invariant) {
  const std::vector<std::string> flavours = flavour_names();
  Totals totals;
  for (uint64_t seed = 1; totals.operations < num_operations(); ++seed) {
    for (const std::string& flavour : flavours) {
      const auto finding = run_seed({.flavour = flavour}, seed, totals);
      ASSERT_FALSE(finding.has_value()) << finding->report();
    }
  }
  std::cout << totals.operations << " operations in " << totals.sequences
            << " sequences: " << totals.kv.hits << " hits, " << totals.kv.partials << " in part, "
            << totals.kv.copies << " copies, " << totals.kv.writes << " writes, "
            << totals.kv.rollbacks << " rollbacks, " << totals.kv.evictions << " evictions, "
            << totals.encoder_evictions << " encoder evictions\n";
  // The operations reach what they are meant to test.
  EXPECT_GT(totals.kv.hits, totals.operations / 100);
  EXPECT_GT(totals.kv.partials, totals.operations / 1000);
  EXPECT_GT(totals.kv.copies, totals.operations / 100);
  EXPECT_GT(totals.kv.rollbacks, totals.operations / 100);
  EXPECT_GT(totals.kv.loads, totals.operations / 1000);
  EXPECT_GT(totals.kv.evictions, static_cast<uint64_t>(totals.operations / 100));
  EXPECT_GT(totals.encoder_evictions, static_cast<uint64_t>(totals.operations / 100));
}

struct Planted {
  const char* name;
  Subject subject;
  std::vector<std::string> invariants;  // any of these may be the first to notice
};

class PlantedFault : public ::testing::TestWithParam<Planted> {};

TEST_P(PlantedFault, is_named_and_shrunk_to_a_few_operations) {
  const Planted& planted = GetParam();
  Totals totals;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    const auto finding = run_seed(planted.subject, seed, totals);
    if (!finding) continue;
    std::cout << finding->report();
    EXPECT_NE(std::ranges::find(planted.invariants, finding->violation.invariant),
              planted.invariants.end())
        << finding->violation.invariant;
    EXPECT_LE(finding->minimal.size(), 12u);
    EXPECT_EQ(replay(planted.subject, seed, finding->minimal).what, finding->violation.what);
    Subject sound = planted.subject;
    sound.kv_fault = KvFault::kNone;
    sound.encoder_fault = EncoderFault::kNone;
    EXPECT_FALSE(replay(sound, seed, finding->minimal).found());
    return;
  }
  FAIL() << "nothing noticed it in " << totals.operations << " operations";
}

INSTANTIATE_TEST_SUITE_P(
    KvProof, PlantedFault,
    ::testing::Values(
        Planted{"forget_release", {"block1", KvFault::kForgetRelease}, {"I2"}},
        Planted{"reuse_of_a_read_block", {"block1", KvFault::kReuseRead}, {"I2"}},
        Planted{"write_to_a_shared_tail", {"hash8", KvFault::kWriteShared}, {"I5", "I6"}},
        Planted{"copies_last", {"constant_hash", KvFault::kCopiesLast}, {"I7", "validators"}},
        Planted{"no_rollback", {"hash8", KvFault::kSkipRollback}, {"I7"}},
        Planted{"no_salt", {"block1", KvFault::kNoSalt}, {"I9"}},
        Planted{"no_media_offset", {"hash8", KvFault::kNoMediaOffset}, {"I9"}},
        Planted{"no_media", {"block1", KvFault::kNoMedia}, {"I7", "I9"}},
        Planted{"saves_of_a_failed_step", {"host40", KvFault::kKeepSaves}, {"I6"}},
        Planted{"saves_after_the_write", {"host40", KvFault::kLateSaves}, {"I6"}},
        Planted{"forget_unpin",
                {"encoder", KvFault::kNone, EncoderFault::kForgetUnpin},
                {"I15", "I23"}},
        Planted{"unpin_of_a_used_entry",
                {"encoder", KvFault::kNone, EncoderFault::kUnpinTwice},
                {"I15", "I23"}}),
    [](const ::testing::TestParamInfo<Planted>& test) { return std::string(test.param.name); });

TEST(Operations, text_round_trips) {
  const std::vector<Operation> operations = draw_operations(3, 20);
  std::vector<Operation> read;
  ASSERT_TRUE(from_text(to_text(operations), read));
  EXPECT_EQ(read, operations);
  EXPECT_FALSE(from_text("0001020", read));
  EXPECT_FALSE(from_text("zz010203", read));
}

}  // namespace
}  // namespace mmcore::proof
