// A host's own runner as C functions: what it is shown, and what its failures do.
#include <cstring>
#include <set>

#include "c_api/c_world.h"
#include "mmcore/c_api_cpp.h"

namespace mmcore::testing {
namespace {

TEST_F(CApiTest, StepShowsThePlan) {
  bool checked = false;
  host.before_step = [&](const mmcore_step* step, mmcore_step_result* result) {
    if (checked) return MMCORE_OK;
    checked = true;
    EXPECT_EQ(step->struct_size, sizeof(mmcore_step));
    EXPECT_EQ(result->struct_size, sizeof(mmcore_step_result));
    EXPECT_EQ(step->num_sequences, 1);
    EXPECT_EQ(step->num_tokens, 5);
    EXPECT_EQ(step->sequences[0].num_tokens, 5);
    EXPECT_EQ(step->sequences[0].is_prefill, 1);
    EXPECT_EQ(step->sequences[0].sample_row, 0);
    for (int i = 0; i < 5; ++i) {
      EXPECT_EQ(step->token_ids[i], 10 + i);
      EXPECT_EQ(step->positions[i], i);
      EXPECT_GE(step->slot_mapping[i], 4) << "block 0 is the null block";
    }
    EXPECT_EQ(step->query_start[1], 5);
    EXPECT_EQ(step->seq_lens[0], 5);
    EXPECT_GE(step->block_table_width, 2);
    EXPECT_EQ(step->max_query_len, 5);
    EXPECT_EQ(step->max_seq_len, 5);
    const mmcore_sample_row& row = step->sampling[0];
    EXPECT_FLOAT_EQ(row.temperature, 0.5f);
    EXPECT_EQ(row.num_prompt_tokens, 5);
    EXPECT_EQ(row.prompt_tokens[4], 14);
    EXPECT_EQ(row.num_output_tokens, 0);
    EXPECT_EQ(row.num_logit_bias, 2);
    EXPECT_EQ(row.logit_bias[1].token, 7);
    EXPECT_FLOAT_EQ(row.logit_bias[1].bias, -2.0f);
    EXPECT_EQ(row.num_allowed_tokens, 1);
    EXPECT_EQ(row.allowed_tokens[0], 15);
    EXPECT_EQ(row.num_banned_tokens, 1);
    EXPECT_EQ(row.banned_tokens[0], 99);
    EXPECT_EQ(row.seed, 5u);
    EXPECT_EQ(result->tokens[0], -1);
    EXPECT_EQ(result->sequence_status[0], MMCORE_OK);
    EXPECT_EQ(result->logprob_starts[1], 0);
    return MMCORE_OK;
  };
  open();
  CRequest content(5, 10, 2);
  const mmcore_logit_bias biases[] = {{3, 1.0f}, {7, -2.0f}};
  const int32_t allowed[] = {15};
  const int32_t stop[] = {99};
  content.sampling.temperature = 0.5f;
  content.sampling.seed = 5;
  content.sampling.logit_bias = biases;
  content.sampling.num_logit_bias = 2;
  content.sampling.allowed_token_ids = allowed;
  content.sampling.num_allowed_token_ids = 1;
  content.sampling.stop_token_ids = stop;
  content.sampling.num_stop_token_ids = 1;
  content.sampling.min_tokens = 1;
  const mmcore_request request = submit(content);
  EXPECT_EQ(read_all(request).tokens, counted_after(14, 2));
  EXPECT_TRUE(checked);
  mmcore_request_destroy(request);
}

TEST_F(CApiTest, AcceptGetsItemsAndUserData) {
  int pixels = 42;
  int mine = 7;
  host.on_accept = [&](uint64_t request, const mmcore_submission* content) -> mmcore_status {
    EXPECT_GT(request, 0u);
    EXPECT_EQ(content->user_data, &mine);
    EXPECT_EQ(content->num_prompt_token_ids, 5);
    EXPECT_EQ(content->num_media, 1);
    EXPECT_EQ(content->media[0].user_data, &pixels);
    EXPECT_EQ(content->media[0].offset, 1);
    EXPECT_EQ(content->media[0].embed_mask_length, 2);
    EXPECT_EQ(content->media[0].content_id[31], 9);
    return MMCORE_OK;
  };
  bool encoded = false;
  host.before_step = [&](const mmcore_step* step, mmcore_step_result*) {
    if (step->num_encode == 0) return MMCORE_OK;
    encoded = true;
    EXPECT_EQ(step->encode[0].num_embeddings, 1);
    EXPECT_EQ(step->num_embeddings, 1);
    EXPECT_EQ(step->embeddings[0].dst_row, 2);
    EXPECT_EQ(step->embeddings[0].slot, step->encode[0].slot);
    return MMCORE_OK;
  };
  open();
  CRequest content(5, 10);
  const uint8_t mask[] = {0, 1};
  mmcore_media_item item{};
  item.struct_size = sizeof(item);
  item.kind = MMCORE_MEDIA_IMAGE;
  item.content_id[31] = 9;
  item.offset = 1;
  item.length = 2;
  item.embed_mask = mask;
  item.embed_mask_length = 2;
  item.user_data = &pixels;
  content.submission.media = &item;
  content.submission.num_media = 1;
  content.submission.user_data = &mine;
  const mmcore_request request = submit(content);
  EXPECT_EQ(read_all(request).finish_reason, MMCORE_FINISH_LENGTH);
  EXPECT_TRUE(encoded);
  mmcore_request_destroy(request);
}

TEST_F(CApiTest, AcceptMayRefuse) {
  host.on_accept = [](uint64_t, const mmcore_submission*) { return MMCORE_MEDIA_ERROR; };
  open();
  const mmcore_request request = submit(CRequest(5, 10));
  const CHeard heard = read_all(request);
  EXPECT_EQ(heard.finish_reason, MMCORE_FINISH_ERROR);
  EXPECT_EQ(heard.error, MMCORE_MEDIA_ERROR);
  EXPECT_NE(heard.message.find("accept"), std::string::npos);
  mmcore_request_destroy(request);
}

TEST_F(CApiTest, NamedRequestFailsAlone) {
  host.before_step = [](const mmcore_step* step, mmcore_step_result* result) {
    for (int64_t i = 0; i < step->num_sequences; ++i) {
      if (step->token_ids[step->sequences[i].first_row] != 500) continue;
      result->sequence_status[i] = MMCORE_MEDIA_ERROR;
      std::strncpy(result->message, "the picture is torn",
                   static_cast<size_t>(result->message_capacity));
    }
    return MMCORE_OK;
  };
  open();
  const mmcore_request good = submit(CRequest(5, 10));
  const mmcore_request bad = submit(CRequest(5, 500));
  const CHeard heard = read_all(bad);
  EXPECT_EQ(heard.error, MMCORE_MEDIA_ERROR);
  EXPECT_EQ(heard.message, "the picture is torn");
  EXPECT_EQ(read_all(good).tokens, counted_after(14, 8));
  mmcore_request_destroy(good);
  mmcore_request_destroy(bad);
}

TEST_F(CApiTest, BadAnswersFailTheirRequestOnly) {
  int kind = 0;
  host.before_step = [&](const mmcore_step* step, mmcore_step_result* result) -> mmcore_status {
    if (step->token_ids[step->sequences[0].first_row] != 500) return MMCORE_OK;
    switch (kind) {
      case 0:
        return 4711;  // no code
      case 1:
        return MMCORE_INVALID_HANDLE;  // a code of the border
      case 2:
        result->logprob_counts[0] = 1;  // no room was asked for
        return MMCORE_OK;
      case 3:
        result->logprob_counts[0] = -1;
        return MMCORE_OK;
      default:
        std::memset(result->message, 'x', static_cast<size_t>(result->message_capacity));
        return MMCORE_INTERNAL;  // and a message without an end
    }
  };
  open();
  for (kind = 0; kind < 5; ++kind) {
    const mmcore_request bad = submit(CRequest(5, 500));
    const CHeard heard = read_all(bad);
    EXPECT_EQ(heard.error, MMCORE_INTERNAL) << kind;
    EXPECT_FALSE(heard.message.empty()) << kind;
    mmcore_request_destroy(bad);
    ASSERT_EQ(mmcore_engine_status(engine), MMCORE_OK) << "the engine lives";
  }
  host.before_step = nullptr;
  const mmcore_request good = submit(CRequest(5, 10));
  EXPECT_EQ(read_all(good).tokens, counted_after(14, 8));
  mmcore_request_destroy(good);
}

// What is evicted from a pool of ten blocks is saved by the runner, and loaded when its prefix
// comes back.
TEST_F(CApiTest, HostBlocksAreSavedAndLoaded) {
  std::set<int32_t> saved;
  int loads = 0;
  host.num_host_blocks = 16;
  host.before_step = [&](const mmcore_step* step, mmcore_step_result*) {
    for (int64_t i = 0; i < step->num_host_saves; ++i) saved.insert(step->host_saves[i].host_block);
    for (int64_t i = 0; i < step->num_host_loads; ++i) {
      ++loads;
      EXPECT_TRUE(saved.contains(step->host_loads[i].host_block));
      EXPECT_GT(step->host_loads[i].block, 0);
    }
    return MMCORE_OK;
  };
  mmcore_config config = small_c_config();
  config.num_blocks = 11;
  config.max_model_len = 40;
  config.num_host_blocks = 17;
  const mmcore_runner_functions functions = host.functions();
  ASSERT_EQ(mmcore_runner_create(&functions, &host, &runner), MMCORE_OK);
  EXPECT_EQ(mmcore_engine_create(&config, runner, &engine), MMCORE_INVALID_ARGUMENT)
      << "more than the runner has";
  config.num_host_blocks = 16;
  ASSERT_EQ(mmcore_engine_create(&config, runner, &engine), MMCORE_OK) << mmcore_last_error();
  for (const int32_t first : {100, 200, 300, 100}) {
    const mmcore_request request = submit(CRequest(24, first, 4));
    EXPECT_EQ(read_all(request).tokens, counted_after(first + 23, 4));
    mmcore_request_destroy(request);
  }
  EXPECT_GT(loads, 0);
  mmcore_metrics metrics{};
  metrics.struct_size = sizeof(metrics);
  ASSERT_EQ(mmcore_engine_drain(engine, kLongUs), MMCORE_OK);
  ASSERT_EQ(mmcore_engine_metrics(engine, &metrics), MMCORE_OK);
  EXPECT_EQ(metrics.blocks_loaded, static_cast<uint64_t>(loads));
  EXPECT_EQ(metrics.host_blocks_total, 16);
}

TEST_F(CApiTest, MissingTokensAreNoTokens) {
  const mmcore_runner_functions lazy = [] {
    mmcore_runner_functions f{};
    f.struct_size = sizeof(f);
    f.execute = [](void*, const mmcore_step*, mmcore_step_result*) -> mmcore_status {
      return MMCORE_OK;
    };
    return f;
  }();
  mmcore_runner idle = 0;
  ASSERT_EQ(mmcore_runner_create(&lazy, nullptr, &idle), MMCORE_OK);
  const mmcore_config config = small_c_config();
  mmcore_engine other = 0;
  ASSERT_EQ(mmcore_engine_create(&config, idle, &other), MMCORE_OK);
  EXPECT_EQ(mmcore_runner_destroy(idle), MMCORE_OK) << "the engine keeps it";
  const CRequest content(5, 10);
  mmcore_request request = 0;
  ASSERT_EQ(mmcore_engine_submit(other, &content.submission, &request), MMCORE_OK);
  const CHeard heard = read_all(request);
  EXPECT_EQ(heard.error, MMCORE_INTERNAL);
  EXPECT_NE(heard.message.find("-1"), std::string::npos);
  mmcore_request_destroy(request);
  EXPECT_EQ(mmcore_engine_destroy(other), MMCORE_OK);
}

// A library's own runner and payloads, as mmcore/c_api_cpp.h brings them in.
struct Pixels : MediaPayload {
  int value = 42;
};

class PixelRunner : public ModelRunner {
 public:
  Status accept(RequestId, const Request& content) override {
    const auto* pixels = dynamic_cast<const Pixels*>(content.media.at(0).payload.get());
    if (pixels == nullptr) return {StatusCode::kMediaError, "no pixels"};
    value = pixels->value;
    return {};
  }
  Status execute(const StepPlan& plan, StepResult& result) override {
    for (size_t i = 0; i < plan.sample_rows.size(); ++i) result.tokens.push_back({value, {}});
    return {};
  }
  int value = 0;
};

TEST_F(CApiTest, LibrariesBringRunnersAndPayloads) {
  mmcore_runner theirs = 0;
  EXPECT_EQ(c_api::make_runner(nullptr, &theirs).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(c_api::make_runner(std::make_shared<PixelRunner>(), nullptr).code(),
            StatusCode::kInvalidArgument);
  ASSERT_TRUE(c_api::make_runner(std::make_shared<PixelRunner>(), &theirs).ok());
  EXPECT_NE(c_api::runner_of(theirs), nullptr);
  mmcore_payload payload = 0;
  ASSERT_TRUE(c_api::make_payload(std::make_shared<Pixels>(), &payload).ok());
  EXPECT_NE(c_api::payload_of(payload), nullptr);
  EXPECT_EQ(c_api::runner_of(payload), nullptr) << "a handle of another kind";
  EXPECT_EQ(mmcore_payload_destroy(theirs), MMCORE_INVALID_HANDLE);

  const mmcore_config config = small_c_config();
  mmcore_engine other = 0;
  ASSERT_EQ(mmcore_engine_create(&config, theirs, &other), MMCORE_OK);
  CRequest content(5, 10, 2);
  mmcore_media_item item{};
  item.struct_size = sizeof(item);
  item.offset = 1;
  item.length = 2;
  item.payload = payload;
  content.submission.media = &item;
  content.submission.num_media = 1;
  mmcore_request request = 0;
  ASSERT_EQ(mmcore_engine_submit(other, &content.submission, &request), MMCORE_OK);
  EXPECT_EQ(mmcore_payload_destroy(payload), MMCORE_OK) << "the request keeps it";
  EXPECT_EQ(read_all(request).tokens, std::vector<int32_t>({42, 42}));
  mmcore_request_destroy(request);
  mmcore_request again = 0;
  EXPECT_EQ(mmcore_engine_submit(other, &content.submission, &again), MMCORE_INVALID_ARGUMENT)
      << "a payload that was destroyed";
  EXPECT_EQ(mmcore_engine_destroy(other), MMCORE_OK);
  EXPECT_EQ(mmcore_runner_destroy(theirs), MMCORE_OK);
}

// With config NULL an engine has the one that the runner brings; a host's own runner brings none.
TEST_F(CApiTest, RunnersMayBringAConfiguration) {
  open();
  mmcore_engine other = 0;
  EXPECT_EQ(mmcore_engine_create(nullptr, runner, &other), MMCORE_INVALID_ARGUMENT);
  EngineConfig config;
  config.num_blocks = 9;
  config.block_size = 4;
  config.max_model_len = 32;
  config.vocab_size = 1000;
  config.multimodal = true;
  mmcore_runner theirs = 0;
  ASSERT_TRUE(c_api::make_runner(std::make_shared<PixelRunner>(), config, &theirs).ok());
  ASSERT_EQ(mmcore_engine_create(nullptr, theirs, &other), MMCORE_OK) << mmcore_last_error();
  int64_t tokens = 0;
  EXPECT_EQ(mmcore_engine_max_servable_tokens(other, &tokens), MMCORE_OK);
  EXPECT_EQ(tokens, 32);
  EXPECT_EQ(mmcore_engine_destroy(other), MMCORE_OK);
  EXPECT_EQ(mmcore_runner_destroy(theirs), MMCORE_OK);
  EXPECT_EQ(mmcore_engine_create(nullptr, theirs, &other), MMCORE_INVALID_HANDLE);
}

TEST_F(CApiTest, LetsNothingThrownOut) {
  EXPECT_EQ(c_api::guarded([]() -> Status { throw std::bad_alloc(); }), MMCORE_OUT_OF_MEMORY);
  EXPECT_EQ(c_api::guarded([]() -> Status { throw InternalError("broken"); }), MMCORE_INTERNAL);
  EXPECT_STREQ(mmcore_last_error(), "broken");
  EXPECT_EQ(c_api::guarded([]() -> Status { throw 1; }), MMCORE_INTERNAL);
  const std::string longest(5000, 'x');
  EXPECT_EQ(c_api::guarded([&] { return Status::unsupported(longest); }), MMCORE_UNSUPPORTED);
  EXPECT_EQ(std::string(mmcore_last_error()), longest.substr(0, 1023));
}

}  // namespace
}  // namespace mmcore::testing
