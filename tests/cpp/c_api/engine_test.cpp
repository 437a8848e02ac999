// The C API as a host uses it. Synthetic model.
#include <cstring>
#include <future>
#include <thread>

#include "c_api/c_world.h"
#include "mmcore/media.h"

namespace mmcore::testing {
namespace {

TEST_F(CApiTest, SaysWhatItIs) {
  EXPECT_EQ(mmcore_abi_version(), MMCORE_C_ABI_VERSION);
  EXPECT_EQ(std::string(mmcore_version()).find("0."), 0u);
  EXPECT_STREQ(mmcore_status_name(MMCORE_OVERLOADED), "overloaded");
  EXPECT_STREQ(mmcore_status_name(MMCORE_BUFFER_TOO_SMALL), "buffer_too_small");
  EXPECT_STREQ(mmcore_status_name(4711), "unknown");
}

TEST_F(CApiTest, RunsARequest) {
  open();
  const mmcore_request request = submit(CRequest(5, 10));
  uint64_t id = 0;
  EXPECT_EQ(mmcore_request_id(request, &id), MMCORE_OK);
  EXPECT_GT(id, 0u);
  const CHeard heard = read_all(request);
  EXPECT_EQ(heard.tokens, counted_after(14, 8));
  EXPECT_EQ(heard.finish_reason, MMCORE_FINISH_LENGTH);
  EXPECT_EQ(heard.last_read, MMCORE_END);
  EXPECT_EQ(mmcore_engine_abort(engine, id), MMCORE_NOT_FOUND);
  EXPECT_EQ(mmcore_request_abort(request), MMCORE_OK);
  EXPECT_EQ(mmcore_request_destroy(request), MMCORE_OK);

  ASSERT_EQ(mmcore_engine_drain(engine, kLongUs), MMCORE_OK);
  mmcore_metrics metrics{};
  metrics.struct_size = sizeof(metrics);
  ASSERT_EQ(mmcore_engine_metrics(engine, &metrics), MMCORE_OK);
  EXPECT_EQ(metrics.requests_finished, 1u);
  EXPECT_EQ(metrics.tokens_generated, 8u);
  EXPECT_EQ(metrics.blocks_used, 0);
  EXPECT_EQ(metrics.blocks_total, 40);
  int64_t servable = 0;
  EXPECT_EQ(mmcore_engine_max_servable_tokens(engine, &servable), MMCORE_OK);
  EXPECT_EQ(servable, 160);
  EXPECT_EQ(mmcore_engine_reset_caches(engine), MMCORE_OK);
  EXPECT_EQ(mmcore_engine_status(engine), MMCORE_SHUTDOWN) << "it drains";
  const CRequest late(5, 10);
  mmcore_request refused = 1;
  EXPECT_EQ(mmcore_engine_submit(engine, &late.submission, &refused), MMCORE_SHUTDOWN);
  EXPECT_EQ(refused, 0u);
}

TEST_F(CApiTest, CarriesEveryField) {
  mmcore_config config = small_c_config();
  const int32_t eos[] = {17};
  config.eos_token_ids = eos;
  config.num_eos_token_ids = 1;
  open(config);
  // 15 16 17: the model's end, which the request ignores; 21 is its own.
  CRequest content(5, 10, 30);
  const int32_t stop[] = {21};
  content.sampling.stop_token_ids = stop;
  content.sampling.num_stop_token_ids = 1;
  content.sampling.ignore_eos = 1;
  content.submission.cache_salt = "salt";
  content.submission.cache_salt_length = 4;
  const mmcore_request request = submit(content);
  int32_t last_stop = 0;
  std::vector<int32_t> tokens;
  mmcore_output output{};
  output.struct_size = sizeof(output);
  int32_t token = 0;
  output.tokens = &token;
  output.tokens_capacity = 1;
  while (mmcore_request_read(request, kLongUs, &output) == MMCORE_OK) {
    if (output.num_tokens == 1) tokens.push_back(token);
    last_stop = output.stop_token;
  }
  EXPECT_EQ(tokens, counted_after(14, 7));
  EXPECT_EQ(last_stop, 21);
  mmcore_request_destroy(request);

  const mmcore_request ends = submit(CRequest(5, 10, 30));
  EXPECT_EQ(read_all(ends).tokens, counted_after(14, 3)) << "the model's end";
  mmcore_request_destroy(ends);
}

TEST_F(CApiTest, GivesLogprobsWhereTheyFit) {
  host.before_step = [](const mmcore_step* step, mmcore_step_result* result) {
    for (int64_t i = 0; i < step->num_sample_rows; ++i) {
      const int64_t first = result->logprob_starts[i];
      const int64_t room = result->logprob_starts[i + 1] - first;
      EXPECT_EQ(room, step->sampling[i].num_logprobs + 1);
      for (int64_t k = 0; k < room; ++k)
        result->logprobs[first + k] = {static_cast<int32_t>(k), -1.5f, static_cast<int32_t>(k + 1)};
      result->logprob_counts[i] = static_cast<int32_t>(room);
    }
    for (int64_t i = 0; i < step->num_prompt_logprob_rows; ++i) {
      result->prompt_logprobs[result->prompt_logprob_starts[i]] = {step->prompt_logprob_targets[i],
                                                                   -0.25f, 1};
      result->prompt_logprob_counts[i] = 1;
    }
    return MMCORE_OK;
  };
  open();
  CRequest content(3, 10, 1);
  content.sampling.num_logprobs = 2;
  content.sampling.num_prompt_logprobs = 0;
  const mmcore_request request = submit(content);

  int32_t tokens[4];
  int32_t counts[4];
  int32_t prompt_counts[4];
  mmcore_logprob logprobs[4];
  mmcore_logprob prompt_logprobs[4];
  mmcore_output output{};
  output.struct_size = sizeof(output);
  output.tokens = tokens;
  output.tokens_capacity = 4;
  output.logprobs = logprobs;
  output.logprobs_capacity = 2;  // one too few
  output.logprob_counts = counts;
  output.logprob_counts_capacity = 4;
  output.prompt_logprobs = prompt_logprobs;
  output.prompt_logprobs_capacity = 4;
  output.prompt_logprob_counts = prompt_counts;
  output.prompt_logprob_counts_capacity = 4;
  ASSERT_EQ(mmcore_request_read(request, kLongUs, &output), MMCORE_BUFFER_TOO_SMALL);
  EXPECT_EQ(output.num_logprobs, 3);
  EXPECT_EQ(output.logprobs, logprobs) << "the caller's buffers stay its own";
  output.logprobs_capacity = 4;
  ASSERT_EQ(mmcore_request_read(request, kLongUs, &output), MMCORE_OK) << "nothing was lost";
  ASSERT_EQ(output.num_tokens, 1);
  EXPECT_EQ(tokens[0], 13);
  EXPECT_EQ(counts[0], 3);
  EXPECT_EQ(logprobs[2].token, 2);
  EXPECT_EQ(logprobs[2].rank, 3);
  ASSERT_EQ(output.num_prompt_positions, 2);
  EXPECT_EQ(prompt_logprobs[0].token, 11);
  EXPECT_EQ(prompt_logprobs[1].token, 12);
  EXPECT_FLOAT_EQ(prompt_logprobs[1].logprob, -0.25f);
  EXPECT_EQ(mmcore_request_read(request, kLongUs, &output), MMCORE_END);
  mmcore_request_destroy(request);
}

TEST_F(CApiTest, CollectsWhatARequestGives) {
  open();
  int32_t tokens[8];
  mmcore_output output{};
  output.struct_size = sizeof(output);
  output.tokens = tokens;
  output.tokens_capacity = 3;
  const mmcore_request request = submit(CRequest(5, 10));
  EXPECT_EQ(mmcore_request_collect(request, kLongUs, &output), MMCORE_BUFFER_TOO_SMALL);
  EXPECT_EQ(output.num_tokens, 8);
  output.tokens_capacity = 8;
  ASSERT_EQ(mmcore_request_collect(request, kLongUs, &output), MMCORE_OK) << mmcore_last_error();
  EXPECT_EQ(std::vector<int32_t>(tokens, tokens + output.num_tokens), counted_after(14, 8));
  EXPECT_EQ(output.finish_reason, MMCORE_FINISH_LENGTH);
  EXPECT_EQ(mmcore_request_collect(request, kLongUs, &output), MMCORE_END);
  EXPECT_EQ(mmcore_request_destroy(request), MMCORE_OK);
  EXPECT_EQ(mmcore_request_collect(request, kLongUs, &output), MMCORE_INVALID_HANDLE);

  // What was read before is not given again; each sequence of several comes by itself.
  CRequest content(5, 10);
  content.submission.num_sequences = 3;
  const mmcore_request several = submit(content);
  ASSERT_EQ(mmcore_request_read(several, kLongUs, &output), MMCORE_OK);
  const int64_t first = output.num_tokens;
  for (int32_t i = 0; i < 3; ++i) {
    ASSERT_EQ(mmcore_request_collect(several, kLongUs, &output), MMCORE_OK) << mmcore_last_error();
    EXPECT_EQ(output.sequence, i);
    EXPECT_EQ(output.num_tokens, i == 0 ? 8 - first : 8);
  }
  EXPECT_EQ(mmcore_request_collect(several, kLongUs, &output), MMCORE_END);
  mmcore_request_destroy(several);
}

TEST_F(CApiTest, CollectTellsARequestsErrorAndDoesNotWaitForItself) {
  std::vector<mmcore_status> seen;
  mmcore_request good = 0;
  std::promise<void> submitted;
  const std::shared_future<void> known = submitted.get_future().share();
  host.before_step = [&](const mmcore_step*, mmcore_step_result*) {
    known.wait();
    mmcore_output output{};
    output.struct_size = sizeof(output);
    if (seen.empty()) seen.push_back(mmcore_request_collect(good, -1, &output));
    return MMCORE_OK;
  };
  host.on_accept = [](uint64_t, const mmcore_submission* content) {
    return content->prompt_token_ids[0] == 500 ? MMCORE_MEDIA_ERROR : MMCORE_OK;
  };
  open();
  good = submit(CRequest(5, 10));
  const mmcore_request bad = submit(CRequest(5, 500));
  mmcore_output output{};
  output.struct_size = sizeof(output);
  EXPECT_EQ(mmcore_request_collect(good, 0, &output), MMCORE_TIMEOUT);
  EXPECT_EQ(mmcore_request_collect(good, 0, nullptr), MMCORE_INVALID_ARGUMENT);
  submitted.set_value();
  EXPECT_EQ(mmcore_request_collect(good, kLongUs, &output), MMCORE_OK) << "tokens are not wanted";
  EXPECT_EQ(output.num_tokens, 8);
  EXPECT_EQ(mmcore_request_collect(bad, kLongUs, &output), MMCORE_MEDIA_ERROR);
  EXPECT_NE(std::string(mmcore_last_error()).find("accept"), std::string::npos);
  EXPECT_EQ(output.finish_reason, MMCORE_FINISH_ERROR);
  EXPECT_EQ(mmcore_request_collect(bad, kLongUs, &output), MMCORE_END);
  EXPECT_EQ(seen, std::vector<mmcore_status>({MMCORE_WRONG_THREAD}));
  mmcore_request_destroy(good);
  mmcore_request_destroy(bad);
}

TEST_F(CApiTest, NamesSequences) {
  open();
  CRequest content(5, 10);
  content.submission.num_sequences = 3;
  const mmcore_request request = submit(content);
  std::vector<std::vector<int32_t>> tokens(3);
  int32_t token[8];
  mmcore_output output{};
  output.struct_size = sizeof(output);
  output.tokens = token;
  output.tokens_capacity = 8;
  while (mmcore_request_read(request, kLongUs, &output) == MMCORE_OK)
    for (int64_t i = 0; i < output.num_tokens; ++i)
      tokens.at(static_cast<size_t>(output.sequence)).push_back(token[i]);
  for (const std::vector<int32_t>& each : tokens) EXPECT_EQ(each, counted_after(14, 8));
  mmcore_request_destroy(request);
}

TEST_F(CApiTest, ContentIdIsTheCores) {
  const void* frames[] = {"image", "rgb"};
  const int64_t lengths[] = {5, 3};
  uint8_t id[32];
  ASSERT_EQ(mmcore_content_id(frames, lengths, 2, id), MMCORE_OK);
  const std::string_view views[] = {"image", "rgb"};
  EXPECT_EQ(std::memcmp(id, content_id(views).bytes.data(), 32), 0);
}

TEST_F(CApiTest, LastErrorIsEachThreadsOwn) {
  EXPECT_EQ(mmcore_engine_status(1), MMCORE_INVALID_HANDLE);
  const std::string mine = mmcore_last_error();
  EXPECT_NE(mine.find("engine"), std::string::npos);
  std::thread([] { EXPECT_STREQ(mmcore_last_error(), ""); }).join();
  EXPECT_EQ(mine, mmcore_last_error());
}

}  // namespace
}  // namespace mmcore::testing
