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

/// What a thread has of a part: its sums of weighted values, and maxima and sums of weights of its
/// two rows.
template <int D>
struct PartSums {
  static constexpr int kVectors = D / 8;
  float4 values[kVectors];
  float4 rows;  // two maxima, two sums

  __device__ __forceinline__ void load(const float4* from) {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) values[i] = __ldcg(from + i * kGroup);
    rows = __ldcg(from + kVectors * kGroup);
  }
  __device__ __forceinline__ void store(float4* to) const {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) __stcg(to + i * kGroup, values[i]);
    __stcg(to + kVectors * kGroup, rows);
  }
};

/// Adds kCount parts at once, in their order.
template <int D, int kCount>
__device__ __forceinline__ void add_parts(const PartSums<D> (&parts)[kCount], float (&o)[D / 2],
                                          SoftmaxRows& all) {
  float top[2] = {all.top[0], all.top[1]};
#pragma unroll
  for (int k = 0; k < kCount; ++k) {
    top[0] = fmaxf(top[0], parts[k].rows.x);
    top[1] = fmaxf(top[1], parts[k].rows.y);
  }
  // A part that sees no keys of a row has nothing of it.
  const auto factor = [&](float of, int row) {
    return of == -INFINITY ? 0.0f : exp2_fast(of - top[row]);
  };
  const float before[2] = {factor(all.top[0], 0), factor(all.top[1], 1)};
  rescale_rows(o, before);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    all.sum[r] *= before[r];
    all.top[r] = top[r];
  }
#pragma unroll
  for (int k = 0; k < kCount; ++k) {
    const PartSums<D>& part = parts[k];
    const float own[2] = {factor(part.rows.x, 0), factor(part.rows.y, 1)};
    all.sum[0] += part.rows.z * own[0];
    all.sum[1] += part.rows.w * own[1];
#pragma unroll
    for (int i = 0; i < PartSums<D>::kVectors; ++i) {
      o[4 * i] += part.values[i].x * own[0];
      o[4 * i + 1] += part.values[i].y * own[0];
      o[4 * i + 2] += part.values[i].z * own[1];
      o[4 * i + 3] += part.values[i].w * own[1];
    }
  }
}

/// A warpgroup's 64 rows of an item of several parts: leaves its sums for the others and counts
/// itself in. True in the last that arrives, which then has the sums of all, in the order of parts.
/// Within a group a place is the same thread's in all of them. `last` is the group's own.
template <int D>
__device__ __forceinline__ bool merge_parts(const PrefillCuts& cuts, const WorkItem& item,
                                            float (&o)[D / 2], SoftmaxRows& softmax, int group,
                                            bool* last) {
  constexpr int64_t kGroupFloats = ops::prefill_slot_floats(D) / 2;
  constexpr int kTogether = D > 64 ? 2 : 4;  // loads of as many parts are under way at once
  const int thread = static_cast<int>(threadIdx.x) % kGroup;
  const auto worker = static_cast<int32_t>(blockIdx.x);
  int32_t* const counter = cuts.counters + 2 * item.first_worker + group;
  const auto place = [&](int32_t of_worker) {
    const int64_t half = 2 * int64_t{ops::prefill_slot(of_worker, item.first_worker)} + group;
    return reinterpret_cast<float4*>(cuts.partials + half * kGroupFloats) + thread;
  };
  PartSums<D> own;
#pragma unroll
  for (int i = 0; i < PartSums<D>::kVectors; ++i) {
    own.values[i] = make_float4(o[4 * i], o[4 * i + 1], o[4 * i + 2], o[4 * i + 3]);
  }
  own.rows = make_float4(softmax.top[0], softmax.top[1], softmax.sum[0], softmax.sum[1]);

  // The first worker is at the end of its stretch, where the others of an item of two parts were at
  // the beginning of theirs: it need not write what it would read again.
  bool alone = false;
  if (worker == item.first_worker) {
    if (thread == 0) {
      int32_t arrived;
      asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(arrived) : "l"(counter) : "memory");
      *last = arrived == item.parts - 1;
    }
    hopper::named_sync(3 + group, kGroup);
    alone = __any_sync(kFullWarp, *last);  // the same in all threads; the compiler may know it
    hopper::named_sync(3 + group, kGroup);
  }
  if (!alone) {
    own.store(place(worker));
    hopper::named_sync(3 + group, kGroup);
    if (thread == 0) {
      // For the whole group, whose writes the barrier has put before it.
      int32_t before;
      asm volatile("atom.acq_rel.gpu.global.add.s32 %0, [%1], 1;"
                   : "=r"(before)
                   : "l"(counter)
                   : "memory");
      *last = before == item.parts - 1;
    }
    hopper::named_sync(3 + group, kGroup);
    if (!__any_sync(kFullWarp, *last)) return false;
  }
  if (thread == 0) *counter = 0;

#pragma unroll
  for (float& value : o) value = 0.0f;
  softmax = {};
  int32_t part = 0;
  if (worker == item.first_worker) {
    add_parts<D, 1>({own}, o, softmax);
    part = 1;
  } else {
    PartSums<D> first[1];
    first[0].load(place(item.first_worker));
    add_parts<D, 1>(first, o, softmax);
    part = 1;
  }
  for (; part < item.parts; part += kTogether) {
    PartSums<D> parts[kTogether];
#pragma unroll
    for (int k = 0; k < kTogether; ++k) {
      // One that is not there is another once more, with no weight.
      const bool there = part + k < item.parts;
      parts[k].load(place(item.first_worker + (there ? part + k : part)));
      if (!there) parts[k].rows = make_float4(-INFINITY, -INFINITY, 0.0f, 0.0f);
    }
    add_parts<D, kTogether>(parts, o, softmax);
  }
  return true;
}

}  // namespace wgmma
}  // namespace mmcore::cuda
