// The kernel for everything without a fast one: float32, and q of another type than the keys. A
// warp a query row; lanes score a key each and then sum a share of the dimensions each.
#include <cstdint>

#include "attention/prefill_tile.cuh"
#include "device/convert.cuh"
#include "host/device.h"
#include "tensor/dispatch.h"

namespace mmcore::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kMaxDim = 256;

template <class T, class KV>
__global__ void __launch_bounds__(32 * kWarps)
    prefill_plain(const __grid_constant__ PrefillParams a) {
  __shared__ float queries[kWarps][kMaxDim];
  const ops::AttentionProblem& p = a.p;
  const int32_t index = static_cast<int32_t>(blockIdx.x / static_cast<uint32_t>(p.heads));
  const int32_t head = static_cast<int32_t>(blockIdx.x % static_cast<uint32_t>(p.heads));
  QueryTile tile;
  if (!find_tile(a, index, tile)) return;

  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int64_t kv_head = head / (p.heads / p.kv_heads);
  const int64_t start = p.block_tables != nullptr ? 0 : p.kv_start[tile.sequence];
  const auto row_at = [&](const ops::KvRows& rows, int32_t key) {
    if (p.block_tables == nullptr) {
      return (start + key) * rows.row_stride + kv_head * rows.head_stride;
    }
    const int64_t block = p.block_tables[tile.sequence * p.table_stride + (key >> p.block_shift)];
    return block * rows.block_stride + (key & ((1 << p.block_shift) - 1)) * rows.row_stride +
           kv_head * rows.head_stride;
  };

  for (int32_t r = warp; r < tile.rows(); r += kWarps) {
    const int64_t row = p.query_start[tile.sequence] + int64_t{tile.first} + r;
    const T* q = static_cast<const T*>(p.q) + row * p.q_row_stride + head * p.q_head_stride;
    T* out = static_cast<T*>(p.out) + row * p.out_row_stride + head * p.out_head_stride;
    __syncwarp();
    for (int d = lane; d < p.head_dim; d += 32) queries[warp][d] = to_float(q[d]);
    __syncwarp();

    const KeySpan span = visible(p, tile, tile.first + r);
    float top = -INFINITY, sum = 0.0f, acc[kMaxDim / 32] = {};
    for (int32_t first = span.begin; first < span.end; first += 32) {
      const int32_t key = first + lane;
      float score = -INFINITY;
      int64_t v_at = 0;
      if (key < span.end) {
        const KV* k = static_cast<const KV*>(p.k.data) + row_at(p.k, key);
        v_at = row_at(p.v, key);
        float product = 0.0f;
        for (int d = 0; d < p.head_dim; ++d) product += queries[warp][d] * to_float(k[d]);
        score = product * p.scale;
        if (p.soft_cap > 0.0f) score = p.soft_cap * tanhf(score / p.soft_cap);
      }
      const float highest = fmaxf(top, warp_max(score));
      const float factor = expf(top - highest);
      const float weight = expf(score - highest);
      top = highest;
      sum = sum * factor + weight;
#pragma unroll
      for (int i = 0; i < kMaxDim / 32; ++i) acc[i] *= factor;
      const int count = min(32, span.end - first);
      for (int j = 0; j < count; ++j) {
        const float w = __shfl_sync(kFullWarp, weight, j);
        const KV* v = static_cast<const KV*>(p.v.data) + __shfl_sync(kFullWarp, v_at, j);
#pragma unroll
        for (int i = 0; i < kMaxDim / 32; ++i) {
          if (lane + 32 * i < p.head_dim) acc[i] += w * to_float(v[lane + 32 * i]);
        }
      }
    }
    sum = warp_sum(sum);
#pragma unroll
    for (int i = 0; i < kMaxDim / 32; ++i) {
      if (lane + 32 * i < p.head_dim) {
        out[lane + 32 * i] = from_float<T>(sum > 0.0f ? acc[i] * p.v_scale / sum : 0.0f);
      }
    }
  }
}

}  // namespace

Status launch_prefill_plain(const char* op, const PrefillParams& a, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(int64_t{a.max_tiles} * a.p.heads);
  return dispatch_float(a.p.dtype, op, [&]<class T>() {
    return dispatch_cache(a.p.kv_dtype, op, [&]<class KV>() {
      prefill_plain<device_t<T>, device_t<KV>><<<blocks, 32 * kWarps, 0, stream>>>(a);
      return launch_status(op);
    });
  });
}

}  // namespace mmcore::cuda
