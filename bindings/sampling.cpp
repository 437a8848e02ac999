#include "sampling.h"

#include <pybind11/stl.h>

#include <string>
#include <utility>
#include <vector>

#include "mmcore/ops.h"
#include "run_op.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace mmcore::python {
namespace {

// Parameters of all rows, one vector a parameter; an empty one leaves the default everywhere.
struct Columns {
  std::vector<float> temperature, top_p;
  std::vector<int32_t> top_k;
  std::vector<float> min_p, presence_penalty, frequency_penalty, repetition_penalty;
  std::vector<uint64_t> seed, counter;
  std::vector<int32_t> num_logprobs;
  std::vector<std::vector<TokenId>> prompt_tokens, output_tokens;
  std::vector<std::vector<std::pair<TokenId, float>>> logit_bias;
  std::vector<std::vector<TokenId>> allowed_tokens, banned_tokens;
};

template <class T, class Field>
void fill(std::vector<SampleRow>& rows, const char* name, const std::vector<T>& column,
          Field SampleRow::* field) {
  if (column.empty()) return;
  if (column.size() != rows.size())
    throw py::value_error(std::string("sample: ") + name + " has " + std::to_string(column.size()) +
                          " entries for " + std::to_string(rows.size()) + " rows of logits");
  for (size_t i = 0; i < rows.size(); ++i) rows[i].*field = column[i];
}

// The rows borrow from `columns`.
std::vector<SampleRow> rows_of(const Columns& columns, size_t count) {
  std::vector<SampleRow> rows(count);
  fill(rows, "temperature", columns.temperature, &SampleRow::temperature);
  fill(rows, "top_p", columns.top_p, &SampleRow::top_p);
  fill(rows, "top_k", columns.top_k, &SampleRow::top_k);
  fill(rows, "min_p", columns.min_p, &SampleRow::min_p);
  fill(rows, "presence_penalty", columns.presence_penalty, &SampleRow::presence_penalty);
  fill(rows, "frequency_penalty", columns.frequency_penalty, &SampleRow::frequency_penalty);
  fill(rows, "repetition_penalty", columns.repetition_penalty, &SampleRow::repetition_penalty);
  fill(rows, "seed", columns.seed, &SampleRow::seed);
  fill(rows, "counter", columns.counter, &SampleRow::counter);
  fill(rows, "num_logprobs", columns.num_logprobs, &SampleRow::num_logprobs);
  fill(rows, "prompt_tokens", columns.prompt_tokens, &SampleRow::prompt_tokens);
  fill(rows, "output_tokens", columns.output_tokens, &SampleRow::output_tokens);
  fill(rows, "logit_bias", columns.logit_bias, &SampleRow::logit_bias);
  fill(rows, "allowed_tokens", columns.allowed_tokens, &SampleRow::allowed_tokens);
  fill(rows, "banned_tokens", columns.banned_tokens, &SampleRow::banned_tokens);
  return rows;
}

py::list tuples_of(const std::vector<TokenLogprob>& entries) {
  py::list out;
  for (const TokenLogprob& e : entries) out.append(py::make_tuple(e.token, e.logprob, e.rank));
  return out;
}

py::tuple sample(const TensorView& logits, const Columns& columns) {
  if (logits.rank != 2)
    throw py::value_error("sample: logits must be [rows, vocabulary], got " + describe(logits));
  const std::vector<SampleRow> rows = rows_of(columns, static_cast<size_t>(logits.size(0)));
  std::vector<SampledToken> tokens;
  std::vector<Status> row_status;
  run_op(logits,
         [&](Stream stream) { return ops::sample(logits, rows, tokens, &row_status, stream); });
  py::list ids, logprobs, errors;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const bool failed = i < row_status.size() && !row_status[i].ok();
    ids.append(tokens[i].token);
    logprobs.append(tuples_of(tokens[i].logprobs));
    errors.append(failed ? make_exception(row_status[i]) : py::object(py::none()));
  }
  return py::make_tuple(ids, logprobs, errors);
}

}  // namespace

void bind_sampling(py::module_& m) {
  using Floats = std::vector<float>;
  using Ints = std::vector<int32_t>;
  using Keys = std::vector<uint64_t>;
  using TokenLists = std::vector<std::vector<TokenId>>;
  m.def(
      "sample",
      [](TensorView logits, Floats temperature, Floats top_p, Ints top_k, Floats min_p,
         Floats presence_penalty, Floats frequency_penalty, Floats repetition_penalty, Keys seed,
         Keys counter, Ints num_logprobs, TokenLists prompt_tokens, TokenLists output_tokens,
         std::vector<std::vector<std::pair<TokenId, float>>> logit_bias, TokenLists allowed_tokens,
         TokenLists banned_tokens) {
        return sample(logits, {.temperature = std::move(temperature),
                               .top_p = std::move(top_p),
                               .top_k = std::move(top_k),
                               .min_p = std::move(min_p),
                               .presence_penalty = std::move(presence_penalty),
                               .frequency_penalty = std::move(frequency_penalty),
                               .repetition_penalty = std::move(repetition_penalty),
                               .seed = std::move(seed),
                               .counter = std::move(counter),
                               .num_logprobs = std::move(num_logprobs),
                               .prompt_tokens = std::move(prompt_tokens),
                               .output_tokens = std::move(output_tokens),
                               .logit_bias = std::move(logit_bias),
                               .allowed_tokens = std::move(allowed_tokens),
                               .banned_tokens = std::move(banned_tokens)});
      },
      "logits"_a, py::kw_only(), "temperature"_a = Floats(), "top_p"_a = Floats(),
      "top_k"_a = Ints(), "min_p"_a = Floats(), "presence_penalty"_a = Floats(),
      "frequency_penalty"_a = Floats(), "repetition_penalty"_a = Floats(), "seed"_a = Keys(),
      "counter"_a = Keys(), "num_logprobs"_a = Ints(), "prompt_tokens"_a = TokenLists(),
      "output_tokens"_a = TokenLists(), "logit_bias"_a = py::list(),
      "allowed_tokens"_a = TokenLists(), "banned_tokens"_a = TokenLists(),
      "Picks a token a row. Gives tokens, lists of (token, logprob, rank), and an exception or "
      "None a row.");
  m.def("uniform", &ops::uniform, "seed"_a, "counter"_a);
  m.def(
      "logprobs",
      [](TensorView logits, const std::vector<TokenId>& targets, const std::vector<int32_t>& num) {
        std::vector<std::vector<TokenLogprob>> entries;
        run_op(logits,
               [&](Stream stream) { return ops::logprobs(logits, targets, num, entries, stream); });
        py::list out;
        for (const auto& row : entries) out.append(tuples_of(row));
        return out;
      },
      "logits"_a, "targets"_a, "num"_a);
  bind_sampling_tensors(m);
}

}  // namespace mmcore::python
