// The encoder cache under random operations beside a plain list of entries.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "media/encoder_cache.h"
#include "proof/operation.h"
#include "proof/violation.h"

namespace mmcore::proof {

enum class EncoderFault {
  kNone,
  kForgetUnpin,  // a sequence ends and keeps its pin
  kUnpinTwice,   // a pin is dropped that another sequence still needs
};

class EncoderMachine {
 public:
  explicit EncoderMachine(uint64_t seed, EncoderFault fault = EncoderFault::kNone);

  bool apply(const Operation& operation);
  bool finish();
  const Violation& violation() const { return violation_; }
  static std::string describe(const Operation& operation);
  uint64_t evictions() const { return evictions_; }

 private:
  struct Entry {
    size_t key = 0;
    EncoderSlot slot = -1;
    int pins = 0;
    bool ready = false;
  };

  void perform(const Operation& operation);
  void pin(size_t key);
  void unpin(size_t pin);
  void forget_owner(RequestId owner);
  void drop(size_t entry);
  void check();
  void fail(const char* invariant, std::string what);
  size_t find(size_t key) const;

  EncoderFault fault_;
  std::vector<EncoderKey> keys_;
  EncoderCache cache_;
  // The model: pinned ones first in any order, then the others, least recently used first.
  std::vector<Entry> entries_;
  std::vector<size_t> pins_;  // key of each pin that is held
  std::vector<EncoderSlot> evicted_;
  EncoderSlot next_slot_ = 0;
  uint64_t evictions_ = 0;
  Violation violation_;
};

}  // namespace mmcore::proof
