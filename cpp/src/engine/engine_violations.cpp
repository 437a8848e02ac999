// Engine::check_invariants: what must hold between two steps. Ids are those of ARCHITECTURE.md.
#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "engine/engine_impl.h"

namespace mmcore {
namespace {

using Violations = std::vector<std::string>;

// What the steps in flight have reserved.
struct InFlight {
  std::map<const Sequence*, int32_t> first;  // computed before the oldest of them
  std::map<const Sequence*, int32_t> rows;   // in how many of them it runs
  std::vector<BlockCopy> copies;
  std::vector<HostCopy> transfers;
  std::set<EncoderSlot> slots;

  void add(const LaunchedStep& step) {
    for (const ScheduledEntry& entry : step.entries) {
      first.emplace(entry.sequence, entry.first);
      ++rows[entry.sequence];
    }
    const Resources::Reservations& kept = step.reservations;
    copies.insert(copies.end(), kept.copies.begin(), kept.copies.end());
    for (const auto* some : {&kept.kv.transfers.saves, &kept.kv.transfers.loads})
      transfers.insert(transfers.end(), some->begin(), some->end());
    for (const auto& [sequence, item] : kept.pins)
      slots.insert(sequence->slots[static_cast<size_t>(item)]);
  }
};

std::string name(const Sequence& sequence) {
  return "request " + std::to_string(sequence.order.id);
}

// `committed` of the sequence's computed tokens are not those of a step in flight.
void check_running(const Sequence& sequence, const EngineConfig& config, int64_t length_limit,
                   int32_t committed, Violations& out) {
  if (sequence.state != SequenceState::kRunning)
    out.push_back("sched.state: " + name(sequence) + " is listed as running but is not");
  if (sequence.computed < 0 || sequence.computed >= sequence.size())
    out.push_back("sched.computed: " + name(sequence) + " has " +
                  std::to_string(sequence.computed) + " of " + std::to_string(sequence.size()) +
                  " tokens computed");
  const bool pending = sequence.pending_sample >= 0;
  const bool unknown = std::ranges::any_of(sequence.tokens, [](TokenId id) { return id < 0; });
  if (unknown != pending || (pending && sequence.tokens.back() >= 0))
    out.push_back("step.overlap: " + name(sequence) + " does not know which token it waits for");
  if (sequence.size() - pending >= length_limit ||
      sequence.num_outputs() - pending >= sequence.max_tokens)
    out.push_back("sched.admission: " + name(sequence) + " outlived its length limit");
  const SpanMap& spans = sequence.spans();
  if (!config.split_media_items && spans.splits_span(sequence.computed))
    out.push_back("sched.whole_items: " + name(sequence) + " stopped inside a span");
  for (int32_t i = 0; i < spans.size(); ++i) {
    const bool inside = spans.begin_of(i) < sequence.computed && committed < spans.end_of(i);
    if (sequence.slots[static_cast<size_t>(i)] >= 0 && !inside)
      out.push_back("encoder.pin: " + name(sequence) + " pins item " + std::to_string(i) +
                    " without being inside its span");
  }
}

void check_waiting(const Sequence& sequence, Violations& out) {
  if (sequence.state != SequenceState::kWaiting)
    out.push_back("sched.state: " + name(sequence) + " is listed as waiting but is not");
  const bool pins = std::ranges::any_of(sequence.slots, [](EncoderSlot s) { return s >= 0; });
  if (sequence.computed != 0 || sequence.table.size() != 0 || pins)
    out.push_back("sched.waiting: " + name(sequence) + " waits but holds resources");
}

void check_order(const Scheduler& scheduler, const EngineConfig& config, Violations& out) {
  const std::vector<Sequence*>& running = scheduler.running();
  std::map<int64_t, RequestId> last_running;
  for (size_t i = 0; i < running.size(); ++i) {
    if (i > 0 && running[i]->order <= running[i - 1]->order)
      out.push_back("sched.order: " + name(*running[i]) + " runs out of order");
    // One that may not be preempted goes on when an earlier one has given way.
    if (!running[i]->reserved) last_running[running[i]->order.rank] = running[i]->order.id;
  }
  if (static_cast<int64_t>(running.size()) > config.max_num_seqs)
    out.push_back("sched.order: more sequences run than max_num_seqs");
  for (const auto& [order, sequence] : scheduler.waiting()) {
    const auto it = last_running.find(order.rank);
    if (sequence->times_passed > (scheduler.may_pass() ? QueuePolicy::kMaxPassed : 0))
      out.push_back("sched.fcfs: " + name(*sequence) + " was passed " +
                    std::to_string(sequence->times_passed) + " times");
    // Other sequences of a request that runs come when its prompt is there; it was not overtaken.
    const bool fork = sequence->index > 0 && !sequence->first_run_done;
    if (!scheduler.may_pass() && !fork && it != last_running.end() && it->second > order.id)
      out.push_back("sched.fcfs: " + name(*sequence) + " was overtaken by request " +
                    std::to_string(it->second));
  }
}

void check_preemptions(const Scheduler& scheduler, const EngineConfig& config, Violations& out) {
  int64_t reserved = 0;
  const auto check = [&](const Sequence& sequence) {
    if (sequence.num_preemptions > config.max_preemptions)
      out.push_back("sched.bounded: " + name(sequence) + " was preempted " +
                    std::to_string(sequence.num_preemptions) + " times");
    if (sequence.reserved) reserved += scheduler.life_blocks(sequence) - sequence.table.size();
    const bool holds = sequence.state == SequenceState::kRunning &&
                       sequence.num_preemptions == config.max_preemptions;
    if (sequence.reserved != holds)
      out.push_back("sched.bounded: " + name(sequence) + " may be preempted once too often");
  };
  for (const Sequence* s : scheduler.running()) check(*s);
  for (const auto& [order, s] : scheduler.waiting()) check(*s);
  const int64_t free = scheduler.resources().kv().pool().num_free();
  if (reserved != scheduler.reserved_blocks() || reserved > free)
    out.push_back("sched.bounded: " + std::to_string(reserved) + " blocks are set aside, counted " +
                  std::to_string(scheduler.reserved_blocks()) + ", free " + std::to_string(free));
}

// `holders` are all sequences that may pin; `launched` slots are filled by steps in flight.
void check_encoder(const EncoderCache& cache, const std::vector<const Sequence*>& holders,
                   const std::set<EncoderSlot>& launched, const EngineConfig& config,
                   Violations& out) {
  std::map<EncoderSlot, int32_t> pins;
  for (const Sequence* sequence : holders)
    for (const EncoderSlot slot : sequence->slots)
      if (slot >= 0) ++pins[slot];
  int64_t rows = 0;
  int64_t pinned_rows = 0;
  for (const EncoderEntryState& entry : cache.entries()) {
    const std::string slot = "encoder slot " + std::to_string(entry.slot);
    if (entry.pins != pins[entry.slot])
      out.push_back("encoder.pin: " + slot + " has " + std::to_string(entry.pins) +
                    " pins, sequences hold " + std::to_string(pins[entry.slot]));
    if (!entry.ready && !launched.contains(entry.slot))
      out.push_back("encoder.ready: " + slot + " was never encoded");
    rows += entry.rows;
    pinned_rows += entry.pins > 0 ? entry.rows : 0;
    pins.erase(entry.slot);
  }
  for (const auto& [slot, count] : pins)
    out.push_back("encoder.pin: slot " + std::to_string(slot) + " is pinned but does not exist");
  if (rows != cache.rows() || pinned_rows != cache.pinned_rows() ||
      rows > config.encoder_cache_rows)
    out.push_back("encoder.capacity: " + std::to_string(rows) + " rows, " +
                  std::to_string(pinned_rows) + " pinned; counted " + std::to_string(cache.rows()) +
                  " and " + std::to_string(cache.pinned_rows()) + " of " +
                  std::to_string(config.encoder_cache_rows));
}

}  // namespace

std::vector<std::string> Engine::Impl::violations() const {
  if (!broken_.ok()) return {broken_.message()};
  std::vector<const Sequence*> holders(scheduler_.running().begin(), scheduler_.running().end());
  for (const auto& [id, s] : departed_) holders.push_back(s.get());
  std::vector<KvCache::TableView> tables;
  for (const Sequence* s : holders)
    tables.push_back({s->order.id, &s->table, &s->chain, s->tokens, s->computed});
  InFlight in_flight;
  for (size_t i = 0; i < num_in_flight_; ++i)
    in_flight.add(flights_[(oldest_ + i) % flights_.size()].launched);
  const KvCache& kv = scheduler_.resources().kv();
  Violations out = kv.violations(tables, in_flight.copies, in_flight.transfers);
  for (const Sequence* s : scheduler_.running()) {
    const auto flying = in_flight.first.find(s);
    const int32_t committed = flying == in_flight.first.end() ? s->computed : flying->second;
    check_running(*s, config_, length_limit_, committed, out);
  }
  for (const Sequence* s : holders)
    if (s->in_flight != in_flight.rows[s])
      out.push_back("step.overlap: " + name(*s) + " miscounts the steps in flight");
  for (const auto& [id, s] : departed_)
    if (s->state != SequenceState::kFinished || s->in_flight == 0)
      out.push_back("step.overlap: " + name(*s) + " has ended and nothing of it is in flight");
  for (const auto& [order, s] : scheduler_.waiting()) check_waiting(*s, out);
  check_order(scheduler_, config_, out);
  check_preemptions(scheduler_, config_, out);
  check_encoder(scheduler_.resources().encoder(), holders, in_flight.slots, config_, out);
  const auto listed =
      static_cast<size_t>(scheduler_.waiting().size()) + scheduler_.running().size();
  if (listed != sequences_.size())
    out.push_back("sched.state: " + std::to_string(listed) + " sequences are queued, " +
                  std::to_string(sequences_.size()) + " live");
  for (const auto& [request, group] : groups_) {
    int32_t live = 0;
    for (size_t i = 0; i < group->members.size(); ++i) live += !group->ended(i);
    if (live != group->live || live == 0)
      out.push_back("engine.outputs: request " + std::to_string(request) + " has " +
                    std::to_string(live) + " sequences, counted " + std::to_string(group->live));
  }
  if (kv.blocks_for(length_limit_) > kv.pool().num_usable())
    out.push_back("sched.admission: a sequence may outgrow the pool");
  if (!scheduler_.resources().copies().empty())
    out.push_back("kv.copy: block copies are pending between steps");
  if (!kv.host().loads().empty())
    out.push_back("kv.host_pin: loads from the host are pending between steps");
  for (const EncoderEntryState& entry : scheduler_.resources().encoder().entries())
    if (entry.owner != 0 && !lives(entry.owner) && !departed_of_.contains(entry.owner))
      out.push_back("encoder.owner: slot " + std::to_string(entry.slot) + " outlived its request");
  return out;
}

}  // namespace mmcore
