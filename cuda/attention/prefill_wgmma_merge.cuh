// Items that several blocks share: what each of them leaves for the others, and their merge.
#pragma once

#include <cstdint>

#include "attention/prefill_params.h"
#include "attention/prefill_softmax.cuh"
#include "attention/prefill_wgmma_shape.cuh"
#include "device/hopper.cuh"
#include "device/reduce.cuh"

namespace mmcore::cuda {
namespace wgmma {

/// A warpgroup's 64 rows of an item of several parts: leaves its sums, of weights and of weighted
/// values, and counts itself in. True in the last that arrives, which then has the sums of all, in
/// the order of parts. Within a group a place is the same thread's in all of them. `last` is the
/// group's own.
template <int D>
__device__ __forceinline__ bool merge_parts(const PrefillCuts& cuts, const WorkItem& item,
                                            float (&o)[D / 2], SoftmaxRows& softmax, int group,
                                            bool* last) {
  constexpr int kSums = D / 8;  // vectors of a thread's
  constexpr int64_t kGroupFloats = ops::prefill_slot_floats(D) / 2;
  const int thread = static_cast<int>(threadIdx.x) % kGroup;
  const auto of_worker = [&](int32_t worker) {
    const int64_t half = 2 * int64_t{ops::prefill_slot(worker, item.first_worker)} + group;
    return reinterpret_cast<float4*>(cuts.partials + half * kGroupFloats) + thread;
  };
  float4* const own = of_worker(static_cast<int32_t>(blockIdx.x));
#pragma unroll
  for (int i = 0; i < kSums; ++i) {
    __stcg(own + i * kGroup, make_float4(o[4 * i], o[4 * i + 1], o[4 * i + 2], o[4 * i + 3]));
  }
  __stcg(own + kSums * kGroup,
         make_float4(softmax.top[0], softmax.top[1], softmax.sum[0], softmax.sum[1]));
  hopper::named_sync(3 + group, kGroup);
  if (thread == 0) {
    int32_t* const counter = cuts.counters + 2 * item.first_worker + group;
    // For the whole group, whose writes the barrier has put before it.
    int32_t before;
    asm volatile("atom.acq_rel.gpu.global.add.s32 %0, [%1], 1;"
                 : "=r"(before)
                 : "l"(counter)
                 : "memory");
    *last = before == item.parts - 1;
    if (*last) *counter = 0;
  }
  hopper::named_sync(3 + group, kGroup);
  // All of a warp read the same. The vote lets the compiler know.
  if (!__any_sync(kFullWarp, *last)) return false;

  SoftmaxRows all;
  for (int32_t part = 0; part < item.parts; ++part) {
    const float4 x = __ldcg(of_worker(item.first_worker + part) + kSums * kGroup);
    all.top[0] = fmaxf(all.top[0], x.x);
    all.top[1] = fmaxf(all.top[1], x.y);
  }
#pragma unroll
  for (float& value : o) value = 0.0f;
  for (int32_t part = 0; part < item.parts; ++part) {
    const float4* const from = of_worker(item.first_worker + part);
    const float4 x = __ldcg(from + kSums * kGroup);
    // A part that sees no keys of a row has nothing of it.
    const float factor[2] = {x.x == -INFINITY ? 0.0f : exp2_fast(x.x - all.top[0]),
                             x.y == -INFINITY ? 0.0f : exp2_fast(x.y - all.top[1])};
    all.sum[0] += x.z * factor[0];
    all.sum[1] += x.w * factor[1];
#pragma unroll
    for (int i = 0; i < kSums; ++i) {
      const float4 y = __ldcg(from + i * kGroup);
      o[4 * i] += y.x * factor[0];
      o[4 * i + 1] += y.y * factor[0];
      o[4 * i + 2] += y.z * factor[1];
      o[4 * i + 3] += y.w * factor[1];
    }
  }
  softmax = all;
  return true;
}

}  // namespace wgmma
}  // namespace mmcore::cuda
