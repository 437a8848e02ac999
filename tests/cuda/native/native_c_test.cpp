// The native runner on a GPU through C.
#include "mmcore/native_c.h"

#include <cstddef>
#include <string>
#include <vector>

#include "device_tensor.h"
#include "native/asking_in_c.h"
#include "native/folder.h"

namespace mmcore::native {
namespace {

using testing::bundled;

class NativeCGpu : public cuda::GpuTest {
 protected:
  static mmcore_runner open(const char* device, int32_t dtype) {
    mmcore_native_options options;
    EXPECT_EQ(mmcore_native_options_init(&options, sizeof options), MMCORE_OK);
    options.dtype = dtype;
    options.device = device;
    options.kv_cache_bytes = 1 << 24;
    mmcore_runner runner = 0;
    EXPECT_EQ(mmcore_native_open(bundled().c_str(), &options, &runner), MMCORE_OK)
        << mmcore_last_error();
    return runner;
  }

  static std::vector<int32_t> ask(mmcore_runner runner, const std::vector<int32_t>& prompt) {
    std::vector<uint8_t> red;
    for (int i = 0; i < 112 * 112; ++i) red.insert(red.end(), {200, 20, 20});
    return testing::ask(runner, prompt, red, 112, 112);
  }
};

TEST_F(NativeCGpu, GivesTheTokensOfTheCpu) {
  const mmcore_runner on_cpu = open("cpu", MMCORE_NATIVE_FLOAT32);
  const mmcore_runner on_gpu = open("cuda:0", MMCORE_NATIVE_FLOAT32);
  mmcore_native_info info{};
  info.struct_size = sizeof info;
  ASSERT_EQ(mmcore_native_describe(on_gpu, &info), MMCORE_OK);
  EXPECT_EQ(info.gpu, 0);
  ASSERT_EQ(mmcore_native_describe(on_cpu, &info), MMCORE_OK);
  EXPECT_EQ(info.gpu, -1);

  const std::string text = "USER: <image>\nDescribe the image. ASSISTANT:";
  std::vector<int32_t> prompt(64);
  int64_t count = 0;
  ASSERT_EQ(mmcore_native_encode(on_gpu, text.data(), static_cast<int64_t>(text.size()), 0,
                                 prompt.data(), 64, &count),
            MMCORE_OK);
  prompt.resize(static_cast<size_t>(count));
  const std::vector<int32_t> want = ask(on_cpu, prompt);
  ASSERT_FALSE(want.empty());
  for (int i = 0; i < 3; ++i) EXPECT_EQ(ask(on_gpu, prompt), want);
  EXPECT_EQ(mmcore_runner_destroy(on_cpu), MMCORE_OK);
  EXPECT_EQ(mmcore_runner_destroy(on_gpu), MMCORE_OK);
  EXPECT_EQ(mmcore_runner_destroy(on_gpu), MMCORE_INVALID_HANDLE);
}

TEST_F(NativeCGpu, ComputesInFloat16) {
  const mmcore_runner runner = open("cuda", MMCORE_NATIVE_FLOAT16);
  mmcore_native_info info{};
  info.struct_size = sizeof info;
  ASSERT_EQ(mmcore_native_describe(runner, &info), MMCORE_OK);
  EXPECT_EQ(info.dtype, MMCORE_NATIVE_FLOAT16);
  EXPECT_FALSE(ask(runner, {1, 4, 50}).empty());
  EXPECT_EQ(mmcore_runner_destroy(runner), MMCORE_OK);
}

TEST_F(NativeCGpu, WhatDoesNotFitHasACode) {
  mmcore_native_options options;
  ASSERT_EQ(mmcore_native_options_init(&options, sizeof options), MMCORE_OK);
  mmcore_runner runner = 0;
  options.device = "cuda:63";
  EXPECT_EQ(mmcore_native_open(bundled().c_str(), &options, &runner), MMCORE_UNSUPPORTED);
  EXPECT_NE(std::string(mmcore_last_error()).find("cuda:63"), std::string::npos);
  options.device = "cuda";
  options.kv_cache_bytes = int64_t{1} << 50;
  EXPECT_EQ(mmcore_native_open(bundled().c_str(), &options, &runner), MMCORE_UNSERVABLE);
  EXPECT_NE(std::string(mmcore_last_error()).find("kv_cache_bytes"), std::string::npos);
  EXPECT_EQ(runner, 0u);
}

}  // namespace
}  // namespace mmcore::native
