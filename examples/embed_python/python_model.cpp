#include "python_model.h"

#include <pybind11/embed.h>
#include <pybind11/stl.h>

#include <optional>
#include <utility>

namespace py = pybind11;

using mmcore::Result;
using mmcore::Status;
using mmcore::StatusCode;

// Members end in the reverse order: this thread takes the GIL back, the model goes, then Python.
struct PythonModel::Interpreter {
  std::unique_ptr<py::scoped_interpreter> python;
  py::object model;
  std::optional<py::gil_scoped_release> unlocked;
};

namespace {

// What a capsule of mmcore._C points to (bindings/host.h).
template <class T>
T& inside(const py::object& capsule, const char* name) {
  void* pointer = PyCapsule_GetPointer(capsule.ptr(), name);
  if (pointer == nullptr) throw py::error_already_set();
  return *static_cast<T*>(pointer);
}

Status status_of(const py::error_already_set& error) {
  const bool mine = error.matches(py::module_::import("mmcore.errors").attr("ValidationError"));
  return {mine ? StatusCode::kInvalidArgument : StatusCode::kInternal,
          py::str(error.value()).cast<std::string>()};
}

}  // namespace

PythonModel::PythonModel() : interpreter_(std::make_unique<Interpreter>()) {}

PythonModel::~PythonModel() = default;

Result<std::unique_ptr<PythonModel>> PythonModel::load(const std::string& python,
                                                       const std::string& checkpoint) {
  PyConfig config;
  PyConfig_InitPythonConfig(&config);
  config.install_signal_handlers = 0;  // signals are the host's
  config.parse_argv = 0;
  // Where Python finds its own files and, from a pyvenv.cfg beside it, the environment's packages.
  PyConfig_SetBytesString(&config, &config.program_name, python.c_str());
  std::unique_ptr<PythonModel> self(new PythonModel());
  Interpreter& state = *self->interpreter_;
  try {
    state.python = std::make_unique<py::scoped_interpreter>(&config);
  } catch (const std::exception& error) {
    return Status::internal(error.what());
  }
  Status status;
  try {
    state.model = py::module_::import("mmcore.engine.hosted_model").attr("HostedModel")(checkpoint);
  } catch (const py::error_already_set& error) {
    status = Status::internal(error.what());
  }
  state.unlocked.emplace();
  if (!status.ok()) return status;
  return self;
}

mmcore::EngineConfig PythonModel::config() const {
  const py::gil_scoped_acquire locked;
  return inside<mmcore::EngineConfig>(interpreter_->model.attr("config")(), "mmcore::EngineConfig");
}

std::shared_ptr<mmcore::ModelRunner> PythonModel::runner() const {
  const py::gil_scoped_acquire locked;
  return inside<std::shared_ptr<mmcore::ModelRunner>>(interpreter_->model.attr("runner")(),
                                                      "std::shared_ptr<mmcore::ModelRunner>");
}

Result<mmcore::Request> PythonModel::make_request(const std::string& prompt,
                                                  std::span<const RgbImage> images) const {
  const py::gil_scoped_acquire locked;
  try {
    py::list pictures;
    for (const RgbImage& image : images) {
      const py::bytes rgb(reinterpret_cast<const char*>(image.rgb.data()), image.rgb.size());
      pictures.append(py::make_tuple(rgb, image.width, image.height));
    }
    const py::object capsule = interpreter_->model.attr("request")(prompt, pictures);
    return std::move(inside<mmcore::Request>(capsule, "mmcore::Request"));
  } catch (const py::error_already_set& error) {
    return status_of(error);
  }
}

Result<std::string> PythonModel::decode(std::span<const mmcore::TokenId> ids) const {
  const py::gil_scoped_acquire locked;
  try {
    const std::vector<mmcore::TokenId> list(ids.begin(), ids.end());
    return interpreter_->model.attr("decode")(list).cast<std::string>();
  } catch (const py::error_already_set& error) {
    return status_of(error);
  }
}
