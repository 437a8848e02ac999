#include <limits>
#include <string>

#include "base/thread_pool.h"
#include "mmcore/ops.h"
#include "ops/cuda_backend.h"
#include "ops/row_logprobs.h"
#include "ops/sample_row.h"
#include "ops/vocab_row.h"
#include "tensor/dispatch.h"
#include "tensor/shape_check.h"

namespace mmcore::ops {
namespace {

template <class T>
Status sample_row(const T* logits, int64_t vocab, const SampleRow& params, SampledToken& out) {
  static thread_local VocabRow row;
  MMCORE_RETURN_IF_ERROR(check_sample_row(params));
  if (!row.load(logits, vocab)) return nan_in_logits();
  if (!row.edit(params)) return nan_from_edits();
  if (row.max() == -std::numeric_limits<float>::infinity()) return nothing_left(vocab);
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
