#include <cmath>
#include <limits>
#include <string>

#include "base/thread_pool.h"
#include "mmcore/ops.h"
#include "ops/cuda_backend.h"
#include "ops/row_logprobs.h"
#include "ops/vocab_row.h"
#include "tensor/dispatch.h"
#include "tensor/shape_check.h"

namespace mmcore::ops {
namespace {

constexpr float kGreedyBelow = 1e-5f;

/// The ranges of sampling.h. NaN fails every comparison.
Status check_params(const SampleRow& r) {
  const auto wrong = [](const char* name, auto value, const char* expected) {
    return Status::invalid_argument(std::string("sample: ") + name + " is " +
                                    std::to_string(value) + ", expected " + expected);
  };
  if (!(r.temperature >= 0.0f && std::isfinite(r.temperature)))
    return wrong("temperature", r.temperature, "a finite number of at least 0");
  if (!(r.top_p > 0.0f && r.top_p <= 1.0f)) return wrong("top_p", r.top_p, "within (0, 1]");
  if (r.top_k != -1 && r.top_k < 1) return wrong("top_k", r.top_k, "-1 (off) or at least 1");
  if (!(r.min_p >= 0.0f && r.min_p <= 1.0f)) return wrong("min_p", r.min_p, "within [0, 1]");
  if (!(r.repetition_penalty > 0.0f && std::isfinite(r.repetition_penalty)))
    return wrong("repetition_penalty", r.repetition_penalty, "a finite number above 0");
  if (!std::isfinite(r.presence_penalty))
    return wrong("presence_penalty", r.presence_penalty, "a finite number");
  if (!std::isfinite(r.frequency_penalty))
    return wrong("frequency_penalty", r.frequency_penalty, "a finite number");
  if (r.num_logprobs < -1) return wrong("num_logprobs", r.num_logprobs, "-1 (none) or at least 0");
  return {};
}

template <class T>
Status sample_row(const T* logits, int64_t vocab, const SampleRow& params, SampledToken& out) {
  static thread_local VocabRow row;
  MMCORE_RETURN_IF_ERROR(check_params(params));
  if (!row.load(logits, vocab)) return Status::invalid_argument("sample: the logits hold a NaN");
  if (!row.edit(params)) {
    return Status::invalid_argument(
        "sample: logit_bias or a penalty turns a logit into a NaN; check them for infinities");
  }
  if (row.max() == -std::numeric_limits<float>::infinity()) {
    return Status::invalid_argument(
        "sample: no token is left to choose; allowed_tokens, banned_tokens and logits of -inf "
        "leave none of " +
        std::to_string(vocab));
  }
  const TokenId token = params.temperature < kGreedyBelow
                            ? row.argmax()
                            : row.draw(params, uniform(params.seed, params.counter));
  if (params.num_logprobs >= 0) {
    if (row.edited()) row.load(logits, vocab);
    row_logprobs(row, token, params.num_logprobs, out.logprobs);
  }
  out.token = token;
  return {};
}

/// The first failure, for a caller that takes no status per row.
Status first_failure(const std::vector<Status>& rows) {
  for (size_t i = 0; i < rows.size(); ++i) {
    if (!rows[i].ok())
      return {rows[i].code(), rows[i].message() + " (row " + std::to_string(i) + ")"};
  }
  return {};
}

}  // namespace

Status sample(const TensorView& logits, std::span<const SampleRow> rows,
              std::vector<SampledToken>& out, std::vector<Status>* row_status, Stream stream) {
  ShapeCheck check("sample");
  const auto S = check.dim("S"), V = check.dim("V");
  check.bind(S, static_cast<int64_t>(rows.size()), "rows");
  check.tensor("logits", logits, {S, V}).floating();
  const int64_t vocab = check.size(V);
  check.require(rows.empty() || (vocab >= 1 && vocab <= std::numeric_limits<TokenId>::max()),
                "logits have " + std::to_string(vocab) + " tokens, expected 1 to 2^31 - 1");
  MMCORE_RETURN_IF_ERROR(check.status());
  if (on_gpu(check.device())) return cuda::sample(logits, rows, out, row_status, stream);
  out.resize(rows.size());
  for (SampledToken& t : out) {
    t.token = -1;
    t.logprobs.clear();
  }
  std::vector<Status> own;
  std::vector<Status>& status = row_status != nullptr ? *row_status : own;
  status.assign(rows.size(), Status());
  MMCORE_RETURN_IF_ERROR(dispatch_float(logits.dtype, "sample", [&]<class T>() {
    const auto body = [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const auto r = static_cast<size_t>(i);
        status[r] =
            sample_row(logits.ptr<const T>() + i * logits.stride(0), vocab, rows[r], out[r]);
      }
    };
    parallel_for(logits.size(0), 1, body);
  }));
  return row_status != nullptr ? Status() : first_failure(own);
}

}  // namespace mmcore::ops
