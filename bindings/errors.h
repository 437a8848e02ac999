// From mmcore::Status to the classes of mmcore.errors: the only place where the two meet.
//
// Threads: all of it needs the GIL.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

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

/// What may be said of an exception to whoever sent the request: its first line, without addresses
/// and file paths; with the name of its class in front if asked for.
std::string public_text(pybind11::handle exception, bool with_class = true);

/// The Status that stands for a Python exception, with the public text of one that is not ours.
Status status_of(pybind11::handle exception);

/// The exception to show for a request that failed with `status`: `cause` itself if it is one of
/// ours, else a new one whose __cause__ it is. `cause` may be None.
pybind11::object exception_for(const Status& status, const pybind11::object& cause);

/// Moves the value out of a result, or raises its error.
template <class T>
T value_or_throw(Result<T> result) {
  throw_if_error(result.status());
  return std::move(result).value();
}

/// Makes mmcore::InternalError raise mmcore.errors.InternalError, and adds public_text to `m`.
void bind_errors(pybind11::module_& m);

}  // namespace mmcore::python
