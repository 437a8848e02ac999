// The samplers of mmcore._C.ops, for use without an engine.
#pragma once

#include <pybind11/pybind11.h>

namespace mmcore::python {

/// Adds sample, uniform and logprobs to `m`, and what bind_sampling_tensors adds.
void bind_sampling(pybind11::module_& m);
/// Adds sample_tensors and sample_tensors_workspace_bytes to `m`.
void bind_sampling_tensors(pybind11::module_& m);

}  // namespace mmcore::python
