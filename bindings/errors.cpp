#include "errors.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <string>
#include <string_view>

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
    case StatusCode::kTimeout:
      return {"RequestTimeoutError", nullptr};
    case StatusCode::kOk:
    case StatusCode::kInternal:
      break;
  }
  return {"InternalError", nullptr};
}

constexpr StatusCode kAllCodes[] = {
    StatusCode::kUnservable, StatusCode::kPlaceholderMismatch,
    StatusCode::kMediaError, StatusCode::kInvalidArgument,
    StatusCode::kOverloaded, StatusCode::kAborted,
    StatusCode::kShutdown,   StatusCode::kTimeout};  // subclasses before their bases

constexpr size_t kMaxText = 300;

bool ends_word(char c) { return std::strchr(" \t'\"()[]{}<>,;=", c) != nullptr; }

// A word that begins like an address or an absolute path.
bool is_private(std::string_view word) {
  return word.starts_with("0x") ||
         (word.size() > 1 && word[0] == '/' && word.find('/', 1) != std::string_view::npos);
}

std::string without_private_words(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    size_t end = 0;
    while (end < text.size() && !ends_word(text[end])) ++end;
    out += is_private(text.substr(0, end)) ? std::string_view("...") : text.substr(0, end);
    if (end < text.size()) out += text[end++];
    text.remove_prefix(end);
  }
  return out;
}

// Messages may quote input, so they need not be valid UTF-8.
py::str text(const std::string& message) {
  PyObject* decoded =
      PyUnicode_DecodeUTF8(message.data(), static_cast<Py_ssize_t>(message.size()), "replace");
  if (decoded == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::str>(decoded);
}

// str(object) as UTF-8, whatever its text holds; empty if it cannot even be asked.
std::string utf8(py::handle object) {
  PyObject* str = PyObject_Str(object.ptr());
  PyObject* bytes = str == nullptr ? nullptr : PyUnicode_AsEncodedString(str, "utf-8", "replace");
  Py_XDECREF(str);
  if (bytes == nullptr) {
    PyErr_Clear();
    return {};
  }
  return std::string(py::reinterpret_steal<py::bytes>(bytes));
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

std::string public_text(py::handle exception, bool with_class) {
  const std::string message = utf8(exception);
  const std::string line =
      without_private_words(message.substr(0, std::min(message.find('\n'), kMaxText)));
  if (!with_class && !line.empty()) return line;
  const std::string name = utf8(py::type::handle_of(exception).attr("__name__"));
  return line.empty() ? name : name + ": " + line;
}

Status status_of(py::handle exception) {
  const py::module_ errors = py::module_::import("mmcore.errors");
  if (py::isinstance(exception, errors.attr("MmcoreError"))) {
    const std::string message = utf8(exception);
    for (StatusCode code : kAllCodes)
      if (py::isinstance(exception, errors.attr(class_of(code).name))) return {code, message};
    return Status::internal(message);
  }
  return Status::internal(public_text(exception));
}

py::object exception_for(const Status& status, const py::object& cause) {
  if (py::isinstance(cause, py::module_::import("mmcore.errors").attr("MmcoreError"))) return cause;
  py::object error = make_exception(status);
  if (!cause.is_none()) error.attr("__cause__") = cause;
  return error;
}

void bind_errors(py::module_& m) {
  m.def(
      "public_text",
      [](const py::object& exception, bool with_class) {
        return text(public_text(exception, with_class));
      },
      py::arg("exception"), py::arg("with_class") = true,
      "Give what may be said of an exception to whoever sent the request.");
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
