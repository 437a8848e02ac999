// The C API against hosts that break its rules: always a code, never a crash or a hang.
#include <sys/wait.h>
#include <unistd.h>

#include <future>
#include <random>
#include <thread>

#include "c_api/c_world.h"
#include "engine/loop_world.h"

namespace mmcore::testing {
namespace {

mmcore_output empty_output() {
  mmcore_output output{};
  output.struct_size = sizeof(output);
  return output;
}

TEST_F(CApiTest, NullEverywhere) {
  open();
  const mmcore_config config = small_c_config();
  const mmcore_runner_functions functions = host.functions();
  mmcore_runner_functions without_execute = functions;
  without_execute.execute = nullptr;
  mmcore_engine made = 0;
  mmcore_runner runner_made = 0;
  mmcore_request request = 0;
  const mmcore_request known = submit(CRequest(5, 10));
  const CRequest content(5, 10);
  const mmcore_status codes[] = {
      mmcore_config_init(nullptr, sizeof(mmcore_config)),
      mmcore_sampling_init(nullptr, sizeof(mmcore_sampling)),
      mmcore_submission_init(nullptr, sizeof(mmcore_submission)),
      mmcore_content_id(nullptr, nullptr, 1, nullptr),
      mmcore_runner_create(nullptr, nullptr, &runner_made),
      mmcore_runner_create(&functions, nullptr, nullptr),
      mmcore_runner_create(&without_execute, nullptr, &runner_made),
      mmcore_engine_create(nullptr, runner, &made),
      mmcore_engine_create(&config, runner, nullptr),
      mmcore_engine_submit(engine, nullptr, &request),
      mmcore_engine_submit(engine, &content.submission, nullptr),
      mmcore_engine_submit_callback(engine, nullptr, nullptr, nullptr, nullptr),
      mmcore_engine_submit_callback(engine, &content.submission, nullptr, nullptr, nullptr),
      mmcore_engine_max_servable_tokens(engine, nullptr),
      mmcore_engine_metrics(engine, nullptr),
      mmcore_request_read(known, 0, nullptr),
      mmcore_request_id(known, nullptr),
  };
  for (size_t i = 0; i < std::size(codes); ++i)
    EXPECT_EQ(codes[i], MMCORE_INVALID_ARGUMENT) << "call " << i;
  EXPECT_EQ(runner_made, 0u);
  EXPECT_EQ(host.destroyed, 0) << "no handle was given out for it";
  EXPECT_EQ(read_all(known).tokens, counted_after(14, 8)) << "it was not harmed";
  mmcore_request_destroy(known);
}

/// Every function that takes an engine, with one that is none.
std::vector<mmcore_status> use_engine(mmcore_engine engine) {
  const CRequest content(5, 10);
  mmcore_request request = 0;
  int64_t tokens = 0;
  mmcore_metrics metrics{};
  metrics.struct_size = sizeof(metrics);
  const mmcore_output_callback callback = [](void*, const mmcore_output*) {};
  return {mmcore_engine_submit(engine, &content.submission, &request),
          mmcore_engine_submit_callback(engine, &content.submission, callback, nullptr, nullptr),
          mmcore_engine_abort(engine, 1),
          mmcore_engine_finish(engine, 1, 0),
          mmcore_engine_drain(engine, -1),
          mmcore_engine_status(engine),
          mmcore_engine_reset_caches(engine),
          mmcore_engine_max_servable_tokens(engine, &tokens),
          mmcore_engine_metrics(engine, &metrics),
          mmcore_engine_destroy(engine)};
}

std::vector<mmcore_status> use_request(mmcore_request request) {
  mmcore_output output = empty_output();
  uint64_t id = 0;
  return {mmcore_request_read(request, -1, &output), mmcore_request_id(request, &id),
          mmcore_request_abort(request), mmcore_request_destroy(request)};
}

void expect_no_handle(const std::vector<mmcore_status>& codes) {
  for (size_t i = 0; i < codes.size(); ++i)
    EXPECT_EQ(codes[i], MMCORE_INVALID_HANDLE) << "call " << i;
}

TEST_F(CApiTest, UseAfterDestroyAndMadeUpHandles) {
  open();
  const mmcore_request request = submit(CRequest(5, 10));
  const mmcore_request kept = submit(CRequest(5, 30));
  EXPECT_EQ(mmcore_request_destroy(request), MMCORE_OK);
  expect_no_handle(use_request(request));
  EXPECT_EQ(mmcore_engine_destroy(engine), MMCORE_OK);
  expect_no_handle(use_engine(engine));
  // What the engine gave stays readable; it ended one way or the other.
  EXPECT_NE(read_all(kept).finish_reason, MMCORE_FINISH_NONE);
  EXPECT_EQ(mmcore_request_abort(kept), MMCORE_OK);
  EXPECT_EQ(mmcore_request_destroy(kept), MMCORE_OK);
  engine = 0;

  for (const uint64_t made_up : {uint64_t{0}, uint64_t{1}, ~uint64_t{0}, runner, kept}) {
    expect_no_handle(use_engine(made_up));
    EXPECT_EQ(mmcore_payload_destroy(made_up), MMCORE_INVALID_HANDLE);
  }
  for (const uint64_t made_up : {uint64_t{0}, uint64_t{1}, ~uint64_t{0}, runner})
    expect_no_handle(use_request(made_up));
  const mmcore_config config = small_c_config();
  mmcore_engine made = 1;
  EXPECT_EQ(mmcore_engine_create(&config, kept, &made), MMCORE_INVALID_HANDLE);
  EXPECT_EQ(made, 0u);
}

TEST_F(CApiTest, UseAfterDrain) {
  open();
  const mmcore_request request = submit(CRequest(5, 10));
  ASSERT_EQ(mmcore_engine_drain(engine, kLongUs), MMCORE_OK);
  EXPECT_EQ(mmcore_engine_drain(engine, kLongUs), MMCORE_OK) << "twice is nothing new";
  const CRequest content(5, 10);
  mmcore_request refused = 1;
  EXPECT_EQ(mmcore_engine_submit(engine, &content.submission, &refused), MMCORE_SHUTDOWN);
  EXPECT_EQ(refused, 0u);
  EXPECT_EQ(mmcore_engine_submit_callback(
                engine, &content.submission, [](void*, const mmcore_output*) {}, nullptr, nullptr),
            MMCORE_SHUTDOWN);
  EXPECT_EQ(mmcore_engine_status(engine), MMCORE_SHUTDOWN);
  uint64_t id = 0;
  ASSERT_EQ(mmcore_request_id(request, &id), MMCORE_OK);
  EXPECT_EQ(mmcore_engine_abort(engine, id), MMCORE_NOT_FOUND);
  EXPECT_EQ(mmcore_engine_finish(engine, id, 0), MMCORE_NOT_FOUND);
  EXPECT_EQ(mmcore_engine_reset_caches(engine), MMCORE_OK);
  EXPECT_EQ(read_all(request).tokens, counted_after(14, 8));
  EXPECT_EQ(mmcore_request_destroy(request), MMCORE_OK);
  EXPECT_EQ(mmcore_request_destroy(request), MMCORE_INVALID_HANDLE);
}

TEST_F(CApiTest, BadValuesAreNamed) {
  open();
  mmcore_engine made = 0;
  mmcore_config config = small_c_config();
  config.multimodal = 2;
  EXPECT_EQ(mmcore_engine_create(&config, runner, &made), MMCORE_INVALID_ARGUMENT);
  EXPECT_NE(std::string(mmcore_last_error()).find("multimodal"), std::string::npos);
  config = small_c_config();
  config.policy = 3;
  EXPECT_EQ(mmcore_engine_create(&config, runner, &made), MMCORE_INVALID_ARGUMENT);
  config = small_c_config();
  config.num_eos_token_ids = 3;  // of a null pointer
  EXPECT_EQ(mmcore_engine_create(&config, runner, &made), MMCORE_INVALID_ARGUMENT);
  config.num_eos_token_ids = -1;
  EXPECT_EQ(mmcore_engine_create(&config, runner, &made), MMCORE_INVALID_ARGUMENT);
  EXPECT_NE(std::string(mmcore_last_error()).find("eos_token_ids"), std::string::npos);

  mmcore_request request = 0;
  CRequest content(5, 10);
  content.submission.num_prompt_token_ids = INT64_MAX;
  EXPECT_EQ(mmcore_engine_submit(engine, &content.submission, &request), MMCORE_INVALID_ARGUMENT);
  content.submission.num_prompt_token_ids = 5;
  content.submission.num_sequences = 0;
  EXPECT_EQ(mmcore_engine_submit(engine, &content.submission, &request), MMCORE_INVALID_ARGUMENT);
  content.submission.num_sequences = INT32_MAX;
  EXPECT_EQ(mmcore_engine_submit(engine, &content.submission, &request), MMCORE_INVALID_ARGUMENT);
  content.submission.num_sequences = 1;
  content.sampling.temperature = -1.0f;
  EXPECT_EQ(mmcore_engine_submit(engine, &content.submission, &request), MMCORE_INVALID_ARGUMENT);
  content.sampling.temperature = 0.0f;

  mmcore_media_item item{};
  content.submission.media = &item;
  content.submission.num_media = 1;
  for (const uint32_t size : {0u, 7u, 13u, 5000u}) {
    item.struct_size = size;
    EXPECT_EQ(mmcore_engine_submit(engine, &content.submission, &request), MMCORE_INVALID_ARGUMENT)
        << size;
  }
  item.struct_size = sizeof(item);
  item.kind = 9;
  EXPECT_EQ(mmcore_engine_submit(engine, &content.submission, &request), MMCORE_INVALID_ARGUMENT);
  item.kind = 0;
  item.payload = 77;
  EXPECT_EQ(mmcore_engine_submit(engine, &content.submission, &request), MMCORE_INVALID_ARGUMENT);
  item.user_data = &item;
  EXPECT_EQ(mmcore_engine_submit(engine, &content.submission, &request), MMCORE_INVALID_ARGUMENT);
  EXPECT_EQ(request, 0u);
  EXPECT_EQ(mmcore_engine_status(engine), MMCORE_OK);

  const void* frame = nullptr;
  const int64_t length = -1;
  uint8_t id[32];
  EXPECT_EQ(mmcore_content_id(&frame, &length, 1, id), MMCORE_INVALID_ARGUMENT);
  EXPECT_EQ(mmcore_content_id(&frame, &length, 0, id), MMCORE_INVALID_ARGUMENT);
}

TEST_F(CApiTest, DestroyOfARequestSendsItsReaderAway) {
  Gate gate;
  host.before_step = [&](const mmcore_step*, mmcore_step_result*) {
    gate.pass();
    return MMCORE_OK;
  };
  open();
  const mmcore_request request = submit(CRequest(5, 10));
  auto reader = std::async(std::launch::async, [&] {
    mmcore_output output = empty_output();
    return mmcore_request_read(request, -1, &output);
  });
  EXPECT_EQ(mmcore_request_destroy(request), MMCORE_OK);
  EXPECT_EQ(reader.get(), MMCORE_INVALID_HANDLE);
  gate.open();
  EXPECT_EQ(mmcore_engine_drain(engine, kLongUs), MMCORE_OK);
}

TEST_F(CApiTest, DestroyTwiceAtOnce) {
  open();
  const mmcore_request request = submit(CRequest(5, 10, 50));
  std::atomic<int> engines = 0;
  std::atomic<int> requests = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      engines += mmcore_engine_destroy(engine) == MMCORE_OK;
      requests += mmcore_request_destroy(request) == MMCORE_OK;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(engines, 1);
  EXPECT_EQ(requests, 1);
  engine = 0;
}

// Every kind of call at once, while engines come and go under them.
TEST_F(CApiTest, SixtyFourThreadsAtOnce) {
  mmcore_config config = small_c_config();
  config.max_unfinished = 32;
  open(config);
  std::atomic<mmcore_engine> shared = engine;
  std::atomic<int> wrong = 0;
  std::atomic<int> served = 0;
  const auto client = [&](uint32_t seed) {
    std::mt19937 random(seed);
    for (int i = 0; i < 25; ++i) {
      const auto first = static_cast<int32_t>(random() % 900);
      CRequest content(5, first);
      content.submission.place_timeout_us = kLongUs;
      mmcore_request request = 0;
      const mmcore_status status = mmcore_engine_submit(shared, &content.submission, &request);
      if (status != MMCORE_OK) {
        wrong += status != MMCORE_SHUTDOWN && status != MMCORE_INVALID_HANDLE;
        continue;
      }
      const uint32_t what = random() % 4;
      if (what == 0) mmcore_request_abort(request);
      if (what != 1) {
        const CHeard heard = read_all(request);
        wrong += heard.last_read != MMCORE_END;
        if (heard.finish_reason == MMCORE_FINISH_LENGTH) {
          ++served;
          wrong += heard.tokens != counted_after(first + 4, 8);
        }
      }
      wrong += mmcore_request_destroy(request) != MMCORE_OK;
    }
  };
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 63; ++t) threads.emplace_back(client, t);
  CountingHost others[5];
  threads.emplace_back([&] {
    for (CountingHost& other : others) {
      const mmcore_runner_functions functions = other.functions();
      mmcore_runner next_runner = 0;
      mmcore_engine next = 0;
      wrong += mmcore_runner_create(&functions, &other, &next_runner) != MMCORE_OK;
      wrong += mmcore_engine_create(&config, next_runner, &next) != MMCORE_OK;
      wrong += mmcore_runner_destroy(next_runner) != MMCORE_OK;
      wrong += mmcore_engine_destroy(shared.exchange(next)) != MMCORE_OK;
    }
  });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(served, 0);
  EXPECT_EQ(mmcore_engine_destroy(shared), MMCORE_OK);
  for (const CountingHost& other : others) {
    EXPECT_EQ(other.held, 0);
    EXPECT_EQ(other.destroyed, 1);
  }
  engine = 0;
}

TEST_F(CApiTest, RunnerServesOneEngineAtATime) {
  open();
  const mmcore_config config = small_c_config();
  mmcore_engine second = 0;
  EXPECT_EQ(mmcore_engine_create(&config, runner, &second), MMCORE_INVALID_ARGUMENT);
  EXPECT_NE(std::string(mmcore_last_error()).find("Another engine"), std::string::npos);
  EXPECT_EQ(mmcore_engine_destroy(engine), MMCORE_OK);
  mmcore_config bad = config;
  bad.num_blocks = 0;
  EXPECT_EQ(mmcore_engine_create(&bad, runner, &engine), MMCORE_INVALID_ARGUMENT);
  ASSERT_EQ(mmcore_engine_create(&config, runner, &engine), MMCORE_OK) << mmcore_last_error();
  const mmcore_request request = submit(CRequest(5, 10));
  EXPECT_EQ(read_all(request).tokens, counted_after(14, 8));
  mmcore_request_destroy(request);
}

#if !defined(__SANITIZE_THREAD__)  // which cannot follow a process with threads through fork()
TEST_F(CApiTest, ForkedChild) {
  open();
  const mmcore_request request = submit(CRequest(5, 10));
  ASSERT_EQ(mmcore_engine_drain(engine, kLongUs), MMCORE_OK);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    bool ok = true;
    for (const mmcore_status code : use_engine(engine)) ok &= code == MMCORE_SHUTDOWN;
    for (const mmcore_status code : use_request(request)) ok &= code == MMCORE_SHUTDOWN;
    ok &= mmcore_runner_destroy(runner) == MMCORE_SHUTDOWN;
    _exit(ok ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  EXPECT_EQ(read_all(request).tokens, counted_after(14, 8));
  mmcore_request_destroy(request);
}
#endif

}  // namespace
}  // namespace mmcore::testing
