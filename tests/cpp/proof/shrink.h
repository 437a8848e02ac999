// Delta debugging: the shortest sequence of operations, as far as dropping and simplifying goes,
// that still does what the whole one does.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <vector>

#include "proof/operation.h"

namespace mmcore::proof {

using StillFails = std::function<bool(const std::vector<Operation>&)>;

/// Drops chunks of half the length down to one operation, until nothing more can go.
inline std::vector<Operation> drop_operations(std::vector<Operation> operations,
                                              const StillFails& still_fails) {
  for (size_t chunk = std::max<size_t>(1, operations.size() / 2);;) {
    bool dropped = false;
    for (size_t at = 0; at < operations.size();) {
      std::vector<Operation> shorter = operations;
      const auto first = shorter.begin() + static_cast<std::ptrdiff_t>(at);
      shorter.erase(first,
                    first + static_cast<std::ptrdiff_t>(std::min(chunk, operations.size() - at)));
      if (still_fails(shorter)) {
        operations = std::move(shorter);
        dropped = true;
      } else {
        at += chunk;
      }
    }
    if (chunk > 1)
      chunk = (chunk + 1) / 2;
    else if (!dropped)
      return operations;
  }
}

/// Makes each number of each operation as small as it may be.
inline std::vector<Operation> simplify_operations(std::vector<Operation> operations,
                                                  const StillFails& still_fails) {
  constexpr uint8_t Operation::* kNumbers[] = {&Operation::a, &Operation::b, &Operation::c};
  for (size_t i = 0; i < operations.size(); ++i) {
    for (const auto number : kNumbers) {
      for (const int smaller : {0, 1, 2, 3, 5, 8, 16}) {
        if (smaller >= operations[i].*number) break;
        const uint8_t before = operations[i].*number;
        operations[i].*number = static_cast<uint8_t>(smaller);
        if (still_fails(operations)) break;
        operations[i].*number = before;
      }
    }
  }
  return operations;
}

/// Drops two operations at once, where neither can go alone: a sequence and the one that replaces
/// it.
inline std::vector<Operation> drop_pairs(std::vector<Operation> operations,
                                         const StillFails& still_fails) {
  constexpr size_t kTooMany = 40;
  if (operations.size() > kTooMany) return operations;
  for (size_t i = 0; i < operations.size(); ++i) {
    for (size_t j = i + 1; j < operations.size(); ++j) {
      std::vector<Operation> shorter = operations;
      shorter.erase(shorter.begin() + static_cast<std::ptrdiff_t>(j));
      shorter.erase(shorter.begin() + static_cast<std::ptrdiff_t>(i));
      if (!still_fails(shorter)) continue;
      operations = std::move(shorter);
      j = i;
    }
  }
  return operations;
}

/// All of it, until nothing becomes smaller.
inline std::vector<Operation> shrink(std::vector<Operation> operations,
                                     const StillFails& still_fails) {
  for (;;) {
    const std::vector<Operation> before = operations;
    operations = drop_operations(std::move(operations), still_fails);
    operations = simplify_operations(std::move(operations), still_fails);
    operations = drop_pairs(std::move(operations), still_fails);
    if (operations == before) return operations;
  }
}

}  // namespace mmcore::proof
