#include "attention/prefill.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

#include "attention/prefill_maps.h"
#include "attention/prefill_params.h"
#include "host/device.h"

namespace mmcore::cuda {
namespace {

constexpr double kLog2E = 1.4426950408889634;

ScoreScale score_scale(const ops::AttentionProblem& p) {
  if (p.soft_cap > 0.0f) {
    return {.multiplier = 1.0f,
            .factor = 1.0f,
            .cap_in = p.scale / p.soft_cap,
            .cap_out = static_cast<float>(p.soft_cap * kLog2E),
            .transform = true};
  }
  const auto scale = static_cast<float>(p.scale * kLog2E);
  // The maximum is taken before the multiplication, which must keep the order.
  if (p.scale > 0.0f) return {scale, 1.0f, 0.0f, 0.0f, false};
  return {1.0f, scale, 0.0f, 0.0f, true};
}

bool multiple_of_16_bytes(const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; }

bool vectors(const ops::KvRows& rows, int32_t kv_heads) {
  return multiple_of_16_bytes(rows.data) && rows.block_stride % 8 == 0 &&
         rows.row_stride % 8 == 0 && (kv_heads == 1 || rows.head_stride % 8 == 0);
}

}  // namespace

PrefillParams prefill_params(const ops::AttentionProblem& p) {
  const auto rows = [&](const void* data, int64_t row_stride, int64_t head_stride) {
    return multiple_of_16_bytes(data) && row_stride % 8 == 0 &&
           (p.heads == 1 || head_stride % 8 == 0);
  };
  return {.p = p,
          .tiles = nullptr,
          .count = nullptr,
          .max_tiles = 0,
          .cuts = {},
          .query_rows = 0,
          .key_rows = 0,
          .score = score_scale(p),
          .vector_q = rows(p.q, p.q_row_stride, p.q_head_stride),
          .vector_kv = vectors(p.k, p.kv_heads) && vectors(p.v, p.kv_heads),
          .vector_out = rows(p.out, p.out_row_stride, p.out_head_stride)};
}

Status launch_attention(const char* op, const PrefillParams& a, cudaStream_t stream) {
  const ops::AttentionProblem& p = a.p;
  if (a.max_tiles <= 0 || p.sequences <= 0 || p.heads <= 0) return {};
  if (int64_t{a.max_tiles} * p.heads > std::numeric_limits<int32_t>::max()) {
    return Status::invalid_argument(std::string(op) + ": " + std::to_string(a.max_tiles) +
                                    " tiles of queries times " + std::to_string(p.heads) +
                                    " heads are more than a grid holds; use smaller batches");
  }
  const bool e4m3 = p.kv_dtype == DType::kFloat8E4M3;
  if (p.dtype == DType::kFloat32 || (p.kv_dtype != p.dtype && !e4m3)) {
    return launch_prefill_plain(op, a, stream);
  }
  int device = 0;
  MMCORE_RETURN_IF_ERROR(cuda_status(op, cudaGetDevice(&device)));
  const Result<const DeviceFacts*> facts = device_facts({DeviceType::kCuda, device});
  MMCORE_RETURN_IF_ERROR(facts.status());
  const auto launch = [&]<int D>() {
    const DeviceFacts& f = *facts.value();
    const bool hopper = f.capability == 90 && attention_maps_possible(a);
    if (e4m3) {
      if constexpr (D % 16 == 0) {
        if (hopper) return launch_prefill_wgmma_e4m3<D>(op, a, f, stream);
      }
      return launch_prefill_e4m3<D>(op, a, stream);
    }
    return hopper ? launch_prefill_wgmma<D>(op, a, f, stream)
                  : launch_prefill_mma<D>(op, a, stream);
  };
  switch (p.head_dim) {
    case 32:
      return launch.operator()<32>();
    case 64:
      return launch.operator()<64>();
    case 72:
      return launch.operator()<72>();
    case 80:
      return launch.operator()<80>();
    case 96:
      return launch.operator()<96>();
    case 128:
      return launch.operator()<128>();
    case 256:
      return launch.operator()<256>();
    default:
      return Status::unsupported(std::string(op) + ": no CUDA kernel for head dim " +
                                 std::to_string(p.head_dim));
  }
}

Status launch_prefill(const ops::AttentionProblem& problem, const PrefillWork& work,
                      cudaStream_t stream) {
  PrefillParams params = prefill_params(problem);
  params.tiles = work.tiles;
  params.count = work.count;
  params.max_tiles = work.max_tiles;
  params.query_rows = work.query_rows;
  params.cuts = work.cuts;
  return launch_attention("paged_attention", params, stream);
}

}  // namespace mmcore::cuda
