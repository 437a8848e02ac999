// mmcore._C.media: identities of media items.
#include <pybind11/pybind11.h>

#include <string_view>
#include <vector>

#include "mmcore/media.h"
#include "module.h"

namespace py = pybind11;

namespace mmcore::python {
namespace {

// The bytes of anything that has the buffer protocol, held for as long as this lives.
class Frame {
 public:
  explicit Frame(py::handle source) {
    if (PyUnicode_Check(source.ptr())) {
      Py_ssize_t size = 0;
      const char* data = PyUnicode_AsUTF8AndSize(source.ptr(), &size);
      if (data == nullptr) throw py::error_already_set();
      bytes_ = {data, static_cast<size_t>(size)};
      return;
    }
    if (PyObject_GetBuffer(source.ptr(), &buffer_, PyBUF_SIMPLE) != 0)
      throw py::error_already_set();
    held_ = true;
    bytes_ = {static_cast<const char*>(buffer_.buf), static_cast<size_t>(buffer_.len)};
  }
  Frame(Frame&& other) noexcept
      : buffer_(other.buffer_), bytes_(other.bytes_), held_(std::exchange(other.held_, false)) {}
  Frame(const Frame&) = delete;
  Frame& operator=(const Frame&) = delete;
  Frame& operator=(Frame&&) = delete;
  ~Frame() {
    if (held_) PyBuffer_Release(&buffer_);
  }
  std::string_view bytes() const { return bytes_; }

 private:
  Py_buffer buffer_{};
  std::string_view bytes_;
  bool held_ = false;
};

py::bytes content_id_of(const py::sequence& frames) {
  std::vector<Frame> held;
  std::vector<std::string_view> views;
  held.reserve(py::len(frames));
  views.reserve(py::len(frames));
  for (py::handle frame : frames) views.push_back(held.emplace_back(frame).bytes());
  ContentId id;
  {
    py::gil_scoped_release unlocked;
    id = content_id(views);
  }
  return {reinterpret_cast<const char*>(id.bytes.data()), id.bytes.size()};
}

}  // namespace

void bind_media(py::module_& m) {
  m.def("content_id", &content_id_of, py::arg("frames"),
        "Hash length-framed pieces (str, bytes or contiguous buffers) into a 32-byte content id.");
}

}  // namespace mmcore::python
