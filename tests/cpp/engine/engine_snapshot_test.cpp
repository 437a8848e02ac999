// Engine: what a host sees of it from outside, and how it is closed. Synthetic model.
#include <gtest/gtest.h>

#include <limits>
#include <stdexcept>

#include "engine/harness.h"

namespace mmcore::testing {
namespace {

TEST(EngineSnapshot, CountsEverySequenceOnce) {
  EngineConfig config = small_config();
  config.max_num_seqs = 2;
  Harness h(config);
  const RequestId first = h.submit(text_request(6, 10));
  const RequestId second = h.submit(text_request(9, 30));
  const RequestId third = h.submit(text_request(3, 50));
  h.step();

  const EngineSnapshot s = h.engine().snapshot();
  EXPECT_TRUE(s.accepting);
  ASSERT_EQ(s.sequences.size(), 3u);
  EXPECT_EQ(s.sequences[0].request, first);
  EXPECT_EQ(s.sequences[0].stage, SequenceStage::kRunning);
  EXPECT_EQ(s.sequences[0].num_prompt_tokens, 6);
  EXPECT_EQ(s.sequences[0].num_output_tokens, 1);
  EXPECT_EQ(s.sequences[0].num_computed_tokens, 6);
  EXPECT_EQ(s.sequences[0].num_blocks, 2);  // of 4 tokens
  EXPECT_EQ(s.sequences[1].request, second);
  EXPECT_EQ(s.sequences[2].request, third);
  EXPECT_EQ(s.sequences[2].stage, SequenceStage::kWaiting);
  EXPECT_EQ(s.sequences[2].num_blocks, 0);
  EXPECT_EQ(s.metrics.num_running, 2);
  EXPECT_EQ(s.metrics.num_waiting, 1);

  h.run_to_end();
  EXPECT_TRUE(h.engine().snapshot().sequences.empty());
}

TEST(EngineDrain, AcceptsNothingMoreAndLosesNothing) {
  Harness h;
  const RequestId id = h.submit(text_request(5, 10));
  h.step();
  h.engine().drain();
  EXPECT_EQ(h.engine().submit(text_request(5, 40)).status().code(), StatusCode::kShutdown);
  EXPECT_FALSE(h.engine().snapshot().accepting);
  EXPECT_EQ(h.engine().metrics().requests_rejected, 1u);
  h.run_to_end();
  h.expect_tokens(id, 8);
  h.expect_idle();
}

TEST(EngineSubmit, TakesIdsThatRise) {
  ShadowRunner runner(small_config());
  const auto engine = Engine::create(small_config(), &runner).value();
  Request several = text_request(4, 10);
  several.num_sequences = 3;
  EXPECT_EQ(engine->submit(several, 7).value(), 7u);
  // Sequences have 7, 8 and 9.
  for (const RequestId id : {RequestId{0}, RequestId{7}, RequestId{9}})
    EXPECT_EQ(engine->submit(text_request(4, 10), id).status().code(), StatusCode::kInvalidArgument)
        << id;
  EXPECT_EQ(engine->submit(text_request(4, 10)).value(), 10u);
  const RequestId last = std::numeric_limits<RequestId>::max();
  EXPECT_EQ(engine->submit(several, last - 1).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(engine->submit(several, last - 2).value(), last - 2);
}

struct Pixels : MediaPayload {
  int value = 0;
};

/// Takes payloads as a real runner would.
class TakingRunner : public ModelRunner {
 public:
  Status accept(RequestId request, const Request& content) override {
    if (engine != nullptr) nested = engine->submit(text_request(2, 2)).status();
    if (content.user_data == this) throw std::runtime_error("no room");
    for (const MediaItem& item : content.media) {
      const auto* pixels = dynamic_cast<const Pixels*>(item.payload.get());
      if (pixels == nullptr) return {StatusCode::kMediaError, "An item has no pixels."};
      seen = pixels->value;
    }
    accepted = request;
    return {};
  }
  Status execute(const StepPlan&, StepResult&) override { return Status::internal("unused"); }
  void release(RequestId request) override { released = request; }

  Engine* engine = nullptr;
  Status nested;
  int seen = 0;
  RequestId accepted = 0;
  RequestId released = 0;
};

Request picture_request(const std::shared_ptr<const MediaPayload>& payload) {
  Request request = text_request(5, 10);
  request.media.push_back({.offset = 1, .length = 2, .payload = payload});
  return request;
}

TEST(ModelRunnerAccept, GetsPayloadsWhichTheEngineForgets) {
  TakingRunner runner;
  const auto engine = Engine::create(small_config(), &runner).value();
  const auto pixels = std::make_shared<Pixels>();
  pixels->value = 42;
  const RequestId id = engine->submit(picture_request(pixels)).value();
  EXPECT_EQ(runner.accepted, id);
  EXPECT_EQ(runner.seen, 42);
  EXPECT_EQ(pixels.use_count(), 1);
  EXPECT_TRUE(engine->abort(id).ok());
  EXPECT_EQ(runner.released, id);
}

TEST(ModelRunnerAccept, RefusesOneRequest) {
  TakingRunner runner;
  const auto engine = Engine::create(small_config(), &runner).value();
  EXPECT_EQ(engine->submit(picture_request(nullptr)).status().code(), StatusCode::kMediaError);
  Request thrown = text_request(3, 3);
  thrown.user_data = &runner;
  const Status status = engine->submit(thrown).status();
  EXPECT_EQ(status.code(), StatusCode::kInternal);
  EXPECT_NE(status.message().find("no room"), std::string::npos);
  EXPECT_FALSE(engine->has_unfinished());
  EXPECT_EQ(runner.released, 0u) << "nothing was accepted";
  EXPECT_EQ(engine->metrics().requests_rejected, 2u);
  EXPECT_TRUE(engine->submit(text_request(3, 3)).ok());
}

TEST(ModelRunnerAccept, MayNotCallTheEngine) {
  TakingRunner runner;
  const auto engine = Engine::create(small_config(), &runner).value();
  runner.engine = engine.get();
  EXPECT_TRUE(engine->submit(text_request(3, 3)).ok());
  EXPECT_EQ(runner.nested.code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace mmcore::testing
