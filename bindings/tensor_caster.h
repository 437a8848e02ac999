// From Python tensors to mmcore::TensorView, without including torch.
//
// A parameter of type mmcore::TensorView in a bound function takes
//   None             an absent view
//   torch.Tensor     read through its attributes
//   anything else    read through __dlpack__, else through the buffer protocol
// and one of type mmcore::python::Writable the same, but nothing that is read-only.
// Ownership: the view is valid while the Python object lives; the caster keeps the object (and its
// capsule) for the call. Threads: needs the GIL; the view itself does not.
#pragma once

#include <pybind11/pybind11.h>

#include "mmcore/stream.h"
#include "mmcore/tensor.h"

namespace mmcore::python {

/// A view and what keeps its memory alive.
struct BorrowedTensor {
  TensorView view;
  pybind11::object owner;
  bool read_only = false;
};

/// A tensor that an op writes to.
struct Writable {
  TensorView view;
};

/// Borrows `source`. Raises TypeError for what is no tensor, or has a dtype, device or rank that
/// kernels do not take.
BorrowedTensor borrow(pybind11::handle source);

/// Views `source`, which must outlive the view and share its memory, as torch and numpy do.
TensorView view(pybind11::handle source);

/// The stream that torch is queueing on for the tensor's device; none for the CPU or without torch.
Stream current_stream(const TensorView& tensor);

}  // namespace mmcore::python

namespace pybind11::detail {

template <>
struct type_caster<mmcore::TensorView> {
  PYBIND11_TYPE_CASTER(mmcore::TensorView, const_name("typing.Any"));

  bool load(handle source, bool /*convert*/) {
    mmcore::python::BorrowedTensor tensor = mmcore::python::borrow(source);
    value = tensor.view;
    owner_ = std::move(tensor.owner);
    return true;
  }

 private:
  object owner_;
};

template <>
struct type_caster<mmcore::python::Writable> {
  PYBIND11_TYPE_CASTER(mmcore::python::Writable, const_name("typing.Any"));

  bool load(handle source, bool /*convert*/) {
    mmcore::python::BorrowedTensor tensor = mmcore::python::borrow(source);
    if (tensor.read_only) throw type_error("a read-only tensor was given to be written to");
    value = {tensor.view};
    owner_ = std::move(tensor.owner);
    return true;
  }

 private:
  object owner_;
};

}  // namespace pybind11::detail
