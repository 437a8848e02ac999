// The samplers of mmcore._C.ops, for use without an engine.
#pragma once

#include <pybind11/pybind11.h>

namespace mmcore::python {

/// Adds sample, uniform and logprobs to `m`.
void bind_sampling(pybind11::module_& m);

}  // namespace mmcore::python
