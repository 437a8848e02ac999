#include "sched/step_builder.h"

#include <algorithm>
#include <bit>

#include "sched/prefetch.h"

namespace mmcore {
namespace {

constexpr int32_t kWidthStep = 8;  // block table widths are multiples: fewer changes of layout

int32_t end_of(const ScheduledEntry& entry) { return entry.sequence->computed + entry.num_tokens; }

}  // namespace

void StepBuilder::build(uint64_t step, std::vector<ScheduledEntry>& entries,
                        const Resources& resources, StepPlan& plan) {
  const size_t n = entries.size();
  size_t rows = 0;
  for (const ScheduledEntry& entry : entries) rows += static_cast<size_t>(entry.num_tokens);
  plan.step = step;
  plan.sequences.resize(n);
  plan.token_ids.resize(rows);
  plan.positions.resize(rows);
  plan.slot_mapping.resize(rows);
  plan.query_start.resize(n + 1);
  plan.seq_lens.resize(n);
  plan.token_sources.clear();
  plan.sample_rows.clear();
  plan.prompt_logprob_rows.clear();
  plan.prompt_logprob_targets.clear();
  plan.prompt_logprob_counts.clear();
  plan.encode.clear();
  plan.embeddings.clear();
  plan.host_saves = resources.kv().host().saves();
  plan.host_loads = resources.kv().host().loads();
  plan.block_copies = resources.copies();
  const std::span<const EncoderSlot> evictions = resources.evictions();
  plan.evict.assign(evictions.begin(), evictions.end());
  plan.max_query_len = 0;
  plan.max_seq_len = 0;

  int32_t row = 0;
  plan.query_start[0] = 0;
  for (size_t i = 0; i < n; ++i) {
    ScheduledEntry& entry = entries[i];
    Sequence& sequence = *entry.sequence;
    prefetch_ahead(entries, i, [](const ScheduledEntry& next) { return next.sequence; });
    const int32_t end = end_of(entry);
    const bool samples = end == sequence.size();
    plan.sequences[i] = {
        .request = sequence.request(),
        .sequence = sequence.index,
        .first_row = row,
        .num_tokens = entry.num_tokens,
        .num_computed = sequence.computed,
        .is_prefill = entry.prefill,
        .sample_row = samples ? static_cast<int32_t>(plan.sample_rows.size()) : -1};
    build_tokens(entry, static_cast<size_t>(row), plan);
    if (samples) {
      plan.sample_rows.push_back(row + entry.num_tokens - 1);
      build_sampling(sequence, plan);
    }
    if (sequence.computed < sequence.prompt_len) {
      build_prompt_logprobs(entry, row, plan);
      build_media(entry, row, resources, plan);
    }
    row += entry.num_tokens;
    plan.query_start[i + 1] = row;
    plan.seq_lens[i] = end;
    plan.max_query_len = std::max(plan.max_query_len, entry.num_tokens);
    plan.max_seq_len = std::max(plan.max_seq_len, end);
  }
  plan.sampling.resize(plan.sample_rows.size());
  sampling_owners_.resize(plan.sample_rows.size());
  build_tables(entries, plan);
}

void StepBuilder::build_tokens(const ScheduledEntry& entry, size_t row, StepPlan& plan) const {
  const Sequence& sequence = *entry.sequence;
  const auto shift = static_cast<uint32_t>(std::countr_zero(static_cast<uint32_t>(block_size_)));
  const int32_t mask = block_size_ - 1;
  const std::span<const BlockId> blocks = sequence.table.blocks();
  for (int32_t p = sequence.computed; p < end_of(entry); ++p, ++row) {
    plan.token_ids[row] = sequence.tokens[static_cast<size_t>(p)];
    plan.positions[row] = p;
    const int64_t block = blocks[static_cast<size_t>(p) >> shift];
    plan.slot_mapping[row] = block * block_size_ + (p & mask);
  }
  if (sequence.pending_sample < 0 || end_of(entry) < sequence.size()) return;
  if (plan.token_sources.empty()) plan.token_sources.assign(plan.token_ids.size(), -1);
  plan.token_sources[row - 1] = sequence.pending_sample;
}

void StepBuilder::build_sampling(Sequence& sequence, StepPlan& plan) {
  const size_t row = plan.sample_rows.size() - 1;
  if (plan.sampling.size() <= row) plan.sampling.resize(row + 1);
  if (sampling_owners_.size() <= row) sampling_owners_.resize(row + 1);
  if (sampling_owners_[row] != sequence.order.id) {
    sampling_owners_[row] = sequence.order.id;
    plan.sampling[row] = sequence.fixed_sample_row();
  }
  // The token that this step gives must not move those that the row points to.
  if (overlapping_ && sequence.reads_history &&
      sequence.tokens.size() == sequence.tokens.capacity())
    sequence.tokens.reserve(2 * sequence.tokens.size());
  sequence.update_sample_row(plan.sampling[row]);
  if (overlapping_ && !sequence.reads_history)
    plan.sampling[row].prompt_tokens = plan.sampling[row].output_tokens = {};
}

void StepBuilder::build_tables(const std::vector<ScheduledEntry>& entries, StepPlan& plan) {
  int32_t longest = 1;
  for (const ScheduledEntry& entry : entries)
    longest = std::max(longest, entry.sequence->table.size());
  // Wider than needed is allowed; much wider wastes the runner's time.
  const int32_t needed = (longest + kWidthStep - 1) / kWidthStep * kWidthStep;
  if (needed > plan.block_table_width || needed < plan.block_table_width / 4) {
    plan.block_table_width = needed;
    table_rows_.clear();
    plan.block_tables.clear();
  }
  const auto width = static_cast<size_t>(plan.block_table_width);
  plan.block_tables.resize(entries.size() * width);
  table_rows_.resize(entries.size());
  for (size_t i = 0; i < entries.size(); ++i) {
    const BlockTable& table = entries[i].sequence->table;
    const std::span<const BlockId> blocks = table.blocks();
    int32_t* cells = plan.block_tables.data() + i * width;
    TableRow& row = table_rows_[i];
    if (row.version != table.version()) {
      if (row.filled > table.size())
        std::fill(cells + table.size(), cells + row.filled, kNullBlock);
      row = {table.version(), 0};
    }
    std::copy(blocks.begin() + row.filled, blocks.end(), cells + row.filled);
    row.filled = table.size();
  }
}

// Logits of position p score token p + 1 of the prompt.
void StepBuilder::build_prompt_logprobs(ScheduledEntry& entry, int32_t first_row, StepPlan& plan) {
  const Sequence& sequence = *entry.sequence;
  entry.num_prompt_rows = 0;
  if (sequence.sampling.num_prompt_logprobs < 0) return;
  const int32_t from = std::max(sequence.computed, sequence.prompt_logprobs_done);
  const int32_t to = std::min(end_of(entry), sequence.prompt_len - 1);
  for (int32_t p = from; p < to; ++p) {
    plan.prompt_logprob_rows.push_back(first_row + p - sequence.computed);
    plan.prompt_logprob_targets.push_back(sequence.tokens[static_cast<size_t>(p) + 1]);
    plan.prompt_logprob_counts.push_back(sequence.sampling.num_prompt_logprobs);
    ++entry.num_prompt_rows;
  }
}

void StepBuilder::build_media(const ScheduledEntry& entry, int32_t first_row,
                              const Resources& resources, StepPlan& plan) {
  const Sequence& sequence = *entry.sequence;
  const SpanMap& spans = sequence.spans();
  const ItemRange items = spans.overlapping(sequence.computed, end_of(entry));
  for (int32_t i = items.first; i < items.last; ++i) {
    const int64_t from = std::max<int64_t>(sequence.computed, spans.begin_of(i));
    const int64_t to = std::min<int64_t>(end_of(entry), spans.end_of(i));
    if (spans.rows_before(i, from) == spans.rows_before(i, to)) continue;
    const EncoderSlot slot = sequence.slots[static_cast<size_t>(i)];
    const bool listed =
        std::ranges::any_of(plan.encode, [&](const EncodeItem& item) { return item.slot == slot; });
    if (!resources.encoder().expected(slot) && !listed)
      plan.encode.push_back({sequence.request(), i, slot, spans.rows(i)});
    // One copy for each run of embedding tokens.
    for (int64_t p = from; p < to;) {
      if (!spans.is_embedding(i, p)) {
        ++p;
        continue;
      }
      int64_t q = spans.masked(i) ? p + 1 : to;
      while (q < to && spans.is_embedding(i, q)) ++q;
      plan.embeddings.push_back({.request = sequence.request(),
                                 .item_index = i,
                                 .slot = slot,
                                 .src_row = static_cast<int32_t>(spans.rows_before(i, p)),
                                 .dst_row = first_row + static_cast<int32_t>(p - sequence.computed),
                                 .num_rows = static_cast<int32_t>(q - p)});
      p = q;
    }
  }
}

}  // namespace mmcore
