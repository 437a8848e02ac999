// Layer: kernel. Paged attention with few query rows a sequence, through the op, against double.
#include <cmath>

#include "attention/decode_case.h"

namespace mmcore::cuda {
namespace {

TEST_F(Decode, MatchesDoublePrecisionOnRandomBatches) { check_random(150, 0, 900); }
TEST_F(Decode, MatchesDoublePrecisionOnMoreRandomBatches) { check_random(150, 5000, 900); }

void check_random_float8(uint64_t seeds, uint64_t first, int64_t longest) {
  for (uint64_t seed = first; seed < first + seeds; ++seed) {
    Rng rng(seed);
    const AttentionCase c = random_case(rng, longest).with_float8(rng);
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + c.describe());
    check_case(c, rng);
    if (::testing::Test::HasFailure()) return;
  }
}

TEST_F(Decode, ReadsAFloat8CacheByItsScales) { check_random_float8(150, 9000, 900); }
TEST_F(Decode, ReadsAFloat8CacheReduced) { check_random_float8(15, 9500, 40); }

TEST_F(Decode, Float8OfEveryHeadDim) {
  for (const int dim : ops::kHeadDims) {
    for (const int64_t group : {1, 7, 16}) {
      Rng rng(static_cast<uint64_t>(100 * dim + group));
      AttentionCase c;
      c.dtype = dim % 64 == 0 ? DType::kFloat16 : DType::kBFloat16;
      c.head_dim = dim;
      c.kv_heads = 2;
      c.group = group;
      c.scale = 1.0f / std::sqrt(static_cast<float>(dim));
      c.query_lens = {1, 1, 1};
      c.key_lens = {900, 17, 100};
      c = c.with_float8(rng);
      SCOPED_TRACE(c.describe());
      check_case(c, rng, 1);
    }
  }
}

/// Far beyond what the type that keys are widened to can hold, and far below.
TEST_F(Decode, Float8TakesQueriesOfAnySize) {
  for (const int exponent : {-100, -60, -14, 16, 60, 100}) {
    Rng rng(static_cast<uint64_t>(exponent + 1000));
    AttentionCase c;
    c.dtype = DType::kBFloat16;
    c.head_dim = exponent % 4 == 0 ? 128 : 64;
    c.kv_heads = 2;
    c.group = 3;
    c.query_lens = {1, 1};
    c.key_lens = {300, 40};
    c = c.with_float8(rng);
    c.scale = std::ldexp(1.0f / std::sqrt(static_cast<float>(c.head_dim)), -exponent);
    AttentionData data(c, rng);
    for (int64_t i = 0; i < data.q.numel(); ++i) {
      data.q.set(i, std::ldexp(data.q.get(i), exponent));
    }
    SCOPED_TRACE("exponent " + std::to_string(exponent) + ": " + c.describe());
    check_data(c, data, rng, 1);
  }
}

TEST_F(Decode, MixesWithPrefillsInFloat8) {
  for (uint64_t seed = 0; seed < 15; ++seed) {
    Rng rng(seed + 40);
    const AttentionCase c = AttentionCase::random(rng, false).with_float8(rng);
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + c.describe());
    check_case(c, rng);
    if (HasFailure()) return;
  }
}

TEST_F(Decode, ReducedRandomBatches) { check_random(12, 1000, 40); }

/// Prefills and decodes of one batch, in one call.
TEST_F(Decode, MixesWithPrefills) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Rng rng(seed);
    AttentionCase c = AttentionCase::random(rng, false);
    c.kv_dtype = c.dtype;
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + c.describe());
    check_case(c, rng);
    if (HasFailure()) return;
  }
}

/// One long sequence among short ones: parts of a unit on nearly all multiprocessors.
TEST_F(Decode, DividesALongSequenceAmongAll) {
  for (const int64_t group : {1, 4, 7, 16}) {
    Rng rng(static_cast<uint64_t>(group));
    AttentionCase c;
    c.dtype = c.kv_dtype = DType::kBFloat16;
    c.head_dim = 128;
    c.group = group;
    c.kv_heads = 1;
    c.query_lens = {1, 1, 1, 1, 1};
    c.key_lens = {300, 12, 5000, 64, 1};
    SCOPED_TRACE(c.describe());
    check_case(c, rng, 1);
  }
}

/// More units than workers: cut at any place, so that one may end and another begin in a worker.
TEST_F(Decode, CutsManyUnitsAnywhere) {
  for (uint64_t seed = 0; seed < 3; ++seed) {
    Rng rng(seed + 800);
    AttentionCase c;
    c.dtype = seed % 2 ? DType::kBFloat16 : DType::kFloat16;
    c.kv_dtype = c.dtype;
    c.head_dim = pick<int64_t>(rng, {64, 128});
    c.kv_heads = 4;
    c.group = pick<int64_t>(rng, {1, 3, 7});
    c.scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
    c.query_lens.assign(40, 1);
    for (size_t n = 0; n < c.query_lens.size(); ++n) {
      c.key_lens.push_back(1 + static_cast<int64_t>(rng() % 200));
    }
    c.key_lens[7] = 1500;
    if (seed == 2) c = c.with_float8(rng);
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + c.describe());
    check_case(c, rng, 1);
    if (HasFailure()) return;
  }
}

/// Units that begin where workers do, some of many parts: no teams, as one is much longer.
TEST_F(Decode, RandomBatchesOfOneLongSequence) {
  for (uint64_t seed = 0; seed < 25; ++seed) {
    Rng rng(seed + 700);
    AttentionCase c = random_case(rng, 60);
    c.window = 0;
    c.query_lens.push_back(1);
    c.key_lens.push_back(1500 + static_cast<int64_t>(rng() % 1500));
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + c.describe());
    check_case(c, rng);
    if (HasFailure()) return;
  }
}

/// A worker for each part of each unit, and some without one, in teams of 2, 4 and 8.
TEST_F(Decode, TeamsMergeWhatTheirBlocksHave) {
  for (const int64_t kv_heads : {1, 6, 12, 30}) {
    for (const int64_t group : {1, 4, 7, 16}) {
      Rng rng(static_cast<uint64_t>(100 * kv_heads + group));
      AttentionCase c;
      c.dtype = c.kv_dtype = DType::kBFloat16;
      c.head_dim = group % 2 ? 64 : 128;
      c.group = group;
      c.kv_heads = kv_heads;
      c.query_lens = {1, 1};
      c.key_lens = {500, 1 + static_cast<int64_t>(rng() % 300)};
      SCOPED_TRACE(c.describe());
      check_case(c, rng, 1);
    }
  }
}

TEST_F(Decode, TeamsReduced) {
  Rng rng(12);
  AttentionCase c;
  c.dtype = c.kv_dtype = DType::kFloat16;
  c.head_dim = 64;
  c.group = 3;
  c.kv_heads = 2;
  c.query_lens = {1, 1};
  c.key_lens = {200, 20};
  check_case(c, rng, 1);
}

/// More units a worker than are listed at once.
TEST_F(Decode, WorksThroughManyShortSequences) {
  Rng rng(5);
  AttentionCase c;
  c.dtype = c.kv_dtype = DType::kBFloat16;
  c.head_dim = 32;
  c.kv_heads = 6;
  c.query_lens.assign(800, 1);
  for (int n = 0; n < 800; ++n) c.key_lens.push_back(1 + static_cast<int64_t>(rng() % 20));
  check_case(c, rng, 1);
}

}  // namespace
}  // namespace mmcore::cuda
