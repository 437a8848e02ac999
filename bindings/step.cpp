#include "step.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>
#include <utility>

#include "errors.h"
#include "mmcore/ops.h"
#include "module.h"
#include "tensor_caster.h"

namespace py = pybind11;

namespace mmcore::python {

const StepPlan& Step::plan() const {
  if (plan_ == nullptr) throw InternalError("a StepPlan is valid only while its step runs");
  return *plan_;
}

StepResult& Step::result() const {
  plan();
  return *result_;
}

namespace {

// Views `values` without a copy; `owner` is the Step, so that numpy frees nothing.
template <class T>
py::array_t<T> array_over(const std::vector<T>& values, py::handle owner) {
  return py::array_t<T>({static_cast<py::ssize_t>(values.size())}, {}, values.data(), owner);
}

// Likewise, of structures: their dtype has no name in a signature.
template <class T>
auto records_of(std::vector<T> StepPlan::* member) {
  return [member](const py::object& self) -> py::array {
    return array_over(self.cast<const Step&>().plan().*member, self);
  };
}

template <class T>
auto array_of(std::vector<T> StepPlan::* member) {
  return [member](const py::object& self) {
    return array_over(self.cast<const Step&>().plan().*member, self);
  };
}

py::array_t<int32_t> block_tables(const py::object& self) {
  const StepPlan& plan = self.cast<const Step&>().plan();
  const py::ssize_t rows = static_cast<py::ssize_t>(plan.sequences.size());
  return py::array_t<int32_t>({rows, static_cast<py::ssize_t>(plan.block_table_width)}, {},
                              plan.block_tables.data(), self);
}

struct PrefillCount {
  int32_t sequences = 0;
  int32_t tokens = 0;
};

PrefillCount count_prefills(const Step& step) {
  PrefillCount count;
  for (const ScheduledSequence& sequence : step.plan().sequences) {
    if (!sequence.is_prefill) continue;
    ++count.sequences;
    count.tokens += sequence.num_tokens;
  }
  return count;
}

// The request whose newest token is sampled from row `row` of the logits.
RequestId request_of_sample(const StepPlan& plan, size_t row) {
  for (const ScheduledSequence& sequence : plan.sequences)
    if (sequence.sample_row == static_cast<int32_t>(row)) return sequence.request;
  throw InternalError("no sequence has sample row " + std::to_string(row));
}

void sample(const Step& step, const TensorView& logits) {
  const StepPlan& plan = step.plan();
  StepResult& result = step.result();
  std::vector<Status> rows;
  const Stream stream = current_stream(logits);
  Status status;
  {
    py::gil_scoped_release unlocked;
    status = ops::sample(logits, plan.sampling, result.tokens, &rows, stream);
  }
  throw_if_error(status);
  for (size_t row = 0; row < rows.size(); ++row)
    if (!rows[row].ok()) result.failed.emplace_back(request_of_sample(plan, row), rows[row]);
}

void prompt_logprobs(const Step& step, const TensorView& logits, size_t first) {
  const StepPlan& plan = step.plan();
  const size_t rows = logits.rank == 2 ? static_cast<size_t>(logits.size(0)) : 0;
  if (rows == 0 || first > plan.prompt_logprob_rows.size() ||
      rows > plan.prompt_logprob_rows.size() - first) {
    throw_error(Status::invalid_argument(
        "prompt_logprobs: logits are " + describe(logits) + " from row " + std::to_string(first) +
        " on, but the plan has " + std::to_string(plan.prompt_logprob_rows.size()) + " rows."));
  }
  const auto targets = std::span(plan.prompt_logprob_targets).subspan(first, rows);
  const auto counts = std::span(plan.prompt_logprob_counts).subspan(first, rows);
  std::vector<std::vector<TokenLogprob>> out;
  const Stream stream = current_stream(logits);
  Status status;
  {
    py::gil_scoped_release unlocked;
    status = ops::logprobs(logits, targets, counts, out, stream);
  }
  throw_if_error(status);
  auto& kept = step.result().prompt_logprobs;
  kept.insert(kept.end(), std::make_move_iterator(out.begin()), std::make_move_iterator(out.end()));
}

void set_tokens(const Step& step, const std::vector<TokenId>& tokens) {
  auto& out = step.result().tokens;
  out.clear();
  for (TokenId token : tokens) out.push_back({token, {}});
}

py::typing::List<py::int_> sampled_tokens(const Step& step) {
  py::typing::List<py::int_> tokens;
  for (const SampledToken& token : step.result().tokens) tokens.append(py::int_(token.token));
  return tokens;
}

// Whether ops::sample_tensors can sample the row.
bool is_plain(const SampleRow& row) {
  return row.presence_penalty == 0 && row.frequency_penalty == 0 && row.repetition_penalty == 1 &&
         row.num_logprobs < 0 && row.logit_bias.empty() && row.allowed_tokens.empty() &&
         row.banned_tokens.empty();
}

// The columns of ops::sample_tensors, one behind the other.
py::object plain_sampling(const Step& step) {
  const std::vector<SampleRow>& rows = step.plan().sampling;
  if (!std::ranges::all_of(rows, is_plain)) return py::none();
  const size_t n = rows.size();
  py::array_t<int32_t> columns(static_cast<py::ssize_t>(8 * n));
  auto* out = reinterpret_cast<std::byte*>(columns.mutable_data());
  const auto put = [&](size_t word, size_t i, auto value) {
    std::memcpy(out + 4 * word * n + sizeof(value) * i, &value, sizeof(value));
  };
  for (size_t i = 0; i < n; ++i) {
    put(0, i, rows[i].seed);
    put(2, i, rows[i].counter);
    put(4, i, rows[i].temperature);
    put(5, i, rows[i].top_p);
    put(6, i, rows[i].min_p);
    put(7, i, rows[i].top_k);
  }
  return columns;
}

using TokenArray = py::array_t<TokenId>;

py::typing::Tuple<TokenArray, TokenArray> history(const py::object& self, size_t row) {
  const StepPlan& plan = self.cast<const Step&>().plan();
  if (row >= plan.sampling.size()) throw py::index_error("no such sample row");
  const auto view = [&](std::span<const TokenId> ids) {
    return TokenArray({static_cast<py::ssize_t>(ids.size())}, {}, ids.data(), self);
  };
  return py::make_tuple(view(plan.sampling[row].prompt_tokens),
                        view(plan.sampling[row].output_tokens));
}

}  // namespace

void register_step_dtypes() {
  static bool done = false;  // under the GIL
  if (std::exchange(done, true)) return;
  PYBIND11_NUMPY_DTYPE(ScheduledSequence, request, sequence, first_row, num_tokens, num_computed,
                       is_prefill, sample_row);
  PYBIND11_NUMPY_DTYPE(EncodeItem, request, item_index, slot, num_embeddings);
  PYBIND11_NUMPY_DTYPE(EmbeddingCopy, request, item_index, slot, src_row, dst_row, num_rows);
  PYBIND11_NUMPY_DTYPE(BlockCopy, src, dst);
  PYBIND11_NUMPY_DTYPE(HostCopy, block, host_block);
}

void bind_step(py::module_& m) {
  py::class_<Step>(m, "StepPlan", R"(All that one forward pass needs; valid while the step runs.

Arrays are numpy views of the engine's memory, not copies: T rows (tokens), N sequences, S sampled
rows. They are valid until the runner's execute() or end() returns. Copy what must live longer.)")
      .def_property_readonly("step", [](const Step& s) { return s.plan().step; })
      .def_property_readonly("num_tokens", [](const Step& s) { return s.plan().token_ids.size(); })
      .def_property_readonly("num_sequences",
                             [](const Step& s) { return s.plan().sequences.size(); })
      .def_property_readonly("num_samples",
                             [](const Step& s) { return s.plan().sample_rows.size(); })
      .def_property_readonly("num_prefills",
                             [](const Step& s) { return count_prefills(s).sequences; })
      .def_property_readonly("num_prefill_tokens",
                             [](const Step& s) { return count_prefills(s).tokens; })
      .def_property_readonly("max_query_len", [](const Step& s) { return s.plan().max_query_len; })
      .def_property_readonly("max_seq_len", [](const Step& s) { return s.plan().max_seq_len; })
      .def_property_readonly("sequences", records_of(&StepPlan::sequences))
      .def_property_readonly("token_ids", array_of(&StepPlan::token_ids))
      .def_property_readonly("token_sources", array_of(&StepPlan::token_sources),
                             "Empty, or for each row the sample of the step before it whose token "
                             "it is, -1 where the token is known.")
      .def_property_readonly("positions", array_of(&StepPlan::positions))
      .def_property_readonly("slot_mapping", array_of(&StepPlan::slot_mapping))
      .def_property_readonly("query_start", array_of(&StepPlan::query_start))
      .def_property_readonly("seq_lens", array_of(&StepPlan::seq_lens))
      .def_property_readonly("block_tables", &block_tables)
      .def_property_readonly("sample_rows", array_of(&StepPlan::sample_rows))
      .def_property_readonly("prompt_logprob_rows", array_of(&StepPlan::prompt_logprob_rows))
      .def_property_readonly("host_saves", records_of(&StepPlan::host_saves))
      .def_property_readonly("host_loads", records_of(&StepPlan::host_loads))
      .def_property_readonly("block_copies", records_of(&StepPlan::block_copies))
      .def_property_readonly("encode", records_of(&StepPlan::encode))
      .def_property_readonly("embeddings", records_of(&StepPlan::embeddings))
      .def_property_readonly("evict", array_of(&StepPlan::evict))
      .def("history", &history, py::arg("row"),
           "Give the prompt's and the generated token ids of a sampled row.")
      .def("plain_sampling", &plain_sampling,
           "Give the parameters of sample_tensors as int32 [8 S]: seeds and counters (64 bits "
           "each), "
           "temperatures, top_p, min_p (float32), top_k; None if a row needs more than those.")
      .def("set_tokens", &set_tokens, py::arg("tokens"),
           "Set the sampled tokens, one a sampled row: for runners that sample by themselves.")
      .def_property_readonly("sampled_tokens", &sampled_tokens);
  m.def("sample", &sample, py::arg("plan"), py::arg("logits"),
        "Sample one token a row of logits [S, V] by the plan's parameters; the plan keeps them.");
  m.def("prompt_logprobs", &prompt_logprobs, py::arg("plan"), py::arg("logits"),
        py::arg("first") = 0,
        "Take the prompt logprobs of the plan's rows [first, first + len(logits)), in order.");
}

}  // namespace mmcore::python
