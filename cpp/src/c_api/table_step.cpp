#include "c_api/table_step.h"

#include <algorithm>
#include <utility>

namespace mmcore::c_api {
namespace {

int64_t count(const auto& values) { return static_cast<int64_t>(values.size()); }

mmcore_sequence to_c(const ScheduledSequence& from) {
  return {from.request,      from.sequence,   from.first_row, from.num_tokens,
          from.num_computed, from.is_prefill, from.sample_row};
}

mmcore_encode_item to_c(const EncodeItem& from) {
  return {from.request, from.slot, from.num_embeddings, from.item_index, 0};
}

mmcore_embedding_copy to_c(const EmbeddingCopy& from) {
  return {from.request, from.slot, from.item_index, from.src_row, from.dst_row, from.num_rows};
}

mmcore_block_copy to_c(const BlockCopy& from) { return {from.src, from.dst}; }

mmcore_host_copy to_c(const HostCopy& from) { return {from.block, from.host_block}; }

mmcore_sample_row to_c(const SampleRow& from) {
  mmcore_sample_row out{};
  out.temperature = from.temperature;
  out.top_p = from.top_p;
  out.top_k = from.top_k;
  out.min_p = from.min_p;
  out.presence_penalty = from.presence_penalty;
  out.frequency_penalty = from.frequency_penalty;
  out.repetition_penalty = from.repetition_penalty;
  out.num_logprobs = from.num_logprobs;
  out.seed = from.seed;
  out.counter = from.counter;
  out.prompt_tokens = from.prompt_tokens.data();
  out.output_tokens = from.output_tokens.data();
  out.allowed_tokens = from.allowed_tokens.data();
  out.banned_tokens = from.banned_tokens.data();
  out.num_prompt_tokens = count(from.prompt_tokens);
  out.num_output_tokens = count(from.output_tokens);
  out.num_logit_bias = count(from.logit_bias);
  out.num_allowed_tokens = count(from.allowed_tokens);
  out.num_banned_tokens = count(from.banned_tokens);
  return out;
}

template <class From, class To>
void convert(const std::vector<From>& from, std::vector<To>& to) {
  to.clear();
  for (const From& value : from) to.push_back(to_c(value));
}

}  // namespace

Status host_failure(mmcore_status code, const char* function, std::string message) {
  const bool known = code > MMCORE_OK && code <= MMCORE_TIMEOUT;
  if (message.empty())
    message =
        "The runner's " + std::string(function) + " gave status " + std::to_string(code) + ".";
  return {known ? static_cast<StatusCode>(code) : StatusCode::kInternal, std::move(message)};
}

void TableStep::show(const StepPlan& plan) {
  show_plan(plan);
  make_room(plan);
}

void TableStep::show_plan(const StepPlan& plan) {
  convert(plan.sequences, sequences_);
  convert(plan.sampling, sampling_);
  convert(plan.host_saves, host_saves_);
  convert(plan.host_loads, host_loads_);
  convert(plan.block_copies, block_copies_);
  convert(plan.encode, encode_);
  convert(plan.embeddings, embeddings_);
  biases_.clear();
  for (const SampleRow& row : plan.sampling)
    for (const auto& [token, bias] : row.logit_bias) biases_.push_back({token, bias});
  const mmcore_logit_bias* next = biases_.data();
  for (mmcore_sample_row& row : sampling_) {
    row.logit_bias = next;
    next += row.num_logit_bias;
  }
  step_ = {};
  step_.struct_size = sizeof(step_);
  step_.block_table_width = plan.block_table_width;
  step_.step = plan.step;
  step_.num_sequences = count(plan.sequences);
  step_.num_tokens = count(plan.token_ids);
  step_.num_sample_rows = count(plan.sample_rows);
  step_.num_prompt_logprob_rows = count(plan.prompt_logprob_rows);
  step_.num_host_saves = count(plan.host_saves);
  step_.num_host_loads = count(plan.host_loads);
  step_.num_block_copies = count(plan.block_copies);
  step_.num_encode = count(plan.encode);
  step_.num_embeddings = count(plan.embeddings);
  step_.num_evict = count(plan.evict);
  step_.sequences = sequences_.data();
  step_.token_ids = plan.token_ids.data();
  step_.positions = plan.positions.data();
  step_.slot_mapping = plan.slot_mapping.data();
  step_.query_start = plan.query_start.data();
  step_.seq_lens = plan.seq_lens.data();
  step_.block_tables = plan.block_tables.data();
  step_.sample_rows = plan.sample_rows.data();
  step_.sampling = sampling_.data();
  step_.prompt_logprob_rows = plan.prompt_logprob_rows.data();
  step_.prompt_logprob_targets = plan.prompt_logprob_targets.data();
  step_.prompt_logprob_counts = plan.prompt_logprob_counts.data();
  step_.host_saves = host_saves_.data();
  step_.host_loads = host_loads_.data();
  step_.block_copies = block_copies_.data();
  step_.encode = encode_.data();
  step_.embeddings = embeddings_.data();
  step_.evict = plan.evict.data();
  step_.max_query_len = plan.max_query_len;
  step_.max_seq_len = plan.max_seq_len;
  step_.token_sources = plan.token_sources.empty() ? nullptr : plan.token_sources.data();
}

void TableStep::Logprobs::clear(size_t rows) {
  starts.assign(1, 0);
  counts.assign(rows, 0);
}

// The token's own and `num_logprobs` best; none for -1.
void TableStep::Logprobs::add_row(int32_t num_logprobs) {
  starts.push_back(starts.back() + std::max(num_logprobs + 1, 0));
}

bool TableStep::Logprobs::read(size_t row, std::vector<TokenLogprob>& out) const {
  if (counts[row] < 0 || counts[row] > starts[row + 1] - starts[row]) return false;
  for (int64_t i = starts[row]; i < starts[row] + counts[row]; ++i) {
    const mmcore_logprob& from = values[static_cast<size_t>(i)];
    out.push_back({from.token, from.logprob, from.rank});
  }
  return true;
}

void TableStep::make_room(const StepPlan& plan) {
  tokens_.assign(plan.sampling.size(), -1);
  sequence_status_.assign(plan.sequences.size(), MMCORE_OK);
  logprobs_.clear(plan.sampling.size());
  for (const SampleRow& row : plan.sampling) logprobs_.add_row(row.num_logprobs);
  prompt_logprobs_.clear(plan.prompt_logprob_rows.size());
  for (const int32_t wanted : plan.prompt_logprob_counts) prompt_logprobs_.add_row(wanted);
  for (Logprobs* logprobs : {&logprobs_, &prompt_logprobs_})
    logprobs->values.resize(static_cast<size_t>(logprobs->starts.back()));
  message_[0] = '\0';
  room_ = {};
  room_.struct_size = sizeof(room_);
  room_.tokens = tokens_.data();
  room_.sequence_status = sequence_status_.data();
  room_.logprob_starts = logprobs_.starts.data();
  room_.logprobs = logprobs_.values.data();
  room_.logprob_counts = logprobs_.counts.data();
  room_.prompt_logprob_starts = prompt_logprobs_.starts.data();
  room_.prompt_logprobs = prompt_logprobs_.values.data();
  room_.prompt_logprob_counts = prompt_logprobs_.counts.data();
  room_.message = message_.data();
  room_.message_capacity = count(message_);
}

// As far as the host wrote it: it may have forgotten the end.
const char* TableStep::message() {
  message_.back() = '\0';
  return message_.data();
}

Status TableStep::failure(mmcore_status code, const char* function) {
  return host_failure(code, function, message());
}

void TableStep::take_failed(const StepPlan& plan, const char* function, StepResult& result) {
  for (size_t i = 0; i < sequence_status_.size(); ++i)
    if (sequence_status_[i] != MMCORE_OK)
      result.failed.emplace_back(plan.sequences[i].request, failure(sequence_status_[i], function));
}

Status TableStep::take(const StepPlan& plan, const char* function, StepResult& result) {
  take_failed(plan, function, result);
  if (!result.failed.empty()) return {};
  result.tokens.resize(tokens_.size());
  result.prompt_logprobs.resize(prompt_logprobs_.counts.size());
  bool fits = true;
  for (size_t i = 0; i < tokens_.size(); ++i) {
    result.tokens[i].token = tokens_[i];
    fits &= logprobs_.read(i, result.tokens[i].logprobs);
  }
  for (size_t i = 0; i < result.prompt_logprobs.size(); ++i)
    fits &= prompt_logprobs_.read(i, result.prompt_logprobs[i]);
  if (fits) return {};
  return Status::internal("The runner announced more logprobs than it was given room for.");
}

}  // namespace mmcore::c_api
