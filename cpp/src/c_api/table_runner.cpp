#include "c_api/table_runner.h"

#include <algorithm>
#include <string>

#include "c_api/convert.h"

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

mmcore_media_item to_c(const MediaItem& from) {
  mmcore_media_item out{};
  out.struct_size = sizeof(out);
  out.kind = static_cast<int32_t>(from.kind);
  std::ranges::copy(from.id.bytes, out.content_id);
  out.offset = from.offset;
  out.length = from.length;
  out.embed_mask = from.embed_mask.data();
  out.embed_mask_length = count(from.embed_mask);
  if (const auto* user = dynamic_cast<const UserPayload*>(from.payload.get()))
    out.user_data = user->user_data;
  return out;
}

}  // namespace

TableRunner::~TableRunner() {
  if (destroy_ != nullptr) destroy_(context_);
}

// What accept() shows is what was submitted, but for the sampling parameters.
Status TableRunner::accept(RequestId request, const Request& content) {
  if (functions_.accept == nullptr) return {};
  std::vector<mmcore_media_item> media;
  for (const MediaItem& item : content.media) media.push_back(to_c(item));
  mmcore_submission shown = default_submission();
  shown.priority = content.priority;
  shown.prompt_token_ids = content.prompt_token_ids.data();
  shown.num_prompt_token_ids = count(content.prompt_token_ids);
  shown.media = media.data();
  shown.num_media = count(media);
  shown.cache_salt = content.cache_salt.data();
  shown.cache_salt_length = count(content.cache_salt);
  shown.lora_id = content.lora_id;
  shown.timeout_us = content.timeout_us;
  shown.queue_timeout_us = content.queue_timeout_us;
  shown.user_data = content.user_data;
  shown.num_sequences = content.num_sequences;
  message_[0] = '\0';
  const mmcore_status code = functions_.accept(context_, request, &shown);
  return code == MMCORE_OK ? Status() : failure(code, "accept");
}

void TableRunner::release(RequestId request) {
  if (functions_.release != nullptr) functions_.release(context_, request);
}

Status TableRunner::execute(const StepPlan& plan, StepResult& result) {
  const mmcore_step step = view(plan);
  mmcore_step_result room = room_for(plan);
  const mmcore_status code = functions_.execute(context_, &step, &room);
  message_.back() = '\0';
  if (code != MMCORE_OK) return failure(code, "execute");
  return take(plan, result);
}

mmcore_step TableRunner::view(const StepPlan& plan) {
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
  mmcore_step step{};
  step.struct_size = sizeof(step);
  step.block_table_width = plan.block_table_width;
  step.step = plan.step;
  step.num_sequences = count(plan.sequences);
  step.num_tokens = count(plan.token_ids);
  step.num_sample_rows = count(plan.sample_rows);
  step.num_prompt_logprob_rows = count(plan.prompt_logprob_rows);
  step.num_host_saves = count(plan.host_saves);
  step.num_host_loads = count(plan.host_loads);
  step.num_block_copies = count(plan.block_copies);
  step.num_encode = count(plan.encode);
  step.num_embeddings = count(plan.embeddings);
  step.num_evict = count(plan.evict);
  step.sequences = sequences_.data();
  step.token_ids = plan.token_ids.data();
  step.positions = plan.positions.data();
  step.slot_mapping = plan.slot_mapping.data();
  step.query_start = plan.query_start.data();
  step.seq_lens = plan.seq_lens.data();
  step.block_tables = plan.block_tables.data();
  step.sample_rows = plan.sample_rows.data();
  step.sampling = sampling_.data();
  step.prompt_logprob_rows = plan.prompt_logprob_rows.data();
  step.prompt_logprob_targets = plan.prompt_logprob_targets.data();
  step.prompt_logprob_counts = plan.prompt_logprob_counts.data();
  step.host_saves = host_saves_.data();
  step.host_loads = host_loads_.data();
  step.block_copies = block_copies_.data();
  step.encode = encode_.data();
  step.embeddings = embeddings_.data();
  step.evict = plan.evict.data();
  step.max_query_len = plan.max_query_len;
  step.max_seq_len = plan.max_seq_len;
  return step;
}

void TableRunner::Logprobs::clear(size_t rows) {
  starts.assign(1, 0);
  counts.assign(rows, 0);
}

// The token's own and `num_logprobs` best; none for -1.
void TableRunner::Logprobs::add_row(int32_t num_logprobs) {
  starts.push_back(starts.back() + std::max(num_logprobs + 1, 0));
}

bool TableRunner::Logprobs::read(size_t row, std::vector<TokenLogprob>& out) const {
  if (counts[row] < 0 || counts[row] > starts[row + 1] - starts[row]) return false;
  for (int64_t i = starts[row]; i < starts[row] + counts[row]; ++i) {
    const mmcore_logprob& from = values[static_cast<size_t>(i)];
    out.push_back({from.token, from.logprob, from.rank});
  }
  return true;
}

mmcore_step_result TableRunner::room_for(const StepPlan& plan) {
  tokens_.assign(plan.sampling.size(), -1);
  sequence_status_.assign(plan.sequences.size(), MMCORE_OK);
  logprobs_.clear(plan.sampling.size());
  for (const SampleRow& row : plan.sampling) logprobs_.add_row(row.num_logprobs);
  prompt_logprobs_.clear(plan.prompt_logprob_rows.size());
  for (const int32_t wanted : plan.prompt_logprob_counts) prompt_logprobs_.add_row(wanted);
  for (Logprobs* logprobs : {&logprobs_, &prompt_logprobs_})
    logprobs->values.resize(static_cast<size_t>(logprobs->starts.back()));
  message_[0] = '\0';
  mmcore_step_result room{};
  room.struct_size = sizeof(room);
  room.tokens = tokens_.data();
  room.sequence_status = sequence_status_.data();
  room.logprob_starts = logprobs_.starts.data();
  room.logprobs = logprobs_.values.data();
  room.logprob_counts = logprobs_.counts.data();
  room.prompt_logprob_starts = prompt_logprobs_.starts.data();
  room.prompt_logprobs = prompt_logprobs_.values.data();
  room.prompt_logprob_counts = prompt_logprobs_.counts.data();
  room.message = message_.data();
  room.message_capacity = count(message_);
  return room;
}

Status TableRunner::take(const StepPlan& plan, StepResult& result) {
  for (size_t i = 0; i < sequence_status_.size(); ++i)
    if (sequence_status_[i] != MMCORE_OK)
      result.failed.emplace_back(plan.sequences[i].request,
                                 failure(sequence_status_[i], "execute"));
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

// Codes of the border, and made up ones, mean nothing inside the engine.
Status TableRunner::failure(mmcore_status code, const char* what) const {
  const bool known = code > MMCORE_OK && code <= MMCORE_TIMEOUT;
  std::string message = message_.data();
  if (message.empty())
    message = "The runner's " + std::string(what) + " gave status " + std::to_string(code) + ".";
  return {known ? static_cast<StatusCode>(code) : StatusCode::kInternal, std::move(message)};
}

}  // namespace mmcore::c_api
