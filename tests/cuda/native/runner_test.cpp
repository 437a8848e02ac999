// The native runner on a GPU: the CPU's tokens in float32, however requests are run, and 16 bits
// near them.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <thread>

#include "device_tensor.h"
#include "native/serving.h"

namespace mmcore::native {
namespace {

using testing::bundled;
using testing::mixed_requests;
using testing::Picture;
using testing::serve;
using testing::Served;
using testing::Tokens;

constexpr int64_t kCacheBytes = int64_t{64} << 20;

std::unique_ptr<NativeRunner> load(const std::string& device, DType dtype = DType::kFloat32,
                                   bool enforce_eager = false) {
  auto runner = NativeRunner::load(bundled(), {.dtype = dtype,
                                               .kv_cache_bytes = kCacheBytes,
                                               .device = device,
                                               .enforce_eager = enforce_eager});
  EXPECT_TRUE(runner.ok()) << runner.status().message();
  return std::move(runner).value();
}

// What the CPU gives, each request alone.
const std::vector<Tokens>& expected() {
  static const std::vector<Tokens> tokens = [] {
    const auto runner = load("cpu");
    return serve(*runner, runner->engine_config(), mixed_requests(*runner), false).tokens;
  }();
  return tokens;
}

class NativeGpu : public cuda::GpuTest {};

TEST_F(NativeGpu, GivesTheTokensOfTheCpu) {
  for (const bool enforce_eager : {true, false}) {
    SCOPED_TRACE(enforce_eager ? "eager" : "graphs");
    const auto runner = load("cuda", DType::kFloat32, enforce_eager);
    EXPECT_EQ(runner->model().device, (Device{DeviceType::kCuda, 0}));
    EngineConfig plain = runner->engine_config();
    plain.enable_prefix_caching = false;
    EXPECT_EQ(serve(*runner, plain, mixed_requests(*runner), false).tokens, expected());

    const Served together = serve(*runner, plain, mixed_requests(*runner), true);
    EXPECT_EQ(together.tokens, expected());
    EXPECT_EQ(together.metrics.items_encoded, 3u);

    EngineConfig chunked = runner->engine_config();
    chunked.max_num_batched_tokens = 37;
    EXPECT_EQ(serve(*runner, chunked, mixed_requests(*runner), true).tokens, expected());

    const Served cached = serve(*runner, runner->engine_config(), mixed_requests(*runner), false);
    EXPECT_EQ(cached.tokens, expected());
    EXPECT_GT(cached.metrics.prefix_tokens_hit, 0u);

    EngineConfig tight = runner->engine_config();
    tight.num_blocks = 32;
    tight.max_model_len = 450;
    tight.headroom = 0;
    EXPECT_EQ(serve(*runner, tight, mixed_requests(*runner), true).tokens, expected());
  }
}

// Text only, all rows of which the sampler on the device takes: greedy ones and seeded draws.
std::vector<Request> many_texts(const NativeRunner& runner, int count) {
  const auto tokenizer = Tokenizer::load(bundled()).value();
  std::vector<Request> made;
  for (int i = 0; i < count; ++i) {
    Request request =
        runner
            .make_request(tokenizer
                              ->encode("Shapes " + std::string(static_cast<size_t>(i % 7), '!') +
                                       std::to_string(i * 37))
                              .value())
            .value();
    request.sampling.temperature = i % 3 == 0 ? 0.0f : 0.7f;
    request.sampling.top_p = i % 3 == 1 ? 0.9f : 1.0f;
    request.sampling.top_k = i % 5 == 2 ? 20 : -1;
    request.sampling.seed = static_cast<uint64_t>(i);
    request.sampling.max_tokens = 3 + i % 11;
    request.sampling.ignore_eos = true;
    made.push_back(std::move(request));
  }
  return made;
}

TEST_F(NativeGpu, BatchesOfEverySizeShrinkThroughTheGraphs) {
  constexpr int kRequests = 75;
  const auto on_cpu = load("cpu");
  const auto want =
      serve(*on_cpu, on_cpu->engine_config(), many_texts(*on_cpu, kRequests), true).tokens;
  const auto runner = load("cuda");
  for (int round = 0; round < 3; ++round) {  // as it is, captured, from graphs
    SCOPED_TRACE(round);
    const Served served =
        serve(*runner, runner->engine_config(), many_texts(*runner, kRequests), true);
    EXPECT_EQ(served.tokens, want);
  }
}

TEST_F(NativeGpu, BitsAreTheSameFromRunToRun) {
  const auto logprobs = [](NativeRunner& runner) {
    Request request = many_texts(runner, 1)[0];
    request.sampling.num_logprobs = 3;
    request.sampling.max_tokens = 8;
    const auto engine = Engine::create(runner.engine_config(), &runner).value();
    EXPECT_TRUE(engine->submit(std::move(request)).ok());
    std::vector<float> heard;
    while (engine->has_unfinished()) {
      EXPECT_TRUE(engine->step().ok());
      for (const RequestOutput& output : engine->take_outputs())
        for (const SampledToken& token : output.new_tokens)
          for (const TokenLogprob& entry : token.logprobs) heard.push_back(entry.logprob);
    }
    return heard;
  };
  const auto runner = load("cuda", DType::kBFloat16);
  const auto first = logprobs(*runner);
  EXPECT_FALSE(first.empty());
  for (int i = 0; i < 3; ++i) EXPECT_EQ(logprobs(*runner), first);
  EXPECT_EQ(logprobs(*load("cuda", DType::kBFloat16, true)), first);
}

/// Logprobs of a prompt's own tokens, with a picture in front; of more rows than are computed at a
/// time.
std::vector<float> prompt_logprobs(NativeRunner& runner) {
  const Picture picture(3);
  const ImageView image[] = {picture.view()};
  const auto tokenizer = Tokenizer::load(bundled()).value();
  Tokens prompt = tokenizer->encode("USER: <image>\nDescribe the image. ASSISTANT:").value();
  const Tokens more = tokenizer->encode("there is a red circle and a small blue square ").value();
  while (prompt.size() < 300) prompt.insert(prompt.end(), more.begin() + 1, more.end());
  Request request = runner.make_request(prompt, image).value();
  request.sampling.num_prompt_logprobs = 0;
  request.sampling.max_tokens = 1;
  request.sampling.temperature = 0;
  const auto engine = Engine::create(runner.engine_config(), &runner).value();
  EXPECT_TRUE(engine->submit(std::move(request)).ok());
  std::vector<float> heard;
  while (engine->has_unfinished()) {
    EXPECT_TRUE(engine->step().ok());
    for (const RequestOutput& output : engine->take_outputs())
      for (const auto& list : output.new_prompt_logprobs) heard.push_back(list.at(0).logprob);
  }
  return heard;
}

// Of logprobs, on average; 0.058 and 0.008 on an H100.
constexpr double kBFloat16Difference = 0.12, kFloat16Difference = 0.016;

double mean_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::abs(double{a[i]} - b[i]);
  return sum / static_cast<double>(a.size());
}

TEST_F(NativeGpu, LikelihoodsAreNearTheCpus) {
  const auto want = prompt_logprobs(*load("cpu"));
  ASSERT_GT(want.size(), 400u);
  const auto near = [&](DType dtype, double most) {
    const auto got = prompt_logprobs(*load("cuda", dtype));
    ASSERT_EQ(got.size(), want.size());
    const double difference = mean_difference(got, want);
    std::printf("%s: mean difference of logprobs %.2g\n", to_string(dtype), difference);
    EXPECT_LT(difference, most) << to_string(dtype);
  };
  near(DType::kFloat32, 1e-4);
  near(DType::kBFloat16, kBFloat16Difference);
  near(DType::kFloat16, kFloat16Difference);
}

TEST_F(NativeGpu, SeveralSequencesOfARequest) {
  const auto on_cpu = load("cpu"), on_gpu = load("cuda");
  const auto served = [](NativeRunner& runner) {
    std::vector<Request> one = mixed_requests(runner);
    one.resize(1);
    one[0].num_sequences = 5;
    one[0].sampling.temperature = 1.0f;
    return serve(runner, runner.engine_config(), one, true);
  };
  const Served want = served(*on_cpu), got = served(*on_gpu);
  EXPECT_EQ(got.tokens[0].size(), 60u);
  EXPECT_GT(got.metrics.tokens_forked, 0u);
  // Outputs of sequences come in the same order, since the scheduler has no clock.
  EXPECT_EQ(got.tokens, want.tokens);
}

TEST_F(NativeGpu, RunnersShareADevice) {
  std::vector<std::vector<Tokens>> served(3);
  std::vector<std::thread> threads;
  for (auto& own : served)
    threads.emplace_back([&own] {
      const auto runner = load("cuda:0");
      for (int round = 0; round < 3; ++round)
        own = serve(*runner, runner->engine_config(), mixed_requests(*runner), true).tokens;
    });
  for (std::thread& thread : threads) thread.join();
  for (const auto& own : served) EXPECT_EQ(own, expected());
}

TEST_F(NativeGpu, StepsBeyondWhatItWasLoadedForFailAndHarmNothing) {
  auto small = NativeRunner::load(bundled(), {.dtype = DType::kFloat32,
                                              .kv_cache_bytes = kCacheBytes,
                                              .max_num_seqs = 2,
                                              .max_num_batched_tokens = 64,
                                              .device = "cuda"})
                   .value();
  EngineConfig wide = small->engine_config();
  wide.max_num_batched_tokens = 2048;
  const auto engine = Engine::create(wide, small.get()).value();
  Request request = small->make_request(Tokens(300, 40)).value();
  request.sampling.max_tokens = 2;
  ASSERT_TRUE(engine->submit(std::move(request)).ok());
  std::string error;
  while (engine->has_unfinished()) {
    if (!engine->step().ok()) break;
    for (const RequestOutput& output : engine->take_outputs()) error += output.error.message();
  }
  EXPECT_NE(error.find("loaded for at most 64"), std::string::npos) << error;
  EXPECT_EQ(serve(*small, small->engine_config(), mixed_requests(*small), true).tokens, expected());
}

}  // namespace
}  // namespace mmcore::native
