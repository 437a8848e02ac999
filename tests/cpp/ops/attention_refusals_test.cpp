// Layer: unit. Calls that paged_attention and varlen_attention refuse, and what they say.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "ops/attention_case.h"

namespace mmcore::ops::testing {
namespace {

/// Two sequences of 2 queries over 20 keys and 1 over 5; blocks of 16, D 64, heads 2/1.
AttentionCase small_case() {
  AttentionCase c;
  c.group = 2;
  c.query_lens = {2, 1};
  c.key_lens = {20, 5};
  return c;
}

template <class Args>
struct BadCall {
  const char* name;
  void (*spoil)(Args&);
  const char* message;
};

using BadPaged = BadCall<PagedAttentionArgs>;
class PagedAttentionRefuses : public ::testing::TestWithParam<BadPaged> {};

TEST_P(PagedAttentionRefuses, AndWritesNothing) {
  const AttentionCase c = small_case();
  Rng rng(1);
  const AttentionData data(c, rng);
  const PagedCache cache(c, data, rng);
  const std::vector<std::byte> before = data.out.bytes();
  PagedAttentionArgs args = paged_args(c, data, cache);
  GetParam().spoil(args);
  const Status status = paged_attention(args);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find(GetParam().message), std::string::npos) << status.message();
  EXPECT_TRUE(data.out.bytes() == before);
}

int32_t* ints(const TensorView& t) { return t.ptr<int32_t>(); }

INSTANTIATE_TEST_SUITE_P(
    , PagedAttentionRefuses,
    ::testing::Values(
        BadPaged{"NoQ", [](PagedAttentionArgs& a) { a.q = {}; }, "q is absent"},
        BadPaged{"NoOut", [](PagedAttentionArgs& a) { a.out = {}; },
                 "out is absent, expected [T, Hq, D] with T = 3 from q"},
        BadPaged{"RankTwo", [](PagedAttentionArgs& a) { a.q.rank = 2; },
                 "q has shape [3, 2], expected [T, Hq, D]"},
        BadPaged{"OtherHeadDim", [](PagedAttentionArgs& a) { a.k_cache.shape[3] = 32; },
                 "k_cache has shape [6, 16, 1, 32], expected [B, P, Hkv, D] with D = 64 from q"},
        BadPaged{"OtherValueHeads", [](PagedAttentionArgs& a) { a.v_cache.shape[2] = 2; },
                 "v_cache has shape [6, 16, 2, 64]"},
        BadPaged{"IntegerQ", [](PagedAttentionArgs& a) { a.q.dtype = DType::kInt32; },
                 "q is int32, expected float32, bfloat16 or float16"},
        BadPaged{"ByteCache", [](PagedAttentionArgs& a) { a.k_cache.dtype = DType::kUInt8; },
                 "k_cache is uint8, expected float32, bfloat16, float16 or float8_e4m3fn"},
        BadPaged{"Float8Queries", [](PagedAttentionArgs& a) { a.q.dtype = DType::kFloat8E4M3; },
                 "q is float8_e4m3fn, expected float32, bfloat16 or float16"},
        BadPaged{"ScaledFloatCache", [](PagedAttentionArgs& a) { a.v_scale = 0.5f; },
                 "v_scale is 0.500000 for a cache of float32, expected 1"},
        BadPaged{"ZeroScale",
                 [](PagedAttentionArgs& a) {
                   a.k_cache.dtype = a.v_cache.dtype = DType::kFloat8E4M3;
                   a.k_scale = 0;
                 },
                 "k_scale is 0.000000, expected a finite number above 0"},
        BadPaged{"NaNCacheScale",
                 [](PagedAttentionArgs& a) {
                   a.k_cache.dtype = a.v_cache.dtype = DType::kFloat8E4M3;
                   a.v_scale = std::nanf("");
                 },
                 "expected a finite number above 0"},
        BadPaged{"OtherOutType", [](PagedAttentionArgs& a) { a.out.dtype = DType::kBFloat16; },
                 "out is bfloat16, expected float32"},
        BadPaged{"OtherValueType",
                 [](PagedAttentionArgs& a) { a.v_cache.dtype = DType::kBFloat16; },
                 "v_cache is bfloat16, expected float32"},
        BadPaged{"LongTables", [](PagedAttentionArgs& a) { a.block_tables.dtype = DType::kInt64; },
                 "block_tables is int64, expected int32"},
        BadPaged{"StartsOfOtherBatch", [](PagedAttentionArgs& a) { a.query_start.shape[0] = 2; },
                 "query_start has shape [2], expected [N + 1] with N = 2 from block_tables"},
        BadPaged{"OverlappingOut", [](PagedAttentionArgs& a) { a.out.strides[0] = 64; },
                 "out is written but its elements overlap"},
        BadPaged{"HeadsDoNotDivide",
                 [](PagedAttentionArgs& a) {
                   a.q.shape[1] = a.out.shape[1] = 1;
                   a.k_cache.shape[2] = a.v_cache.shape[2] = 2;
                   a.k_cache.shape[1] = a.v_cache.shape[1] = 8;
                 },
                 "1 query heads cannot share 2 key/value heads"},
        BadPaged{"NoHeads",
                 [](PagedAttentionArgs& a) {
                   a.q.shape[1] = a.out.shape[1] = a.k_cache.shape[2] = a.v_cache.shape[2] = 0;
                 },
                 "0 query heads cannot share 0 key/value heads"},
        BadPaged{"UnknownHeadDim",
                 [](PagedAttentionArgs& a) {
                   for (TensorView* view : {&a.q, &a.out}) view->shape[2] = 48;
                   for (TensorView* view : {&a.k_cache, &a.v_cache}) view->shape[3] = 48;
                 },
                 "no kernel for head dim 48; expected one of 32, 64, 72, 80, 96, 128, 256"},
        BadPaged{"OddBlocks",
                 [](PagedAttentionArgs& a) { a.k_cache.shape[1] = a.v_cache.shape[1] = 12; },
                 "block size 12 has no kernel; expected a power of two from 1 to 128"},
        BadPaged{"EmptyBlocks",
                 [](PagedAttentionArgs& a) { a.k_cache.shape[1] = a.v_cache.shape[1] = 0; },
                 "block size 0 has no kernel"},
        BadPaged{"NaNScale", [](PagedAttentionArgs& a) { a.scale = std::nanf(""); },
                 "expected a finite number"},
        BadPaged{"NegativeSoftCap", [](PagedAttentionArgs& a) { a.soft_cap = -1; },
                 "expected 0 (none) or more"},
        BadPaged{"InfiniteSoftCap",
                 [](PagedAttentionArgs& a) { a.soft_cap = std::numeric_limits<float>::infinity(); },
                 "expected 0 (none) or more"},
        BadPaged{"NegativeWindow", [](PagedAttentionArgs& a) { a.window = -1; },
                 "window is -1, expected 0 (no limit) or more"},
        BadPaged{"NegativeStart", [](PagedAttentionArgs& a) { ints(a.query_start)[0] = -1; },
                 "query_start[0] is -1, expected at least 0"},
        BadPaged{"DescendingStarts", [](PagedAttentionArgs& a) { ints(a.query_start)[1] = 4; },
                 "query_start descends from 4 to 3 at entry 2"},
        BadPaged{"StartsBeyondQueries", [](PagedAttentionArgs& a) { ints(a.query_start)[2] = 4; },
                 "query_start ends at 4, past the last of 3 rows"},
        BadPaged{"FewerKeysThanQueries", [](PagedAttentionArgs& a) { ints(a.seq_lens)[0] = 1; },
                 "seq_lens"},
        BadPaged{"NegativeLength", [](PagedAttentionArgs& a) { ints(a.seq_lens)[1] = -5; },
                 "seq_lens"},
        BadPaged{"LengthBeyondTable", [](PagedAttentionArgs& a) { ints(a.seq_lens)[0] = 33; },
                 "2 blocks of 16"},
        BadPaged{"BlockBeyondCache", [](PagedAttentionArgs& a) { ints(a.block_tables)[1] = 6; },
                 "block_tables[0, 1] is 6, expected 0 to 5"},
        BadPaged{"MissingBlock", [](PagedAttentionArgs& a) { ints(a.block_tables)[2] = -1; },
                 "block_tables[1, 0] is -1, expected 0 to 5"}),
    [](const auto& call) { return call.param.name; });

using BadVarlen = BadCall<VarlenAttentionArgs>;
class VarlenAttentionRefuses : public ::testing::TestWithParam<BadVarlen> {};

TEST_P(VarlenAttentionRefuses, AndWritesNothing) {
  const AttentionCase c = small_case();
  Rng rng(1);
  const AttentionData data(c, rng);
  const std::vector<std::byte> before = data.out.bytes();
  VarlenAttentionArgs args = varlen_args(c, data);
  GetParam().spoil(args);
  const Status status = varlen_attention(args);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find(GetParam().message), std::string::npos) << status.message();
  EXPECT_TRUE(data.out.bytes() == before);
}

INSTANTIATE_TEST_SUITE_P(
    , VarlenAttentionRefuses,
    ::testing::Values(
        BadVarlen{"NoKeys", [](VarlenAttentionArgs& a) { a.k = {}; }, "k is absent"},
        BadVarlen{"Float8Keys",
                  [](VarlenAttentionArgs& a) { a.k.dtype = a.v.dtype = DType::kFloat8E4M3; },
                  "k is float8_e4m3fn, expected float32, bfloat16 or float16"},
        BadVarlen{"OtherValues", [](VarlenAttentionArgs& a) { a.v.shape[0] = 24; },
                  "v has shape [24, 1, 64], expected [Tk, Hkv, D] with Tk = 25 from k"},
        BadVarlen{"OtherValueType", [](VarlenAttentionArgs& a) { a.v.dtype = DType::kFloat16; },
                  "v is float16, expected float32"},
        BadVarlen{"StartsOfOtherBatch", [](VarlenAttentionArgs& a) { a.cu_k.shape[0] = 2; },
                  "cu_k has shape [2], expected [N + 1] with N = 2 from cu_q"},
        BadVarlen{"NoStarts", [](VarlenAttentionArgs& a) { a.cu_q.shape[0] = 0; },
                  "cu_q has shape [0], expected [N + 1]"},
        BadVarlen{"DescendingKeys", [](VarlenAttentionArgs& a) { ints(a.cu_k)[1] = 26; },
                  "cu_k descends from 26 to 25 at entry 2"},
        BadVarlen{"KeysBeyondTheLast", [](VarlenAttentionArgs& a) { ints(a.cu_k)[2] = 26; },
                  "cu_k ends at 26, past the last of 25 rows"},
        BadVarlen{"QueriesBeyondTheLast", [](VarlenAttentionArgs& a) { ints(a.cu_q)[2] = 4; },
                  "cu_q ends at 4, past the last of 3 rows"},
        BadVarlen{"StridedQ", [](VarlenAttentionArgs& a) { a.q.strides[2] = 2; },
                  "q has stride 2 in its last axis, expected 1"}),
    [](const auto& call) { return call.param.name; });

TEST(AttentionRefusals, DevicesDoNotMix) {
  const AttentionCase c = small_case();
  Rng rng(1);
  const AttentionData data(c, rng);
  VarlenAttentionArgs args = varlen_args(c, data);
  EXPECT_TRUE(varlen_attention(args).ok());
  args.q.device = {DeviceType::kCuda, 0};
  EXPECT_EQ(varlen_attention(args).code(), StatusCode::kInvalidArgument);
}

TEST(AttentionRefusals, AnEmptyBatchIsFine) {
  AttentionCase c = small_case();
  c.query_lens.clear();
  c.key_lens.clear();
  Rng rng(1);
  const AttentionData data(c, rng);
  EXPECT_TRUE(varlen_attention(varlen_args(c, data)).ok());
}

}  // namespace
}  // namespace mmcore::ops::testing
