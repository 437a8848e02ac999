#include "host.h"

#include <pybind11/stl.h>

#include <memory>
#include <utility>

#include "errors.h"
#include "mmcore/config.h"
#include "module.h"

namespace py = pybind11;

namespace mmcore::python {
namespace {

/// A Python object that rides on an item.
class PyPayload final : public MediaPayload {
 public:
  explicit PyPayload(py::object held) : object(std::move(held)) {}
  ~PyPayload() override {
    py::gil_scoped_acquire locked;
    object = py::object();
  }
  py::object object;
};

template <class T>
py::object capsule_of(T value, const char* name) {
  auto owned = std::make_unique<T>(std::move(value));
  const py::capsule capsule(owned.get(), name, [](PyObject* object) {
    delete static_cast<T*>(PyCapsule_GetPointer(object, PyCapsule_GetName(object)));
  });
  static_cast<void>(owned.release());
  return capsule;
}

py::object host_runner(py::object runner) {
  const auto destroy = [](ModelRunner* host) {
    py::gil_scoped_acquire locked;
    delete host;
  };
  return capsule_of(std::shared_ptr<ModelRunner>(new HostRunner(std::move(runner)), destroy),
                    "std::shared_ptr<mmcore::ModelRunner>");
}

py::object host_request(Request request, const std::vector<py::object>& payloads) {
  if (payloads.size() != request.media.size()) {
    throw_error(Status::invalid_argument("host_request: " + std::to_string(payloads.size()) +
                                         " payloads for " + std::to_string(request.media.size()) +
                                         " items; give one for each."));
  }
  for (size_t i = 0; i < payloads.size(); ++i)
    request.media[i].payload = std::make_shared<PyPayload>(payloads[i]);
  return capsule_of(std::move(request), "mmcore::Request");
}

}  // namespace

HostRunner::HostRunner(py::object runner) : runner_(runner), inner_(std::move(runner)) {}

HostRunner::~HostRunner() = default;

Status HostRunner::accept(RequestId request, const Request& content) {
  if (content.media.empty()) return {};
  py::gil_scoped_acquire locked;
  try {
    py::list items;
    for (const MediaItem& item : content.media) {
      const auto* payload = dynamic_cast<const PyPayload*>(item.payload.get());
      if (payload == nullptr) {
        return Status::invalid_argument(
            "an item has no Python object; make requests with the model that runs them");
      }
      items.append(payload->object);
    }
    runner_.attr("accept")(request, items);
  } catch (py::error_already_set& error) {
    return status_of(error.value());
  }
  return {};
}

Status HostRunner::execute(const StepPlan& plan, StepResult& result) {
  Status status = inner_.execute(plan, result);
  if (status.ok()) return status;
  // A host has no prompt at which a KeyboardInterrupt or a SystemExit could arrive.
  py::gil_scoped_acquire locked;
  try {
    inner_.rethrow_interrupt();
  } catch (py::error_already_set& error) {
    error.discard_as_unraisable("mmcore: execute() of the model runner");
  }
  return status;
}

void HostRunner::release(RequestId request) {
  inner_.release(request);
  py::gil_scoped_acquire locked;
  inner_.take_exception(request);
}

void bind_host(py::module_& m) {
  m.def("host_runner", &host_runner, py::arg("runner"),
        "Wrap a runner for a C++ program that drives the engine.");
  m.def(
      "host_config",
      [](const EngineConfig& config) { return capsule_of(config, "mmcore::EngineConfig"); },
      py::arg("config"), "Wrap a configuration for a C++ program.");
  m.def("host_request", &host_request, py::arg("request"), py::arg("payloads"),
        "Wrap a request for a C++ program; each item carries one of the payloads.");
}

}  // namespace mmcore::python
