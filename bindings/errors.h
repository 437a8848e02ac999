// From mmcore::Status to the classes of mmcore.errors: the only place where the two meet.
//
// Threads: all of it needs the GIL.
#pragma once

#include <pybind11/pybind11.h>

#include "mmcore/status.h"

namespace mmcore::python {

/// Makes an instance of the mmcore.errors class that stands for `status`, without raising it.
pybind11::object make_exception(const Status& status);

/// Raises make_exception(status).
[[noreturn]] void throw_error(const Status& status);

inline void throw_if_error(const Status& status) {
  if (!status.ok()) [[unlikely]]
    throw_error(status);
}

/// Moves the value out of a result, or raises its error.
template <class T>
T value_or_throw(Result<T> result) {
  throw_if_error(result.status());
  return std::move(result).value();
}

/// Makes mmcore::InternalError raise mmcore.errors.InternalError.
void register_exceptions();

}  // namespace mmcore::python
