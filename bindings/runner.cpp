#include "runner.h"

#include <algorithm>
#include <string>
#include <utility>

#include "errors.h"

namespace py = pybind11;

namespace mmcore::python {
namespace {

// Frames of a traceback hold tensors; an error that a caller keeps must not keep them.
void drop_frames(const py::object& exception) {
  const py::object traceback = exception.attr("__traceback__");
  if (!traceback.is_none()) py::module_::import("traceback").attr("clear_frames")(traceback);
}

struct Closing {
  Step* step;
  ~Closing() {
    if (step != nullptr) step->close();
  }
};

py::object exception_of(const py::error_already_set& error) {
  if (error.trace()) PyException_SetTraceback(error.value().ptr(), error.trace().ptr());
  return error.value();
}

}  // namespace

PyModelRunner::PyModelRunner(py::object runner)
    : runner_(std::move(runner)),
      overlaps_(py::bool_(py::getattr(runner_, "overlaps", py::bool_(false)))) {
  for (Slot& slot : slots_) {
    slot.object = py::cast(Step{});
    slot.step = &slot.object.cast<Step&>();
  }
  register_step_dtypes();
}

PyModelRunner::~PyModelRunner() = default;

Status PyModelRunner::execute(const StepPlan& plan, StepResult& result) {
  py::gil_scoped_acquire locked;
  if (interrupt_) return Status::internal("interrupted");
  const Slot& slot = slots_[0];
  slot.step->open(plan, result);
  const Closing closing{slot.step};
  const Status status = call("execute", slot);
  if (status.ok() && result.failed.empty()) forget_exceptions(plan);
  return status;
}

Status PyModelRunner::begin(StepPlan& plan, StepResult& result) {
  py::gil_scoped_acquire locked;
  if (interrupt_) return Status::internal("interrupted");
  const Slot& slot = slots_[(oldest_ + num_begun_) % slots_.size()];
  slot.step->open(plan, result);
  Closing closing{slot.step};
  const Status status = call("begin", slot);
  if (status.ok() && result.failed.empty()) {
    closing.step = nullptr;  // until end()
    ++num_begun_;
  }
  return status;
}

Status PyModelRunner::end() {
  py::gil_scoped_acquire locked;
  const Slot& slot = slots_[oldest_];
  oldest_ = (oldest_ + 1) % slots_.size();
  --num_begun_;
  const Closing closing{slot.step};
  const Status status = call("end", slot);
  if (status.ok() && slot.step->result().failed.empty()) forget_exceptions(slot.step->plan());
  return status;
}

// Calls runner_.method(step), which gives None or who cannot go on.
Status PyModelRunner::call(const char* method, const Slot& slot) {
  const StepPlan& plan = slot.step->plan();
  StepResult& result = slot.step->result();
  try {
    const py::object failures = runner_.attr(method)(slot.object);
    if (!failures.is_none()) {
      for (py::handle item : failures) {
        const auto [request, exception] = item.cast<std::pair<RequestId, py::object>>();
        drop_frames(exception);
        result.failed.emplace_back(request, status_of(exception));
        exceptions_[request] = exception;
      }
    }
  } catch (py::error_already_set& error) {
    return fail(error, plan);
  }
  return {};
}

// Of requests that a step has shown to be sound.
void PyModelRunner::forget_exceptions(const StepPlan& plan) {
  if (exceptions_.empty()) return;
  for (const ScheduledSequence& sequence : plan.sequences) exceptions_.erase(sequence.request);
}

Status PyModelRunner::fail(py::error_already_set& error, const StepPlan& plan) {
  if (!error.matches(PyExc_Exception)) {
    interrupt_ = exception_of(error);
    return Status::internal("interrupted");
  }
  const py::object exception = exception_of(error);
  drop_frames(exception);
  for (const ScheduledSequence& sequence : plan.sequences)
    exceptions_[sequence.request] = exception;
  return status_of(exception);
}

void PyModelRunner::release(RequestId request) {
  py::gil_scoped_acquire locked;
  try {
    runner_.attr("release")(request);
  } catch (py::error_already_set& error) {
    error.discard_as_unraisable("mmcore: release() of the model runner");
  }
}

int32_t PyModelRunner::num_host_blocks() const {
  return py::getattr(runner_, "num_host_blocks", py::int_(0)).cast<int32_t>();
}

py::object PyModelRunner::take_exception(RequestId request) {
  const auto node = exceptions_.extract(request);
  return node ? std::move(node.mapped()) : py::object(py::none());
}

void PyModelRunner::rethrow_interrupt() {
  if (!interrupt_) return;
  const py::object exception = std::exchange(interrupt_, py::object());
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(exception.ptr())), exception.ptr());
  throw py::error_already_set();
}

}  // namespace mmcore::python
