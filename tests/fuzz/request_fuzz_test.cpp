// The request fuzzer's entry without libFuzzer: a corpus that grows by random mutations.
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "request_entry.h"

namespace mmcore::fuzz {
namespace {

using Input = std::vector<uint8_t>;

// More inputs than the default: MMCORE_FUZZ_INPUTS=10000000.
int64_t num_inputs() {
  const char* text = std::getenv("MMCORE_FUZZ_INPUTS");
  return text == nullptr ? 60'000 : std::strtoll(text, nullptr, 10);
}

class Mutator {
 public:
  explicit Mutator(uint64_t seed) : random_(seed) {}

  Input fresh() {
    Input input(1 + below(120));
    for (uint8_t& byte : input) byte = static_cast<uint8_t>(below(256));
    return input;
  }
  Input mutate(Input input, const Input& other) {
    for (uint64_t changes = 1 + below(4); changes > 0; --changes) {
      const size_t at = below(input.size());
      switch (below(5)) {
        case 0:
          input[at] = static_cast<uint8_t>(below(256));
          break;
        case 1:
          input[at] = static_cast<uint8_t>(input[at] ^ (1u << below(8)));
          break;
        case 2:
          input.insert(input.begin() + static_cast<std::ptrdiff_t>(at), uint8_t{255});
          break;
        case 3:
          if (input.size() > 1) input.erase(input.begin() + static_cast<std::ptrdiff_t>(at));
          break;
        default:  // the tail of another one
          input.resize(at + 1);
          input.insert(input.end(),
                       other.begin() + static_cast<std::ptrdiff_t>(below(other.size())),
                       other.end());
      }
    }
    if (input.size() > 400) input.resize(400);
    return input;
  }
  uint64_t below(uint64_t n) { return random_() % n; }

 private:
  std::mt19937_64 random_;
};

std::string hex(const Input& input) {
  std::ostringstream text;
  for (const uint8_t byte : input) text << std::hex << static_cast<int>(byte) << ' ';
  return text.str();
}

TEST(RequestFuzz, is_served_or_refused) {
  constexpr uint64_t kSeed = 7;
  Mutator mutator(kSeed);
  std::vector<Input> corpus;
  for (int i = 0; i < 64; ++i) corpus.push_back(mutator.fresh());
  for (int64_t i = 0; i < num_inputs(); ++i) {
    const Input& parent = corpus[mutator.below(corpus.size())];
    const int64_t accepted = served().accepted;
    const Input input = mutator.mutate(parent, corpus[mutator.below(corpus.size())]);
    ASSERT_NO_THROW(run_request(input.data(), input.size()))
        << "seed " << kSeed << ", input " << i << ": " << hex(input);
    // What is served gets furthest; what is refused stays too, or the edges would be lost.
    if (mutator.below(served().accepted > accepted ? 4 : 40) == 0)
      corpus[mutator.below(corpus.size())] = input;
  }
  std::cout << served().accepted << " accepted, " << served().refused << " refused\n";
  EXPECT_GT(served().accepted, num_inputs() / 50);
  EXPECT_GT(served().refused, num_inputs() / 50);
}

}  // namespace
}  // namespace mmcore::fuzz
