#include <algorithm>
#include <cstring>
#include <string>

#include "base/thread_pool.h"
#include "mmcore/ops.h"
#include "ops/cuda_backend.h"
#include "tensor/shape_check.h"

namespace mmcore::ops {
namespace {

int64_t id_at(const TensorView& ids, int64_t t) {
  return ids.dtype == DType::kInt32 ? int64_t{ids.ptr<const int32_t>()[t]}
                                    : ids.ptr<const int64_t>()[t];
}

/// Row of `source` for token t; negative where it is text.
int64_t media_row(const EmbeddingMergeArgs& args, int64_t t) {
  return args.source.present ? args.source.ptr<const int64_t>()[t] : -1;
}

/// Every row that is going to be read exists.
Status check_rows(const EmbeddingMergeArgs& args, int64_t tokens) {
  const int64_t media_rows = args.media.present ? args.media.size(0) : 0;
  for (int64_t t = 0; t < tokens; ++t) {
    const int64_t row = media_row(args, t);
    const int64_t id = id_at(args.token_ids, t);
    if (row >= media_rows) {
      return Status::invalid_argument("embedding_merge: source[" + std::to_string(t) + "] is " +
                                      std::to_string(row) + ", expected below " +
                                      std::to_string(media_rows) + ", the rows of media");
    }
    if (row < 0 && (id < 0 || id >= args.table.size(0))) {
      return Status::invalid_argument("embedding_merge: token_ids[" + std::to_string(t) + "] is " +
                                      std::to_string(id) + ", expected within [0, " +
                                      std::to_string(args.table.size(0)) + "), the rows of table");
    }
  }
  return {};
}

}  // namespace

Status embedding_merge(const EmbeddingMergeArgs& args, Stream stream) {
  ShapeCheck check("embedding_merge");
  const auto T = check.dim("T"), V = check.dim("V"), H = check.dim("H"), M = check.dim("M");
  check.tensor("table", args.table, {V, H}).floating();
  check.tensor("token_ids", args.token_ids, {T}).dtype({DType::kInt32, DType::kInt64});
  check.optional("source", args.source, {T}).dtype(DType::kInt64);
  check.optional("media", args.media, {M, H}).dtype(args.table.dtype);
  check.tensor("out", args.out, {T, H}).dtype(args.table.dtype).writable();
  MMCORE_RETURN_IF_ERROR(check.status());
  if (on_gpu(check.device())) return cuda::embedding_merge(args, stream);
  MMCORE_RETURN_IF_ERROR(check_rows(args, check.size(T)));

  const auto element = static_cast<int64_t>(size_of(args.table.dtype));
  const int64_t bytes = check.size(H) * element;
  if (bytes == 0) return {};
  const auto row_of = [element](const TensorView& t, int64_t row) {
    return t.ptr<char>() + row * t.stride(0) * element;
  };
  const int64_t grain = std::max<int64_t>(1, 65536 / bytes);
  parallel_for(check.size(T), grain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t row = media_row(args, t);
      const char* from =
          row >= 0 ? row_of(args.media, row) : row_of(args.table, id_at(args.token_ids, t));
      std::memcpy(row_of(args.out, t), from, static_cast<size_t>(bytes));
    }
  });
  return {};
}

}  // namespace mmcore::ops
