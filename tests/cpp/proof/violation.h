// What a model-based test found: the invariant by its number, and what was seen.
#pragma once

#include <string>

namespace mmcore::proof {

struct Violation {
  std::string invariant;  // "I5"; empty: nothing was found
  std::string what;
  bool found() const { return !invariant.empty(); }
};

}  // namespace mmcore::proof
