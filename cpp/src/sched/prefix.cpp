// Scheduler: what a sequence that enters takes over instead of computing it.
#include <algorithm>

#include "sched/chunking.h"
#include "sched/scheduler.h"

namespace mmcore {

// What of `matched` tokens the sequence can take over.
int64_t Scheduler::usable_prefix(const Sequence& sequence, int64_t matched,
                                 const Sequence* sibling) const {
  // Prompt logprobs come from logits: positions that still owe theirs are computed.
  const bool owes_logprobs = sequence.sampling.num_prompt_logprobs >= 0 &&
                             sequence.prompt_logprobs_done < sequence.prompt_len - 1;
  const int64_t limit = owes_logprobs ? sequence.prompt_logprobs_done : sequence.size() - 1;
  int64_t tokens = std::min(matched, limit);
  while (true) {
    tokens = usable_hit(sequence.spans(), tokens, sequence.size(), config_.split_media_items);
    const int64_t part = tokens % config_.block_size;
    if (part == 0 || sibling != nullptr || !resources_.hit_is_ahead(tokens / config_.block_size))
      return tokens;
    tokens -= part;
  }
}

// Another sequence of the request whose table has held the whole prompt since before this step.
const Sequence* Scheduler::fork_source(const Sequence& sequence) const {
  if (sequence.group == nullptr) return nullptr;
  const auto holds_prompt = [&](const Sequence* s) {
    return s != nullptr && s != &sequence && s->state == SequenceState::kRunning &&
           s->computed >= s->prompt_len && s->admitted_in != selections_;
  };
  const auto it = std::ranges::find_if(sequence.group->members, holds_prompt);
  return it == sequence.group->members.end() ? nullptr : *it;
}

// The longest prefix that the sequence need not compute: the prefix cache's or a sibling's.
Scheduler::Prefix Scheduler::find_prefix(Sequence* sequence) {
  Prefix prefix;
  prefix.tokens =
      usable_prefix(*sequence, resources_.match(*sequence, sequence->size() - 1), nullptr);
  if (const Sequence* sibling = fork_source(*sequence); sibling != nullptr) {
    const int64_t tokens = usable_prefix(*sequence, sequence->prompt_len, sibling);
    if (tokens > prefix.tokens) prefix = {resources_.match_sibling(*sibling, tokens), sibling};
  }
  while (!admission_fits(*sequence, prefix.tokens)) {
    // A hit that ends inside a block needs that block and its copy: give the part up.
    const int64_t part = prefix.tokens % config_.block_size;
    if (part == 0) return {.tokens = -1};
    prefix.tokens = usable_prefix(*sequence, prefix.tokens - part, prefix.sibling);
  }
  return prefix;
}

// Tokens of the last match's first `hit` that lie in blocks which the step fills.
int64_t Scheduler::shared_tokens(int64_t hit) const {
  int64_t shared = 0;  // the last ones on the device; what is loaded comes behind them
  for (int64_t i = hit / config_.block_size; i-- > 0;) shared += resources_.hit_is_ahead(i);
  return shared * config_.block_size;
}

void Scheduler::publish_ahead(const ScheduledEntry& entry) {
  Sequence& sequence = *entry.sequence;
  // What a fork has taken over, its sibling may still be filling in a step in flight: that is not
  // this step's to register.
  if (sequence.table.published() < resources_.kv().full_blocks(sequence.computed)) return;
  resources_.publish_ahead(sequence, sequence.computed + entry.num_tokens);
}

}  // namespace mmcore
