#include "engine/shadow_runner.h"

#include <algorithm>
#include <new>
#include <stdexcept>
#include <string_view>
#include <tuple>
#include <utility>

namespace mmcore::testing {
namespace {

constexpr uint64_t kGarbage = 0xbad;

uint64_t mix(uint64_t a, uint64_t b) {
  uint64_t x = (a ^ (b + 0x9e3779b97f4a7c15u + (a << 6) + (a >> 2))) * 0xff51afd7ed558ccdu;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53u;
  return x ^ (x >> 29);
}

uint64_t text_hash(std::string_view text) {
  uint64_t h = 17;
  for (const char c : text) h = mix(h, static_cast<unsigned char>(c));
  return h;
}

// One row of an item's encoder output: depends on the content, or on the request if it has no id.
uint64_t media_row(const Request& request, RequestId id, size_t item, int64_t row) {
  uint64_t h = 23;
  const ContentId& content = request.media[item].id;
  if (content.empty()) {
    h = mix(mix(h, id), item);
  } else {
    for (const uint8_t byte : content.bytes) h = mix(h, byte);
  }
  return mix(mix(h, static_cast<uint64_t>(row)), text_hash(request.cache_salt));
}

uint64_t token_input(TokenId token) { return mix(29, static_cast<uint64_t>(token)); }

// Salt and adapter enter with the first position: sharing across them shows up as a wrong value.
uint64_t position_zero(const Request& request) {
  return mix(text_hash(request.cache_salt), request.lora_id);
}

uint64_t attend(uint64_t so_far, int64_t position, uint64_t value) {
  return so_far + mix(static_cast<uint64_t>(position), value);
}

uint64_t kv_value(uint64_t attended, int64_t position, uint64_t input) {
  return mix(mix(attended, static_cast<uint64_t>(position)), input);
}

TokenId pick(uint64_t value, uint64_t counter, uint64_t seed, int32_t vocab_size,
             std::span<const TokenId> banned) {
  for (uint64_t attempt = 0;; ++attempt) {
    const auto token = static_cast<TokenId>(mix(mix(value, counter), mix(seed, attempt)) %
                                            static_cast<uint64_t>(vocab_size));
    if (std::ranges::find(banned, token) == banned.end()) return token;
  }
}

// What a penalty does: the draw depends on all tokens that were given.
uint64_t with_history(uint64_t value, std::span<const TokenId> outputs) {
  for (const TokenId token : outputs) value = mix(value, static_cast<uint64_t>(token));
  return value;
}

float logprob_of(uint64_t value, TokenId target) {
  return -static_cast<float>(mix(value, static_cast<uint64_t>(target)) % 1000) / 100.0f;
}

std::vector<uint64_t> prompt_inputs(const Request& request, RequestId id) {
  std::vector<uint64_t> inputs;
  for (const TokenId token : request.prompt_token_ids) inputs.push_back(token_input(token));
  for (size_t i = 0; i < request.media.size(); ++i) {
    const MediaItem& item = request.media[i];
    int64_t row = 0;
    for (int32_t k = 0; k < item.length; ++k) {
      if (!item.embed_mask.empty() && item.embed_mask[static_cast<size_t>(k)] == 0) continue;
      inputs[static_cast<size_t>(item.offset + k)] = media_row(request, id, i, row++);
    }
  }
  return inputs;
}

}  // namespace

std::vector<TokenId> reference_tokens(const Request& request, RequestId id, int32_t vocab_size,
                                      const std::vector<TokenId>& eos, int64_t count) {
  const SamplingParams& sampling = request.sampling;
  std::vector<TokenId> stops = sampling.stop_token_ids;
  if (!sampling.ignore_eos) stops.insert(stops.end(), eos.begin(), eos.end());
  uint64_t attended = position_zero(request);
  uint64_t value = 0;
  int64_t position = 0;
  const auto run = [&](uint64_t input) {
    value = kv_value(attended, position, input);
    attended = attend(attended, position++, value);
  };
  for (const uint64_t input : prompt_inputs(request, id)) run(input);
  std::vector<TokenId> outputs;
  while (static_cast<int64_t>(outputs.size()) < count) {
    const bool may_stop = static_cast<int64_t>(outputs.size()) >= sampling.min_tokens;
    const std::span<const TokenId> banned = may_stop ? std::span<const TokenId>() : stops;
    const uint64_t drawn = sampling.presence_penalty == 0 ? value : with_history(value, outputs);
    outputs.push_back(pick(drawn, outputs.size(), sampling.seed, vocab_size, banned));
    if (std::ranges::find(stops, outputs.back()) != stops.end()) break;
    run(token_input(outputs.back()));
  }
  return outputs;
}

std::vector<float> reference_prompt_logprobs(const Request& request, RequestId id) {
  uint64_t attended = position_zero(request);
  std::vector<float> logprobs;
  const std::vector<uint64_t> inputs = prompt_inputs(request, id);
  for (size_t p = 0; p + 1 < inputs.size(); ++p) {
    const uint64_t value = kv_value(attended, static_cast<int64_t>(p), inputs[p]);
    attended = attend(attended, static_cast<int64_t>(p), value);
    logprobs.push_back(logprob_of(value, request.prompt_token_ids[p + 1]));
  }
  return logprobs;
}

ShadowRunner::ShadowRunner(const EngineConfig& config)
    : overlapping(config.async_schedule),
      config_(config),
      kv_(static_cast<size_t>(config.num_blocks) * static_cast<size_t>(config.block_size)),
      host_(static_cast<size_t>(config.num_host_blocks) * static_cast<size_t>(config.block_size),
            kGarbage) {}

int64_t ShadowRunner::encoder_rows_held() const {
  int64_t rows = 0;
  for (const auto& [slot, output] : encoder_outputs_) rows += static_cast<int64_t>(output.size());
  return rows;
}

void ShadowRunner::check_plan(const StepPlan& plan) {
  const size_t rows = plan.token_ids.size();
  const size_t n = plan.sequences.size();
  if (n == 0 || static_cast<int32_t>(n) > config_.max_num_seqs) complain("sequences in the step");
  if (static_cast<int32_t>(rows) > config_.max_num_batched_tokens)
    complain("over the token budget");
  if (plan.positions.size() != rows || plan.slot_mapping.size() != rows ||
      plan.query_start.size() != n + 1 || plan.seq_lens.size() != n ||
      plan.block_tables.size() != n * static_cast<size_t>(plan.block_table_width) ||
      plan.sample_rows.size() != plan.sampling.size())
    complain("array sizes disagree");
  int64_t encode_rows = 0;
  for (const EncodeItem& item : plan.encode) encode_rows += item.num_embeddings;
  const int64_t budget =
      config_.encoder_budget > 0 ? config_.encoder_budget : config_.max_num_batched_tokens;
  if (encode_rows > budget) complain("over the encoder budget");
  std::set<int64_t> written(plan.slot_mapping.begin(), plan.slot_mapping.end());
  if (written.size() != rows) complain("two rows write one slot");
  bool prefill_seen = false;
  int32_t row = 0;
  int32_t longest_query = 0;
  int32_t longest = 0;
  for (size_t i = 0; i < n; ++i) {
    const ScheduledSequence& s = plan.sequences[i];
    if (s.num_tokens < 1) complain("step.entries: a sequence without tokens");
    if (s.first_row != row || plan.query_start[i] != row) complain("rows are not contiguous");
    if (prefill_seen && !s.is_prefill) complain("a decode after a prefill");
    prefill_seen = prefill_seen || s.is_prefill;
    if (plan.seq_lens[i] != s.num_computed + s.num_tokens) complain("seq_lens");
    longest_query = std::max(longest_query, s.num_tokens);
    longest = std::max(longest, plan.seq_lens[i]);
    row += s.num_tokens;
    const int32_t* table =
        plan.block_tables.data() + i * static_cast<size_t>(plan.block_table_width);
    const int32_t used = (plan.seq_lens[i] + config_.block_size - 1) / config_.block_size;
    for (int32_t k = 0; k < plan.block_table_width; ++k) {
      if (k < used && (table[k] <= 0 || table[k] >= config_.num_blocks)) complain("block id");
      if (k >= used && table[k] != 0) complain("block table padding is not zero");
    }
    if (s.sample_row >= 0 && plan.sample_rows[static_cast<size_t>(s.sample_row)] != row - 1)
      complain("sample_row is not the last row");
  }
  if (plan.query_start[n] != row || plan.max_query_len != longest_query ||
      plan.max_seq_len != longest)
    complain("sums of the step");
}

void ShadowRunner::check_transfers(const StepPlan& plan) {
  std::set<int32_t> filled;
  std::set<BlockId> loaded;
  for (const auto* transfers : {&plan.host_saves, &plan.host_loads})
    for (const HostCopy& copy : *transfers)
      if (copy.block <= 0 || copy.block >= config_.num_blocks || copy.host_block < 0 ||
          copy.host_block >= config_.num_host_blocks)
        return complain("a transfer of a block that does not exist");
  for (const HostCopy& save : plan.host_saves)
    if (!filled.insert(save.host_block).second) complain("a host block is filled twice");
  for (const HostCopy& load : plan.host_loads)
    if (!loaded.insert(load.block).second) complain("a block is loaded twice");
  for (const BlockCopy& copy : plan.block_copies)
    if (loaded.contains(copy.dst)) complain("a block is loaded and copied to");
}

void ShadowRunner::run_transfers(const StepPlan& plan) {
  const auto size = static_cast<ptrdiff_t>(config_.block_size);
  for (const HostCopy& save : plan.host_saves) {
    const auto from = kv_.begin() + save.block * size;
    if (std::find(from, from + size, kGarbage) != from + size)
      complain("a block is saved that was never filled");
    std::copy(from, from + size, host_.begin() + save.host_block * size);
  }
  for (const HostCopy& load : plan.host_loads) {
    const auto from = host_.begin() + load.host_block * size;
    if (std::find(from, from + size, kGarbage) != from + size)
      complain("a host block is loaded that was never saved");
    std::copy(from, from + size, kv_.begin() + load.block * size);
  }
}

void ShadowRunner::check_sampling(const StepPlan& plan) {
  for (const ScheduledSequence& s : plan.sequences) {
    if (s.sample_row < 0) continue;
    const SampleRow& row = plan.sampling.at(static_cast<size_t>(s.sample_row));
    const Request& request = requests_.at(s.request);
    const SamplingParams& own = request.sampling;
    // The core cuts a top_k to the logits that there are; 0: as many as the vocabulary.
    const int32_t logits = config_.logits_size > 0 ? config_.logits_size : config_.vocab_size;
    const auto parameters = [&](const auto& of) {
      return std::tuple(of.temperature, of.top_p, std::min(of.top_k, logits), of.min_p,
                        of.presence_penalty, of.frequency_penalty, of.repetition_penalty,
                        of.num_logprobs);
    };
    const bool unread = config_.async_schedule && own.presence_penalty == 0 &&
                        own.repetition_penalty == 1 && row.prompt_tokens.empty() &&
                        row.output_tokens.empty();
    const bool history =
        unread || (std::ranges::equal(row.prompt_tokens, request.prompt_token_ids) &&
                   row.output_tokens.size() == row.counter);
    if (parameters(row) != parameters(own) || row.seed != sequence_seed(own.seed, s.sequence) ||
        !std::ranges::equal(row.logit_bias, own.logit_bias) ||
        !std::ranges::equal(row.allowed_tokens, own.allowed_token_ids) || !history)
      complain("step.sampling: request " + std::to_string(s.request) +
               " is sampled with the parameters of another");
  }
}

void ShadowRunner::run_encoder(const StepPlan& plan) {
  for (const EncoderSlot slot : plan.evict) {
    encoder_outputs_.erase(slot);
    if (evicted_slots_.contains(slot)) complain("a slot is evicted again after a step committed");
  }
  for (const EncodeItem& item : plan.encode) {
    if (!used_slots_.insert(item.slot).second) complain("an encoder slot is used twice");
    const Request& request = requests_.at(item.request);
    const auto index = static_cast<size_t>(item.item_index);
    if (request.media[index].num_embeddings() != item.num_embeddings) complain("num_embeddings");
    std::vector<uint64_t>& rows = encoder_outputs_[item.slot];
    for (int64_t r = 0; r < item.num_embeddings; ++r)
      rows.push_back(media_row(request, item.request, index, r));
  }
  const int64_t capacity = config_.encoder_cache_rows > 0 ? config_.encoder_cache_rows
                                                          : 4 * config_.max_num_batched_tokens;
  if (config_.encoder_budget == 0 && encoder_rows_held() > capacity) complain("encoder cache rows");
  if (config_.encoder_cache_rows > 0 && encoder_rows_held() > config_.encoder_cache_rows)
    complain("encoder cache rows");
}

void ShadowRunner::run_sequence(const StepPlan& plan, size_t index,
                                const std::vector<uint64_t>& inputs, StepResult& result) {
  const ScheduledSequence& s = plan.sequences[index];
  const int32_t* table =
      plan.block_tables.data() + index * static_cast<size_t>(plan.block_table_width);
  const auto slot_of = [&](int64_t position) {
    return int64_t{table[position / config_.block_size]} * config_.block_size +
           position % config_.block_size;
  };
  uint64_t attended = position_zero(requests_.at(s.request));
  for (int64_t p = 0; p < s.num_computed; ++p)
    attended = attend(attended, p, kv_[static_cast<size_t>(slot_of(p))]);
  uint64_t value = 0;
  for (int32_t k = 0; k < s.num_tokens; ++k) {
    const auto row = static_cast<size_t>(s.first_row + k);
    const int64_t position = s.num_computed + k;
    if (plan.positions[row] != position) complain("positions");
    if (plan.slot_mapping[row] != slot_of(position)) complain("slot_mapping");
    value = kv_value(attended, position, inputs[row]);
    attended = attend(attended, position, value);
    kv_[static_cast<size_t>(slot_of(position))] = value;
    for (size_t j = 0; j < plan.prompt_logprob_rows.size(); ++j) {
      if (plan.prompt_logprob_rows[j] != static_cast<int32_t>(row)) continue;
      const TokenId target = plan.prompt_logprob_targets[j];
      result.prompt_logprobs[j] = {{target, logprob_of(value, target), 1}};
    }
  }
  if (s.is_prefill) prefill_tokens += s.num_tokens;
  if (s.sample_row < 0) return;
  const auto sample = static_cast<size_t>(s.sample_row);
  const SampleRow& row = plan.sampling[sample];
  if (row.presence_penalty != 0) {
    if (row.output_tokens.size() != row.counter) complain("a penalty without its history");
    value = with_history(value, row.output_tokens);
  }
  result.tokens[sample].token =
      pick(value, row.counter, row.seed, config_.vocab_size, row.banned_tokens);
}

void ShadowRunner::scribble(const StepPlan& plan) {
  const auto garbage = [&](std::vector<uint64_t>& memory, int32_t block) {
    std::fill_n(memory.begin() + int64_t{block} * config_.block_size, config_.block_size, kGarbage);
  };
  for (const HostCopy& save : plan.host_saves) garbage(host_, save.host_block);
  for (const HostCopy& load : plan.host_loads) garbage(kv_, load.block);
  for (const BlockCopy& copy : plan.block_copies) garbage(kv_, copy.dst);
  for (const int64_t slot : plan.slot_mapping) kv_[static_cast<size_t>(slot)] = kGarbage;
}

Status ShadowRunner::execute(const StepPlan& plan, StepResult& result) {
  last_plan = plan;
  if (!plan.token_sources.empty()) complain("a token is unknown");
  const Status status = run(plan, result);
  return status.ok() ? status : fault(status.message());
}

Status ShadowRunner::fault(const std::string& what) const {
  if (throw_faults && lacks_memory && steps % 2 == 0) throw std::bad_alloc();
  if (throw_faults) throw std::runtime_error(what);
  return Status::internal(what);
}

Status ShadowRunner::begin(StepPlan& plan, StepResult& result) {
  if (begun_.size() > 1) complain("three steps at once");
  check_sources(plan);
  if (std::exchange(fail_next_begin, false)) return fault("a passing fault in begin");
  if (plan.step % 2 == 0) {  // some items are looked at before the step is launched
    refuse_media(plan, result);
    if (!result.failed.empty()) return {};
  }
  newest_ = plan.sequences;
  begun_.push_back({.plan = &plan, .result = &result, .as_begun = plan});
  if (plan.step % 3 == 0)
    for (Begun& step : begun_) run_begun(step);
  return {};
}

Status ShadowRunner::end() {
  if (begun_.empty()) {
    complain("end() without a step");
    return Status::internal("no step");
  }
  run_begun(begun_.front());
  const Begun step = std::move(begun_.front());
  begun_.pop_front();
  steps_dropped += step.dropped;
  check_unchanged(step);
  last_plan = step.as_begun;
  *step.result = step.done;
  const bool failed = !step.status.ok() || !step.done.failed.empty();
  if (failed)
    for (Begun& behind : begun_) behind.dropped = true;
  return step.status.ok() ? step.status : fault(step.status.message());
}

void ShadowRunner::run_begun(Begun& step) {
  if (std::exchange(step.ran, true)) return;
  const bool after_failure = &step != &begun_.front() &&
                             (!begun_.front().status.ok() || !begun_.front().done.failed.empty());
  if (step.dropped || after_failure) {
    scribble(*step.plan);
    if (step.plan->step % 2 == 0) step.status = Status::internal("built on a step that failed");
    return;
  }
  fill_unknown_tokens(*step.plan, previous_);
  step.status = run(*step.plan, step.done);
  previous_ = step.done;
}

void ShadowRunner::refuse_media(const StepPlan& plan, StepResult& result) const {
  for (const EncodeItem& item : plan.encode)
    if (refused_media.contains(item.request))
      result.failed.emplace_back(item.request, Status(StatusCode::kMediaError, "bad image"));
}

// An unknown token is the one that the same sequence samples in the step begun before.
void ShadowRunner::check_sources(const StepPlan& plan) {
  const std::vector<int32_t>& sources = plan.token_sources;
  if (!sources.empty() && sources.size() != plan.token_ids.size()) complain("token_sources");
  for (size_t row = 0; row < plan.token_ids.size(); ++row) {
    const int32_t source = sources.empty() ? -1 : sources[row];
    if ((plan.token_ids[row] == -1) != (source >= 0)) complain("an unknown token's source");
    if (source < 0) continue;
    if (begun_.empty()) complain("a token of a step that has ended is unknown");
    const auto reader = std::ranges::find_if(plan.sequences, [&](const ScheduledSequence& s) {
      return s.first_row + s.num_tokens - 1 == static_cast<int32_t>(row);
    });
    const auto giver = std::ranges::find(newest_, source, &ScheduledSequence::sample_row);
    if (reader == plan.sequences.end() || giver == newest_.end() ||
        reader->request != giver->request || reader->sequence != giver->sequence)
      complain("an unknown token comes from another sequence");
  }
}

// The engine leaves a plan alone until its step has ended.
void ShadowRunner::check_unchanged(const Begun& step) {
  const StepPlan& now = *step.plan;
  const StepPlan& then = step.as_begun;
  if (now.step != then.step || now.positions != then.positions ||
      now.slot_mapping != then.slot_mapping || now.block_tables != then.block_tables ||
      now.query_start != then.query_start || now.seq_lens != then.seq_lens ||
      now.sample_rows != then.sample_rows || now.evict != then.evict)
    complain("a plan changed while its step ran");
}

Status ShadowRunner::run(const StepPlan& plan, StepResult& result) {
  ++steps;
  if (at_run) at_run();
  check_plan(plan);
  check_transfers(plan);
  check_sampling(plan);
  std::string fault;
  if (fail_next) fault = "a passing fault";
  fail_next = false;
  for (const ScheduledSequence& s : plan.sequences)
    if (poisoned.contains(s.request)) fault = "a poisoned request";
  refuse_media(plan, result);
  if (!fault.empty() || !result.failed.empty()) {
    scribble(plan);
    if (steps % 2 == 0) run_encoder(plan);  // how far a failing step gets is anyone's guess
    if (fault.empty()) return {};
    result.failed.clear();
    return Status::internal(fault);
  }

  run_transfers(plan);
  for (const BlockCopy& copy : plan.block_copies)
    for (int32_t i = 0; i < config_.block_size; ++i)
      kv_[static_cast<size_t>(copy.dst * config_.block_size + i)] =
          kv_[static_cast<size_t>(copy.src * config_.block_size + i)];
  run_encoder(plan);
  items_encoded += static_cast<int64_t>(plan.encode.size());
  evicted_slots_.insert(plan.evict.begin(), plan.evict.end());
  std::vector<uint64_t> inputs;
  for (const TokenId token : plan.token_ids) inputs.push_back(token_input(token));
  for (const EmbeddingCopy& copy : plan.embeddings) {
    const auto output = encoder_outputs_.find(copy.slot);
    if (output == encoder_outputs_.end()) {
      complain("an embedding comes from a slot that holds nothing");
      continue;
    }
    for (int32_t i = 0; i < copy.num_rows; ++i)
      inputs[static_cast<size_t>(copy.dst_row + i)] =
          output->second.at(static_cast<size_t>(copy.src_row + i));
  }
  result.tokens.resize(plan.sampling.size());
  result.prompt_logprobs.resize(plan.prompt_logprob_rows.size());
  for (size_t i = 0; i < plan.sequences.size(); ++i) run_sequence(plan, i, inputs, result);
  return {};
}

void ShadowRunner::release(RequestId request) {
  if (requests_.erase(request) == 0) complain("release of an unknown request");
}

}  // namespace mmcore::testing
