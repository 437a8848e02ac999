// Times one decode step of the engine without a model: plan + commit, all running sequences
// decoding, outputs taken. The runner only names a token for each row.
//
//   mmcore_bench_scheduler_step [steps]
#include <malloc.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "mmcore/engine.h"
#include "timing.h"

namespace {

using namespace mmcore;  // NOLINT: a program of one file

constexpr int32_t kPrompt = 128;

class NamingRunner : public ModelRunner {
 public:
  Status execute(const StepPlan& plan, StepResult& result) override {
    entered_us = bench::now_us();
    result.tokens.resize(plan.sampling.size());
    for (size_t i = 0; i < result.tokens.size(); ++i)
      result.tokens[i].token = static_cast<TokenId>((plan.step + i) % 1000);
    left_us = bench::now_us();
    return {};
  }
  double entered_us = 0;
  double left_us = 0;
};

struct Times {
  std::vector<double> plan, commit, sum;
  double bytes_waiting = 0;  // of the heap, for each waiting request
};

double heap_bytes() {
  const struct mallinfo2 info = mallinfo2();
  return static_cast<double>(info.uordblks + info.hblkhd);
}

[[noreturn]] void give_up(const Status& status) {
  std::fprintf(stderr, "%s\n", status.message().c_str());
  std::exit(1);
}

void submit(Engine& engine, int64_t number) {
  Request request;
  for (int32_t i = 0; i < kPrompt; ++i)
    request.prompt_token_ids.push_back(static_cast<TokenId>((number * 131 + i * 7) % 1000));
  request.sampling.max_tokens = 1'000'000;
  if (const auto id = engine.submit(std::move(request)); !id.ok()) give_up(id.status());
}

Times measure(int32_t running, int64_t waiting, int steps) {
  EngineConfig config;
  config.block_size = 16;
  config.max_model_len = kPrompt + steps + 64;
  config.num_blocks = 1 + running * (config.max_model_len / config.block_size + 2);
  config.max_num_seqs = running;
  config.max_num_batched_tokens = std::max(2048, running);
  config.vocab_size = 1000;
  NamingRunner runner;
  auto made = Engine::create(config, &runner);
  if (!made.ok()) give_up(made.status());
  Engine& engine = *made.value();
  for (int64_t i = 0; i < running; ++i) submit(engine, i);
  const double before = heap_bytes();
  for (int64_t i = running; i < running + waiting; ++i) submit(engine, i);
  const double waiting_bytes = heap_bytes() - before;
  const auto all_decode = [&] {
    const EngineMetrics m = engine.metrics();
    return m.num_running == running && m.tokens_generated >= static_cast<uint64_t>(running);
  };
  std::vector<RequestOutput> outputs;
  for (int warm = 0; !all_decode() || warm < 20; ++warm) {
    if (const auto step = engine.step(); !step.ok()) give_up(step.status());
    engine.take_outputs(outputs);
  }
  Times times;
  if (waiting > 0) times.bytes_waiting = waiting_bytes / static_cast<double>(waiting);
  for (int i = 0; i < steps / 2; ++i) {
    const double begin = bench::now_us();
    const auto step = engine.step();
    engine.take_outputs(outputs);
    const double end = bench::now_us();
    if (!step.ok()) give_up(step.status());
    if (step.value().num_tokens != running || outputs.size() != static_cast<size_t>(running))
      give_up(Status::internal("the step was not a pure decode step"));
    times.plan.push_back(runner.entered_us - begin);
    times.commit.push_back(end - runner.left_us);
    times.sum.push_back(times.plan.back() + times.commit.back());
  }
  return times;
}

}  // namespace

int main(int argc, char** argv) {
  const int steps = argc > 1 ? std::atoi(argv[1]) : 700;
  std::printf("One decode step without a model, median of %d; prompt %d, blocks of 16; %s\n",
              steps / 2, kPrompt, bench::cpu_name().c_str());
  std::printf("%8s %8s | %9s %9s %9s | %9s | %10s | %9s\n", "running", "waiting", "plan us",
              "commit us", "sum us", "p99 us", "ns per seq", "B waiting");
  for (const int64_t waiting : {0, 1'000, 10'000, 100'000}) {
    for (const int32_t running : {1, 16, 64, 256, 1024, 2048, 4096}) {
      const Times t = measure(running, waiting, steps);
      const double sum = bench::median(t.sum);
      std::printf("%8d %8lld | %9.2f %9.2f %9.2f | %9.2f | %10.1f | %9.0f\n", running,
                  static_cast<long long>(waiting), bench::median(t.plan), bench::median(t.commit),
                  sum, bench::quantile(t.sum, 0.99), sum * 1000 / running, t.bytes_waiting);
    }
  }
  return 0;
}
