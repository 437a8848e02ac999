// A whole life of an engine, drawn from one seed: configuration, requests, cancellations, faults.
// Everything that the engine promises is checked on the way; see problems().
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "engine/shadow_runner.h"
#include "mmcore/engine.h"

namespace mmcore::testing {

enum class Faults { kNone, kPassing, kPoison, kMedia, kStorm };

struct SimulationOptions {
  int num_requests = 40;
  Faults faults = Faults::kNone;
  bool interfere = true;        // abort, finish, reset_caches at random times
  std::optional<bool> async{};  // the schedule; drawn if it is not given
};

class Simulation {
 public:
  Simulation(uint64_t seed, const SimulationOptions& options);

  /// Runs to the end. Call once.
  void run();
  /// What went wrong, with the seed; empty if nothing did.
  const std::vector<std::string>& problems() const { return problems_; }
  EngineMetrics metrics() const { return engine_->metrics(); }
  std::string describe() const;

 private:
  struct Life {       // what is known of one sequence
    Request request;  // that it should be equal to
    RequestId id = 0;
    int32_t sequence = 0;
    std::vector<TokenId> tokens;
    std::vector<float> prompt_logprobs;
    FinishReason reason = FinishReason::kNone;
    bool stopped_from_outside = false;
    int64_t submitted_at = 0;
    bool began = false;
    Status error;
  };

  int64_t draw(int64_t low, int64_t high);  // inclusive
  bool chance(int percent) { return draw(1, 100) <= percent; }
  template <class T>
  T one_of(std::initializer_list<T> values) {
    return values.begin()[draw(0, static_cast<int64_t>(values.size()) - 1)];
  }

  EngineConfig draw_config();
  Request draw_request();
  void append_text(Request& request);
  void append_item(Request& request);
  void submit();
  void interfere();
  void plant_faults();
  void take_time();
  void step();
  void take_outputs();
  void check_deadlines(int64_t step_began);
  void check_end();
  void check_life(const Life& life);
  /// A request's ids of sequences are its own and the next ones.
  static RequestId key(RequestId id, int32_t sequence) {
    return id + static_cast<RequestId>(sequence);
  }
  void problem(const std::string& what);

  uint64_t seed_;
  SimulationOptions options_;
  std::mt19937_64 random_;
  EngineConfig config_;
  std::unique_ptr<ShadowRunner> runner_;
  std::unique_ptr<Engine> engine_;
  std::map<RequestId, Life> lives_;              // by key
  std::vector<RequestId> live_;                  // keys of sequences
  std::vector<std::vector<TokenId>> documents_;  // shared prefixes
  int submitted_ = 0;
  int64_t now_us_ = 1'000;  // the engine's clock
  int64_t steps_ = 0;
  int64_t slow_steps_ = 0;
  int64_t steps_since_fault_ = 0;
  std::vector<std::string> problems_;
};

}  // namespace mmcore::testing
