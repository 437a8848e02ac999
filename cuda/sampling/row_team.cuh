// The blocks that work on one row: one, or a cluster of several where rows are few.
//
// Every block of a team takes the same decisions from the same numbers; only tiles are divided, and
// what is found in them is exchanged through distributed shared memory. Sums over a team are sums
// of integers: a row's result does not depend on how many blocks there are.
#pragma once

#include "device/cluster.cuh"
#include "sampling/row_block.cuh"

namespace mmcore::cuda {

/// Blocks of a team that has several; the largest cluster that every Hopper launches.
inline constexpr int kTeamBlocks = 8;

template <int kSize>
class RowTeam {
 public:
  static constexpr int kBlocks = kSize;
  static constexpr int kWarps = kBlocks * kRowThreads / 32;

  __device__ explicit RowTeam(RowBlock& block) : block_(block) {}

  __device__ RowBlock& block() const { return block_; }
  __device__ int rank() const {
    if constexpr (kBlocks == 1) {
      return 0;
    } else {
      return static_cast<int>(blockIdx.x % kBlocks);
    }
  }
  __device__ int warp() const {
    return rank() * (kRowThreads / 32) + (static_cast<int>(threadIdx.x) >> 5);
  }

  /// A barrier of all threads of the team, behind which all see what each has written.
  __device__ void sync() const {
    if constexpr (kBlocks == 1) {
      __syncthreads();
    } else {
      cluster_barrier();
    }
  }

  /// What lies at `shared` in the shared memory of block `rank`.
  template <class V>
  __device__ V* of(int rank, V* shared) const {
    if constexpr (kBlocks == 1) {
      return shared;
    } else {
      return in_block(shared, rank);
    }
  }

 private:
  RowBlock& block_;
};

}  // namespace mmcore::cuda
