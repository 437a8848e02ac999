#include "proof/campaign.h"

#include <random>
#include <stdexcept>

#include "proof/shrink.h"

namespace mmcore::proof {
namespace {

const KvFlavour& kv_flavour(const std::string& name) {
  for (const KvFlavour& flavour : kv_flavours())
    if (flavour.name == name) return flavour;
  throw std::invalid_argument("no flavour is called " + name);
}

template <class Machine>
Violation drive(Machine& machine, const std::vector<Operation>& operations, int64_t* done) {
  for (const Operation& operation : operations) {
    if (done != nullptr) ++*done;
    if (!machine.apply(operation)) return machine.violation();
  }
  machine.finish();
  return machine.violation();
}

}  // namespace

std::vector<std::string> flavour_names() {
  std::vector<std::string> names = {"encoder"};
  for (const KvFlavour& flavour : kv_flavours()) names.emplace_back(flavour.name);
  return names;
}

std::vector<Operation> draw_operations(uint64_t seed, int64_t count) {
  std::mt19937_64 random(seed);
  std::vector<Operation> operations;
  operations.reserve(static_cast<size_t>(count));
  while (std::ssize(operations) < count) operations.push_back(draw_operation(random));
  return operations;
}

Violation replay(const Subject& subject, uint64_t seed, const std::vector<Operation>& operations,
                 int64_t* done) {
  if (subject.flavour == "encoder") {
    EncoderMachine machine(seed, subject.encoder_fault);
    return drive(machine, operations, done);
  }
  KvMachine machine(kv_flavour(subject.flavour), seed, subject.kv_fault);
  return drive(machine, operations, done);
}

std::string Finding::report() const {
  std::string text = violation.invariant + ": " + violation.what + "\n" + "  flavour " +
                     subject.flavour + ", seed " + std::to_string(seed) + ", minimal sequence:\n";
  for (const Operation& operation : minimal)
    text += "    " +
            (subject.flavour == "encoder" ? EncoderMachine::describe(operation)
                                          : KvMachine::describe(operation)) +
            "\n";
  return text + "  replay: mmcore_mmsim --flavour " + subject.flavour + " --seed " +
         std::to_string(seed) + " --replay '" + to_text(minimal) + "'\n";
}

std::optional<Finding> run_seed(const Subject& subject, uint64_t seed, Totals& totals) {
  const std::vector<Operation> operations = draw_operations(seed);
  ++totals.sequences;
  int64_t done = 0;
  Violation violation;
  if (subject.flavour == "encoder") {
    EncoderMachine machine(seed, subject.encoder_fault);
    violation = drive(machine, operations, &done);
    totals.encoder_evictions += machine.evictions();
  } else {
    KvMachine machine(kv_flavour(subject.flavour), seed, subject.kv_fault);
    violation = drive(machine, operations, &done);
    const KvMachine::Totals more = machine.totals();
    totals.kv.hits += more.hits;
    totals.kv.partials += more.partials;
    totals.kv.copies += more.copies;
    totals.kv.writes += more.writes;
    totals.kv.rollbacks += more.rollbacks;
    totals.kv.loads += more.loads;
    totals.kv.evictions += more.evictions;
  }
  totals.operations += done;
  if (!violation.found()) return std::nullopt;
  const auto same = [&](const std::vector<Operation>& some) {
    return replay(subject, seed, some).invariant == violation.invariant;
  };
  std::vector<Operation> failing(operations.begin(), operations.begin() + done);
  Finding finding{subject, seed, violation, shrink(std::move(failing), same)};
  finding.violation = replay(subject, seed, finding.minimal);
  return finding;
}

}  // namespace mmcore::proof
