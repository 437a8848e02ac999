// Hosts that are called back: what they may do on the engine's thread, and what is refused there.
#include <future>
#include <stdexcept>

#include "c_api/c_world.h"

namespace mmcore::testing {
namespace {

/// Makes a C callback of a C++ one.
struct Callback {
  std::function<void(const mmcore_output*)> call;
  static void run(void* user_data, const mmcore_output* output) {
    static_cast<Callback*>(user_data)->call(output);
  }
};

TEST_F(CApiTest, CallsBackWithEveryOutput) {
  open();
  std::promise<std::vector<int32_t>> done;
  std::vector<int32_t> tokens;
  uint64_t id = 0;
  uint64_t seen = 0;
  Callback callback{[&](const mmcore_output* output) {
    seen = output->request_id;
    EXPECT_EQ(output->struct_size, sizeof(mmcore_output));
    EXPECT_STREQ(output->message, "");
    tokens.insert(tokens.end(), output->tokens, output->tokens + output->num_tokens);
    if (output->finish_reason != MMCORE_FINISH_NONE) done.set_value(tokens);
  }};
  const CRequest content(5, 10);
  ASSERT_EQ(
      mmcore_engine_submit_callback(engine, &content.submission, Callback::run, &callback, &id),
      MMCORE_OK);
  EXPECT_EQ(done.get_future().get(), counted_after(14, 8));
  EXPECT_EQ(seen, id);
}

TEST_F(CApiTest, CallbacksMaySubmitAbortAndRead) {
  open();
  const CRequest content(5, 10, 30);
  const mmcore_request other = submit(content);
  std::promise<std::vector<mmcore_status>> done;
  std::vector<mmcore_status> seen;
  mmcore_request nested = 0;
  Callback callback{[&](const mmcore_output* output) {
    if (!seen.empty()) return;
    mmcore_output news{};
    news.struct_size = sizeof(news);
    seen.push_back(mmcore_engine_submit(engine, &content.submission, &nested));
    seen.push_back(mmcore_engine_abort(engine, output->request_id));
    // The engine cannot answer while it waits here: what is not there yet is not waited for.
    seen.push_back(mmcore_request_read(nested, -1, &news));
    seen.push_back(mmcore_engine_drain(engine, -1));
    seen.push_back(mmcore_engine_destroy(engine));
    seen.push_back(mmcore_engine_status(engine));
    seen.push_back(mmcore_request_destroy(other));
    seen.push_back(mmcore_runner_destroy(0));
    done.set_value(seen);
  }};
  ASSERT_EQ(
      mmcore_engine_submit_callback(engine, &content.submission, Callback::run, &callback, nullptr),
      MMCORE_OK);
  EXPECT_EQ(done.get_future().get(),
            std::vector<mmcore_status>({MMCORE_OK, MMCORE_OK, MMCORE_TIMEOUT, MMCORE_WRONG_THREAD,
                                        MMCORE_WRONG_THREAD, MMCORE_OK, MMCORE_OK,
                                        MMCORE_INVALID_HANDLE}));
  EXPECT_EQ(read_all(nested).tokens, counted_after(14, 30));
  EXPECT_EQ(mmcore_request_destroy(nested), MMCORE_OK);
  EXPECT_EQ(mmcore_engine_drain(engine, kLongUs), MMCORE_OK);
}

TEST_F(CApiTest, RunnersMayNotWaitForTheirEngine) {
  std::vector<mmcore_status> seen;
  mmcore_request nested = 0;
  const CRequest content(5, 10, 2);
  host.before_step = [&](const mmcore_step* step, mmcore_step_result*) {
    if (!seen.empty()) return MMCORE_OK;
    mmcore_metrics metrics{};
    metrics.struct_size = sizeof(metrics);
    seen = {mmcore_engine_destroy(engine),
            mmcore_engine_drain(engine, 0),
            mmcore_engine_reset_caches(engine),
            mmcore_engine_metrics(engine, &metrics),
            mmcore_engine_submit(engine, &content.submission, &nested),
            mmcore_engine_abort(engine, step->sequences[0].request)};
    return MMCORE_OK;
  };
  open();
  const mmcore_request request = submit(CRequest(5, 10, 30));
  EXPECT_EQ(read_all(request).finish_reason, MMCORE_FINISH_ABORTED);
  EXPECT_EQ(seen,
            std::vector<mmcore_status>({MMCORE_WRONG_THREAD, MMCORE_WRONG_THREAD,
                                        MMCORE_INVALID_ARGUMENT, MMCORE_OK, MMCORE_OK, MMCORE_OK}));
  EXPECT_EQ(read_all(nested).tokens, counted_after(14, 2));
  mmcore_request_destroy(request);
  mmcore_request_destroy(nested);
}

// Handles that go in the middle of what uses them: their objects stay until that is over.
TEST_F(CApiTest, DestroyInsideHostFunctions) {
  std::vector<mmcore_status> seen;
  mmcore_runner own = 0;
  mmcore_request reading = 0;
  std::promise<void> submitted;
  const std::shared_future<void> known = submitted.get_future().share();
  host.before_step = [&](const mmcore_step*, mmcore_step_result*) {
    known.wait();
    if (!seen.empty()) return MMCORE_OK;
    seen = {mmcore_runner_destroy(own), mmcore_runner_destroy(own), mmcore_engine_destroy(engine),
            mmcore_request_destroy(reading), mmcore_request_destroy(reading)};
    EXPECT_EQ(host.destroyed, 0) << "it runs";
    return MMCORE_OK;
  };
  open();
  own = runner;
  reading = submit(CRequest(5, 10, 30));
  const mmcore_request other = submit(CRequest(5, 100));
  submitted.set_value();
  EXPECT_EQ(read_all(other).tokens, counted_after(104, 8));
  EXPECT_EQ(seen, std::vector<mmcore_status>({MMCORE_OK, MMCORE_INVALID_HANDLE, MMCORE_WRONG_THREAD,
                                              MMCORE_OK, MMCORE_INVALID_HANDLE}));
  EXPECT_EQ(mmcore_request_destroy(other), MMCORE_OK);
  EXPECT_EQ(mmcore_engine_destroy(engine), MMCORE_OK);
  EXPECT_EQ(host.destroyed, 1);
  EXPECT_EQ(host.held, 0);
  runner = engine = 0;
}

TEST_F(CApiTest, CallbackThatThrowsEndsItsRequestOnly) {
  open();
  Callback callback{[](const mmcore_output*) { throw std::runtime_error("a host's bug"); }};
  const CRequest content(5, 10, 30);
  ASSERT_EQ(
      mmcore_engine_submit_callback(engine, &content.submission, Callback::run, &callback, nullptr),
      MMCORE_OK);
  const mmcore_request good = submit(CRequest(5, 10));
  EXPECT_EQ(read_all(good).tokens, counted_after(14, 8));
  mmcore_request_destroy(good);
  EXPECT_EQ(mmcore_engine_drain(engine, kLongUs), MMCORE_OK);
}

}  // namespace
}  // namespace mmcore::testing
