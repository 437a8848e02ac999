// Many random sequences of operations on the machines, and what to say when one of them fails.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "proof/encoder_machine.h"
#include "proof/kv_machine.h"

namespace mmcore::proof {

inline constexpr int kOperationsPerSeed = 4000;

/// Which machine, in which flavour, with which planted mistake.
struct Subject {
  std::string flavour;  // "encoder" or the name of one of kv_flavours()
  KvFault kv_fault = KvFault::kNone;
  EncoderFault encoder_fault = EncoderFault::kNone;
};

std::vector<std::string> flavour_names();

/// What goes wrong when the operations are done and everything is ended; `done` counts them.
Violation replay(const Subject& subject, uint64_t seed, const std::vector<Operation>& operations,
                 int64_t* done = nullptr);

/// The operations of a seed.
std::vector<Operation> draw_operations(uint64_t seed, int64_t count = kOperationsPerSeed);

struct Finding {
  Subject subject;
  uint64_t seed = 0;
  Violation violation;
  std::vector<Operation> minimal;
  std::string report() const;  // with the command that replays it
};

struct Totals {
  int64_t operations = 0;
  int64_t sequences = 0;
  KvMachine::Totals kv;
  uint64_t encoder_evictions = 0;
};

/// One seed of one flavour; a failing sequence is shrunk to a minimal one that violates the same
/// invariant.
std::optional<Finding> run_seed(const Subject& subject, uint64_t seed, Totals& totals);

}  // namespace mmcore::proof
