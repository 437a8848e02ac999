#include "tensor_caster.h"

#include <array>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "dlpack.h"

namespace py = pybind11;

namespace mmcore::python {
namespace {

[[noreturn]] void refuse(const std::string& what) { throw py::type_error(what); }

std::string type_name(py::handle object) { return Py_TYPE(object.ptr())->tp_name; }

// Attribute names and torch objects that every call looks up, made once. They live as long as the
// process: destroying them after the interpreter would crash.
struct Names {
  PyObject* data_ptr = PyUnicode_InternFromString("data_ptr");
  PyObject* dtype = PyUnicode_InternFromString("dtype");
  PyObject* shape = PyUnicode_InternFromString("shape");
  PyObject* stride = PyUnicode_InternFromString("stride");
  PyObject* is_cpu = PyUnicode_InternFromString("is_cpu");
  PyObject* device = PyUnicode_InternFromString("device");
  PyObject* dlpack = PyUnicode_InternFromString("__dlpack__");
};

const Names& names() {
  static const Names* made = new Names();
  return *made;
}

struct TorchTypes {
  PyTypeObject* tensor = nullptr;
  std::array<std::pair<PyObject*, DType>, 7> dtypes{};
};

// Null until the process has imported torch: before that no object can be a torch.Tensor.
const TorchTypes* torch_types() {
  static TorchTypes* made = nullptr;
  if (made != nullptr) return made;
  const py::dict modules = py::module_::import("sys").attr("modules");
  if (!modules.contains("torch")) return nullptr;
  const py::object torch = modules["torch"];
  if (!py::hasattr(torch, "Tensor") || !py::hasattr(torch, "uint8")) return nullptr;  // half loaded
  auto* types = new TorchTypes();
  types->tensor = reinterpret_cast<PyTypeObject*>(py::object(torch.attr("Tensor")).release().ptr());
  constexpr std::array kDTypes = {DType::kFloat32,   DType::kBFloat16, DType::kFloat16,
                                  DType::kInt32,     DType::kInt64,    DType::kUInt8,
                                  DType::kFloat8E4M3};
  for (size_t i = 0; i < kDTypes.size(); ++i)
    types->dtypes[i] = {py::object(torch.attr(to_string(kDTypes[i]))).release().ptr(), kDTypes[i]};
  made = types;
  return made;
}

py::object get(py::handle object, PyObject* name) {
  return py::reinterpret_steal<py::object>(PyObject_GetAttr(object.ptr(), name));
}

py::object call(py::handle object, PyObject* name) {
  return py::reinterpret_steal<py::object>(PyObject_CallMethodNoArgs(object.ptr(), name));
}

void require(const py::object& value) {
  if (!value) throw py::error_already_set();
}

int32_t checked_rank(int64_t rank) {
  if (rank > kMaxRank)
    refuse("a tensor of rank " + std::to_string(rank) + " was given; kernels take at most rank " +
           std::to_string(kMaxRank));
  return static_cast<int32_t>(rank);
}

void read_ints(py::handle sequence, int32_t rank, std::array<int64_t, kMaxRank>& out) {
  for (int32_t i = 0; i < rank; ++i) {
    const int64_t n = PyLong_AsLongLong(PyTuple_GET_ITEM(sequence.ptr(), i));
    if (n == -1 && PyErr_Occurred() != nullptr) throw py::error_already_set();
    out[static_cast<size_t>(i)] = n;
  }
}

void fill_contiguous_strides(TensorView& view) {
  int64_t step = 1;
  for (int32_t i = view.rank - 1; i >= 0; --i) {
    view.strides[static_cast<size_t>(i)] = step;
    step *= view.size(i);
  }
}

DType torch_dtype(const TorchTypes& torch, py::handle dtype) {
  for (const auto& [object, value] : torch.dtypes)
    if (object == dtype.ptr()) return value;
  refuse(
      "a tensor of dtype " + py::str(dtype).cast<std::string>() +
      " was given; kernels take float32, bfloat16, float16, float8_e4m3fn, int32, int64 and uint8");
}

Device torch_device(py::handle tensor) {
  const py::object is_cpu = get(tensor, names().is_cpu);
  require(is_cpu);
  if (is_cpu.ptr() == Py_True) return {};
  const py::object device = get(tensor, names().device);
  require(device);
  if (device.attr("type").cast<std::string>() != "cuda")
    refuse("a tensor on device " + py::str(device).cast<std::string>() +
           " was given; kernels take tensors on cpu or cuda");
  return {DeviceType::kCuda, device.attr("index").cast<int32_t>()};
}

TensorView view_torch(const TorchTypes& torch, py::handle tensor) {
  TensorView view;
  view.present = true;
  view.device = torch_device(tensor);
  const py::object dtype = get(tensor, names().dtype);
  require(dtype);
  view.dtype = torch_dtype(torch, dtype);
  const py::object shape = get(tensor, names().shape);
  require(shape);
  view.rank = checked_rank(PyTuple_GET_SIZE(shape.ptr()));
  read_ints(shape, view.rank, view.shape);
  const py::object strides = call(tensor, names().stride);
  require(strides);
  read_ints(strides, view.rank, view.strides);
  const py::object address = call(tensor, names().data_ptr);
  require(address);
  view.data = PyLong_AsVoidPtr(address.ptr());
  if (PyErr_Occurred() != nullptr) throw py::error_already_set();
  return view;
}

std::optional<DType> float_dtype(int bits) {
  if (bits == 32) return DType::kFloat32;
  if (bits == 16) return DType::kFloat16;
  return std::nullopt;
}

std::optional<DType> int_dtype(int bits) {
  if (bits == 32) return DType::kInt32;
  if (bits == 64) return DType::kInt64;
  return std::nullopt;
}

std::optional<DType> dlpack_dtype(const dlpack::Tensor& tensor) {
  if (tensor.dtype.lanes != 1) return std::nullopt;
  const int bits = tensor.dtype.bits;
  switch (tensor.dtype.code) {
    case dlpack::kFloat:
      return float_dtype(bits);
    case dlpack::kBfloat:
      return bits == 16 ? std::optional(DType::kBFloat16) : std::nullopt;
    case dlpack::kFloat8E4M3:
      return bits == 8 ? std::optional(DType::kFloat8E4M3) : std::nullopt;
    case dlpack::kInt:
      return int_dtype(bits);
    case dlpack::kUInt:
      return bits == 8 ? std::optional(DType::kUInt8) : std::nullopt;
    default:
      return std::nullopt;
  }
}

Device dlpack_device(const dlpack::Tensor& tensor) {
  switch (tensor.device.type) {
    case dlpack::kCpu:
    case dlpack::kCudaHost:
      return {};
    case dlpack::kCuda:
    case dlpack::kCudaManaged:
      return {DeviceType::kCuda, tensor.device.index};
    default:
      refuse("a tensor on DLPack device type " + std::to_string(tensor.device.type) +
             " was given; kernels take tensors on cpu or cuda");
  }
}

TensorView view_dlpack(py::handle source, const dlpack::Tensor& tensor) {
  const std::optional<DType> dtype = dlpack_dtype(tensor);
  if (!dtype)
    refuse("a " + type_name(source) + " of DLPack type (code " + std::to_string(tensor.dtype.code) +
           ", " + std::to_string(tensor.dtype.bits) +
           " bits) was given; kernels take float32, bfloat16, float16, float8_e4m3fn, int32, int64 "
           "and uint8");
  TensorView view;
  view.present = true;
  view.dtype = *dtype;
  view.device = dlpack_device(tensor);
  view.rank = checked_rank(tensor.rank);
  view.data = static_cast<char*>(tensor.data) + tensor.byte_offset;
  for (int32_t i = 0; i < view.rank; ++i) view.shape[static_cast<size_t>(i)] = tensor.shape[i];
  if (tensor.strides == nullptr) {
    fill_contiguous_strides(view);
  } else {
    for (int32_t i = 0; i < view.rank; ++i)
      view.strides[static_cast<size_t>(i)] = tensor.strides[i];
  }
  return view;
}

std::optional<DType> buffer_dtype(std::string_view format, py::ssize_t bytes) {
  // A byte-order mark other than native is not read as native.
  if (!format.empty() && (format[0] == '@' || format[0] == '=')) format.remove_prefix(1);
  if (format.size() != 1) return std::nullopt;
  const int bits = static_cast<int>(bytes * 8);
  if (std::strchr("fe", format[0]) != nullptr) return float_dtype(bits);
  if (std::strchr("ilqn", format[0]) != nullptr) return int_dtype(bits);
  if (format[0] == 'B') return DType::kUInt8;
  return std::nullopt;
}

BorrowedTensor borrow_buffer(py::handle source) {
  const py::buffer_info info = py::reinterpret_borrow<py::buffer>(source).request();
  const std::optional<DType> dtype = buffer_dtype(info.format, info.itemsize);
  if (!dtype)
    refuse("a " + type_name(source) + " of format '" + info.format +
           "' was given; kernels take float32, float16, float8_e4m3fn, int32, int64 and uint8");
  BorrowedTensor out;
  out.owner = py::reinterpret_borrow<py::object>(source);
  out.read_only = info.readonly;
  out.view.present = true;
  out.view.dtype = *dtype;
  out.view.data = info.ptr;
  out.view.rank = checked_rank(info.ndim);
  for (int32_t i = 0; i < out.view.rank; ++i) {
    const auto axis = static_cast<size_t>(i);
    if (info.strides[axis] % info.itemsize != 0)
      refuse("a " + type_name(source) + " whose strides are no multiple of its item size");
    out.view.shape[axis] = info.shape[axis];
    out.view.strides[axis] = info.strides[axis] / info.itemsize;
  }
  return out;
}

}  // namespace

BorrowedTensor borrow(py::handle source) {
  if (source.is_none()) return {};
  const TorchTypes* torch = torch_types();
  if (torch != nullptr && PyObject_TypeCheck(source.ptr(), torch->tensor) != 0)
    return {view_torch(*torch, source), py::reinterpret_borrow<py::object>(source), false};
  if (PyObject_HasAttr(source.ptr(), names().dlpack) != 0) {
    py::object capsule = call(source, names().dlpack);
    if (capsule) {
      const auto* managed =
          static_cast<dlpack::ManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
      if (managed == nullptr) throw py::error_already_set();
      const TensorView view = view_dlpack(source, managed->tensor);
      return {view, std::move(capsule), false};
    }
    // NumPy does not export read-only arrays, which are fine as inputs; the buffer protocol does.
    if (PyErr_ExceptionMatches(PyExc_BufferError) == 0 || PyObject_CheckBuffer(source.ptr()) == 0)
      throw py::error_already_set();
    PyErr_Clear();
  }
  if (PyObject_CheckBuffer(source.ptr()) != 0 && PyBytes_Check(source.ptr()) == 0)
    return borrow_buffer(source);
  refuse("a " + type_name(source) +
         " was given where a tensor was expected: a torch.Tensor, or an object with __dlpack__ or "
         "the buffer protocol, such as a numpy array");
}

TensorView view(py::handle source) { return borrow(source).view; }

Stream current_stream(const TensorView& tensor) {
  if (tensor.device.type != DeviceType::kCuda || torch_types() == nullptr) return {};
  // Looked up once: an import takes longer than many a kernel. Never freed, as torch is not.
  // Guarded by the GIL: a static's own guard could deadlock with it.
  static PyObject* get = nullptr;
  if (get == nullptr)
    get = py::object(py::module_::import("torch._C").attr("_cuda_getCurrentRawStream"))
              .release()
              .ptr();
  const auto raw = py::reinterpret_steal<py::object>(
      PyObject_CallOneArg(get, py::int_(tensor.device.index).ptr()));
  if (!raw) throw py::error_already_set();
  return {PyLong_AsVoidPtr(raw.ptr())};
}

}  // namespace mmcore::python
