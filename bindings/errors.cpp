#include "errors.h"

#include <exception>

namespace py = pybind11;

namespace mmcore::python {
namespace {

struct ExceptionClass {
  const char* name;
  const char* code;  // nullptr: the class's default
};

// The classes are looked up by name, when an error happens: importing _C must not import them.
constexpr ExceptionClass class_of(StatusCode code) {
  switch (code) {
    case StatusCode::kInvalidArgument:
      return {"ValidationError", nullptr};
    case StatusCode::kUnservable:
      return {"UnservableRequestError", nullptr};
    case StatusCode::kMediaError:
      return {"MediaError", nullptr};
    case StatusCode::kPlaceholderMismatch:
      return {"PlaceholderMismatchError", nullptr};
    case StatusCode::kOverloaded:
      return {"EngineOverloadedError", nullptr};
    case StatusCode::kNotFound:
      return {"ValidationError", "not_found"};
    case StatusCode::kAborted:
      return {"RequestAbortedError", nullptr};
    case StatusCode::kShutdown:
      return {"EngineShutdownError", nullptr};
    case StatusCode::kUnsupported:
      return {"ValidationError", "unsupported"};
    case StatusCode::kOk:
    case StatusCode::kInternal:
      break;
  }
  return {"InternalError", nullptr};
}

// Messages may quote input, so they need not be valid UTF-8.
py::str text(const std::string& message) {
  PyObject* decoded =
      PyUnicode_DecodeUTF8(message.data(), static_cast<Py_ssize_t>(message.size()), "replace");
  if (decoded == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::str>(decoded);
}

}  // namespace

py::object make_exception(const Status& status) {
  const ExceptionClass target = class_of(status.code());
  py::object cls = py::module_::import("mmcore.errors").attr(target.name);
  if (target.code == nullptr) return cls(text(status.message()));
  return cls(text(status.message()), py::arg("code") = target.code);
}

void throw_error(const Status& status) {
  const py::object error = make_exception(status);
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.ptr())), error.ptr());
  throw py::error_already_set();
}

void register_exceptions() {
  py::register_local_exception_translator([](std::exception_ptr caught) {
    try {
      if (caught) std::rethrow_exception(caught);
    } catch (const InternalError& e) {
      const py::object error = make_exception(Status::internal(e.what()));
      PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.ptr())), error.ptr());
    }
  });
}

}  // namespace mmcore::python
