// Layer: kernel. Decode over e4m3 with more units than have teams, through the op, against double.
#include <cmath>

#include "attention/decode_case.h"

namespace mmcore::cuda {
namespace {

AttentionCase many(Rng& rng, int64_t sequences) {
  AttentionCase c;
  c.dtype = pick(rng, {DType::kBFloat16, DType::kBFloat16, DType::kFloat16});
  c.head_dim = pick<int64_t>(rng, {32, 64, 64, 72, 80, 96, 128, 128, 128, 256});
  c.kv_heads = pick<int64_t>(rng, {2, 3, 4, 8});
  c.group = pick<int64_t>(rng, {1, 3, 4, 7, 8, 9, 16, 17});
  c.block_size = pick<int64_t>(rng, {1, 8, 16, 16, 32, 64, 128});
  c.gap = pick<int64_t>(rng, {0, 0, 16});
  c.scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
  c.soft_cap = pick(rng, {0.0f, 0.0f, 2.0f});
  c.window = pick<int32_t>(rng, {0, 0, 0, 5, 100});
  c.causal = rng() % 4 != 0;
  const int64_t most = std::max<int64_t>(1, ops::kDecodeRows / c.group);
  for (int64_t n = 0; n < sequences; ++n) {
    const int64_t queries = std::min(most, pick<int64_t>(rng, {1, 1, 1, 2, 4}));
    const int64_t border = pick<int64_t>(rng, {c.block_size, 16, 64, 128});
    const int64_t past =
        pick<int64_t>(rng, {0, border - 1, border, border + 1, static_cast<int64_t>(rng() % 150)});
    c.query_lens.push_back(queries);
    c.key_lens.push_back(queries + past);
  }
  return c.with_float8(rng);
}

void check_seeds(uint64_t seeds, uint64_t first, int64_t sequences) {
  for (uint64_t seed = first; seed < first + seeds; ++seed) {
    Rng rng(seed);
    const AttentionCase c = many(rng, sequences);
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + c.describe());
    check_case(c, rng);
    if (::testing::Test::HasFailure()) return;
  }
}

/// Units begin where workers do, some share one.
TEST_F(Decode, Float8OfAsManyUnitsAsWorkers) { check_seeds(8, 200, 35); }

/// A worker has several units, and warps of it one, or a part of one, or two.
TEST_F(Decode, Float8OfManyUnits) { check_seeds(4, 300, 130); }
TEST_F(Decode, Float8OfManyUnitsReduced) { check_seeds(3, 400, 70); }

/// More units a worker than are listed at once.
TEST_F(Decode, Float8OfVeryManyUnits) {
  for (const int dim : {64, 72, 128}) {
    Rng rng(static_cast<uint64_t>(dim));
    AttentionCase c;
    c.dtype = DType::kBFloat16;
    c.head_dim = dim;
    c.kv_heads = 8;
    c.query_lens.assign(600, 1);
    for (int n = 0; n < 600; ++n) c.key_lens.push_back(1 + static_cast<int64_t>(rng() % 20));
    c = c.with_float8(rng);
    SCOPED_TRACE(c.describe());
    check_case(c, rng, 1);
  }
}

/// One long sequence among many short ones: its units have parts in many workers.
TEST_F(Decode, Float8OfOneLongSequenceAmongMany) {
  for (const int64_t group : {1, 4, 12}) {
    Rng rng(static_cast<uint64_t>(group));
    AttentionCase c;
    c.dtype = DType::kBFloat16;
    c.head_dim = 128;
    c.kv_heads = 4;
    c.group = group;
    c.query_lens.assign(40, 1);
    for (int n = 0; n < 40; ++n) c.key_lens.push_back(1 + static_cast<int64_t>(rng() % 100));
    c.key_lens[11] = 3000;
    c = c.with_float8(rng);
    SCOPED_TRACE(c.describe());
    check_case(c, rng, 1);
  }
}

/// Keys that grow: maxima rise, or fall, in small steps and in large ones.
TEST_F(Decode, Float8OfRisingScores) {
  for (const float scale : {0.002f, 0.02f, 0.4f}) {
    Rng rng(static_cast<uint64_t>(1000 * scale));
    AttentionCase c;
    c.dtype = DType::kBFloat16;
    c.head_dim = 128;
    c.kv_heads = 3;
    c.group = 4;
    c.query_lens.assign(40, 1);
    for (int n = 0; n < 40; ++n) c.key_lens.push_back(1 + static_cast<int64_t>(rng() % 400));
    c = c.with_float8(rng);
    c.scale = scale / c.k_scale;
    SCOPED_TRACE(c.describe());
    AttentionData data(c, rng);
    const int64_t row = c.kv_heads * c.head_dim;
    for (int64_t i = 0; i < data.k.numel(); ++i) {
      data.k.set(i, static_cast<float>(i / row % 448));
    }
    check_data(c, data, rng, 1);
  }
}

}  // namespace
}  // namespace mmcore::cuda
