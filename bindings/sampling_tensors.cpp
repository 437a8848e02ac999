// The sampler that takes its parameters in tensors and does not wait.
#include <pybind11/pybind11.h>

#include "mmcore/ops.h"
#include "run_op.h"
#include "sampling.h"
#include "tensor_caster.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace mmcore::python {

void bind_sampling_tensors(py::module_& m) {
  m.def("sample_tensors_workspace_bytes", &ops::sample_tensors_workspace_bytes, "rows"_a,
        "vocab"_a);
  m.def(
      "sample_tensors",
      [](TensorView logits, TensorView temperature, TensorView top_p, TensorView min_p,
         TensorView top_k, TensorView seed, TensorView counter, Writable tokens,
         Writable workspace) {
        const ops::SampleTensorsArgs args{.logits = logits,
                                          .temperature = temperature,
                                          .top_p = top_p,
                                          .min_p = min_p,
                                          .top_k = top_k,
                                          .seed = seed,
                                          .counter = counter,
                                          .tokens = tokens.view,
                                          .workspace = workspace.view};
        run_op(logits, [&](Stream stream) { return ops::sample_tensors(args, stream); });
      },
      "logits"_a, "temperature"_a, "top_p"_a, "min_p"_a, "top_k"_a, "seed"_a, "counter"_a,
      "tokens"_a, "workspace"_a = py::none());
}

}  // namespace mmcore::python
