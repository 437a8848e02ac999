#include "proof/encoder_machine.h"

#include <algorithm>
#include <exception>
#include <utility>

namespace mmcore::proof {
namespace {

constexpr int64_t kCapacities[] = {1, 4, 9, 30};
constexpr size_t kNone = static_cast<size_t>(-1);
constexpr size_t kMaxPins = 12;

// Shared ones with and without salt and adapter, and private ones of two requests.
std::vector<EncoderKey> make_keys() {
  std::vector<EncoderKey> keys;
  for (uint8_t id = 1; id <= 3; ++id) {
    EncoderKey key{.rows = id};
    key.id.bytes[0] = id;
    keys.push_back(key);
    key.salt = "s";
    keys.push_back(key);
  }
  keys[1].lora_id = 7;
  for (RequestId owner = 1; owner <= 2; ++owner)
    for (int32_t item = 0; item < 2; ++item)
      keys.push_back({.owner = owner, .item = item, .rows = 2});
  return keys;
}

}  // namespace

EncoderMachine::EncoderMachine(uint64_t seed, EncoderFault fault)
    : fault_(fault), keys_(make_keys()), cache_(kCapacities[seed % std::size(kCapacities)]) {}

std::string EncoderMachine::describe(const Operation& o) {
  const auto n = [](int value) { return " " + std::to_string(value); };
  switch (o.kind % 16) {
    case 0:
      return "forget the private entries of request" + n(1 + o.a % 2);
    case 1:
      return "the runner dropped what was evicted";
    case 2:
      return o.kind / 16 == 0 ? "drop all that is not pinned" : "nothing";
    case 3:
    case 4:
      return "entry" + n(o.a) + " is encoded";
    case 5:
    case 6:
    case 7:
    case 8:
    case 9:
      return "drop pin" + n(o.a);
    default:
      return "pin key" + n(o.a % 10);
  }
}

bool EncoderMachine::apply(const Operation& operation) {
  if (violation_.found()) return false;
  try {
    perform(operation);
    if (!violation_.found()) check();
  } catch (const std::exception& error) {
    fail("check", error.what());
  }
  return !violation_.found();
}

void EncoderMachine::perform(const Operation& o) {
  switch (o.kind % 16) {
    case 0:
      return forget_owner(1 + o.a % 2);
    case 1:
      cache_.evictions_done();
      evicted_.clear();
      return;
    case 2:
      if (o.kind / 16 != 0) return;
      cache_.clear_unpinned();
      for (size_t i = 0; i < entries_.size();) entries_[i].pins == 0 ? drop(i) : void(++i);
      return;
    case 3:
    case 4:
      if (entries_.empty()) return;
      entries_[o.a % entries_.size()].ready = true;
      return cache_.mark_ready(entries_[o.a % entries_.size()].slot);
    case 5:
    case 6:
    case 7:
    case 8:
    case 9:
      if (!pins_.empty()) unpin(o.a % pins_.size());
      return;
    default:
      return pin(o.a % keys_.size());
  }
}

size_t EncoderMachine::find(size_t key) const {
  const auto it = std::ranges::find(entries_, key, &Entry::key);
  return it == entries_.end() ? kNone : static_cast<size_t>(it - entries_.begin());
}

void EncoderMachine::drop(size_t entry) {
  evicted_.push_back(entries_[entry].slot);
  entries_.erase(entries_.begin() + static_cast<std::ptrdiff_t>(entry));
  ++evictions_;
}

void EncoderMachine::pin(size_t key) {
  int64_t pinned = 0;
  int64_t rows = 0;
  for (const Entry& entry : entries_) {
    rows += keys_[entry.key].rows;
    if (entry.pins > 0) pinned += keys_[entry.key].rows;
  }
  const size_t known = find(key);
  const bool is_pinned = known != kNone && entries_[known].pins > 0;
  const bool fits = pinned + keys_[key].rows <= cache_.capacity_rows();
  if (cache_.can_pin(keys_[key].rows) != fits)
    return fail("I23", "can_pin is wrong about the room");
  if ((!is_pinned && !fits) || pins_.size() >= kMaxPins) return;
  const EncoderSlot slot = cache_.pin(keys_[key]);
  if (known == kNone) {
    while (rows + keys_[key].rows > cache_.capacity_rows()) {
      const auto oldest = std::ranges::find(entries_, 0, &Entry::pins);
      rows -= keys_[oldest->key].rows;
      drop(static_cast<size_t>(oldest - entries_.begin()));
    }
    if (slot != next_slot_) return fail("I15", "a slot number was used twice");
    ++next_slot_;
    entries_.push_back({.key = key, .slot = slot});
  }
  ++entries_[find(key)].pins;
  pins_.push_back(key);
}

void EncoderMachine::unpin(size_t pin) {
  const size_t at = find(pins_[pin]);
  pins_.erase(pins_.begin() + static_cast<std::ptrdiff_t>(pin));
  if (at == kNone) return fail("I15", "a pinned entry is gone");
  Entry entry = entries_[at];
  if (fault_ != EncoderFault::kForgetUnpin) cache_.unpin(entry.slot);
  if (fault_ == EncoderFault::kUnpinTwice && entry.pins > 1) cache_.unpin(entry.slot);
  if (--entries_[at].pins > 0) return;
  if (!entry.ready) return drop(at);
  entry.pins = 0;
  entries_.erase(entries_.begin() + static_cast<std::ptrdiff_t>(at));
  entries_.push_back(entry);  // the most recently used
}

void EncoderMachine::forget_owner(RequestId owner) {
  for (size_t i = pins_.size(); i-- > 0;)
    if (keys_[pins_[i]].owner == owner) unpin(i);
  cache_.forget_owner(owner);
  // In the order of their items, as the cache keeps them.
  for (size_t key = 0; key < keys_.size(); ++key)
    if (const size_t at = find(key); keys_[key].owner == owner && at != kNone) drop(at);
}

void EncoderMachine::check() {
  int64_t rows = 0;
  int64_t pinned_rows = 0;
  int64_t pinned = 0;
  for (const Entry& entry : entries_) {
    rows += keys_[entry.key].rows;
    pinned += entry.pins > 0;
    if (entry.pins > 0) pinned_rows += keys_[entry.key].rows;
  }
  if (cache_.rows() > cache_.capacity_rows())
    return fail("I23", std::to_string(cache_.rows()) + " rows are held, " +
                           std::to_string(cache_.capacity_rows()) + " allowed");
  for (size_t key = 0; key < keys_.size(); ++key) {
    const EncoderSlot slot = cache_.find(keys_[key]);
    const size_t at = find(key);
    const EncoderSlot expected = at == kNone ? -1 : entries_[at].slot;
    if (slot != expected)
      return fail(at != kNone && entries_[at].pins > 0 ? "I15" : "I23",
                  "key " + std::to_string(key) + " has slot " + std::to_string(slot) + ", not " +
                      std::to_string(expected));
    if (at == kNone) continue;
    if (cache_.pinned(slot) != (entries_[at].pins > 0))
      return fail("I15", "slot " + std::to_string(slot) +
                             (cache_.pinned(slot) ? " is pinned by nobody" : " lost its pin"));
    if (cache_.ready(slot) != entries_[at].ready)
      return fail("I15", "slot " + std::to_string(slot) + " is ready at the wrong time");
  }
  if (cache_.rows() != rows || cache_.pinned_rows() != pinned_rows ||
      cache_.size() != std::ssize(entries_) || cache_.num_pinned() != pinned)
    return fail("I23", "rows or entries are counted wrong");
  if (cache_.evicted() != evicted_)
    return fail("I16", "other slots were evicted, or in another order");
}

bool EncoderMachine::finish() {
  if (violation_.found()) return false;
  try {
    while (!pins_.empty() && !violation_.found()) unpin(pins_.size() - 1);
    cache_.clear_unpinned();
  } catch (const std::exception& error) {
    fail("check", error.what());
  }
  if (cache_.rows() != 0 || cache_.size() != 0 || cache_.num_pinned() != 0)
    fail("I24", std::to_string(cache_.rows()) + " rows are held at rest");
  return !violation_.found();
}

void EncoderMachine::fail(const char* invariant, std::string what) {
  if (!violation_.found()) violation_ = {invariant, std::move(what)};
}

}  // namespace mmcore::proof
