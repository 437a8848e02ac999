#include "attention/prefill_maps.h"

#include <algorithm>
#include <string>

#include "attention/prefill.h"
#include "host/tensor_map_encoder.h"

namespace mmcore::cuda {
namespace {

cuuint64_t bytes(int64_t elements) { return static_cast<cuuint64_t>(2 * elements); }

CUresult encode(const PrefillParams& a, const void* data, const cuuint64_t (&sizes)[4],
                const cuuint64_t (&strides)[3], int32_t box_rows, CUtensorMap& map) {
  const cuuint32_t box[4] = {64, 1, static_cast<cuuint32_t>(box_rows), 1};
  const cuuint32_t steps[4] = {1, 1, 1, 1};
  return tensor_map_encoder()(&map,
                              a.p.dtype == DType::kBFloat16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                                            : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
                              4, const_cast<void*>(data), sizes, strides, box, steps,
                              CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                              CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                              CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}

CUresult describe(const PrefillParams& a, const ops::KvRows& rows, int32_t box_rows,
                  CUtensorMap& map) {
  const ops::AttentionProblem& p = a.p;
  const bool paged = p.block_tables != nullptr;
  // How many blocks there are is not known here, and nothing out of range is asked for: as many as
  // 256 GiB hold.
  constexpr int64_t kMostBytes = int64_t{1} << 38;
  const int64_t block = paged ? rows.block_stride : std::max<int64_t>(rows.row_stride, 8);
  const int64_t blocks =
      std::clamp<int64_t>(kMostBytes / std::max<int64_t>(2 * block, 1), 1, 0x7fffffff);
  const cuuint64_t sizes[4] = {
      static_cast<cuuint64_t>(p.head_dim), static_cast<cuuint64_t>(p.kv_heads),
      static_cast<cuuint64_t>(paged ? int64_t{1} << p.block_shift : a.key_rows),
      static_cast<cuuint64_t>(paged ? blocks : 1)};
  const cuuint64_t strides[3] = {bytes(p.kv_heads == 1 ? 8 : rows.head_stride),
                                 bytes(rows.row_stride), bytes(block)};
  return encode(a, rows.data, sizes, strides, box_rows, map);
}

CUresult describe_queries(const PrefillParams& a, CUtensorMap& map) {
  const ops::AttentionProblem& p = a.p;
  const cuuint64_t sizes[4] = {static_cast<cuuint64_t>(p.head_dim),
                               static_cast<cuuint64_t>(p.heads),
                               static_cast<cuuint64_t>(a.query_rows), 1};
  const cuuint64_t strides[3] = {bytes(p.heads == 1 ? 8 : p.q_head_stride), bytes(p.q_row_stride),
                                 bytes(p.q_row_stride)};
  return encode(a, p.q, sizes, strides, kPrefillTileRows, map);
}

}  // namespace

bool attention_maps_possible(const PrefillParams& a) {
  const auto strides = [&](const ops::KvRows& rows) {
    return rows.row_stride > 0 && (a.p.kv_heads == 1 || rows.head_stride > 0) &&
           (a.p.block_tables == nullptr || rows.block_stride > 0);
  };
  const bool queries = a.vector_q && a.query_rows > 0 && a.p.q_row_stride > 0 &&
                       (a.p.heads == 1 || a.p.q_head_stride > 0);
  const bool rows = a.p.block_tables != nullptr ? a.p.block_shift >= 3 : a.key_rows > 0;
  return queries && a.vector_kv && rows && strides(a.p.k) && strides(a.p.v) &&
         tensor_map_encoder() != nullptr;
}

Status attention_maps(const char* op, const PrefillParams& a, int32_t rows, AttentionMaps& maps) {
  maps.box_rows = a.p.block_tables != nullptr ? std::min(rows, 1 << a.p.block_shift) : rows;
  CUresult result = describe_queries(a, maps.q);
  if (result == CUDA_SUCCESS) result = describe(a, a.p.k, maps.box_rows, maps.k);
  if (result == CUDA_SUCCESS) result = describe(a, a.p.v, maps.box_rows, maps.v);
  if (result == CUDA_SUCCESS) return {};
  return Status::internal(std::string(op) + ": cuTensorMapEncodeTiled failed with " +
                          std::to_string(static_cast<int>(result)) + " for rows of " +
                          std::to_string(a.p.head_dim) + " elements");
}

}  // namespace mmcore::cuda
