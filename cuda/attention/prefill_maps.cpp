#include "attention/prefill_maps.h"

#include <algorithm>
#include <string>

#include "attention/prefill.h"
#include "host/tensor_map_encoder.h"

namespace mmcore::cuda {
namespace {

int64_t element_bytes(DType dtype) { return dtype == DType::kFloat8E4M3 ? 1 : 2; }

/// Panels of 64 elements with their pieces exchanged, or, of e4m3, whole rows.
CUresult encode(DType dtype, const void* data, const cuuint64_t (&sizes)[4],
                const int64_t (&strides)[3], int32_t box_rows, CUtensorMap& map) {
  const bool e4m3 = dtype == DType::kFloat8E4M3;
  const cuuint32_t box[4] = {e4m3 ? static_cast<cuuint32_t>(sizes[0]) : 64, 1,
                             static_cast<cuuint32_t>(box_rows), 1};
  const cuuint32_t steps[4] = {1, 1, 1, 1};
  cuuint64_t byte_strides[3];
  for (int i = 0; i < 3; ++i) {
    byte_strides[i] = static_cast<cuuint64_t>(element_bytes(dtype) * strides[i]);
  }
  return tensor_map_encoder()(
      &map,
      e4m3                        ? CU_TENSOR_MAP_DATA_TYPE_UINT8
      : dtype == DType::kBFloat16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                  : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
      4, const_cast<void*>(data), sizes, byte_strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
      e4m3 ? CU_TENSOR_MAP_SWIZZLE_NONE : CU_TENSOR_MAP_SWIZZLE_128B,
      CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}

CUresult describe(const PrefillParams& a, const ops::KvRows& rows, int32_t box_rows,
                  CUtensorMap& map) {
  const ops::AttentionProblem& p = a.p;
  const bool paged = p.block_tables != nullptr;
  // How many blocks there are is not known here, and nothing out of range is asked for: as many as
  // 256 GiB hold.
  constexpr int64_t kMostBytes = int64_t{1} << 38;
  const int64_t element = element_bytes(p.kv_dtype), least = 16 / element;
  const int64_t block = paged ? rows.block_stride : std::max(rows.row_stride, least);
  const int64_t blocks =
      std::clamp<int64_t>(kMostBytes / std::max<int64_t>(element * block, 1), 1, 0x7fffffff);
  const cuuint64_t sizes[4] = {
      static_cast<cuuint64_t>(p.head_dim), static_cast<cuuint64_t>(p.kv_heads),
      static_cast<cuuint64_t>(paged ? int64_t{1} << p.block_shift : a.key_rows),
      static_cast<cuuint64_t>(paged ? blocks : 1)};
  const int64_t strides[3] = {p.kv_heads == 1 ? least : rows.head_stride, rows.row_stride, block};
  return encode(p.kv_dtype, rows.data, sizes, strides, box_rows, map);
}

CUresult describe_queries(const PrefillParams& a, CUtensorMap& map) {
  const ops::AttentionProblem& p = a.p;
  const cuuint64_t sizes[4] = {static_cast<cuuint64_t>(p.head_dim),
                               static_cast<cuuint64_t>(p.heads),
                               static_cast<cuuint64_t>(a.query_rows), 1};
  const int64_t strides[3] = {p.heads == 1 ? 8 : p.q_head_stride, p.q_row_stride, p.q_row_stride};
  return encode(p.dtype, p.q, sizes, strides, kPrefillTileRows, map);
}

}  // namespace

bool attention_maps_possible(const PrefillParams& a) {
  // vector_kv says that elements go by eights; 16 bytes of e4m3 are 16.
  const bool e4m3 = a.p.kv_dtype == DType::kFloat8E4M3;
  const auto good = [&](int64_t stride) { return stride > 0 && (!e4m3 || stride % 16 == 0); };
  const auto strides = [&](const ops::KvRows& rows) {
    return good(rows.row_stride) && (a.p.kv_heads == 1 || good(rows.head_stride)) &&
           (a.p.block_tables == nullptr || good(rows.block_stride));
  };
  const bool queries = a.vector_q && a.query_rows > 0 && a.p.q_row_stride > 0 &&
                       (a.p.heads == 1 || a.p.q_head_stride > 0);
  const bool rows = a.p.block_tables != nullptr ? a.p.block_shift >= 3 : a.key_rows > 0 && !e4m3;
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
