// Serves one request with a runner that counts: the host's side of the seam, without any model.
#include <cstdio>
#include <memory>
#include <vector>

#include "mmcore/engine.h"
#include "mmcore/ops.h"

namespace {

/// "Samples" the token after the newest one of each sequence.
class CountingRunner : public mmcore::ModelRunner {
 public:
  mmcore::Status execute(const mmcore::StepPlan& plan, mmcore::StepResult& result) override {
    for (const int32_t row : plan.sample_rows) {
      mmcore::SampledToken sampled;
      sampled.token = plan.token_ids[static_cast<size_t>(row)] + 1;
      result.tokens.push_back(sampled);
    }
    return {};
  }
};

bool check(bool ok, const char* what) {
  if (!ok) std::fprintf(stderr, "embed: %s\n", what);
  return ok;
}

bool serve_one_request() {
  mmcore::EngineConfig config;
  config.num_blocks = 64;
  config.max_model_len = 128;
  config.vocab_size = 1000;
  CountingRunner runner;
  auto made = mmcore::Engine::create(config, &runner);
  if (!check(made.ok(), made.status().message().c_str())) return false;
  const std::unique_ptr<mmcore::Engine> engine = std::move(made).value();

  mmcore::Request request;
  request.prompt_token_ids = {5, 6, 7};
  request.sampling.max_tokens = 4;
  const auto id = engine->submit(std::move(request));
  if (!check(id.ok(), id.status().message().c_str())) return false;

  std::vector<mmcore::TokenId> tokens;
  while (engine->has_unfinished()) {
    const auto outcome = engine->step();
    if (!check(outcome.ok(), outcome.status().message().c_str())) return false;
    for (const mmcore::RequestOutput& output : engine->take_outputs())
      for (const mmcore::SampledToken& sampled : output.new_tokens) tokens.push_back(sampled.token);
  }
  return check(tokens == std::vector<mmcore::TokenId>({8, 9, 10, 11}), "wrong tokens") &&
         check(engine->metrics().blocks_used == 0, "blocks are still in use");
}

bool run_an_op() {
  std::vector<float> x = {3.0f, 4.0f};
  std::vector<float> weight = {1.0f, 1.0f};
  std::vector<float> out(2);
  mmcore::ops::RmsNormArgs args;
  args.x = mmcore::TensorView(x.data(), mmcore::DType::kFloat32, {1, 2});
  args.weight = mmcore::TensorView(weight.data(), mmcore::DType::kFloat32, {2});
  args.out = mmcore::TensorView(out.data(), mmcore::DType::kFloat32, {1, 2});
  args.eps = 0.0f;
  const mmcore::Status status = mmcore::ops::rms_norm(args);
  // x / sqrt((9 + 16) / 2)
  return check(status.ok(), status.message().c_str()) &&
         check(out[0] > 0.8485f && out[0] < 0.8486f, "wrong norm");
}

}  // namespace

int main() {
  const bool ok = serve_one_request() && run_an_op();
  std::puts(ok ? "embed: ok" : "embed: failed");
  return ok ? 0 : 1;
}
