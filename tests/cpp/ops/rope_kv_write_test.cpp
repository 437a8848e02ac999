// Layer: unit. Every instruction set against double precision.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "ops/host_tensor.h"
#include "ops/isa_test.h"

namespace mmcore::ops::testing {
namespace {

template <class T>
T pick(Rng& rng, std::initializer_list<T> choices) {
  return choices.begin()[rng() % choices.size()];
}

struct Case {
  DType dtype = DType::kFloat32;
  DType cache_dtype = DType::kFloat32;
  int64_t tokens = 5;
  int64_t q_heads = 3;  // 0: no q
  int64_t kv_heads = 2;
  int64_t head_dim = 64;
  int64_t rotary_dim = 64;  // 0: no rotation
  int64_t block_size = 4;
  int64_t gap = 0;
  bool interleaved = false;
  bool writes = true;
  std::array<int32_t, 3> sections{};
  bool sections_interleaved = false;
  float k_scale = 1;
  float v_scale = 1;

  static Case random(Rng& rng) {
    const auto dtype_of = [&rng] {
      return pick(rng, {DType::kFloat32, DType::kBFloat16, DType::kFloat16});
    };
    Case c;
    c.dtype = dtype_of();
    c.cache_dtype = rng() % 2 ? c.dtype : dtype_of();
    c.tokens = pick<int64_t>(rng, {0, 1, 2, 7, 40});
    c.q_heads = pick<int64_t>(rng, {0, 1, 4, 9});
    c.kv_heads = pick<int64_t>(rng, {1, 2, 3});
    c.head_dim = pick<int64_t>(rng, {32, 64, 72, 80, 96, 128, 256, 48, 6});
    c.rotary_dim = pick<int64_t>(rng, {c.head_dim, c.head_dim, c.head_dim / 2, 2, 0});
    c.rotary_dim -= c.rotary_dim % 2;
    c.block_size = pick<int64_t>(rng, {1, 4, 16, 20});
    c.gap = pick<int64_t>(rng, {0, 8, 3});
    c.interleaved = rng() % 2;
    c.writes = rng() % 5 != 0;
    if (rng() % 3 == 0) c.take_float8(rng);
    if (rng() % 3 == 0 && c.rotary_dim > 0) c.take_sections(rng);
    return c;
  }

  void take_float8(Rng& rng) {
    cache_dtype = DType::kFloat8E4M3;
    k_scale = pick(rng, {1.0f, 0.3f, 0.003f, 7.0f});
    v_scale = pick(rng, {1.0f, 0.6f, 0.002f, 2.0f});
  }

  void take_sections(Rng& rng) {
    const auto half = static_cast<int32_t>(rotary_dim / 2);
    sections_interleaved = rng() % 2;
    const int32_t room = sections_interleaved ? half / 3 : half / 2;
    sections[1] = static_cast<int32_t>(rng() % static_cast<uint64_t>(room + 1));
    sections[2] = static_cast<int32_t>(rng() % static_cast<uint64_t>(room + 1));
    sections[0] = half - sections[1] - sections[2];
  }

  bool has_sections() const { return sections[0] + sections[1] + sections[2] > 0; }

  /// The axis of each frequency.
  std::vector<int64_t> axes() const {
    std::vector<int64_t> axis(static_cast<size_t>(rotary_dim / 2), 0);
    if (sections_interleaved) {
      for (int64_t a : {1, 2}) {
        for (int32_t n = 0; n < sections[static_cast<size_t>(a)]; ++n) {
          axis[static_cast<size_t>(3 * n + a)] = a;
        }
      }
    } else {
      auto at = axis.begin();
      for (int64_t a = 0; a < 3; ++a) at = std::fill_n(at, sections[static_cast<size_t>(a)], a);
    }
    return axis;
  }

  std::string describe() const {
    return std::string(to_string(dtype)) + " cache " + to_string(cache_dtype) + " T " +
           std::to_string(tokens) + " heads " + std::to_string(q_heads) + "/" +
           std::to_string(kv_heads) + " D " + std::to_string(head_dim) + " R " +
           std::to_string(rotary_dim) + " block " + std::to_string(block_size) + " gap " +
           std::to_string(gap) + (interleaved ? " interleaved" : "") + " sections " +
           std::to_string(sections[0]) + "/" + std::to_string(sections[1]) + "/" +
           std::to_string(sections[2]) + (sections_interleaved ? " in turn" : "") + " scales " +
           std::to_string(k_scale) + " " + std::to_string(v_scale);
  }
};

struct Data {
  HostTensor q, k, v, positions, cos_sin, k_cache, v_cache, slots;

  Data(const Case& c, Rng& rng)
      : k(c.dtype, {c.tokens, c.kv_heads, c.head_dim}, c.gap),
        v(c.dtype, {c.tokens, c.kv_heads, c.head_dim}, c.gap) {
    constexpr int64_t kPositions = 50;
    k.fill_normal(rng);
    v.fill_normal(rng);
    if (c.q_heads > 0) {
      q = HostTensor(c.dtype, {c.tokens, c.q_heads, c.head_dim}, c.gap);
      q.fill_normal(rng);
    }
    if (c.rotary_dim > 0) {
      positions = c.has_sections() ? HostTensor(DType::kInt64, {3, c.tokens}, c.gap)
                                   : HostTensor(DType::kInt64, {c.tokens});
      for (int64_t t = 0; t < positions.numel(); ++t) {
        positions.set(t, static_cast<double>(rng() % kPositions));
      }
      cos_sin = HostTensor(DType::kFloat32, {kPositions, c.rotary_dim}, c.gap);
      cos_sin.fill_uniform(rng, -1, 1);
    }
    if (!c.writes) return;
    const int64_t blocks = c.tokens / c.block_size + 3;
    k_cache = HostTensor(c.cache_dtype, {blocks, c.block_size, c.kv_heads, c.head_dim}, c.gap);
    v_cache = HostTensor(c.cache_dtype, {blocks, c.block_size, c.kv_heads, c.head_dim}, c.gap);
    std::vector<int64_t> free(static_cast<size_t>(blocks * c.block_size));
    std::iota(free.begin(), free.end(), int64_t{0});
    std::shuffle(free.begin(), free.end(), rng);
    slots = HostTensor(DType::kInt64, {c.tokens});
    for (int64_t t = 0; t < c.tokens; ++t) {
      slots.set(t, rng() % 5 == 0 ? -1.0 : static_cast<double>(free[static_cast<size_t>(t)]));
    }
  }

  RopeKvWriteArgs args(const Case& c) const {
    return {.q = q.view(),
            .k = k.view(),
            .v = v.view(),
            .positions = positions.view(),
            .cos_sin = cos_sin.view(),
            .k_cache = k_cache.view(),
            .v_cache = v_cache.view(),
            .slot_mapping = slots.view(),
            .interleaved = c.interleaved,
            .sections = c.sections,
            .sections_interleaved = c.sections_interleaved,
            .k_scale = c.k_scale,
            .v_scale = c.v_scale};
  }
};

/// Row-major values of x after the rotation.
std::vector<double> rotated(const Case& c, const Data& d, const HostTensor& x) {
  std::vector<double> out = x.values();
  const int64_t heads = x.shape()[1];
  const std::vector<int64_t> axes = c.axes();
  for (int64_t t = 0; t < c.tokens && c.rotary_dim > 0; ++t) {
    for (int64_t h = 0; h < heads; ++h) {
      double* row = out.data() + (t * heads + h) * c.head_dim;
      for (int64_t i = 0; i < c.rotary_dim / 2; ++i) {
        const int64_t axis = c.has_sections() ? axes[static_cast<size_t>(i)] : 0;
        const auto position = static_cast<int64_t>(d.positions.get(axis * c.tokens + t));
        const double cosine = d.cos_sin.at({position, i});
        const double sine = d.cos_sin.at({position, c.rotary_dim / 2 + i});
        const int64_t a = c.interleaved ? 2 * i : i;
        const int64_t b = c.interleaved ? 2 * i + 1 : c.rotary_dim / 2 + i;
        const double x_a = row[a];
        const double x_b = row[b];
        row[a] = x_a * cosine - x_b * sine;
        row[b] = x_a * sine + x_b * cosine;
      }
    }
  }
  return out;
}

/// One rounding to `dtype` away, and a float's rounding before it.
void expect_rounded(const HostTensor& got, const std::vector<double>& expected) {
  const double unit = got.dtype() == DType::kFloat32    ? 0x1p-21
                      : got.dtype() == DType::kBFloat16 ? 0x1p-8
                                                        : 0x1p-11;
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_NEAR(got.get(static_cast<int64_t>(i)), expected[i], unit * std::abs(expected[i]) + 2e-6)
        << "element " << i;
  }
}

/// What the cache holds at each slot; NaN, the untouched filling, where nothing belongs.
void expect_cache(const Case& c, const Data& d, const HostTensor& cache, const HostTensor& rows,
                  float scale) {
  const int64_t width = c.kv_heads * c.head_dim;
  std::vector<int64_t> token_at(static_cast<size_t>(cache.numel() / width), -1);
  for (int64_t t = 0; t < c.tokens; ++t) {
    if (d.slots.get(t) >= 0) token_at[static_cast<size_t>(d.slots.get(t))] = t;
  }
  for (int64_t i = 0; i < cache.numel(); ++i) {
    const int64_t t = token_at[static_cast<size_t>(i / width)];
    if (t < 0) {
      ASSERT_TRUE(std::isnan(cache.get(i))) << "slot " << i / width << " was written";
    } else {
      const double value = static_cast<float>(rows.get(t * width + i % width)) * (1.0f / scale);
      ASSERT_EQ(cache.get(i), rounded(value, cache.dtype())) << "slot " << i / width;
    }
  }
}

void expect_right(const Case& c, uint64_t seed) {
  Rng rng(seed);
  const Data before(c, rng);
  const Data after = before;
  const Status status = rope_kv_write(after.args(c));
  ASSERT_TRUE(status.ok()) << status.message();
  if (c.q_heads > 0) expect_rounded(after.q, rotated(c, before, before.q));
  expect_rounded(after.k, rotated(c, before, before.k));
  EXPECT_TRUE(after.v.bytes() == before.v.bytes());
  for (const HostTensor* t : {&after.q, &after.k, &after.k_cache, &after.v_cache}) {
    EXPECT_TRUE(t->untouched_outside());
  }
  if (!c.writes) return;
  expect_cache(c, before, after.k_cache, after.k, c.k_scale);
  expect_cache(c, before, after.v_cache, after.v, c.v_scale);
}

class RopeKvWritePerIsa : public IsaTest {};
INSTANTIATE_TEST_SUITE_P(, RopeKvWritePerIsa, kEveryIsa, isa_name);

TEST_P(RopeKvWritePerIsa, MatchesDoublePrecisionOnRandomCalls) {
  for (uint64_t seed = 0; seed < 250; ++seed) {
    Rng rng(seed);
    const Case c = Case::random(rng);
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + c.describe());
    expect_right(c, seed + 1000);
    if (::testing::Test::HasFailure()) return;
  }
}

TEST_P(RopeKvWritePerIsa, SharesManyTokensBetweenThreads) {
  Case c;
  c.tokens = 700;
  c.block_size = 16;
  for (const int threads : {1, 2, 5}) {
    set_num_threads(threads);
    expect_right(c, 1);
  }
}

/// q, k and v as slices of one tensor [T, q_heads + 2 kv_heads, D].
TEST_P(RopeKvWritePerIsa, TakesSlicesOfAFusedProjection) {
  const Case c;
  Rng rng(3);
  const Data before(c, rng);
  HostTensor fused(DType::kFloat32, {c.tokens, c.q_heads + 2 * c.kv_heads, c.head_dim});
  for (int64_t t = 0; t < c.tokens; ++t) {
    for (int64_t i = 0; i < c.head_dim; ++i) {
      for (int64_t h = 0; h < c.q_heads; ++h) fused.set_at({t, h, i}, before.q.at({t, h, i}));
      for (int64_t h = 0; h < c.kv_heads; ++h) {
        fused.set_at({t, c.q_heads + h, i}, before.k.at({t, h, i}));
        fused.set_at({t, c.q_heads + c.kv_heads + h, i}, before.v.at({t, h, i}));
      }
    }
  }
  RopeKvWriteArgs args = before.args(c);
  int64_t head = 0;
  for (TensorView* part : {&args.q, &args.k, &args.v}) {
    const int64_t heads = part->size(1);
    *part = fused.view();
    part->data = fused.view().ptr<float>() + head * c.head_dim;
    part->shape[1] = heads;
    head += heads;
  }
  ASSERT_TRUE(rope_kv_write(args).ok());
  const std::vector<double> q = rotated(c, before, before.q);
  for (int64_t t = 0; t < c.tokens; ++t) {
    for (int64_t h = 0; h < c.q_heads; ++h) {
      for (int64_t i = 0; i < c.head_dim; ++i) {
        ASSERT_NEAR(fused.at({t, h, i}),
                    q[static_cast<size_t>((t * c.q_heads + h) * c.head_dim + i)], 1e-5);
      }
    }
  }
}

struct BadCall {
  const char* name;
  void (*spoil)(RopeKvWriteArgs&);
  const char* message;
};

class RopeKvWriteRefuses : public ::testing::TestWithParam<BadCall> {};

TEST_P(RopeKvWriteRefuses, AndLeavesItsTensorsAlone) {
  const Case c;
  Rng rng(1);
  const Data data(c, rng);
  const Data before = data;
  RopeKvWriteArgs args = data.args(c);
  GetParam().spoil(args);
  const Status status = rope_kv_write(args);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find(GetParam().message), std::string::npos) << status.message();
  EXPECT_TRUE(data.q.bytes() == before.q.bytes());
  EXPECT_TRUE(data.k.bytes() == before.k.bytes());
  EXPECT_TRUE(data.k_cache.bytes() == before.k_cache.bytes());
}

INSTANTIATE_TEST_SUITE_P(
    , RopeKvWriteRefuses,
    ::testing::Values(
        BadCall{"NoK", [](RopeKvWriteArgs& a) { a.k = {}; }, "k is absent, expected [T, Hkv, D]"},
        BadCall{"OtherHeadDim", [](RopeKvWriteArgs& a) { a.q.shape[2] = 32; },
                "q has shape [5, 3, 32], expected [T, Hq, D] with T = 5 from k, D = 64 from k"},
        BadCall{"OtherDtype", [](RopeKvWriteArgs& a) { a.q.dtype = DType::kBFloat16; },
                "q is bfloat16, expected float32"},
        BadCall{"IntegerK", [](RopeKvWriteArgs& a) { a.k.dtype = DType::kInt32; },
                "k is int32, expected float32, bfloat16 or float16"},
        BadCall{"PositionsAlone", [](RopeKvWriteArgs& a) { a.cos_sin = {}; },
                "positions and cos_sin belong together"},
        BadCall{"WideTable", [](RopeKvWriteArgs& a) { a.cos_sin.shape[1] = 66; },
                "cos_sin has 66 columns, expected an even number of at most D = 64"},
        BadCall{"OddTable", [](RopeKvWriteArgs& a) { a.cos_sin.shape[1] = 33; },
                "cos_sin has 33 columns"},
        BadCall{"PositionBeyondTable",
                [](RopeKvWriteArgs& a) { a.positions.ptr<int64_t>()[2] = 50; },
                "positions[2] is 50, expected less than 50 and not negative"},
        BadCall{"NegativePosition", [](RopeKvWriteArgs& a) { a.positions.ptr<int64_t>()[0] = -1; },
                "positions[0] is -1"},
        BadCall{"PositionOfAnAxisBeyondTable",
                [](RopeKvWriteArgs& a) {
                  static int64_t positions[15] = {};
                  positions[8] = 50;
                  a.positions = TensorView(positions, DType::kInt64, {3, 5});
                  a.sections = {12, 10, 10};
                },
                "positions[1][3] is 50, expected less than 50 and not negative"},
        BadCall{"OnePositionForThreeAxes", [](RopeKvWriteArgs& a) { a.sections = {12, 10, 10}; },
                "positions has shape [5], expected [3, T] with T = 5 from k"},
        BadCall{"SectionsOfAnotherWidth",
                [](RopeKvWriteArgs& a) {
                  a.positions.rank = 2;
                  a.positions.shape = {3, 5};
                  a.positions.strides = {0, 1};
                  a.sections = {16, 24, 24};
                },
                "sections are 16, 24, 24; expected three counts, not negative, whose sum is half "
                "the 64 columns of cos_sin"},
        BadCall{"NoRoomInTurn",
                [](RopeKvWriteArgs& a) {
                  a.positions.rank = 2;
                  a.positions.shape = {3, 5};
                  a.positions.strides = {0, 1};
                  a.sections = {9, 12, 11};
                  a.sections_interleaved = true;
                },
                "interleaved, 32 frequencies have room for 11 of h and 10 of w"},
        BadCall{"SectionsWithoutRotation",
                [](RopeKvWriteArgs& a) {
                  a.positions = a.cos_sin = {};
                  a.sections = {12, 10, 10};
                },
                "sections are given, but no positions and cos_sin"},
        BadCall{"ScaledFloatCache", [](RopeKvWriteArgs& a) { a.k_scale = 2; },
                "k_scale is 2.000000 for a cache of float32, expected 1"},
        BadCall{"NegativeScale",
                [](RopeKvWriteArgs& a) {
                  a.k_cache.dtype = a.v_cache.dtype = DType::kFloat8E4M3;
                  a.v_scale = -1;
                },
                "v_scale is -1.000000, expected a finite number above 0"},
        BadCall{"SlotBeyondCache",
                [](RopeKvWriteArgs& a) { a.slot_mapping.ptr<int64_t>()[4] = 16; },
                "slot_mapping[4] is 16, expected less than 16"},
        BadCall{"HalfACache", [](RopeKvWriteArgs& a) { a.v_cache = {}; },
                "k_cache and v_cache belong together"},
        BadCall{"NoSlots", [](RopeKvWriteArgs& a) { a.slot_mapping = {}; },
                "slot_mapping is absent"},
        BadCall{"NoV", [](RopeKvWriteArgs& a) { a.v = {}; }, "v is absent"},
        BadCall{"StridedLastAxis", [](RopeKvWriteArgs& a) { a.k.strides[2] = 2; },
                "k has stride 2 in its last axis, expected 1"},
        BadCall{"OverlappingRows", [](RopeKvWriteArgs& a) { a.k.strides[0] = 64; },
                "k is written but its elements overlap"}),
    [](const auto& call) { return call.param.name; });

}  // namespace
}  // namespace mmcore::ops::testing
