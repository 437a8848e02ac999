// How a bound function runs an op: without the GIL, on torch's stream, errors as exceptions.
#pragma once

#include <pybind11/pybind11.h>

#include "errors.h"
#include "tensor_caster.h"

namespace mmcore::python {

/// Runs op(stream) on the stream that torch uses for the device of `tensor`; raises its error.
template <class Op>
void run_op(const TensorView& tensor, Op&& op) {
  const Stream stream = current_stream(tensor);
  Status status;
  {
    const pybind11::gil_scoped_release released;
    status = op(stream);
  }
  throw_if_error(status);
}

}  // namespace mmcore::python
