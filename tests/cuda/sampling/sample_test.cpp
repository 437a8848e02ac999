// Layer: unit. Against the CPU's sampler, which its own tests hold against the definition in
// float64; where the two differ, float64 decides whether rounding explains it.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "mmcore/ops.h"
#include "ops/rounding.h"
#include "sampling/sampled_rows.h"

namespace mmcore::cuda {
namespace {

using ops::testing::HostTensor;
using ops::testing::random_float_type;
using ops::testing::random_size;
using ops::testing::Rng;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/// Counts rows, and those where the GPU's token is another one than the CPU's.
struct Comparison {
  int rows = 0;
  int different = 0;
};

void expect_lists(const std::vector<TokenLogprob>& got, const std::vector<TokenLogprob>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t k = 0; k < got.size(); ++k) {
    ASSERT_EQ(got[k].token, want[k].token) << "entry " << k;
    ASSERT_EQ(got[k].rank, want[k].rank) << "entry " << k;
    if (std::isinf(want[k].logprob)) {
      ASSERT_EQ(got[k].logprob, want[k].logprob);
    } else {
      ASSERT_NEAR(got[k].logprob, want[k].logprob, 2e-6 * (10 + std::abs(want[k].logprob)));
    }
  }
}

void compare(const HostTensor& logits, std::span<const SampleRow> rows, Comparison& seen) {
  std::vector<SampledToken> got, want;
  std::vector<Status> got_status, want_status;
  ASSERT_TRUE(ops::sample(logits.view(), rows, want, &want_status).ok());
  const Mirror device(logits);
  const Status status = ops::sample(device, rows, got, &got_status);
  ASSERT_TRUE(status.ok()) << status.message();
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    SCOPED_TRACE("row " + std::to_string(i) + ": " + describe(rows[i]));
    ASSERT_EQ(got_status[i].code(), want_status[i].code()) << got_status[i].message();
    ASSERT_EQ(got_status[i].message(), want_status[i].message());
    ++seen.rows;
    if (got[i].token != want[i].token) {
      ++seen.different;
      ASSERT_TRUE(may_be_picked(row_values(logits, static_cast<int64_t>(i)), rows[i], got[i].token))
          << got[i].token << " where the CPU picks " << want[i].token;
      continue;
    }
    expect_lists(got[i].logprobs, want[i].logprobs);
    if (testing::Test::HasFatalFailure()) return;
  }
}

std::vector<SampleRow> random_rows(Rng& rng, std::vector<OwnedRow>& owned, int64_t count,
                                   int64_t vocab) {
  std::vector<SampleRow> rows;
  owned.clear();
  for (int64_t i = 0; i < count; ++i) owned.push_back(OwnedRow::random(rng, vocab));
  for (OwnedRow& r : owned) {
    r.row.num_logprobs = static_cast<int32_t>(rng() % 8) - 4;
    r.row.num_logprobs = std::max(r.row.num_logprobs, -1);
    std::erase_if(r.bias, [&](const auto& b) { return b.first >= vocab; });
    rows.push_back(r.params());
  }
  return rows;
}

class SampleGpu : public GpuTest {};

TEST_F(SampleGpu, RandomRows) {
  Comparison seen;
  for (uint64_t seed = 1; seed <= static_cast<uint64_t>(cases(400)); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Rng rng(seed);
    const int64_t vocab = rng() % 4 == 0 ? random_size(rng, 1, 6) : random_size(rng, 1, 2500);
    const DType dtype = random_float_type(rng);
    const int64_t count = random_size(rng, 0, 16);
    const HostTensor logits = random_logits(rng, dtype, count, vocab);
    std::vector<OwnedRow> owned;
    compare(logits, random_rows(rng, owned, count, vocab), seen);
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(seen.rows, 2500);
  EXPECT_LE(seen.different, 5) << "of " << seen.rows;
  RecordProperty("different", seen.different);
}

/// Lists that do not fit shared memory, thousands of ties, flat and peaked rows.
TEST_F(SampleGpu, LargeVocabularies) {
  Rng rng(77);
  Comparison seen;
  std::vector<SampleRow> settings(9);
  settings[1].top_k = 50;
  settings[2].top_p = 0.9f;
  settings[3].min_p = 0.05f;
  settings[4].top_k = 20'000;
  settings[4].top_p = 0.5f;
  settings[5].top_p = 0.999f;
  settings[5].temperature = 0.7f;
  settings[6].top_k = 1'000;
  settings[6].top_p = 0.95f;
  settings[6].min_p = 0.01f;
  settings[7].temperature = 0.0f;
  settings[8].temperature = 1.5f;
  for (size_t i = 0; i < settings.size(); ++i) settings[i].seed = 100 + i;
  for (const int64_t vocab : {32064, 49152, 151'936, 300'001}) {
    for (const double deviation : {0.0, 0.01, 1.0, 4.0}) {
      SCOPED_TRACE(std::to_string(vocab) + ", deviation " + std::to_string(deviation));
      const DType dtype = random_float_type(rng);
      HostTensor logits(dtype, {static_cast<int64_t>(settings.size()), vocab});
      logits.fill_normal(rng, deviation);
      for (uint64_t counter = 0; counter < 3; ++counter) {
        for (SampleRow& r : settings) r.counter = counter;
        compare(logits, settings, seen);
        if (HasFatalFailure()) return;
      }
    }
  }
  // A flat row's tokens are 1 / vocabulary apart, so some draws come close to a boundary.
  EXPECT_LE(seen.different, seen.rows / 20) << "of " << seen.rows;
}

TEST_F(SampleGpu, GreedyTakesTheFirstOfTheBest) {
  Comparison seen;
  for (const int64_t vocab : {1, 2, 255, 256, 257, 3000, 32064, 262'145}) {
    HostTensor logits(DType::kBFloat16, {5, vocab});
    for (int64_t r = 0; r < 5; ++r) {
      const int64_t at = r == 0 ? 0 : r == 1 ? vocab / 2 : r == 2 ? vocab - 1 : vocab / 3;
      for (int64_t i = 0; i < vocab; ++i)
        logits.set_at({r, i}, i < at ? -1.0 : r == 4 ? kInf : 2.0);
    }
    std::vector<SampleRow> rows(5);
    for (SampleRow& r : rows) r.temperature = 9e-6f;
    compare(logits, rows, seen);
    for (SampleRow& r : rows) r.temperature = 1.0f;
    compare(logits, {rows.data(), rows.size()}, seen);
    if (HasFatalFailure()) return;
  }
}

TEST_F(SampleGpu, FailingRowsAndTheirTexts) {
  Comparison seen;
  HostTensor logits(DType::kFloat32, {9, 300});
  Rng rng(3);
  logits.fill_normal(rng);
  logits.set_at({1, 299}, kNan);
  for (int64_t i = 0; i < 300; ++i) logits.set_at({2, i}, -kInf);
  logits.set_at({3, 7}, kInf);
  logits.set_at({8, 5}, kNan);  // masked, and still a NaN that came in
  std::vector<OwnedRow> owned(9);
  for (size_t i = 0; i < owned.size(); ++i) owned[i].row.temperature = i % 2 ? 0.0f : 0.8f;
  owned[3].bias = {{7, -kInf}};
  owned[4].allowed = {5, 300, -1};
  owned[4].banned = {5};
  owned[5].row.top_p = 0.0f;
  owned[6].bias = {{2, kInf}, {0, -kInf}};
  owned[7].row.num_logprobs = 2;
  owned[8].banned = {5};
  std::vector<SampleRow> rows;
  for (OwnedRow& r : owned) rows.push_back(r.params());
  compare(logits, rows, seen);
  const Mirror device(logits);
  std::vector<SampledToken> got;
  const Status whole = ops::sample(device, rows, got);
  EXPECT_EQ(whole.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(whole.message().find("row 1"), std::string::npos) << whole.message();
}

TEST_F(SampleGpu, SameTokensEveryTime) {
  Rng rng(9);
  const HostTensor logits = random_logits(rng, DType::kFloat16, 64, 5000);
  std::vector<OwnedRow> owned;
  const std::vector<SampleRow> rows = random_rows(rng, owned, 64, 5000);
  const Mirror device(logits);
  std::vector<SampledToken> first, again;
  std::vector<Status> status;
  ASSERT_TRUE(ops::sample(device, rows, first, &status).ok());
  for (int run = 0; run < 5; ++run) {
    ASSERT_TRUE(ops::sample(device, rows, again, &status).ok());
    for (size_t i = 0; i < rows.size(); ++i) {
      ASSERT_EQ(again[i].token, first[i].token);
      ASSERT_EQ(again[i].logprobs.size(), first[i].logprobs.size());
      for (size_t k = 0; k < first[i].logprobs.size(); ++k)
        ASSERT_EQ(again[i].logprobs[k].logprob, first[i].logprobs[k].logprob);
    }
  }
}

/// Several blocks work on a row where rows are few, one where they are many.
TEST_F(SampleGpu, ARowAloneGivesTheTokenOfALargeBatch) {
  constexpr int64_t kRows = 20;
  for (const int64_t vocab : {16'200, 32'064, 151'936}) {
    for (uint64_t seed = 1; seed <= 3; ++seed) {
      SCOPED_TRACE(std::to_string(vocab) + ", seed " + std::to_string(seed));
      Rng rng(seed);
      const HostTensor logits = random_logits(rng, random_float_type(rng), kRows, vocab);
      std::vector<OwnedRow> owned;
      const std::vector<SampleRow> rows = random_rows(rng, owned, kRows, vocab);
      const Mirror device(logits);
      std::vector<SampledToken> together, alone;
      std::vector<Status> status;
      ASSERT_TRUE(ops::sample(device, rows, together, &status).ok());
      const int64_t row_bytes =
          device.view().stride(0) * static_cast<int64_t>(size_of(logits.dtype()));
      for (int64_t i = 0; i < kRows; ++i) {
        SCOPED_TRACE("row " + std::to_string(i) + ": " + describe(rows[static_cast<size_t>(i)]));
        const TensorView row(device.view().ptr<std::byte>() + i * row_bytes, logits.dtype(),
                             {1, vocab}, device.view().device);
        for (int run = 0; run < 2; ++run) {
          ASSERT_TRUE(ops::sample(row, {&rows[static_cast<size_t>(i)], 1}, alone, &status).ok());
          ASSERT_EQ(alone[0].token, together[static_cast<size_t>(i)].token);
        }
      }
    }
  }
}

TEST_F(SampleGpu, SeveralBlocksARowReduced) {
  Comparison seen;
  Rng rng(21);
  for (const int64_t count : {1, 2}) {
    HostTensor logits(DType::kBFloat16, {count, 16'200});
    logits.fill_normal(rng);
    std::vector<SampleRow> rows(static_cast<size_t>(count));
    for (SampleRow& r : rows) r.top_p = 0.97f;
    compare(logits, rows, seen);
    rows[0].top_k = 7'000;
    compare(logits, rows, seen);
  }
}

TEST_F(SampleGpu, Reduced) {
  Comparison seen;
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    Rng rng(seed);
    const HostTensor logits = random_logits(rng, random_float_type(rng), 4, 700);
    std::vector<OwnedRow> owned;
    compare(logits, random_rows(rng, owned, 4, 700), seen);
  }
}

class LogprobsGpu : public GpuTest {};

void compare_logprobs(const HostTensor& logits, const std::vector<TokenId>& targets,
                      const std::vector<int32_t>& num) {
  std::vector<std::vector<TokenLogprob>> got, want;
  const Status expected = ops::logprobs(logits.view(), targets, num, want);
  const Mirror device(logits);
  const Status status = ops::logprobs(device, targets, num, got);
  ASSERT_EQ(status.message(), expected.message());
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    SCOPED_TRACE("row " + std::to_string(i));
    expect_lists(got[i], want[i]);
    if (testing::Test::HasFatalFailure()) return;
  }
}

TEST_F(LogprobsGpu, RandomRowsReduced) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Rng rng(seed);
    const int64_t vocab = random_size(rng, 1, rng() % 2 ? 10 : 2000);
    const int64_t rows = random_size(rng, 0, 6);
    HostTensor logits = random_logits(rng, random_float_type(rng), rows, vocab);
    std::vector<TokenId> targets;
    std::vector<int32_t> num;
    for (int64_t i = 0; i < rows; ++i) {
      targets.push_back(static_cast<TokenId>(random_size(rng, 0, vocab - 1)));
      num.push_back(static_cast<int32_t>(random_size(rng, -1, 30)));
      if (rng() % 10 == 0) targets.back() = static_cast<TokenId>(vocab);
      if (rng() % 10 == 0) logits.set_at({i, vocab / 2}, kNan);
    }
    compare_logprobs(logits, targets, num);
    if (HasFatalFailure()) return;
  }
}

TEST_F(LogprobsGpu, LongLists) {
  Rng rng(4);
  HostTensor logits(DType::kBFloat16, {5, 32064});
  logits.fill_normal(rng, 2.0);
  compare_logprobs(logits, {5, 6, 7, 32063, 0}, {20, 1000, 1024, 1025, 40'000});
  HostTensor flat(DType::kFloat32, {2, 40'000});
  flat.fill_normal(rng, 0.0);
  compare_logprobs(flat, {39'999, 0}, {20, 700});
}

class SampleTensorsGpu : public GpuTest {};

/// Columns of parameters for rows without edits.
struct Columns {
  DeviceTensor temperature, top_p, min_p, top_k, seed, counter;

  explicit Columns(std::span<const SampleRow> rows) {
    std::vector<float> t, p, m;
    std::vector<int32_t> k;
    std::vector<int64_t> s, c;
    for (const SampleRow& r : rows) {
      t.push_back(r.temperature);
      p.push_back(r.top_p);
      m.push_back(r.min_p);
      k.push_back(r.top_k);
      s.push_back(static_cast<int64_t>(r.seed));
      c.push_back(static_cast<int64_t>(r.counter));
    }
    const auto n = static_cast<int64_t>(rows.size());
    temperature = DeviceTensor::from(t, {n});
    top_p = DeviceTensor::from(p, {n});
    min_p = DeviceTensor::from(m, {n});
    top_k = DeviceTensor::from(k, {n});
    seed = DeviceTensor::from(s, {n});
    counter = DeviceTensor::from(c, {n});
  }
};

TEST_F(SampleTensorsGpu, PicksWhatSampleDoesInAGraph) {
  constexpr int64_t kRows = 60, kVocab = 3001;
  Rng rng(11);
  HostTensor logits = random_logits(rng, DType::kBFloat16, kRows, kVocab);
  logits.set_at({7, 3000}, kNan);
  for (int64_t i = 0; i < kVocab; ++i) logits.set_at({8, i}, -kInf);
  std::vector<SampleRow> rows;
  for (int64_t i = 0; i < kRows; ++i) {
    SampleRow r = OwnedRow::random(rng, kVocab).row;
    r.repetition_penalty = 1.0f;
    r.frequency_penalty = r.presence_penalty = 0.0f;
    rows.push_back(r);
  }
  rows[3].top_p = 1.5f;
  rows[4].temperature = kNan;
  const Mirror device(logits);
  const Columns columns(rows);
  const DeviceTensor tokens(DType::kInt32, {kRows});
  const DeviceTensor workspace(DType::kUInt8, {ops::sample_tensors_workspace_bytes(kRows, kVocab)});
  const ops::SampleTensorsArgs args{.logits = device,
                                    .temperature = columns.temperature,
                                    .top_p = columns.top_p,
                                    .min_p = columns.min_p,
                                    .top_k = columns.top_k,
                                    .seed = columns.seed,
                                    .counter = columns.counter,
                                    .tokens = tokens,
                                    .workspace = workspace};
  std::vector<SampledToken> expected;
  std::vector<Status> status;
  ASSERT_TRUE(ops::sample(device, rows, expected, &status).ok());
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  const Status queued = ops::sample_tensors(args, {stream});
  cudaGraph_t graph = nullptr;
  ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  ASSERT_TRUE(queued.ok()) << queued.message();
  cudaGraphExec_t replay = nullptr;
  ASSERT_EQ(cudaGraphInstantiate(&replay, graph, 0), cudaSuccess);
  for (int run = 0; run < 3; ++run) {
    ASSERT_EQ(cudaGraphLaunch(replay, stream), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    const std::vector<int32_t> got = tokens.ints();
    for (size_t i = 0; i < expected.size(); ++i)
      EXPECT_EQ(got[i], expected[i].token) << "row " << i;
  }
  EXPECT_EQ(tokens.ints()[3], -1);
  EXPECT_EQ(tokens.ints()[4], -1);
  EXPECT_EQ(tokens.ints()[7], -1);
  EXPECT_EQ(tokens.ints()[8], -1);
  ASSERT_EQ(cudaGraphExecDestroy(replay), cudaSuccess);
  ASSERT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  ASSERT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

TEST_F(SampleTensorsGpu, NamesASmallWorkspace) {
  std::vector<SampleRow> rows(2);
  const Columns columns(rows);
  const DeviceTensor logits(DType::kFloat32, {2, 1000}), tokens(DType::kInt32, {2}),
      workspace(DType::kUInt8, {64});
  const Status status = ops::sample_tensors({.logits = logits,
                                             .temperature = columns.temperature,
                                             .top_p = columns.top_p,
                                             .min_p = columns.min_p,
                                             .top_k = columns.top_k,
                                             .seed = columns.seed,
                                             .counter = columns.counter,
                                             .tokens = tokens,
                                             .workspace = workspace});
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("expected at least 128"), std::string::npos) << status.message();
}

}  // namespace
}  // namespace mmcore::cuda
