// What NativeRunner::load refuses on a GPU, what it says, and that it leaves nothing behind.
#include "device_tensor.h"
#include "mmcore/gpu.h"
#include "mmcore/native.h"
#include "native/folder.h"

namespace mmcore::native {
namespace {

using testing::bundled;

constexpr Device kFirst{DeviceType::kCuda, 0};

class NativeLoadGpu : public cuda::GpuTest {
 protected:
  static void expect_refused(const RunnerOptions& options, StatusCode code,
                             std::initializer_list<const char*> words) {
    const Status status = NativeRunner::load(bundled(), options).status();
    EXPECT_EQ(status.code(), code) << status.message();
    for (const char* word : words)
      EXPECT_NE(status.message().find(word), std::string::npos)
          << word << " is not in: " << status.message();
  }
  static int64_t free_bytes() { return gpu::properties(kFirst).value().free_bytes; }
};

TEST_F(NativeLoadGpu, DescribesTheModel) {
  const auto runner =
      NativeRunner::load(bundled(), {.dtype = {}, .kv_cache_bytes = 10 * 16384}).value();
  EXPECT_EQ(runner->model().device, kFirst) << "auto: a GPU where there is one";
  EXPECT_EQ(runner->model().dtype, DType::kBFloat16);
  EXPECT_EQ(runner->engine_config().num_blocks, 11);
  EXPECT_EQ(runner->engine_config().max_model_len, 160);
  const auto on_cpu = NativeRunner::load(bundled(), {.dtype = {}, .device = "cpu"}).value();
  EXPECT_EQ(on_cpu->model().device, Device{});
}

TEST_F(NativeLoadGpu, TakesItsShareOfTheMemoryOrWhatSequencesCanUse) {
  const auto all = NativeRunner::load(bundled(), {.dtype = {}, .max_num_seqs = 4}).value();
  EXPECT_EQ(all->engine_config().max_model_len, 2048);
  EXPECT_EQ(all->model().num_blocks, 4 * 2048 / 16 + 1) << "more is of no use";

  const int64_t total = gpu::properties(kFirst).value().total_bytes;
  const double used = 1 - static_cast<double>(free_bytes()) / static_cast<double>(total);
  // A twentieth more than is in use now; other processes may take some of it.
  const auto part = NativeRunner::load(
      bundled(),
      {.dtype = {}, .max_num_seqs = 4096, .gpu_memory_utilization = std::min(1.0, used + 0.05)});
  ASSERT_TRUE(part.ok()) << part.status().message();
  const int64_t bytes = part.value()->model().num_blocks * part.value()->model().kv_bytes_per_block;
  EXPECT_LT(bytes, total / 20);
}

TEST_F(NativeLoadGpu, RefusesDevicesThatDoNotExist) {
  expect_refused({.dtype = {}, .device = "cuda:63"}, StatusCode::kUnsupported,
                 {"cuda:63 does not exist", "cuda:0", "device cpu"});
  expect_refused({.dtype = {}, .device = "gpu"}, StatusCode::kInvalidArgument, {"'gpu'", "cuda:N"});
}

TEST_F(NativeLoadGpu, WhatDoesNotFitIsAStatusAndLeaksNothing) {
  const int64_t total = gpu::properties(kFirst).value().total_bytes;
  const int64_t before = free_bytes();
  // Other processes may come and go on this GPU: what leaked would be more than they take.
  constexpr int64_t kGiB = int64_t{1} << 30, kRows = kGiB / (192 * 2);
  for (int i = 0; i < 8; ++i) {
    expect_refused({.dtype = DType::kBFloat16,
                    .kv_cache_bytes = total,
                    .encoder_cache_rows = kRows,
                    .device = "cuda"},
                   StatusCode::kUnservable, {std::to_string(total).c_str(), "free", "lower it"});
    EXPECT_TRUE(NativeRunner::load(bundled(), {.dtype = {}, .kv_cache_bytes = kGiB}).ok());
  }
  EXPECT_GE(free_bytes(), before - 6 * kGiB);

  expect_refused({.dtype = {}, .encoder_cache_rows = int64_t{1} << 38, .device = "cuda"},
                 StatusCode::kUnservable, {"does not fit", "are free", "encoder_cache_rows"});
  expect_refused({.dtype = {}, .device = "cuda", .gpu_memory_utilization = 1e-6},
                 StatusCode::kUnservable, {"no memory is left", "gpu_memory_utilization"});
  expect_refused({.dtype = {}, .kv_cache_bytes = 100, .device = "cuda"},
                 StatusCode::kInvalidArgument, {"at least two blocks"});
}

}  // namespace
}  // namespace mmcore::native
