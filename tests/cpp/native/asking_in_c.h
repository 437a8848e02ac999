// A question about a picture, from the engine's creation to its end, through the C API alone.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "mmcore/native_c.h"

namespace mmcore::native::testing {

/// The tokens that an engine of its own gives for a prompt and a picture of rows of R, G, B.
inline std::vector<int32_t> ask(mmcore_runner runner, const std::vector<int32_t>& prompt,
                                const std::vector<uint8_t>& rgb, int32_t width, int32_t height) {
  mmcore_config config;
  EXPECT_EQ(mmcore_config_init(&config, sizeof config), MMCORE_OK);
  EXPECT_EQ(mmcore_native_configure(runner, &config), MMCORE_OK) << mmcore_last_error();
  mmcore_engine engine = 0;
  EXPECT_EQ(mmcore_engine_create(&config, runner, &engine), MMCORE_OK) << mmcore_last_error();

  const mmcore_native_image image = {rgb.data(), width, height};
  std::vector<int32_t> tokens(400);
  int64_t count = 0;
  mmcore_media_item item;
  EXPECT_EQ(mmcore_native_prepare(runner, prompt.data(), static_cast<int64_t>(prompt.size()),
                                  &image, 1, tokens.data(), static_cast<int64_t>(tokens.size()),
                                  &count, &item, sizeof item),
            MMCORE_OK)
      << mmcore_last_error();
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
  EXPECT_EQ(mmcore_engine_submit(engine, &submission, &request), MMCORE_OK) << mmcore_last_error();
  EXPECT_EQ(mmcore_payload_destroy(item.payload), MMCORE_OK) << "the request keeps the image";

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

}  // namespace mmcore::native::testing
