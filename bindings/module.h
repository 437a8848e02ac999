// The parts of mmcore._C, each bound by the source file of its name.
#pragma once

#include <pybind11/pybind11.h>

namespace mmcore::python {

void bind_request(pybind11::module_& m);
void bind_step(pybind11::module_& m);
void bind_engine(pybind11::module_& m);
void bind_host(pybind11::module_& m);
void bind_media(pybind11::module_& m);  // m: the submodule _C.media
void bind_ops(pybind11::module_& m);    // m: the submodule _C.ops

}  // namespace mmcore::python
