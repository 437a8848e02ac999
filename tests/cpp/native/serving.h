// Requests for the bundled checkpoint, and an engine that serves them.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "mmcore/engine.h"
#include "mmcore/native.h"
#include "native/folder.h"

namespace mmcore::native::testing {

using Tokens = std::vector<TokenId>;

struct Picture {
  explicit Picture(uint32_t seed, int32_t w = 90, int32_t h = 70) : width(w), height(h) {
    std::mt19937 random(seed);
    const std::array<uint8_t, 6> colours = {static_cast<uint8_t>(random()), 200, 30, 10,
                                            static_cast<uint8_t>(random()), 120};
    for (int32_t i = 0; i < w * h; ++i)
      for (int32_t c = 0; c < 3; ++c)
        rgb.push_back(colours[static_cast<size_t>((i % w) * 2 / w * 3 + c)]);
  }
  ImageView view() const { return {rgb.data(), width, height}; }
  int32_t width, height;
  std::vector<uint8_t> rgb;
};

struct Served {
  std::vector<Tokens> tokens;
  EngineMetrics metrics;
};

/// Requests of different lengths, with no, one and two pictures, some of them shared; the last one
/// is sampled, with everything that the sampler can do.
inline std::vector<Request> mixed_requests(const NativeRunner& runner) {
  const auto tokenizer = Tokenizer::load(bundled()).value();
  const Picture a(1), b(2, 40, 200), c(3, 112, 112);
  const ImageView ab[] = {a.view(), b.view()}, only_a[] = {a.view()}, only_c[] = {c.view()};
  std::vector<Request> made;
  const auto add = [&](const std::string& text, std::span<const ImageView> images) {
    auto request = runner.make_request(tokenizer->encode(text).value(), images);
    ASSERT_TRUE(request.ok()) << request.status().message();
    request.value().sampling.temperature = 0;
    request.value().sampling.max_tokens = 12;
    request.value().sampling.ignore_eos = true;
    made.push_back(std::move(request).value());
  };
  add("Describe <image> the picture", only_a);
  add("Hello", {});
  add("Compare <image> with <image>, please.", ab);
  add("Describe <image> the picture", only_a);
  add("How many shapes are there? <image>", only_c);
  add("Describe <image> in other words", only_a);
  made.push_back(made[4]);
  SamplingParams& sampling = made.back().sampling;
  sampling.temperature = 0.8f;
  sampling.top_p = 0.95f;
  sampling.seed = 7;
  sampling.repetition_penalty = 1.1f;
  sampling.num_logprobs = 3;
  return made;
}

/// Runs requests to their ends: one after the other, or together.
inline Served serve(NativeRunner& runner, const EngineConfig& config, std::vector<Request> requests,
                    bool together) {
  const auto engine = Engine::create(config, &runner).value();
  Served result;
  std::map<RequestId, Tokens> heard;
  std::vector<RequestId> ids;
  const auto drain = [&] {
    while (engine->has_unfinished()) {
      ASSERT_TRUE(engine->step().ok());
      for (const RequestOutput& output : engine->take_outputs()) {
        EXPECT_TRUE(output.error.ok()) << output.error.message();
        for (const SampledToken& token : output.new_tokens) heard[output.id].push_back(token.token);
      }
    }
  };
  for (Request& request : requests) {
    const auto id = engine->submit(std::move(request));
    EXPECT_TRUE(id.ok()) << id.status().message();
    ids.push_back(id.value());
    if (!together) drain();
  }
  drain();
  EXPECT_TRUE(engine->check_invariants().empty());
  for (const RequestId id : ids) result.tokens.push_back(heard[id]);
  result.metrics = engine->metrics();
  return result;
}

}  // namespace mmcore::native::testing
