#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "base/thread_pool.h"
#include "mmcore/ops.h"
#include "ops/cuda_backend.h"
#include "ops/row_logprobs.h"
#include "tensor/dispatch.h"
#include "tensor/shape_check.h"

namespace mmcore::ops {

void row_logprobs(VocabRow& row, TokenId token, int64_t num, std::vector<TokenLogprob>& out) {
  const double log_total = std::log(row.total_weight());
  const auto entry = [&](TokenId id, float value, int32_t rank) {
    const double above = value == row.max() ? 0.0 : double{value} - double{row.max()};
    return TokenLogprob{
        .token = id, .logprob = static_cast<float>(above - log_total), .rank = rank};
  };
  out.clear();
  out.push_back(entry(token, row[token], row.rank(token)));
  num = std::min(num, row.size());
  if (num <= 0) return;
  const std::span<Candidate> best = row.largest(num);
  std::sort(best.begin(), best.end());
  int32_t rank = 0;
  for (const Candidate& c : best) out.push_back(entry(c.token, c.weight, ++rank));
}

namespace {

std::string row_name(int64_t index) { return "logprobs: row " + std::to_string(index); }

}  // namespace

Status check_target(int64_t index, TokenId target, int64_t vocab) {
  if (target >= 0 && target < vocab) return {};
  return Status::invalid_argument(row_name(index) + " has target " + std::to_string(target) +
                                  ", expected within [0, " + std::to_string(vocab) + ")");
}

Status nan_in_row(int64_t index) {
  return Status::invalid_argument(row_name(index) + " of logits holds a NaN");
}

Status nothing_in_row(int64_t index) {
  return Status::invalid_argument(row_name(index) + " of logits holds nothing above -inf");
}

namespace {

template <class T>
Status logprobs_of(const T* logits, int64_t vocab, int64_t index, TokenId target, int32_t num,
                   std::vector<TokenLogprob>& out) {
  static thread_local VocabRow row;
  MMCORE_RETURN_IF_ERROR(check_target(index, target, vocab));
  if (!row.load(logits, vocab)) return nan_in_row(index);
  if (row.max() == -std::numeric_limits<float>::infinity()) return nothing_in_row(index);
  row_logprobs(row, target, num, out);
  return {};
}

}  // namespace

Status logprobs(const TensorView& logits, std::span<const TokenId> targets,
                std::span<const int32_t> num, std::vector<std::vector<TokenLogprob>>& out,
                Stream stream) {
  ShapeCheck check("logprobs");
  const auto S = check.dim("S"), V = check.dim("V");
  check.bind(S, static_cast<int64_t>(targets.size()), "targets");
  check.tensor("logits", logits, {S, V}).floating();
  const int64_t vocab = check.size(V);
  check.require(targets.size() == num.size(), "num has " + std::to_string(num.size()) +
                                                  " entries, expected " +
                                                  std::to_string(targets.size()) + " as targets");
  check.require(vocab <= std::numeric_limits<TokenId>::max(),
                "logits have " + std::to_string(vocab) + " tokens, expected below 2^31");
  MMCORE_RETURN_IF_ERROR(check.status());
  if (on_gpu(check.device())) return cuda::logprobs(logits, targets, num, out, stream);
  out.resize(targets.size());
  for (auto& list : out) list.clear();
  std::vector<Status> status(targets.size());
  MMCORE_RETURN_IF_ERROR(dispatch_float(logits.dtype, "logprobs", [&]<class T>() {
    const auto body = [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const auto r = static_cast<size_t>(i);
        if (num[r] < 0) continue;
        status[r] = logprobs_of(logits.ptr<const T>() + i * logits.stride(0), vocab, i, targets[r],
                                num[r], out[r]);
      }
    };
    parallel_for(logits.size(0), 1, body);
  }));
  for (const Status& s : status) MMCORE_RETURN_IF_ERROR(s);
  return {};
}

}  // namespace mmcore::ops
