// The native runner on a GPU through C.
#include "mmcore/native_c.h"

#include <cstddef>
#include <string>
#include <vector>

#include "device_tensor.h"
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
    mmcore_config config;
    EXPECT_EQ(mmcore_config_init(&config, sizeof config), MMCORE_OK);
    EXPECT_EQ(mmcore_native_configure(runner, &config), MMCORE_OK) << mmcore_last_error();
    mmcore_engine engine = 0;
    EXPECT_EQ(mmcore_engine_create(&config, runner, &engine), MMCORE_OK) << mmcore_last_error();
    std::vector<uint8_t> red;
    for (int i = 0; i < 112 * 112; ++i) red.insert(red.end(), {200, 20, 20});
    const mmcore_native_image image = {red.data(), 112, 112};
    std::vector<int32_t> tokens(400);
    int64_t count = 0;
    mmcore_media_item item;
    EXPECT_EQ(mmcore_native_prepare(runner, prompt.data(), static_cast<int64_t>(prompt.size()),
                                    &image, 1, tokens.data(), static_cast<int64_t>(tokens.size()),
                                    &count, &item, sizeof item),
              MMCORE_OK);
    mmcore_sampling sampling;
    EXPECT_EQ(mmcore_sampling_init(&sampling, sizeof sampling), MMCORE_OK);
    sampling.temperature = 0;
    sampling.max_tokens = 10;
    mmcore_submission submission;
    EXPECT_EQ(mmcore_submission_init(&submission, sizeof submission), MMCORE_OK);
    submission.prompt_token_ids = tokens.data();
    submission.num_prompt_token_ids = count;
    submission.media = &item;
    submission.num_media = 1;
    submission.sampling = &sampling;
    mmcore_request request = 0;
    EXPECT_EQ(mmcore_engine_submit(engine, &submission, &request), MMCORE_OK)
        << mmcore_last_error();
    EXPECT_EQ(mmcore_payload_destroy(item.payload), MMCORE_OK);
    std::vector<int32_t> heard;
    for (;;) {
      int32_t room[16];
      mmcore_output output{};
      output.struct_size = sizeof output;
      output.tokens = room;
      output.tokens_capacity = 16;
      if (mmcore_request_read(request, -1, &output) != MMCORE_OK) break;
      EXPECT_EQ(output.error, MMCORE_OK);
      heard.insert(heard.end(), room, room + output.num_tokens);
    }
    EXPECT_EQ(mmcore_request_destroy(request), MMCORE_OK);
    EXPECT_EQ(mmcore_engine_destroy(engine), MMCORE_OK);
    return heard;
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
