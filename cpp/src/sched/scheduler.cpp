#include "sched/scheduler.h"

#include <algorithm>

#include "base/check.h"
#include "sched/admission.h"
#include "sched/chunking.h"
#include "sched/policies.h"
#include "sched/prefetch.h"

namespace mmcore {
namespace {

KvCacheOptions kv_options(const EngineConfig& config) {
  return {
      .num_blocks = config.num_blocks,
      .block_size = config.block_size,
      .prefix_caching = config.enable_prefix_caching,
      .num_host_blocks = config.num_host_blocks,
      .hash_key = config.hash_key == 0 ? HashKey::random() : HashKey::from_seed(config.hash_key),
      .hash_bits = config.hash_bits};
}

bool runs_before(const Sequence* a, const Sequence* b) { return a->order < b->order; }

}  // namespace

Scheduler::Scheduler(const EngineConfig& config)
    : config_(config),
      policy_(policy_of(config)),
      window_(std::max(1, policy_->window())),
      length_limit_(length_limit(config)),
      resources_(kv_options(config), config.encoder_cache_rows),
      headroom_(config) {}

void Scheduler::remove(Sequence* sequence, bool stopped) {
  if (sequence->state != SequenceState::kFinished) headroom_.ended(*sequence, stopped);
  if (sequence->state == SequenceState::kRunning) {
    const auto it = std::ranges::find(running_, sequence);
    check(it != running_.end(), "scheduler: running sequence is not listed");
    running_.erase(it);
  } else if (sequence->state == SequenceState::kWaiting) {
    waiting_.erase(sequence);
  }
  if (blocked_.id == sequence->order.id) blocked_ = {};
  sequence->state = SequenceState::kFinished;
  drop_reservation(*sequence);
  if (sequence->in_flight == 0) free(*sequence);
}

// Gives back what a sequence that has ended holds.
void Scheduler::free(Sequence& sequence) {
  resources_.release(sequence);
  if (!sequence.is_one_of_several) resources_.forget(sequence.request());
}

void Scheduler::begin_selection(bool ahead) {
  step_ = {.ahead = ahead,
           .tokens_left = config_.max_num_batched_tokens,
           .encoder_rows_left = config_.encoder_budget};
  entries_.clear();
  prefills_.clear();
  counters_ = {};
  ++selections_;
  headroom_.drop();
  resources_.begin_step();
}

void Scheduler::select(const SelectionScope& scope) {
  begin_selection(scope.ahead);
  if (scope.ahead) {
    select_running();
    if (!step_.given_up) select_waiting();
  } else if (scope.only != nullptr) {
    select_only(scope.only);
  } else {
    const uint64_t preemptions_before = preemptions_;
    select_running();
    // Everything that runs may be stuck only if one sequence pins encoder rows that an older one
    // needs, and itself lacks blocks that the older one holds. The youngest gives way.
    while (entries_.empty() && prefills_.empty() && running_.size() > 1) {
      Sequence* victim = last_victim();
      if (victim == nullptr) break;
      preempt(victim);
      begin_selection();
      select_running();
    }
    const bool may_admit = scope.admit || running_.empty();
    if (may_admit && preemptions_ == preemptions_before) select_waiting();
    check(!entries_.empty() || !prefills_.empty() || (running_.empty() && waiting_.empty()),
          "scheduler: there is work but nothing can run");  // invariant: sched.progress
  }
  entries_.insert(entries_.end(), prefills_.begin(), prefills_.end());
  if (step_.given_up) rollback();
}

void Scheduler::give_up() {
  step_.given_up = true;
  step_.tokens_left = 0;
}

// Whether a sequence can go on although its newest token may not be known.
bool Scheduler::known_ahead(const Sequence& sequence) {
  if (sequence.pending_sample < 0) return true;
  if (sequence.num_outputs() >= sequence.max_tokens || sequence.size() >= length_limit_)
    return false;  // it ends with that token
  if (sequence.reads_history) give_up();
  return !sequence.reads_history;
}

void Scheduler::select_only(Sequence* sequence) {
  if (sequence->state == SequenceState::kWaiting) {
    // Where requests may pass each other the suspect need not be the head.
    if ((may_pass() || waiting_.head() == sequence) &&
        static_cast<int64_t>(running_.size()) < config_.max_num_seqs)
      admit(sequence);
  } else if (sequence->decoding()) {
    select_decode(sequence);
  } else {
    select_prefill(sequence);
  }
}

void Scheduler::select_running() {
  candidates_.clear();
  // Preemption shortens running_ from its end, behind the sequence at hand.
  for (size_t i = 0; i < running_.size() && step_.tokens_left > 0; ++i) {
    Sequence* sequence = running_[i];
    prefetch_ahead(running_, i, [](const Sequence* s) { return s; });
    if (sequence->decoding())
      select_decode(sequence);
    else
      candidates_.push_back(sequence);
  }
  for (Sequence* sequence : candidates_) {
    if (step_.tokens_left == 0 || step_.tokens_closed) break;
    if (sequence->state == SequenceState::kRunning) select_prefill(sequence);
  }
}

void Scheduler::select_decode(Sequence* sequence) {
  if (step_.ahead && !known_ahead(*sequence)) return;
  const int32_t blocks_before = sequence->table.size();
  if (resources_.missing_blocks(*sequence, sequence->size()) > 0) {
    if (!make_room(1, sequence)) {
      step_.memory_closed = true;
      return;
    }
    grow(*sequence, sequence->size());
  }
  entries_.push_back({.sequence = sequence,
                      .first = sequence->computed,
                      .num_tokens = 1,
                      .blocks_before = blocks_before,
                      .published_before = sequence->table.published()});
  --step_.tokens_left;
}

// End of the chunk that tokens and media allow; closes what an empty chunk waits for.
int64_t Scheduler::reach(Sequence* sequence, int64_t begin, int64_t token_limit,
                         Resources::MediaReach* media) {
  const ChunkLimits limits{.budget = token_limit,
                           .max_chunk = config_.max_prefill_chunk,
                           .split_items = config_.split_media_items,
                           .chunked = config_.enable_chunked_prefill};
  const int64_t end = chunk_end(sequence->spans(), begin, sequence->size(), limits);
  if (end == begin) return begin;
  *media =
      resources_.media_reach(*sequence, begin, end, step_.encoder_rows_left, step_.encoder_closed);
  if (media->limit == Resources::MediaLimit::kCapacity) step_.encoder_closed = true;
  if (!config_.enable_chunked_prefill && media->end < end) return begin;
  return media->end;
}

void Scheduler::select_prefill(Sequence* sequence) {
  const int64_t begin = sequence->computed;
  Resources::MediaReach media;
  int64_t end = reach(sequence, begin, step_.tokens_left, &media);
  if (end == begin) {
    // A chunk that not even the media stopped is one that must run whole: it needs more tokens.
    step_.tokens_closed |= media.limit == Resources::MediaLimit::kNone;
    return;
  }
  const int32_t blocks_before = sequence->table.size();
  if (!make_room(resources_.missing_blocks(*sequence, end), sequence)) {
    step_.memory_closed = true;
    if (step_.given_up) return;
    const int64_t blocks = int64_t{blocks_before} + available_blocks(*sequence);
    const int64_t tokens = std::min(end, blocks * config_.block_size) - begin;
    end = tokens > 0 ? reach(sequence, begin, tokens, &media) : begin;
    if (end == begin) return;
  }
  step_.encoder_rows_left -= media.encode_rows;
  resources_.pin_media(*sequence, begin, end);
  grow(*sequence, end);
  push_entry(sequence, end - begin, blocks_before, /*admitted=*/false);
}

// Frees blocks by preempting sequences that come after `sequence`; false if that is not enough.
bool Scheduler::make_room(int64_t blocks, Sequence* sequence) {
  while (available_blocks(*sequence) < blocks) {
    if (step_.ahead) {
      give_up();
      return false;
    }
    Sequence* victim = last_victim();
    if (victim == nullptr || victim->order <= sequence->order) return false;
    preempt(victim);
  }
  return true;
}

// The last running sequence that has not been preempted as often as it may be.
Sequence* Scheduler::last_victim() const {
  const auto last = std::find_if(running_.rbegin(), running_.rend(),
                                 [](const Sequence* s) { return !s->reserved; });
  return last == running_.rend() ? nullptr : *last;
}

void Scheduler::preempt(Sequence* victim) {
  running_.erase(std::ranges::lower_bound(running_, victim, runs_before));
  // It was selected already if it decodes; prefills are selected after those they may preempt for.
  const auto it = std::ranges::find(entries_, victim, &ScheduledEntry::sequence);
  if (it != entries_.end()) {
    step_.tokens_left += it->num_tokens;
    entries_.erase(it);
  }
  resources_.release(*victim);
  victim->state = SequenceState::kWaiting;
  ++victim->num_preemptions;
  waiting_.insert(victim);
  ++preemptions_;
}

void Scheduler::select_waiting() {
  // Nothing changed for one that lacked memory: it is not looked up again.
  if (!running_.empty() && !waiting_.empty() && blocked_.frees == resources_.kv().pool().frees() &&
      (blocked_.id == waiting_.head()->order.id || (may_pass() && blocked_.id != 0)))
    return;
  if (!waiting_.empty() && config_.share_within_step)
    for (const ScheduledEntry& entry : prefills_) publish_ahead(entry);
  while (!waiting_.empty() && step_.tokens_left > 0 && !step_.tokens_closed &&
         !step_.memory_closed && static_cast<int64_t>(running_.size()) < config_.max_num_seqs) {
    Sequence* next = next_to_enter();
    if (!admit(next)) return;
    if (may_pass()) note_passed(*next);
  }
}

bool Scheduler::admit(Sequence* sequence) {
  const Prefix prefix = find_prefix(sequence);
  const int64_t hit = prefix.tokens;
  if (hit < 0) {
    blocked_ = {sequence->order.id, resources_.kv().pool().frees()};
    return false;
  }
  Resources::MediaReach media;
  const int64_t end = reach(sequence, hit, step_.tokens_left, &media);
  if (end == hit) return false;

  waiting_.erase(sequence);
  if (blocked_.id == sequence->order.id) blocked_ = {};
  sequence->state = SequenceState::kRunning;
  running_.insert(std::ranges::upper_bound(running_, sequence, runs_before), sequence);
  const int64_t shared = prefix.sibling == nullptr ? shared_tokens(hit) : 0;
  sequence->borrowed = static_cast<int32_t>(borrowed_blocks(hit));
  resources_.adopt(*sequence, hit, prefix.sibling);
  sequence->admitted_in = selections_;
  sequence->computed = static_cast<int32_t>(hit);
  if (must_reserve(*sequence)) reserve_life(*sequence);
  step_.encoder_rows_left -= media.encode_rows;
  resources_.pin_media(*sequence, hit, end);
  grow(*sequence, end);
  headroom_.enter(*sequence);
  push_entry(sequence, end - hit, 0, /*admitted=*/true, shared > 0);
  if (config_.share_within_step)
    publish_ahead(sequence->remaining() > 1 || shared > 0 ? prefills_.back() : entries_.back());

  if (prefix.sibling != nullptr) {
    counters_.tokens_forked += hit;
  } else if (config_.enable_prefix_caching) {
    counters_.prefix_tokens_queried += sequence->size();
    counters_.prefix_tokens_hit += hit;
    counters_.prefix_tokens_shared += shared;
    const int64_t loaded = resources_.loaded_tokens(hit);
    counters_.prefix_tokens_loaded += loaded;
    counters_.prefix_tokens_copied += loaded > 0 ? 0 : hit % config_.block_size;
  }
  for (int32_t i = 0; i < sequence->spans().size(); ++i)
    counters_.items_skipped += sequence->spans().end_of(i) <= hit;
  return true;
}

void Scheduler::push_entry(Sequence* sequence, int64_t num_tokens, int32_t blocks_before,
                           bool admitted, bool shares) {
  // What reads blocks that the step fills comes behind the sequence that fills them.
  const bool prefill = sequence->remaining() > 1 || shares;
  (prefill ? prefills_ : entries_)
      .push_back({.sequence = sequence,
                  .first = sequence->computed,
                  .num_tokens = static_cast<int32_t>(num_tokens),
                  .blocks_before = blocks_before,
                  .published_before = sequence->table.published(),
                  .admitted = admitted,
                  .prefill = prefill});
  step_.tokens_left -= num_tokens;
}

void Scheduler::launch(LaunchedStep& step) {
  int32_t samples = 0;
  for (size_t i = 0; i < entries_.size(); ++i) {
    prefetch_ahead(entries_, i, [](const ScheduledEntry& next) { return next.sequence; });
    ScheduledEntry& entry = entries_[i];
    Sequence& sequence = *entry.sequence;
    ++sequence.in_flight;
    sequence.computed = entry.end();
    entry.samples = sequence.remaining() == 0;
    sequence.pending_sample = entry.samples ? samples++ : -1;
    if (entry.samples) sequence.tokens.push_back(-1);
  }
  entries_.swap(step.entries);
  step.counters = counters_;
  resources_.launch(step.reservations);
}

void Scheduler::recall(LaunchedStep& step) {
  recalled_ = true;
  entries_.swap(step.entries);
  counters_ = step.counters;
  resources_.recall(step.reservations);
}

// One step less in flight has a row of the sequence.
void Scheduler::land(Sequence& sequence) {
  if (--sequence.in_flight > 0) return;
  sequence.pending_sample = -1;
  if (sequence.state == SequenceState::kFinished) free(sequence);
}

void Scheduler::begin_commit() {
  const Resources::Encoded encoded = resources_.commit_step();
  counters_.items_encoded += encoded.encoded;
  counters_.items_skipped += encoded.reused;
  num_finished_ = 0;
}

void Scheduler::commit(const ScheduledEntry& entry) {
  Sequence& sequence = *entry.sequence;
  if (!sequence.first_run_done) {
    sequence.first_run_done = true;
    sequence.num_cached_tokens = entry.first;
  }
  resources_.commit(sequence, entry.end());
  if (recalled_) land(sequence);
}

void Scheduler::finish(Sequence* sequence, bool stopped) {
  headroom_.ended(*sequence, stopped);
  sequence->state = SequenceState::kFinished;
  drop_reservation(*sequence);
  if (sequence->in_flight == 0) free(*sequence);
  ++num_finished_;
}

void Scheduler::end_commit() {
  if (num_finished_ > 0)
    std::erase_if(running_, [](const Sequence* s) { return s->state == SequenceState::kFinished; });
  entries_.clear();
  recalled_ = false;
}

void Scheduler::rollback() {
  resources_.rollback_step();
  for (auto it = entries_.rbegin(); it != entries_.rend(); ++it) {
    Sequence* sequence = it->sequence;
    if (recalled_) {
      sequence->computed = it->first;
      if (it->samples) sequence->tokens.pop_back();
    }
    // A step that has committed since the selection may have published more.
    const auto full = static_cast<int32_t>(resources_.kv().full_blocks(it->first));
    const int32_t published = std::min(sequence->table.published(), full);
    resources_.unpublish(*sequence, std::max(it->published_before, published));
    const bool ended = sequence->state == SequenceState::kFinished;
    if (ended || !it->admitted) {
      if (sequence->reserved) reserved_blocks_ += sequence->table.size() - it->blocks_before;
      resources_.truncate(*sequence, it->blocks_before);
      if (recalled_) land(*sequence);
      continue;
    }
    if (recalled_) land(*sequence);
    running_.erase(std::ranges::find(running_, sequence));
    sequence->state = SequenceState::kWaiting;
    drop_reservation(*sequence);
    resources_.release(*sequence);
    waiting_.insert(sequence);
  }
  resources_.rollback_blocks(/*ran=*/recalled_ || !step_.given_up);
  entries_.clear();
  counters_ = {};
  recalled_ = false;
}

}  // namespace mmcore
