#include "sched/admission.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>

namespace mmcore {
namespace {

EngineConfig example_config() {
  EngineConfig c;
  c.block_size = 4;
  c.num_blocks = 26;  // 100 tokens
  c.max_model_len = 64;
  c.max_num_batched_tokens = 32;
  c.multimodal = true;
  c.encoder_budget = 12;
  c.encoder_cache_rows = 10;
  c.vocab_size = 50;
  return resolve_config(c).value();
}

Request example_request(int32_t tokens = 20) {
  Request r;
  r.prompt_token_ids.assign(static_cast<size_t>(tokens), 7);
  return r;
}

MediaItem item(int32_t offset, int32_t length, std::vector<uint8_t> mask = {}) {
  return {.offset = offset, .length = length, .embed_mask = std::move(mask)};
}

struct Case {
  const char* name;
  std::function<void(Request&, EngineConfig&)> change;
  StatusCode code;
  const char* says;  // part of the message
};

void expect_all(const std::vector<Case>& cases) {
  for (const Case& c : cases) {
    EngineConfig config = example_config();
    Request request = example_request();
    c.change(request, config);
    const Status status = check_request(request, config);
    EXPECT_EQ(status.code(), c.code) << c.name << ": " << status.message();
    EXPECT_NE(status.message().find(c.says), std::string::npos)
        << c.name << ": " << status.message();
  }
}

TEST(Admission, accepts_a_plain_request) {
  EXPECT_TRUE(check_request(example_request(), example_config()).ok());
}

TEST(Admission, checks_the_prompt) {
  expect_all({
      {"empty", [](auto& r, auto&) { r.prompt_token_ids.clear(); }, StatusCode::kInvalidArgument,
       "Prompt cannot be empty"},
      {"negative id", [](auto& r, auto&) { r.prompt_token_ids[3] = -1; },
       StatusCode::kInvalidArgument, "token id -1 at position 3 is out of the vocabulary [0, 50)"},
      {"id of vocab_size", [](auto& r, auto&) { r.prompt_token_ids[19] = 50; },
       StatusCode::kInvalidArgument, "token id 50 at position 19"},
      {"largest id", [](auto& r, auto&) { r.prompt_token_ids[0] = 49; }, StatusCode::kOk, ""},
      {"leaves room for a token", [](auto& r, auto&) { r = example_request(63); }, StatusCode::kOk,
       ""},
      {"fills the context", [](auto& r, auto&) { r = example_request(64); },
       StatusCode::kInvalidArgument,
       "The prompt (total length 64) is too long to fit into the model (context length 64). Make "
       "sure that `max_model_len` is no smaller than the number of text tokens plus multimodal "
       "tokens. For image inputs, the number of image tokens depends on the number of images, and "
       "possibly their aspect ratios as well."},
      {"priority", [](auto& r, auto&) { r.priority = 2; }, StatusCode::kInvalidArgument,
       "Got priority 2 but Priority scheduling is not enabled."},
      {"priority policy",
       [](auto& r, auto& c) {
         r.priority = -2;
         c.policy = SchedulingPolicy::kPriority;
       },
       StatusCode::kOk, ""},
      {"huge salt", [](auto& r, auto&) { r.cache_salt.assign(1025, 'x'); },
       StatusCode::kInvalidArgument, "at most 1024 bytes, got 1025"},
  });
}

TEST(Admission, checks_placeholder_spans) {
  const auto with = [](std::vector<MediaItem> items) {
    return [items](Request& r, EngineConfig&) { r.media = items; };
  };
  constexpr StatusCode kMismatch = StatusCode::kPlaceholderMismatch;
  expect_all({
      {"whole prompt but the end", with({item(10, 10)}), StatusCode::kOk, ""},
      {"beyond the prompt", with({item(11, 10)}), kMismatch, "[11, 21)"},
      {"negative offset", with({item(-1, 3)}), kMismatch, "[-1, 2)"},
      {"empty span", with({item(3, 0)}), kMismatch, "non-empty"},
      {"negative length", with({item(3, -2)}), kMismatch, "non-empty"},
      {"overflow", with({item(std::numeric_limits<int32_t>::max(), 5)}), kMismatch, "2147483652"},
      {"side by side", with({item(3, 2), item(5, 2)}), StatusCode::kOk, ""},
      {"overlap", with({item(3, 3), item(5, 2)}), kMismatch, "item 1"},
      {"out of order", with({item(8, 2), item(2, 2)}), kMismatch, "prompt order"},
      {"short mask", with({item(3, 3, {1, 1})}), kMismatch, "2 entries for a span of 3"},
      {"mask of zeros", with({item(3, 3, {0, 0, 0})}), kMismatch, "no 1"},
      {"mask of twos", with({item(3, 3, {1, 2, 1})}), kMismatch, "other than 0 and 1"},
      {"mask", with({item(3, 3, {1, 0, 1})}), StatusCode::kOk, ""},
  });
}

TEST(Admission, refuses_media_that_can_never_run) {
  expect_all({
      {"text-only model",
       [](auto& r, auto& c) {
         r.media = {item(0, 3)};
         c.multimodal = false;
       },
       StatusCode::kMediaError, "takes text only"},
      {"cache of ten rows", [](auto& r, auto&) { r.media = {item(0, 10)}; }, StatusCode::kOk, ""},
      {"eleven rows", [](auto& r, auto&) { r.media = {item(0, 11)}; }, StatusCode::kUnservable,
       "11 embedding rows at once, but encoder_cache_rows is 10"},
      {"eleven tokens of ten rows",
       [](auto& r, auto&) { r.media = {item(0, 11, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0})}; },
       StatusCode::kOk, ""},
      {"encoder budget",
       [](auto& r, auto& c) {
         r.media = {item(0, 9)};
         c.encoder_budget = 8;
       },
       StatusCode::kUnservable, "encoder_budget is 8"},
      {"several items that fit one by one",
       [](auto& r, auto&) { r.media = {item(0, 9), item(10, 9)}; }, StatusCode::kOk, ""},
      {"several items in one step",
       [](auto& r, auto& c) {
         r.media = {item(0, 9), item(10, 9)};
         c.enable_chunked_prefill = false;
         c.max_num_batched_tokens = 64;
       },
       StatusCode::kUnservable, "18 embedding rows in one step"},
      {"whole item over the token budget",
       [](auto& r, auto& c) {
         r.media = {item(0, 9)};
         c.split_media_items = false;
         c.max_num_batched_tokens = 8;
       },
       StatusCode::kUnservable, "9 tokens at once, but max_num_batched_tokens is 8"},
      {"split item over the token budget",
       [](auto& r, auto& c) {
         r.media = {item(0, 9)};
         c.max_num_batched_tokens = 8;
       },
       StatusCode::kOk, ""},
  });
}

// invariant: sched.admission. The boundary is one token, as in max_servable_tokens.
TEST(Admission, a_prompt_and_one_token_must_fit_into_the_pool) {
  struct Row {
    int32_t block_size, num_blocks, longest_prompt;
  };
  for (const Row& row :
       {Row{1, 2, 0}, Row{1, 11, 9}, Row{4, 3, 7}, Row{16, 2, 15}, Row{128, 3, 255}}) {
    EngineConfig config = example_config();
    config.max_model_len = 100'000;
    config.block_size = row.block_size;
    config.num_blocks = row.num_blocks;
    EXPECT_EQ(length_limit(config), row.longest_prompt + 1);
    EXPECT_TRUE(row.longest_prompt == 0 ||
                check_request(example_request(row.longest_prompt), config).ok());
    const Status status = check_request(example_request(row.longest_prompt + 1), config);
    EXPECT_EQ(status.code(), StatusCode::kUnservable);
    EXPECT_NE(status.message().find("the pool has " + std::to_string(row.num_blocks - 1)),
              std::string::npos)
        << status.message();
    EXPECT_NE(status.message().find("Raise num_blocks"), std::string::npos);
  }
}

TEST(Admission, the_length_limit_is_the_smaller_of_model_and_pool) {
  EngineConfig config = example_config();
  EXPECT_EQ(pool_tokens(config), 100);
  EXPECT_EQ(length_limit(config), 64);
  config.num_blocks = 11;
  EXPECT_EQ(length_limit(config), 40);
}

}  // namespace
}  // namespace mmcore
