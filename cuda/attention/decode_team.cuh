// The blocks of a unit that lie in one cluster: their sums meet in distributed shared memory.
//
// Every block leaves its part in its own shared memory; after a barrier of the cluster each reads
// all parts of some of the rows' dims, in their order, and writes those to the output; after
// another one the blocks may leave. All blocks of all clusters take part in both barriers wherever
// a plan has teams, also those without work.
#pragma once

#include "attention/decode_unit.cuh"
#include "device/cluster.cuh"

namespace mmcore::cuda {

/// A block's part: rows [rows, head_dim], and the maximum and sum of weights of each.
struct TeamPart {
  float* values;
  float2* sums;
};

/// For blocks that have no part.
__device__ __forceinline__ void pass_team() {
  cluster_barrier();
  cluster_barrier();
}

template <class T>
__device__ __forceinline__ void merge_team(const DecodeParams& p, const DecodeUnit& u,
                                           const TeamPart& own, int team) {
  cluster_barrier();
  const int rank = static_cast<int>(blockIdx.x) % team;
  const int first = static_cast<int>(blockIdx.x) % ops::kDecodeCluster - rank;
  const int threads = static_cast<int>(blockDim.x), quads = p.head_dim / 4;
  if (rank < u.parts) {
    for (int i = rank * threads + static_cast<int>(threadIdx.x); i < u.rows * quads;
         i += u.parts * threads) {
      const int row = i / quads, dim = (i - row * quads) * 4;
      float2 of_part[ops::kDecodeCluster];
      float4 x[ops::kDecodeCluster];
      float top = kNoScore;
#pragma unroll
      for (int k = 0; k < ops::kDecodeCluster; ++k) {
        of_part[k] = make_float2(kNoScore, 0.0f);
        x[k] = float4{};
        if (k < u.parts) {
          of_part[k] = *in_block(own.sums + row, first + k);
          x[k] = *in_block(reinterpret_cast<const float4*>(own.values + row * p.head_dim + dim),
                           first + k);
        }
      }
#pragma unroll
      for (int k = 0; k < ops::kDecodeCluster; ++k) top = fmaxf(top, of_part[k].x);
      float4 sum{};
      float weights = 0;
#pragma unroll
      for (int k = 0; k < ops::kDecodeCluster; ++k) {
        const float factor = exp2f(of_part[k].x - top);
        sum.x += factor * x[k].x;
        sum.y += factor * x[k].y;
        sum.z += factor * x[k].z;
        sum.w += factor * x[k].w;
        weights += factor * of_part[k].y;
      }
      write_output<T>(p, u, row, dim, sum, weights);
    }
  }
  cluster_barrier();
}

}  // namespace mmcore::cuda
