// mmcore._C: the extension module. Each part binds itself; nothing here decides anything.
#include "module.h"

#include <pybind11/pybind11.h>

#include "errors.h"

namespace py = pybind11;

PYBIND11_MODULE(_C, m) {
  m.doc() = "The C++ core of mmcore. Private: use the modules of the mmcore package.";
  m.attr("__version__") = MMCORE_VERSION;
  m.attr("with_cuda") = static_cast<bool>(MMCORE_WITH_CUDA);
  mmcore::python::bind_errors(m);
  mmcore::python::bind_request(m);
  mmcore::python::bind_step(m);
  mmcore::python::bind_engine(m);
  mmcore::python::bind_host(m);
  py::module_ media = m.def_submodule("media", "Identities of media items.");
  mmcore::python::bind_media(media);
  py::module_ ops = m.def_submodule("ops", "The kernels, over anything that speaks DLPack.");
  mmcore::python::bind_ops(ops);
}
