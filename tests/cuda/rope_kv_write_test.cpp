// Layer: unit. Against float64. A rotated element may be off by half a unit in the last place and
// by 2.5e-7 of the two products that float32 adds; what the cache receives is exact.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <set>
#include <string>

#include "mirror.h"
#include "mmcore/ops.h"
#include "ops/rounding.h"

namespace mmcore::cuda {
namespace {

using ops::testing::HostTensor;
using ops::testing::random_size;
using ops::testing::Rng;

constexpr int64_t kPositions = 50;

struct Case {
  DType dtype = DType::kBFloat16;
  DType cache_dtype = DType::kBFloat16;
  int64_t tokens = 5;
  int64_t q_heads = 4;  // 0: no q
  int64_t kv_heads = 2;
  int64_t head_dim = 64;
  int64_t rotary_dim = 64;  // 0: no rotation
  int64_t block_size = 16;
  int64_t gap = 0;
  bool interleaved = false;
  bool writes = true;
  std::array<int32_t, 3> sections{};
  bool sections_interleaved = false;
  float k_scale = 1;
  float v_scale = 1;
  bool keep_k = true;

  static Case random(Rng& rng) {
    const auto pick = [&](auto... choices) {
      const std::common_type_t<decltype(choices)...> all[] = {choices...};
      return all[rng() % sizeof...(choices)];
    };
    Case c;
    c.dtype = ops::testing::random_float_type(rng);
    c.cache_dtype = rng() % 2 ? c.dtype : ops::testing::random_float_type(rng);
    c.tokens = pick(0, 1, 2, 7, 40, 100);
    c.q_heads = pick(0, 1, 4, 9, 32);
    c.kv_heads = pick(1, 2, 3, 8);
    c.head_dim = pick(32, 64, 72, 80, 96, 128, 256, 48, 6);
    c.rotary_dim = pick(c.head_dim, c.head_dim, c.head_dim / 2, int64_t{2}, int64_t{0});
    c.rotary_dim -= c.rotary_dim % 2;
    c.block_size = pick(1, 4, 16, 20, 128);
    c.gap = pick(0, 0, 8, 3);
    c.interleaved = rng() % 2;
    c.writes = rng() % 5 != 0;
    if (rng() % 3 == 0) {
      c.cache_dtype = DType::kFloat8E4M3;
      c.k_scale = pick(1.0f, 0.3f, 0.003f, 7.0f);
      c.v_scale = pick(1.0f, 0.6f, 0.002f, 2.0f);
    }
    if (rng() % 3 == 0 && c.rotary_dim > 0) c.take_sections(rng);
    c.keep_k = rng() % 2;
    return c;
  }

  void take_sections(Rng& rng) {
    const int64_t half = rotary_dim / 2;
    sections_interleaved = rng() % 2;
    const int64_t room = sections_interleaved ? half / 3 : half / 2;
    const int64_t h = random_size(rng, 0, room), w = random_size(rng, 0, room);
    sections = {static_cast<int32_t>(half - h - w), static_cast<int32_t>(h),
                static_cast<int32_t>(w)};
  }

  bool has_sections() const { return sections[0] + sections[1] + sections[2] > 0; }

  /// The axis of frequency `i`.
  int64_t axis_of(int64_t i) const {
    if (!has_sections()) return 0;
    if (!sections_interleaved) return i < sections[0] ? 0 : i < sections[0] + sections[1] ? 1 : 2;
    const int64_t turn = i % 3;
    return turn > 0 && i / 3 < sections[static_cast<size_t>(turn)] ? turn : 0;
  }

  std::string describe() const {
    return std::string(to_string(dtype)) + " cache " + to_string(cache_dtype) + " T " +
           std::to_string(tokens) + " heads " + std::to_string(q_heads) + "/" +
           std::to_string(kv_heads) + " D " + std::to_string(head_dim) + " R " +
           std::to_string(rotary_dim) + " block " + std::to_string(block_size) + " gap " +
           std::to_string(gap) + (interleaved ? " interleaved" : "") + (writes ? "" : " no cache") +
           " sections " + std::to_string(sections[0]) + "/" + std::to_string(sections[1]) + "/" +
           std::to_string(sections[2]) + (sections_interleaved ? " in turn" : "") + " scales " +
           std::to_string(k_scale) + " " + std::to_string(v_scale) + (keep_k ? "" : " k dropped");
  }
};

struct Data {
  HostTensor q, k, v, positions, cos_sin, k_cache, v_cache, slots;

  Data(const Case& c, Rng& rng)
      : k(c.dtype, {c.tokens, c.kv_heads, c.head_dim}, c.gap),
        v(c.dtype, {c.tokens, c.kv_heads, c.head_dim}, c.gap) {
    k.fill_normal(rng);
    v.fill_normal(rng);
    if (c.q_heads > 0) {
      q = HostTensor(c.dtype, {c.tokens, c.q_heads, c.head_dim}, c.gap);
      q.fill_normal(rng);
    }
    if (c.rotary_dim > 0) {
      positions = c.has_sections() ? HostTensor(DType::kInt64, {3, c.tokens}, c.gap)
                                   : HostTensor(DType::kInt64, {c.tokens});
      // One in 20 names no row of cos_sin: such a token is not rotated.
      for (int64_t t = 0; t < positions.numel(); ++t)
        positions.set(t, static_cast<double>(rng() % 20 == 0 ? -1 : random_size(rng, 0, 49)));
      cos_sin = HostTensor(DType::kFloat32, {kPositions, c.rotary_dim}, c.gap);
      cos_sin.fill_uniform(rng, -1, 1);
    }
    if (c.writes) {
      const int64_t blocks = c.tokens / c.block_size + 3;
      k_cache = HostTensor(c.cache_dtype, {blocks, c.block_size, c.kv_heads, c.head_dim}, c.gap);
      v_cache = k_cache;
      slots = HostTensor(DType::kInt64, {c.tokens});
      std::set<int64_t> used;
      for (int64_t t = 0; t < c.tokens; ++t) {
        int64_t slot = random_size(rng, 0, blocks * c.block_size - 1);
        while (used.contains(slot)) slot = (slot + 1) % (blocks * c.block_size);
        if (rng() % 6 == 0) slot = rng() % 2 ? -1 : blocks * c.block_size;  // padding, outside
        if (slot >= 0 && slot < blocks * c.block_size) used.insert(slot);
        slots.set(t, static_cast<double>(slot));
      }
    }
  }
};

void expect_rotated(const Case& c, const Data& data, const HostTensor& before,
                    const HostTensor& after) {
  if (!before.present()) return;
  std::vector<double> expected = before.values(), slack(expected.size(), 0.0);
  const int64_t heads = before.shape()[1], half = c.rotary_dim / 2;
  for (int64_t t = 0; t < c.tokens && half > 0; ++t) {
    bool rotates = true;
    for (int64_t at = t; at < data.positions.numel(); at += c.tokens)
      rotates = rotates && data.positions.get(at) >= 0;
    if (!rotates) continue;
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t i = 0; i < half; ++i) {
        const auto position = static_cast<int64_t>(data.positions.get(c.axis_of(i) * c.tokens + t));
        const int64_t row = (t * heads + h) * c.head_dim;
        const int64_t first = row + (c.interleaved ? 2 * i : i);
        const int64_t second = c.interleaved ? first + 1 : first + half;
        const double a = before.get(first), b = before.get(second);
        const double cosine = data.cos_sin.at({position, i});
        const double sine = data.cos_sin.at({position, half + i});
        expected[static_cast<size_t>(first)] = a * cosine - b * sine;
        expected[static_cast<size_t>(second)] = b * cosine + a * sine;
        const double allowed = 2.5e-7 * (std::abs(a) + std::abs(b));
        slack[static_cast<size_t>(first)] = slack[static_cast<size_t>(second)] = allowed;
      }
    }
  }
  ops::testing::expect_rounded(after, expected, slack);
  EXPECT_TRUE(after.untouched_outside());
}

void expect_written(const Case& c, const Data& data, const HostTensor& rows,
                    const HostTensor& before, const HostTensor& cache, float scale) {
  std::vector<double> expected = before.values();
  const int64_t width = c.kv_heads * c.head_dim;
  const int64_t slots = before.numel() / width;
  for (int64_t t = 0; t < c.tokens; ++t) {
    const auto slot = static_cast<int64_t>(data.slots.get(t));
    for (int64_t i = 0; slot >= 0 && slot < slots && i < width; ++i) {
      expected[static_cast<size_t>(slot * width + i)] = ops::testing::rounded(
          static_cast<float>(rows.get(t * width + i)) * (1.0f / scale), c.cache_dtype);
    }
  }
  for (size_t i = 0; i < expected.size(); ++i) {
    const double got = cache.get(static_cast<int64_t>(i));
    ASSERT_TRUE(got == expected[i] || (std::isnan(got) && std::isnan(expected[i])))
        << "element " << i << " is " << got << ", expected " << expected[i];
  }
  EXPECT_TRUE(cache.untouched_outside());
}

void check(const Case& c, Rng& rng) {
  SCOPED_TRACE(c.describe());
  Data data(c, rng);
  Data after = data;
  {
    const Mirror q(data.q), k(data.k), v(data.v), positions(data.positions), cos_sin(data.cos_sin),
        k_cache(data.k_cache), v_cache(data.v_cache), slots(data.slots);
    const Status status = ops::rope_kv_write({.q = q,
                                              .k = k,
                                              .v = v,
                                              .positions = positions,
                                              .cos_sin = cos_sin,
                                              .k_cache = k_cache,
                                              .v_cache = v_cache,
                                              .slot_mapping = slots,
                                              .interleaved = c.interleaved,
                                              .sections = c.sections,
                                              .sections_interleaved = c.sections_interleaved,
                                              .k_scale = c.k_scale,
                                              .v_scale = c.v_scale,
                                              .keep_k = c.keep_k});
    ASSERT_TRUE(status.ok()) << status.message();
    q.fetch(after.q);
    k.fetch(after.k);
    v.fetch(after.v);
    k_cache.fetch(after.k_cache);
    v_cache.fetch(after.v_cache);
  }
  expect_rotated(c, data, data.q, after.q);
  if (!c.keep_k && c.writes) {  // what the cache should hold, from a call that keeps them
    EXPECT_TRUE(after.k.untouched_outside());
    const Mirror k(data.k), positions(data.positions), cos_sin(data.cos_sin);
    const Status status = ops::rope_kv_write({.q = {},
                                              .k = k,
                                              .v = {},
                                              .positions = positions,
                                              .cos_sin = cos_sin,
                                              .k_cache = {},
                                              .v_cache = {},
                                              .slot_mapping = {},
                                              .interleaved = c.interleaved,
                                              .sections = c.sections,
                                              .sections_interleaved = c.sections_interleaved});
    ASSERT_TRUE(status.ok()) << status.message();
    k.fetch(after.k);
  }
  expect_rotated(c, data, data.k, after.k);
  EXPECT_EQ(after.v.values(), data.v.values());
  if (!c.writes) return;
  expect_written(c, data, after.k, data.k_cache, after.k_cache, c.k_scale);
  expect_written(c, data, after.v, data.v_cache, after.v_cache, c.v_scale);
}

class RopeKvWriteGpu : public GpuTest {};

TEST_F(RopeKvWriteGpu, RandomShapes) {
  for (uint64_t seed = 1; seed <= static_cast<uint64_t>(cases(500)); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Rng rng(seed);
    check(Case::random(rng), rng);
    if (HasFatalFailure()) return;
  }
}

TEST_F(RopeKvWriteGpu, LlamaHeads) {
  Rng rng(1);
  for (const int64_t tokens : {1, 64, 200}) {
    check({.tokens = tokens, .q_heads = 32, .kv_heads = 32, .head_dim = 128, .rotary_dim = 128},
          rng);
    check({.tokens = tokens, .q_heads = 32, .kv_heads = 8, .head_dim = 128, .rotary_dim = 64}, rng);
  }
}

TEST_F(RopeKvWriteGpu, Reduced) {
  Rng rng(2);
  for (const bool interleaved : {false, true}) {
    check({.tokens = 3, .interleaved = interleaved}, rng);
    check({.cache_dtype = DType::kFloat32, .tokens = 3, .gap = 8, .interleaved = interleaved}, rng);
    check({.tokens = 3, .head_dim = 72, .rotary_dim = 72, .interleaved = interleaved}, rng);
    check({.cache_dtype = DType::kFloat8E4M3,
           .tokens = 3,
           .interleaved = interleaved,
           .sections = {12, 10, 10},
           .sections_interleaved = interleaved,
           .k_scale = 0.3f,
           .v_scale = 2.0f},
          rng);
    check({.tokens = 3, .interleaved = interleaved, .keep_k = false}, rng);
    check({.tokens = 3, .rotary_dim = 0, .gap = 3, .interleaved = interleaved}, rng);
  }
}

}  // namespace
}  // namespace mmcore::cuda
