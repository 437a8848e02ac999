// Checks of mmcore's own invariants. User input never reaches them.
#pragma once

#include <source_location>
#include <string>

#include "mmcore/status.h"

namespace mmcore {

[[noreturn]] inline void fail_check(const std::string& what, std::source_location where) {
  throw InternalError(std::string(where.file_name()) + ":" + std::to_string(where.line()) + ": " +
                      what);
}

/// Throws InternalError when `condition` does not hold; a host must not be aborted by our bug.
inline void check(bool condition, const char* what,
                  std::source_location where = std::source_location::current()) {
  if (!condition) [[unlikely]]
    fail_check(what, where);
}

/// Likewise, and prints both operands.
template <class A, class B>
void check_eq(const A& a, const B& b, const char* what,
              std::source_location where = std::source_location::current()) {
  if (!(a == b)) [[unlikely]]
    fail_check(std::string(what) + ": " + std::to_string(a) + " != " + std::to_string(b), where);
}

}  // namespace mmcore
