// Runs the deterministic simulation of the engine and the model-based operations over many seeds.
//
//   mmcore_mmsim --seeds 1..200 --requests 500           the engine, all kinds of faults in turn
//   mmcore_mmsim --seed 17 --requests 500 --faults storm one life of it again
//   mmcore_mmsim --operations 5000000                    KV layer and encoder cache against models
//   mmcore_mmsim --flavour hash8 --seed 3 --replay '...' one sequence of operations again
//
// Prints totals. On a violation it prints what was violated and the command that replays it, and
// ends with 1; a wrong argument ends it with 2.
#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "engine/simulation.h"
#include "proof/campaign.h"

namespace mmcore {
namespace {

using testing::Faults;

constexpr const char* kFaults[] = {"none", "passing", "poison", "media", "storm"};

struct Options {
  uint64_t first_seed = 1;
  uint64_t last_seed = 0;  // before the first: no simulation
  int requests = 40;
  std::optional<Faults> faults;  // absent: by the seed
  int64_t operations = 0;
  double seconds = 0;  // 0: no limit; else no new seed begins after this time
  std::vector<std::string> flavours = proof::flavour_names();
  std::optional<std::vector<proof::Operation>> replay;
};

template <class T>
T number(std::string_view text, const char* option) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    throw std::invalid_argument(std::string(option) + " takes a number, not '" + std::string(text) +
                                "'");
  return value;
}

Faults faults_of(std::string_view name) {
  for (size_t i = 0; i < std::size(kFaults); ++i)
    if (name == kFaults[i]) return static_cast<Faults>(i);
  throw std::invalid_argument("--faults is none, passing, poison, media or storm, not '" +
                              std::string(name) + "'");
}

Options parse(const std::vector<std::string>& arguments) {
  Options o;
  if (arguments.size() % 2 != 0) throw std::invalid_argument("every option takes one value");
  for (size_t i = 0; i < arguments.size(); i += 2) {
    const std::string& name = arguments[i];
    const std::string& value = arguments[i + 1];
    if (name == "--seed") {
      o.first_seed = o.last_seed = number<uint64_t>(value, "--seed");
    } else if (name == "--seeds") {
      const size_t dots = value.find("..");
      if (dots == std::string::npos) throw std::invalid_argument("--seeds takes FIRST..LAST");
      o.first_seed = number<uint64_t>(std::string_view(value).substr(0, dots), "--seeds");
      o.last_seed = number<uint64_t>(std::string_view(value).substr(dots + 2), "--seeds");
    } else if (name == "--requests") {
      o.requests = number<int>(value, "--requests");
    } else if (name == "--faults") {
      o.faults = faults_of(value);
    } else if (name == "--operations") {
      o.operations = number<int64_t>(value, "--operations");
    } else if (name == "--seconds") {
      o.seconds = number<double>(value, "--seconds");
    } else if (name == "--flavour") {
      if (std::ranges::find(o.flavours, value) == o.flavours.end())
        throw std::invalid_argument("no flavour is called '" + value + "'");
      o.flavours = {value};
    } else if (name == "--replay") {
      if (!proof::from_text(value, o.replay.emplace()))
        throw std::invalid_argument("--replay takes words of eight hexadecimal digits");
    } else {
      throw std::invalid_argument("no option is called '" + name + "'");
    }
  }
  if (o.replay && o.flavours.size() != 1)
    throw std::invalid_argument("--replay needs --flavour and --seed");
  return o;
}

class Clock {
 public:
  explicit Clock(double limit) : limit_(limit) {}
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }
  bool over() const { return limit_ > 0 && seconds() >= limit_; }

 private:
  double limit_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

int replay(const Options& o) {
  const proof::Violation violation = proof::replay({o.flavours[0]}, o.first_seed, *o.replay);
  if (!violation.found()) {
    std::printf("replay: %zu operations, nothing is violated\n", o.replay->size());
    return 0;
  }
  std::printf("%s: %s\n", violation.invariant.c_str(), violation.what.c_str());
  return 1;
}

int operations(const Options& o) {
  const Clock clock(o.seconds);
  proof::Totals totals;
  for (uint64_t seed = o.first_seed; totals.operations < o.operations && !clock.over(); ++seed) {
    for (const std::string& flavour : o.flavours) {
      if (const auto finding = proof::run_seed({flavour}, seed, totals)) {
        std::printf("%s", finding->report().c_str());
        return 1;
      }
    }
  }
  std::printf(
      "operations: %lld in %lld sequences, %.1f s; hits %lld, in part %lld, copies %lld, writes "
      "%lld, rollbacks "
      "%lld, evictions %llu, encoder evictions %llu, violations 0\n",
      static_cast<long long>(totals.operations), static_cast<long long>(totals.sequences),
      clock.seconds(), static_cast<long long>(totals.kv.hits),
      static_cast<long long>(totals.kv.partials), static_cast<long long>(totals.kv.copies),
      static_cast<long long>(totals.kv.writes), static_cast<long long>(totals.kv.rollbacks),
      static_cast<unsigned long long>(totals.kv.evictions),
      static_cast<unsigned long long>(totals.encoder_evictions));
  return 0;
}

int simulate(const Options& o) {
  const Clock clock(o.seconds);
  EngineMetrics sum;
  uint64_t seeds = 0;
  for (uint64_t seed = o.first_seed; seed <= o.last_seed && !clock.over(); ++seed) {
    const Faults faults = o.faults.value_or(static_cast<Faults>(seed % std::size(kFaults)));
    testing::Simulation simulation(seed, {.num_requests = o.requests, .faults = faults});
    simulation.run();
    ++seeds;
    if (!simulation.problems().empty()) {
      for (const std::string& problem : simulation.problems()) std::printf("%s\n", problem.c_str());
      std::printf("  replay: mmcore_mmsim --seed %llu --requests %d --faults %s\n",
                  static_cast<unsigned long long>(seed), o.requests,
                  kFaults[static_cast<int>(faults)]);
      return 1;
    }
    const EngineMetrics m = simulation.metrics();
    sum.steps += m.steps;
    sum.steps_failed += m.steps_failed;
    sum.preemptions += m.preemptions;
    sum.prefix_tokens_hit += m.prefix_tokens_hit;
    sum.blocks_evicted += m.blocks_evicted;
    sum.blocks_offloaded += m.blocks_offloaded;
    sum.blocks_loaded += m.blocks_loaded;
    sum.requests_failed += m.requests_failed;
  }
  const auto n = [](uint64_t value) { return static_cast<unsigned long long>(value); };
  std::printf(
      "simulation: %llu seeds x %d requests, %.1f s; steps %llu, failed steps %llu, preemptions "
      "%llu, prefix tokens hit %llu, evictions %llu, blocks offloaded %llu and loaded %llu, "
      "requests "
      "failed by faults %llu, violations 0\n",
      n(seeds), o.requests, clock.seconds(), n(sum.steps), n(sum.steps_failed), n(sum.preemptions),
      n(sum.prefix_tokens_hit), n(sum.blocks_evicted), n(sum.blocks_offloaded),
      n(sum.blocks_loaded), n(sum.requests_failed));
  return 0;
}

int run(const Options& o) {
  if (o.replay) return replay(o);
  if (o.operations > 0) return operations(o);
  if (o.last_seed >= o.first_seed) return simulate(o);
  throw std::invalid_argument("give --seed, --seeds, --operations or --replay");
}

}  // namespace
}  // namespace mmcore

int main(int argc, char** argv) {
  try {
    return mmcore::run(mmcore::parse({argv + 1, argv + argc}));
  } catch (const std::invalid_argument& error) {
    std::fprintf(stderr, "mmcore_mmsim: %s\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "mmcore_mmsim: %s\n", error.what());
    return 1;
  }
}
