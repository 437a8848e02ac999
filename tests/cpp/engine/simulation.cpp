#include "engine/simulation.h"

#include <algorithm>
#include <sstream>

namespace mmcore::testing {
namespace {

constexpr int64_t kMaxSteps = 200'000;

}  // namespace

Simulation::Simulation(uint64_t seed, const SimulationOptions& options)
    : seed_(seed), options_(options), random_(seed) {
  config_ = draw_config();
  for (int i = 0; i < 3; ++i) {
    std::vector<TokenId>& document = documents_.emplace_back();
    for (int64_t n = draw(1, 30); n > 0; --n)
      document.push_back(static_cast<TokenId>(draw(0, config_.vocab_size - 1)));
  }
  runner_ = std::make_unique<ShadowRunner>(config_);
  runner_->throw_faults = chance(50);
  runner_->lacks_memory = true;
  runner_->at_run = [this] { take_time(); };
  runner_->overlapping = options_.async.value_or(chance(80));
  auto made = Engine::create(config_, runner_.get());
  if (made.ok())
    engine_ = std::move(made).value();
  else
    problem("create: " + made.status().message());
}

int64_t Simulation::draw(int64_t low, int64_t high) {
  return low + static_cast<int64_t>(random_() % static_cast<uint64_t>(high - low + 1));
}

void Simulation::problem(const std::string& what) {
  if (problems_.size() < 10) problems_.push_back(describe() + ": " + what);
}

std::string Simulation::describe() const {
  std::ostringstream text;
  text << "seed " << seed_ << " (faults " << static_cast<int>(options_.faults) << ", "
       << options_.num_requests << " requests; blocks " << config_.num_blocks << " x "
       << config_.block_size << ", len " << config_.max_model_len << ", tokens "
       << config_.max_num_batched_tokens << ", seqs " << config_.max_num_seqs << ", chunked "
       << config_.enable_chunked_prefill << ", split " << config_.split_media_items << ", cache "
       << config_.enable_prefix_caching << ", host " << config_.num_host_blocks << ", hash "
       << config_.hash_bits << ", encoder " << config_.encoder_budget << "/"
       << config_.encoder_cache_rows << ", policy " << static_cast<int>(config_.policy)
       << ", preemptions " << config_.max_preemptions << ", headroom " << config_.headroom
       << ", async " << config_.async_schedule << ") step " << steps_;
  return text.str();
}

EngineConfig Simulation::draw_config() {
  EngineConfig c;
  c.block_size = one_of({1, 2, 4, 8, 16});
  c.max_model_len = static_cast<int32_t>(draw(8, 90));
  const int64_t longest = (c.max_model_len + c.block_size - 1) / c.block_size;
  // From a pool that one sequence may outgrow to one that holds several.
  c.num_blocks = static_cast<int32_t>(1 + std::max<int64_t>(1, draw(longest / 2, longest * 4)));
  c.enable_prefix_caching = chance(80);
  c.share_within_step = chance(80);
  c.hash_key = chance(50) ? 0 : random_();
  c.hash_bits = one_of({1, 8, 8, 64});
  c.max_num_seqs = one_of({1, 2, 3, 8, 64});
  c.max_num_batched_tokens = one_of({1, 2, 3, 7, 17, 64, 300});
  c.enable_chunked_prefill = chance(80);
  if (!c.enable_chunked_prefill)
    c.max_num_batched_tokens = std::max(c.max_num_batched_tokens, c.max_model_len);
  c.max_prefill_chunk = one_of({0, 0, 1, 3, 10});
  c.policy = one_of({SchedulingPolicy::kFcfs, SchedulingPolicy::kPriority,
                     SchedulingPolicy::kPriority, SchedulingPolicy::kLongestPrefix});
  c.max_preemptions = one_of({0, 1, 2, 4, 100});
  c.headroom = one_of({0, 0, 40, 100});
  c.max_queued_requests = chance(20) ? 10 : 0;
  c.max_queued_tokens = chance(20) ? 100 : 0;
  const bool async = chance(50);
  c.async_schedule = options_.async.value_or(async);
  c.clock_us = [this] { return now_us_; };
  c.step_watchdog_us = chance(30) ? 10 : 0;
  c.multimodal = true;
  c.split_media_items = chance(60);
  c.encoder_budget = one_of<int64_t>({0, 3, 6, 12, 40});
  c.encoder_cache_rows = one_of<int64_t>({0, 4, 8, 20, 100});
  c.vocab_size = static_cast<int32_t>(draw(2, 40));
  c.logits_size = c.vocab_size;
  if (chance(50)) c.eos_token_ids = {static_cast<TokenId>(draw(0, c.vocab_size - 1))};
  if (c.enable_prefix_caching && chance(60)) c.num_host_blocks = one_of({1, 3, 20, 200});
  return c;
}

void Simulation::append_text(Request& request) {
  std::vector<TokenId>& prompt = request.prompt_token_ids;
  if (chance(60)) {
    const auto& document = documents_[static_cast<size_t>(draw(0, 2))];
    prompt.insert(prompt.end(), document.begin(),
                  document.begin() + draw(1, static_cast<int64_t>(document.size())));
  } else {
    for (int64_t n = draw(1, 8); n > 0; --n)
      prompt.push_back(static_cast<TokenId>(draw(0, config_.vocab_size - 1)));
  }
}

void Simulation::append_item(Request& request) {
  MediaItem item;
  item.offset = static_cast<int32_t>(request.prompt_token_ids.size());
  item.length = static_cast<int32_t>(one_of({1, 2, 3, 5, 9}));
  if (chance(85)) item.id.bytes[0] = static_cast<uint8_t>(draw(1, 4));
  if (chance(30)) {
    for (int32_t i = 0; i < item.length; ++i) item.embed_mask.push_back(chance(60));
    item.embed_mask[static_cast<size_t>(draw(0, item.length - 1))] = 1;
  }
  request.prompt_token_ids.insert(request.prompt_token_ids.end(), static_cast<size_t>(item.length),
                                  1);
  request.media.push_back(std::move(item));
}

Request Simulation::draw_request() {
  if (!lives_.empty() && chance(25)) {  // the same prompt again: hits that end inside a block
    auto earlier = lives_.begin();
    std::advance(earlier, draw(0, std::ssize(lives_) - 1));
    return earlier->second.request;
  }
  Request r;
  if (chance(70)) append_text(r);
  for (int64_t parts = draw(0, 3); parts > 0; --parts) chance(50) ? append_item(r) : append_text(r);
  if (r.prompt_token_ids.empty()) append_text(r);
  r.cache_salt = one_of<const char*>({"", "", "a", "b"});
  r.lora_id = one_of<uint64_t>({0, 0, 0, 7});
  if (config_.policy == SchedulingPolicy::kPriority) r.priority = static_cast<int32_t>(draw(-1, 1));
  r.timeout_us = chance(10) ? draw(1, 2'000) : 0;
  r.queue_timeout_us = chance(10) ? draw(1, 500) : 0;
  if (chance(20)) r.num_sequences = static_cast<int32_t>(draw(2, 5));
  SamplingParams& s = r.sampling;
  s.max_tokens = static_cast<int32_t>(one_of({1, 5, 20, 40, 1000}));
  s.min_tokens = chance(20) ? std::min<int32_t>(3, s.max_tokens) : 0;
  s.seed = random_() % 3;
  if (chance(25)) {  // a few: steps with such a row do not overlap the one before
    s.temperature = one_of({0.0f, 0.5f, 2.0f});
    s.top_k = static_cast<int32_t>(one_of({-1, 1, 2}));
    s.presence_penalty = one_of({0.0f, -1.5f, 2.0f});
    s.repetition_penalty = one_of({1.0f, 0.5f, 1.3f});
    s.logit_bias = {{static_cast<TokenId>(draw(0, config_.vocab_size - 1)), 1.0f}};
  }
  s.ignore_eos = chance(60);
  if (chance(20) && config_.vocab_size > 4)
    s.stop_token_ids = {static_cast<TokenId>(draw(0, config_.vocab_size - 1))};
  if (chance(15)) s.num_prompt_logprobs = 1;
  if (chance(5)) s.presence_penalty = 0.5f;
  return r;
}

void Simulation::submit() {
  ++submitted_;
  const Request request = draw_request();
  const Result<RequestId> id = engine_->submit(request);
  if (!id.ok()) {
    const StatusCode code = id.status().code();
    const bool too_long =
        static_cast<int32_t>(request.prompt_token_ids.size()) >= config_.max_model_len;
    const bool allowed = code == StatusCode::kUnservable || code == StatusCode::kOverloaded ||
                         (code == StatusCode::kInvalidArgument && too_long);
    if (!allowed) problem("refused: " + id.status().message());
    return;
  }
  runner_->expect(id.value(), request);
  for (int32_t i = 0; i < request.num_sequences; ++i) {
    Life& life = lives_[key(id.value(), i)];
    life.request = request;
    life.request.num_sequences = 1;
    life.request.sampling.seed = sequence_seed(request.sampling.seed, i);
    if (i > 0) life.request.sampling.num_prompt_logprobs = -1;
    life.id = id.value();
    life.sequence = i;
    life.submitted_at = now_us_;
    live_.push_back(key(id.value(), i));
  }
  const bool storm = options_.faults == Faults::kStorm;
  if ((storm || options_.faults == Faults::kPoison) && chance(15))
    runner_->poisoned.insert(id.value());
  if ((storm || options_.faults == Faults::kMedia) && !request.media.empty() && chance(30))
    runner_->refused_media.insert(id.value());
}

void Simulation::interfere() {
  if (!live_.empty() && chance(6)) {
    Life& life = lives_[live_[static_cast<size_t>(draw(0, std::ssize(live_) - 1))]];
    const bool abort = chance(60);
    life.stopped_from_outside = true;
    for (auto& [other, sibling] : lives_)
      if (abort && sibling.id == life.id) sibling.stopped_from_outside = true;
    if (Status s = abort ? engine_->abort(life.id) : engine_->finish(life.id, life.sequence);
        !s.ok())
      problem("abort or finish: " + s.message());
    const Status again = abort ? engine_->abort(life.id) : engine_->finish(life.id, life.sequence);
    if (again.code() != StatusCode::kNotFound) problem("a second abort or finish succeeded");
    take_outputs();
  }
  if (chance(3)) {
    const bool running = engine_->metrics().num_running > 0;
    if (engine_->reset_caches().ok() == running) problem("reset_caches at the wrong time");
  }
}

void Simulation::plant_faults() {
  if (!engine_->has_unfinished()) return;
  ++steps_since_fault_;
  const bool storm = options_.faults == Faults::kStorm;
  // Far enough apart for every sequence to pass its probation in between.
  const bool spaced = steps_since_fault_ > 3 * config_.max_num_seqs + 10;
  if ((storm && chance(20)) || (options_.faults == Faults::kPassing && spaced)) {
    (runner_->overlapping && config_.async_schedule && chance(30) ? runner_->fail_next_begin
                                                                  : runner_->fail_next) = true;
    steps_since_fault_ = 0;
  }
}

// Some steps are slow: deadlines pass while they run.
void Simulation::take_time() {
  const int64_t time = chance(5) ? draw(1, 300) : 0;
  now_us_ += time;
  slow_steps_ += config_.step_watchdog_us > 0 && time > config_.step_watchdog_us;
}

void Simulation::step() {
  const bool work = engine_->has_unfinished();
  plant_faults();
  now_us_ += draw(0, 20);
  const int64_t began = now_us_;
  const Result<StepOutcome> outcome = engine_->step();
  ++steps_;
  if (!outcome.ok()) return problem("step: " + outcome.status().message());
  if (work && engine_->has_unfinished() && outcome.value().num_tokens == 0)
    problem("sched.progress: there was work but no token was planned");
  for (const std::string& violation : engine_->check_invariants()) problem(violation);
  for (const std::string& complaint : runner_->complaints()) problem("plan: " + complaint);
  take_outputs();
  // Whose time was over while the step was in flight has not begun.
  if (outcome.value().committed)
    for (const ScheduledSequence& s : runner_->last_plan.sequences)
      for (auto it = lives_.find(s.request); it != lives_.end() && it->second.id == s.request; ++it)
        it->second.began |= it->second.error.ok();
  check_deadlines(began);
}

// Whose time was over when the step began has ended.
void Simulation::check_deadlines(int64_t step_began) {
  for (const RequestId id : live_) {
    const Life& life = lives_[id];
    const int64_t age = step_began - life.submitted_at;
    const Request& r = life.request;
    if ((r.timeout_us > 0 && age >= r.timeout_us) ||
        (r.queue_timeout_us > 0 && age >= r.queue_timeout_us && !life.began))
      problem("engine.deadline: request " + std::to_string(id) + " outlived its deadline");
  }
}

void Simulation::take_outputs() {
  for (const RequestOutput& output : engine_->take_outputs()) {
    const RequestId which = key(output.id, output.sequence);
    Life& life = lives_[which];
    const std::string name =
        "request " + std::to_string(output.id) + "/" + std::to_string(output.sequence);
    if (life.id != output.id || life.sequence != output.sequence)
      problem("engine.outputs: " + name + " is unknown");
    if (life.reason != FinishReason::kNone)
      problem("engine.outputs: " + name + " has an output after its end");
    for (const SampledToken& token : output.new_tokens) life.tokens.push_back(token.token);
    for (const auto& entry : output.new_prompt_logprobs)
      life.prompt_logprobs.push_back(entry.at(0).logprob);
    life.reason = output.finish_reason;
    life.error = output.error;
    if (output.finished()) std::erase(live_, which);
  }
}

void Simulation::check_life(const Life& life) {
  const RequestId id = life.id;
  const std::string name = "request " + std::to_string(id) + "/" + std::to_string(life.sequence);
  const int64_t pool = engine_->max_servable_tokens();
  const int64_t room = std::min<int64_t>(config_.max_model_len, pool) -
                       static_cast<int64_t>(life.request.prompt_token_ids.size());
  std::vector<TokenId> expected =
      reference_tokens(life.request, id, config_.vocab_size, config_.eos_token_ids,
                       std::min<int64_t>(life.request.sampling.max_tokens, room));
  std::vector<float> logprobs;
  if (life.request.sampling.num_prompt_logprobs >= 0)
    logprobs = reference_prompt_logprobs(life.request, id);
  const bool complete = !life.stopped_from_outside && (life.reason == FinishReason::kStop ||
                                                       life.reason == FinishReason::kLength);
  if (complete &&
      (life.tokens.size() != expected.size() || life.prompt_logprobs.size() != logprobs.size()))
    problem(name + " gave " + std::to_string(life.tokens.size()) + " tokens and " +
            std::to_string(life.prompt_logprobs.size()) + " prompt logprobs");
  if (life.tokens.size() > expected.size() || life.prompt_logprobs.size() > logprobs.size() ||
      !std::equal(life.tokens.begin(), life.tokens.end(), expected.begin()) ||
      !std::equal(life.prompt_logprobs.begin(), life.prompt_logprobs.end(), logprobs.begin()))
    problem("runner.rows: " + name + " gave other tokens than alone");
  if (life.reason == FinishReason::kNone) problem("engine.outputs: " + name + " never ended");
  const bool timed_out = life.error.code() == StatusCode::kTimeout;
  if (timed_out && life.request.timeout_us == 0 &&
      (life.request.queue_timeout_us == 0 || life.began))
    problem(name + " was ended by a deadline that it does not have");
  const bool may_fail = timed_out || options_.faults == Faults::kStorm ||
                        runner_->poisoned.contains(id) || runner_->refused_media.contains(id);
  if (life.reason == FinishReason::kError && !may_fail)
    problem(name + " failed: " + life.error.message());
  if (life.reason != FinishReason::kError && !life.error.ok()) problem(name + " has a stray error");
}

void Simulation::check_end() {
  for (const auto& [which, life] : lives_) check_life(life);
  EngineMetrics m = engine_->metrics();
  if (m.num_running != 0 || m.num_waiting != 0 || m.blocks_used != 0 ||
      m.encoder_entries_pinned != 0)
    problem("engine.quiet: resources are held at the end");
  if (m.items_encoded != static_cast<uint64_t>(runner_->items_encoded))
    problem("items_encoded is not what the runner encoded");
  // A step that overlaps another may take its time in the other's call.
  if (!config_.async_schedule && m.steps_slow != static_cast<uint64_t>(slow_steps_))
    problem("engine.deadline: " + std::to_string(m.steps_slow) + " steps were slow, not " +
            std::to_string(slow_steps_));
  if (!runner_->requests().empty()) problem("engine.quiet: requests were not released");
  if (!engine_->reset_caches().ok()) problem("reset_caches at the end");
  m = engine_->metrics();
  if (m.blocks_cached != 0 || m.host_blocks_used != 0 || m.encoder_entries != 0 ||
      m.encoder_rows != 0)
    problem("engine.quiet: reset_caches left something");
  for (const std::string& violation : engine_->check_invariants()) problem(violation);
}

void Simulation::run() {
  if (engine_ == nullptr) return;
  const int arrival = one_of({5, 30, 100});
  while ((submitted_ < options_.num_requests || engine_->has_unfinished()) && problems_.empty()) {
    if (steps_ > kMaxSteps) return problem("does not come to an end");
    while (submitted_ < options_.num_requests && chance(arrival) && chance(80)) submit();
    if (options_.interfere) interfere();
    step();
  }
  if (problems_.empty()) check_end();
}

}  // namespace mmcore::testing
