// Who enters when, without a model: the real engine, answers of given lengths, and a clock that a
// model of a GPU's steps moves (LLaVA-1.5-7B on an H100: 24 us a token where prompts run, else
// weights and keys). Prints what admission costs: preemptions, tokens computed twice, steps, time.
//
//   mmcore_bench_admission
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "mmcore/engine.h"

namespace {

using namespace mmcore;  // NOLINT: a program of one file

constexpr TokenId kEos = 2;
constexpr TokenId kOther = 7;
constexpr uint64_t kSeed = 5;

struct Life {
  int32_t prompt = 0;
  int32_t outputs = 0;  // the last one is end of text, unless `ignore_eos`
  int32_t max_tokens = 0;
  bool ignore_eos = false;
  double arrival_ms = 0;
};

// Ends each request where its life says; moves the clock.
class LivesRunner : public ModelRunner {
 public:
  explicit LivesRunner(const std::vector<Life>& lives) : lives_(lives) {}

  Status execute(const StepPlan& plan, StepResult& result) override {
    result.tokens.resize(plan.sampling.size());
    double cached = 0;  // tokens whose keys decodes read
    bool prefills = false;
    for (const ScheduledSequence& s : plan.sequences) {
      prefills |= s.is_prefill;
      if (!s.is_prefill) cached += s.num_computed;
      if (s.sample_row < 0) continue;
      const Life& life = lives_[static_cast<size_t>(s.request - 1)];
      const int32_t output = s.num_computed + s.num_tokens - life.prompt + 1;
      const bool ends = output == life.outputs && !life.ignore_eos;
      result.tokens[static_cast<size_t>(s.sample_row)].token = ends ? kEos : kOther;
    }
    const auto tokens = static_cast<double>(plan.token_ids.size());
    now_ms += prefills ? 0.6 + tokens * 0.024 + cached * 1.9e-4 + (tokens < 600 ? 1.5 : 0)
                       : 5.25 + tokens * 0.006 + cached * 1.875e-4;
    most_running = std::max(most_running, plan.sequences.size());
    return {};
  }

  double now_ms = 0;
  size_t most_running = 0;

 private:
  const std::vector<Life>& lives_;
};

[[noreturn]] void give_up(const Status& status) {
  std::fprintf(stderr, "%s\n", status.message().c_str());
  std::exit(1);
}

void measure(const std::string& name, const std::vector<Life>& lives, int32_t max_preemptions) {
  EngineConfig config;
  config.num_blocks = 7172;
  config.max_model_len = 4096;
  config.max_num_seqs = 256;
  config.max_num_batched_tokens = 5120;
  config.vocab_size = 32'064;
  config.eos_token_ids = {kEos};
  config.hash_key = 1;
  config.max_preemptions = max_preemptions;
  LivesRunner runner(lives);
  auto made = Engine::create(config, &runner);
  if (!made.ok()) give_up(made.status());
  Engine& engine = *made.value();
  std::mt19937_64 random(kSeed);
  size_t next = 0;
  int64_t prompt_tokens = 0;
  int64_t outputs = 0;
  std::vector<RequestOutput> taken;
  while (next < lives.size() || engine.has_unfinished()) {
    if (!engine.has_unfinished()) runner.now_ms = std::max(runner.now_ms, lives[next].arrival_ms);
    for (; next < lives.size() && lives[next].arrival_ms <= runner.now_ms; ++next) {
      const Life& life = lives[next];
      Request request;
      for (int32_t i = 0; i < life.prompt; ++i)
        request.prompt_token_ids.push_back(static_cast<TokenId>(5 + random() % 32'000));
      request.sampling.max_tokens = life.max_tokens;
      request.sampling.ignore_eos = life.ignore_eos;
      if (const auto id = engine.submit(std::move(request)); !id.ok()) give_up(id.status());
      prompt_tokens += life.prompt;
      outputs += life.outputs;
    }
    if (const auto step = engine.step(); !step.ok()) give_up(step.status());
    engine.take_outputs(taken);
  }
  const EngineMetrics m = engine.metrics();
  if (m.tokens_generated != static_cast<uint64_t>(outputs))
    give_up(Status::internal("a request ended at another length than its own"));
  // Each token is computed once, but for the last output.
  const int64_t least = prompt_tokens + outputs - static_cast<int64_t>(lives.size());
  std::printf("%-34s %4d | %6llu %8llu %8.2f%% | %7zu | %8.2f %8.2f\n", name.c_str(),
              max_preemptions, static_cast<unsigned long long>(m.steps),
              static_cast<unsigned long long>(m.preemptions),
              100.0 * (static_cast<double>(m.tokens_planned) / static_cast<double>(least) - 1),
              runner.most_running, runner.now_ms / 1000,
              static_cast<double>(lives.size()) / runner.now_ms * 1000);
}

class Draw {
 public:
  // Ends with the same chance at each token.
  Life geometric(int32_t prompt, double mean, int32_t max_tokens) {
    const double tokens = 1 + std::floor(std::log(uniform()) / std::log(1 - 1 / mean));
    return {prompt, static_cast<int32_t>(std::clamp<double>(tokens, 1, max_tokens)), max_tokens};
  }
  // Spread by a factor of about two around its median, as answers to a kind of question are.
  Life lognormal(int32_t prompt, double median, int32_t max_tokens) {
    const double tokens = std::round(median * std::exp(0.7 * normal_(random_)));
    return {prompt, static_cast<int32_t>(std::clamp<double>(tokens, 1, max_tokens)), max_tokens};
  }
  double uniform() { return (static_cast<double>(random_() >> 11) + 0.5) / 9007199254740992.0; }

 private:
  std::mt19937_64 random_{kSeed};
  std::normal_distribution<double> normal_;
};

Life whole(int32_t prompt, int32_t tokens) { return {prompt, tokens, tokens, true}; }

}  // namespace

int main() {
  std::printf("%-34s %4s | %6s %8s %9s | %7s | %8s %8s\n", "requests", "max", "steps", "preempt",
              "computed", "at once", "time s", "req/s");
  std::printf("%-34s %4s | %6s %8s %9s | %7s | %8s %8s\n", "", "pre", "", "", "again", "", "", "");
  for (const int32_t max_preemptions : {4, 0}) {
    const auto run = [&](const char* name, int count, auto life) {
      Draw draw;
      std::vector<Life> lives;
      for (int i = 0; i < count; ++i) lives.push_back(life(draw, i));
      measure(name, lives, max_preemptions);
    };
    run("256 of 128, all whole", 256, [](Draw&, int) { return whole(641, 128); });
    run("256 of 128, whole, may end", 256, [](Draw&, int) { return Life{641, 128, 128}; });
    run("512 of 512, prompt 128, whole", 512, [](Draw&, int) { return whole(128, 512); });
    run("1024 geometric 128 of 1280", 1024,
        [](Draw& draw, int) { return draw.geometric(641, 128, 1280); });
    run("1024 lognormal 128 of 3072", 1024,
        [](Draw& draw, int) { return draw.lognormal(641, 128, 3072); });
    run("1024 geometric 512 of 3000", 1024,
        [](Draw& draw, int) { return draw.geometric(128, 512, 3000); });
    run("1024 mixed: 128 whole, geometric 64", 1024, [](Draw& draw, int i) {
      return i % 2 == 0 ? whole(641, 128) : draw.geometric(641, 64, 1024);
    });
    run("1024 of 16 or 1000 of 3000", 1024,
        [](Draw& draw, int) { return Life{300, draw.uniform() < 0.7 ? 16 : 1000, 3000}; });
    run("512 of 32, then 512 of 512", 1024,
        [](Draw& draw, int i) { return draw.geometric(300, i < 512 ? 32 : 512, 2048); });
    run("1024 over time, 512 whole", 1024, [at = 0.0](Draw& draw, int) mutable {
      Life life = whole(300, 512);
      life.arrival_ms = at -= 60 * std::log(draw.uniform());
      return life;
    });
    run("1024 over time, lognormal 400", 1024, [at = 0.0](Draw& draw, int) mutable {
      Life life = draw.lognormal(300, 400, 3000);
      life.arrival_ms = at -= 60 * std::log(draw.uniform());
      return life;
    });
  }
  return 0;
}
