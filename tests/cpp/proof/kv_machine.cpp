#include "proof/kv_machine.h"

#include <algorithm>
#include <exception>
#include <utility>

namespace mmcore::proof {
namespace {

constexpr size_t kMaxSequences = 6;
constexpr int kUnwritten = -1;

// Kinds of operations by the low four bits.
enum Kind : uint8_t {
  kStart = 0,
  kFork = 3,
  kRollBack = 4,
  kRelease = 5,
  kFinishCopies = 7,
  kReset = 8,
  kAdvance = 9
};

Kind kind_of(const Operation& operation) {
  switch (operation.kind % 16) {
    case 0:
    case 1:
    case 2:
      return kStart;
    case 3:
      return kFork;
    case 4:
      return kRollBack;
    case 5:
      return kRelease;
    case 6:
    case 7:
      return kFinishCopies;
    case 8:
      return operation.kind / 16 == 0 ? kReset : kStart;
    default:
      return kAdvance;
  }
}

KeyFault key_fault(KvFault fault) {
  switch (fault) {
    case KvFault::kNoSalt:
      return KeyFault::kNoSalt;
    case KvFault::kNoMediaOffset:
      return KeyFault::kNoMediaOffset;
    case KvFault::kNoMedia:
      return KeyFault::kNoMedia;
    default:
      return KeyFault::kNone;
  }
}

}  // namespace

std::span<const KvFlavour> kv_flavours() {
  static constexpr KvFlavour kFlavours[] = {
      {"pool4", 4, 4, 64},           {"pool1", 1, 1, 8},         {"block1", 12, 1, 64},
      {"hash8", 12, 2, 8},           {"constant_hash", 8, 2, 0}, {"pool4_hash8", 4, 1, 8},
      {"no_cache", 8, 4, 64, false}, {"roomy", 48, 8, 64},       {"host2", 4, 2, 64, true, 2},
      {"host40", 6, 2, 8, true, 40},
  };
  return kFlavours;
}

KvMachine::KvMachine(const KvFlavour& flavour, uint64_t seed, KvFault fault)
    : flavour_(flavour),
      fault_(fault),
      documents_(seed, flavour.block_size, key_fault(fault)),
      cache_({.num_blocks = flavour.usable_blocks + 1,
              .block_size = flavour.block_size,
              .prefix_caching = flavour.prefix_caching,
              .num_host_blocks = flavour.host_blocks,
              .hash_key = HashKey::from_seed(seed),
              .hash_bits = flavour.hash_bits}),
      model_(flavour.usable_blocks + 1),
      memory_(static_cast<size_t>((flavour.usable_blocks + 1) * flavour.block_size), kUnwritten),
      host_memory_(static_cast<size_t>(flavour.host_blocks * flavour.block_size), kUnwritten) {}

std::string KvMachine::describe(const Operation& o) {
  const auto n = [](int value) { return " " + std::to_string(value); };
  switch (kind_of(o)) {
    case kStart:
      return "start document" + n(o.a % 6) +
             (o.b % 2 == 0 ? ", last hit by copy" : ", whole hits and a beginning") + ", at most" +
             n(o.c % 16) + " hits";
    case kFork:
      return "fork sequence" + n(o.a) + " into document" + n(o.b % 6);
    case kRollBack:
      return "roll sequence" + n(o.a) + " back by" + n(o.b) + " tokens";
    case kRelease:
      return "release sequence" + n(o.a);
    case kFinishCopies:
      return "run the copies";
    case kReset:
      return "release all, clear the cache";
    default:
      return "advance sequence" + n(o.a) + " by" + n(1 + o.b) + " tokens" +
             (o.c % 8 == 0   ? ", published ahead"
              : o.c % 8 == 1 ? ", published ahead, the step fails"
                             : "");
  }
}

bool KvMachine::apply(const Operation& operation) {
  if (violation_.found()) return false;
  ++operations_;
  try {
    perform(operation);
    if (!violation_.found()) check();
  } catch (const std::exception& error) {
    fail("check", error.what());
  }
  return !violation_.found();
}

bool KvMachine::finish() {
  if (violation_.found()) return false;
  try {
    reset();
    if (!violation_.found()) check();
  } catch (const std::exception& error) {
    fail("check", error.what());
  }
  const BlockPool& pool = cache_.pool();
  if (pool.num_used() != 0 || pool.num_free() != flavour_.usable_blocks)
    fail("I24", std::to_string(pool.num_used()) + " blocks are used at rest");
  if (pool.num_free_hashed() != 0 || (flavour_.prefix_caching && cache_.index().size() != 0))
    fail("I24", "something is cached after clear");
  if (cache_.host().pool().num_used() != 0 || cache_.host().index().size() != 0)
    fail("I24", "the host tier holds something after clear");
  return !violation_.found();
}

void KvMachine::fail(const char* invariant, std::string what) {
  if (!violation_.found()) violation_ = {invariant, std::move(what)};
}

KvMachine::Totals KvMachine::totals() const {
  Totals totals = totals_;
  totals.evictions = cache_.evictions();
  return totals;
}

size_t KvMachine::slot(BlockId block, int64_t position) const {
  return static_cast<size_t>(block) * static_cast<size_t>(flavour_.block_size) +
         static_cast<size_t>(position % flavour_.block_size);
}

void KvMachine::perform(const Operation& o) {
  const Kind kind = kind_of(o);
  if (kind == kStart) return start(o);
  if (kind == kFinishCopies) return finish_copies();
  if (kind == kReset) return reset();
  if (sequences_.empty()) return;
  if (kind == kFork) return fork(o);
  if (kind == kRollBack) return roll_back(o);
  if (kind == kRelease) return release(o.a % sequences_.size());
  advance(o);
}

void KvMachine::start(const Operation& o) {
  if (sequences_.size() >= kMaxSequences) return;
  auto sequence = std::make_unique<Sequence>();
  sequence->document = o.a % documents_.size();
  Document& document = documents_[sequence->document];
  check_keys(sequence->document);
  if (violation_.found()) return;
  const int64_t limit = o.c % 16;
  cache_.match(document.chain, document.tokens, limit, hits_);
  std::vector<BlockId> expected;
  if (flavour_.prefix_caching) expected = model_.match(document.block, limit);
  for (size_t i = 0; i < hits_.size(); ++i)
    if (model_.cached[KvModel::at(hits_[i])] != document.block.at(i))
      return fail("I8", "block " + std::to_string(hits_[i]) + " is a hit but holds other content");
  if (hits_ != expected)
    return fail("I7", std::to_string(hits_.size()) + " blocks hit, " +
                          std::to_string(expected.size()) + " are cached");
  const PrefixIndex::Partial partial = cache_.match_partial(document.chain, document.tokens, hits_);
  check_partial(document, partial);
  if (violation_.found()) return;
  const bool room = cache_.pool().num_free() > std::ssize(hits_) + 1;
  const bool by_copy = o.b % 2 == 0 && !hits_.empty() && flavour_.block_size > 1 && room;
  const size_t whole = hits_.size() - (by_copy ? 1 : 0);
  cache_.adopt(sequence->table, std::span(hits_).first(whole));
  for (size_t i = 0; i < whole; ++i) model_.ref(hits_[i]);
  sequence->blocks.assign(hits_.begin(), hits_.begin() + static_cast<std::ptrdiff_t>(whole));
  sequence->published = static_cast<int64_t>(whole);
  sequence->computed = static_cast<int64_t>(whole) * flavour_.block_size;
  totals_.hits += std::ssize(hits_);
  if (by_copy) {
    copy_tail(*sequence, hits_.back());
    sequence->computed += flavour_.block_size - 1;
  } else if (load(*sequence, limit, o.b % 4 == 1)) {
    // What the host holds goes on behind whole hits.
  } else if (partial.tokens > 0 && flavour_.block_size > 1 && room) {
    copy_tail(*sequence, partial.block);
    sequence->computed += std::min(partial.tokens, flavour_.block_size - 1);
    ++totals_.partials;
  }
  if (fault_ == KvFault::kReuseRead && whole > 0)
    cache_.finish_copy({sequence->table[0], sequence->table[0]});
  sequences_.push_back(std::move(sequence));
}

// The copy has not run yet, but nobody writes to its source while that is held.
void KvMachine::copy_tail(Sequence& sequence, BlockId source) {
  pending_.push_back(cache_.append_copy(sequence.table, source));
  save_evicted();
  cache_.commit_step();
  model_.ref(source);
  const BlockId fresh = model_.allocate();
  sequence.blocks.push_back(fresh);
  for (int64_t i = 0; i < flavour_.block_size; ++i)
    memory_[slot(fresh, i)] = memory_[slot(source, i)];
  ++totals_.copies;
}

// What follows the hits in the host tier, as far as there is room. `partly`: the last one is used
// but for its last token.
bool KvMachine::load(Sequence& sequence, int64_t limit, bool partly) {
  Document& document = documents_[sequence.document];
  cache_.match_host(document.chain, document.tokens, limit, hits_, host_hits_);
  const auto room = static_cast<size_t>(cache_.pool().num_free());
  if (host_hits_.size() > room) host_hits_.resize(room);
  if (host_hits_.empty()) return false;
  cache_.append_loaded(sequence.table, host_hits_, partly);
  save_evicted();
  for (size_t i = 0; i < host_hits_.size(); ++i) {
    const int content = document.block[sequence.blocks.size()];
    const BlockId fresh = model_.allocate();
    sequence.blocks.push_back(fresh);
    const auto from = host_memory_.begin() + int64_t{host_hits_[i] - 1} * flavour_.block_size;
    std::copy_n(from, flavour_.block_size, memory_.begin() + int64_t{fresh} * flavour_.block_size);
    sequence.computed += flavour_.block_size;
    if (partly && i + 1 == host_hits_.size()) break;
    model_.cached[KvModel::at(fresh)] = content;
    ++sequence.published;
  }
  if (partly) --sequence.computed;
  totals_.loads += std::ssize(host_hits_);
  cache_.commit_step();
  return true;
}

// Saves come before the step writes.
void KvMachine::save_evicted() {
  for (const HostCopy& save : cache_.host().saves())
    std::copy_n(memory_.begin() + int64_t{save.block} * flavour_.block_size, flavour_.block_size,
                host_memory_.begin() + int64_t{save.host_block} * flavour_.block_size);
}

// A step that fails may have written anything to what it was to save.
void KvMachine::drop_saves() {
  for (const HostCopy& save : cache_.host().saves())
    std::fill_n(host_memory_.begin() + int64_t{save.host_block} * flavour_.block_size,
                flavour_.block_size, kUnwritten);
  if (fault_ == KvFault::kKeepSaves)
    cache_.commit_step();
  else
    cache_.rollback_step(/*ran=*/true);
}

void KvMachine::advance(const Operation& o) {
  Sequence& sequence = *sequences_[o.a % sequences_.size()];
  const int64_t target =
      std::min(sequence.computed + 1 + o.b % (3 * flavour_.block_size), length(sequence));
  if (target == sequence.computed) return release(o.a % sequences_.size());
  const int64_t needed = cache_.blocks_for(target) - sequence.table.size();
  if (cache_.pool().num_free() < needed)
    return release(o.c % sequences_.size());  // preemption: somebody gives way
  // A step runs its copies before it writes.
  const BlockId tail = sequence.blocks.empty() ? kNullBlock : sequence.blocks.back();
  if (std::ranges::find(pending_, tail, &BlockCopy::src) != pending_.end()) finish_copies();
  cache_.grow(sequence.table, cache_.blocks_for(target));
  if (fault_ != KvFault::kLateSaves) save_evicted();
  while (std::ssize(sequence.blocks) < cache_.blocks_for(target))
    sequence.blocks.push_back(model_.allocate());
  if (o.c % 8 == 1) return fail_step(sequence, target);
  if (o.c % 8 == 0) {
    Document& document = documents_[sequence.document];
    cache_.publish_ahead(sequence.table, document.chain, document.tokens, target);
  }
  write(sequence, target);
  if (fault_ == KvFault::kLateSaves) save_evicted();
  cache_.commit_step();
  sequence.computed = target;
  publish(sequence);
}

bool KvMachine::is_tail_shared(const Sequence& sequence) const {
  if (sequence.computed % flavour_.block_size == 0) return false;
  const BlockId tail = sequence.blocks.back();
  return model_.refs[KvModel::at(tail)] > 1 ||
         model_.cached[KvModel::at(tail)] != KvModel::kNothing;
}

void KvMachine::write(Sequence& sequence, int64_t target) {
  const Document& document = documents_[sequence.document];
  for (int64_t p = sequence.computed; p < target; ++p) {
    const BlockId block = sequence.table[p / flavour_.block_size];
    if (cache_.pool().refs(block) != 1)
      return fail("I5", "block " + std::to_string(block) + " is written to and has " +
                            std::to_string(cache_.pool().refs(block)) + " references");
    if (model_.cached[KvModel::at(block)] != KvModel::kNothing)
      return fail("I6", "block " + std::to_string(block) + " is written to and cached");
    if (block <= kNullBlock) return fail("I4", "the null block is written to");
    memory_[slot(block, p)] = document.prefix[static_cast<size_t>(p)];
    ++totals_.writes;
  }
}

void KvMachine::publish(Sequence& sequence) {
  Document& document = documents_[sequence.document];
  cache_.publish(sequence.table, document.chain, document.tokens, sequence.computed);
  if (!flavour_.prefix_caching) return;
  const int64_t full = sequence.computed / flavour_.block_size;
  for (int64_t i = sequence.published; i < full; ++i) {
    const int content = document.block[static_cast<size_t>(i)];
    if (content == kPrivate) return;
    BlockId& block = sequence.blocks[static_cast<size_t>(i)];
    const BlockId known = model_.find(content);
    if (known == kNullBlock) {
      model_.cached[KvModel::at(block)] = content;
    } else {
      model_.ref(known);
      model_.unref(block);
      block = known;
    }
    sequence.published = i + 1;
  }
}

// Blocks that the step was to fill are published, hit by another, and taken back.
void KvMachine::fail_step(Sequence& sequence, int64_t target) {
  Document& document = documents_[sequence.document];
  const int32_t published = sequence.table.published();
  cache_.publish_ahead(sequence.table, document.chain, document.tokens, target);
  cache_.match(document.chain, document.tokens, sequence.table.published(), hits_);
  if (!std::ranges::equal(
          hits_, sequence.table.blocks().first(static_cast<size_t>(sequence.table.published()))))
    return fail("I7", "blocks that were published ahead are not found");
  if (fault_ != KvFault::kSkipRollback) cache_.unpublish(sequence.table, published);
  drop_blocks(sequence, cache_.blocks_for(sequence.computed));
  drop_saves();
  ++totals_.rollbacks;
}

// Another sequence with the same beginning: full blocks are shared, a tail is copied.
void KvMachine::fork(const Operation& o) {
  if (sequences_.size() >= kMaxSequences) return;
  const Sequence& parent = *sequences_[o.a % sequences_.size()];
  auto child = std::make_unique<Sequence>();
  child->document = o.b % documents_.size();
  child->computed = std::min(parent.computed, documents_.agree(parent.document, child->document));
  const int64_t full = child->computed / flavour_.block_size;
  const bool has_tail = child->computed % flavour_.block_size != 0;
  if (has_tail && cache_.pool().num_free() == 0) return;
  cache_.share(parent.table, child->table, full);
  child->blocks.assign(parent.blocks.begin(), parent.blocks.begin() + full);
  for (const BlockId block : child->blocks) model_.ref(block);
  child->published = std::min(parent.published, full);
  if (has_tail) copy_tail(*child, parent.blocks[static_cast<size_t>(full)]);
  sequences_.push_back(std::move(child));
}

// To a position inside a block that others may read: what is written next goes to a copy of it.
void KvMachine::roll_back(const Operation& o) {
  if (fault_ != KvFault::kCopiesLast) finish_copies();
  Sequence& sequence = *sequences_[o.a % sequences_.size()];
  sequence.computed -= std::min<int64_t>(sequence.computed, o.b % (2 * flavour_.block_size));
  drop_blocks(sequence, cache_.blocks_for(sequence.computed));
  ++totals_.rollbacks;
  if (fault_ == KvFault::kWriteShared || !is_tail_shared(sequence)) return;
  const int64_t full = sequence.computed / flavour_.block_size;
  if (cache_.pool().num_free() == 0) {  // no room for the copy: the whole block goes
    sequence.computed = full * flavour_.block_size;
    return drop_blocks(sequence, full);
  }
  const BlockId source = sequence.blocks.back();
  drop_blocks(sequence, full);
  copy_tail(sequence, source);
}

void KvMachine::drop_blocks(Sequence& sequence, int64_t keep) {
  cache_.truncate(sequence.table, keep);
  while (std::ssize(sequence.blocks) > keep) {
    model_.unref(sequence.blocks.back());
    sequence.blocks.pop_back();
  }
  sequence.published = std::min(sequence.published, keep);
}

// Sources of copies go first: one that outlives the blocks before it would stay in the index behind
// a parent that is evicted, where nobody finds it.
void KvMachine::release(size_t which) {
  if (fault_ != KvFault::kCopiesLast) finish_copies();
  Sequence& sequence = *sequences_[which];
  if (fault_ != KvFault::kForgetRelease) {
    cache_.release(sequence.table);
    cache_.release(sequence.table);  // a second time does nothing
  }
  for (; !sequence.blocks.empty(); sequence.blocks.pop_back()) model_.unref(sequence.blocks.back());
  sequences_.erase(sequences_.begin() + static_cast<std::ptrdiff_t>(which));
}

void KvMachine::finish_copies() {
  for (const BlockCopy& copy : pending_) {
    cache_.finish_copy(copy);
    model_.unref(copy.src);
  }
  pending_.clear();
}

void KvMachine::reset() {
  finish_copies();
  while (!sequences_.empty()) release(sequences_.size() - 1);
  cache_.clear();
  if (!flavour_.prefix_caching) return;
  for (BlockId b = 1; b <= flavour_.usable_blocks; ++b) {
    if (model_.cached[KvModel::at(b)] == KvModel::kNothing) continue;
    model_.cached[KvModel::at(b)] = KvModel::kNothing;
    model_.free.erase(std::ranges::find(model_.free, b));
    model_.free.insert(model_.free.begin(), b);
  }
}

}  // namespace mmcore::proof
