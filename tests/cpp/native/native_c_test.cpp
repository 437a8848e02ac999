// The native runner through C: a picture captioned, and misuse that gives a code.
#include "mmcore/native_c.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

#include "native/asking_in_c.h"
#include "native/folder.h"

namespace mmcore::native {
namespace {

using testing::ask;
using testing::bundled;

class NativeC : public ::testing::Test {
 protected:
  void SetUp() override {
    mmcore_native_options options;
    ASSERT_EQ(mmcore_native_options_init(&options, sizeof options), MMCORE_OK);
    options.dtype = MMCORE_NATIVE_FLOAT32;
    options.device = "cpu";
    ASSERT_EQ(mmcore_native_open(bundled().c_str(), &options, &runner), MMCORE_OK)
        << mmcore_last_error();
  }
  void TearDown() override {
    EXPECT_EQ(mmcore_runner_destroy(runner), runner != 0 ? MMCORE_OK : MMCORE_INVALID_HANDLE);
  }

  std::vector<int32_t> encode(const std::string& text, uint32_t flags = 0) {
    std::vector<int32_t> ids(text.size() + 8);
    int64_t count = 0;
    EXPECT_EQ(mmcore_native_encode(runner, text.data(), static_cast<int64_t>(text.size()), flags,
                                   ids.data(), static_cast<int64_t>(ids.size()), &count),
              MMCORE_OK)
        << mmcore_last_error();
    ids.resize(static_cast<size_t>(count));
    return ids;
  }
  std::string decode(const std::vector<int32_t>& ids, uint32_t flags = 0) {
    std::string text(ids.size() * 16 + 1, '?');
    int64_t length = 0;
    EXPECT_EQ(mmcore_native_decode(runner, ids.data(), static_cast<int64_t>(ids.size()), flags,
                                   text.data(), static_cast<int64_t>(text.size()), &length),
              MMCORE_OK)
        << mmcore_last_error();
    text.resize(static_cast<size_t>(length));
    return text;
  }

  mmcore_runner runner = 0;
};

TEST_F(NativeC, answers_a_question_about_a_picture) {
  std::vector<uint8_t> red;
  for (int i = 0; i < 112 * 112; ++i) red.insert(red.end(), {200, 20, 20});
  const auto prompt = encode("USER: <image>\nDescribe the image. ASSISTANT:");
  const auto tokens = ask(runner, prompt, red, 112, 112);
  ASSERT_FALSE(tokens.empty());
  EXPECT_FALSE(decode(tokens).empty());
  EXPECT_EQ(ask(runner, prompt, red, 112, 112), tokens);
}

TEST_F(NativeC, submits_a_text_with_its_pictures_in_one_call) {
  std::vector<uint8_t> red;
  for (int i = 0; i < 112 * 112; ++i) red.insert(red.end(), {200, 20, 20});
  const char* text = "USER: <image>\nDescribe the image. ASSISTANT:";
  const auto expected = ask(runner, encode(text), red, 112, 112);

  mmcore_engine engine = 0;
  ASSERT_EQ(mmcore_engine_create(nullptr, runner, &engine), MMCORE_OK) << mmcore_last_error();
  const mmcore_native_image image = {red.data(), 112, 112};
  mmcore_sampling sampling;
  mmcore_submission submission;
  ASSERT_EQ(mmcore_sampling_init(&sampling, sizeof sampling), MMCORE_OK);
  ASSERT_EQ(mmcore_submission_init(&submission, sizeof submission), MMCORE_OK);
  sampling.temperature = 0;
  sampling.max_tokens = 10;
  submission.sampling = &sampling;
  mmcore_request request = 0;
  ASSERT_EQ(mmcore_native_submit(engine, runner, text, &image, 1, &submission, &request), MMCORE_OK)
      << mmcore_last_error();
  int32_t tokens[16];
  mmcore_output output{};
  output.struct_size = sizeof output;
  output.tokens = tokens;
  output.tokens_capacity = 16;
  ASSERT_EQ(mmcore_request_collect(request, -1, &output), MMCORE_OK) << mmcore_last_error();
  EXPECT_EQ(std::vector<int32_t>(tokens, tokens + output.num_tokens), expected);
  EXPECT_EQ(mmcore_request_destroy(request), MMCORE_OK);
  // Without pictures, and without a submission.
  ASSERT_EQ(mmcore_native_submit(engine, runner, "Hello", nullptr, 0, nullptr, &request), MMCORE_OK)
      << mmcore_last_error();
  EXPECT_EQ(mmcore_request_destroy(request), MMCORE_OK);

  const auto refused = [&](mmcore_engine e, mmcore_runner r, const char* t,
                           const mmcore_native_image* i, int64_t n, const mmcore_submission* s) {
    request = 1;
    const mmcore_status status = mmcore_native_submit(e, r, t, i, n, s, &request);
    EXPECT_EQ(request, 0u);
    return status;
  };
  EXPECT_EQ(refused(engine, runner, nullptr, &image, 1, nullptr), MMCORE_INVALID_ARGUMENT);
  EXPECT_EQ(refused(engine, runner, text, nullptr, 1, nullptr), MMCORE_INVALID_ARGUMENT);
  EXPECT_EQ(refused(engine, runner, text, &image, -1, nullptr), MMCORE_INVALID_ARGUMENT);
  EXPECT_EQ(refused(engine, runner, text, nullptr, 0, nullptr), MMCORE_PLACEHOLDER_MISMATCH);
  EXPECT_EQ(refused(engine, runner, "\xff", nullptr, 0, nullptr), MMCORE_INVALID_ARGUMENT);
  EXPECT_EQ(refused(0, runner, text, &image, 1, nullptr), MMCORE_INVALID_HANDLE);
  EXPECT_EQ(refused(engine, engine, text, &image, 1, nullptr), MMCORE_INVALID_HANDLE);
  EXPECT_EQ(mmcore_native_submit(engine, runner, text, &image, 1, nullptr, nullptr),
            MMCORE_INVALID_ARGUMENT);
  submission.prompt_token_ids = tokens;
  submission.num_prompt_token_ids = 1;
  EXPECT_EQ(refused(engine, runner, text, &image, 1, &submission), MMCORE_INVALID_ARGUMENT);
  submission.struct_size = 3;
  EXPECT_EQ(refused(engine, runner, text, &image, 1, &submission), MMCORE_INVALID_ARGUMENT);
  EXPECT_EQ(mmcore_engine_destroy(engine), MMCORE_OK);
}

TEST_F(NativeC, describes_the_checkpoint) {
  mmcore_native_info info{};
  info.struct_size = sizeof info;
  ASSERT_EQ(mmcore_native_describe(runner, &info), MMCORE_OK);
  EXPECT_EQ(info.dtype, MMCORE_NATIVE_FLOAT32);
  EXPECT_EQ(info.vocab_size, 640);
  EXPECT_EQ(info.image_token_id, 4);
  EXPECT_EQ(info.image_tokens, 196);
  EXPECT_EQ(info.has_tokenizer, 1);
  EXPECT_EQ(info.gpu, -1);
}

TEST_F(NativeC, programs_that_know_no_devices_get_defaults_for_them) {
  constexpr uint32_t kOld = offsetof(mmcore_native_options, device);
  mmcore_native_options options;
  std::memset(static_cast<void*>(&options), 0x5a, sizeof options);
  ASSERT_EQ(mmcore_native_options_init(&options, kOld), MMCORE_OK);
  EXPECT_EQ(options.struct_size, kOld);
  EXPECT_EQ(options.reserved0, 0x5a5a5a5a) << "behind what the program knows";
  mmcore_runner other = 0;
  EXPECT_EQ(mmcore_native_open(bundled().c_str(), &options, &other), MMCORE_OK)
      << mmcore_last_error();
  constexpr uint32_t kOldInfo = offsetof(mmcore_native_info, gpu);
  mmcore_native_info info{};
  info.struct_size = kOldInfo;
  info.gpu = 77;
  EXPECT_EQ(mmcore_native_describe(other, &info), MMCORE_OK);
  EXPECT_EQ(info.vocab_size, 640);
  EXPECT_EQ(info.gpu, 77);
  EXPECT_EQ(mmcore_runner_destroy(other), MMCORE_OK);
}

TEST_F(NativeC, options_of_devices_are_checked) {
  const auto open = [](auto&& set) {
    mmcore_native_options options;
    EXPECT_EQ(mmcore_native_options_init(&options, sizeof options), MMCORE_OK);
    set(options);
    mmcore_runner other = 0;
    const mmcore_status status = mmcore_native_open(bundled().c_str(), &options, &other);
    EXPECT_EQ(other, 0u);
    return status;
  };
  EXPECT_EQ(open([](auto& options) { options.device = "tpu"; }), MMCORE_INVALID_ARGUMENT);
  EXPECT_EQ(open([](auto& options) { options.device = "cuda:63"; }), MMCORE_UNSUPPORTED);
  EXPECT_EQ(open([](auto& options) { options.enforce_eager = 2; }), MMCORE_INVALID_ARGUMENT);
  EXPECT_EQ(open([](auto& options) { options.gpu_memory_utilization = -1; }),
            MMCORE_INVALID_ARGUMENT);
  EXPECT_EQ(open([](auto& options) { options.reserved0 = 1; }), MMCORE_UNSUPPORTED);
  EXPECT_EQ(open([](auto& options) {
              options.device = "cpu";
              options.dtype = MMCORE_NATIVE_FLOAT16;
            }),
            MMCORE_UNSUPPORTED);
}

TEST_F(NativeC, text_goes_to_tokens_and_back) {
  const std::string text = "caf\xC3\xA9 <image>";
  EXPECT_EQ(encode(text)[0], 1);
  EXPECT_EQ(encode(text).back(), 4);
  const auto typed = encode(text, MMCORE_NATIVE_NO_SPECIAL | MMCORE_NATIVE_TYPED_TEXT);
  EXPECT_EQ(decode(typed), text);
  EXPECT_EQ(decode(encode(text)), "caf\xC3\xA9 ");
  EXPECT_EQ(decode(encode("<image>"), MMCORE_NATIVE_KEEP_SPECIAL), "<s><image>");
  const auto accent = encode("\xC3\xA9", MMCORE_NATIVE_NO_SPECIAL);
  ASSERT_GT(accent.size(), 1u);
  EXPECT_EQ(decode({accent[0]}, MMCORE_NATIVE_HOLD_BACK), "");
  EXPECT_EQ(decode({accent[0]}), "\xEF\xBF\xBD");
}

TEST_F(NativeC, buffers_that_are_too_small_say_what_is_needed) {
  int64_t count = 0;
  int32_t ids[2];
  EXPECT_EQ(mmcore_native_encode(runner, "a picture", 9, 0, ids, 1, &count),
            MMCORE_BUFFER_TOO_SMALL);
  EXPECT_GT(count, 1);
  char text[3];
  const int32_t three[] = {37, 37, 37};
  EXPECT_EQ(mmcore_native_decode(runner, three, 3, 0, text, 3, &count), MMCORE_BUFFER_TOO_SMALL);
  EXPECT_EQ(count, 3) << "and one for the end";
  const uint8_t pixel[3] = {};
  const mmcore_native_image image = {pixel, 1, 1};
  const int32_t prompt[] = {1, 4};
  mmcore_media_item item;
  EXPECT_EQ(mmcore_native_prepare(runner, prompt, 2, &image, 1, ids, 2, &count, &item, sizeof item),
            MMCORE_BUFFER_TOO_SMALL);
  EXPECT_EQ(count, 197);
}

TEST_F(NativeC, misuse_gives_a_code) {
  int64_t count = 0;
  int32_t ids[300];
  char text[64];
  mmcore_media_item item;
  const uint8_t pixel[3] = {};
  const mmcore_native_image image = {pixel, 1, 1}, empty = {nullptr, 1, 1};
  const int32_t prompt[] = {1, 4};
  const auto prepare = [&](const mmcore_native_image* images, int64_t n, uint32_t size) {
    return mmcore_native_prepare(runner, prompt, 2, images, n, ids, 300, &count, &item, size);
  };
  EXPECT_EQ(prepare(nullptr, 1, sizeof item), MMCORE_INVALID_ARGUMENT);
  EXPECT_EQ(prepare(&image, -1, sizeof item), MMCORE_INVALID_ARGUMENT);
  EXPECT_EQ(prepare(&image, 1, 3), MMCORE_INVALID_ARGUMENT);
  EXPECT_EQ(prepare(&image, 1, 16), MMCORE_INVALID_ARGUMENT) << "no room for the payload";
  EXPECT_EQ(prepare(&image, 1, 1 << 20), MMCORE_INVALID_ARGUMENT);
  EXPECT_EQ(prepare(&empty, 1, sizeof item), MMCORE_MEDIA_ERROR);
  EXPECT_EQ(prepare(&image, 0, sizeof item), MMCORE_PLACEHOLDER_MISMATCH);
  EXPECT_EQ(
      mmcore_native_prepare(runner, prompt, 2, &image, 1, ids, 300, nullptr, &item, sizeof item),
      MMCORE_INVALID_ARGUMENT);
  EXPECT_EQ(
      mmcore_native_prepare(runner, prompt, 2, &image, 1, ids, 300, &count, nullptr, sizeof item),
      MMCORE_INVALID_ARGUMENT);
  EXPECT_EQ(mmcore_native_encode(runner, nullptr, 3, 0, ids, 300, &count), MMCORE_INVALID_ARGUMENT);
  EXPECT_EQ(mmcore_native_encode(runner, "\xff", 1, 0, ids, 300, &count), MMCORE_INVALID_ARGUMENT);
  EXPECT_EQ(mmcore_native_encode(runner, "a", 1, 64, ids, 300, &count), MMCORE_UNSUPPORTED);
  EXPECT_EQ(mmcore_native_encode(runner, "a", 1, 0, ids, 300, nullptr), MMCORE_INVALID_ARGUMENT);
  EXPECT_EQ(mmcore_native_decode(runner, ids, -1, 0, text, 64, &count), MMCORE_INVALID_ARGUMENT);
  EXPECT_EQ(mmcore_native_decode(runner, ids, 1, 1, text, 64, &count), MMCORE_UNSUPPORTED);
  EXPECT_EQ(mmcore_native_describe(runner, nullptr), MMCORE_INVALID_ARGUMENT);
  EXPECT_EQ(mmcore_native_configure(runner, nullptr), MMCORE_INVALID_ARGUMENT);
  mmcore_native_options options;
  EXPECT_EQ(mmcore_native_options_init(nullptr, sizeof options), MMCORE_INVALID_ARGUMENT);
  EXPECT_EQ(mmcore_native_options_init(&options, 2), MMCORE_INVALID_ARGUMENT);
  EXPECT_EQ(mmcore_native_options_init(&options, sizeof options), MMCORE_OK);
  mmcore_runner other = 0;
  EXPECT_EQ(mmcore_native_open(nullptr, &options, &other), MMCORE_INVALID_ARGUMENT);
  EXPECT_EQ(mmcore_native_open("/no/such/folder", &options, &other), MMCORE_NOT_FOUND);
  EXPECT_EQ(mmcore_native_open(bundled().c_str(), &options, nullptr), MMCORE_INVALID_ARGUMENT);
  options.dtype = 9;
  EXPECT_EQ(mmcore_native_open(bundled().c_str(), &options, &other), MMCORE_INVALID_ARGUMENT);
  EXPECT_EQ(other, 0u);
}

TEST_F(NativeC, handles_that_are_no_checkpoints_are_refused) {
  mmcore_native_info info{};
  info.struct_size = sizeof info;
  EXPECT_EQ(mmcore_native_describe(0, &info), MMCORE_INVALID_HANDLE);
  mmcore_runner_functions functions{};
  functions.struct_size = sizeof functions;
  functions.execute = [](void*, const mmcore_step*, mmcore_step_result*) -> mmcore_status {
    return MMCORE_INTERNAL;
  };
  mmcore_runner own = 0;
  ASSERT_EQ(mmcore_runner_create(&functions, nullptr, &own), MMCORE_OK);
  EXPECT_EQ(mmcore_native_describe(own, &info), MMCORE_INVALID_HANDLE) << "a host's own runner";
  EXPECT_EQ(mmcore_runner_destroy(own), MMCORE_OK);
  EXPECT_EQ(mmcore_runner_destroy(runner), MMCORE_OK);
  EXPECT_EQ(mmcore_native_describe(runner, &info), MMCORE_INVALID_HANDLE);
  runner = 0;
}

}  // namespace
}  // namespace mmcore::native
